//! The whole loop with its thread, the kernel played at the other ends of socket pairs.

mod channels;
mod drops;
mod hang;
mod noted;
mod orphan;

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::counters::{self, Counters};
use super::worker::{Drain, HookQueue, Worker};
use super::{Decide, EnforcerConfig, Marks, Rates, Sample, Shared, check, queue_number, share, spawn};
use crate::flow::{
    CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, OutcomeId, Transport, Verdict, protocol,
};
use crate::nfqueue::fake_kernel::{packet, reply};
use crate::nfqueue::{Grant, Poller, Queue, ReceiveBuffer, Socket};
use crate::table::{Decision, Passing, Tally, Topic};

const A: u32 = 0x0100;
const D: u32 = 0x0400;
const R: u32 = 0x1000;
const CONFIG: EnforcerConfig =
    EnforcerConfig { marks: Marks { accept: A, decided: D, reject: 0x1000 }, ..EnforcerConfig::QUIET };

/// Long enough on a busy machine, short enough for a test that fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A table whose verdict is the destination port's: 1 deny, 2 allow, 3 allow-notrack, 4 continue; 99 panics.
/// The id of an interface is the length of its name, counted from `first_interface`.
#[derive(Default)]
pub(super) struct Table {
    asked: Mutex<Vec<FlowKey>>,
    /// Denies whatever the port.
    denies: bool,
    first_interface: u32,
}

impl Table {
    fn decide(&self, key: &FlowKey) -> Decision {
        self.asked.lock().unwrap().push(*key);
        let Transport::Ports { destination, .. } = key.tuple.transport else { panic!("no ports") };
        let verdict = match destination {
            _ if self.denies => Verdict::Deny,
            1 => Verdict::Deny,
            2 => Verdict::Allow,
            3 => Verdict::AllowNotrack,
            4 => Verdict::Continue,
            port => panic!("port {port}"),
        };
        let accepted = verdict == Verdict::AllowNotrack || key.accepted;
        Decision { verdict, failsafe: false, accepted, outcome: OutcomeId::new(usize::from(destination)) }
    }
}

impl Decide for Table {
    type Meanings = ();

    fn decide_packets(&self, keys: &[FlowKey], decisions: &mut Vec<Decision>, _: &mut Passing) {
        decisions.clear();
        decisions.extend(keys.iter().map(|key| self.decide(key)));
    }

    fn topics(&self) -> Vec<Topic> {
        (0..5).map(|id| Topic { id: OutcomeId::new(id), logs: false }).collect()
    }

    fn meanings(&self) {}

    fn policy_hash(&self, _: OutcomeId) -> u64 {
        7
    }

    fn counts_as(&self, other: &Self) -> bool {
        self.denies == other.denies
    }

    fn interface(&self, name: &str) -> InterfaceId {
        InterfaceId(self.first_interface + u32::try_from(name.len()).unwrap())
    }
}

/// UDP 192.0.2.1:1000 to 192.0.2.2, without data.
fn udp(port: u8) -> [u8; 28] {
    let mut packet =
        [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x03, 0xe8, 0, 0, 0, 8, 0, 0];
    packet[23] = port;
    packet
}

/// A running loop; the kernel's ends of its queues are in the order of `hooks`.
struct Running {
    shared: Arc<Shared<Table>>,
    hooks: Vec<Hook>,
    kernel: Vec<UnixDatagram>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(config: &EnforcerConfig, hooks: &[Hook], interfaces: &[(u32, &str)]) -> Self {
        let table = Arc::new(Table::default());
        let buffer = ReceiveBuffer { wanted: 100, granted: 60 };
        let grants = vec![Grant { buffer, segmented: true }; hooks.len()];
        let shared = Arc::new(share(config, table, named(interfaces), grants).unwrap());
        let (mut queues, mut kernel) = (Vec::new(), Vec::new());
        for &hook in hooks {
            let (socket, other) = Socket::pair();
            other.set_read_timeout(Some(PATIENCE)).unwrap();
            let number = queue_number(config, hook, Family::V4, 0);
            let queue = Queue::new(number, socket);
            queues.push(HookQueue { hook, family: Family::V4, queue, counts: queues.len() });
            kernel.push(other);
        }
        let thread = Some(spawn(Arc::clone(&shared), 0, queues).unwrap());
        Self { shared, hooks: hooks.to_vec(), kernel, thread }
    }

