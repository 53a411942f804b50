//! The packet loop: one thread answers all hooks' queues from the table in force.
//!
//! ```text
//!  Enforcer (any thread)                      packet thread
//!  start: 14 queues bound, then the thread    poll: queues, wake-up
//!  swap:  new Generation  ==== arc-swap ===>  batch in --wire--> FiveTuple --table--> Decision
//!  counters, drain, stop                      Decision --marks--> Reply, batched out
//! ```
//!
//! Per packet nothing is allocated, locked or logged. Each (hook, IP version) has a queue and a socket of its own: a
//! flood on one overruns no other. Whatever ends the thread closes all sockets, and the kernel then drops what its
//! rules queue (rules with `--queue-bypass` accept it): fail closed.

mod counters;
mod marks;
#[cfg(test)]
mod tests;
mod worker;

use std::any::Any;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;

use crate::flow::{Family, FlowKey, Hook, InterfaceId};
use crate::nfqueue::{
    Channel, Inbox, Queue, QueueOptions, ReceiveBuffer, Wake, block_signals, interface_name,
};
use crate::table::{Decision, DecisionTable};

pub use counters::{Counters, HookCounters};
pub use marks::{Marks, Protocol};

use counters::QueueCounts;
use worker::{HookQueue, Learned, Worker};

/// Queues of one enforcer: one for each hook and IP version.
pub const QUEUES: u16 = 14;

/// How packets are taken and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnforcerConfig {
    /// The first of [`QUEUES`] queue numbers; see [`queue_number`].
    pub base: u16,
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
}

/// The queue of a hook and IP version.
pub const fn queue_number(base: u16, hook: Hook, family: Family) -> u16 {
    base + hook as u16 * 2 + family as u16
}

/// What the loop asks of a table.
trait Decide: Send + Sync + 'static {
    fn decide(&self, key: &FlowKey) -> Decision;
    fn interface(&self, name: &str) -> InterfaceId;
}

impl Decide for DecisionTable {
    fn decide(&self, key: &FlowKey) -> Decision {
        self.decide(key)
    }

    fn interface(&self, name: &str) -> InterfaceId {
        self.interface(name)
    }
}

/// One table and the interfaces of the host as they were when it came into force.
struct Generation<D> {
    number: u64,
    table: Arc<D>,
    interfaces: FxHashMap<u32, InterfaceId>,
}

impl<D: Decide> Generation<D> {
    fn new(number: u64, table: Arc<D>, interfaces: Vec<(u32, String)>) -> Self {
        let id = |(index, name): (u32, String)| (index, table.interface(&name));
        let interfaces = interfaces.into_iter().map(id).collect();
        Self { number, table, interfaces }
    }
}

/// What the packet thread and the others have in common.
struct Shared<D> {
    marks: Marks,
    filter_reject: AtomicBool,
    filter_return: AtomicBool,
    malformed_accept: bool,
    generation: ArcSwap<Generation<D>>,
    /// Number of the generation made last.
    latest: AtomicU64,
    /// In the order of the queues.
    counts: Vec<QueueCounts>,
    /// One bit for each hook.
    without_repeat: AtomicU64,
    wake: Wake,
    stop: AtomicBool,
    alive: AtomicBool,
    /// Number of the latest drain asked for.
    drain_wanted: AtomicU64,
    progress: Mutex<Progress>,
    progressed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    /// Number of the latest drain done.
    drained: u64,
    /// Why the thread ended by itself.
    failure: Option<String>,
}

impl<D: Decide> Shared<D> {
    /// Two callers at once get two numbers; the later table wins.
    fn swap(&self, table: Arc<D>, interfaces: Vec<(u32, String)>) {
        let number = self.latest.fetch_add(1, Ordering::Relaxed) + 1;
        self.generation.store(Arc::new(Generation::new(number, table, interfaces)));
    }
}

impl<D> Shared<D> {
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

    fn report_drained(&self, ticket: u64) {
        self.progress().drained = ticket;
        self.progressed.notify_all();
    }

