//! Some decisions, told to whoever wants to check them: one in so many, dropped where nobody takes them in time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use crate::flow::{FlowKey, OutcomeId, Verdict};
use crate::table::Decision;

/// Samples that wait to be taken.
const ROOM: usize = 4096;

/// A question as it was asked, and what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Number of the table that answered.
    pub generation: u64,
    /// Interfaces in it are those of that table.
    pub key: FlowKey,
    /// ifindexes of in- and out-interface; 0: none.
    pub interfaces: (u32, u32),
    /// The hook's answer.
    pub verdict: Verdict,
    /// Accept mark behind it.
    pub accepted: bool,
    /// Leads to tier, policy and rule.
    pub outcome: OutcomeId,
}

impl Sample {
    pub(super) fn of(generation: u64, key: &FlowKey, interfaces: (u32, u32), decision: Decision) -> Self {
        let Decision { verdict, accepted, outcome, .. } = decision;
        Self { generation, key: *key, interfaces, verdict, accepted, outcome }
    }
}

/// Where samples go and are taken from.
#[derive(Debug)]
pub struct Sampling {
    every: u32,
    sender: SyncSender<Sample>,
    receiver: Mutex<Receiver<Sample>>,
}

impl Sampling {
    /// One decision in `every`; none for 0.
    pub fn new(every: u32) -> Option<Self> {
        let (sender, receiver) = sync_channel(ROOM);
        (every > 0).then(|| Self { every, sender, receiver: Mutex::new(receiver) })
    }

    /// For one thread.
    pub fn sampler(&self) -> Sampler {
        Sampler { every: self.every, left: 1, dice: 0x9e37_79b9, sender: self.sender.clone() }
    }

    /// Those that wait, `most` at most.
    pub fn take(&self, most: usize) -> Vec<Sample> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.try_iter().take(most).collect()
    }
}

/// The sampling of one thread.
#[derive(Debug)]
pub struct Sampler {
    every: u32,
    left: u32,
    dice: u32,
    sender: SyncSender<Sample>,
}

impl Sampler {
    /// From one sample to the next, `every` on average: traffic that repeats itself must not hide a part from all of them.
    fn gap(&mut self) -> u32 {
        // Xorshift (Marsaglia 2003).
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 17;
        self.dice ^= self.dice << 5;
        1 + self.dice % self.every.saturating_mul(2).saturating_sub(1)
    }

    /// Takes note of one decision in so many. Nothing is allocated, and nobody is waited for.
    pub fn see(&mut self, sample: impl FnOnce() -> Sample) {
        self.left -= 1;
        if self.left == 0 {
            self.left = self.gap();
            // Full: whoever checks is behind, and checks fewer.
            let _ = self.sender.try_send(sample());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{CtState, Family, FiveTuple, Hook, InterfaceId, Transport};

    const DECISION: Decision = Decision {
        verdict: Verdict::Deny,
        failsafe: false,
        accepted: false,
        outcome: OutcomeId::from_number(7),
    };
    const KEY: FlowKey = FlowKey {
        tuple: FiveTuple {
            family: Family::V4,
            source: 1,
            destination: 2,
            protocol: 3,
            transport: Transport::Opaque,
        },
        hook: Hook::FilterInput,
        input: InterfaceId::NONE,
        output: InterfaceId::NONE,
        accepted: false,
        ct: CtState::New,
        dnatted: false,
    };

    #[test]
    fn nobody_waits_for_whoever_takes_samples() {
        assert!(Sampling::new(0).is_none());
        let sampling = Sampling::new(1).unwrap();
        let (mut one, mut other) = (sampling.sampler(), sampling.sampler());
        for number in 0..ROOM as u64 {
            one.see(|| Sample::of(number, &KEY, (0, 0), DECISION));
            other.see(|| Sample::of(number, &KEY, (0, 0), DECISION));
        }
        let taken = sampling.take(3);
        assert_eq!(taken.iter().map(|sample| sample.generation).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(sampling.take(usize::MAX).len(), ROOM - 3, "the rest was forgotten");
    }

    #[test]
    fn one_in_so_many_whatever_repeats() {
        let sampling = Sampling::new(100).unwrap();
        let mut sampler = sampling.sampler();
        for number in 0..100_000 {
            sampler.see(|| Sample::of(number, &KEY, (0, 0), DECISION));
        }
        let taken = sampling.take(usize::MAX);
        assert!((900..1100).contains(&taken.len()), "{}", taken.len());
        for period in [2, 5, 10, 50, 100] {
            let met: std::collections::HashSet<_> =
                taken.iter().map(|sample| sample.generation % period).collect();
            assert!(met.len() as u64 * 2 > period, "{} of {period}", met.len());
        }
    }
}
