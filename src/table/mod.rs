//! [`Program`] to decisions: the form that is walked per packet.
//!
//! ```text
//! when bound: interfaces: which endpoint governs an interface (4.5)
//!               +--> stops: so which chains packets of an interface meet at each hook
//!
//! FlowKey --short-> the only stop, or one for each interface, as most packets have it
//!        \---hooks--> which stops, in which order (4.3)
//!              +--> engines: how one chain ends (4.2, section 3): classes, tree, or linear, the rules in order
//! ```
//!
//! [`DecisionTable::decide`] allocates nothing. It also answers the steps that kernel rules anticipate
//! (conntrack, failsafes, spoofed sources): rules and engine must say the same.

mod answer;
mod asked;
mod batch;
mod block;
mod classes;
mod connectivity;
mod engines;
mod failsafe;
mod flat;
mod forward;
mod hooks;
mod interfaces;
mod lead;
mod lineage;
mod linear;
mod meanings;
mod named;
mod packed;
mod packets;
mod pages;
mod point;
mod prefetch;
mod services;
mod short;
mod statics;
mod stops;
mod terms;
pub mod tree;
mod trees;

use std::sync::{Arc, OnceLock};

use crate::flow::{EndpointId, FlowKey, InterfaceId, OutcomeId, Verdict};
use crate::model::HostFacts;
use crate::program::{Action, Program, RuleOrigin};

pub use batch::{Addresses, Column, Flows, FlowsError};
pub use connectivity::Gate;
pub use engines::{Budgets, Builder, Description, Engines, Other};
pub use meanings::{ListedRule, Meanings, RuleCount, Tally, Topic};
pub use packets::{Passed, Passing};
pub use services::{PortSide, Service};
pub use statics::{HostRules, RuleFacts, Settled, Static, WorkloadRules};
use stops::AllStops;

/// The part of an evaluation that a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Untracked policy in raw.
    Untracked,
    /// preDNAT policy in mangle PREROUTING.
    Prednat,
    /// A host endpoint's normal policy.
    Normal,
    /// Forward ingress policy of the in-interface's host endpoint.
    FromHep,
    /// Policy of the workload that sent the packet.
    WorkloadEgress,
    /// Policy of the workload that the packet is for.
    WorkloadIngress,
    /// Forward egress policy of the out-interface's host endpoint.
    ToHep,
    /// Workload to host (E-50).
    WorkloadToHost,
    /// Settled by conntrack state.
    Conntrack,
    /// Settled by a failsafe port.
    Failsafe,
    /// Settled by the interface alone.
    Interface,
    /// Settled by the source address of a workload's packet.
    Spoof,
}

impl Stage {
    /// The word used in JSON lines, for example `from-hep`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Untracked => "untracked",
            Self::Prednat => "prednat",
            Self::Normal => "normal",
            Self::FromHep => "from-hep",
            Self::WorkloadEgress => "workload-egress",
            Self::WorkloadIngress => "workload-ingress",
            Self::ToHep => "to-hep",
            Self::WorkloadToHost => "workload-to-host",
            Self::Conntrack => "conntrack",
            Self::Failsafe => "failsafe",
            Self::Interface => "interface",
            Self::Spoof => "spoof",
        }
    }
}

/// One step of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The part of the evaluation.
    pub stage: Stage,
    /// The endpoint whose chain or settled answer it is.
    pub endpoint: Option<EndpointId>,
    /// Leads to tier, policy, rule and reason.
    pub outcome: OutcomeId,
    /// What was done. Where a setting decides it, the outcome alone does not tell.
    pub action: Option<Action>,
}

/// What a hook answers to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The hook's answer.
    pub verdict: Verdict,
    /// A failsafe port settled it (E-40).
    pub failsafe: bool,
    /// Accept mark after our last rule of this hook (E-48).
    pub accepted: bool,
    /// Leads to tier, policy, rule and reason, and to the Log rules that the deciding chain passed before
    /// ([`DecisionTable::meaning`]).
    pub outcome: OutcomeId,
}

/// Receives the steps of an evaluation in the order passed; `()` ignores them at no cost.
pub trait Trace {
    /// Nobody listens: the engines need not say what was passed.
    const IS_SILENT: bool = false;

    /// What follows is of the next packet of a batch, by its place there.
    fn packet(&mut self, _place: usize) {}

    /// One more step.
    fn step(&mut self, step: Step);

    /// A chain that let the packet through ahead of the one that decides, where no steps are told.
    fn let_through(&mut self, _outcome: OutcomeId) {}

    /// Where steps do not tell them: a Pass or Log rule that a chain passes and the outcome of its answer does not tell.
    fn rule(&mut self, _rule: OutcomeId) {}

    /// The same, of a packet of the batch whose chain is asked ahead.
    fn rule_ahead(&mut self, _place: usize, _rule: OutcomeId) {}

