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
        Sampler { every: self.every, left: self.every, sender: self.sender.clone() }
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
    sender: SyncSender<Sample>,
}

impl Sampler {
    /// Takes note of one decision in so many. Nothing is allocated, and nobody is waited for.
    pub fn see(&mut self, sample: impl FnOnce() -> Sample) {
        self.left -= 1;
        if self.left == 0 {
            self.left = self.every;
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
        let sampling = Sampling::new(2).unwrap();
        let (mut one, mut other) = (sampling.sampler(), sampling.sampler());
        for number in 0..2 * ROOM as u64 {
            one.see(|| Sample::of(number, &KEY, (0, 0), DECISION));
            other.see(|| Sample::of(number, &KEY, (0, 0), DECISION));
        }
        let taken = sampling.take(3);
        assert_eq!(taken.iter().map(|sample| sample.generation).collect::<Vec<_>>(), [1, 1, 3]);
        assert_eq!(sampling.take(usize::MAX).len(), ROOM - 3, "the rest was forgotten");
    }
}
