//! Failsafe ports (E-40 to E-44): what settles a packet ahead of a host endpoint's policy.

use super::stops::Before;
use crate::flow::{FiveTuple, Transport};
use crate::program::{Failsafe, Reason, Settings};

/// The failsafe ports for packets to the host, or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailsafeList {
    Inbound,
    Outbound,
}

/// Sorts out most packets before the lists are looked at.
#[derive(Debug)]
pub struct Failsafes {
    /// Low bytes of the ports of both lists, as a bit set.
    low_bytes: [u64; 4],
}

impl Failsafes {
    /// Of these settings.
    pub fn of(settings: &Settings) -> Self {
        let mut low_bytes = [0; 4];
        for &Failsafe { port, .. } in settings.failsafe_inbound.iter().chain(&settings.failsafe_outbound) {
            let (word, bit) = place(port);
            low_bytes[word] |= bit;
        }
        Self { low_bytes }
    }

    #[inline]
    fn may_hold(&self, port: u16) -> bool {
        let (word, bit) = place(port);
        self.low_bytes[word] & bit != 0
    }

    /// Whether a failsafe port may settle one of these packets: none that has other ports is settled.
    #[inline]
    pub fn may_settle<const N: usize>(&self, before: Before, ports: [&[u16; N]; 2]) -> bool {
        before != Before::Conntrack && ports.into_iter().flatten().any(|&port| self.may_hold(port))
    }

    /// Why a packet is settled; the settings are those that this was made of. E-42, E-43.
    #[inline]
    pub fn reason(&self, settings: &Settings, tuple: &FiveTuple, before: Before) -> Option<Reason> {
        // Without a branch on the kind of packet, which may alternate: what is no port is looked up as one.
        let [source, destination] = match tuple.transport {
            Transport::Ports { source, destination } => [source, destination],
            Transport::Icmp { .. } | Transport::Opaque => [0, 0],
        };
        if self.may_hold(destination) | self.may_hold(source) {
            listed(settings, tuple, before)
        } else {
            None
        }
    }
}

/// Where the low byte of a port is in a bit set.
#[inline]
const fn place(port: u16) -> (usize, u64) {
    ((port as usize >> 6) & 3, 1 << (port & 63))
}

fn listed(settings: &Settings, tuple: &FiveTuple, before: Before) -> Option<Reason> {
    let (list, has_return_half) = match before {
        Before::Failsafes(list) => (list, false),
        Before::Prednat => (FailsafeList::Inbound, false),
        Before::Untracked(list) => (list, true),
        Before::Conntrack | Before::Encapsulation | Before::Nobody => return None,
    };
    let Transport::Ports { source, destination } = tuple.transport else {
        return None;
    };
    let (entries, other, remote) = match list {
        FailsafeList::Inbound => (&settings.failsafe_inbound, &settings.failsafe_outbound, tuple.source),
        FailsafeList::Outbound => {
            (&settings.failsafe_outbound, &settings.failsafe_inbound, tuple.destination)
        }
    };
    let holds = |entries: &[Failsafe], port: u16| {
        entries.iter().any(|entry| {
            entry.protocol == tuple.protocol
                && entry.port == port
                && entry.net.is_none_or(|net| net.contains(tuple.family, remote))
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
