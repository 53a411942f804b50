//! The sets of members that rules mean, each made when first asked for and kept up to date as members come and go. A set
//! that a member with prefixes leaves, or one with many addresses, is made anew.

use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::addresses;
use super::index::{LabelMap, SelectorIndex};
use super::members::{Member, Members, named_ports};
use super::shared::{Shared, Sum, part};
use crate::program::{AddressSet, Net, PortMatch, PortMember, PortSet};
use crate::selector::Selector;

/// Addresses of a member that are put into sets, or taken out, one by one: each copies the set.
const FEW: usize = 16;

/// A name of a port, the protocol of the rule, and who of those that define it is meant (M-25, M-27).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NamedPorts {
    pub name: String,
    pub protocol: Option<u8>,
    pub of: Option<Selector>,
}

/// A set by what it means; none is known where it has to be made.
struct Entry<K, T> {
    key: K,
    set: Option<Shared<T>>,
    /// The last compile that it was part of.
    used: u64,
}

/// Sets by what they mean.
struct Registry<K, T> {
    entries: Slab<Entry<K, T>>,
    ids: FxHashMap<K, usize>,
    /// Those that have other members than in the last compile.
    changed: Vec<usize>,
}

impl<K, T> Default for Registry<K, T> {
    fn default() -> Self {
        Self { entries: Slab::new(), ids: FxHashMap::default(), changed: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash, T: Sum> Registry<K, T> {
    /// Also says whether it is new.
    fn id(&mut self, key: &K) -> (usize, bool) {
        if let Some(&id) = self.ids.get(key) {
            return (id, false);
        }
        let id = self.entries.insert(Entry { key: key.clone(), set: None, used: 0 });
        self.ids.insert(key.clone(), id);
        (id, true)
    }

    fn get(&mut self, id: usize, now: u64, make: impl FnOnce(&K) -> T) -> Shared<T> {
        let Entry { key, set, used } = &mut self.entries[id];
        *used = now;
        set.get_or_insert_with(|| Shared::new(make(key))).clone()
    }

    /// Forgets what is no part of the compile at hand.
    fn sweep(&mut self, now: u64, mut forgotten: impl FnMut(usize, &K)) {
        self.changed.clear();
        self.entries.retain(|id, Entry { key, used, .. }| {
            let is_used = *used == now;
            if !is_used {
                self.ids.remove(key);
                forgotten(id, key);
            }
            is_used
        });
    }
}

/// Ports by how they are written.
type Ports = FxHashMap<Box<[(u16, u16)]>, Arc<PortMatch>>;

/// All that rules in use mean.
#[derive(Default)]
pub struct Sets {
    /// What rules that are read in the compile at hand share.
    numeric: Ports,
    members: Registry<Selector, AddressSet>,
    ports: Registry<NamedPorts, PortSet>,
    by_selector: SelectorIndex,
}

impl Sets {
    /// The set of the members that satisfy a selector.
    pub fn of_members(&mut self, selector: &Selector) -> usize {
        let (id, is_new) = self.members.id(selector);
        if is_new {
            self.by_selector.insert(selector, id);
        }
        id
    }

    /// The set of those who listen on a name.
    pub fn of_ports(&mut self, named: &NamedPorts) -> usize {
        self.ports.id(named).0
    }

    /// A compile begins: what rules of the one before shared is of no more use, whether that came to an end or not.
    pub fn begin(&mut self) {
        self.numeric = Ports::default();
    }

    /// Ports without names, as they are written; `merged` makes of them what they mean.
    pub fn of_numbers<E>(
        &mut self,
        ranges: &[(u16, u16)],
        merged: impl FnOnce() -> Result<Vec<(u16, u16)>, E>,
    ) -> Result<Arc<PortMatch>, E> {
        if let Some(known) = self.numeric.get(ranges) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(PortMatch { ranges: merged()?, named: Vec::new() });
        self.numeric.insert(ranges.into(), Arc::clone(&made));
        Ok(made)
    }

    pub fn address_set(&mut self, id: usize, now: u64, members: &Members<'_>) -> Shared<AddressSet> {
        self.members.get(id, now, |selector| members.addresses(selector))
    }

    pub fn port_set(&mut self, id: usize, now: u64, members: &Members<'_>) -> Shared<PortSet> {
        self.ports.get(id, now, |named| members.ports(&named.name, named.protocol, named.of.as_ref()))
    }

    /// Forgets the sets that are no part of the compile at hand.
    pub fn sweep(&mut self, now: u64) {
        self.members.sweep(now, |id, selector| self.by_selector.remove(selector, id));
        self.ports.sweep(now, |_, _| {});
    }

    /// The sets, of members and of ports, that have other members than in the last compile.
    pub fn changed(&mut self) -> [Vec<usize>; 2] {
        [&mut self.members.changed, &mut self.ports.changed].map(|changed| {
            let mut changed = std::mem::take(changed);
            changed.sort_unstable();
            changed.dedup();
            changed
        })
    }

    fn is_empty(&self) -> bool {
        self.members.entries.is_empty() && self.ports.entries.is_empty()
    }

    /// A member with these labels has come.
    pub fn joined(&mut self, member: &Member<'_>, labels: &LabelMap) {
        if self.is_empty() {
            return;
        }
        if member.nets.len() > FEW {
            return self.forget(member, labels);
        }
        let Registry { entries, changed, .. } = &mut self.members;
        for id in self.by_selector.candidates(labels) {
            let Entry { key, set, .. } = &mut entries[id];
            if let Some(known) = set
                && key.matches(labels)
                && let Some(larger) = addresses::with(known, &member.nets)
            {
                *known = larger;
                changed.push(id);
            }
        }
        let Registry { entries, changed, .. } = &mut self.ports;
        for (id, Entry { key, set, .. }) in entries {
            if let Some(known) = set
                && defines(member, labels, key)
                && let Some(larger) = ports_with(known, named_ports(member, &key.name, key.protocol))
            {
                *known = larger;
                changed.push(id);
            }
        }
    }

    /// A member is about to go. What others of a set have too stays in the set.
    pub fn leaves(&mut self, id: usize, members: &mut Members<'_>) {
        if self.is_empty() || members.get(id).kind.is_none() {
            return;
        }
        let nets = &members.get(id).nets;
        // Of prefixes, a part may stay.
        if nets.len() > FEW || !nets.iter().all(Net::is_single) {
            let member = members.get(id);
            return self.forget(member, labels_of(members, member));
        }
        let shared: Vec<(Net, usize)> = members.sharing(id);
        let members = &*members;
        let member = members.get(id);
        let labels = labels_of(members, member);
        let Registry { entries, changed, .. } = &mut self.members;
        for id in self.by_selector.candidates(labels) {
            let Entry { key, set, .. } = &mut entries[id];
            let Some(known) = set.take_if(|_| key.matches(labels)) else { continue };
            let stays = |net: &Net| {
                let mut others = shared.iter().filter(|(shared, _)| shared == net);
                others.any(|(_, other)| key.matches(labels_of(members, members.get(*other))))
            };
            let without = |set, net| addresses::without(&set, net).unwrap_or(set);
            *set = Some(member.nets.iter().filter(|net| !stays(net)).fold(known, without));
            changed.push(id);
        }
        let Registry { entries, changed, .. } = &mut self.ports;
        for (id, Entry { key, set, .. }) in entries {
            let Some(known) = set.take_if(|_| defines(member, labels, key)) else { continue };
            let others = shared.iter().map(|(_, other)| members.get(*other));
            let others = others.filter(|other| defines(other, labels_of(members, other), key));
            let stay: Vec<_> = others.flat_map(|other| named_ports(other, &key.name, key.protocol)).collect();
            let gone = named_ports(member, &key.name, key.protocol).filter(|port| !stay.contains(port));
            *set = Some(ports_without(&known, gone).unwrap_or(known));
            changed.push(id);
        }
    }

    /// Members had these labels and have others now, or the other way round.
    pub fn relabelled(&mut self, labels: &LabelMap) {
        self.forget_members(labels);
        let Registry { entries, changed, .. } = &mut self.ports;
        for (id, Entry { key, set, .. }) in entries {
            if key.of.as_ref().is_some_and(|selector| selector.matches(labels)) {
                *set = None;
                changed.push(id);
            }
        }
    }

    /// What a member comes to or leaves is made anew.
    fn forget(&mut self, member: &Member<'_>, labels: &LabelMap) {
        self.forget_members(labels);
        let Registry { entries, changed, .. } = &mut self.ports;
        for (id, Entry { key, set, .. }) in entries {
            if set.is_some() && defines(member, labels, key) {
                *set = None;
                changed.push(id);
            }
        }
    }

    fn forget_members(&mut self, labels: &LabelMap) {
        let Registry { entries, changed, .. } = &mut self.members;
        for id in self.by_selector.candidates(labels) {
            let Entry { key, set, .. } = &mut entries[id];
            if set.is_some() && key.matches(labels) {
                *set = None;
                changed.push(id);
            }
        }
    }
}

fn labels_of<'a>(members: &'a Members<'_>, member: &Member<'_>) -> &'a LabelMap {
    &members.kind(member).expect("it is present").labels
}

fn defines(member: &Member<'_>, labels: &LabelMap, wanted: &NamedPorts) -> bool {
    member.ports().iter().any(|port| port.name == wanted.name)
        && wanted.of.as_ref().is_none_or(|selector| selector.matches(labels))
}

/// The set with more members; none if it has them all.
fn ports_with(set: &Shared<PortSet>, more: impl Iterator<Item = PortMember>) -> Option<Shared<PortSet>> {
    let (more, known): (PortSet, _) = (more.collect(), set.get());
    let (v4, v6) = (grown(&known.v4, &more.v4), grown(&known.v6, &more.v6));
    changed(set, v4, v6)
}

/// The set without these; none if it has none of them.
fn ports_without(set: &Shared<PortSet>, gone: impl Iterator<Item = PortMember>) -> Option<Shared<PortSet>> {
    let (gone, known): (PortSet, _) = (gone.collect(), set.get());
    let (v4, v6) = (shrunk(&known.v4, &gone.v4), shrunk(&known.v6, &gone.v6));
    changed(set, v4, v6)
}

/// Members after a change, and what that has made of their sum; none: nothing.
type Changed<T> = Option<(Vec<T>, u64)>;

fn changed(
    set: &Shared<PortSet>,
    v4: Changed<(u32, u8, u16)>,
    v6: Changed<(u128, u8, u16)>,
) -> Option<Shared<PortSet>> {
    if v4.is_none() && v6.is_none() {
        return None;
    }
    let (v4, of_v4) = v4.unwrap_or_else(|| (set.get().v4.clone(), 0));
    let (v6, of_v6) = v6.unwrap_or_else(|| (set.get().v6.clone(), 0));
    Some(set.after(PortSet { v4, v6 }, of_v4.wrapping_add(of_v6)))
}

/// Both sorted, without duplicates.
fn grown<T: Copy + Ord + Hash>(known: &[T], more: &[T]) -> Changed<T> {
    let new: Vec<T> = more.iter().copied().filter(|member| known.binary_search(member).is_err()).collect();
    if new.is_empty() {
        return None;
    }
    let change = new.iter().map(part).fold(0, u64::wrapping_add);
    let mut members = Vec::with_capacity(known.len() + new.len());
    let mut rest = known;
    for member in new {
        let (before, behind) = rest.split_at(rest.partition_point(|other| *other < member));
        members.extend_from_slice(before);
        members.push(member);
        rest = behind;
    }
    members.extend_from_slice(rest);
    Some((members, change))
}

/// Both sorted, without duplicates.
fn shrunk<T: Copy + Ord + Hash>(known: &[T], gone: &[T]) -> Changed<T> {
    let places: Vec<usize> = gone.iter().filter_map(|member| known.binary_search(member).ok()).collect();
    if places.is_empty() {
        return None;
    }
    let change = places.iter().map(|&place| part(&known[place])).fold(0, u64::wrapping_sub);
    let mut members = Vec::with_capacity(known.len());
    let mut from = 0;
    for place in places {
        members.extend_from_slice(&known[from..place]);
        from = place + 1;
    }
    members.extend_from_slice(&known[from..]);
    Some((members, change))
}
