//! The flight recorder: the last denied packets of each worker, whatever is told of them.
//!
//! Fixed memory, the oldest is written over. One thread writes, and is never waited for: each slot says which turn of
//! it is complete, and who reads a slot while it is written over reads it again (a seqlock, Boehm 2012).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use super::header::{HEADER_BYTES, Header};
use crate::flow::{FiveTuple, Hook, OutcomeId, Transport};

const META: usize = 6;
const WORDS: usize = META + HEADER_BYTES / 8;
/// More cannot be needed: a slot is written over once in as many packets as there are slots.
const TRIES: usize = 4;

/// One denied packet.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Milliseconds since 1970.
    pub time: u64,
    /// Number of the table that answered.
    pub generation: u64,
    /// Where.
    pub hook: Hook,
    /// What decided, in that table.
    pub outcome: OutcomeId,
    /// ifindexes of in- and out-interface; 0: none.
    pub interfaces: (u32, u32),
    /// What it was judged by, of which the beginning may not hold all.
    pub tuple: FiveTuple,
    /// Its beginning.
    pub header: Header,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    /// Twice the turns that were written here; one more while one is.
    turns: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The packets of one worker.
#[derive(Debug)]
pub struct Recorder {
    slots: Box<[Slot]>,
    /// Place of the oldest; the worker alone writes.
    next: AtomicUsize,
}

/// What the packets of a batch have in common.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub time: u64,
    pub generation: u64,
    pub hook: Hook,
}

impl Recorder {
    /// None for no packets.
    pub fn new(packets: u32) -> Option<Self> {
        let slots = (0..packets).map(|_| Slot::default()).collect();
        (packets > 0).then(|| Self { slots, next: AtomicUsize::new(0) })
    }