    /// What the loop answers to one packet at the first hook.
    fn ask(&self, mark: u32, interfaces: (u32, u32), payload: &[u8]) -> Vec<u8> {
        self.kernel[0].send(&packet(1, mark, interfaces, payload)).unwrap();
        self.answer(0)
    }

    /// As `Enforcer::swap`.
    fn swap(&self, table: Arc<Table>, interfaces: Vec<(u32, String)>) {
        let number = self.shared.swap(table, interfaces);
        assert!(self.shared.is_followed(number, PATIENCE));
    }

    fn answer(&self, place: usize) -> Vec<u8> {
        let mut bytes = [0; 4096];
        let length = self.kernel[place].recv(&mut bytes).expect("the loop answers");
        bytes[..length].to_vec()
    }

    fn counters(&self) -> Counters {
        counters::sum(
            self.shared.generation.load().number,
            self.hooks.iter().copied().zip(&self.shared.counts),
        )
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Release);
        self.shared.wake_all();
        self.join();
    }

    fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    fn is_alive(&self) -> bool {
        self.shared.alive.load(std::sync::atomic::Ordering::Acquire)
    }

    fn failure(&self) -> Option<String> {
        self.shared.progress().failure.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

fn named(interfaces: &[(u32, &str)]) -> Vec<(u32, String)> {
    interfaces.iter().map(|&(index, name)| (index, name.to_owned())).collect()
}

const fn accept() -> (u8, Option<u32>) {
    (1, None)
}
const fn drop_it() -> (u8, Option<u32>) {
    (0, None)
}
const fn repeat(mark: u32) -> (u8, Option<u32>) {
    (4, Some(mark))
}

/// The one reply to packet 1 at this hook.
fn single(hook: Hook, (verdict, mark): (u8, Option<u32>)) -> Vec<u8> {
    reply(queue_number(&CONFIG, hook, Family::V4, 0), false, verdict, 1, mark)
}

#[test]
fn the_table_is_asked_with_all_that_is_known() {
    let lo = (1, "lo");
    for hook in Hook::ALL {
        let running = Running::start(&CONFIG, &[hook], &[lo, (70_000, "eth0")]);
        running.ask(0xf000_0000 | A, (70_000, 1), &udp(4));
        let expected = FlowKey {
            tuple: FiveTuple {
                family: Family::V4,
                source: 0xc000_0201,
                destination: 0xc000_0202,
                protocol: protocol::UDP,
                transport: Transport::Ports { source: 1000, destination: 4 },
            },
            hook,
            input: InterfaceId(4),
            output: InterfaceId(2),
            accepted: true,
            ct: CtState::New,
            dnatted: hook == Hook::ManglePostrouting,
        };
        running.ask(0, (0, 0), &udp(4));
        let without =
            FlowKey { input: InterfaceId::NONE, output: InterfaceId::NONE, accepted: false, ..expected };
        let table = Arc::clone(&running.shared.generation.load().table);
        assert_eq!(*table.asked.lock().unwrap(), [expected, without], "{}", hook.name());
    }
}

#[test]
fn verdicts_are_answered_and_counted() {
    let hook = Hook::RawPrerouting;
    let running = Running::start(&CONFIG, &[hook], &[]);
    assert_eq!(running.ask(0, (0, 0), &udp(1)), single(hook, drop_it()));
    assert_eq!(running.ask(3, (0, 0), &udp(3)), single(hook, repeat(3 | D | A)));
    assert_eq!(running.ask(0, (0, 0), &udp(4)), single(hook, repeat(D)));
    assert_eq!(running.ask(0, (0, 0), &udp(4)), single(hook, repeat(D)));
    // decided already; not IPv4; of an interface that is gone
    assert_eq!(running.ask(7 | D, (0, 0), &udp(1)), single(hook, (1, Some(7))));
    assert_eq!(running.ask(0, (0, 0), &[0x60; 40]), single(hook, drop_it()));
    assert_eq!(running.ask(0, (2_000_000_000, 0), &udp(4)), single(hook, drop_it()));
    let found = serde_json::to_value(running.counters()).unwrap();
    let expected = serde_json::json!({
        "generation": 1,
        "hooks": {"raw-prerouting": {
            "packets": 7,
            "verdicts": {"deny": 1, "allow": 0, "allow-notrack": 1, "allow-skip-hep": 0, "continue": 2},
            "malformed": {
                "version": 1, "header-length": 0, "total-length": 0, "truncated": 0, "not-copied": 0,
                "extension-headers": 0,
            },
            "loop_guard": 1,
            "unknown_interface": 1,
            "notrack_refused": 0,
            "batches": 7,
            "overruns": 0,
            "netlink_errors": 0,
            "unreadable_messages": 0,
            "unsent": 0,
            "receive_buffer_wanted": 100,
            "receive_buffer_granted": 60,
            "segmented_queues": 1,
        }},
    });
    assert_eq!(found, expected);
}

#[test]
fn queues_do_not_mix() {
    let hooks = [Hook::FilterInput, Hook::RawOutput];
    let running = Running::start(&CONFIG, &hooks, &[]);
    for (kernel, hook) in running.kernel.iter().zip(hooks) {
        kernel.send(&packet(1, 0, (0, 0), &udp(if hook == hooks[0] { 2 } else { 3 }))).unwrap();
    }
    assert_eq!(running.answer(0), single(hooks[0], accept()));
    assert_eq!(running.answer(1), single(hooks[1], repeat(D | A)));
    let counters = running.counters();
    assert_eq!(counters.hooks["filter-input"].verdicts["allow"], 1);
    assert_eq!(counters.hooks["raw-output"].verdicts["allow-notrack"], 1);
}

#[test]
fn the_null_verdict_looks_at_nothing() {
    let hook = Hook::FilterForward;
    let config = EnforcerConfig { null: Some(Verdict::Allow), ..CONFIG };
    let running = Running::start(&config, &[hook], &[]);
    // denied by the table; not even IP; of an interface that is gone
    assert_eq!(running.ask(3, (0, 0), &udp(1)), single(hook, repeat(3 | D | A)));
    assert_eq!(running.ask(0, (0, 0), &[0; 4]), single(hook, repeat(D | A)));
    assert_eq!(running.ask(0, (2_000_000_000, 0), &udp(1)), single(hook, repeat(D | A)));
    assert_eq!(running.ask(D | A, (0, 0), &udp(1)), single(hook, (1, Some(A))));
    let counters = running.counters();
    assert_eq!(counters.hooks[hook.name()].verdicts["allow"], 3);
    assert_eq!(*running.shared.generation.load().table.asked.lock().unwrap(), []);
}

#[test]
fn malformed_packets_pass_where_they_shall() {
    let config = EnforcerConfig { malformed_accept: true, ..CONFIG };
    let running = Running::start(&config, &[Hook::FilterInput], &[]);
    assert_eq!(running.ask(5, (0, 0), &udp(2)[..27]), single(Hook::FilterInput, accept()));
    let counters = running.counters();
    assert_eq!(counters.hooks["filter-input"].malformed["total-length"], 1);
    // The packet is whole, and its ports are behind what was copied.
    let mut long = udp(2);
    (long[0], long[3]) = (0x4f, 80);
    let mut message = packet(1, 5, (0, 0), &long);
    message.extend([8, 0, 13, 0, 0, 0, 0, 80]); // NFQA_CAP_LEN
    let length = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&length.to_le_bytes());
    running.kernel[0].send(&message).unwrap();
    assert_eq!(running.answer(0), single(Hook::FilterInput, drop_it()));
    assert_eq!(running.counters().hooks["filter-input"].malformed["not-copied"], 1);
}

