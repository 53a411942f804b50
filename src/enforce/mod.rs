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

mod counters;
mod events;
mod hits;
mod judge;
mod marks;
mod noted;
mod recorder;
mod replay;
mod samples;
#[cfg(test)]
mod tests;
mod worker;

use std::any::Any;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::flow::{Family, FlowKey, Hook, InterfaceId, OutcomeId, Verdict};
use crate::nfqueue::{Channel, Grant, Queue, QueueOptions, Wake, block_signals, interface_name, thread_id};
use crate::table::{Decision, DecisionTable, Meanings, Passing, Topic};

pub use counters::{Counters, HookCounters};
pub use events::{Event, Header, Rates, Untold};
pub use hits::TableHits;
pub use marks::{Marks, Protocol};
pub use noted::Noted;
pub use recorder::Recorded;
pub use replay::Replay;
pub use samples::Sample;

use counters::{QueueCounts, Turns};
use events::{Events, Staged};
use hits::{Hits, Ledger};
use recorder::Recorder;
use samples::Sampling;
use worker::{HookQueue, Worker};

/// Queues of one worker: one for each hook and IP version.
pub const QUEUES: u16 = 14;
/// More could not be told apart from a mistake.
pub const MOST_WORKERS: u16 = 64;
/// How long [`Enforcer::stop`] waits for a worker that does not come round its loop any more.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How packets are taken and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnforcerConfig {
    /// The first of [`QUEUES`] times `workers` queue numbers; see [`queue_number`].
    pub base: u16,
    /// Threads, each with a queue of its own for each hook and IP version.
    pub workers: u16,
    /// Packets that may wait in each queue.
    pub maxlen: u32,
    /// Our bits of the packet mark.
    pub marks: Marks,
    /// By hook: accept what a full queue or a full socket buffer cannot hold.
    pub fail_open: [bool; 7],
    /// Let packets pass that cannot be read; otherwise they are dropped.
    pub malformed_accept: bool,
    /// `FilterDenyAction` is Reject.
    pub filter_reject: bool,
    /// `FilterAllowAction` is Return.
    pub filter_return: bool,
    /// By hook: packets must not pass the table twice; see [`Enforcer::set_without_repeat`].
    pub without_repeat: [bool; 7],
    /// For measurements: answer every packet so, without looking at it. What is left is the cost of the queue.
    pub null: Option<Verdict>,
    /// One decision in so many can be taken as a [`Sample`]; 0: none.
    pub sample_every: u32,
    /// Events that are told.
    pub event_rates: Rates,
    /// Denied packets that the flight recorder of each worker holds; 0: none.
    pub recorded: u32,
}

/// The queue of a hook and IP version that a worker answers; those of one hook and IP version follow each other.
pub const fn queue_number(config: &EnforcerConfig, hook: Hook, family: Family, worker: u16) -> u16 {
    config.base + (hook as u16 * 2 + family as u16) * config.workers + worker
}

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

/// One table and the interfaces of the host as they were when it came into force.
struct Generation<D> {
    number: u64,
    table: Arc<D>,
    interfaces: FxHashMap<u32, InterfaceId>,
    hits: Arc<Hits>,
}

impl<D: Decide> Generation<D> {
    fn first(workers: usize, table: Arc<D>, interfaces: Vec<(u32, String)>) -> Self {
        let hits = Hits::new(1, workers, &table.topics());
        Self::new(1, table, interfaces, hits)
    }

    /// The same program on other interfaces is counted on.
    fn after(before: &Self, number: u64, table: Arc<D>, interfaces: Vec<(u32, String)>) -> Self {
        let hits = if table.counts_as(&before.table) {
            Arc::clone(&before.hits)
        } else {
            Hits::new(number, before.hits.workers(), &table.topics())
        };
        Self::new(number, table, interfaces, hits)
    }

    fn new(number: u64, table: Arc<D>, interfaces: Vec<(u32, String)>, hits: Arc<Hits>) -> Self {
        let id = |(index, name): (u32, String)| (index, table.interface(&name));
        let interfaces = interfaces.into_iter().map(id).collect();
        Self { number, table, interfaces, hits }
    }
}

