//! The packet loop of one thread: all its queues.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::judge::{Judge, Learned, Scratch};
use super::noted::Noted;
use super::shared::Generation;
use super::{Decide, Shared};
use crate::flow::{Family, Hook};
use crate::nfqueue::{Anomalies, BATCH, Channel, Inbox, Poller, Queue};

/// Full batches that one queue gives in a row before the others are looked at: under load, reading and answering are
/// the only system calls but for one in so many.
const FULL_BATCHES: usize = 4;

/// Batches of one queue that are answered by the table before at most, when another one is in force: a flood must not
/// keep it.
pub const CLOSING_BATCHES: usize = 64;

/// How long a worker waits in all for the others to take up a table together; packets wait meanwhile.
const MEET_PATIENCE: Duration = Duration::from_millis(200);

/// Hooks in the order in which packets come to them.
const WAY: [&[Hook]; 4] = [
    &[Hook::RawPrerouting, Hook::RawOutput],
    &[Hook::ManglePrerouting],
    &[Hook::FilterInput, Hook::FilterForward, Hook::FilterOutput],
    &[Hook::ManglePostrouting],
];

/// A queue and what its number means. The kernel's message does not tell raw from mangle PREROUTING.
#[derive(Debug)]
pub struct HookQueue<C> {
    pub hook: Hook,
    pub family: Family,
    pub queue: Queue<C>,
    /// Where in [`Shared::counts`] its packets are counted.
    pub counts: usize,
}

/// The loop and all that it alone touches.
pub struct Worker<C, D: Decide> {
    /// Counted from 0.
    pub number: usize,
    pub queues: Vec<HookQueue<C>>,
    pub shared: Arc<Shared<D>>,
    /// What it answers by.
    generation: Arc<Generation<D>>,
    /// How long others are waited for.
    pub patience: Duration,
    /// Where the kernel's name for an interface comes from.
    pub interface_name: fn(u32) -> Option<String>,
    pub inbox: Inbox,
    pub learned: Learned,
    pub scratch: Scratch,
}

/// The latest request to hear when every queue has been found empty once.
#[derive(Default)]
pub struct Drain {
    /// Its number; 0: there has been none.
    pub ticket: u64,
    /// One bit for each queue that has not yet been empty; 0: the request is answered.
    waiting: u32,
}

impl<C: Channel, D: Decide> Worker<C, D> {
    /// Ready to run, with all room that it will need.
    pub fn new(
        number: usize,
        queues: Vec<HookQueue<C>>,
        shared: Arc<Shared<D>>,
        interface_name: fn(u32) -> Option<String>,
    ) -> Self {
        let scratch = Scratch::new(shared.sampling.as_ref());
        let (inbox, learned) = (Inbox::default(), Learned::default());
        let generation = shared.generation.load_full();
        let patience = MEET_PATIENCE;
        shared.report_followed(number, generation.number); // It may not be the first one any more.
        Self { number, queues, shared, generation, patience, interface_name, inbox, learned, scratch }
    }

    /// Answers one batch of one queue; how many datagrams it had.
    pub fn serve(&mut self, place: usize) -> io::Result<usize> {
        let HookQueue { hook, family, queue, counts } = &mut self.queues[place];
        let counts = &self.shared.counts[*counts];
        let mut anomalies = Anomalies::default();
        let count = queue.receive(&mut self.inbox, &mut anomalies)?;
        if count > 0 {
            counts.batches.add(1);
            let generation = &*self.generation;
            self.learned.forget_others(generation.number);
            let staged = self.shared.staged_beside(generation.number);
            let noted = self.shared.noted.get();
            let mut judge = Judge {
                hook: *hook,
                family: *family,
                protocol: self.shared.protocol(),
                malformed_accept: self.shared.malformed_accept,
                null: self.shared.null,
                may_repeat: self.shared.may_repeat(*hook),
                generation,
                learned: &mut self.learned,
                interface_name: self.interface_name,
                counts,
                hits: generation.hits.worker(self.number),
                worker: self.number,
                events: self.shared.events.as_ref().filter(|_| noted >= Noted::Told),
                staged: staged.as_deref(),
                recorder: self.shared.recorders[self.number].as_ref().filter(|_| noted >= Noted::Recorded),
                inbox: &self.inbox,
                is_counting: noted >= Noted::Counted,
                scratch: &mut self.scratch,
            };
            queue.answer(&self.inbox, count, &mut anomalies, &mut judge);
        }
        counts.add_anomalies(anomalies);
        Ok(count)
    }

    /// Goes on while the queue gives full batches, but not for ever.
    pub fn serve_busy(&mut self, place: usize) -> io::Result<()> {
        for _ in 0..FULL_BATCHES {
            if self.serve(place)? < BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Comes to answer by the table in force. What raw or mangle PREROUTING has let go on by the one before is judged by
    /// that to its end: each of them may leave to another hook what it allows, and nobody would have judged the packet.
    ///
    /// A verdict sends its packet to the queue of the next hook before it is taken, but that may be another worker's. So
    /// all of them stop at the hooks of one step, finish what waits at the next one, and so on; then all go on by the new
    /// table. Not held to that are packets that the kernel, or a queue of others, keeps between two hooks (on `lo` between
    /// sending and receiving), those behind the first `CLOSING_BATCHES` of a queue, and workers that do not come in time.
    pub fn follow(&mut self) -> io::Result<()> {
        while self.shared.generation.load().number != self.generation.number {
            let until = Instant::now() + self.patience;
            for (step, hooks) in WAY.iter().enumerate() {
                if step > 0 {
                    self.finish(hooks)?;
                }
                self.shared.meet(self.number, until);
            }
            self.generation = self.shared.generation.load_full();
            self.shared.report_followed(self.number, self.generation.number);
        }
        Ok(())
    }

    /// Answers what waits at these hooks.
    fn finish(&mut self, hooks: &[Hook]) -> io::Result<()> {
        for place in 0..self.queues.len() {
            let batches = if hooks.contains(&self.queues[place].hook) { CLOSING_BATCHES } else { 0 };
            for _ in 0..batches {
                if self.serve(place)? == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Answers packets until it is told to stop. `poller` waits for its queues, and then for its wake.
    ///
    /// # Errors
    /// Where waiting or a socket fails for good.
    pub fn run(&mut self, mut poller: Poller) -> io::Result<()> {
        let wake_place = self.queues.len();
        let mut drain = Drain::default();
        loop {
            self.shared.turns[self.number].add();
            drain.take_up(self.shared.drain_wanted.load(Ordering::Acquire), self.queues.len());
            poller.wait(drain.waiting == 0)?;
            if poller.is_ready(wake_place) {
                self.shared.wakes[self.number].clear();
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            self.follow()?;
            for place in 0..self.queues.len() {
                if poller.is_ready(place) {
                    self.serve_busy(place)?;
                } else if drain.ends_with(place) {
                    self.shared.report_drained(self.number, drain.ticket);
                }
            }
        }
    }
}

impl Drain {
    /// A newer request takes the place of an older one, and answers it too.
    pub fn take_up(&mut self, wanted: u64, queues: usize) {
        if wanted != self.ticket {
            *self = Self { ticket: wanted, waiting: (1 << queues) - 1 };
        }
    }

    /// Notes that the queue at this place is empty; true if it was the last to wait for.
    pub fn ends_with(&mut self, place: usize) -> bool {
        let before = self.waiting;
        self.waiting &= !(1 << place);
        before != 0 && self.waiting == 0
    }
}