#[test]
fn hooks_without_repeat_end_the_table() {
    let hook = Hook::RawPrerouting;
    let mut config = CONFIG;
    config.without_repeat[hook as usize] = true;
    let running = Running::start(&config, &[hook], &[]);
    assert_eq!(running.ask(0, (0, 0), &udp(4)), single(hook, accept()));
    assert_eq!(running.ask(0, (0, 0), &udp(3)), single(hook, accept()));
    assert_eq!(running.counters().hooks[hook.name()].notrack_refused, 1);
    // bit D is that of somebody else: the packet is judged, and the bit cleared
    assert_eq!(running.ask(7 | D, (0, 0), &udp(1)), single(hook, drop_it()));
    assert_eq!(running.ask(7 | D, (0, 0), &udp(4)), single(hook, (1, Some(7))));
    running.shared.set_without_repeat([false; 7]);
    assert_eq!(running.ask(0, (0, 0), &udp(3)), single(hook, repeat(D | A)));
    running.shared.set_without_repeat([true; 7]);
    assert_eq!(running.ask(0, (0, 0), &udp(4)), single(hook, accept()));
}

#[test]
fn the_filter_actions_can_change() {
    let hook = Hook::FilterInput;
    let running = Running::start(&CONFIG, &[hook], &[]);
    let answers = |running: &Running| {
        [running.ask(0, (0, 0), &udp(1)), running.ask(0, (0, 0), &udp(2))] // denied, allowed
    };
    assert_eq!(answers(&running), [single(hook, drop_it()), single(hook, accept())]);
    running.shared.set_filter_actions(true, true);
    assert_eq!(answers(&running), [single(hook, repeat(D | R)), single(hook, repeat(D))]);
    running.shared.set_filter_actions(false, false);
    assert_eq!(answers(&running), [single(hook, drop_it()), single(hook, accept())]);
}

