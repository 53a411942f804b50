//! Packets to flows, as conntrack would: the first packet gives a flow its direction, replies belong to it.
//!
//! The table is bounded: where it is full the flow that was quiet for longest is given out. Time is that of the
//! packets.

use std::collections::HashMap;

use super::link::Way;
use super::packet::{Key, Role, Seen, is_icmp};
use crate::flow::{CtState, Family, protocol};

const SECOND: u64 = 1_000_000_000;
const NOBODY: u32 = u32::MAX;

/// Whether the flow's direction is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Begin {
    /// Its first packet is in the capture, or a reply to it that tells who began.
    Known = 0,
    /// It was under way already when it was first seen: who began it cannot be told.
    Unknown = 1,
    /// An ICMP error, about a flow that is not in the capture.
    Orphan = 2,
}

/// What a flow is judged as, and what has passed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// In the direction of who began it.
    pub key: Key,
    /// Of its first packet.
    pub ct: CtState,
    /// Whether `key` is right.
    pub begin: Begin,
    /// Packets of who began it, and of the other side.
    pub packets: [u64; 2],
    /// Bytes of the IP packets likewise.
    pub bytes: [u64; 2],
    /// Nanoseconds since 1970.
    pub first: u64,
    /// As `first`.
    pub last: u64,
    /// That its first packet was captured on.
    pub interface: u32,
    /// Which way packets of who began it pass that.
    pub way: Way,
    /// The other side has sent something that refuses nothing.
    pub is_answered: bool,
    /// TCP: something else has passed than SYNs.
    is_open: bool,
    is_closed: bool,
}

impl Flow {
    /// As conntrack's time-outs are by default (`nf_conntrack_*_timeout*`).
    fn patience(&self) -> u64 {
        let is_replied = self.packets[1] > 0;
        let seconds = match self.key.protocol {
            protocol::TCP if self.is_closed || !is_replied => 120,
            protocol::TCP => 432_000,
            protocol::UDP | protocol::UDPLITE if is_replied => 120,
            protocol::UDP | protocol::UDPLITE | protocol::ICMP | protocol::ICMPV6 => 30,
            _ => 600,
        };
        seconds * SECOND
    }
}

/// When and where a packet was captured, and how long it is.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Bytes of the IP packet.
    pub length: u64,
    /// Row of the interface.
    pub interface: u32,
    /// Which way it passed that.
    pub way: Way,
}

/// Where DNAT sends flows: what passes behind it belongs to the flow that was there ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dnat {
    /// Of all addresses.
    pub family: Family,
    /// `None`: any.
    pub protocol: Option<u8>,
    /// Ahead of it: address, and port unless all are sent to the same one as they had.
    pub of: (u128, Option<u16>),
    /// Behind it; without a port it stays.
    pub to: (u128, Option<u16>),
}

impl Dnat {
    /// What a key behind DNAT was ahead of it, if it may come from here.
    fn origin(&self, key: Key) -> Option<Key> {
        let fits = key.family == self.family
            && key.destination == self.to.0
            && self.protocol.is_none_or(|protocol| protocol == key.protocol);
        if !fits {
            return None;
        }
        let Some(port) = self.of.1 else { return Some(Key { destination: self.of.0, ..key }) };
        let is_sent = !is_icmp(key.family, key.protocol) && key.destination_port == self.to.1.unwrap_or(port);
        is_sent.then_some(Key { destination: self.of.0, destination_port: port, ..key })
    }
}

/// Apart in the table: what is no connection has no other direction.
type Place = (Key, u8);

struct Entry {
    place: Place,
    flow: Flow,
    older: u32,
    newer: u32,
}

/// The flows under way.
pub struct Flows {
    by_place: HashMap<Place, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    most: usize,
    /// Nothing was under way when the capture began.
    is_complete: bool,
    dnat: Vec<Dnat>,
    over: Vec<Flow>,
    evicted: u64,
}

impl Flows {
    /// A table of `most` flows. With `is_complete` what has no beginning in the capture has none at all.
    pub fn new(most: usize, is_complete: bool, dnat: Vec<Dnat>) -> Self {
        Self {
            dnat,
            by_place: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NOBODY,
            newest: NOBODY,
            most: most.clamp(1, NOBODY as usize),
            is_complete,
            over: Vec::new(),
            evicted: 0,
        }
    }

    /// How many were given out because the table was full.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Flows that are over, to be taken.
    pub const fn over(&mut self) -> &mut Vec<Flow> {
        &mut self.over
    }

    /// Takes one packet in.
    pub fn see(&mut self, seen: &Seen, captured: Captured) {
        match seen.role {
            Role::Unwatched => self.see_alone(seen.key, CtState::Untracked, Begin::Known, captured),
            Role::Unplaced => self.see_alone(seen.key, CtState::Invalid, Begin::Known, captured),
            Role::About(about) => {
                let (ct, begin) = match self.find(about, captured.time) {
                    Some((_, _)) => (CtState::Related, Begin::Known),
                    None => (CtState::Invalid, self.unknown(Begin::Orphan)),
                };
                self.see_alone(seen.key, ct, begin, captured);
            }
            Role::Any | Role::First | Role::Reply | Role::Later { .. } => self.see_flow(seen, captured),
        }
    }

    fn unknown(&self, begin: Begin) -> Begin {
        if self.is_complete { Begin::Known } else { begin }
    }

