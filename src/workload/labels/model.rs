//! A cluster as the compiler's model: names, selectors and prefixes as text.

use std::collections::BTreeMap;

use super::{Block, Cluster, Key, Peer, Pod, Policy, Rule, Service, Terms, Tier, address, protocol_in};
use crate::flow::{Direction, Family, number_address, protocol};
use crate::model::{self, Entity, HostFacts, Icmp, Model, Profile, Workload};

/// The node whose view is taken.
pub const NODE: &str = "node0";
/// Where everything that is not of the node comes from.
pub const UPLINK: &str = "eth0";

const WORKLOAD_PREFIX: &str = "cali";
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// As a namespace selector names it; its profile carries it with `pcns.` in front.
const NAMESPACE_NAME: &str = "projectcalico.org/name";
const SECURITY: &str = "security";
const DEFAULT: &str = "default";

impl Cluster {
    /// The whole cluster in one family.
    pub fn model(&self, family: Family) -> Model {
        let pods = self.pods.iter().enumerate();
        let mut namespaces: Vec<_> =
            self.apps.iter().map(|app| app.labels[Key::Namespace as usize]).collect();
        namespaces.dedup();
        Model {
            workloads: pods.map(|(index, pod)| self.workload(index, pod, family)).collect(),
            profiles: namespaces.into_iter().map(profile).collect(),
            tiers: tiers(),
            policies: self.policies.iter().enumerate().map(|(index, of)| policy(index, of, family)).collect(),
            ..Model::default()
        }
    }

    /// The name of a policy in answers.
    pub fn policy_name(&self, index: usize) -> String {
        match self.policies[index].namespace {
            None => format!("GlobalNetworkPolicy/p{index}"),
            Some(namespace) => format!("NetworkPolicy/{}/p{index}", value(Key::Namespace, namespace)),
        }
    }

    fn workload(&self, index: usize, pod: &Pod, family: Family) -> Workload {
        let app = &self.apps[pod.app];
        let keys = [Key::Namespace, Key::App, Key::Tier, Key::Env, Key::Version, Key::Team];
        let labels = keys.map(|key| (key_name(key).to_owned(), value(key, pod.labels[key as usize])));
        let namespace = value(Key::Namespace, pod.labels[Key::Namespace as usize]);
        let ports = app.ports.iter().map(|named| model::NamedPort {
            name: named.name.to_owned(),
            protocol: protocol::TCP,
            port: named.port,
        });
        Workload {
            name: format!("Pod/{namespace}/pod{index}"),
            node: format!("node{}", pod.node),
            interface: format!("{WORKLOAD_PREFIX}{index}"),
            networks: vec![number_address(family, address(family, pod.address)).to_string()],
            spoofed_prefixes: Vec::new(),
            labels: BTreeMap::from(labels),
            profiles: vec![format!("kns.{namespace}")],
            ports: ports.collect(),
        }
    }
}

/// What [`NODE`] looks like.
pub fn host() -> HostFacts {
    HostFacts {
        interfaces: BTreeMap::from([(UPLINK.to_owned(), Vec::new())]),
        workload_prefixes: vec![WORKLOAD_PREFIX.to_owned()],
    }
}

///
fn profile(namespace: u16) -> Profile {
    let allow = || vec![model::Rule { action: "Allow".to_owned(), ..model::Rule::default() }];
    let name = value(Key::Namespace, namespace);
    Profile {
        name: format!("kns.{name}"),
        labels: BTreeMap::from([(format!("pcns.{NAMESPACE_NAME}"), name)]),
        ingress: allow(),
        egress: allow(),
    }
}

fn tiers() -> Vec<model::Tier> {
    vec![
        model::Tier { name: SECURITY.to_owned(), order: 100.0, pass: true },
        model::Tier { name: DEFAULT.to_owned(), order: 1_000_000.0, pass: false },
    ]
}

