//! The hooks (semantics 4.3): which chains of which endpoints a packet passes, in which order, and what their ends
//! mean at this hook.

use super::answer::Answer;
use super::connectivity::Gate;
use super::engines::{Packet, Seen};
use super::interfaces::WorkloadSide;
use super::linear;
use super::point::Point;
use super::stops::{Before, LoneDecisions, Stop, Stops};
use super::{Decision, DecisionTable, Stage, Step, Trace};
use crate::flow::{
    CtState, EndpointId, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, Verdict, protocol,
};
use crate::program::{Action, ChainId, EndpointToHost, ForwardUnmarked, Reason, Settings};

/// Whether conntrack has nothing to say: what it exempts is judged like a first packet.
#[inline]
pub const fn is_new(ct: CtState) -> bool {
    matches!(ct, CtState::New | CtState::Untracked)
}

/// The decisions of a hook in which a packet meets one chain alone, but for the outcome, by [`Answer::kind`]; none where
/// a setting decides.
pub fn lone_decisions(hook: Hook, settings: &Settings) -> LoneDecisions {
    let verdicts = match hook {
        Hook::RawPrerouting | Hook::RawOutput => UNTRACKED,
        Hook::ManglePrerouting => PREDNAT,
        Hook::FilterForward => FORWARD,
        Hook::FilterInput | Hook::FilterOutput => normal_verdicts(Verdict::Allow),
        Hook::ManglePostrouting => normal_verdicts(Verdict::Continue),
    };
    let mut decisions = [None; 4];
    for (decision, (run, _)) in decisions.iter_mut().zip(ENDS) {
        let is_open = hook == Hook::FilterForward && run == Run::Unmarked;
        if !is_open || settings.forward_unmarked == ForwardUnmarked::Return {
            let verdict = verdicts[run as usize];
            let accepted = !keeps_arrival(hook) && run == Run::Accept;
            let outcome = Reason::NoEndpoint.outcome();
            *decision = Some(Decision { verdict, failsafe: false, accepted, outcome });
        }
    }
    decisions
}

/// Whether the accept mark stays as it came.
const fn keeps_arrival(hook: Hook) -> bool {
    matches!(hook, Hook::FilterInput | Hook::FilterOutput | Hook::ManglePostrouting)
}

/// Evaluates one packet at one hook, and gives the step that decided.
#[inline(never)]
pub fn walk<T: Trace>(
    table: &DecisionTable,
    key: &FlowKey,
    tree: Option<(ChainId, Answer)>,
    trace: &mut T,
) -> (Decision, Step) {
    let packet = &Packet::of(&key.tuple);
    let mut walk = Walk::new(table, key, packet, Seen::of_tree(tree), trace);
    let verdict = match key.hook {
        Hook::RawPrerouting => walk.raw_prerouting(),
        Hook::RawOutput => walk.raw_output(),
        Hook::ManglePrerouting => walk.mangle_prerouting(),
        Hook::FilterInput => walk.filter_input(),
        Hook::FilterForward => walk.filter_forward(),
        Hook::FilterOutput => walk.filter_output(),
        Hook::ManglePostrouting => walk.mangle_postrouting(),
    };
    let accepted = if keeps_arrival(key.hook) { key.accepted } else { walk.accepted };
    let Step { outcome, .. } = walk.last;
    let decision = Decision {
        verdict,
        failsafe: walk.failsafe,
        accepted: verdict != Verdict::Deny && accepted,
        outcome,
    };
    (decision, Step { outcome: table.engines.meaning(outcome).0, ..walk.last })
}

