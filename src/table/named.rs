//! What named ports stand for (M-25).

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::program::{AddressSet, PortMember, PortSet, PortSetId};

/// A protocol, a port, and who listens there by a name.
pub type NamedService = (u8, u16, Arc<AddressSet>);

/// What a named port stands for, by (protocol, port).
pub fn named_services(set: &PortSet) -> Vec<NamedService> {
    let mut by_service: FxHashMap<(u8, u16), AddressSet> = FxHashMap::default();
    for (family, address, protocol, port) in set.members() {
        by_service.entry((protocol, port)).or_default().push(family, address);
    }
    let mut services: Vec<_> = by_service.into_iter().collect();
    services.sort_unstable_by_key(|&(service, _)| service);
    services.into_iter().map(|((protocol, port), set)| (protocol, port, Arc::new(set))).collect()
}

/// The same of a set that has other members now, none of which listens where none did before: what has not changed is
/// shared. `None` where that is not so.
pub fn named_services_after(was: &[NamedService], old: &PortSet, new: &PortSet) -> Option<Vec<NamedService>> {
    let (gone, come) = differing(old, new);
    let mut services = was.to_vec();
    let mut changed: Vec<(u8, u16)> =
        gone.iter().chain(&come).map(|&(.., protocol, port)| (protocol, port)).collect();
    changed.sort_unstable();
    changed.dedup();
    for service in changed {
        let known = services.iter_mut().find(|&&mut (protocol, port, _)| (protocol, port) == service)?;
        let is_own = |&(.., protocol, port): &PortMember| (protocol, port) == service;
        if gone.is_empty() {
            for (family, address, ..) in come.iter().copied().filter(is_own) {
                if let Some(larger) = known.2.with(family, address, address) {
                    known.2 = Arc::new(larger);
                }
            }
            continue;
        }
        let mut set = AddressSet::default();
        for (family, address, ..) in new.members().filter(is_own) {
            set.push(family, address);
        }
        if set == AddressSet::default() {
            return None;
        }
        if *known.2 != set {
            known.2 = Arc::new(set);
        }
    }
    Some(services)
}

/// What is between the first and the last member that differ, of the old set and of the new one.
fn differing(old: &PortSet, new: &PortSet) -> (Vec<PortMember>, Vec<PortMember>) {
    fn between<T: PartialEq>(old: &[T], new: &[T]) -> (Range<usize>, Range<usize>) {
        let first = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let (gone, come) = (&old[first..], &new[first..]);
        let same = gone.iter().rev().zip(come.iter().rev()).take_while(|(a, b)| a == b).count();
        (first..old.len() - same, first..new.len() - same)
    }
    let (v4, v6) = (between(&old.v4, &new.v4), between(&old.v6, &new.v6));
    let members = |set: &PortSet, v4: Range<usize>, v6: Range<usize>| {
        let behind = set.v4.len();
        v4.chain(behind + v6.start..behind + v6.end).map(|index| set.member(index)).collect()
    };
    (members(old, v4.0, v6.0), members(new, v4.1, v6.1))
}

/// What the named ports of a program stand for, as far as anybody has asked.
pub type NamedPorts = FxHashMap<PortSetId, Vec<NamedService>>;
