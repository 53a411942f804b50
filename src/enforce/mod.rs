//! The packet loop: threads answer all hooks' queues from the table in force.
//!
//! ```text
//!  Enforcer (any thread)                      each worker thread
//!  start: queues bound, then the threads      poll: its 14 queues, wake-up
//!  swap:  new Generation  ==== arc-swap ===>  batch in --wire--> FiveTuples --table--> decisions
//!  counters, samples, drain, stop             decisions --marks--> Replies, batched out
//! ```
//!
//! Per packet nothing is allocated, locked or logged. Each (hook, IP version, worker) has a queue and a socket of its
//! own: a flood on one overruns no other. What ends one worker ends all, and closes all sockets: the kernel then drops
//! what its rules queue (rules with `--queue-bypass` accept it). Never half alive.

mod config;
mod counters;
mod decided;
mod events;
mod header;
mod hits;
mod judge;
mod marks;
mod noted;
mod recorder;
mod replay;
mod samples;
mod shared;
#[cfg(test)]
mod tests;
mod worker;

use std::any::Any;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use crate::flow::{Family, FlowKey, InterfaceId, OutcomeId};
use crate::nfqueue::{Channel, Poller, Queue, QueueOptions, block_signals, interface_name};
use crate::table::{Decision, DecisionTable, Meanings, Passing, Topic};

pub use config::{EnforcerConfig, MOST_WORKERS, QUEUES, check, queue_number};
pub use counters::{Counters, HookCounters};
pub use events::{Event, Rates, Untold};
pub use header::Header;
pub use hits::TableHits;
pub use marks::{Marks, Protocol};
pub use noted::Noted;
pub use recorder::Recorded;
pub use replay::Replay;
pub use samples::Sample;
pub use worker::CLOSING_BATCHES;

use config::places;
use counters::Turns;
use events::Events;
use shared::{Generation, Progress, Shared, share};
use worker::{HookQueue, Worker};

/// How long [`Enforcer::stop`] waits for a worker that does not come round its loop any more.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What the loop asks of a table.
trait Decide: Send + Sync + 'static {
    /// What its outcome ids mean, apart from it.
    type Meanings: Clone + Send;

    /// Packets of one hook and IP version, in order; replaces `decisions` and what was passed on the way to them.
    fn decide_packets(&self, keys: &[FlowKey], decisions: &mut Vec<Decision>, passing: &mut Passing);
    fn interface(&self, name: &str) -> InterfaceId;
    /// What is told of packets that met an outcome, by outcome id.
    fn topics(&self) -> Vec<Topic>;
    fn meanings(&self) -> Self::Meanings;
    /// Tells the policies of outcomes apart, or what else they are of; hardly two are alike.
    fn policy_hash(&self, outcome: OutcomeId) -> u64;
    /// Whether an outcome id has the same meaning in both.
    fn counts_as(&self, other: &Self) -> bool;
}

impl Decide for DecisionTable {
    type Meanings = Meanings;

    fn decide_packets(&self, keys: &[FlowKey], decisions: &mut Vec<Decision>, passing: &mut Passing) {
        self.decide_packets(keys, decisions, passing);
    }

    fn interface(&self, name: &str) -> InterfaceId {
        self.interface(name)
    }

    fn topics(&self) -> Vec<Topic> {
        self.topics()
    }

    fn meanings(&self) -> Meanings {
        self.meanings()
    }

    fn policy_hash(&self, outcome: OutcomeId) -> u64 {
        let origin = self.meaning(outcome).0;
        FxBuildHasher.hash_one((
            &origin.policy,
            &origin.tier,
            origin.policy.is_none().then_some(origin.reason),
        ))
    }

    fn counts_as(&self, other: &Self) -> bool {
        self.counts_as(other)
    }
}

