//! The chains that packets of an interface meet, hook by hook: worked out once when a table is bound, so that a packet
//! costs one load for each of its two interfaces.

use std::hint::select_unpredictable;

use super::answer::Answer;
use super::engines::Engines;
use super::failsafe::FailsafeList;
use super::hooks::lone_decisions;
use super::interfaces::{Governors, Interfaces, WorkloadSide};
use super::{Decision, Stage};
use crate::flow::{Direction, EndpointId, Family, Hook, InterfaceId};
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

/// Of hooks and sides of an interface: the only chain there ([`Lead`]), or [`NONE`], or [`MORE`]. The sum of two, in
/// 32 bits, is that of a chain only where one of them is and the other is [`NONE`]: so both are looked at in one
/// comparison.
type Chains = u32;
const NONE: Chains = 0;
/// Above the number of the only chain.
const ONE: Chains = 1 << KIND;
/// Several chains, or one with more ahead of it than a new packet can skip.
const MORE: Chains = 2 << KIND;
/// Where the number of a chain ends, with what else is known of it.
const KIND: u32 = 30;
/// Where bits for each family begin.
const BY_DESTINATION: u32 = 28;
const IN_TREE: u32 = 26;
/// The bit of a workload's egress, ahead of which encapsulated packets are settled (E-20.5).
const FROM_WORKLOAD: u32 = 25;

/// The only chain that a packet meets.
#[derive(Clone, Copy, Debug)]
pub struct Lead(u32);

impl Lead {
    fn of(chains: Chains) -> Option<Self> {
        (chains >> KIND == ONE >> KIND).then_some(Self(chains))
    }

    /// Its number.
    #[inline]
    pub const fn chain(self) -> ChainId {
        ChainId::from_number(self.0 & ((1 << FROM_WORKLOAD) - 1))
    }

    /// Whether encapsulated packets are settled ahead of it (E-20.5).
    #[inline]
    pub const fn is_from_workload(self) -> bool {
        self.0 >> FROM_WORKLOAD & 1 != 0
    }

    /// Whether it looks at destinations first: known before its record is at hand, so that the way to the class of an
    /// address need not wait for that.
    #[inline]
    pub const fn is_by_destination(self, family: Family) -> bool {
        self.0 >> (BY_DESTINATION + family as u32) & 1 != 0
    }

    /// Whether `tree` answers for it: who asks need not find out that it has no table in `classes`.
    #[inline]
    pub const fn is_in_tree(self, family: Family) -> bool {
        self.0 >> (IN_TREE + family as u32) & 1 != 0
    }
}

/// A chain that is the only one.
fn one_chain(engines: &Engines, chain: ChainId) -> Chains {
    // Above all numbers that fit, the walk has to do.
    if chain.number() >> FROM_WORKLOAD != 0 {
        return MORE;
    }
    let bits = |family: Family| {
        let by_destination = u32::from(engines.is_by_destination(chain, family)) << BY_DESTINATION;
        (by_destination | u32::from(engines.is_in_tree(chain, family)) << IN_TREE) << family as u32
    };
    ONE | bits(Family::V4) | bits(Family::V6) | chain.number()
}

/// The only chain that new packets of an interface meet: what most of them need to know, in one load.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Lone {
    /// filter FORWARD, from it.
    from: Chains,
    /// filter FORWARD, to it.
    to: Chains,
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

/// The chains that packets in FORWARD meet; those that meet one have it twice.
pub struct Pairs<const N: usize> {
    pub first: [ChainId; N],
    pub last: [ChainId; N],
    /// It is two, which may be the same.
    pub is_pair: [bool; N],
    /// One of them is [a workload's](Lead::is_from_workload).
    pub from_workloads: bool,
}

/// Decisions but for the outcome, by [`Answer::kind`].
pub type LoneDecisions = [Option<Decision>; 4];

impl Lone {
    fn of(engines: &Engines, stops: &Stops) -> Self {
        let one_chain = |chain| one_chain(engines, chain);
        let few = |stops: [Option<Stop>; 2]| match stops {
            [None, None] => NONE,
            [Some(stop), None] | [None, Some(stop)] => match stop.before {
                Before::Conntrack => one_chain(stop.chain),
                Before::Encapsulation => one_chain(stop.chain) | 1 << FROM_WORKLOAD,
                _ => MORE,
            },
            [Some(_), Some(_)] => MORE,
        };
        let one = |stop: Option<Stop>| stop.map_or(MORE, |stop| one_chain(stop.chain));
        let of_host = |stop: Option<Stop>| one(stop.filter(|_| stops.workload == WorkloadSide::Host));
        Self {
            from: few([stops.from_hep, stops.egress]),
            to: few([stops.ingress, stops.to_hep]),
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
    /// By hook.
    decisions: [LoneDecisions; Hook::ALL.len()],
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
            decided: decisions.each_ref().map(bits),
            decisions,
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
            Hook::FilterForward => return self.lone_in_forward(input, output),
            Hook::RawPrerouting => at(input)?.untracked_in,
            Hook::ManglePrerouting => at(input)?.prednat,
            Hook::FilterInput => at(input)?.input,
            Hook::RawOutput => at(output)?.untracked_out,
            Hook::FilterOutput => at(output)?.output,
            Hook::ManglePostrouting => return None,
        };
        Lead::of(chains)
    }

