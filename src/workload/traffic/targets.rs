//! Whom questions can be put to: every chain of every endpoint that is enforced.

use super::Asked;
use crate::flow::{Direction, EndpointId, Family, Hook, InterfaceId, address_number};
use crate::model::HostFacts;
use crate::program::{Attachment, Chain, ChainId, Endpoint, EndpointKind, Program};
use crate::table::DecisionTable;

/// Which chains are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Normal ingress: of workloads in FORWARD, of host endpoints in INPUT. One question passes one chain.
    Ingress,
    /// Normal egress: of workloads in FORWARD, of host endpoints in OUTPUT. One question passes one chain.
    Egress,
    /// Both of workloads in FORWARD, the far side of which is another one: one question passes two chains.
    Between,
    /// All of them, at every hook where an endpoint has one.
    All,
}

/// A chain, and how a question reaches it.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Whom to ask.
    pub asked: Asked,
    /// In-interface.
    pub input: InterfaceId,
    /// Out-interface.
    pub output: InterfaceId,
    /// Which side of the packet is the endpoint's.
    pub direction: Direction,
    /// Whose chain it is.
    pub endpoint: EndpointId,
    /// The rules.
    pub chain: &'a Chain,
    /// The endpoint's addresses.
    pub own: Vec<(Family, u128)>,
}

/// All targets of a program. `uplink` is the interface on the other side of forwarded packets.
pub fn targets<'a>(
    program: &'a Program,
    table: &DecisionTable,
    host: &HostFacts,
    uplink: &str,
    scope: Scope,
) -> Vec<Target<'a>> {
    let uplink = table.interface(uplink);
    let mut targets = Vec::new();
    for (index, endpoint) in program.endpoints.iter().enumerate() {
        let Some(interface) = interface(endpoint, table, host, uplink) else {
            continue;
        };
        let own: Vec<_> = endpoint.addresses.iter().map(|&address| address_number(address)).collect();
        for (asked, chain, direction) in chains(endpoint, scope) {
            let (input, output) = interfaces(asked, direction, endpoint.kind, interface, uplink);
            let (chain, endpoint) = (program.chain(chain), EndpointId::new(index));
            targets.push(Target { asked, input, output, direction, endpoint, chain, own: own.clone() });
        }
    }
    targets
}

/// The interface that the endpoint governs; `None`: it governs none here.
fn interface(
    endpoint: &Endpoint,
    table: &DecisionTable,
    host: &HostFacts,
    uplink: InterfaceId,
) -> Option<InterfaceId> {
    match &endpoint.attachment {
        Attachment::Name(name) => Some(table.interface(name)),
        Attachment::Any => Some(uplink),
        Attachment::Remote => Some(InterfaceId::NONE),
        Attachment::Address => {
            let carries =
                |carried: &Vec<_>| carried.iter().any(|address| endpoint.addresses.contains(address));
            let found = host.interfaces.iter().find(|(_, carried)| carries(carried));
            found.map(|(name, _)| table.interface(name))
        }
    }
}

fn chains(endpoint: &Endpoint, scope: Scope) -> Vec<(Asked, ChainId, Direction)> {
    use Direction::{Egress, Ingress};
    let normal = endpoint.normal;
    let hook = |hook, chain, direction| (Asked::Hook(hook), chain, direction);
    let (to, from) = match (endpoint.kind, &endpoint.attachment) {
        (_, Attachment::Remote) => return vec![(Asked::Workload, normal.ingress, Ingress)],
        (EndpointKind::Workload, _) => (Hook::FilterForward, Hook::FilterForward),
        (EndpointKind::Host, _) => (Hook::FilterInput, Hook::FilterOutput),
    };
    let (to, from) = (hook(to, normal.ingress, Ingress), hook(from, normal.egress, Egress));
    let mut chains = match scope {
        Scope::Ingress => return vec![to],
        Scope::Egress => return vec![from],
        Scope::Between | Scope::All => vec![to, from],
    };
    if scope == Scope::Between {
        return if endpoint.kind == EndpointKind::Workload { chains } else { Vec::new() };
    }
    if let Some(forward) = endpoint.forward {
        chains.push(hook(Hook::FilterForward, forward.ingress, Ingress));
        chains.push(hook(Hook::FilterForward, forward.egress, Egress));
    }
    if let Some(untracked) = endpoint.untracked {
        chains.push(hook(Hook::RawPrerouting, untracked.ingress, Ingress));
        chains.push(hook(Hook::RawOutput, untracked.egress, Egress));
    }
    chains.extend(endpoint.prednat.map(|chain| hook(Hook::ManglePrerouting, chain, Ingress)));
    chains
}

/// In- and out-interface. Towards a workload is out of the host, towards a host endpoint is into it.
fn interfaces(
    asked: Asked,
    direction: Direction,
    kind: EndpointKind,
    own: InterfaceId,
    uplink: InterfaceId,
) -> (InterfaceId, InterfaceId) {
    let other = if asked == Asked::Hook(Hook::FilterForward) { uplink } else { InterfaceId::NONE };
    let is_output = (kind == EndpointKind::Workload) == (direction == Direction::Ingress);
    if is_output { (other, own) } else { (own, other) }
}