/// Runs a workload's normal chain in the direction of a FORWARD stage, whatever its interface, on a new connection;
/// `known` is what the chain says, if somebody has asked it.
#[inline]
pub fn workload_gate(table: &DecisionTable, tuple: &FiveTuple, stop: &Stop, known: Option<Answer>) -> Gate {
    let endpoint = Some(stop.endpoint);
    if stop.before == Before::Encapsulation && is_encapsulated(&table.program().settings, tuple) {
        let denied = step(stop.stage, endpoint, Reason::Encapsulation);
        return Gate { allows: false, step: denied, outcome: denied.outcome };
    }
    let answer = known.unwrap_or_else(|| table.engines.find_lone(stop.chain, tuple, &mut ()));
    let (run, action) = ENDS[answer.end() as usize];
    let outcome = answer.outcome();
    let own = table.engines.meaning(outcome).0;
    let last = Step { stage: stop.stage, endpoint, outcome: own, action };
    Gate { allows: run == Run::Accept, step: last, outcome }
}

/// Every step of [`workload_gate`].
pub fn workload_gate_trace(table: &DecisionTable, key: &FlowKey, stop: &Stop) -> Vec<Step> {
    let (packet, mut steps) = (Packet::of(&key.tuple), Vec::new());
    Walk::new(table, key, &packet, Seen::NOTHING, &mut steps).run(stop);
    steps
}

fn step(stage: Stage, endpoint: Option<EndpointId>, reason: Reason) -> Step {
    Step { stage, endpoint, outcome: reason.outcome(), action: reason.action() }
}

/// E-20.5.
pub fn is_encapsulated(settings: &Settings, tuple: &FiveTuple) -> bool {
    is_encapsulation(settings, tuple.protocol, Point::service_of(&tuple.transport))
}

/// The same of a protocol and its second key ([`Point::service`]); without branches, so that many can be asked at once.
#[inline]
#[allow(clippy::needless_bitwise_bool)]
pub fn is_encapsulation(settings: &Settings, number: u8, service: u32) -> bool {
    let vxlan = settings.workload_vxlan_port.map_or(u32::MAX, u32::from);
    (settings.workload_ipip_denied & (number == protocol::IPIP))
        | ((number == protocol::UDP) & (service == vxlan))
}

/// How an endpoint chain with its settled steps (E-20) ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Accept,
    Deny,
    Unmarked,
    /// Step 2: final for the hook.
    Established,
    /// Step 3: final for the hook.
    Failsafe,
}

/// Of a chain, in the order of its ends.
const ENDS: [(Run, Option<Action>); 3] =
    [(Run::Deny, Some(Action::Deny)), (Run::Accept, Some(Action::Allow)), (Run::Unmarked, None)];

/// Verdicts in the order of [`Run`]. Looked up, not branched on: which way a packet's chain ends cannot be predicted,
/// and a processor that has guessed wrong begins the packets behind it anew.
type ByRun = [Verdict; 5];

/// E-31, E-32.
const UNTRACKED: ByRun =
    [Verdict::AllowNotrack, Verdict::Deny, Verdict::Continue, Verdict::Continue, Verdict::Continue];
/// E-33, E-34.
const PREDNAT: ByRun =
    [Verdict::AllowSkipHep, Verdict::Deny, Verdict::Continue, Verdict::Continue, Verdict::Continue];
/// E-27, E-39, with `forwardUnmarked: return`.
const FORWARD: ByRun = [Verdict::Allow, Verdict::Deny, Verdict::Continue, Verdict::Allow, Verdict::Continue];

/// Of a host endpoint's normal policy; `allow` is the word of the hook for an accept.
const fn normal_verdicts(allow: Verdict) -> ByRun {
    [allow, Verdict::Deny, Verdict::Deny, allow, allow]
}

struct Walk<'a, T> {
    table: &'a DecisionTable,
    key: &'a FlowKey,
    packet: &'a Packet<'a>,
    trace: &'a mut T,
    /// The accept mark as it stands.
    accepted: bool,
    failsafe: bool,
    /// Where nobody listens its outcome is numbered as the engines do.
    last: Step,
    /// What the engines found out about the packet in an earlier chain.
    seen: Seen,
}

