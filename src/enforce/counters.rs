//! What the packet loop counts. One thread writes, so a count is a load and a store; everybody may read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::flow::{Hook, Verdict};
use crate::nfqueue::{Anomalies, Grant};
use crate::wire::WireError;

/// All counters at one instant. They start at 0 with the enforcer and never go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Number of the table in force: 1 at the start, one more with each swap.
    pub generation: u64,
    /// By hook name (`raw-prerouting`, ...), both IP versions together.
    pub hooks: BTreeMap<&'static str, HookCounters>,
}

/// The counters of one hook. `packets` is the sum of all `verdicts`, all `malformed`, `loop_guard` and
/// `unknown_interface`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HookCounters {
    /// Packets that were answered.
    pub packets: u64,
    /// Packets that the table judged, by its verdict (`deny`, `allow`, `allow-notrack`, ...).
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Packets that could not be read, by kind (`truncated`, `not-copied`, ...); answered as `malformed` is
    /// configured.
    pub malformed: BTreeMap<&'static str, u64>,
    /// Packets that came to the queue although they carry the decided mark. Accepted, or dropped if they were to be
    /// rejected. Where packets may not pass the table twice the mark is not looked at.
    pub loop_guard: u64,
    /// Packets of an interface that has no name any more: denied.
    pub unknown_interface: u64,
    /// `allow-notrack` where packets may not pass the table twice: answered as `continue`. Counted in `verdicts`
    /// too.
    pub notrack_refused: u64,
    /// Batches that were received; `packets` over `batches` is their mean size.
    pub batches: u64,
    /// Times the kernel found the socket's buffer full (`ENOBUFS`) and dropped packets (or accepted them, where the
    /// hook fails open). How many: column 7 of `/proc/net/netfilter/nfnetlink_queue`.
    pub overruns: u64,
    /// Replies that the kernel refused; mostly the packet was gone because its interface went down.
    pub netlink_errors: u64,
    /// Messages from the kernel that could not be read; their packets were dropped.
    pub unreadable_messages: u64,
    /// Replies that could not be sent; their packets were dropped.
    pub unsent: u64,
    /// Receive buffers asked for, in bytes, summed over the hook's queues.
    pub receive_buffer_wanted: u64,
    /// Receive buffers granted; less than wanted means that a burst overruns before the queue is full.
    pub receive_buffer_granted: u64,
    /// Queues whose kernel hands over super-packets segment by segment: bulk traffic costs nine times as much.
    pub segmented_queues: u64,
}

/// A count that one thread writes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// No locked instruction: there is one writer.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Turns of one worker's loop, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Turns(Count);

impl Turns {
    pub fn add(&self) {
        self.0.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// The counts of one queue.
#[derive(Debug, Default)]
pub struct QueueCounts {
    pub packets: Count,
    pub loop_guard: Count,
    pub unknown_interface: Count,
    pub notrack_refused: Count,
    pub batches: Count,
    verdicts: [Count; Verdict::ALL.len()],
    malformed: [Count; WireError::ALL.len()],
    overruns: Count,
    errors: Count,
    unreadable: Count,
    unsent: Count,
    grant: Grant,
}

impl QueueCounts {
    pub fn new(grant: Grant) -> Self {
        Self { grant, ..Self::default() }
    }

    pub fn add_verdict(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].add(1);
    }

    pub fn add_verdicts(&self, numbers: [u64; Verdict::ALL.len()]) {
        for (count, number) in self.verdicts.iter().zip(numbers) {
            count.add(number);
        }
    }

    pub fn add_malformed(&self, kind: WireError) {
        self.malformed[kind as usize].add(1);
    }

    pub fn add_anomalies(&self, anomalies: Anomalies) {
        if anomalies == Anomalies::default() {
            return;
        }
        self.overruns.add(anomalies.overruns);
        self.errors.add(anomalies.errors);
        self.unreadable.add(anomalies.unreadable);
        self.unsent.add(anomalies.unsent);
    }

    fn add_to(&self, hook: &mut HookCounters) {
        for (verdict, count) in Verdict::ALL.into_iter().zip(&self.verdicts) {
            *hook.verdicts.entry(verdict.name()).or_default() += count.get();
        }
        for (kind, count) in WireError::ALL.into_iter().zip(&self.malformed) {
            *hook.malformed.entry(kind.name()).or_default() += count.get();
        }
        hook.packets += self.packets.get();
        hook.loop_guard += self.loop_guard.get();
        hook.unknown_interface += self.unknown_interface.get();
        hook.notrack_refused += self.notrack_refused.get();
        hook.batches += self.batches.get();
        hook.overruns += self.overruns.get();
        hook.netlink_errors += self.errors.get();
        hook.unreadable_messages += self.unreadable.get();
        hook.unsent += self.unsent.get();
        hook.receive_buffer_wanted += u64::from(self.grant.buffer.wanted);
        hook.receive_buffer_granted += u64::from(self.grant.buffer.granted);
        hook.segmented_queues += u64::from(self.grant.segmented);
    }
}

/// Sums the queues of each hook.
pub fn sum<'a>(generation: u64, queues: impl IntoIterator<Item = (Hook, &'a QueueCounts)>) -> Counters {
    let mut hooks: BTreeMap<_, HookCounters> = BTreeMap::new();
    for (hook, counts) in queues {
        counts.add_to(hooks.entry(hook.name()).or_default());
    }
    Counters { generation, hooks }
}
