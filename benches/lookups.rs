//! Lookups and builds of named workloads, each by criterion: `cargo bench --bench lookups`, part of them with
//! `-- batch/labels-10k`, two versions with `-- --save-baseline before` and `-- --baseline before`.
//!
//! `labelgate bench match` is what measures all of them in one run, beside `linear` and the naive way.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use labelgate::compile::compile;
use labelgate::flow::FlowKey;
use labelgate::table::{Budgets, DecisionTable, Engines};
use labelgate::workload::measure::questions;
use labelgate::workload::traffic::{Asked, Questions};
use labelgate::workload::{Named, Workload};

const WORKLOADS: [&str; 8] = [
    "labels-1k-node",
    "labels-1k-node-v6",
    "labels-10k-node",
    "labels-100k-node",
    "acl-1k",
    "fw-10k",
    "acl-100k",
    "ipc-100k",
];
const QUESTIONS: usize = 1 << 14;
const SEED: u64 = 1;

/// Made when the first of its measures is wanted.
struct Asking {
    workload: Workload,
    table: DecisionTable,
    questions: Questions,
    keys: Vec<FlowKey>,
}

impl Asking {
    fn of(name: &str) -> Self {
        let workload = Named::find(name).expect("a named workload").workload(SEED);
        let table = build(&workload);
        let questions = questions(&workload, &table, SEED, QUESTIONS).expect("somebody to ask about");
        let longest = questions.into_iter().max_by_key(Questions::len).expect("some are asked");
        assert!(matches!(longest.asked, Asked::Hook(_)), "{name} is of one node");
        assert_eq!(longest.len(), QUESTIONS, "all of {name} are asked at one hook");
        let keys = (0..longest.len()).map(|index| longest.flows().key(index)).collect();
        let made = Self { workload, table, questions: longest, keys };
        made.check();
        made
    }

    /// One at a time and by column the answers are the same.
    fn check(&self) {
        let (mut verdicts, mut outcomes) = self.room();
        self.table.decide_batch(&self.questions.flows(), &mut verdicts, &mut outcomes).expect("columns fit");
        for (key, (verdict, outcome)) in self.keys.iter().zip(verdicts.iter().zip(&outcomes)) {
            let decision = self.table.decide(key);
            assert_eq!((decision.verdict as u8, decision.outcome.number()), (*verdict, *outcome));
        }
    }

    fn room(&self) -> (Vec<u8>, Vec<u32>) {
        (vec![0; self.keys.len()], vec![0; self.keys.len()])
    }
}

fn build(workload: &Workload) -> DecisionTable {
    let program = compile(&workload.model, workload.node.as_deref()).expect("valid policies");
    let engines = Engines::build(Arc::new(program), &Budgets::default());
    DecisionTable::new(Arc::new(engines), &workload.host)
}

fn lookups(criterion: &mut Criterion) {
    for name in WORKLOADS {
        let asking = LazyCell::new(|| Asking::of(name));
        let mut group = criterion.benchmark_group("one");
        group.throughput(Throughput::Elements(1)).bench_function(name, |bencher| {
            let mut keys = asking.keys.iter().cycle();
            bencher.iter(|| asking.table.decide(black_box(keys.next().expect("they begin again"))));
        });
        group.finish();
        let mut group = criterion.benchmark_group("batch");
        group.throughput(Throughput::Elements(QUESTIONS as u64)).bench_function(name, |bencher| {
            let (mut verdicts, mut outcomes) = asking.room();
            let flows = asking.questions.flows();
            bencher.iter(|| asking.table.decide_batch(black_box(&flows), &mut verdicts, &mut outcomes));
        });
        group.finish();
        let mut group = criterion.benchmark_group("build");
        group.sample_size(10).bench_function(name, |bencher| bencher.iter(|| build(&asking.workload)));
        group.finish();
    }
}

criterion_group!(benches, lookups);
criterion_main!(benches);
