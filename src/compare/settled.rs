//! What is settled ahead of a place's rules: boundaries, of which only the criteria count.

use super::Kind;
use crate::flow::{Direction, protocol};
use crate::program::{Failsafe, Net, Settings};

/// Packets of one protocol, from or to a port, of a remote side.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// IP protocol number.
    pub protocol: u8,
    /// That of the source, or of the destination.
    pub port: Option<(End, u16)>,
    /// The remote side, if restricted: it is then of this family.
    pub remote: Option<Net>,
}

/// A side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// E-20.5 for workloads, E-40 and E-43 for host endpoints.
pub fn settled(settings: &Settings, kind: Kind, direction: Direction) -> Vec<Settled> {
    let (own, other) = match direction {
        Direction::Ingress => (&settings.failsafe_inbound, &settings.failsafe_outbound),
        Direction::Egress => (&settings.failsafe_outbound, &settings.failsafe_inbound),
    };
    let failsafe = |end| {
        move |entry: &Failsafe| Settled {
            protocol: entry.protocol,
            port: Some((end, entry.port)),
            remote: entry.net,
        }
    };
    match kind {
        Kind::Workload if direction == Direction::Egress => encapsulation(settings),
        Kind::Workload | Kind::Forward => Vec::new(),
        Kind::Untracked => {
            let replies = other.iter().map(failsafe(End::Source));
            own.iter().map(failsafe(End::Destination)).chain(replies).collect()
        }
        Kind::Normal | Kind::Prednat => own.iter().map(failsafe(End::Destination)).collect(),
    }
}

fn encapsulation(settings: &Settings) -> Vec<Settled> {
    let vxlan = settings.workload_vxlan_port.map(|port| Settled {
        protocol: protocol::UDP,
        port: Some((End::Destination, port)),
        remote: None,
    });
    let ipip = Settled { protocol: protocol::IPIP, port: None, remote: None };
    vxlan.into_iter().chain(settings.workload_ipip_denied.then_some(ipip)).collect()
}
