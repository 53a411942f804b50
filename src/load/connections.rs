//! Many short connections, one after the other on each of several threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is done.
#[derive(Clone, Debug)]
pub struct ConnectionPlan {
    /// Servers, taken in turn: more of them have room for more connections that were closed a moment ago.
    pub targets: Vec<SocketAddr>,
    /// Connections at a time.
    pub threads: usize,
    /// Connections in all, at most.
    pub most: u64,
    /// No connection begins after this.
    pub time: Duration,
    /// A connection that has brought no answer by then is lost.
    pub patience: Duration,
    /// Sent on each; empty: the server speaks first.
    pub request: Vec<u8>,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// Of each that was answered: from the first packet to the first bytes of the answer, in nanoseconds.
    pub nanoseconds: Vec<u64>,
    /// How many were not.
    pub lost: u64,
}

/// Makes connections from the calling thread's namespace: connect, ask, read the beginning of the answer, close.
pub fn connect_many(plan: &ConnectionPlan) -> Connections {
    let begun = AtomicU64::new(0);
    let end = Instant::now() + plan.time;
    let work = || {
        let mut found = Connections::default();
        while Instant::now() < end {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            if number >= plan.most {
                break;
            }
            match connect_one(plan, number) {
                Some(took) => found.nanoseconds.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
                None => found.lost += 1,
            }
        }
        found
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().fold(Connections::default(), |mut all, thread| {
            let one = thread.join().expect("nothing in the loop panics");
            all.nanoseconds.extend(one.nanoseconds);
            all.lost += one.lost;
            all
        })
    })
}

fn connect_one(plan: &ConnectionPlan, number: u64) -> Option<Duration> {
    let count = u64::try_from(plan.targets.len()).ok()?;
    let target = plan.targets.get(usize::try_from(number.checked_rem(count)?).ok()?)?;
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(target, plan.patience).ok()?;
    stream.set_read_timeout(Some(plan.patience)).ok()?;
    if !plan.request.is_empty() {
        stream.write_all(&plan.request).ok()?;
    }
    let length = stream.read(&mut [0; 64]).ok()?;
    (length > 0).then(|| start.elapsed())
}
