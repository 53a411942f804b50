//! What the packet loop costs beside the kernel: batches of recorded messages, read, parsed, decided and answered.
//!
//! `queue [WORKLOAD]`: of `labels-100k-node` (10,000 policies) unless another workload is named. The tenth
//! percentile and the median of all batches: one during which the processor did something else does not count. Every
//! answer is checked beforehand.

mod recorded;

use std::collections::BTreeMap;
use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use labelgate::compile::compile;
use labelgate::enforce::{EnforcerConfig, Rates, Replay};
use labelgate::flow::{FlowKey, InterfaceId, Verdict};
use labelgate::table::{Budgets, DecisionTable, Engines, Passing};
use labelgate::workload::measure::questions;
use labelgate::workload::{Named, Workload};

const PACKETS: usize = 64 * 1024;
/// As configured by default.
const RATES: Rates = Rates { rule: 10, policy: 30 };
const RECORDED: u32 = 256;
const ROUNDS: usize = 9;
const CONFIG: EnforcerConfig = EnforcerConfig::QUIET;

/// Packets of the hook and IP version that most of the questions are for.
fn keys(workload: &Workload, table: &DecisionTable) -> Vec<FlowKey> {
    let questions = questions(workload, table, 1, PACKETS).expect("there is something to ask");
    let mut by_queue: BTreeMap<_, Vec<FlowKey>> = BTreeMap::new();
    for questions in &questions {
        for index in 0..questions.len() {
            let key = questions.flows().key(index);
            by_queue.entry((key.hook, key.tuple.family)).or_default().push(key);
        }
    }
    by_queue.into_values().max_by_key(Vec::len).expect("there is something to ask")
}

/// The kernel's numbers of interfaces, and those of the table.
fn interfaces(workload: &Workload) -> Vec<(u32, String)> {
    let pods = workload.model.workloads.iter().filter(|pod| Some(&pod.node) == workload.node.as_ref());
    let names = pods.map(|pod| &pod.interface).chain(workload.host.interfaces.keys());
    (1..).zip(names.chain([&workload.uplink]).cloned()).collect()
}

/// Time of a packet in each batch of this size. The messages are in the cache, as the kernel leaves them.
fn nanoseconds(replay: &mut Replay, messages: &[Vec<u8>], size: usize) -> Vec<f64> {
    let batches = messages.chunks_exact(size);
    batches
        .map(|batch| {
            replay.load(batch);
            let began = Instant::now();
            black_box(replay.step());
            #[allow(clippy::cast_precision_loss)] // For people.
            let each = began.elapsed().as_nanos() as f64 / size as f64;
            each
        })
        .collect()
}

/// Tenth percentile and median.
fn of(times: Vec<f64>) -> String {
    format!("{:.0} {:.0}", percentile(times.clone(), 10), percentile(times, 50))
}

fn percentile(mut times: Vec<f64>, percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() * percent / 100]
}

fn check(table: &DecisionTable, keys: &[FlowKey]) {
    let (mut decisions, mut passing) = (Vec::new(), Passing::with_capacity(64));
    for keys in keys.chunks(64) {
        table.decide_packets(keys, &mut decisions, &mut passing);
        for (key, found) in keys.iter().zip(&decisions) {
            let wanted = table.decide(key);
            assert_eq!((found.verdict, found.accepted), (wanted.verdict, wanted.accepted), "{key:?}");
        }
    }
}

fn main() {
    let name = env::args().skip(1).find(|argument| argument != "--bench");
    let name = name.unwrap_or_else(|| "labels-100k-node".to_owned());
    let workload = Named::find(&name).expect("a workload of this name").workload(1);
    let program = compile(&workload.model, workload.node.as_deref()).expect("a valid model");
    let engines = Engines::build(Arc::new(program), &Budgets::default());
    let table = Arc::new(DecisionTable::new(Arc::new(engines), &workload.host));
    let keys = keys(&workload, &table);
    check(&table, &keys);
    let interfaces = interfaces(&workload);
    let numbers: BTreeMap<InterfaceId, u32> =
        interfaces.iter().map(|(number, name)| (table.interface(name), *number)).collect();
    let messages: Vec<_> = (1..)
        .zip(&keys)
        .map(|(id, key)| recorded::message(id, key, |interface| numbers[&interface]))
        .collect();
    let replay = |config: EnforcerConfig| {
        let (hook, family) = (keys[0].hook, keys[0].tuple.family);
        Replay::new(&config, Arc::clone(&table), interfaces.clone(), hook, family).expect("it can be")
    };
    let mut null = replay(EnforcerConfig { null: Some(Verdict::Deny), ..CONFIG });
    let mut whole = replay(CONFIG);
    println!("{name}: {} packets at {}", keys.len(), keys[0].hook.name());
    for size in [64, 32, 16, 8, 4] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            times[0].extend(nanoseconds(&mut null, &messages, size));
            times[1].extend(nanoseconds(&mut whole, &messages, size));
        }
        let [null, whole] = times.map(of);
        println!("batches of {size:2}: null verdict {null} ns a packet, parsed and decided {whole} ns");
    }
    events(&table, &keys, &messages, replay);
}

/// Denied packets, with counters, events and the flight recorder beside none of them.
fn events(
    table: &DecisionTable,
    keys: &[FlowKey],
    messages: &[Vec<u8>],
    replay: impl Fn(EnforcerConfig) -> Replay,
) {
    let is_denied = |key: &FlowKey| table.decide(key).verdict == Verdict::Deny;
    let denied = keys.iter().zip(messages).filter(|(key, _)| is_denied(key));
    let denied: Vec<_> = denied.map(|(_, message)| message.clone()).collect();
    let rates = EnforcerConfig { event_rates: RATES, ..CONFIG };
    let mut cases = [
        ("nothing", replay(CONFIG).without_counting()),
        ("counters", replay(CONFIG)),
        ("and events", replay(rates)),
        ("and recorder", replay(EnforcerConfig { recorded: RECORDED, ..rates })),
    ];
    println!("{} denied packets; nanoseconds a packet beside nothing", denied.len());
    for size in [64, 16, 4] {
        let mut more = [const { Vec::new() }; 4];
        for _ in 0..5 * ROUNDS {
            let times =
                cases.each_mut().map(|(_, replay)| percentile(nanoseconds(replay, &denied, size), 10));
            for (more, time) in more.iter_mut().zip(times) {
                more.push(time - times[0]);
            }
            for (_, replay) in &cases {
                replay.take_events();
            }
        }
        for ((name, _), mut more) in cases.iter().zip(more).skip(1) {
            more.sort_by(f64::total_cmp);
            let [low, median, high] = [1, 2, 3].map(|quarter| more[more.len() * quarter / 4]);
            println!("batches of {size:2}, {name}: {median:+.1} ({low:+.1} to {high:+.1})");
        }
    }
}