    fn drain(&self, timeout: Duration) -> bool {
        let progress = self.progress();
        let ticket = self.drain_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.wake();
        let waits = |progress: &mut Progress| progress.drained < ticket && self.alive.load(Ordering::Acquire);
        let waited = self.progressed.wait_timeout_while(progress, timeout, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.drained >= ticket
    }

    fn report_end(&self, failure: Option<String>) {
        let mut progress = self.progress();
        progress.failure = failure;
        self.alive.store(false, Ordering::Release);
        self.progressed.notify_all();
    }
}

/// The running packet loop. Dropping it stops it.
pub struct Enforcer {
    shared: Arc<Shared<DecisionTable>>,
    thread: Mutex<Option<JoinHandle<()>>>,
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
        let mut buffers = Vec::new();
        let mut queues = Vec::new();
        for (hook, family) in places() {
            let number = queue_number(config.base, hook, family);
            let options = QueueOptions { maxlen: config.maxlen, fail_open: config.fail_open[hook as usize] };
            let (queue, buffer) =
                Queue::open(number, options).map_err(|error| cannot_bind(number, &error))?;
            queues.push(HookQueue { hook, family, queue });
            buffers.push(buffer);
        }
        let shared = Arc::new(share(&config, Generation::new(1, table, interfaces), buffers)?);
        let thread = spawn(Arc::clone(&shared), queues)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Puts a new table in force: batches that are received from now on are answered by it.
    pub fn swap(&self, table: Arc<DecisionTable>, interfaces: Vec<(u32, String)>) {
        self.shared.swap(table, interfaces);
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

    /// The counters now.
    pub fn counters(&self) -> Counters {
        let hooks = places().map(|(hook, _)| hook);
        counters::sum(self.shared.generation.load().number, hooks.zip(&self.shared.counts))
    }

    /// Waits until every packet that is queued now has been answered; false if that took too long or the loop has
    /// ended.
    pub fn drain(&self, timeout: Duration) -> bool {
        self.shared.drain(timeout)
    }

    /// Ends the loop and closes the queues. Packets that still wait are dropped by the kernel. A second call does
    /// nothing.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
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
    if config.base > u16::MAX - (QUEUES - 1) {
        return wrong(format!("first queue number {} leaves no room for {QUEUES} queues", config.base));
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

fn share<D>(
    config: &EnforcerConfig,
    generation: Generation<D>,
    buffers: Vec<ReceiveBuffer>,
) -> io::Result<Shared<D>> {
    let shared = Shared {
        marks: config.marks,
        filter_reject: AtomicBool::new(config.filter_reject),
        filter_return: AtomicBool::new(config.filter_return),
        malformed_accept: config.malformed_accept,
        latest: AtomicU64::new(generation.number),
        generation: ArcSwap::from_pointee(generation),
        counts: buffers.into_iter().map(QueueCounts::new).collect(),
        without_repeat: AtomicU64::new(0),
        wake: Wake::new()?,
        stop: AtomicBool::new(false),
        alive: AtomicBool::new(true),
        drain_wanted: AtomicU64::new(0),
        progress: Mutex::default(),
        progressed: Condvar::new(),
    };
    shared.set_without_repeat(config.without_repeat);
    Ok(shared)
}

fn spawn<C, D>(shared: Arc<Shared<D>>, queues: Vec<HookQueue<C>>) -> io::Result<JoinHandle<()>>
where
    C: Channel + AsFd + Send + 'static,
    D: Decide,
{
    thread::Builder::new().name("labelgate-queues".to_owned()).spawn(move || {
        block_signals();
        let ours = Arc::clone(&shared);
        // The worker lives inside: whatever ends it, its sockets are closed before anybody is told.
        let end = catch_unwind(AssertUnwindSafe(move || {
            let (inbox, learned) = (Inbox::default(), Learned::default());
            Worker { queues, shared: ours, interface_name, inbox, learned }.run()
        }));
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
