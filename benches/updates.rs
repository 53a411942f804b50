//! What an edit costs, from the change to the table that can be swapped in, beside compiling and building anew.
//!
//! `updates [WORKLOAD [EDITS]]`: of `labels-100k-node` unless another one of the label workloads is named. For each kind of
//! edit so many are made, one after the other; the last table of each kind is asked random questions and must answer as one
//! that is made anew. Times are of the processor, in milliseconds: the tenth percentile and the median.

use std::env;
use std::sync::Arc;

use cpu_time::ThreadTime;
use labelgate::compile::{Compiler, compile};
use labelgate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, protocol};
use labelgate::model::{Change, HostFacts, Model, Resource};
use labelgate::program::Program;
use labelgate::table::{Budgets, Builder, DecisionTable, Engines};
use labelgate::workload::edits::{Edit, Editor};
use labelgate::workload::{Named, Random};

fn milliseconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = ThreadTime::now();
    let done = work();
    (began.elapsed().as_secs_f64() * 1e3, done)
}

/// Tenth percentile and median.
fn of(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 10], times[times.len() / 2])
}

/// The same change to the model itself.
fn change(model: &mut Model, change: &Change) {
    let resource = match change {
        Change::Put(resource) => resource,
        Change::Remove(key) => {
            let is_other =
                |kind: &str, namespace: &str, name: &str| *key != format!("{kind}/{namespace}/{name}");
            model.workloads.retain(|pod| pod.name != *key);
            model.policies.retain(|policy| is_other(&policy.kind, &policy.namespace, &policy.name));
            return;
        }
    };
    match &**resource {
        Resource::Workload(pod) => model.workloads.push(pod.clone()),
        Resource::Policy(policy) => {
            let place = model.policies.iter_mut().find(|other| other.name == policy.name);
            place.expect("it was there").clone_from(policy);
        }
        _ => unreachable!("edits are of pods and policies"),
    }
}

/// Forwarded to an endpoint of the program, or from one, by addresses around those of its sets.
fn key(random: &mut Random, program: &Program) -> FlowKey {
    let family =
        if program.address_sets.iter().any(|set| !set.v4.is_empty()) { Family::V4 } else { Family::V6 };
    let mut address = || {
        let set = &program.address_sets[random.index(program.address_sets.len())];
        let ranges = match family {
            Family::V4 => set.v4.iter().map(|&(first, last)| (first.into(), last.into())).collect(),
            Family::V6 => set.v6.clone(),
        };
        let (first, last) = if ranges.is_empty() { (1, 1) } else { ranges[random.index(ranges.len())] };
        let near = [first, last, first.saturating_sub(1), last.saturating_add(1)];
        near[random.index(near.len())].min(if family == Family::V4 { u32::MAX.into() } else { u128::MAX })
    };
    let (source, destination) = (address(), address());
    let interface = |random: &mut Random| InterfaceId(3 + u32::try_from(random.index(200)).expect("few"));
    FlowKey {
        tuple: FiveTuple {
            family,
            source,
            destination,
            protocol: *random.pick(&[protocol::TCP, protocol::TCP, protocol::UDP]),
            transport: Transport::Ports {
                source: 40_000,
                destination: *random.pick(&[80, 443, 8080, 9090, 53]),
            },
        },
        hook: Hook::FilterForward,
        input: interface(random),
        output: interface(random),
        accepted: false,
        ct: CtState::New,
        dnatted: false,
    }
}

fn check(edited: &DecisionTable, fresh: &DecisionTable) -> usize {
    let mut random = Random::new(11);
    let keys = (0..20_000).map(|_| key(&mut random, fresh.program()));
    let answer = |table: &DecisionTable, key: &FlowKey| {
        let (decision, step) = table.decide_step(key);
        let (origin, logged) = table.meaning(decision.outcome);
        (decision.verdict, step, origin.clone(), logged.cloned().collect::<Vec<_>>())
    };
    keys.filter(|key| {
        assert_eq!(answer(edited, key), answer(fresh, key), "{key:?}");
        true
    })
    .count()
}

fn fresh(model: &Model, node: Option<&str>, host: &HostFacts) -> (f64, DecisionTable) {
    milliseconds(|| {
        let program = Arc::new(compile(model, node).expect("a valid model"));
        let engines = Engines::build(program, &Budgets::default());
        DecisionTable::new(Arc::new(engines), host)
    })
}

fn main() {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let name = arguments.first().map_or("labels-100k-node", String::as_str);
    let count = arguments.get(1).map_or(100, |count| count.parse().expect("a number of edits"));
    let workload = Named::find(name).expect("a workload of this name").workload(1);
    let (node, mut model) = (workload.node.as_deref(), workload.model.clone());
    let mut compiler = Compiler::new(workload.model.clone(), node).expect("a valid model");
    let mut builder = Builder::new(Budgets::default());
    let program = compiler.program().expect("it compiles");
    let mut table = DecisionTable::new(Arc::new(builder.build(Arc::clone(&program))), &workload.host);
    let anew = of((0..3).map(|_| fresh(&model, node, &workload.host).0).collect()).1;
    println!("{name}: {anew:.0} ms anew");
    println!(
        "| edit | compile | engines | bind | all, 10 % | median | most | anew / median | in place | checked |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut editor = Editor::new(&workload.model, &program, 2);
    for edit in Edit::ALL {
        let (mut times, mut all, mut in_place) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new(), 0);
        for _ in 0..count {
            let next = editor.edit(edit);
            change(&mut model, &next);
            let edits = table.describe().classes.edits;
            let (compiling, program) = milliseconds(|| compiler.apply([next]).expect("it compiles"));
            let (building, engines) = milliseconds(|| builder.build(program));
            let (binding, bound) = milliseconds(|| DecisionTable::new(Arc::new(engines), &workload.host));
            table = bound;
            in_place += usize::from(table.describe().classes.edits > edits);
            for (times, time) in times.iter_mut().zip([compiling, building, binding]) {
                times.push(time);
            }
            all.push(compiling + building + binding);
        }
        let checked = check(&table, &fresh(&model, node, &workload.host).1);
        let most = all.iter().copied().fold(0.0, f64::max);
        let [compiling, building, binding] = times.map(|times| of(times).1);
        let (low, median) = of(all);
        println!(
            "| {} | {compiling:.2} | {building:.2} | {binding:.2} | {low:.2} | {median:.2} | {most:.2} | {:.0} | \
             {in_place} of {count} | {checked} |",
            edit.name(),
            anew / median
        );
    }
}
