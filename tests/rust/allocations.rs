//! Answering a packet allocates nothing; nor does noting what it passed.

// What this file does not use, and models as `json!` literals, which are handed on.
#[allow(dead_code, clippy::needless_pass_by_value)]
#[path = "compile/models.rs"]
mod models;

use std::hint::black_box;
use std::sync::Arc;

use allocation_counter::measure;
use labelgate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, protocol};
use labelgate::model::HostFacts;
use labelgate::program::Action;
use labelgate::table::{Budgets, DecisionTable, Engines, Passing};
use serde_json::json;

fn table(example: u32, budgets: &Budgets) -> DecisionTable {
    let host: HostFacts = serde_json::from_value(json!({
        "interfaces": {"eth0": ["198.51.100.10"], "eth1": ["10.9.0.10"]}, "workload_prefixes": ["cali"],
    }))
    .expect("host facts");
    let program = Arc::new(models::program(models::worked_example(example)));
    DecisionTable::new(Arc::new(Engines::build(program, budgets)), &host)
}

/// Packets of every kind between all places, in every state, at every hook.
fn keys(table: &DecisionTable) -> Vec<FlowKey> {
    let mut places = vec![InterfaceId::NONE];
    places.extend(["lo", "eth0", "eth1", "cali111", "cali999"].map(|name| table.interface(name)));
    let (tuples, mut keys) = (tuples(), Vec::new());
    for hook in Hook::ALL {
        for &input in &places {
            for &output in &places {
                for ct in CtState::ALL {
                    for accepted in [false, true] {
                        let dnatted = hook == Hook::ManglePostrouting;
                        let key = |&tuple| FlowKey { tuple, hook, input, output, accepted, ct, dnatted };
                        keys.extend(tuples.iter().map(key));
                    }
                }
            }
        }
    }
    keys
}

fn tuples() -> Vec<FiveTuple> {
    let addresses = [0xcb00_7107, 0x0a09_4204, 0x0a41_0002, 0xc633_640a];
    let tcp = [22, 443, 445, 5432, 9100, 30443, 30999]
        .map(|destination| (protocol::TCP, Transport::Ports { source: 40000, destination }));
    let others = [
        (protocol::UDP, Transport::Ports { source: 53, destination: 53 }),
        (protocol::UDP, Transport::Ports { source: 5353, destination: 4789 }),
        (protocol::ICMP, Transport::Icmp { kind: 8, code: 0 }),
        (protocol::IPIP, Transport::Opaque),
    ];
    let mut tuples = Vec::new();
    for source in addresses {
        for destination in addresses {
            let tuple = |(protocol, transport)| FiveTuple {
                family: Family::V4,
                source,
                destination,
                protocol,
                transport,
            };
            tuples.extend(tcp.into_iter().chain(others).map(tuple));
        }
    }
    tuples
}

#[test]
fn a_decision_allocates_nothing() {
    let tree = Budgets { classes: Budgets::LINEAR.classes, ..Budgets::default() };
    for (engine, budgets) in [("classes", Budgets::default()), ("tree", tree), ("linear", Budgets::LINEAR)] {
        for example in 1..=5 {
            let table = table(example, &budgets);
            let keys = keys(&table);
            let counted = measure(|| {
                for key in &keys {
                    black_box(table.decide(key));
                }
            });
            assert_eq!(counted.count_total, 0, "{engine}, worked example {example}");
        }
    }
}

/// What a packet passed is what its trace says, but for the step that decides, and Pass and Log rules.
#[test]
fn chains_that_let_a_packet_through_are_noted() {
    let mut count = 0;
    for example in 1..=5 {
        let table = table(example, &Budgets::default());
        let keys = keys(&table);
        let (mut decisions, mut passing) = (Vec::with_capacity(64), Passing::with_capacity(64));
        for batch in keys.chunk_by(|one, next| one.hook == next.hook).flat_map(|keys| keys.chunks(64)) {
            let allocated = measure(|| table.decide_packets(batch, &mut decisions, &mut passing));
            assert_eq!(allocated.count_total, 0, "worked example {example}");
            let mut expected = Vec::new();
            for (place, key) in batch.iter().enumerate() {
                let mut steps = table.trace(key).1;
                steps.pop();
                steps.retain(|step| !matches!(step.action, Some(Action::Pass | Action::Log)));
                expected.extend(steps.iter().map(|step| (place, table.origin(step))));
            }
            let found = passing.passed().iter();
            let found: Vec<_> = found.map(|one| (one.packet, table.meaning(one.outcome).0)).collect();
            assert_eq!(found, expected, "worked example {example}");
            count += found.len();
        }
    }
    assert!(count > 100, "{count}");
}