/// What the workers and the others have in common.
struct Shared<D: Decide> {
    marks: Marks,
    filter_reject: AtomicBool,
    filter_return: AtomicBool,
    malformed_accept: bool,
    null: Option<Verdict>,
    generation: ArcSwap<Generation<D>>,
    /// Held while tables change, and while their hits are read.
    ledger: Mutex<Ledger<D::Meanings>>,
    /// In the order of the queues.
    counts: Vec<QueueCounts>,
    /// One bit for each hook.
    without_repeat: AtomicU64,
    sampling: Option<Sampling>,
    events: Option<Events<D>>,
    staged: ArcSwapOption<Staged<D>>,
    noted: noted::Switch,
    /// By worker.
    recorders: Vec<Option<Recorder>>,
    /// One for each worker.
    wakes: Vec<Wake>,
    /// By worker.
    turns: Vec<Turns>,
    /// Ready when the workers have ended.
    ended: Wake,
    stop: AtomicBool,
    alive: AtomicBool,
    /// Number of the latest drain asked for.
    drain_wanted: AtomicU64,
    progress: Mutex<Progress>,
    progressed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    /// By worker: number of the latest drain done.
    drained: Vec<u64>,
    /// Workers that have ended.
    ended: usize,
    /// Thread ids of workers, for whoever pins or measures them.
    threads: Vec<u32>,
    /// Why the first of those that ended by themselves did.
    failure: Option<String>,
}

impl<D: Decide> Shared<D> {
    /// Two callers at once get two numbers; the later table wins.
    fn swap(&self, table: Arc<D>, interfaces: Vec<(u32, String)>) -> u64 {
        let mut ledger = self.ledger();
        let before = self.generation.load_full();
        let number = before.number + 1;
        let new = Arc::new(Generation::after(&before, number, table, interfaces));
        let is_counted_on = Arc::ptr_eq(&before.hits, &new.hits);
        self.generation.store(new);
        if !is_counted_on {
            ledger.keep(before.table.meanings(), Arc::clone(&before.hits));
            if self.recorders.iter().any(Option::is_some) {
                ledger.remember(before.table.meanings(), before.hits.generation);
            }
        }
        number
    }

    /// What the flight recorders hold, the oldest first, each with what outcome ids meant then, if that is still known.
    fn recorded(&self) -> Vec<(Recorded, Option<D::Meanings>)> {
        let mut found: Vec<_> = self.recorders.iter().flatten().flat_map(Recorder::packets).collect();
        found.sort_by_key(|packet| packet.time);
        let ledger = self.ledger();
        let now = self.generation.load();
        let meanings = |number| {
            let is_now = number >= now.hits.generation;
            if is_now { Some(now.table.meanings()) } else { ledger.remembered(number) }
        };
        found.into_iter().map(|packet| (packet, meanings(packet.generation))).collect()
    }

    /// What is asked beside the table of this number, where events are told.
    fn staged_beside(&self, generation: u64) -> Option<Arc<Staged<D>>> {
        self.events.as_ref()?;
        let staged = self.staged.load();
        let beside = staged.as_ref().filter(|staged| staged.generation == generation);
        beside.map(Arc::clone)
    }

    fn stage(&self, generation: u64, table: Option<Arc<D>>) {
        let workers = self.wakes.len();
        let staged = table.map(|table| {
            let hits = Hits::new(generation, workers, &table.topics());
            Arc::new(Staged { generation, table, hits })
        });
        self.staged.store(staged);
    }

    /// Nothing that is done under the lock can panic: a poisoned one is as good.
    fn ledger(&self) -> MutexGuard<'_, Ledger<D::Meanings>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hits of the tables before, as far as they have not been given as over, and of the one in force.
    fn hits(&self) -> Vec<TableHits<D::Meanings>> {
        let mut ledger = self.ledger();
        let mut found = ledger.read();
        let generation = self.generation.load();
        found.push(hits::table_hits(generation.table.meanings(), &generation.hits, false));
        found
    }

    fn protocol(&self) -> Protocol {
        Protocol {
            marks: self.marks,
            filter_reject: self.filter_reject.load(Ordering::Relaxed),
            filter_return: self.filter_return.load(Ordering::Relaxed),
        }
    }

    fn set_filter_actions(&self, reject: bool, returns: bool) {
        self.filter_reject.store(reject, Ordering::Relaxed);
        self.filter_return.store(returns, Ordering::Relaxed);
    }

    fn may_repeat(&self, hook: Hook) -> bool {
        self.without_repeat.load(Ordering::Relaxed) & (1 << hook as u64) == 0
    }

    fn set_without_repeat(&self, hooks: [bool; 7]) {
        let bits = Hook::ALL.iter().filter(|&&hook| hooks[hook as usize]);
        self.without_repeat.store(bits.fold(0, |all, &hook| all | 1 << hook as u64), Ordering::Relaxed);
    }