impl<'a, T: Trace> Walk<'a, T> {
    #[inline]
    fn new(
        table: &'a DecisionTable,
        key: &'a FlowKey,
        packet: &'a Packet<'a>,
        seen: Seen,
        trace: &'a mut T,
    ) -> Self {
        let last = step(Stage::Interface, None, Reason::NoEndpoint);
        Self { table, key, packet, trace, accepted: key.accepted, failsafe: false, last, seen }
    }

    /// E-30, E-31.
    fn raw_prerouting(&mut self) -> Verdict {
        self.accepted = false;
        let input = self.input();
        match input.workload {
            WorkloadSide::Unknown => {
                self.settle(Stage::Interface, None, Reason::UnknownWorkload, Verdict::Deny)
            }
            WorkloadSide::Known(id) if self.is_spoofed(id) => {
                self.settle(Stage::Spoof, Some(id), Reason::SpoofedSource, Verdict::Deny)
            }
            WorkloadSide::Known(id) => {
                self.settle(Stage::Interface, Some(id), Reason::WorkloadInRaw, Verdict::Continue)
            }
            WorkloadSide::Host => self.untracked(input, input.untracked_in.as_ref()),
        }
    }

    /// E-32.
    fn raw_output(&mut self) -> Verdict {
        self.accepted = false;
        let output = self.output();
        self.untracked(output, output.untracked_out.as_ref())
    }

    fn untracked(&mut self, side: &Stops, stop: Option<&Stop>) -> Verdict {
        match stop {
            Some(stop) => UNTRACKED[self.run(stop) as usize],
            None => self.no_policy(side, Reason::NoUntrackedPolicy),
        }
    }

    /// E-33, E-34.
    fn mangle_prerouting(&mut self) -> Verdict {
        if self.is_established() {
            return self.settle(Stage::Conntrack, None, Reason::MangleEstablished, Verdict::Continue);
        }
        if self.accepted {
            return self.settle(Stage::Prednat, None, Reason::AcceptMark, Verdict::Continue);
        }
        let input = self.input();
        match &input.prednat {
            Some(stop) => PREDNAT[self.run(stop) as usize],
            None => self.no_policy(input, Reason::NoPrednatPolicy),
        }
    }

    /// E-35.
    fn filter_input(&mut self) -> Verdict {
        let input = self.input();
        if input.workload != WorkloadSide::Host {
            return self.workload_to_host(input);
        }
        if self.accepted {
            return self.settle(Stage::Normal, None, Reason::AcceptMark, Verdict::Allow);
        }
        self.normal(input.normal_in.as_ref(), Verdict::Allow)
    }

    /// E-50.
    fn workload_to_host(&mut self, input: &Stops) -> Verdict {
        let known = input.workload.known();
        if self.is_neighbour_discovery() {
            return self.settle(Stage::WorkloadToHost, known, Reason::NeighbourDiscovery, Verdict::Allow);
        }
        let Some(egress) = &input.egress else {
            return self.no_endpoint();
        };
        match self.run(egress) {
            Run::Established => Verdict::Allow,
            Run::Accept => {
                let verdict = match self.settings().endpoint_to_host {
                    EndpointToHost::Drop => Verdict::Deny,
                    EndpointToHost::Accept => Verdict::Allow,
                    EndpointToHost::Return => Verdict::Continue,
                };
                self.settle(Stage::WorkloadToHost, known, Reason::EndpointToHost, verdict)
            }
            Run::Deny | Run::Failsafe | Run::Unmarked => Verdict::Deny,
        }
    }

    /// E-36.
    fn filter_output(&mut self) -> Verdict {
        if self.accepted {
            return self.settle(Stage::Normal, None, Reason::AcceptMark, Verdict::Allow);
        }
        let output = self.output();
        if output.workload != WorkloadSide::Host {
            return self.host_to_workload(output.workload);
        }
        if self.key.dnatted {
            return self.settle(Stage::Normal, None, Reason::DnatLater, Verdict::Continue);
        }
        self.normal(output.normal_out.as_ref(), Verdict::Allow)
    }

