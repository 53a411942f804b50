//! Whether workloads reach each other, wherever they live: their normal chains, without a hook and without a host.

use rustc_hash::FxHashMap;

use super::stops::Stop;
use super::{DecisionTable, Step, hooks};
use crate::flow::{
    CtState, Direction, EndpointId, Family, FiveTuple, FlowKey, Hook, InterfaceId, address_number,
};
use crate::program::{EndpointKind, Program};

/// What the policy of one workload says about a new connection, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Whether the chain accepts.
    pub allows: bool,
    /// The step that decided.
    pub step: Step,
}

/// The workloads of a program by their addresses.
pub(super) type Owners = FxHashMap<(Family, u128), EndpointId>;

/// Every address of a workload; of several with one address the smallest name has it, as with interfaces (E-45).
pub(super) fn owners(program: &Program) -> Owners {
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
    /// The workload that has this address.
    pub fn owner(&self, family: Family, address: u128) -> Option<EndpointId> {
        self.owners.get_or_init(|| owners(self.program())).get(&(family, address)).copied()
    }

    /// The egress gate of the workload that owns the source, the ingress gate of the one that owns the destination;
    /// `None` where no workload of this program does.
    pub fn connectivity(&self, tuple: &FiveTuple) -> (Option<Gate>, Option<Gate>) {
        let gate = |address, direction| {
            self.owner(tuple.family, address).map(|owner| self.gate(owner, direction, tuple))
        };
        (gate(tuple.source, Direction::Egress), gate(tuple.destination, Direction::Ingress))
    }

    fn gate(&self, workload: EndpointId, direction: Direction, tuple: &FiveTuple) -> Gate {
        let key = FlowKey {
            tuple: *tuple,
            hook: Hook::FilterForward,
            input: InterfaceId::NONE,
            output: InterfaceId::NONE,
            accepted: false,
            ct: CtState::New,
            dnatted: false,
        };
        hooks::workload_gate(self, &key, &Stop::gate(self.program(), workload, direction))
    }
}
