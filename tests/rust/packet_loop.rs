//! The packet loop on recorded messages: batches are answered as their packets would be one by one, and nothing is
//! allocated.

#[path = "../../benches/queue/recorded.rs"]
mod recorded;

use std::collections::BTreeMap;
use std::sync::Arc;

use allocation_counter::measure;
use labelgate::compile::compile;
use labelgate::enforce::{EnforcerConfig, Rates, Replay};
use labelgate::flow::{Family, FlowKey, Hook, InterfaceId};
use labelgate::table::{Budgets, DecisionTable, Engines, Passing};
use labelgate::workload::measure::questions;
use labelgate::workload::{Named, Workload};

const CONFIG: EnforcerConfig = EnforcerConfig {
    sample_every: 3,
    event_rates: Rates { rule: 10, policy: 20 },
    recorded: 50,
    ..EnforcerConfig::QUIET
};
const COUNT: usize = 1000;

struct World {
    table: Arc<DecisionTable>,
    interfaces: Vec<(u32, String)>,
    /// By hook and IP version: a queue has packets of one only.
    keys: BTreeMap<(Hook, Family), Vec<FlowKey>>,
}

/// Questions of the workload at its hook, and the same at every other hook.
fn world(name: &str, budgets: &Budgets) -> World {
    let workload = Named::find(name).expect("a workload of this name").workload(5);
    let program = compile(&workload.model, workload.node.as_deref()).expect("a valid model");
    let table =
        Arc::new(DecisionTable::new(Arc::new(Engines::build(Arc::new(program), budgets)), &workload.host));
    let mut keys: BTreeMap<_, Vec<FlowKey>> = BTreeMap::new();
    for questions in questions(&workload, &table, 5, COUNT).expect("there is something to ask") {
        for index in 0..questions.len() {
            let asked = questions.flows().key(index);
            for hook in Hook::ALL {
                let dnatted = hook == Hook::ManglePostrouting;
                // Bit A on arrival now and then: such packets break the blocks of the others.
                let key = FlowKey { hook, dnatted, accepted: index % 97 == 0, ..asked };
                keys.entry((hook, key.tuple.family)).or_default().push(key);
            }
        }
    }
    World { interfaces: interfaces(&workload), table, keys }
}

fn interfaces(workload: &Workload) -> Vec<(u32, String)> {
    let pods = workload.model.workloads.iter().filter(|pod| Some(&pod.node) == workload.node.as_ref());
    let names = pods.map(|pod| &pod.interface).chain(workload.host.interfaces.keys());
    (1..).zip(names.chain([&workload.uplink]).cloned()).collect()
}

fn worlds() -> impl Iterator<Item = (String, World)> {
    let tree = Budgets { classes: Budgets::LINEAR.classes, ..Budgets::default() };
    let linear = Budgets::LINEAR;
    [
        ("labels-1k-node", Budgets::default()),
        ("labels-1k-node-v6", Budgets::default()),
        ("acl-1k", Budgets::default()),
        ("labels-1k-node", tree),
        ("labels-1k-node", linear),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, (name, budgets))| (format!("{name}, budgets {number}"), world(name, &budgets)))
}

fn messages(world: &World, keys: &[FlowKey]) -> Vec<Vec<u8>> {
    let numbers: BTreeMap<InterfaceId, u32> =
        world.interfaces.iter().map(|(number, name)| (world.table.interface(name), *number)).collect();
    (1..).zip(keys).map(|(id, key)| recorded::message(id, key, |interface| numbers[&interface])).collect()
}

fn replay(world: &World, (hook, family): (Hook, Family)) -> Replay {
    Replay::new(&CONFIG, Arc::clone(&world.table), world.interfaces.clone(), hook, family).expect("it can be")
}

/// The reply to each packet, by id: batch verdicts answer all before them that have none.
fn replies(sent: &[u8], first: u32) -> Vec<Vec<u8>> {
    let (mut replies, mut rest, mut next) = (BTreeMap::new(), sent, first);
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(*rest.first_chunk().expect("a length")) as usize;
        let (message, behind) = rest.split_at(length);
        let reply = [&message[24..28], message.get(36..40).unwrap_or_default()].concat();
        let last = u32::from_be_bytes(*message[28..].first_chunk().expect("an id"));
        let is_batch = message[4] == 3;
        for id in if is_batch { next } else { last }..=last {
            let already = replies.entry(id).or_insert_with(|| reply.clone());
            assert!(is_batch || *already == reply, "{id} has its reply already");
        }
        next = if is_batch { last + 1 } else { next };
        rest = behind;
    }
    assert!(replies.keys().copied().eq((first..).take(replies.len())), "none is left out");
    replies.into_values().collect()
}

#[test]
fn a_batch_is_decided_as_its_packets_are() {
    let mut verdicts = BTreeMap::new();
    for (name, world) in worlds() {
        for (place, keys) in &world.keys {
            let (mut decisions, mut passing) = (Vec::new(), Passing::with_capacity(64));
            // Whole stages, parts of them, and what is left over.
            for size in [64, 33, 8, 7, 1] {
                for batch in keys.chunks(size) {
                    world.table.decide_packets(batch, &mut decisions, &mut passing);
                    let wanted = batch.iter().map(|key| world.table.decide(key));
                    assert_eq!(decisions, wanted.collect::<Vec<_>>(), "{name}, {place:?}, {size}");
                    for decision in &decisions {
                        *verdicts.entry(decision.verdict.name()).or_insert(0) += 1;
                    }
                }
            }
        }
    }
    assert!(verdicts["deny"] > 100 && verdicts["allow"] > 100 && verdicts["continue"] > 100, "{verdicts:?}");
}

#[test]
fn batches_are_answered_as_single_packets_are() {
    for (name, world) in worlds() {
        for (place, keys) in &world.keys {
            let (mut together, mut single) = (replay(&world, *place), replay(&world, *place));
            for (number, batch) in messages(&world, keys).chunks(64).enumerate() {
                let first = u32::try_from(number * 64 + 1).expect("few");
                together.load(batch);
                let found = replies(together.step(), first);
                let wanted: Vec<_> = (first..)
                    .zip(batch)
                    .flat_map(|(id, message)| {
                        single.load(std::slice::from_ref(message));
                        replies(single.step(), id)
                    })
                    .collect();
                assert_eq!(found, wanted, "{name}, {place:?}, batch {number}");
            }
            let (mut found, mut wanted) = (together.counters(), single.counters());
            for hook in found.hooks.values_mut().chain(wanted.hooks.values_mut()) {
                hook.batches = 0;
            }
            assert_eq!(found, wanted, "{name}, {place:?}");
        }
    }
}

/// Samples are taken all the while, until there is no more room for them.
#[test]
fn answering_packets_allocates_nothing() {
    for (name, world) in worlds() {
        for (place, keys) in &world.keys {
            let mut replay = replay(&world, *place);
            let mut messages = messages(&world, keys);
            messages[10].truncate(40); // cannot be read
            messages[20].truncate(60); // nor can this one
            replay.load(&messages[..1]);
            replay.step(); // A thread's first look at the table in force sets up its place among the readers.
            let counted = measure(|| {
                for batch in messages.chunks(64) {
                    replay.load(batch);
                    assert!(!replay.step().is_empty());
                }
            });
            assert_eq!(counted.count_total, 0, "{name}, {place:?}");
        }
    }
}