    /// Nothing that is done under the lock can panic: a poisoned one is as good.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_drained(&self, worker: usize, ticket: u64) {
        self.progress().drained[worker] = ticket;
        self.progressed.notify_all();
    }

    fn drain(&self, timeout: Duration) -> bool {
        let progress = self.progress();
        let ticket = self.drain_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_all();
        let is_done = |progress: &Progress| progress.drained.iter().all(|&drained| drained >= ticket);
        let waits = |progress: &mut Progress| !is_done(progress) && self.alive.load(Ordering::Acquire);
        let waited = self.progressed.wait_timeout_while(progress, timeout, waits);
        is_done(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits until so many workers have ended; false if that took too long.
    fn have_ended(&self, workers: usize, patience: Duration) -> bool {
        let waits = |progress: &mut Progress| progress.ended < workers;
        let waited = self.progressed.wait_timeout_while(self.progress(), patience, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended >= workers
    }

    fn wake_all(&self) {
        self.wakes.iter().for_each(Wake::wake);
    }

    fn report_begin(&self, worker: usize) {
        self.progress().threads[worker] = thread_id();
        self.progressed.notify_all();
    }

    /// The others end, too: packets of half of the queues answered and half not is nothing that anybody chose.
    fn report_end(&self, failure: Option<String>) {
        self.stop.store(true, Ordering::Release);
        self.wake_all();
        let mut progress = self.progress();
        progress.ended += 1;
        progress.failure = progress.failure.take().or(failure);
        if progress.ended == self.wakes.len() {
            self.alive.store(false, Ordering::Release);
            self.ended.wake();
        }
        self.progressed.notify_all();
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

    /// Puts a new table in force: batches that are received from now on are answered by it. Its generation number, as
    /// counters and samples tell it; the first table has 1.
    pub fn swap(&self, table: Arc<DecisionTable>, interfaces: Vec<(u32, String)>) -> u64 {
        self.shared.swap(table, interfaces)
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

/// Hooks and IP versions in the order of their queue numbers.
fn places() -> impl Iterator<Item = (Hook, Family)> {
    Hook::ALL.into_iter().flat_map(|hook| [(hook, Family::V4), (hook, Family::V6)])
}

fn check(config: &EnforcerConfig) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    let Marks { accept, decided, reject } = config.marks;
    if config.workers == 0 || config.workers > MOST_WORKERS {
        return wrong(format!("{} workers: expected 1 to {MOST_WORKERS}", config.workers));
    }
    let queues = QUEUES * config.workers;
    if config.base > u16::MAX - (queues - 1) {
        return wrong(format!("first queue number {} leaves no room for {queues} queues", config.base));
    }
    if config.maxlen == 0 {
        return wrong("queue length 0 holds no packet".to_owned());
    }
    if Marks::from_mask(config.marks.mask()) != Some(config.marks) {
        return wrong(format!("marks {accept:#x}, {decided:#x}, {reject:#x} are not three rising bits"));
    }
    Ok(())
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

fn share<D: Decide>(
    config: &EnforcerConfig,
    table: Arc<D>,
    interfaces: Vec<(u32, String)>,
    grants: Vec<Grant>,
) -> io::Result<Shared<D>> {
    let workers = usize::from(config.workers);
    let wakes = (0..workers).map(|_| Wake::new()).collect::<io::Result<_>>()?;
    let shared = Shared {
        marks: config.marks,
        filter_reject: AtomicBool::new(config.filter_reject),
        filter_return: AtomicBool::new(config.filter_return),
        malformed_accept: config.malformed_accept,
        null: config.null,
        generation: ArcSwap::from_pointee(Generation::first(workers, table, interfaces)),
        ledger: Mutex::default(),
        counts: grants.into_iter().map(QueueCounts::new).collect(),
        without_repeat: AtomicU64::new(0),
        turns: (0..workers).map(|_| Turns::default()).collect(),
        sampling: Sampling::new(config.sample_every),
        events: Events::new(config.event_rates, workers),
        recorders: (0..workers).map(|_| Recorder::new(config.recorded)).collect(),
        staged: ArcSwapOption::empty(),
        noted: noted::Switch::default(),
        wakes,
        ended: Wake::new()?,
        stop: AtomicBool::new(false),
        alive: AtomicBool::new(true),
        drain_wanted: AtomicU64::new(0),
        progress: Mutex::new(Progress {
            drained: vec![0; workers],
            threads: vec![0; workers],
            ..Progress::default()
        }),
        progressed: Condvar::new(),
    };
    shared.set_without_repeat(config.without_repeat);
    Ok(shared)
}

fn spawn<C, D>(shared: Arc<Shared<D>>, number: usize, queues: Vec<HookQueue<C>>) -> io::Result<JoinHandle<()>>
where
    C: Channel + AsFd + Send + 'static,
    D: Decide,
{
    thread::Builder::new().name(format!("labelgate-{number}")).spawn(move || {
        block_signals();
        shared.report_begin(number);
        let ours = Arc::clone(&shared);
        // The worker lives inside: whatever ends it, its sockets are closed before anybody is told.
        let end =
            catch_unwind(AssertUnwindSafe(move || Worker::new(number, queues, ours, interface_name).run()));
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