    /// The packet meets the chain that was asked ahead.
    fn come_true(&mut self) {}

    /// All packets meet it, and nothing else.
    fn all_come_true(&mut self) {}

    /// No packet meets what was asked ahead any more.
    fn forget_ahead(&mut self) {}

    /// The packet is asked about from the beginning again.
    fn anew(&mut self) {}
}

impl Trace for () {
    const IS_SILENT: bool = true;

    fn step(&mut self, _: Step) {}
}

impl Trace for Vec<Step> {
    fn step(&mut self, step: Step) {
        self.push(step);
    }
}

/// A [`Program`] bound to the interfaces of a host, ready to answer.
#[derive(Debug)]
pub struct DecisionTable {
    engines: Arc<Engines>,
    interfaces: interfaces::Interfaces,
    stops: AllStops,
    failsafes: failsafe::Failsafes,
    /// Made when first asked for: the packet loop never does.
    workloads: OnceLock<connectivity::Workloads>,
}

impl DecisionTable {
    /// Binds the program's endpoints to the host's interfaces (E-45, E-46). A change of links or addresses needs a
    /// new table, not new engines.
    pub fn new(engines: Arc<Engines>, host: &HostFacts) -> Self {
        let interfaces = interfaces::Interfaces::resolve(engines.program(), host);
        let stops = AllStops::of(&engines, &interfaces);
        let failsafes = failsafe::Failsafes::of(&engines.program().settings);
        Self { engines, interfaces, stops, failsafes, workloads: OnceLock::new() }
    }

    /// The compiled policy.
    pub fn program(&self) -> &Program {
        self.engines.program()
    }

    /// Which engines answer, how large they are, and why.
    pub fn describe(&self) -> Description {
        self.engines.describe()
    }

    /// Outcome ids of decisions are below this.
    pub fn outcome_count(&self) -> usize {
        self.engines.outcome_count()
    }

    /// What the outcome id of a decision means, and the Log rules that were passed before it, in order. Chains that
    /// `tree` and `linear` answer for tell those only to [`decide_packets`](Self::decide_packets) and in
    /// [`trace`](Self::trace).
    pub fn meaning(&self, outcome: OutcomeId) -> (&RuleOrigin, impl Iterator<Item = &RuleOrigin>) {
        let logged = self.logged(outcome).map(|id| self.program().outcome(id));
        (self.program().outcome(self.engines.meaning(outcome).0), logged)
    }

    /// The ids of the Log rules that [`meaning`](Self::meaning) tells.
    pub fn logged(&self, outcome: OutcomeId) -> impl Iterator<Item = OutcomeId> {
        let is_log = |id: &OutcomeId| self.program().outcome(*id).action == Some(Action::Log);
        self.engines.meaning(outcome).1.iter().copied().filter(is_log)
    }

    /// What is no error, and only the binding sees: endpoints that do nothing on this host. Sorted.
    pub fn warnings(&self) -> Vec<String> {
        self.interfaces.warnings(self.program())
    }

    /// The interface of this name. A name that neither the host nor an endpoint has is answered as what its prefix
    /// makes it: an unknown workload interface, or an interface that only a `*` host endpoint governs.
    pub fn interface(&self, name: &str) -> InterfaceId {
        self.interfaces.id(name)
    }

    /// How many interfaces are told apart: ids are below it.
    pub fn interface_count(&self) -> usize {
        self.interfaces.all().len()
    }

    /// The answer to one packet at one hook.
    #[allow(clippy::inline_always)] // As what it calls.
    #[inline(always)]
    pub fn decide(&self, key: &FlowKey) -> Decision {
        short::decide(self, key, None, &mut ())
    }

    /// The same answer, with the step that decided.
    pub fn decide_step(&self, key: &FlowKey) -> (Decision, Step) {
        hooks::walk(self, key, None, &mut ())
    }

    /// The same answer, with every step on the way.
    pub fn trace(&self, key: &FlowKey) -> (Decision, Vec<Step>) {
        let mut steps = Vec::new();
        let (decision, _) = hooks::walk(self, key, None, &mut steps);
        (decision, steps)
    }

    /// The meaning of a step.
    pub fn origin(&self, step: &Step) -> &RuleOrigin {
        self.program().outcome(step.outcome)
    }

    /// The name of a step's endpoint.
    pub fn endpoint_name(&self, step: &Step) -> Option<&str> {
        step.endpoint.map(|id| self.program().endpoint(id).name.as_str())
    }

    /// What kernel rules may answer ahead of the queue, and which interfaces must be queued where.
    pub fn rule_facts(&self) -> RuleFacts {
        statics::rule_facts(self.program(), &self.interfaces)
    }

    /// Which rules of policies are met where kernel rules answer.
    pub fn settled(&self) -> Settled<'_> {
        statics::settled(self.program(), &self.interfaces)
    }
}