/// The running packet loop. Dropping it stops it.
pub struct Enforcer {
    shared: Arc<Shared<DecisionTable>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Enforcer {
    /// Binds the queues in the network namespace of the calling thread and answers packets from now on.
    /// `interfaces` are (ifindex, name) of that namespace; others are looked up by name when they are first met.
    ///
    /// # Errors
    /// Where the configuration cannot be, or a queue cannot be bound; no queue is bound then. The text names the
    /// queue.
    pub fn start(
        config: EnforcerConfig,
        table: Arc<DecisionTable>,
        interfaces: Vec<(u32, String)>,
    ) -> io::Result<Self> {
        check(&config)?;
        let mut grants = Vec::new();
        let mut workers: Vec<_> = (0..config.workers).map(|_| Vec::new()).collect();
        for (hook, family) in places() {
            for (worker, queues) in (0..).zip(&mut workers) {
                let number = queue_number(&config, hook, family, worker);
                let options = QueueOptions {
                    maxlen: config.maxlen,
                    fail_open: config.fail_open[hook as usize],
                    whole: true,
                    copied: copied_bytes(family),
                };
                let (queue, grant) =
                    Queue::open(number, options).map_err(|error| cannot_bind(number, &error))?;
                queues.push(HookQueue { hook, family, queue, counts: grants.len() });
                grants.push(grant);
            }
        }
        let shared = Arc::new(share(&config, table, interfaces, grants)?);
        let enforcer = Self { shared, threads: Mutex::default() };
        for (number, queues) in workers.into_iter().enumerate() {
            // Where one cannot be started, those before it end with the enforcer.
            let thread = spawn(Arc::clone(&enforcer.shared), number, queues)?;
            enforcer.threads().push(thread);
        }
        Ok(enforcer)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new table in force, which workers take up together, as soon as all of them come round: packets that have
    /// passed one hook by the table before are judged by that to their end. Its generation number, as counters and samples tell it; the
    /// first table has 1.
    pub fn swap(&self, table: Arc<DecisionTable>, interfaces: Vec<(u32, String)>) -> u64 {
        self.shared.swap(table, interfaces)
    }

    /// Waits until all batches are answered by the table of this number or a later one; false if that took too long or
    /// the loop has ended.
    pub fn is_followed(&self, generation: u64, timeout: Duration) -> bool {
        self.shared.is_followed(generation, timeout)
    }

    /// Decisions that were sampled and not yet taken, `most` at most.
    pub fn samples(&self, most: usize) -> Vec<Sample> {
        self.shared.sampling.as_ref().map_or_else(Vec::new, |sampling| sampling.take(most))
    }

    /// Asks another table, of the same endpoints on the same interfaces, beside the one of this number: what only
    /// the other denies is told as an event. None: no other.
    pub fn stage(&self, generation: u64, table: Option<Arc<DecisionTable>>) {
        self.shared.stage(generation, table);
    }

    /// The last denied packets of all workers, the oldest first, each with what outcome ids meant then; None: too many
    /// tables ago.
    pub fn recorded(&self) -> Vec<(Recorded, Option<Meanings>)> {
        self.shared.recorded()
    }

    /// Events that were not yet taken, `most` at most.
    pub fn events(&self, most: usize) -> Vec<Event<DecisionTable>> {
        self.shared.events.as_ref().map_or_else(Vec::new, |events| events.take(most))
    }

    /// Events that nobody will see, since the start.
    pub fn untold(&self) -> Untold {
        self.shared.events.as_ref().map_or_else(Untold::default, Events::untold)
    }

    /// The thread ids of the workers.
    pub fn thread_ids(&self) -> Vec<u32> {
        let progress = self.shared.progress();
        let waits = |progress: &mut Progress| progress.threads.contains(&0) && progress.ended == 0;
        let progress = self.shared.progressed.wait_while(progress, waits);
        progress.unwrap_or_else(PoisonError::into_inner).threads.clone()
    }

    /// Readable when the workers have ended: to be polled beside other things.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.shared.ended.as_fd()
    }

    /// Hooks at which packets must not pass the table twice, because rules of others ahead of ours would erase our
    /// mark and the packet would go round for ever. Holds from the next batch on. Call it before rules come into
    /// force that no longer look for D at these hooks, and after those that do again.
    pub fn set_without_repeat(&self, hooks: [bool; 7]) {
        self.shared.set_without_repeat(hooks);
    }

    /// `FilterDenyAction` is Reject, `FilterAllowAction` is Return. Holds from the next batch on; the rules in force
    /// must answer both bits of a rejection, whatever the action is.
    pub fn set_filter_actions(&self, reject: bool, returns: bool) {
        self.shared.set_filter_actions(reject, returns);
    }

    /// For measurements: how much is noted of packets, from the next batch on.
    pub fn set_noted(&self, noted: Noted) {
        self.shared.noted.set(noted);
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        let workers = self.shared.wakes.len();
        let hooks = places().flat_map(|(hook, _)| std::iter::repeat_n(hook, workers));
        counters::sum(self.shared.generation.load().number, hooks.zip(&self.shared.counts))
    }

    /// How often outcomes were met, table by table: those before the one in force, then it. What is said to be over is
    /// said once; whoever adds up keeps it.
    pub fn hits(&self) -> Vec<TableHits<Meanings>> {
        self.shared.hits()
    }

    /// Waits until every packet that is queued now has been answered; false if that took too long or the loop has
    /// ended.
    pub fn drain(&self, timeout: Duration) -> bool {
        self.shared.drain(timeout)
    }

    /// How often each worker has come round its loop: at least about once a second, also without packets. One whose
    /// number stays as it is hangs.
    pub fn turns(&self) -> Vec<u64> {
        self.shared.turns.iter().map(Turns::get).collect()
    }

    /// Ends the loop and closes the queues. Packets that still wait are dropped by the kernel. A second call does
    /// nothing. A worker that hangs is not waited for: its queues are bound until it or the process ends.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake_all();
        let threads = std::mem::take(&mut *self.threads());
        if !self.shared.have_ended(threads.len(), STOP_PATIENCE) {
            return;
        }
        for thread in threads {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }

    /// Whether packets are being answered.
    pub fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire)
    }

    /// Why the loop ended by itself; None while it runs and after [`stop`](Self::stop).
    pub fn failure(&self) -> Option<String> {
        self.shared.progress().failure.clone()
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The headers, and the ports behind them. IPv6 has 212 bytes of extension headers in it, as many as a routing header of
/// a dozen segments has. A larger copy costs memory of the socket buffer, a smaller one saves nothing measurable.
pub const fn copied_bytes(family: Family) -> u32 {
    match family {
        Family::V4 => 128,
        Family::V6 => 256,
    }
}

fn cannot_bind(number: u16, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy => {
            " (another process has it, or CAP_NET_ADMIN is missing)"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("queue {number} cannot be bound: {error}{why}"))
}

fn spawn<C, D>(shared: Arc<Shared<D>>, number: usize, queues: Vec<HookQueue<C>>) -> io::Result<JoinHandle<()>>
where
    C: Channel + AsFd + Send + 'static,
    D: Decide,
{
    // Here, so that a descriptor too many is an error of whoever starts it.
    let sockets = queues.iter().map(|at| at.queue.channel().as_fd());
    let poller = Poller::new(sockets.chain([shared.wakes[number].as_fd()]))?;
    thread::Builder::new().name(format!("labelgate-{number}")).spawn(move || {
        block_signals();
        shared.report_begin(number);
        let ours = Arc::clone(&shared);
        // The worker lives inside: whatever ends it, its sockets are closed before anybody is told.
        let mut worker = Worker::new(number, queues, ours, interface_name);
        let end = catch_unwind(AssertUnwindSafe(move || worker.run(poller)));
        shared.report_end(match end {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic_text(panic.as_ref())),
        });
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("internal error: {}", text.unwrap_or("no text"))
}
