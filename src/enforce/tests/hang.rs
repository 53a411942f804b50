//! Workers that come round their loop, and one that does not any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{CONFIG, PATIENCE, Running, packet, udp};
use crate::enforce::counters::Turns;
use crate::flow::Hook;

fn wait_until(condition: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > PATIENCE {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn turns(running: &Running) -> u64 {
    running.shared.turns.iter().map(Turns::get).sum()
}

#[test]
fn an_idle_worker_comes_round_its_loop() {
    let running = Running::start(&CONFIG, &[Hook::FilterInput], &[]);
    // One turn is that of the start: behind it nothing ever comes.
    assert!(wait_until(|| turns(&running) > 1));
}

#[test]
fn a_worker_that_hangs_is_seen_and_not_waited_for() {
    let mut running = Running::start(&CONFIG, &[Hook::FilterInput], &[]);
    let shared = Arc::clone(&running.shared);
    let table = Arc::clone(&shared.generation.load().table);
    let held = table.asked.lock().unwrap();
    running.kernel[0].send(&packet(1, 0, (0, 0), &udp(2))).unwrap();
    // From then on it waits for the lock that is held here.
    assert!(wait_until(|| running.counters().hooks["filter-input"].batches == 1));
    let before = turns(&running);
    shared.stop.store(true, Ordering::Release);
    shared.wake_all();
    assert!(!shared.have_ended(1, Duration::from_millis(10)));
    assert_eq!(turns(&running), before);
    drop(held);
    assert!(shared.have_ended(1, PATIENCE));
    running.join();
}