#[test]
fn a_new_table_answers_the_next_packet() {
    let hook = Hook::FilterInput;
    let running = Running::start(&CONFIG, &[hook], &[]);
    assert_eq!(running.ask(0, (0, 0), &udp(2)), single(hook, accept()));
    let strict = Arc::new(Table { denies: true, ..Table::default() });
    running.swap(Arc::clone(&strict), named(&[(9, "eth0")]));
    assert_eq!(running.ask(0, (9, 0), &udp(2)), single(hook, drop_it()));
    assert_eq!(strict.asked.lock().unwrap()[0].input, InterfaceId(4));
    assert_eq!(running.counters().generation, 2);
    assert_eq!(running.counters().hooks[hook.name()].packets, 2);
}

/// A worker that does what it is told, for raw PREROUTING and filter INPUT, and the kernel's ends of these queues.
fn idle_worker(shared: &Arc<Shared<Table>>, number: usize) -> (Worker<Socket, Table>, Vec<UnixDatagram>) {
    let hooks = [Hook::RawPrerouting, Hook::FilterInput];
    let (sockets, kernel): (Vec<_>, Vec<_>) = hooks.map(|_| Socket::pair()).into_iter().unzip();
    let queue =
        |(socket, hook)| HookQueue { hook, family: Family::V4, queue: Queue::new(1, socket), counts: 0 };
    let queues = sockets.into_iter().zip(hooks).map(queue).collect();
    (Worker::new(number, queues, Arc::clone(shared), |_| None), kernel)
}

/// Workers that answer by a table which denies what the default one allows.
fn shared_by(workers: u16) -> Arc<Shared<Table>> {
    let config = EnforcerConfig { workers, ..CONFIG };
    let strict = Arc::new(Table { denies: true, ..Table::default() });
    let shared = share(&config, strict, Vec::new(), Vec::new()).unwrap();
    Arc::new(Shared { counts: vec![counters::QueueCounts::default()], ..shared })
}

/// The verdict that was given last, if there is one.
fn verdict(kernel: &UnixDatagram) -> Option<u8> {
    let mut bytes = [0; 4096];
    kernel.set_nonblocking(true).unwrap();
    kernel.recv(&mut bytes).ok().map(|_| bytes[27])
}

