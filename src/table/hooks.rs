//! The hooks (semantics 4.3): which chains of which endpoints a packet passes, in which order, and what their ends
//! mean at this hook.

use super::answer::Answer;
use super::connectivity::Gate;
use super::engines::{Packet, Seen};
use super::interfaces::{Governors, WorkloadSide};
use super::linear;
use super::{Decision, DecisionTable, Stage, Step, Trace};
use crate::flow::{CtState, EndpointId, Family, FlowKey, Hook, OutcomeId, Transport, Verdict, protocol};
use crate::program::{Action, ChainId, EndpointToHost, Failsafe, ForwardUnmarked, Reason, Settings};

/// Evaluates one packet at one hook; `seen` is what is known of it already.
pub fn evaluate<T: Trace>(table: &DecisionTable, key: &FlowKey, seen: Seen, trace: &mut T) -> Decision {
    let mut walk = Walk::new(table, key, seen, trace);
    let verdict = match key.hook {
        Hook::RawPrerouting => walk.raw_prerouting(),
        Hook::RawOutput => walk.raw_output(),
        Hook::ManglePrerouting => walk.mangle_prerouting(),
        Hook::FilterInput => walk.filter_input(),
        Hook::FilterForward => walk.filter_forward(),
        Hook::FilterOutput => walk.filter_output(),
        Hook::ManglePostrouting => walk.mangle_postrouting(),
    };
    let keeps_arrival = matches!(key.hook, Hook::FilterInput | Hook::FilterOutput | Hook::ManglePostrouting);
    let accepted = if keeps_arrival { key.accepted } else { walk.accepted };
    Decision {
        verdict,
        failsafe: walk.failsafe,
        accepted: verdict != Verdict::Deny && accepted,
        step: walk.last,
        outcome: walk.outcome,
    }
}

/// Runs a workload's normal chain in the direction of a FORWARD stage, whatever its interface.
pub fn workload_gate(table: &DecisionTable, key: &FlowKey, workload: EndpointId, stage: Stage) -> Gate {
    let ignored = &mut ();
    let mut walk = Walk::new(table, key, Seen::NOTHING, ignored);
    let chains = table.chains(workload).normal;
    let (chain, settled) = if stage == Stage::WorkloadEgress {
        (chains.egress, Settled::WorkloadEgress)
    } else {
        (chains.ingress, Settled::Workload)
    };
    let allows = walk.run(workload, chain, stage, settled) == Run::Accept;
    Gate { allows, step: walk.last }
}