    /// As [`Self::lone`], in filter FORWARD.
    #[inline]
    pub fn lone_in_forward(&self, input: InterfaceId, output: InterfaceId) -> Option<Lead> {
        let at = |interface: InterfaceId| self.lone.get(interface.0 as usize);
        Lead::of(at(input)?.from.wrapping_add(at(output)?.to))
    }

    /// The two chains that a new packet in filter FORWARD meets in turn, if both of its interfaces have one alone.
    #[inline]
    pub fn pair_in_forward(&self, input: InterfaceId, output: InterfaceId) -> Option<[Lead; 2]> {
        let at = |interface: InterfaceId| self.lone.get(interface.0 as usize);
        Some([Lead::of(at(input)?.from)?, Lead::of(at(output)?.to)?])
    }

    /// The same of many packets, each of which meets one chain or two; none where one of them meets others.
    #[inline]
    pub fn pair_block<const N: usize>(&self, inputs: &[u32; N], outputs: &[u32; N]) -> Option<Pairs<N>> {
        let mut pairs = Pairs {
            first: [ChainId::from_number(0); N],
            last: [ChainId::from_number(0); N],
            is_pair: [false; N],
            from_workloads: false,
        };
        for index in 0..N {
            let (from, to) =
                (self.lone.get(inputs[index] as usize)?.from, self.lone.get(outputs[index] as usize)?.to);
            if from.max(to) >= MORE || from | to == NONE {
                return None;
            }
            pairs.first[index] = Lead(select_unpredictable(from == NONE, to, from)).chain();
            pairs.last[index] = Lead(select_unpredictable(to == NONE, from, to)).chain();
            pairs.is_pair[index] = from.min(to) != NONE;
            pairs.from_workloads |= Lead(from).is_from_workload();
        }
        Some(pairs)
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
        match hook {
            Hook::FilterForward => self.chains(inputs, outputs, |from, to| from.from.wrapping_add(to.to)),
            Hook::RawPrerouting => self.chains(inputs, inputs, |from, _| from.untracked_in),
            Hook::ManglePrerouting => self.chains(inputs, inputs, |from, _| from.prednat),
            Hook::FilterInput => self.chains(inputs, inputs, |from, _| from.input),
            Hook::RawOutput => self.chains(outputs, outputs, |to, _| to.untracked_out),
            Hook::FilterOutput => self.chains(outputs, outputs, |to, _| to.output),
            Hook::ManglePostrouting => None,
        }
    }

    /// By the entries of two interfaces of each packet.
    #[inline]
    fn chains<const N: usize>(
        &self,
        one: &[u32; N],
        other: &[u32; N],
        of: impl Fn(&Lone, &Lone) -> Chains,
    ) -> Option<([ChainId; N], bool)> {
        let mut chains = [ChainId::from_number(0); N];
        let (mut all, mut from_workloads) = (true, false);
        for index in 0..N {
            let both = of(self.lone.get(one[index] as usize)?, self.lone.get(other[index] as usize)?);
            all &= both >> KIND == ONE >> KIND;
            from_workloads |= Lead(both).is_from_workload();
            chains[index] = Lead(both).chain();
        }
        all.then_some((chains, from_workloads))
    }

    /// The hook's decisions but for the outcome, by [`Answer::kind`], where lone chains answer so; none where a setting
    /// decides one of them.
    #[inline]
    pub fn lone_block_decisions<const N: usize>(
        &self,
        hook: Hook,
        answers: &[Answer; N],
    ) -> Option<[Decision; 4]> {
        let decisions = &self.decisions[hook as usize];
        let mut kinds = 0_u8;
        for answer in answers {
            kinds |= 1 << answer.kind();
        }
        if kinds & !self.decided[hook as usize] != 0 {
            return None;
        }
        let nothing = decisions.iter().copied().flatten().next()?;
        Some(decisions.map(|decision| decision.unwrap_or(nothing)))
    }

    /// The hook's decision where the lone chain answers so; none where a setting decides.
    #[inline]
    pub fn lone_decision(&self, hook: Hook, answer: Answer) -> Option<Decision> {
        let decision = self.decisions[hook as usize][answer.kind()]?;
        Some(Decision { outcome: answer.outcome(), ..decision })
    }
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
