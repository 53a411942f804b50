//! A cluster from a seed. The shares below are those of the label workloads that the decision table's design was
//! measured on; what they leave out of real policies (tiers, Pass, Deny, Log, named ports, egress) has a small share.

use rustc_hash::FxHashSet;

use super::{
    App, Block, CLUSTER_WIDE, Cluster, Key, LOCAL, NamedPort, Peer, Pod, Policy, Rule, Service, Size, Terms,
    Tier,
};
use crate::flow::protocol;
use crate::program::Action;
use crate::workload::Random;

/// What services listen on, the usual ones first.
pub const PORTS: [u16; 20] = [
    80, 443, 8080, 8443, 5432, 3306, 6379, 9090, 9100, 53, 5672, 27017, 2379, 9200, 50051, 22, 3000, 8000,
    11211, 9092,
];
const PORT_NAMES: [&str; 3] = ["http", "http", "metrics"];
const TIERS: u64 = 6;
const ENVS: u16 = 3;
const TEAMS: u64 = 40;
const PREFIX_LENGTHS: [u8; 8] = [8, 12, 16, 20, 24, 24, 28, 32];

impl Cluster {
    /// The cluster of a size and a seed.
    pub fn generate(size: Size, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let apps = apps(&mut random, size);
        let (pods, nodes) = pods(&mut random, &apps, size.endpoints);
        let blocks = blocks(&mut random, size.policies, nodes);
        let mut policies = Policies { random: &mut random, apps: &apps, blocks: &blocks, size };
        let policies = (0..size.policies).map(|index| policies.policy(index)).collect();
        Self { apps, pods, policies }
    }
}

/// Tier and team are the app's, the environment is the namespace's, the version is the pod's.
#[allow(clippy::cast_possible_truncation)] // Bounds of 16 bits.
fn apps(random: &mut Random, size: Size) -> Vec<App> {
    let names = (0..size.namespaces).flat_map(|namespace| (0..size.apps).map(move |app| (namespace, app)));
    names
        .map(|(namespace, app)| {
            let (tier, team) = (random.below(TIERS) as u16, random.below(TEAMS) as u16);
            let mut ports = vec![NamedPort { name: "http", port: PORTS[random.skewed(PORTS.len())] }];
            if random.one_in(2) {
                ports.push(NamedPort { name: "metrics", port: *random.pick(&[9090, 9100]) });
            }
            App { labels: [namespace, app, tier, namespace % ENVS, 0, team], ports }
        })
        .collect()
}

/// Pods of nodes with a /24 each, and how many /24s they are in. Half of the pods are of any app, half of few apps.
#[allow(clippy::cast_possible_truncation)] // Nodes and host parts have few bits.
fn pods(random: &mut Random, apps: &[App], count: usize) -> (Vec<Pod>, u32) {
    let mut pods = Vec::with_capacity(count);
    let (mut node, mut left, mut taken) = (0_u32, LOCAL, FxHashSet::default());
    while pods.len() < count {
        if left == 0 {
            node += 1 + random.below(2) as u32;
            left = 30 + random.index(80);
            taken.clear();
        }
        let host = random.below(254) as u32 + 1;
        if !taken.insert(host) {
            continue;
        }
        left -= 1;
        let app = if random.one_in(2) { random.index(apps.len()) } else { random.skewed(apps.len()) };
        let mut labels = apps[app].labels;
        labels[Key::Version as usize] = u16::from(random.one_in(8));
        pods.push(Pod { address: 10 << 24 | node << 8 | host, node, app, labels });
    }
    (pods, node + 1)
}

/// Prefixes that policies name: most lie outside, one in ten around pods.
#[allow(clippy::cast_possible_truncation)] // 32 random bits.
fn blocks(random: &mut Random, policies: usize, nodes: u32) -> Vec<Block> {
    (0..policies.clamp(50, 2000))
        .map(|index| {
            let length = *random.pick(&PREFIX_LENGTHS);
            let inside = 10 << 24 | (random.below(u64::from(nodes)) as u32) << 8;
            let first = if index.is_multiple_of(10) { inside } else { random.bits() as u32 };
            Block { first: first & (u32::MAX << (32 - length)), length }
        })
        .collect()
}

struct Policies<'a> {
    random: &'a mut Random,
    apps: &'a [App],
    blocks: &'a [Block],
    size: Size,
}

