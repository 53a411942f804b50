//! Named, seeded workloads: policies and the questions that are asked of their table, made from a name and a seed
//! alone, so that two machines measure the same.
//!
//! ```text
//! name, seed --labels, ...--> Model --compile, table--> DecisionTable
//!                               +------traffic--------> questions, aimed at the rules --measure--> nanoseconds
//! ```
//!
//! `labels` makes clusters governed by label policies; `measure` asks the questions and takes the time.

pub mod five_tuples;
pub mod labels;
pub mod measure;
mod naive;
mod random;
pub mod traffic;

use crate::flow::Family;
use crate::model::{HostFacts, Model};

use labels::{Cluster, NaiveCluster, Size};
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
    /// Which chains are asked.
    pub scope: Scope,
    /// Of a hundred questions, those that are aimed at rules.
    pub aimed: u64,
    /// The policies as they were before they became text, if they were made here.
    pub naive: Option<Box<dyn Naive>>,
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
}

/// What a table is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// One node with [`labels::LOCAL`] endpoints: what that node enforces.
    Node,
    /// All endpoints.
    Cluster,
}

const SMALL: Size = Size { endpoints: 1_000, policies: 100, namespaces: 10, apps: 10 };
const MEDIUM: Size = Size { endpoints: 10_000, policies: 1_000, namespaces: 50, apps: 20 };
const LARGE: Size = Size { endpoints: 100_000, policies: 10_000, namespaces: 200, apps: 25 };

const fn labels(name: &'static str, size: Size, view: View, family: Family) -> Named {
    Named { name, kind: Kind::Labels(size, view, family) }
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
                Workload {
                    model: cluster.model(family),
                    node: (view == View::Node).then(|| labels::NODE.to_owned()),
                    host: labels::host(),
                    uplink: labels::UPLINK.to_owned(),
                    scope: Scope::Ingress,
                    aimed: 50,
                    naive: Some(Box::new(NaiveCluster::new(&cluster, family))),
                }
            }
        }
    }
}
