//! A cluster that is edited while it is asked: readers are never stopped, and memory is freed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use labelgate::compile::{Compiler, compile};
use labelgate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, Transport, Verdict, protocol};
use labelgate::model::{Change, Model, Resource};
use labelgate::program::Program;
use labelgate::table::{Budgets, Builder, DecisionTable, Engines};
use labelgate::workload::edits::{Edit, Editor};
use labelgate::workload::{Named, Random, Workload};

fn workload() -> Workload {
    Named::find("labels-1k-node").expect("a workload").workload(3)
}

/// An edit of one kind after the other; what has come first goes first, so that the model does not grow.
struct Edits<'m> {
    editor: Editor<'m>,
    model: &'m Model,
    made: usize,
    come: VecDeque<Change>,
}

impl<'m> Edits<'m> {
    fn new(model: &'m Model, program: &Program) -> Self {
        Self { editor: Editor::new(model, program, 5), model, made: 0, come: VecDeque::new() }
    }

    fn next(&mut self) -> Vec<Change> {
        let edit = self.editor.edit(Edit::PUT[self.made % Edit::PUT.len()]);
        self.made += 1;
        let Change::Put(resource) = &edit else { panic!("an edit puts something") };
        self.come.push_back(match &**resource {
            Resource::Workload(pod) => Change::Remove(pod.name.clone()),
            Resource::Policy(policy) => {
                let before = self.model.policies.iter().find(|other| other.name == policy.name);
                Change::Put(Box::new(Resource::Policy(before.expect("it was there").clone())))
            }
            other => panic!("an edit of {other:?}"),
        });
        let gone = if self.come.len() > 12 { self.come.pop_front() } else { None };
        gone.into_iter().chain([edit]).collect()
    }
}

fn key(random: &mut Random, program: &Program, table: &DecisionTable) -> FlowKey {
    let address = |random: &mut Random| 10 << 24 | u128::from(random.below(1 << 12));
    let endpoint = &program.endpoints[random.index(program.endpoints.len())];
    let labelgate::program::Attachment::Name(interface) = &endpoint.attachment else { panic!("on a node") };
    let (input, output) = (table.interface("eth0"), table.interface(interface));
    FlowKey {
        tuple: FiveTuple {
            family: Family::V4,
            source: address(random),
            destination: address(random),
            protocol: *random.pick(&[protocol::TCP, protocol::UDP]),
            transport: Transport::Ports {
                source: 40_000,
                destination: *random.pick(&[80, 443, 8080, 9090, 53, 5432]),
            },
        },
        hook: Hook::FilterForward,
        input,
        output,
        accepted: false,
        ct: CtState::New,
        dnatted: false,
    }
}

/// A table with questions, and what a table that is made anew answers.
struct Generation {
    number: usize,
    table: DecisionTable,
    expected: Vec<(FlowKey, Verdict, Option<String>)>,
}

fn policy(table: &DecisionTable, key: &FlowKey) -> (Verdict, Option<String>) {
    let decision = table.decide(key);
    (decision.verdict, table.meaning(decision.outcome).0.policy.as_deref().map(str::to_owned))
}

fn generation(number: usize, engines: Engines, fresh: &DecisionTable, workload: &Workload) -> Generation {
    let table = DecisionTable::new(Arc::new(engines), &workload.host);
    let mut random = Random::new(number as u64);
    let keys = (0..200).map(|_| key(&mut random, fresh.program(), fresh));
    let expected = keys.map(|key| {
        let (verdict, policy) = policy(fresh, &key);
        (key, verdict, policy)
    });
    Generation { number, expected: expected.collect(), table }
}

const READERS: usize = 2;

/// Readers ask without pause, and each answer is that of the table that they have; every one of them sees every
/// generation, so none is ever kept from asking.
#[test]
fn readers_are_never_stopped() {
    let workload = workload();
    let mut compiler = Compiler::new(workload.model.clone(), workload.node.as_deref()).expect("a model");
    let mut builder = Builder::new(Budgets::default());
    let fresh = |program: &Arc<Program>| {
        let engines = Engines::build(Arc::clone(program), &Budgets::default());
        DecisionTable::new(Arc::new(engines), &workload.host)
    };
    let program = compiler.program().expect("it compiles");
    let first = generation(0, builder.build(Arc::clone(&program)), &fresh(&program), &workload);
    let (current, is_over) = (ArcSwap::from_pointee(first), AtomicBool::new(false));
    let seen: [AtomicUsize; READERS] = Default::default();
    let mut edits = Edits::new(&workload.model, &program);
    thread::scope(|scope| {
        for seen in &seen {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let generation = current.load();
                    for (key, verdict, origin) in &generation.expected {
                        assert_eq!(policy(&generation.table, key), (*verdict, origin.clone()));
                    }
                    seen.store(generation.number, Ordering::Release);
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(300);
        for number in 1..=24 {
            let program = compiler.apply(edits.next()).expect("it compiles");
            let engines = builder.build(Arc::clone(&program));
            current.store(Arc::new(generation(number, engines, &fresh(&program), &workload)));
            while seen.iter().any(|seen| seen.load(Ordering::Acquire) < number) && Instant::now() < deadline {
                thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 24), "{seen:?}");
    assert!(current.load().table.describe().classes.edits > 10, "edits in place");
}

/// However many edits there have been, what is kept is of the size of what is compiled.
#[test]
fn memory_is_freed() {
    let workload = workload();
    let node = workload.node.as_deref();
    let mut compiler = Compiler::new(workload.model.clone(), node).expect("a model");
    let mut builder = Builder::new(Budgets::default());
    let program = compiler.program().expect("it compiles");
    let mut engines = builder.build(Arc::clone(&program));
    let mut edits = Edits::new(&workload.model, &program);
    let (mut rebuilds, mut kept) = (0, Vec::new());
    for _ in 0..6 {
        let allocated = allocation_counter::measure(|| {
            for _ in 0..60 {
                let before = engines.describe().classes.edits;
                engines = builder.build(compiler.apply(edits.next()).expect("it compiles"));
                rebuilds += usize::from(engines.describe().classes.edits < before);
            }
        });
        kept.push(allocated.bytes_current);
    }
    let mut fresh = None;
    let whole = allocation_counter::measure(|| {
        let program = Arc::new(compile(&workload.model, node).expect("it compiles"));
        fresh = Some(Engines::build(program, &Budgets::default()));
    });
    assert!(rebuilds > 0, "no fresh build in {kept:?}");
    // An image may have grown to twice its size before all is made anew, and the one before it is kept for the next.
    let most = 3 * whole.bytes_current;
    let sums = kept.iter().scan(0, |sum, more| {
        *sum += more;
        Some(*sum)
    });
    assert!(sums.clone().all(|sum| sum < most), "{kept:?} bytes more, {most} allowed");
}
