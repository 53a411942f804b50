//! Whether workloads reach each other, wherever they live: their normal chains, without a hook and without a host.

use rustc_hash::FxHashMap;

use super::answer::EndKind;
use super::batch::{Column, Flows, FlowsError, STAGE};
use super::block::{Block, Columns};
use super::stops::Stop;
use super::{DecisionTable, Step, hooks};
use crate::flow::{
    CtState, Direction, EndpointId, Family, FiveTuple, FlowKey, Hook, InterfaceId, OutcomeId, Verdict,
    address_number,
};
use crate::program::{ChainId, Directed, EndpointKind, Program, Reason};

/// What the policy of one workload says about a new connection, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Whether the chain accepts.
    pub allows: bool,
    /// The step that decided.
    pub step: Step,
    /// The same outcome as the step's, and the Log rules passed before it ([`DecisionTable::meaning`]).
    pub outcome: OutcomeId,
}

/// The workloads of a program by their addresses.
type Owners = FxHashMap<(Family, u128), EndpointId>;

/// Flows whose owners are looked up before they are judged: they fit the stack and a cache.
const PART: usize = 1024;
/// Flows whose memory is waited for together: tables of a cluster are in no near cache.
const GATES: usize = 64;

/// What is asked of workloads without a host.
#[derive(Debug)]
pub(super) struct Workloads {
    owners: Owners,
    /// By endpoint: apart from all else that a program knows of one, so that those of many fit a cache.
    chains: Vec<Directed<ChainId>>,
}

impl Workloads {
    fn of(program: &Program) -> Self {
        let chains = program.endpoints.iter().map(|endpoint| endpoint.normal).collect();
        Self { owners: owners(program), chains }
    }

    fn chain(&self, workload: EndpointId, direction: Direction) -> ChainId {
        let chains = &self.chains[workload.index()];
        if direction == Direction::Ingress { chains.ingress } else { chains.egress }
    }

    fn stop(&self, workload: EndpointId, direction: Direction) -> Stop {
        Stop::in_forward(self.chain(workload, direction), workload, direction)
    }
}

/// Every address of a workload; of several with one address the smallest name has it, as with interfaces (E-45).
fn owners(program: &Program) -> Owners {
    let mut owners = Owners::default();
    let name = |id: EndpointId| (&program.endpoint(id).short_name, &program.endpoint(id).name);
    for (index, endpoint) in program.endpoints.iter().enumerate() {
        if endpoint.kind != EndpointKind::Workload {
            continue;
        }
        let id = EndpointId::new(index);
        for &address in &endpoint.addresses {
            let owner = owners.entry(address_number(address)).or_insert(id);
            if name(id) < name(*owner) {
                *owner = id;
            }
        }
    }
    owners
}

impl DecisionTable {
    fn workloads(&self) -> &Workloads {
        self.workloads.get_or_init(|| Workloads::of(self.program()))
    }

    /// The workload that has this address.
    pub fn owner(&self, family: Family, address: u128) -> Option<EndpointId> {
        self.workloads().owners.get(&(family, address)).copied()
    }

    /// The egress gate of the workload that owns the source, the ingress gate of the one that owns the destination;
    /// `None` where no workload of this program does.
    pub fn connectivity(&self, tuple: &FiveTuple) -> (Option<Gate>, Option<Gate>) {
        let gate = |address, direction| {
            self.owner(tuple.family, address).map(|owner| self.gate(owner, direction, tuple))
        };
        (gate(tuple.source, Direction::Egress), gate(tuple.destination, Direction::Ingress))
    }

    /// What the policy of this workload says about a new connection to it, or from it; its own address plays no other
    /// part than in rules. Panics if the program has no such endpoint.
    #[inline]
    pub fn gate(&self, workload: EndpointId, direction: Direction, tuple: &FiveTuple) -> Gate {
        hooks::workload_gate(self, tuple, &self.workloads().stop(workload, direction), None)
    }

    /// Every step of both gates of [`Self::connectivity`], the deciding one last.
    pub fn connectivity_trace(&self, tuple: &FiveTuple) -> (Option<Vec<Step>>, Option<Vec<Step>>) {
        let steps = |address, direction| {
            let stop = self.workloads().stop(self.owner(tuple.family, address)?, direction);
            Some(hooks::workload_gate_trace(self, &key(tuple), &stop))
        };
        (steps(tuple.source, Direction::Egress), steps(tuple.destination, Direction::Ingress))
    }

    /// One gate of [`Self::connectivity`] for many, in the words of [`Self::gate_batch`]; where no workload owns the
    /// address, the verdict is [`Verdict::Continue`] and the outcome [`Reason::NoEndpoint`]'s.
    pub fn connectivity_batch(
        &self,
        direction: Direction,
        flows: &Flows<'_>,
        verdicts: &mut [u8],
        outcomes: &mut [u32],
    ) -> Result<(), FlowsError> {
        flows.check_answers(verdicts, outcomes)?;
        let parts = verdicts.chunks_mut(PART).zip(outcomes.chunks_mut(PART));
        for (index, (verdicts, outcomes)) in parts.enumerate() {
            let from = index * PART;
            let rows = flows.rows(&(from..from + verdicts.len()));
            self.connectivity_part(direction, &rows, verdicts, outcomes)?;
        }
        Ok(())
    }

