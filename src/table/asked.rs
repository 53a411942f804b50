//! What rules ask of ports and protocols, as far as it is the same for many: most ask what others have asked already.

use std::ptr;
use std::sync::Arc;

use crate::program::{Icmp, PortMatch, Rule};

/// Protocols, ICMP, and the ports of both sides, none of which has a name. Ports by where they are: rules share them.
pub type Asked = ([Option<u8>; 2], [Option<Icmp>; 2], [*const PortMatch; 4]);

/// Indices of the service and of the source ports of a clause; none where nothing can match.
pub type Services = Option<(u32, u32)>;

/// None of a rule with named ports: what they stand for depends on the addresses.
pub fn asked(rule: &Rule) -> Option<Asked> {
    let Rule { source, destination, .. } = rule;
    let ports = [&source.ports, &source.not_ports, &destination.ports, &destination.not_ports];
    let has_names = ports.iter().any(|ports| ports.as_ref().is_some_and(|ports| !ports.named.is_empty()));
    let place = |ports: &Option<Arc<PortMatch>>| ports.as_ref().map_or(ptr::null(), Arc::as_ptr);
    (!has_names).then(|| ([rule.protocol, rule.not_protocol], [rule.icmp, rule.not_icmp], ports.map(place)))
}