fn step(stage: Stage, endpoint: Option<EndpointId>, reason: Reason) -> Step {
    Step { stage, endpoint, outcome: reason.outcome(), action: reason.action() }
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
    [(Run::Accept, Some(Action::Allow)), (Run::Deny, Some(Action::Deny)), (Run::Unmarked, None)];

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

/// Which settled steps of E-20 precede the tiers.
#[derive(Clone, Copy)]
enum Settled {
    /// Workloads: conntrack.
    Workload,
    /// Workload egress: conntrack and encapsulation (E-20.5).
    WorkloadEgress,
    /// Host endpoint, normal: conntrack, failsafes.
    Normal(FailsafeList),
    /// Host endpoint, forward: conntrack (E-42).
    Forward,
    /// Host endpoint, untracked: failsafes with their return half (E-43).
    Untracked(FailsafeList),
    /// Host endpoint, preDNAT: INVALID (E-34), failsafes.
    Prednat,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FailsafeList {
    Inbound,
    Outbound,
}

struct Walk<'a, T> {
    table: &'a DecisionTable,
    key: &'a FlowKey,
    trace: &'a mut T,
    /// The accept mark as it stands.
    accepted: bool,
    failsafe: bool,
    last: Step,
    /// That of the last step, as the engines number it.
    outcome: OutcomeId,
    /// What the engines found out about the packet in an earlier chain.
    seen: Seen,
}

impl<'a, T: Trace> Walk<'a, T> {
    fn new(table: &'a DecisionTable, key: &'a FlowKey, seen: Seen, trace: &'a mut T) -> Self {
        let last = step(Stage::Interface, None, Reason::NoEndpoint);
        let outcome = last.outcome;
        Self { table, key, trace, accepted: key.accepted, failsafe: false, last, outcome, seen }
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
            WorkloadSide::Host => self.untracked(input, FailsafeList::Inbound),
        }
    }

    /// E-32.
    fn raw_output(&mut self) -> Verdict {
        self.accepted = false;
        self.untracked(self.output(), FailsafeList::Outbound)
    }

    fn untracked(&mut self, side: Governors, list: FailsafeList) -> Verdict {
        let Some((id, chains)) = side.untracked.and_then(|id| Some((id, self.table.chains(id).untracked?)))
        else {
            return self.no_policy(side, Reason::NoUntrackedPolicy);
        };
        let chain = if list == FailsafeList::Inbound { chains.ingress } else { chains.egress };
        UNTRACKED[self.run(id, chain, Stage::Untracked, Settled::Untracked(list)) as usize]
    }

    /// E-33, E-34.
    fn mangle_prerouting(&mut self) -> Verdict {
        if self.is_established() {
            return self.settle(Stage::Conntrack, None, Reason::MangleEstablished, Verdict::Continue);
        }
        if self.accepted {
            return self.settle(Stage::Prednat, None, Reason::AcceptMark, Verdict::Continue);
        }
        let side = self.input();
        let Some((id, chain)) = side.prednat.and_then(|id| Some((id, self.table.chains(id).prednat?))) else {
            return self.no_policy(side, Reason::NoPrednatPolicy);
        };
        PREDNAT[self.run(id, chain, Stage::Prednat, Settled::Prednat) as usize]
    }

    /// E-35.
    fn filter_input(&mut self) -> Verdict {
        let input = self.input();
        if input.workload != WorkloadSide::Host {
            return self.workload_to_host(input.workload);
        }
        if self.accepted {
            return self.settle(Stage::Normal, None, Reason::AcceptMark, Verdict::Allow);
        }
        self.normal(input.normal, FailsafeList::Inbound, Verdict::Allow)
    }

    /// E-50.
    fn workload_to_host(&mut self, workload: WorkloadSide) -> Verdict {
        let known = match workload {
            WorkloadSide::Known(id) => Some(id),
            WorkloadSide::Unknown | WorkloadSide::Host => None,
        };
        if self.is_neighbour_discovery() {
            return self.settle(Stage::WorkloadToHost, known, Reason::NeighbourDiscovery, Verdict::Allow);
        }
        let Some(id) = known else {
            return self.settle(Stage::Interface, None, Reason::UnknownWorkload, Verdict::Deny);
        };
        let chain = self.table.chains(id).normal.egress;
        match self.run(id, chain, Stage::WorkloadEgress, Settled::WorkloadEgress) {
            Run::Established => Verdict::Allow,
            Run::Accept => {
                let (action, verdict) = match self.settings().endpoint_to_host {
                    EndpointToHost::Drop => (Some(Action::Deny), Verdict::Deny),
                    EndpointToHost::Accept => (Some(Action::Allow), Verdict::Allow),
                    EndpointToHost::Return => (None, Verdict::Continue),
                };
                let done = step(Stage::WorkloadToHost, Some(id), Reason::EndpointToHost);
                self.push(Step { action, ..done });
                verdict
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
        self.normal(output.normal, FailsafeList::Outbound, Verdict::Allow)
    }

    /// E-37.
    fn mangle_postrouting(&mut self) -> Verdict {
        if self.key.input != crate::flow::InterfaceId::NONE {
            return self.settle(Stage::Normal, None, Reason::Forwarded, Verdict::Continue);
        }
        if !self.key.dnatted {
            return self.settle(Stage::Normal, None, Reason::NotDnatted, Verdict::Continue);
        }
        let output = self.output();
        if output.workload != WorkloadSide::Host {
            return self.host_to_workload(output.workload);
        }
        self.normal(output.normal, FailsafeList::Outbound, Verdict::Continue)
    }

    fn host_to_workload(&mut self, workload: WorkloadSide) -> Verdict {
        let known = match workload {
            WorkloadSide::Known(id) => Some(id),
            WorkloadSide::Unknown | WorkloadSide::Host => None,
        };
        self.settle(Stage::Interface, known, Reason::HostToWorkload, Verdict::Continue)
    }

    /// A host endpoint's normal chain; `allow` is the word of this hook for an accept.
    fn normal(&mut self, host: Option<EndpointId>, list: FailsafeList, allow: Verdict) -> Verdict {
        let Some(id) = host else {
            return self.no_endpoint();
        };
        let chains = self.table.chains(id).normal;
        let chain = if list == FailsafeList::Inbound { chains.ingress } else { chains.egress };
        let verdicts: ByRun = [allow, Verdict::Deny, Verdict::Deny, allow, allow];
        verdicts[self.run(id, chain, Stage::Normal, Settled::Normal(list)) as usize]
    }

    /// E-38, E-39.
    fn filter_forward(&mut self) -> Verdict {
        // One stage behind: what the last one answers is looked up, not branched on.
        let mut last = None;
        for stage in [Stage::FromHep, Stage::WorkloadEgress, Stage::WorkloadIngress, Stage::ToHep] {
            let next = self.forward_stage(stage);
            if let Ok(None) = next {
                continue;
            }
            if let Some((stage, (id, chain, settled))) = last {
                match self.run(id, chain, stage, settled) {
                    Run::Established => return Verdict::Allow,
                    Run::Deny => return Verdict::Deny,
                    Run::Accept | Run::Unmarked | Run::Failsafe => {}
                }
            }
            match next {
                Ok(found) => last = found.map(|found| (stage, found)),
                Err(reason) => return self.settle(Stage::Interface, None, reason, Verdict::Deny),
            }
        }
        match last {
            Some((stage, (id, chain, settled))) => {
                let run = self.run(id, chain, stage, settled);
                self.forward_end(run)
            }
            None if self.accepted => self.settle(Stage::Interface, None, Reason::AcceptMark, Verdict::Allow),
            None => self.no_endpoint(),
        }
    }

    /// The endpoint, chain and settled steps of a FORWARD stage; `Err` where the interface alone denies.
    fn forward_stage(&self, stage: Stage) -> Result<Option<(EndpointId, ChainId, Settled)>, Reason> {
        let (side, is_ingress) = match stage {
            Stage::FromHep | Stage::WorkloadEgress => (self.input(), stage == Stage::FromHep),
            _ => (self.output(), stage == Stage::WorkloadIngress),
        };
        if matches!(stage, Stage::FromHep | Stage::ToHep) {
            let skipped = stage == Stage::FromHep && self.accepted;
            let host = side.forward.filter(|_| !skipped);
            return Ok(host.and_then(|id| {
                let chains = self.table.chains(id).forward?;
                Some((id, if is_ingress { chains.ingress } else { chains.egress }, Settled::Forward))
            }));
        }
        match side.workload {
            WorkloadSide::Host => Ok(None),
            WorkloadSide::Unknown => Err(Reason::UnknownWorkload),
            WorkloadSide::Known(id) if is_ingress => {
                Ok(Some((id, self.table.chains(id).normal.ingress, Settled::Workload)))
            }
            WorkloadSide::Known(id) => {
                Ok(Some((id, self.table.chains(id).normal.egress, Settled::WorkloadEgress)))
            }
        }
    }

    /// E-27, E-39: behind the last stage.
    fn forward_end(&mut self, run: Run) -> Verdict {
        match self.settings().forward_unmarked {
            ForwardUnmarked::Accept if run == Run::Unmarked => {
                self.forward_unmarked(Action::Allow, Verdict::Allow)
            }
            ForwardUnmarked::Deny if run == Run::Unmarked => {
                self.forward_unmarked(Action::Deny, Verdict::Deny)
            }
            _ => FORWARD[run as usize],
        }
    }

    fn forward_unmarked(&mut self, action: Action, verdict: Verdict) -> Verdict {
        let end = step(self.last.stage, self.last.endpoint, Reason::ForwardEnd);
        self.push(Step { action: Some(action), ..end });
        verdict
    }

    /// E-20.
    fn run(&mut self, id: EndpointId, chain: ChainId, stage: Stage, settled: Settled) -> Run {
        if let Some(end) = self.settled(id, settled) {
            return end;
        }
        self.accepted = false;
        if matches!(settled, Settled::WorkloadEgress) && self.is_encapsulated() {
            self.push(step(stage, Some(id), Reason::Encapsulation));
            return Run::Deny;
        }
        let answer = if T::IS_SILENT { self.find(chain) } else { self.find_traced(id, chain, stage) };
        let (run, action) = ENDS[answer.end() as usize];
        let outcome = self.table.engines.meaning(answer.outcome()).0;
        self.push(Step { stage, endpoint: Some(id), outcome, action });
        self.outcome = answer.outcome();
        self.accepted = run == Run::Accept;
        run
    }

    fn find(&mut self, chain: ChainId) -> Answer {
        self.table.engines.find(chain, &Packet::of(&self.key.tuple), &mut self.seen)
    }

    /// Only `linear` says what was passed on the way.
    fn find_traced(&mut self, id: EndpointId, chain: ChainId, stage: Stage) -> Answer {
        let program = self.table.program();
        let trace = &mut *self.trace;
        let end = linear::run(program, program.chain(chain), &self.key.tuple, &mut |outcome| {
            let action = program.outcome(outcome).action;
            trace.step(Step { stage, endpoint: Some(id), outcome, action });
        });
        Answer::plain(end)
    }

    /// Steps 2 and 3 of E-20.
    fn settled(&mut self, id: EndpointId, settled: Settled) -> Option<Run> {
        if !matches!(settled, Settled::Untracked(_)) {
            if self.is_established() {
                self.push(step(Stage::Conntrack, Some(id), Reason::Established));
                return Some(Run::Established);
            }
            if self.key.ct == CtState::Invalid && self.settings().invalid_check {
                let in_mangle = matches!(settled, Settled::Prednat);
                let reason = if in_mangle { Reason::MangleInvalid } else { Reason::Invalid };
                self.push(step(Stage::Conntrack, Some(id), reason));
                return Some(Run::Deny);
            }
        }
        let reason = self.failsafe_reason(settled)?;
        self.push(step(Stage::Failsafe, Some(id), reason));
        self.failsafe = true;
        Some(Run::Failsafe)
    }

    /// E-42, E-43.
    fn failsafe_reason(&self, settled: Settled) -> Option<Reason> {
        let (list, has_return_half) = match settled {
            Settled::Normal(list) => (list, false),
            Settled::Prednat => (FailsafeList::Inbound, false),
            Settled::Untracked(list) => (list, true),
            Settled::Workload | Settled::WorkloadEgress | Settled::Forward => return None,
        };
        let Transport::Ports { source, destination } = self.key.tuple.transport else {
            return None;
        };
        let settings = self.settings();
        let (entries, other, remote) = match list {
            FailsafeList::Inbound => {
                (&settings.failsafe_inbound, &settings.failsafe_outbound, self.key.tuple.source)
            }
            FailsafeList::Outbound => {
                (&settings.failsafe_outbound, &settings.failsafe_inbound, self.key.tuple.destination)
            }
        };
        let holds = |entries: &[Failsafe], port: u16| {
            entries.iter().any(|entry| {
                entry.protocol == self.key.tuple.protocol
                    && entry.port == port
                    && entry.net.is_none_or(|net| net.contains(self.key.tuple.family, remote))
            })
        };
        if holds(entries, destination) {
            Some(Reason::Failsafe)
        } else if has_return_half && holds(other, source) {
            Some(Reason::FailsafeReturn)
        } else {
            None
        }
    }

    fn is_established(&self) -> bool {
        matches!(self.key.ct, CtState::Established | CtState::Related)
    }

    /// E-20.5.
    fn is_encapsulated(&self) -> bool {
        let (settings, tuple) = (self.settings(), &self.key.tuple);
        match tuple.transport {
            _ if tuple.protocol == protocol::IPIP => settings.workload_ipip_denied,
            Transport::Ports { destination, .. } => {
                tuple.protocol == protocol::UDP && settings.workload_vxlan_port == Some(destination)
            }
            Transport::Opaque | Transport::Icmp { .. } => false,
        }
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
    fn no_policy(&mut self, side: Governors, reason: Reason) -> Verdict {
        match side.forward {
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
        self.push(step(stage, endpoint, reason));
        verdict
    }

    fn push(&mut self, step: Step) {
        self.last = step;
        self.outcome = step.outcome;
        self.trace.step(step);
    }

    fn input(&self) -> Governors {
        *self.table.interfaces.governors(self.key.input)
    }

    fn output(&self) -> Governors {
        *self.table.interfaces.governors(self.key.output)
    }

    fn settings(&self) -> &'a Settings {
        &self.table.program().settings
    }
}
