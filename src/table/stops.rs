//! The chains that packets of an interface meet, hook by hook: worked out once when a table is bound, so that a packet
//! costs one load for each of its two interfaces.

use super::answer::Answer;
use super::engines::Engines;
use super::failsafe::FailsafeList;
use super::forward::Forward;
use super::hooks::lone_decisions;
use super::interfaces::{Governors, Interfaces, WorkloadSide};
use super::lead::{Chains, Lead, MORE};
use super::packed::Packed;
use super::{Decision, Stage};
use crate::flow::{Direction, EndpointId, Hook, InterfaceId};
use crate::program::{ChainId, Directed, Endpoint, Program};

/// A chain that packets meet at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    pub chain: ChainId,
    /// Whose chain it is.
    pub endpoint: EndpointId,
    /// What it is called in answers.
    pub stage: Stage,
    /// What is settled ahead of its tiers.
    pub before: Before,
}

/// Which steps of E-20 precede the tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Conntrack alone: workload ingress, and forward policy, which knows no failsafes (E-42).
    Conntrack,
    /// Conntrack, then encapsulation (E-20.5): workload egress.
    Encapsulation,
    /// Conntrack, then failsafes: a host endpoint's normal policy.
    Failsafes(FailsafeList),
    /// Failsafes with their return half (E-43), no conntrack: untracked policy.
    Untracked(FailsafeList),
    /// INVALID (E-34), then failsafes: preDNAT policy.
    Prednat,
    /// Nothing passes: the interface of a workload that nobody knows. There is neither endpoint nor chain.
    Nobody,
}

impl Before {
    /// What precedes the tiers of a host endpoint's chain at a hook; in FORWARD of any chain that may be the only one
    /// ([`AllStops::lone`]).
    pub const fn at(hook: Hook) -> Self {
        match hook {
            Hook::RawPrerouting => Self::Untracked(FailsafeList::Inbound),
            Hook::RawOutput => Self::Untracked(FailsafeList::Outbound),
            Hook::ManglePrerouting => Self::Prednat,
            Hook::FilterInput => Self::Failsafes(FailsafeList::Inbound),
            Hook::FilterForward => Self::Conntrack,
            Hook::FilterOutput | Hook::ManglePostrouting => Self::Failsafes(FailsafeList::Outbound),
        }
    }
}

/// The only chain that new packets of an interface meet, but in filter FORWARD.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Lone {
    /// filter INPUT.
    input: Chains,
    /// filter OUTPUT.
    output: Chains,
    /// mangle PREROUTING.
    prednat: Chains,
    /// raw PREROUTING.
    untracked_in: Chains,
    /// raw OUTPUT.
    untracked_out: Chains,
}

/// Decisions but for the outcome, by [`Answer::kind`].
pub type LoneDecisions = [Option<Decision>; 4];

impl Lone {
    fn of(engines: &Engines, stops: &Stops) -> Self {
        let lead = |stop: Stop| Lead::to(engines, stop.chain, false).map_or(MORE, Lead::chains);
        let one = |stop: Option<Stop>| stop.map_or(MORE, lead);
        let of_host = |stop: Option<Stop>| one(stop.filter(|_| stops.workload == WorkloadSide::Host));
        Self {
            input: of_host(stops.normal_in),
            output: of_host(stops.normal_out),
            prednat: one(stops.prednat),
            untracked_in: of_host(stops.untracked_in),
            untracked_out: one(stops.untracked_out),
        }
    }
}

/// What packets of one interface meet.
#[derive(Clone, Copy, Debug)]
pub struct Stops {
    /// filter FORWARD, from it.
    pub from_hep: Option<Stop>,
    /// filter FORWARD and INPUT, from it.
    pub egress: Option<Stop>,
    /// filter FORWARD, to it.
    pub ingress: Option<Stop>,
    /// filter FORWARD, to it.
    pub to_hep: Option<Stop>,
    /// filter INPUT.
    pub normal_in: Option<Stop>,
    /// filter OUTPUT and mangle POSTROUTING.
    pub normal_out: Option<Stop>,
    /// raw PREROUTING.
    pub untracked_in: Option<Stop>,
    /// raw OUTPUT.
    pub untracked_out: Option<Stop>,
    /// mangle PREROUTING.
    pub prednat: Option<Stop>,
    /// What it is to workload policy.
    pub workload: WorkloadSide,
    /// The host endpoint that governs it.
    pub host: Option<EndpointId>,
}

