//! Edits of a cluster that is governed by label policies: what comes and changes while it is enforced.

use std::collections::BTreeSet;

use super::Random;
use crate::flow::protocol;
use crate::model::{Change, Icmp, Model, Policy, Resource, Workload};
use crate::program::Program;

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Of a namespaced policy that selects endpoints of the program: another peer and another port in one rule.
    Policy,
    /// A pod comes to another node, with the labels of one that is there.
    KnownLabels,
    /// A pod comes to another node, with labels that no other one has together.
    NewLabels,
    /// A pod comes to the node of the program, with the labels of one that is there.
    Local,
    /// A namespaced policy that selects endpoints of the program goes.
    PolicyRemoved,
    /// A pod of another node goes.
    PodRemoved,
}

impl Edit {
    /// Those that take nothing away.
    pub const PUT: [Self; 4] = [Self::Policy, Self::KnownLabels, Self::NewLabels, Self::Local];
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Policy,
        Self::KnownLabels,
        Self::NewLabels,
        Self::Local,
        Self::PolicyRemoved,
        Self::PodRemoved,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy edited",
            Self::KnownLabels => "pod added, known labels",
            Self::NewLabels => "pod added, new labels",
            Self::Local => "local pod added, known labels",
            Self::PolicyRemoved => "policy removed",
            Self::PodRemoved => "pod removed",
        }
    }
}

/// Of a namespaced policy.
fn key(policy: &Policy) -> String {
    format!("{}/{}/{}", policy.kind, policy.namespace, policy.name)
}

/// Makes edits from a seed.
pub struct Editor<'m> {
    random: Random,
    workloads: &'m [Workload],
    /// By whether they are on the node.
    local: Vec<usize>,
    remote: Vec<usize>,
    /// Namespaced ones that the program has.
    policies: Vec<&'m Policy>,
    made: u32,
}

impl<'m> Editor<'m> {
    /// Of a model and what it compiles to.
    pub fn new(model: &'m Model, program: &Program, seed: u64) -> Self {
        let used: BTreeSet<&str> = program.rule_lists.iter().map(|list| list.policy.as_str()).collect();
        let is_used = |policy: &&Policy| {
            !policy.namespace.is_empty() && !policy.ingress.is_empty() && used.contains(key(policy).as_str())
        };
        let is_local = |&index: &usize| program.node.as_ref() == Some(&model.workloads[index].node);
        let (local, remote) = (0..model.workloads.len()).partition(is_local);
        Self {
            random: Random::new(seed),
            workloads: &model.workloads,
            local,
            remote,
            policies: model.policies.iter().filter(is_used).collect(),
            made: 0,
        }
    }

    /// One more; every one is another. There have to be policies and pods left.
    pub fn edit(&mut self, edit: Edit) -> Change {
        self.made += 1;
        Change::Put(Box::new(match edit {
            Edit::Policy => Resource::Policy(self.policy()),
            Edit::KnownLabels => Resource::Workload(self.pod(false)),
            Edit::NewLabels => Resource::Workload(self.stranger()),
            Edit::Local => Resource::Workload(self.pod(true)),
            Edit::PolicyRemoved => {
                let place = self.random.index(self.policies.len());
                return Change::Remove(key(self.policies.swap_remove(place)));
            }
            Edit::PodRemoved => {
                let place = self.random.index(self.remote.len());
                return Change::Remove(self.workloads[self.remote.swap_remove(place)].name.clone());
            }
        }))
    }

    fn policy(&mut self) -> Policy {
        let mut policy = Policy::clone(*self.random.pick(&self.policies));
        let peer = &self.workloads[self.random.index(self.workloads.len())].labels;
        let terms = ["app", "tier"].map(|key| format!("{key} == '{}'", peer[key]));
        let port = 1024 + u16::try_from(self.random.below(60_000)).expect("below 60000");
        let index = self.random.index(policy.ingress.len());
        let rule = &mut policy.ingress[index];
        (rule.protocol, rule.icmp) = (Some(protocol::TCP), None::<Icmp>);
        rule.source.selector = terms.join(" && ");
        rule.destination.ports = vec![(port, port)];
        rule.destination.named_ports.clear();
        policy
    }

    fn pod(&mut self, is_local: bool) -> Workload {
        let there = if is_local && !self.local.is_empty() { &self.local } else { &self.remote };
        let mut pod = self.workloads[*self.random.pick(there)].clone();
        let (high, low) = (self.made / 200, self.made % 200 + 1);
        pod.name = format!("{}-{}", pod.name, self.made);
        pod.interface = format!("{}n{}", pod.interface, self.made);
        let is_v6 = pod.networks.iter().any(|text| text.contains(':'));
        pod.networks = vec![if is_v6 {
            format!("fd6c:6162:65c8::{:x}", self.made)
        } else {
            format!("10.{}.{}.{low}", 200 + high / 256 % 50, high % 256)
        }];
        pod
    }

    fn stranger(&mut self) -> Workload {
        let mut pod = self.pod(false);
        for key in ["tier", "team"] {
            let other = &self.workloads[self.random.index(self.workloads.len())].labels;
            pod.labels.insert(key.to_owned(), other[key].clone());
        }
        pod
    }
}