/// One table denies in raw, the other one in filter: what is between the hooks at the swap is denied, too.
#[test]
fn what_has_passed_a_hook_is_judged_to_its_end_by_the_same_table() {
    let shared = shared_by(1);
    let (mut worker, kernel) = idle_worker(&shared, 0);
    let answer = |place: usize| verdict(&kernel[place]);
    for end in &kernel {
        end.send(&packet(1, 0, (0, 0), &udp(2))).unwrap();
    }
    shared.swap(Arc::default(), Vec::new());
    assert!(!shared.is_followed(2, Duration::ZERO));
    worker.follow().unwrap();
    assert!(shared.is_followed(2, Duration::ZERO));
    assert_eq!((answer(0), answer(1)), (None, Some(0)), "filter drops it by the first table");
    kernel[1].send(&packet(2, 0, (0, 0), &udp(2))).unwrap();
    for place in [0, 1] {
        worker.serve(place).unwrap();
    }
    assert_eq!(answer(1), Some(1), "accepted by the second one");
    assert!(answer(0).is_some_and(|verdict| verdict != 0));
}

/// What one worker lets go on may come to a queue of another one, which may be the first to hear of a new table.
#[test]
fn workers_take_up_a_table_together() {
    let shared = shared_by(2);
    let (mut late, _ends) = idle_worker(&shared, 0);
    let (mut first, kernel) = idle_worker(&shared, 1);
    (late.patience, first.patience) = (PATIENCE, PATIENCE);
    shared.swap(Arc::default(), Vec::new());
    let following = std::thread::spawn(move || first.follow().map(|()| first));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(shared.progress().followed, [1, 1], "the other one still answers by the table before");
    kernel[1].send(&packet(1, 0, (0, 0), &udp(2))).unwrap();
    late.follow().unwrap();
    following.join().unwrap().unwrap();
    assert!(shared.is_followed(2, Duration::ZERO));
    assert_eq!(verdict(&kernel[1]), Some(0), "dropped by the table that has let it go on");
}

#[test]
fn a_worker_that_begins_behind_a_swap_has_followed() {
    let shared = shared_by(1);
    shared.swap(Arc::default(), Vec::new());
    let _worker = idle_worker(&shared, 0);
    assert!(shared.is_followed(2, Duration::ZERO));
}

/// Others go on without one that does not come: packets wait meanwhile.
#[test]
fn a_worker_that_hangs_is_not_waited_for_long() {
    let shared = shared_by(2);
    let (mut worker, _ends) = idle_worker(&shared, 0);
    shared.swap(Arc::default(), Vec::new());
    let begun = Instant::now();
    worker.follow().unwrap();
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(shared.progress().followed, [2, 1]);
}

#[test]
fn outcomes_are_counted_over_tables() {
    let running = Running::start(&CONFIG, &[Hook::FilterInput], &[]);
    let ask = |ports: &[u8]| ports.iter().for_each(|&port| drop(running.ask(0, (0, 0), &udp(port))));
    let packets = || {
        let tables = running.shared.hits().into_iter();
        let of = |tallies: Vec<(OutcomeId, Tally)>| {
            tallies.iter().map(|(outcome, tally)| (outcome.number(), tally.packets)).collect::<Vec<_>>()
        };
        tables.map(|table| (table.generation, table.is_over, of(table.tallies))).collect::<Vec<_>>()
    };
    ask(&[1, 2, 1]);
    // The same outcomes on other interfaces.
    running.swap(Arc::new(Table { first_interface: 5, ..Table::default() }), Vec::new());
    ask(&[1]);
    assert_eq!(packets(), [(1, false, vec![(1, 3), (2, 1)])]);
    running.swap(Arc::new(Table { denies: true, ..Table::default() }), Vec::new());
    ask(&[2, 2]);
    assert_eq!(packets(), [(1, true, vec![(1, 3), (2, 1)]), (3, false, vec![(2, 2)])]);
    assert_eq!(packets(), [(3, false, vec![(2, 2)])]);
}

/// `lo` has index 1 in every namespace. What was learned of it holds for one table only.
#[test]
fn an_unlisted_interface_is_looked_up_by_name_once_per_table() {
    let hook = Hook::FilterInput;
    let running = Running::start(&CONFIG, &[hook], &[]);
    let input = |running: &Running| {
        assert_eq!(running.ask(0, (1, 0), &udp(2)), single(hook, accept()));
        running.shared.generation.load().table.asked.lock().unwrap().last().unwrap().input
    };
    assert_eq!(input(&running), InterfaceId(2));
    assert_eq!(input(&running), InterfaceId(2));
    running.swap(Arc::default(), named(&[(1, "renamed")]));
    assert_eq!(input(&running), InterfaceId(7));
    let other = Table { first_interface: 10, ..Table::default() };
    running.swap(Arc::new(other), Vec::new());
    assert_eq!(input(&running), InterfaceId(12));
}