    /// E-37.
    fn mangle_postrouting(&mut self) -> Verdict {
        if self.key.input != InterfaceId::NONE {
            return self.settle(Stage::Normal, None, Reason::Forwarded, Verdict::Continue);
        }
        if !self.key.dnatted {
            return self.settle(Stage::Normal, None, Reason::NotDnatted, Verdict::Continue);
        }
        let output = self.output();
        if output.workload != WorkloadSide::Host {
            return self.host_to_workload(output.workload);
        }
        self.normal(output.normal_out.as_ref(), Verdict::Continue)
    }

    fn host_to_workload(&mut self, workload: WorkloadSide) -> Verdict {
        self.settle(Stage::Interface, workload.known(), Reason::HostToWorkload, Verdict::Continue)
    }

    /// A host endpoint's normal chain; `allow` is the word of this hook for an accept.
    fn normal(&mut self, stop: Option<&Stop>, allow: Verdict) -> Verdict {
        let Some(stop) = stop else {
            return self.no_endpoint();
        };
        normal_verdicts(allow)[self.run(stop) as usize]
    }

    /// E-38, E-39.
    fn filter_forward(&mut self) -> Verdict {
        let (input, output) = (self.input(), self.output());
        let from_hep = if self.accepted { None } else { input.from_hep.as_ref() };
        // One stop behind: what the last one answers is looked up, not branched on.
        let mut last = from_hep;
        for stop in [input.egress.as_ref(), output.ingress.as_ref(), output.to_hep.as_ref()] {
            if stop.is_some()
                && let Some(before) = std::mem::replace(&mut last, stop)
            {
                match self.run(before) {
                    Run::Established => return Verdict::Allow,
                    Run::Deny => return Verdict::Deny,
                    Run::Accept | Run::Unmarked | Run::Failsafe => {}
                }
            }
        }
        match last {
            Some(stop) => {
                let run = self.run(stop);
                self.forward_end(run)
            }
            None if self.accepted => self.settle(Stage::Interface, None, Reason::AcceptMark, Verdict::Allow),
            None => self.no_endpoint(),
        }
    }

    /// E-27, E-39: behind the last stage.
    fn forward_end(&mut self, run: Run) -> Verdict {
        match self.settings().forward_unmarked {
            ForwardUnmarked::Accept if run == Run::Unmarked => self.forward_unmarked(Verdict::Allow),
            ForwardUnmarked::Deny if run == Run::Unmarked => self.forward_unmarked(Verdict::Deny),
            _ => FORWARD[run as usize],
        }
    }

    fn forward_unmarked(&mut self, verdict: Verdict) -> Verdict {
        self.settle(self.last.stage, self.last.endpoint, Reason::ForwardEnd, verdict)
    }

    /// E-20.
    fn run(&mut self, stop: &Stop) -> Run {
        if let Some(end) = self.before_tiers(stop) {
            return end;
        }
        let answer = if T::IS_SILENT { self.find(stop) } else { self.find_traced(stop) };
        let (run, action) = ENDS[answer.end() as usize];
        self.push(Step {
            stage: stop.stage,
            endpoint: Some(stop.endpoint),
            outcome: answer.outcome(),
            action,
        });
        self.accepted = run == Run::Accept;
        run
    }

    #[inline]
    fn find(&mut self, stop: &Stop) -> Answer {
        self.table.engines.find(stop.chain, self.packet, &mut self.seen, self.trace)
    }

    /// Only `linear` says what was passed on the way.
    fn find_traced(&mut self, stop: &Stop) -> Answer {
        let program = self.table.program();
        let trace = &mut *self.trace;
        let end = linear::run(program, program.chain(stop.chain), &self.key.tuple, &mut |passed| {
            let (linear::Passed::Rule(outcome) | linear::Passed::Tier(outcome)) = passed;
            let action = program.outcome(outcome).action;
            trace.step(Step { stage: stop.stage, endpoint: Some(stop.endpoint), outcome, action });
        });
        Answer::plain(end)
    }

