//! What is no error, and only the compiler sees: policies and host endpoints that do nothing here.

use std::sync::Arc;

use super::selection::{List, Selected};
use crate::program::{Attachment, Endpoint, EndpointKind};

/// Sorted, without duplicates. The endpoints begin with the hosts, and so does what selects them.
pub fn of(endpoints: &[Arc<Endpoint>], selected: &[Selected<'_>]) -> Vec<String> {
    let mut warnings = inactive_hosts(endpoints);
    for (endpoint, selected) in endpoints.iter().zip(selected) {
        if endpoint.attachment == Attachment::Any {
            warnings.extend(selected.enforced(List::Untracked).map(|policy| {
                format!(
                    "{}: untracked policy is ignored on {}, whose interfaceName is `*` (E-47)",
                    policy.key, endpoint.name
                )
            }));
        }
    }
    warnings.sort_unstable();
    warnings.dedup();
    warnings
}

/// E-45, E-46: of those with the same interface name the first governs; endpoints are sorted by name.
fn inactive_hosts(endpoints: &[Arc<Endpoint>]) -> Vec<String> {
    let hosts: Vec<_> = endpoints.iter().take_while(|endpoint| endpoint.kind == EndpointKind::Host).collect();
    let losers = hosts.iter().enumerate().filter_map(|(index, host)| {
        let (interface, rule) = match &host.attachment {
            Attachment::Name(name) => (name.as_str(), "E-45"),
            Attachment::Any => ("*", "E-46"),
            Attachment::Address | Attachment::Remote => return None,
        };
        let winner = hosts[..index].iter().find(|other| other.attachment == host.attachment)?;
        Some(format!(
            "{}: is inactive, {} governs the interfaceName `{interface}` ({rule})",
            host.name, winner.name
        ))
    });
    losers.collect()
}