#[test]
fn drain_waits_for_what_is_queued() {
    let running = Running::start(&CONFIG, &[Hook::FilterInput, Hook::FilterOutput], &[]);
    assert!(running.shared.drain(PATIENCE));
    for id in 1..=8 {
        running.kernel[0].send(&packet(id, 0, (0, 0), &udp(2))).unwrap();
        running.kernel[1].send(&packet(id, 0, (0, 0), &udp(2))).unwrap();
    }
    assert!(running.shared.drain(PATIENCE));
    let counters = running.counters();
    assert_eq!(counters.hooks["filter-input"].packets, 8);
    assert_eq!(counters.hooks["filter-output"].packets, 8);
}

#[test]
fn a_drain_ends_when_the_last_queue_was_empty() {
    let mut drain = Drain::default();
    assert!(!drain.ends_with(0), "nobody has asked");
    drain.take_up(1, 3);
    assert_eq!([2, 0, 0].map(|place| drain.ends_with(place)), [false; 3]);
    drain.take_up(1, 3);
    assert!(drain.ends_with(1));
    assert!(!drain.ends_with(1), "told once");
    // a newer request begins again
    drain.take_up(2, 3);
    assert!(!drain.ends_with(0));
    drain.take_up(3, 3);
    assert_eq!([1, 2, 0].map(|place| drain.ends_with(place)), [false, false, true]);
    assert_eq!(drain.ticket, 3);
}

/// Two workers with one queue each; the kernel's ends of them.
fn two_workers() -> (Arc<Shared<Table>>, [UnixDatagram; 2], [JoinHandle<()>; 2]) {
    let config = EnforcerConfig { workers: 2, ..CONFIG };
    let (table, grants) = (Arc::new(Table::default()), vec![Grant::default(); 2]);
    let shared = Arc::new(share(&config, table, Vec::new(), grants).unwrap());
    let started = [0, 1].map(|worker| {
        let (socket, kernel) = Socket::pair();
        kernel.set_read_timeout(Some(PATIENCE)).unwrap();
        let (hook, family) = (Hook::FilterInput, Family::V4);
        let number = queue_number(&config, hook, family, u16::try_from(worker).unwrap());
        let queue = HookQueue { hook, family, queue: Queue::new(number, socket), counts: worker };
        (kernel, spawn(Arc::clone(&shared), worker, vec![queue]).unwrap())
    });
    let [(first, one), (second, other)] = started;
    (shared, [first, second], [one, other])
}

#[test]
fn each_worker_answers_its_own_queues() {
    let (shared, kernel, threads) = two_workers();
    for (number, kernel) in (4206 * 2 - 4200..).zip(&kernel) {
        kernel.send(&packet(1, 0, (0, 0), &udp(2))).unwrap();
        let mut bytes = [0; 4096];
        let length = kernel.recv(&mut bytes).unwrap();
        assert_eq!(bytes[..length], reply(number, false, 1, 1, None));
    }
    assert!(shared.drain(PATIENCE));
    let hooks = [Hook::FilterInput; 2];
    assert_eq!(counters::sum(1, hooks.into_iter().zip(&shared.counts)).hooks["filter-input"].packets, 2);
    shared.stop.store(true, std::sync::atomic::Ordering::Release);
    shared.wake_all();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(shared.progress().failure, None);
}

/// Half of a hook's packets answered and half not: nobody has chosen that.
#[test]
fn when_one_worker_fails_all_end() {
    let (shared, kernel, threads) = two_workers();
    kernel[1].send(&packet(1, 0, (0, 0), &udp(99))).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!shared.alive.load(std::sync::atomic::Ordering::Acquire));
    assert_eq!(shared.progress().failure.as_deref(), Some("internal error: port 99"));
    assert!(kernel.iter().all(|kernel| kernel.send(b"x").is_err()), "the other ends are closed");
    let mut ended = Poller::new([shared.ended.as_fd()]).unwrap();
    ended.wait(false).unwrap();
    assert!(ended.is_ready(0), "told to whoever polls");
}

