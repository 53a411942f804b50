//! Who rules can speak of: workloads, host endpoints and network sets of the whole cluster, with their addresses,
//! effective labels and named ports (M-20).

use std::borrow::Cow;
use std::ops::Deref;
use std::slice;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::addresses;
use super::error::{CompileError, Place};
use super::held::Held;
use super::holders::Holders;
use super::index::{Kind, LabelIndex, LabelMap};
use crate::flow::protocol;
use crate::model::{Host, NamedPort, NetworkSet, Workload};
use crate::program::{AddressSet, EndpointKind, Net, PortMember, PortSet};
use crate::selector::Selector;

/// What a member is.
pub enum Body<'m> {
    Workload(Held<'m, Workload>),
    Host(Held<'m, Host>),
    Set(Held<'m, NetworkSet>),
}

impl<'m> Body<'m> {
    /// `Kind/namespace/name` or `Kind/name`.
    pub fn key(&self) -> Cow<'m, str> {
        match self {
            Self::Workload(workload) => workload.text(|workload| &workload.name),
            Self::Host(host) => Cow::Owned(format!("HostEndpoint/{}", host.name)),
            Self::Set(set) => set.text(|set| &set.name),
        }
    }

    /// V-68, R-30: a workload without addresses or interface is absent.
    fn is_present(&self) -> bool {
        match self {
            Self::Workload(workload) => !workload.networks.is_empty() && !workload.interface.is_empty(),
            Self::Host(_) | Self::Set(_) => true,
        }
    }

    fn nets(&self) -> Result<Nets, CompileError> {
        type Read = fn(&Place<'_>, &str) -> Result<Net, CompileError>;
        let (field, texts, read): (_, _, Read) = match self {
            _ if !self.is_present() => return Ok(Nets::default()),
            Self::Workload(workload) => ("spec.ipNetworks", &workload.networks, addresses::single),
            Self::Host(host) => ("spec.expectedIPs", &host.addresses, addresses::single),
            Self::Set(set) => ("spec.nets", &set.nets, addresses::net),
        };
        let key = self.key();
        let place = Place::new(&key, field);
        if let [text] = &texts[..] {
            return Ok(Nets::One(read(&place, text)?));
        }
        Ok(Nets::Many(texts.iter().map(|text| read(&place, text)).collect::<Result<_, _>>()?))
    }

    fn labels(&self) -> (&LabelMap, &[String]) {
        match self {
            Self::Workload(workload) => (&workload.labels, &workload.profiles),
            Self::Host(host) => (&host.labels, &host.profiles),
            Self::Set(set) => (&set.labels, &set.profiles),
        }
    }

    fn ports(&self) -> &[NamedPort] {
        match self {
            Self::Workload(workload) => &workload.ports,
            Self::Host(host) => &host.ports,
            Self::Set(_) => &[],
        }
    }
}

/// Addresses and prefixes: one, mostly, which stands where it is asked for.
pub enum Nets {
    One(Net),
    Many(Box<[Net]>),
}

impl Default for Nets {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl Deref for Nets {
    type Target = [Net];

    fn deref(&self) -> &[Net] {
        match self {
            Self::One(net) => slice::from_ref(net),
            Self::Many(nets) => nets,
        }
    }
}

/// One of them.
pub struct Member<'m> {
    pub body: Body<'m>,
    pub nets: Nets,
    /// None: it is absent.
    pub kind: Option<usize>,
}

impl<'m> Member<'m> {
    /// Its addresses are read; nobody knows it yet.
    pub fn read(body: Body<'m>) -> Result<Self, CompileError> {
        Ok(Self { nets: body.nets()?, body, kind: None })
    }

    pub fn ports(&self) -> &[NamedPort] {
        self.body.ports()
    }

    /// Where it stands among the endpoints that are enforced, if it is one: those of the node, or without one all
    /// workloads.
    pub fn enforced(&self, node: Option<&str>) -> Option<(EndpointKind, &str)> {
        match &self.body {
            Body::Workload(workload) => {
                let is_local = self.kind.is_some() && node.is_none_or(|node| workload.node == node);
                is_local.then_some((EndpointKind::Workload, workload.name.as_str()))
            }
            Body::Host(host) => {
                (Some(host.node.as_str()) == node).then_some((EndpointKind::Host, host.name.as_str()))
            }
            Body::Set(_) => None,
        }
    }
}

/// All members, numbered.
#[derive(Default)]
pub struct Members<'m> {
    all: Slab<Member<'m>>,
    pub labels: LabelIndex,
    /// Port name to the members that define one.
    ports: FxHashMap<String, Vec<usize>>,
    /// Known from the first removal on.
    holders: Option<Holders>,
}

impl<'m> Members<'m> {
    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        self.all.reserve(more);
    }

    pub fn insert<'p>(
        &mut self,
        mut member: Member<'m>,
        labels_of: impl Fn(&str) -> Option<&'p LabelMap>,
    ) -> usize {
        let id = self.all.vacant_key();
        if member.body.is_present() {
            if let Some(holders) = &mut self.holders {
                holders.insert(id, &member.nets);
            }
            let (own, profiles) = member.body.labels();
            member.kind = Some(self.labels.insert(id, own, profiles, labels_of));
            for port in member.ports() {
                match self.ports.get_mut(&port.name) {
                    Some(members) => members.push(id),
                    None => {
                        self.ports.insert(port.name.clone(), vec![id]);
                    }
                }
            }
        }
        self.all.insert(member)
    }

    /// Also gives its kind, if that is no more.
    pub fn remove(&mut self, id: usize) -> (Member<'m>, Option<usize>) {
        let mut member = self.all.remove(id);
        let mut last_of = None;
        if let Some(kind) = member.kind.take() {
            if let Some(holders) = &mut self.holders {
                holders.remove(id, &member.nets);
            }
            last_of = self.labels.remove(id, kind).then_some(kind);
            for port in member.ports() {
                if let Some(members) = self.ports.get_mut(&port.name) {
                    members.retain(|&other| other != id);
                    if members.is_empty() {
                        self.ports.remove(&port.name);
                    }
                }
            }
        }
        (member, last_of)
    }

    /// The other members that have an address of this one, which has no prefixes, each with that address.
    pub fn sharing(&mut self, id: usize) -> Vec<(Net, usize)> {
        let all = &self.all;
        let holders = self.holders.get_or_insert_with(|| {
            let mut holders = Holders::default();
            for (id, member) in all.iter().filter(|(_, member)| member.kind.is_some()) {
                holders.insert(id, &member.nets);
            }
            holders
        });
        let nets = all[id].nets.iter().copied();
        let shared = nets.flat_map(|net| holders.of(net).map(move |other| (net, other)));
        shared.filter(|&(_, other)| other != id).collect()
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Member<'m>)> {
        self.all.iter()
    }

    pub fn get(&self, id: usize) -> &Member<'m> {
        &self.all[id]
    }

    /// The labels of a member that is present.
    pub fn kind(&self, member: &Member<'_>) -> Option<&Kind> {
        member.kind.map(|kind| self.labels.kind(kind))
    }

    /// M-20: the addresses of all members that satisfy the selector.
    pub fn addresses(&self, selector: &Selector) -> AddressSet {
        let members = self.labels.matching(selector);
        addresses::union(members.flat_map(|member| self.all[member].nets.iter().copied()))
    }

    /// M-25: (address, protocol, port) of all members that satisfy the selector, if one is given, and define a port
    /// of this name.
    pub fn ports(&self, name: &str, rule_protocol: Option<u8>, selector: Option<&Selector>) -> PortSet {
        let meant = |member: usize| named_ports(&self.all[member], name, rule_protocol);
        match selector {
            // Those that the selector requires labels of are few beside those that have a port of a common name.
            Some(selector) => self.labels.matching(selector).flat_map(meant).collect(),
            None => self.ports.get(name).into_iter().flatten().copied().flat_map(meant).collect(),
        }
    }
}

/// M-28: what a name of a port stands for in a member; numbers and names of protocols are the same.
pub fn named_ports(
    member: &Member<'_>,
    name: &str,
    rule_protocol: Option<u8>,
) -> impl Iterator<Item = PortMember> {
    let fits = move |port: &&NamedPort| {
        let has_ports = matches!(port.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        port.name == name && has_ports && rule_protocol.is_none_or(|wanted| wanted == port.protocol)
    };
    let ports = member.ports().iter().filter(fits);
    ports.flat_map(|port| member.nets.iter().map(|net| (net.family, net.first, port.protocol, port.port)))
}