    /// One more packet, in the place of the oldest. Only its worker may call this.
    pub fn record(
        &self,
        batch: Batch,
        outcome: OutcomeId,
        tuple: &FiveTuple,
        interfaces: (u32, u32),
        length: u32,
        payload: &[u8],
    ) {
        let next = self.next.load(Ordering::Relaxed);
        let Slot { turns, words } = &self.slots[next];
        let payload = &payload[..payload.len().min(HEADER_BYTES)];
        let turn = turns.load(Ordering::Relaxed);
        turns.store(turn + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        #[allow(clippy::cast_possible_truncation)] // At most `HEADER_BYTES`.
        let copied = payload.len() as u32;
        let meta: [u64; META] = [
            batch.time,
            batch.generation,
            pair(outcome.number(), batch.hook as u32),
            pair(interfaces.0, interfaces.1),
            pair(length, copied),
            upper_layer(tuple),
        ];
        let (place, header) = words.split_at(META);
        for (word, value) in place.iter().zip(meta) {
            word.store(value, Ordering::Relaxed);
        }
        let (whole, rest) = payload.as_chunks::<8>();
        for (word, bytes) in header.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            header[whole.len()].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        turns.store(turn + 2, Ordering::Release);
        let behind = if next + 1 == self.slots.len() { 0 } else { next + 1 };
        self.next.store(behind, Ordering::Relaxed);
    }

    /// What is there now, in no particular order; not what is being written over all the while.
    pub fn packets(&self) -> impl Iterator<Item = Recorded> {
        self.slots.iter().filter_map(Slot::read)
    }
}

impl Slot {
    fn read(&self) -> Option<Recorded> {
        for _ in 0..TRIES {
            let turn = self.turns.load(Ordering::Acquire);
            if turn == 0 {
                return None;
            }
            let words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if turn.is_multiple_of(2) && self.turns.load(Ordering::Relaxed) == turn {
                return Some(recorded(&words));
            }
        }
        None
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[allow(clippy::cast_possible_truncation)] // Halves of a word.
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// What of a packet is behind its addresses; those are in the header.
fn upper_layer(tuple: &FiveTuple) -> u64 {
    let (kind, first, second) = match tuple.transport {
        Transport::Opaque => (0, 0, 0),
        Transport::Ports { source, destination } => (1, source, destination),
        Transport::Icmp { kind, code } => (2, kind.into(), code.into()),
    };
    pair(u32::from(first) << 16 | u32::from(second), kind << 8 | u32::from(tuple.protocol))
}

#[allow(clippy::cast_possible_truncation)] // As they were put together.
fn tuple(header: &Header, upper_layer: u64) -> FiveTuple {
    let (family, source, destination) = header.addresses();
    let (numbers, kind) = halves(upper_layer);
    let (first, second) = ((numbers >> 16) as u16, numbers as u16);
    let transport = match kind >> 8 {
        0 => Transport::Opaque,
        1 => Transport::Ports { source: first, destination: second },
        _ => Transport::Icmp { kind: first as u8, code: second as u8 },
    };
    FiveTuple { family, source, destination, protocol: kind as u8, transport }
}

fn recorded(words: &[u64; WORDS]) -> Recorded {
    let (outcome, hook) = halves(words[2]);
    let (length, copied) = halves(words[4]);
    let mut bytes = [0; HEADER_BYTES];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&words[META..]) {
        *bytes = word.to_ne_bytes();
    }
    let header = Header::new(&bytes[..copied as usize], length);
    Recorded {
        time: words[0],
        generation: words[1],
        hook: Hook::ALL[hook as usize],
        outcome: OutcomeId::from_number(outcome),
        interfaces: halves(words[3]),
        tuple: tuple(&header, words[5]),
        header,
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // Numbers into bytes.
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::flow::Family;

    fn record(recorder: &Recorder, number: u32) {
        let batch = Batch { time: number.into(), generation: 2, hook: Hook::FilterForward };
        let payload = vec![number as u8; (number as usize) % 200];
        let outcome = OutcomeId::from_number(number);
        recorder.record(batch, outcome, &asked(number), (number, 0), number % 200, &payload);
    }

    /// Each kind in turn; the addresses are not of it.
    fn asked(number: u32) -> FiveTuple {
        let (port, byte) = (number as u16, number as u8);
        let transport = match number % 3 {
            0 => Transport::Opaque,
            1 => Transport::Ports { source: port, destination: !port },
            _ => Transport::Icmp { kind: byte, code: !byte },
        };
        FiveTuple { family: Family::V4, source: 0, destination: 0, protocol: byte, transport }
    }

    /// All parts of it are of one packet.
    fn check(found: &Recorded) -> u32 {
        let number = found.outcome.number();
        assert_eq!((found.time, found.interfaces), (number.into(), (number, 0)));
        assert_eq!((found.header.length, found.hook), (number % 200, Hook::FilterForward));
        let expected = asked(number);
        assert_eq!((found.tuple.protocol, found.tuple.transport), (expected.protocol, expected.transport));
        assert_eq!(found.header.bytes(), vec![number as u8; (number as usize % 200).min(HEADER_BYTES)]);
        number
    }

    #[test]
    fn the_last_ones_are_kept() {
        assert!(Recorder::new(0).is_none());
        let recorder = Recorder::new(3).unwrap();
        assert_eq!(recorder.packets().count(), 0);
        (1..=2).for_each(|number| record(&recorder, number));
        assert_eq!(recorder.packets().map(|found| check(&found)).collect::<Vec<_>>(), [1, 2]);
        (3..=400).for_each(|number| record(&recorder, number));
        let mut found: Vec<_> = recorder.packets().map(|found| check(&found)).collect();
        found.sort_unstable();
        assert_eq!(found, [398, 399, 400]);
    }

    #[test]
    fn nobody_reads_half_a_packet() {
        let (recorder, is_over) = (Recorder::new(2).unwrap(), AtomicBool::new(false));
        let found = thread::scope(|scope| {
            scope.spawn(|| {
                (1..200_000).for_each(|number| record(&recorder, number));
                is_over.store(true, Ordering::Release);
            });
            let mut found = 0;
            while !is_over.load(Ordering::Acquire) {
                found += recorder.packets().inspect(|found| _ = check(found)).count();
            }
            found
        });
        assert!(found + recorder.packets().count() > 0);
    }
}
