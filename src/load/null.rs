//! The null verdict: every packet of a queue answered without looking, the least that any handler can cost.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::nfqueue::{Anomalies, Inbox, Poller, Queue, QueueOptions, Reply, Wake, block_signals};

/// A thread that answers every packet of one queue alike, with the loop of `nfqueue` and nothing else.
#[derive(Debug)]
pub struct NullHandler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    packets: AtomicU64,
    stop: AtomicBool,
    wake: Wake,
}

impl NullHandler {
    /// Binds the queue and answers from now on.
    ///
    /// # Errors
    /// `EPERM` or `EBUSY` where another process has the queue, `EPERM` without `CAP_NET_ADMIN`.
    pub fn start(number: u16, maxlen: u32, reply: Reply) -> io::Result<Self> {
        let (mut queue, _) = Queue::open(number, QueueOptions { maxlen, fail_open: false })?;
        let shared =
            Arc::new(Shared { packets: AtomicU64::new(0), stop: AtomicBool::new(false), wake: Wake::new()? });
        let ours = Arc::clone(&shared);
        let thread = thread::Builder::new().name("null-verdict".to_owned()).spawn(move || {
            block_signals();
            run(&mut queue, &ours, reply)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Packets answered so far.
    pub fn packets(&self) -> u64 {
        self.shared.packets.load(Ordering::Relaxed)
    }
}

impl Drop for NullHandler {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // Its sockets are closed in any case.
        }
    }
}

fn run(queue: &mut Queue, shared: &Shared, reply: Reply) -> io::Result<()> {
    let mut poller = Poller::new([queue.channel().as_fd(), shared.wake.as_fd()]);
    let (mut inbox, mut anomalies) = (Inbox::default(), Anomalies::default());
    while !shared.stop.load(Ordering::Acquire) {
        poller.wait(true)?;
        if poller.is_ready(0) {
            let count = queue.receive(&mut inbox, &mut anomalies)?;
            let mut packets = 0;
            queue.answer(&inbox, count, &mut anomalies, |_| {
                packets += 1;
                reply
            });
            shared.packets.fetch_add(packets, Ordering::Relaxed);
        }
    }
    Ok(())
}