impl Policies<'_> {
    fn policy(&mut self, index: usize) -> Policy {
        let is_global = index < CLUSTER_WIDE.min(self.size.policies / 2);
        let tier = if is_global && index.is_multiple_of(3) { Tier::Security } else { Tier::Default };
        let subject = if is_global { self.terms(false) } else { self.namespaced_subject() };
        let namespace = if is_global { None } else { Some(subject[0].1) };
        let ingress = self.rules(tier, namespace);
        let egress = self.random.one_in(5).then(|| self.rules(tier, namespace));
        Policy { tier, namespace, subject, ingress, egress }
    }

    fn rules(&mut self, tier: Tier, namespace: Option<u16>) -> Vec<Rule> {
        let count = 1 + self.random.index(4);
        (0..count)
            .map(|_| Rule { action: self.action(tier), peer: self.peer(namespace), service: self.service() })
            .collect()
    }

    fn action(&mut self, tier: Tier) -> Action {
        match (tier, self.random.below(40)) {
            (Tier::Security, 0..16) | (Tier::Default, 0) => Action::Pass,
            (Tier::Security, 16..20) | (Tier::Default, 1) => Action::Log,
            (Tier::Security, _) | (Tier::Default, 2..6) => Action::Deny,
            (Tier::Default, _) => Action::Allow,
        }
    }

    fn namespaced_subject(&mut self) -> Terms {
        let app = self.random.pick(self.apps).labels;
        match self.random.below(20) {
            0..13 => terms(app, &[Key::Namespace, Key::App]),
            13..16 => terms(app, &[Key::Namespace, Key::Tier]),
            16 => terms(app, &[Key::Namespace]),
            _ => self.versioned(app),
        }
    }

    /// Half of the terms name an app of a namespace; a peer may be of one label alone.
    fn terms(&mut self, is_peer: bool) -> Terms {
        let app = self.random.pick(self.apps).labels;
        match self.random.below(20) {
            0..11 => terms(app, &[Key::Namespace, Key::App]),
            11..13 => terms(app, &[Key::Namespace]),
            13..15 => terms(app, &[Key::Namespace, Key::Tier]),
            15 => terms(app, &[Key::Env, Key::Tier]),
            16 => terms(app, &[Key::Team, Key::Tier]),
            17 => terms(app, &[Key::Namespace, Key::Team, Key::Env]),
            18 => self.versioned(app),
            _ if is_peer => terms(app, &[Key::Team]),
            _ => terms(app, &[Key::Team, Key::Env]),
        }
    }

    fn versioned(&mut self, mut app: super::Labels) -> Terms {
        app[Key::Version as usize] = u16::from(self.random.one_in(2));
        terms(app, &[Key::Namespace, Key::App, Key::Version])
    }

    fn peer(&mut self, namespace: Option<u16>) -> Peer {
        match (self.random.below(20), namespace) {
            (0..9, Some(namespace)) => {
                let first = usize::from(namespace) * usize::from(self.size.apps);
                let neighbour = first + self.random.index(self.size.apps.into());
                Peer::Pods(terms(self.apps[neighbour].labels, &[Key::Namespace, Key::App]))
            }
            (0..15, _) => Peer::Pods(self.terms(true)),
            (15..18, _) => self.nets(),
            _ => Peer::Any,
        }
    }

    #[allow(clippy::cast_possible_truncation)] // The offset is below the size of a block of 32 bits.
    fn nets(&mut self) -> Peer {
        let count = 1 + self.random.index(6);
        let within: Vec<_> = (0..count).map(|_| self.blocks[self.random.skewed(self.blocks.len())]).collect();
        let whole = within[0];
        let length = whole.length + 4;
        let except = (length <= 32 && self.random.one_in(4)).then(|| {
            let inside = self.random.between_wide(whole.first.into(), whole.last().into()) as u32;
            Block { first: inside & (u32::MAX << (32 - length)), length }
        });
        Peer::Nets { within, except }
    }

    #[allow(clippy::cast_possible_truncation)] // Ports and ICMP types are drawn below their bounds.
    fn service(&mut self) -> Service {
        let any_port = |random: &mut Random| 1024 + random.below(60_000) as u16;
        let common = |random: &mut Random| PORTS[random.skewed(PORTS.len())];
        match self.random.below(20) {
            0 => Service::Any,
            1 => Service::Icmp(None),
            2 => Service::Icmp(Some(*self.random.pick(&[8, 8, 0, 3, 11]))),
            3 => Service::Protocol(protocol::TCP),
            4..6 => {
                let first = any_port(self.random);
                let last = first.saturating_add(self.random.below(2000) as u16);
                Service::Ports(protocol::TCP, vec![(first, last)])
            }
            6 => Service::Ports(protocol::UDP, vec![(53, 53)]),
            7 => {
                let port = common(self.random);
                Service::Ports(protocol::UDP, vec![(port, port)])
            }
            8..10 => {
                let port = any_port(self.random);
                Service::Ports(protocol::TCP, vec![(port, port)])
            }
            10 => Service::Named(PORT_NAMES[self.random.index(PORT_NAMES.len())]),
            _ => {
                let count = 1 + self.random.index(3);
                let ports = (0..count).map(|_| common(self.random)).map(|port| (port, port));
                Service::Ports(protocol::TCP, ports.collect())
            }
        }
    }
}

fn terms(labels: super::Labels, keys: &[Key]) -> Terms {
    keys.iter().map(|&key| (key, labels[key as usize])).collect()
}