/// By interface.
#[derive(Debug)]
pub struct AllStops {
    stops: Vec<Stops>,
    lone: Vec<Lone>,
    forward: Forward,
    /// By hook and [`Answer::kind`], but for the outcome.
    decisions: [[Option<Packed>; 4]; Hook::ALL.len()],
    /// By hook: the kinds of answers that have a decision, as a bit set.
    decided: [u8; Hook::ALL.len()],
}

impl AllStops {
    /// Of all interfaces that a table tells apart.
    pub fn of(engines: &Engines, interfaces: &Interfaces) -> Self {
        let program = engines.program();
        let stops: Vec<_> = interfaces.all().iter().map(|governors| Stops::of(program, governors)).collect();
        let decisions = Hook::ALL.map(|hook| lone_decisions(hook, &program.settings));
        let bits = |of: &LoneDecisions| (0..).zip(of).map(|(kind, of)| u8::from(of.is_some()) << kind).sum();
        Self {
            lone: stops.iter().map(|stops| Lone::of(engines, stops)).collect(),
            forward: Forward::of(engines, &stops),
            decided: decisions.each_ref().map(bits),
            decisions: decisions.map(|of| of.map(|decision| decision.map(Packed::but_outcome))),
            stops,
        }
    }

    /// Those of an interface; an id of another table meets nothing.
    #[inline]
    pub fn at(&self, interface: InterfaceId) -> &Stops {
        self.stops.get(interface.0 as usize).unwrap_or(&self.stops[InterfaceId::NONE.0 as usize])
    }

    /// The only chain that decides a new packet which carries no mark, behind failsafes; none where there are others, or
    /// more than that decides.
    #[inline]
    pub fn lone(&self, hook: Hook, input: InterfaceId, output: InterfaceId) -> Option<Lead> {
        let at = |interface: InterfaceId| self.lone.get(interface.0 as usize);
        let chains = match hook {
            Hook::FilterForward => return self.forward.lone(input, output),
            Hook::RawPrerouting => at(input)?.untracked_in,
            Hook::ManglePrerouting => at(input)?.prednat,
            Hook::FilterInput => at(input)?.input,
            Hook::RawOutput => at(output)?.untracked_out,
            Hook::FilterOutput => at(output)?.output,
            Hook::ManglePostrouting => return None,
        };
        Lead::of(chains)
    }

    /// What packets meet in filter FORWARD.
    #[inline]
    pub const fn forward(&self) -> &Forward {
        &self.forward
    }

    /// As [`Self::lone`], of many packets, and whether one of these chains is [a workload's](Lead::is_from_workload); none
    /// where one of them has none.
    #[inline]
    pub fn lone_block<const N: usize>(
        &self,
        hook: Hook,
        inputs: &[u32; N],
        outputs: &[u32; N],
    ) -> Option<([ChainId; N], bool)> {
        let lone = |interface: u32| self.lone.get(interface as usize);
        match hook {
            Hook::FilterForward => only(|index| self.forward.chains(inputs[index], outputs[index])),
            Hook::RawPrerouting => only(|index| Some(lone(inputs[index])?.untracked_in)),
            Hook::ManglePrerouting => only(|index| Some(lone(inputs[index])?.prednat)),
            Hook::FilterInput => only(|index| Some(lone(inputs[index])?.input)),
            Hook::RawOutput => only(|index| Some(lone(outputs[index])?.untracked_out)),
            Hook::FilterOutput => only(|index| Some(lone(outputs[index])?.output)),
            Hook::ManglePostrouting => None,
        }
    }

    /// The hook's decisions but for the outcome, by [`Answer::kind`], where lone chains answer so; none where a setting
    /// decides one of them.
    #[inline]
    pub fn lone_block_decisions<const N: usize>(
        &self,
        hook: Hook,
        answers: &[Answer; N],
    ) -> Option<[Decision; 4]> {
        let mut kinds = 0_u8;
        for answer in answers {
            kinds |= 1 << answer.kind();
        }
        if kinds & !self.decided[hook as usize] != 0 {
            return None;
        }
        Some(self.decisions[hook as usize].map(|decision| decision.unwrap_or(Packed::DENY).decision()))
    }

