//! One packet for each cell, asked of both states.

use super::{Partition, Place, State};
use crate::flow::{Direction, EndpointId, Family, Hook};
use crate::table::{Addresses, Column, Flows};

/// What both states say about cells, in the order (own, peer, service).
pub struct Answers {
    /// Of the old one, of the new one.
    pub verdicts: [Vec<u8>; 2],
    /// By id; 0 where nobody is.
    pub outcomes: [Vec<u32>; 2],
}

/// Of all services with some classes of addresses.
pub fn ask(
    states: &[State; 2],
    place: &Place<'_>,
    partition: &Partition,
    own: &[usize],
    peers: &[usize],
) -> Answers {
    let samples = &partition.services.samples;
    let own: Vec<u128> = own.iter().map(|&class| partition.own.first(class)).collect();
    let peers: Vec<u128> = peers.iter().map(|&class| partition.peers.first(class)).collect();
    let repeated = own.len() * peers.len();
    let protocol: Vec<u8> = samples.iter().map(|one| one.protocol).collect();
    let ports: [Vec<u16>; 2] = [
        samples.iter().map(|one| one.source_port).collect(),
        samples.iter().map(|one| one.destination_port).collect(),
    ];
    let fragment: Vec<u8> = samples.iter().map(|one| u8::from(one.fragment)).collect();
    let (protocol, fragment) = (protocol.repeat(repeated), fragment.repeat(repeated));
    let ports = ports.map(|ports| ports.repeat(repeated));
    let ask = |addresses: Addresses<'_>| {
        let flows = Flows {
            protocol: Column::Each(&protocol),
            source_port: Column::Each(&ports[0]),
            destination_port: Column::Each(&ports[1]),
            fragment: Column::Each(&fragment),
            ..Flows::new(place.at.map_or(Hook::FilterForward, |at| at.0), addresses)
        };
        let [(old, before), (new, after)] =
            [0, 1].map(|side| answers(&states[side], place, place.workloads[side], flows, protocol.len()));
        Answers { verdicts: [old, new], outcomes: [before, after] }
    };
    let is_egress = place.direction == Direction::Egress;
    match partition.family {
        Family::V4 => {
            #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
            let [source, destination] =
                columns(&own, &peers, samples.len(), is_egress, |number| number as u32);
            ask(Addresses::V4 { source: Column::Each(&source), destination: Column::Each(&destination) })
        }
        Family::V6 => {
            let [source, destination] = columns(&own, &peers, samples.len(), is_egress, u128::to_be_bytes);
            ask(Addresses::V6 { source: Column::Each(&source), destination: Column::Each(&destination) })
        }
    }
}

/// Sources and destinations of all cells.
fn columns<T: Copy>(
    own: &[u128],
    peers: &[u128],
    services: usize,
    is_egress: bool,
    address: impl Fn(u128) -> T,
) -> [Vec<T>; 2] {
    let rows = own.iter().flat_map(|&mine| peers.iter().map(move |&other| (mine, other)));
    let cells = rows.flat_map(|(mine, other)| std::iter::repeat_n((address(mine), address(other)), services));
    let (own, peers) = cells.unzip();
    if is_egress { [own, peers] } else { [peers, own] }
}

fn answers(
    state: &State,
    place: &Place<'_>,
    workload: Option<EndpointId>,
    mut flows: Flows<'_>,
    count: usize,
) -> (Vec<u8>, Vec<u32>) {
    // Unknown workloads are denied (E-38).
    let (mut verdicts, mut outcomes) = (vec![0; count], vec![0; count]);
    let asked = if let Some((_, interface)) = place.at {
        let interface = Column::One(state.table.interface(interface).0);
        match place.direction {
            Direction::Ingress => flows.input = interface,
            Direction::Egress => flows.output = interface,
        }
        state.table.decide_batch(&flows, &mut verdicts, &mut outcomes)
    } else if let Some(workload) = workload {
        let workload = Column::One(workload.number());
        state.table.gate_batch(place.direction, workload, &flows, &mut verdicts, &mut outcomes)
    } else {
        Ok(())
    };
    asked.expect("columns of one length, and states that exist");
    (verdicts, outcomes)
}
