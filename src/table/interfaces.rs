//! Which endpoint governs an interface at which hook (E-45..E-47).

use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::IpAddr;

use rustc_hash::FxHashMap;

use crate::flow::{EndpointId, InterfaceId};
use crate::model::HostFacts;
use crate::program::{Attachment, EndpointKind, Program};

/// What an interface is to workload policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadSide {
    /// Not a workload interface.
    Host,
    /// A workload interface (by prefix) that no workload of ours has.
    Unknown,
    /// This workload's interface.
    Known(EndpointId),
}

impl WorkloadSide {
    /// The workload, if it is one of ours.
    pub const fn known(self) -> Option<EndpointId> {
        match self {
            Self::Known(id) => Some(id),
            Self::Unknown | Self::Host => None,
        }
    }
}

/// The endpoints that govern one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Governors {
    /// Workload policy.
    pub workload: WorkloadSide,
    /// Host endpoint in filter INPUT and OUTPUT and mangle POSTROUTING.
    pub normal: Option<EndpointId>,
    /// Host endpoint in filter FORWARD.
    pub forward: Option<EndpointId>,
    /// Host endpoint in raw; it has untracked policy.
    pub untracked: Option<EndpointId>,
    /// Host endpoint in mangle PREROUTING; it has preDNAT policy.
    pub prednat: Option<EndpointId>,
}

const NOBODY: Governors =
    Governors { workload: WorkloadSide::Host, normal: None, forward: None, untracked: None, prednat: None };

/// The name whose packets never leave the host; E-47 lets a `*` host endpoint be kept off it.
const LOOPBACK: &str = "lo";

/// All interfaces that a table tells apart. The first three ids are fixed: none, an unknown workload interface, an
/// interface that nobody names.
#[derive(Debug)]
pub struct Interfaces {
    ids: FxHashMap<String, InterfaceId>,
    governors: Vec<Governors>,
    workload_prefixes: Vec<String>,
}

const UNKNOWN_WORKLOAD: InterfaceId = InterfaceId(1);
const UNNAMED: InterfaceId = InterfaceId(2);

impl Interfaces {
    /// Resolves every name that the host or an endpoint has.
    pub fn resolve(program: &Program, host: &HostFacts) -> Self {
        let resolver = Resolver::new(program, host);
        let mut interfaces = Self {
            ids: FxHashMap::default(),
            governors: vec![
                NOBODY,
                Governors { workload: WorkloadSide::Unknown, ..resolver.govern(None, true) },
                resolver.govern(None, false),
            ],
            workload_prefixes: host.workload_prefixes.clone(),
        };
        for name in resolver.names() {
            let id = u32::try_from(interfaces.governors.len()).expect("a host has far fewer interfaces");
            interfaces.governors.push(resolver.govern(Some(name), interfaces.is_workload(name)));
            interfaces.ids.insert(name.to_owned(), InterfaceId(id));
        }
        interfaces
    }

    /// Endpoints with an interface that policy does not govern for them, sorted.
    pub fn warnings(&self, program: &Program) -> Vec<String> {
        let losers = program.endpoints.iter().enumerate().filter_map(|(index, endpoint)| {
            let Attachment::Name(interface) = &endpoint.attachment else {
                return None;
            };
            let governors = self.governors(self.id(interface));
            let why = match (endpoint.kind, governors.workload) {
                (EndpointKind::Host, WorkloadSide::Host) => return None,
                (EndpointKind::Host, _) => "is a workload interface by its prefix (E-45)".to_owned(),
                (EndpointKind::Workload, WorkloadSide::Known(winner)) if winner.index() != index => {
                    format!("is that of {}", program.endpoint(winner).name)
                }
                (EndpointKind::Workload, WorkloadSide::Known(_)) => return None,
                (EndpointKind::Workload, _) => {
                    format!(
                        "is no workload interface: it begins with none of {}",
                        self.workload_prefixes.join(", ")
                    )
                }
            };
            Some(format!("{}: is inactive, its interface `{interface}` {why}", endpoint.name))
        });
        let mut warnings: Vec<_> = losers.collect();
        warnings.sort_unstable();
        warnings
    }

    /// The id of a name, listed or not.
    pub fn id(&self, name: &str) -> InterfaceId {
        match self.ids.get(name) {
            Some(&id) => id,
            None if self.is_workload(name) => UNKNOWN_WORKLOAD,
            None => UNNAMED,
        }
    }

    /// Who governs an interface of this table.
    pub fn governors(&self, id: InterfaceId) -> &Governors {
        &self.governors[id.0 as usize]
    }