    /// The flow of this key that is still alive, and whether the key is its reverse.
    fn find(&mut self, key: Key, now: u64) -> Option<(u32, bool)> {
        let found = self.known(key).or_else(|| self.known_ahead_of_dnat(key))?;
        let flow = &self.entry(found.0).flow;
        if now.saturating_sub(flow.last) > flow.patience() {
            self.end(found.0);
            return None;
        }
        Some(found)
    }

    fn known(&self, key: Key) -> Option<(u32, bool)> {
        [(key, false), (key.reversed(), true)]
            .into_iter()
            .find_map(|(key, is_back)| self.by_place.get(&(key, 0)).map(|&at| (at, is_back)))
    }

    fn known_ahead_of_dnat(&self, key: Key) -> Option<(u32, bool)> {
        self.dnat.iter().find_map(|dnat| {
            [(key, false), (key.reversed(), true)].into_iter().find_map(|(key, is_back)| {
                self.by_place.get(&(dnat.origin(key)?, 0)).map(|&at| (at, is_back))
            })
        })
    }

    fn see_flow(&mut self, seen: &Seen, captured: Captured) {
        let found = self.find(seen.key, captured.time);
        if let Some((at, is_back)) = found {
            let flow = &self.entry(at).flow;
            // A SYN each way, and nothing before: both open one connection (RFC 9293, 3.5).
            let begins_anew = seen.role == Role::First
                && seen.key.protocol == protocol::TCP
                && (flow.is_closed || flow.begin == Begin::Unknown || (is_back && flow.is_open));
            if !begins_anew {
                self.count(at, usize::from(is_back), seen.role, captured);
                return;
            }
            self.end(at);
        }
        let (key, ct, begin) = self.begin(seen);
        let side = usize::from(key != seen.key);
        let way = if side == 1 { captured.way.reversed() } else { captured.way };
        let captured = Captured { way, ..captured };
        if ct == CtState::Invalid {
            self.see_alone(key, ct, begin, captured);
        } else {
            let at = self.add((key, 0), fresh(key, ct, begin, captured));
            self.count(at, side, seen.role, captured);
        }
    }

    /// What conntrack would make of a first packet: direction, state, and whether that is known.
    fn begin(&self, seen: &Seen) -> (Key, CtState, Begin) {
        match seen.role {
            Role::Reply if self.is_complete => (seen.key, CtState::Invalid, Begin::Known),
            Role::Reply => (seen.key.reversed(), CtState::New, Begin::Known),
            Role::Later { is_bare: true, .. } if self.is_complete => {
                (seen.key, CtState::Invalid, Begin::Known)
            }
            Role::Later { .. } => (seen.key, CtState::New, self.unknown(Begin::Unknown)),
            _ => (seen.key, CtState::New, Begin::Known),
        }
    }

    /// What belongs to no connection: one entry for each direction, state and tuple.
    fn see_alone(&mut self, key: Key, ct: CtState, begin: Begin, captured: Captured) {
        let place = (key, 1 + (ct as u8) * 4 + begin as u8);
        let at = match self.by_place.get(&place) {
            Some(&at) => at,
            None => self.add(place, fresh(key, ct, begin, captured)),
        };
        self.count(at, 0, Role::Any, captured);
    }

    fn count(&mut self, at: u32, side: usize, role: Role, captured: Captured) {
        let flow = &mut self.entries[at as usize].flow;
        flow.packets[side] += 1;
        flow.bytes[side] += captured.length;
        flow.last = flow.last.max(captured.time);
        let (closes, refuses) = match role {
            Role::Later { closes, refuses, .. } => (closes, refuses),
            _ => (false, false),
        };
        flow.is_open |= role != Role::First;
        flow.is_closed |= closes;
        flow.is_answered |= side == 1 && !refuses;
        if at != self.newest {
            self.unlink(at);
            self.link(at);
        }
    }

    fn add(&mut self, place: Place, flow: Flow) -> u32 {
        if self.by_place.len() >= self.most {
            self.evicted += 1;
            self.end(self.oldest);
        }
        let entry = Entry { place, flow, older: NOBODY, newer: NOBODY };
        let at = if let Some(at) = self.free.pop() {
            self.entries[at as usize] = entry;
            at
        } else {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("the table has at most so many")
        };
        self.by_place.insert(place, at);
        self.link(at);
        at
    }

    /// Gives a flow out.
    fn end(&mut self, at: u32) {
        self.unlink(at);
        let Entry { place, flow, .. } = self.entries[at as usize];
        self.by_place.remove(&place);
        self.free.push(at);
        self.over.push(flow);
    }

    /// Gives up to so many out that are still under way, the quiet ones first; false if there are none.
    pub fn drain(&mut self, most: usize) -> bool {
        for _ in 0..most {
            if self.oldest == NOBODY {
                return !self.over.is_empty();
            }
            self.end(self.oldest);
        }
        true
    }

    fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    fn unlink(&mut self, at: u32) {
        let Entry { older, newer, .. } = self.entries[at as usize];
        match older {
            NOBODY => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NOBODY => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
    }

    fn link(&mut self, at: u32) {
        let newest = std::mem::replace(&mut self.newest, at);
        let entry = &mut self.entries[at as usize];
        (entry.older, entry.newer) = (newest, NOBODY);
        match newest {
            NOBODY => self.oldest = at,
            newest => self.entries[newest as usize].newer = at,
        }
    }
}

fn fresh(key: Key, ct: CtState, begin: Begin, captured: Captured) -> Flow {
    Flow {
        key,
        ct,
        begin,
        packets: [0; 2],
        bytes: [0; 2],
        first: captured.time,
        last: captured.time,
        interface: captured.interface,
        way: captured.way,
        is_answered: false,
        is_open: false,
        is_closed: false,
    }
}