    /// Steps 2, 3 and 5 of E-20.
    #[inline]
    fn before_tiers(&mut self, stop: &Stop) -> Option<Run> {
        if stop.before == Before::Conntrack && is_new(self.key.ct) { None } else { self.settled(stop) }
    }

    fn settled(&mut self, stop: &Stop) -> Option<Run> {
        let endpoint = Some(stop.endpoint);
        let (stage, reason, run) = match stop.before {
            Before::Nobody => {
                self.push(step(Stage::Interface, None, Reason::UnknownWorkload));
                return Some(Run::Deny);
            }
            Before::Untracked(_) => (Stage::Failsafe, self.failsafe_reason(stop.before)?, Run::Failsafe),
            _ if self.is_established() => (Stage::Conntrack, Reason::Established, Run::Established),
            before if self.key.ct == CtState::Invalid && self.settings().invalid_check => {
                let in_mangle = before == Before::Prednat;
                let reason = if in_mangle { Reason::MangleInvalid } else { Reason::Invalid };
                (Stage::Conntrack, reason, Run::Deny)
            }
            Before::Encapsulation if is_encapsulated(self.settings(), &self.key.tuple) => {
                self.accepted = false;
                (stop.stage, Reason::Encapsulation, Run::Deny)
            }
            before => (Stage::Failsafe, self.failsafe_reason(before)?, Run::Failsafe),
        };
        self.push(step(stage, endpoint, reason));
        self.failsafe |= run == Run::Failsafe;
        Some(run)
    }

    fn failsafe_reason(&self, before: Before) -> Option<Reason> {
        self.table.failsafes.reason(self.settings(), &self.key.tuple, before)
    }

    fn is_established(&self) -> bool {
        matches!(self.key.ct, CtState::Established | CtState::Related)
    }

    /// E-50: the `ICMPv6` types that a workload needs to find the host.
    fn is_neighbour_discovery(&self) -> bool {
        let tuple = &self.key.tuple;
        tuple.family == Family::V6
            && tuple.protocol == protocol::ICMPV6
            && matches!(tuple.transport, Transport::Icmp { kind: 130..=133 | 135 | 136, .. })
    }

    /// E-30: the source is none of the workload's; IPv6 link-local and unspecified sources are exempt.
    fn is_spoofed(&self, id: EndpointId) -> bool {
        let tuple = &self.key.tuple;
        let exempt = tuple.family == Family::V6 && (tuple.source == 0 || tuple.source >> 118 == 0xfe80 >> 6);
        !exempt
            && !self
                .table
                .program()
                .endpoint(id)
                .sources
                .iter()
                .any(|n| n.contains(tuple.family, tuple.source))
    }

    /// Nothing to ask before filter, with the reason where there is a host endpoint.
    fn no_policy(&mut self, side: &Stops, reason: Reason) -> Verdict {
        match side.host {
            None => self.no_endpoint(),
            host => self.settle(Stage::Interface, host, reason, Verdict::Continue),
        }
    }

    fn no_endpoint(&mut self) -> Verdict {
        self.settle(Stage::Interface, None, Reason::NoEndpoint, Verdict::Continue)
    }

    fn settle(
        &mut self,
        stage: Stage,
        endpoint: Option<EndpointId>,
        reason: Reason,
        verdict: Verdict,
    ) -> Verdict {
        let action = self.settings().action(reason);
        self.push(Step { action, ..step(stage, endpoint, reason) });
        verdict
    }

    fn push(&mut self, step: Step) {
        self.last = step;
        self.trace.step(step);
    }

    fn input(&self) -> &'a Stops {
        self.table.stops.at(self.key.input)
    }

    fn output(&self) -> &'a Stops {
        self.table.stops.at(self.key.output)
    }

    fn settings(&self) -> &'a Settings {
        &self.table.program().settings
    }
}
