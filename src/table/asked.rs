//! What rules ask, as far as it is the same for many: most ask what others have asked already.

use rustc_hash::FxHashMap;

use crate::program::{Icmp, PortMatch, Rule, Side};

/// Protocols, ICMP, and the ports of both sides, none of which has a name.
pub type Asked<'p> = ([Option<u8>; 2], [Option<Icmp>; 2], [Option<&'p PortMatch>; 4]);

/// Indices of the service and of the source ports of a clause; none where nothing can match.
type Services = Option<(u32, u32)>;

/// Indices that are known, by what was asked.
#[derive(Default)]
pub struct Known<'p> {
    services: FxHashMap<Asked<'p>, Services>,
    /// Address terms of one set, by the number of the set and one; of no set: 0.
    addresses: Vec<Option<u32>>,
}

/// None of a rule with named ports: what they stand for depends on the addresses.
pub fn asked(rule: &Rule) -> Option<Asked<'_>> {
    let Rule { source, destination, .. } = rule;
    let ports = [&source.ports, &source.not_ports, &destination.ports, &destination.not_ports];
    let has_names = ports.iter().any(|ports| ports.as_ref().is_some_and(|ports| !ports.named.is_empty()));
    let protocols = [rule.protocol, rule.not_protocol];
    (!has_names).then(|| (protocols, [rule.icmp, rule.not_icmp], ports.map(Option::as_ref)))
}

impl<'p> Known<'p> {
    /// What rules that ask this have; `None` if none has asked it.
    pub fn services(&self, asked: &Asked<'p>) -> Option<Services> {
        self.services.get(asked).copied()
    }

    /// What rules have that ask this.
    pub fn note_services(&mut self, asked: Asked<'p>, found: Services) {
        self.services.insert(asked, found);
    }

    /// The index of the address term of a side, which is looked for only where it is not known.
    pub fn address(&mut self, side: &Side, find: impl FnOnce() -> u32) -> u32 {
        let place = match (&side.in_sets[..], &side.not_in_sets[..]) {
            ([], []) => 0,
            ([set], []) => set.index() + 1,
            _ => return find(),
        };
        if self.addresses.len() <= place {
            self.addresses.resize(place + 1, None);
        }
        *self.addresses[place].get_or_insert_with(find)
    }
}