#[allow(clippy::cast_precision_loss)] // Far fewer policies than 2^52.
fn policy(index: usize, policy: &Policy, family: Family) -> model::Policy {
    let rules = |direction| {
        let rules = policy.rules(direction).unwrap_or_default().iter();
        rules.map(|rule| self::rule(rule, policy.namespace, direction, family)).collect()
    };
    // A namespaced policy selects in its namespace only.
    let (namespace_selector, selector) = selectors(&policy.subject);
    let (kind, namespace, namespace_selector) = match policy.namespace {
        None => ("GlobalNetworkPolicy", String::new(), namespace_selector),
        Some(namespace) => ("NetworkPolicy", value(Key::Namespace, namespace), String::new()),
    };
    model::Policy {
        kind: kind.to_owned(),
        namespace,
        name: format!("p{index}"),
        tier: if policy.tier == Tier::Security { SECURITY } else { DEFAULT }.to_owned(),
        order: Some(index as f64),
        selector,
        namespace_selector,
        service_account_selector: String::new(),
        applies_ingress: true,
        applies_egress: policy.egress.is_some(),
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
        staged: false,
    }
}

fn rule(rule: &Rule, namespace: Option<u16>, direction: Direction, family: Family) -> model::Rule {
    let mut peer = peer(&rule.peer, namespace, family);
    let mut own = Entity::default();
    let destination = if direction == Direction::Ingress { &mut own } else { &mut peer };
    let (mut protocol, mut icmp) = (None, None);
    match &rule.service {
        Service::Any => {}
        Service::Protocol(number) => protocol = Some(*number),
        Service::Icmp(kind) => {
            protocol = Some(protocol_in(family, protocol::ICMP));
            icmp = kind.map(|kind| Icmp { kind: Some(kind), code: None });
        }
        Service::Ports(number, ports) => {
            protocol = Some(*number);
            destination.ports.clone_from(ports);
        }
        Service::Named(name) => {
            protocol = Some(protocol::TCP);
            destination.named_ports = vec![(*name).to_owned()];
        }
    }
    let (source, destination) = if direction == Direction::Ingress { (peer, own) } else { (own, peer) };
    let action = rule.action.name().to_owned();
    model::Rule { action, protocol, icmp, source, destination, ..model::Rule::default() }
}

fn peer(peer: &Peer, namespace: Option<u16>, family: Family) -> Entity {
    let cidr = |block: &Block| {
        let first = number_address(family, address(family, block.first));
        format!("{first}/{}", block.length_in(family))
    };
    match peer {
        Peer::Any => Entity::default(),
        Peer::Pods(terms) => {
            let (mut namespace_selector, selector) = selectors(terms);
            // M-21: without a namespace selector, a namespaced policy means its own namespace.
            if namespace.is_some() && namespace_selector.is_empty() {
                "all()".clone_into(&mut namespace_selector);
            }
            Entity { selector, namespace_selector, ..Entity::default() }
        }
        Peer::Nets { within, except } => Entity {
            nets: within.iter().map(cidr).collect(),
            not_nets: except.iter().map(cidr).collect(),
            ..Entity::default()
        },
    }
}

/// Selectors of the namespace and of the other labels; empty where there is no such term.
fn selectors(terms: &Terms) -> (String, String) {
    let compare = |name: &str, key, number| format!("{name} == '{}'", value(key, number));
    let (of_namespaces, others): (Vec<_>, Vec<_>) = terms.iter().partition(|(key, _)| *key == Key::Namespace);
    let namespaces: Vec<_> =
        of_namespaces.iter().map(|&&(key, number)| compare(NAMESPACE_NAME, key, number)).collect();
    let others: Vec<_> = others.iter().map(|&&(key, number)| compare(key_name(key), key, number)).collect();
    (namespaces.join(" && "), others.join(" && "))
}

fn key_name(key: Key) -> &'static str {
    match key {
        Key::Namespace => NAMESPACE_LABEL,
        Key::App => "app",
        Key::Tier => "tier",
        Key::Env => "env",
        Key::Version => "version",
        Key::Team => "team",
    }
}

fn value(key: Key, number: u16) -> String {
    match key {
        Key::Namespace => format!("ns{number}"),
        _ => format!("{}{number}", key_name(key)),
    }
}