    /// The hook's decision where the lone chain answers so; none where a setting decides.
    #[inline]
    pub fn lone_decision(&self, hook: Hook, answer: Answer) -> Option<Packed> {
        Some(self.decisions[hook as usize][answer.kind()]?.with(answer.outcome()))
    }
}

/// The chains of packets, and whether one of them is a workload's; none where one packet has none.
#[inline]
fn only<const N: usize>(of: impl Fn(usize) -> Option<Chains>) -> Option<([ChainId; N], bool)> {
    let (mut chains, mut from_workloads) = ([ChainId::from_number(0); N], false);
    for (index, chain) in chains.iter_mut().enumerate() {
        let lead = Lead::of(of(index)?)?;
        from_workloads |= lead.is_from_workload();
        *chain = lead.chain();
    }
    Some((chains, from_workloads))
}

impl Stops {
    fn of(program: &Program, governors: &Governors) -> Self {
        use Direction::{Egress, Ingress};
        let chain = |id: Option<EndpointId>, stage, before, of: &dyn Fn(&Endpoint) -> Option<ChainId>| {
            let endpoint = id?;
            Some(Stop { chain: of(program.endpoint(endpoint))?, endpoint, stage, before })
        };
        let normal = |direction| move |endpoint: &Endpoint| Some(one(endpoint.normal, direction));
        let forward = |direction| move |endpoint: &Endpoint| Some(one(endpoint.forward?, direction));
        let untracked = |direction| move |endpoint: &Endpoint| Some(one(endpoint.untracked?, direction));
        let workload = governors.workload.known();
        let nobody = (governors.workload == WorkloadSide::Unknown).then_some(Stop::NOBODY);
        let Governors { normal: host, forward: forwarding, untracked: raw, prednat, .. } = *governors;
        let from_hep = chain(forwarding, Stage::FromHep, Before::Conntrack, &forward(Ingress));
        let egress = workload.map(|id| Stop::gate(program, id, Egress)).or(nobody);
        let ingress = workload.map(|id| Stop::gate(program, id, Ingress)).or(nobody);
        let to_hep = chain(forwarding, Stage::ToHep, Before::Conntrack, &forward(Egress));
        Self {
            from_hep,
            egress,
            ingress,
            to_hep,
            normal_in: chain(host, Stage::Normal, Before::at(Hook::FilterInput), &normal(Ingress)),
            normal_out: chain(host, Stage::Normal, Before::at(Hook::FilterOutput), &normal(Egress)),
            untracked_in: chain(raw, Stage::Untracked, Before::at(Hook::RawPrerouting), &untracked(Ingress)),
            untracked_out: chain(raw, Stage::Untracked, Before::at(Hook::RawOutput), &untracked(Egress)),
            prednat: chain(prednat, Stage::Prednat, Before::at(Hook::ManglePrerouting), &|endpoint| {
                endpoint.prednat
            }),
            workload: governors.workload,
            host: forwarding,
        }
    }
}

fn one(chains: Directed<ChainId>, direction: Direction) -> ChainId {
    match direction {
        Direction::Ingress => chains.ingress,
        Direction::Egress => chains.egress,
    }
}

impl Stop {
    const NOBODY: Self = Self {
        chain: ChainId::from_number(0),
        endpoint: EndpointId::from_number(0),
        stage: Stage::Interface,
        before: Before::Nobody,
    };

    /// A workload's chain in FORWARD, whatever its interface.
    pub fn gate(program: &Program, workload: EndpointId, direction: Direction) -> Self {
        Self::in_forward(one(program.endpoint(workload).normal, direction), workload, direction)
    }

    /// The chain that a workload has in this direction.
    pub fn in_forward(chain: ChainId, workload: EndpointId, direction: Direction) -> Self {
        let (stage, before) = match direction {
            Direction::Ingress => (Stage::WorkloadIngress, Before::Conntrack),
            Direction::Egress => (Stage::WorkloadEgress, Before::Encapsulation),
        };
        Self { chain, endpoint: workload, stage, before }
    }
}