#[test]
fn decisions_are_sampled_as_they_were_made() {
    let hook = Hook::FilterInput;
    let running = Running::start(&EnforcerConfig { sample_every: 1, ..CONFIG }, &[hook], &[(9, "eth0")]);
    for port in [1, 2, 4, 1, 1, 2, 4] {
        running.ask(A, (9, 0), &udp(port));
    }
    let sampling = running.shared.sampling.as_ref().unwrap();
    let samples = sampling.take(10);
    let told = |sample: &Sample| (sample.generation, sample.interfaces, sample.verdict, sample.accepted);
    assert_eq!(
        [told(&samples[2]), told(&samples[5])],
        [(1, (9, 0), Verdict::Continue, true), (1, (9, 0), Verdict::Allow, true)]
    );
    assert_eq!(samples.len(), 7);
    assert_eq!(samples[2].key.tuple.transport, Transport::Ports { source: 1000, destination: 4 });
    assert_eq!(sampling.take(10), []);
}

#[test]
fn stop_ends_the_thread_and_closes_the_sockets() {
    let mut running = Running::start(&CONFIG, &[Hook::FilterInput], &[]);
    assert!(running.is_alive());
    let begin = Instant::now();
    running.stop();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(!running.is_alive());
    assert_eq!(running.failure(), None);
    assert!(running.kernel[0].send(b"x").is_err(), "the other end is closed");
    assert!(!running.shared.drain(PATIENCE), "nobody drains any more");
}

#[test]
fn a_panic_closes_the_sockets_and_is_told() {
    let mut running = Running::start(&CONFIG, &[Hook::FilterInput, Hook::FilterOutput], &[]);
    running.kernel[0].send(&packet(1, 0, (0, 0), &udp(99))).unwrap();
    running.join();
    assert!(!running.is_alive());
    assert_eq!(running.failure().as_deref(), Some("internal error: port 99"));
    assert!(running.kernel.iter().all(|kernel| kernel.send(b"x").is_err()), "the other ends are closed");
}

#[test]
fn every_place_has_its_own_queue() {
    for workers in [1, 3] {
        let config = EnforcerConfig { workers, ..CONFIG };
        let numbers = super::places()
            .flat_map(|(hook, family)| (0..workers).map(move |worker| (hook, family, worker)))
            .map(|(hook, family, worker)| queue_number(&config, hook, family, worker));
        assert_eq!(numbers.collect::<Vec<_>>(), (4200..4200 + 14 * workers).collect::<Vec<u16>>());
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let message = |config: EnforcerConfig| check(&config).map_err(|error| error.to_string());
    assert_eq!(message(CONFIG), Ok(()));
    assert_eq!(message(EnforcerConfig { base: 65_522, ..CONFIG }), Ok(()));
    assert_eq!(
        message(EnforcerConfig { base: 65_523, ..CONFIG }),
        Err("first queue number 65523 leaves no room for 14 queues".to_owned())
    );
    assert_eq!(
        message(EnforcerConfig { maxlen: 0, ..CONFIG }),
        Err("queue length 0 holds no packet".to_owned())
    );
    assert_eq!(message(EnforcerConfig { base: 65_494, workers: 3, ..CONFIG }), Ok(()));
    assert_eq!(
        message(EnforcerConfig { base: 65_495, workers: 3, ..CONFIG }),
        Err("first queue number 65495 leaves no room for 42 queues".to_owned())
    );
    for workers in [0, 65] {
        let expected = Err(format!("{workers} workers: expected 1 to 64"));
        assert_eq!(message(EnforcerConfig { workers, ..CONFIG }), expected);
    }
    let marks = Marks { accept: D, decided: A, reject: 0x1000 };
    assert_eq!(
        message(EnforcerConfig { marks, ..CONFIG }),
        Err("marks 0x400, 0x100, 0x1000 are not three rising bits".to_owned())
    );
}