    /// By interface; the first one is none, which nobody governs.
    pub fn all(&self) -> &[Governors] {
        &self.governors
    }

    /// The governors of an interface that neither the host nor an endpoint names.
    pub fn unnamed(&self) -> &Governors {
        self.governors(UNNAMED)
    }

    /// Every listed name with its governors, sorted by name.
    pub fn listed(&self) -> Vec<(&str, &Governors)> {
        let mut listed: Vec<_> =
            self.ids.iter().map(|(name, &id)| (name.as_str(), self.governors(id))).collect();
        listed.sort_unstable_by_key(|&(name, _)| name);
        listed
    }

    fn is_workload(&self, name: &str) -> bool {
        self.workload_prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }
}

/// Who governs what, by the names and addresses that endpoints have: each is looked at once, not for every interface.
struct Resolver<'a> {
    program: &'a Program,
    host: &'a HostFacts,
    hosts: FxHashMap<&'a str, EndpointId>,
    workloads: FxHashMap<&'a str, EndpointId>,
    expecting: FxHashMap<IpAddr, EndpointId>,
    any: Option<EndpointId>,
}

impl<'a> Resolver<'a> {
    fn new(program: &'a Program, host: &'a HostFacts) -> Self {
        let (hosts, workloads, expecting) = Default::default();
        let mut found = Self { program, host, hosts, workloads, expecting, any: None };
        for (index, endpoint) in program.endpoints.iter().enumerate() {
            let id = EndpointId::new(index);
            match (&endpoint.attachment, endpoint.kind) {
                (Attachment::Name(name), EndpointKind::Host) => claim(program, &mut found.hosts, name, id),
                (Attachment::Name(name), EndpointKind::Workload) => {
                    claim(program, &mut found.workloads, name, id);
                }
                (Attachment::Address, EndpointKind::Host) => {
                    for &address in &endpoint.addresses {
                        claim(program, &mut found.expecting, address, id);
                    }
                }
                (Attachment::Any, _) => found.any = smallest(program, found.any.into_iter().chain([id])),
                (Attachment::Remote, _) | (Attachment::Address, EndpointKind::Workload) => {}
            }
        }
        found
    }

    fn names(&self) -> BTreeSet<&'a str> {
        let attached = self.program.endpoints.iter().filter_map(|endpoint| match &endpoint.attachment {
            Attachment::Name(name) => Some(name.as_str()),
            _ => None,
        });
        self.host.interfaces.keys().map(String::as_str).chain(attached).chain([LOOPBACK]).collect()
    }

    /// Applies the table of E-47.
    fn govern(&self, name: Option<&str>, is_workload: bool) -> Governors {
        let exempt = name == Some(LOOPBACK) && self.program.settings.exempt_loopback;
        let any = self.any.filter(|_| !exempt);
        let own = name.filter(|_| !is_workload).and_then(|name| self.specific_host(name));
        let with_prednat = |id: &EndpointId| self.program.endpoint(*id).prednat.is_some();
        Governors {
            workload: match name {
                Some(name) if is_workload => {
                    self.workloads.get(name).map_or(WorkloadSide::Unknown, |&id| WorkloadSide::Known(id))
                }
                _ => WorkloadSide::Host,
            },
            normal: own.or(any).filter(|_| !is_workload),
            forward: own.or(any),
            untracked: own.filter(|&id| self.program.endpoint(id).untracked.is_some()),
            prednat: own.filter(with_prednat).or(any.filter(with_prednat)),
        }
    }

    /// E-45: by name, or by an expected address that the interface carries; the smallest name wins.
    fn specific_host(&self, name: &str) -> Option<EndpointId> {
        let carried = self.host.interfaces.get(name).into_iter().flatten();
        let by_address = carried.filter_map(|address| self.expecting.get(address));
        smallest(self.program, self.hosts.get(name).into_iter().chain(by_address).copied())
    }
}

/// Has an endpoint govern what none with a smaller name does.
fn claim<K: Eq + Hash>(program: &Program, governed: &mut FxHashMap<K, EndpointId>, what: K, id: EndpointId) {
    let held = governed.entry(what).or_insert(id);
    if rank(program, id) < rank(program, *held) {
        *held = id;
    }
}

fn smallest(program: &Program, ids: impl Iterator<Item = EndpointId>) -> Option<EndpointId> {
    ids.min_by_key(|&id| rank(program, id))
}

/// E-45, E-46: endpoints go before each other by name.
fn rank(program: &Program, id: EndpointId) -> (&str, &str) {
    let endpoint = program.endpoint(id);
    (&endpoint.short_name, &endpoint.name)
}