    fn connectivity_part(
        &self,
        direction: Direction,
        flows: &Flows<'_>,
        verdicts: &mut [u8],
        outcomes: &mut [u32],
    ) -> Result<(), FlowsError> {
        let (family, count) = (flows.addresses.family(), verdicts.len());
        let (mut owners, mut workloads) = ([None; PART], [0; PART]);
        for (index, owner) in owners[..count].iter_mut().enumerate() {
            *owner = self.owner(family, flows.addresses.near(direction, index));
        }
        // Where nobody can be asked anybody is: the answer is not used.
        if let Some(anybody) = owners.into_iter().flatten().next() {
            for (workload, owner) in workloads[..count].iter_mut().zip(owners) {
                *workload = owner.unwrap_or(anybody).number();
            }
            self.gate_batch(direction, Column::Each(&workloads[..count]), flows, verdicts, outcomes)?;
        }
        for ((owner, verdict), outcome) in owners.iter().zip(verdicts).zip(outcomes) {
            if owner.is_none() {
                (*verdict, *outcome) = (Verdict::Continue as u8, Reason::NoEndpoint.outcome().number());
            }
        }
        Ok(())
    }

    /// [`Self::gate`] for many: `workloads` are endpoints by number, one for each of the flows, of which hook, interfaces and
    /// state play no part. Verdicts are [`Verdict::Allow`] and [`Verdict::Deny`].
    pub fn gate_batch(
        &self,
        direction: Direction,
        workloads: Column<'_, u32>,
        flows: &Flows<'_>,
        verdicts: &mut [u8],
        outcomes: &mut [u32],
    ) -> Result<(), FlowsError> {
        flows.check_answers(verdicts, outcomes)?;
        workloads.check("workload", verdicts.len())?;
        let from = self.gate_blocks::<GATES>(0, direction, &workloads, flows, verdicts, outcomes);
        let from = self.gate_blocks::<STAGE>(from, direction, &workloads, flows, verdicts, outcomes);
        self.gate_blocks::<1>(from, direction, &workloads, flows, verdicts, outcomes);
        Ok(())
    }

    /// The whole blocks of so many flows from one on; which one comes behind them.
    fn gate_blocks<const N: usize>(
        &self,
        mut from: usize,
        direction: Direction,
        workloads: &Column<'_, u32>,
        flows: &Flows<'_>,
        verdicts: &mut [u8],
        outcomes: &mut [u32],
    ) -> usize {
        let columns = Columns::of(flows);
        let (verdicts, _) = verdicts[from..].as_chunks_mut::<N>();
        let (outcomes, _) = outcomes[from..].as_chunks_mut::<N>();
        for (verdicts, outcomes) in verdicts.iter_mut().zip(outcomes) {
            if N > 1 {
                flows.ask_ahead(from, verdicts, outcomes);
                workloads.ask_ahead::<N>(from);
            }
            let asked = workloads.block(from).map(EndpointId::from_number);
            self.gate_block(direction, asked, &columns.block_of(flows, from), verdicts, outcomes);
            from += N;
        }
        from
    }

    fn gate_block<const N: usize>(
        &self,
        direction: Direction,
        workloads: [EndpointId; N],
        block: &Block<'_, N>,
        verdicts: &mut [u8; N],
        outcomes: &mut [u32; N],
    ) {
        let all = self.workloads();
        let chains = workloads.map(|workload| all.chain(workload, direction));
        let points = block.points().filter(|_| N > 1);
        let known = points.and_then(|points| self.engines.find_block(&chains, &points, &mut |_, _| {}));
        let mut put = |index: usize, allows: bool, outcome: OutcomeId| {
            let verdict = if allows { Verdict::Allow } else { Verdict::Deny };
            (verdicts[index], outcomes[index]) = (verdict as u8, outcome.number());
        };
        match known {
            // Nothing is settled before the chain.
            Some(known) if direction == Direction::Ingress => {
                for (index, answer) in known.into_iter().enumerate() {
                    put(index, answer.end() == EndKind::Accept, answer.outcome());
                }
            }
            _ => {
                for (index, workload) in workloads.into_iter().enumerate() {
                    let (tuple, stop) = (block.key(index).tuple, all.stop(workload, direction));
                    let gate = hooks::workload_gate(self, &tuple, &stop, known.map(|known| known[index]));
                    put(index, gate.allows, gate.outcome);
                }
            }
        }
    }
}

/// A new connection in FORWARD, between nobody's interfaces.
fn key(tuple: &FiveTuple) -> FlowKey {
    FlowKey {
        tuple: *tuple,
        hook: Hook::FilterForward,
        input: InterfaceId::NONE,
        output: InterfaceId::NONE,
        accepted: false,
        ct: CtState::New,
        dnatted: false,
    }
}
