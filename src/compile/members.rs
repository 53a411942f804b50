//! Who rules can speak of: workloads, host endpoints and network sets of the whole cluster, with their addresses,
//! effective labels and named ports (M-20).

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::addresses;
use super::error::{CompileError, Place};
use super::index::LabelIndex;
use crate::flow::protocol;
use crate::labels::InheritedLabels;
use crate::model::{Model, NamedPort, Workload};
use crate::program::{AddressSet, Net, PortSet};
use crate::selector::Selector;

type LabelMap = BTreeMap<String, String>;

/// All members, numbered.
pub struct Members<'a> {
    nets: Vec<Vec<Net>>,
    labels: LabelIndex<'a>,
    /// Port name to (member, port).
    ports: FxHashMap<&'a str, Vec<(usize, &'a NamedPort)>>,
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
        let (mut nets, mut labels) = (Vec::new(), Vec::new());
        let mut ports: FxHashMap<_, Vec<_>> = FxHashMap::default();
        let mut add = |own, profiles: &[String], addresses, named: &'a [NamedPort]| {
            for port in named {
                ports.entry(port.name.as_str()).or_default().push((nets.len(), port));
            }
            labels.push(effective(own, profiles, &labels_of));
            nets.push(addresses);
        };
        for workload in model.workloads.iter().filter(|workload| is_present(workload)) {
            let place = Place::new(&workload.name, "spec.ipNetworks");
            let networks = read(&workload.networks, |text| addresses::single(&place, text))?;
            add(&workload.labels, &workload.profiles, networks, &workload.ports);
        }
        for host in &model.hosts {
            let name = format!("HostEndpoint/{}", host.name);
            let place = Place::new(&name, "spec.expectedIPs");
            let expected = read(&host.addresses, |text| addresses::single(&place, text))?;
            add(&host.labels, &host.profiles, expected, &host.ports);
        }
        for set in &model.network_sets {
            let place = Place::new(&set.name, "spec.nets");
            let prefixes = read(&set.nets, |text| addresses::net(&place, text))?;
            add(&set.labels, &set.profiles, prefixes, &[]);
        }
        Ok(Self { nets, labels: LabelIndex::of(labels), ports })
    }

    /// M-20: the addresses of all members that satisfy the selector.
    pub fn addresses(&self, selector: &Selector) -> AddressSet {
        let members = self.labels.matching(selector);
        addresses::union(members.into_iter().flat_map(|member| self.nets[member].iter().copied()))
    }

    /// M-25: (address, protocol, port) of all members that satisfy the selector, if one is given, and define a port
    /// of this name.
    pub fn ports(&self, name: &str, rule_protocol: Option<u8>, selector: Option<&Selector>) -> PortSet {
        // M-28: numbers and names of protocols are the same.
        let fits = |port: &NamedPort| {
            let has_ports = matches!(port.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
            has_ports && rule_protocol.is_none_or(|wanted| wanted == port.protocol)
        };
        let is_wanted = |member| selector.is_none_or(|selector| self.labels.is_match(member, selector));
        let defined = self.ports.get(name).map_or(&[][..], Vec::as_slice);
        let mut members: Vec<_> = defined
            .iter()
            .filter(|&&(member, port)| fits(port) && is_wanted(member))
            .flat_map(|&(member, port)| {
                self.nets[member].iter().map(|net| (net.family, net.first, port.protocol, port.port))
            })
            .collect();
        members.sort_unstable();
        members.dedup();
        PortSet { members }
    }
}

fn read(
    texts: &[String],
    read: impl Fn(&str) -> Result<Net, CompileError>,
) -> Result<Vec<Net>, CompileError> {
    texts.iter().map(|text| read(text)).collect()
}
