//! Who rules can speak of: workloads, host endpoints and network sets of the whole cluster, with their addresses,
//! effective labels and named ports (M-20).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::addresses;
use super::error::CompileError;
use crate::flow::{address_number, protocol};
use crate::labels::InheritedLabels;
use crate::model::{Model, NamedPort, Workload};
use crate::program::{AddressSet, Net, PortSet};
use crate::selector::Selector;

type LabelMap = BTreeMap<String, String>;

/// One member.
pub struct Member<'a> {
    labels: InheritedLabels<'a>,
    nets: Vec<Net>,
    ports: &'a [NamedPort],
}

/// All members.
pub struct Members<'a> {
    members: Vec<Member<'a>>,
}

/// V-68, R-30: a workload without addresses or interface is absent.
pub fn is_present(workload: &Workload) -> bool {
    !workload.networks.is_empty() && !workload.interface.is_empty()
}

/// Labels by profile name.
pub fn profile_labels(model: &Model) -> BTreeMap<&str, &LabelMap> {
    model.profiles.iter().map(|profile| (profile.name.as_str(), &profile.labels)).collect()
}

/// own labels, then those of the listed profiles that exist.
pub fn effective<'a>(
    own: &'a LabelMap,
    profiles: &[String],
    labels_of: &BTreeMap<&str, &'a LabelMap>,
) -> InheritedLabels<'a> {
    InheritedLabels::new(own, profiles.iter().filter_map(|name| labels_of.get(name.as_str()).copied()))
}

impl<'a> Members<'a> {
    pub fn of(model: &'a Model) -> Result<Self, CompileError> {
        let labels_of = profile_labels(model);
        let mut members = Vec::new();
        let mut add = |name: &str, field, labels, texts: &[String], ports| {
            let nets =
                texts.iter().map(|text| addresses::net(name, field, text)).collect::<Result<_, _>>()?;
            members.push(Member { labels, nets, ports });
            Ok(())
        };
        for workload in model.workloads.iter().filter(|workload| is_present(workload)) {
            let labels = effective(&workload.labels, &workload.profiles, &labels_of);
            add(&workload.name, "ipNetworks", labels, &workload.networks, workload.ports.as_slice())?;
        }
        for host in &model.hosts {
            let labels = effective(&host.labels, &host.profiles, &labels_of);
            let name = format!("HostEndpoint/{}", host.name);
            add(&name, "expectedIPs", labels, &host.addresses, host.ports.as_slice())?;
        }
        for set in &model.network_sets {
            let labels = effective(&set.labels, &set.profiles, &labels_of);
            add(&set.name, "nets", labels, &set.nets, &[])?;
        }
        Ok(Self { members })
    }

    /// M-20: the addresses of all members that satisfy the selector.
    pub fn addresses(&self, selector: &Selector) -> AddressSet {
        addresses::union(self.matching(Some(selector)).flat_map(|member| member.nets.iter().copied()))
    }

    /// M-25: (address, protocol, port) of all members that satisfy the selector, if one is given, and define a port
    /// of this name.
    pub fn ports(&self, name: &str, rule_protocol: Option<u8>, selector: Option<&Selector>) -> PortSet {
        let fits = |port: &&NamedPort| {
            let has_ports = matches!(port.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
            port.name == name && rule_protocol.map_or(has_ports, |wanted| wanted == port.protocol)
        };
        let mut members: Vec<_> = self
            .matching(selector)
            .flat_map(|member| {
                member.ports.iter().filter(fits).flat_map(|port| {
                    member.nets.iter().map(|net| (net.family, net.first, port.protocol, port.port))
                })
            })
            .collect();
        members.sort_unstable();
        members.dedup();
        PortSet { members }
    }

    fn matching(&self, selector: Option<&Selector>) -> impl Iterator<Item = &Member<'a>> {
        self.members
            .iter()
            .filter(move |member| selector.is_none_or(|selector| selector.matches(&member.labels)))
    }
}

/// Addresses as prefixes of full length, for comparing with packets.
pub fn as_nets(addresses: &[IpAddr]) -> impl Iterator<Item = Net> {
    addresses.iter().map(|&address| {
        let (family, number) = address_number(address);
        Net { family, first: number, last: number }
    })
}
