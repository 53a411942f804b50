//! What the loop is told when it starts, and which queues follow from it.

use std::io;

use super::events::Rates;
use super::marks::Marks;
use crate::flow::{Family, Hook, Verdict};

/// Queues of one worker: one for each hook and IP version.
pub const QUEUES: u16 = 14;
/// More could not be told apart from a mistake.
pub const MOST_WORKERS: u16 = 64;

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
    /// By hook: packets must not pass the table twice; see [`Enforcer::set_without_repeat`](super::Enforcer::set_without_repeat).
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

impl EnforcerConfig {
    /// One worker, of which nobody is told anything: what tests and measurements begin with.
    pub const QUIET: Self = Self {
        base: 4200,
        workers: 1,
        maxlen: 16384,
        marks: Marks { accept: 0x100, decided: 0x400, reject: 0x1000 },
        fail_open: [false; 7],
        malformed_accept: false,
        filter_reject: false,
        filter_return: false,
        without_repeat: [false; 7],
        null: None,
        sample_every: 0,
        event_rates: Rates { rule: 0, policy: 0 },
        recorded: 0,
    };
}

/// The queue of a hook and IP version that a worker answers; those of one hook and IP version follow each other.
pub const fn queue_number(config: &EnforcerConfig, hook: Hook, family: Family, worker: u16) -> u16 {
    config.base + (hook as u16 * 2 + family as u16) * config.workers + worker
}

/// Hooks and IP versions in the order of their queue numbers.
pub fn places() -> impl Iterator<Item = (Hook, Family)> {
    Hook::ALL.into_iter().flat_map(|hook| [(hook, Family::V4), (hook, Family::V6)])
}

/// # Errors
/// Where it cannot be, and why.
pub fn check(config: &EnforcerConfig) -> io::Result<()> {
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
