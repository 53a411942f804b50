//! Named, seeded workloads: policies and the questions that are asked of their table, made from a name and a seed
//! alone, so that two machines measure the same.
//!
//! ```text
//! name, seed --labels, five_tuples--> Model --compile, table--> DecisionTable
//!                                       +--traffic--> questions, aimed at its rules --measure--> nanoseconds
//! ```
//!
//! `labels` makes clusters governed by label policies, `five_tuples` plain rule sets, which `rule_set` writes as
//! policies; `edits` changes label policies and pods; `measure` asks the questions and takes the time; `naive` is what answers are compared with.

pub mod edits;
pub mod five_tuples;
pub mod labels;
pub mod measure;
mod naive;
mod random;
mod rule_set;
pub mod traffic;

use crate::flow::{Direction, Family};
use crate::model::{HostFacts, Model};

use five_tuples::Rule;
use labels::{Cluster, NaiveCluster, Size};
use rule_set::NaiveRules;
use traffic::Scope;

pub use naive::{Naive, NaiveAnswer};
pub use random::Random;

/// Everything that is needed to build a table and to ask it.
#[derive(Debug)]
pub struct Workload {
    /// What is compiled.
    pub model: Model,
    /// For which node; `None`: for all workloads of the cluster.
    pub node: Option<String>,
    /// What the node looks like.
    pub host: HostFacts,
    /// The interface on the other side of forwarded packets.
    pub uplink: String,
    /// What is asked.
    pub traffic: Traffic,
    /// The policies as they were before they became text, if they were made here.
    pub naive: Option<Box<dyn Naive>>,
}

/// Where questions come from.
#[derive(Clone, Debug)]
pub enum Traffic {
    /// Aimed at rules of the program.
    Aimed {
        /// Which chains are asked.
        scope: Scope,
        /// Of a hundred questions, those that are aimed.
        aimed: u64,
    },
    /// Packets of these rules ([`five_tuples::trace`]), which come in from the uplink.
    Packets(Vec<Rule>),
}

/// A workload that can be made by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// For example `labels-10k-node`.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Labels(Size, View, Family),
    Rules(five_tuples::Family, usize),
}

/// What a table is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// One node with [`labels::LOCAL`] endpoints: what that node enforces, asked about packets to them.
    Node,
    /// The same, asked about packets that they send elsewhere.
    Egress,
    /// The same, asked about packets from one to another, which pass policies of both.
    Between,
    /// All endpoints.
    Cluster,
}

impl View {
    /// Which chains, and whose policies in turn.
    const fn asked(self) -> (Scope, &'static [Direction]) {
        match self {
            Self::Node | Self::Cluster => (Scope::Ingress, &[Direction::Ingress]),
            Self::Egress => (Scope::Egress, &[Direction::Egress]),
            Self::Between => (Scope::Between, &[Direction::Egress, Direction::Ingress]),
        }
    }
}

const SMALL: Size = Size { endpoints: 1_000, policies: 100, namespaces: 10, apps: 10 };
const MEDIUM: Size = Size { endpoints: 10_000, policies: 1_000, namespaces: 50, apps: 20 };
const LARGE: Size = Size { endpoints: 100_000, policies: 10_000, namespaces: 200, apps: 25 };

const fn labels(name: &'static str, size: Size, view: View, family: Family) -> Named {
    Named { name, kind: Kind::Labels(size, view, family) }
}

const fn rules(name: &'static str, family: five_tuples::Family, count: usize) -> Named {
    Named { name, kind: Kind::Rules(family, count) }
}

/// All workloads with a name.
pub const NAMED: &[Named] = &[
    labels("labels-1k-node", SMALL, View::Node, Family::V4),
    labels("labels-1k-cluster", SMALL, View::Cluster, Family::V4),
    labels("labels-1k-node-v6", SMALL, View::Node, Family::V6),
    labels("labels-1k-cluster-v6", SMALL, View::Cluster, Family::V6),
    labels("labels-10k-node", MEDIUM, View::Node, Family::V4),
    labels("labels-10k-cluster", MEDIUM, View::Cluster, Family::V4),
    labels("labels-10k-node-v6", MEDIUM, View::Node, Family::V6),
    labels("labels-10k-cluster-v6", MEDIUM, View::Cluster, Family::V6),
    labels("labels-100k-node", LARGE, View::Node, Family::V4),
    labels("labels-100k-cluster", LARGE, View::Cluster, Family::V4),
    labels("labels-100k-node-v6", LARGE, View::Node, Family::V6),
    labels("labels-100k-cluster-v6", LARGE, View::Cluster, Family::V6),
    labels("labels-1k-egress", SMALL, View::Egress, Family::V4),
    labels("labels-1k-between", SMALL, View::Between, Family::V4),
    labels("labels-1k-between-v6", SMALL, View::Between, Family::V6),
    labels("labels-10k-egress", MEDIUM, View::Egress, Family::V4),
    labels("labels-10k-between", MEDIUM, View::Between, Family::V4),
    labels("labels-10k-between-v6", MEDIUM, View::Between, Family::V6),
    rules("acl-1k", five_tuples::Family::Acl, 1_000),
    rules("fw-1k", five_tuples::Family::Firewall, 1_000),
    rules("ipc-1k", five_tuples::Family::IpChain, 1_000),
    rules("acl-10k", five_tuples::Family::Acl, 10_000),
    rules("fw-10k", five_tuples::Family::Firewall, 10_000),
    rules("ipc-10k", five_tuples::Family::IpChain, 10_000),
    rules("acl-100k", five_tuples::Family::Acl, 100_000),
    rules("fw-100k", five_tuples::Family::Firewall, 100_000),
    rules("ipc-100k", five_tuples::Family::IpChain, 100_000),
];

impl Named {
    /// The workload of this name.
    pub fn find(name: &str) -> Option<Self> {
        NAMED.iter().find(|named| named.name == name).copied()
    }

    /// What the seed makes of it.
    pub fn workload(self, seed: u64) -> Workload {
        match self.kind {
            Kind::Labels(size, view, family) => {
                let cluster = Cluster::generate(size, seed);
                let (scope, gates) = view.asked();
                Workload {
                    model: cluster.model(family),
                    node: (view != View::Cluster).then(|| labels::NODE.to_owned()),
                    host: labels::host(),
                    uplink: labels::UPLINK.to_owned(),
                    traffic: Traffic::Aimed { scope, aimed: 50 },
                    naive: Some(Box::new(NaiveCluster::new(&cluster, family, gates))),
                }
            }
            Kind::Rules(family, count) => {
                let rules = five_tuples::rules(family, count, seed);
                Workload {
                    model: rule_set::model(&rules),
                    node: Some(rule_set::NODE.to_owned()),
                    host: rule_set::host(),
                    uplink: rule_set::UPLINK.to_owned(),
                    naive: Some(Box::new(NaiveRules::new(&rules))),
                    traffic: Traffic::Packets(rules),
                }
            }
        }
    }
}
