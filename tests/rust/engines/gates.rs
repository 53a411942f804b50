//! The gates of workloads: in batches as one at a time, and as `linear` has them.

use std::sync::Arc;

use labelgate::compile::compile;
use labelgate::flow::{Direction, EndpointId, Family, FiveTuple, Hook, Transport, Verdict};
use labelgate::table::{Addresses, Budgets, Column, DecisionTable, Flows, FlowsError, Gate};
use labelgate::workload::Named;
use labelgate::workload::measure::questions;
use proptest::prelude::*;

use crate::budgets::tiny;
use crate::choices::{Choices, choices};
use crate::equal::built;
use crate::packets::Aims;
use crate::programs::program;

type Answers = (Vec<u8>, Vec<u32>);

/// Asks the gates of these workloads, all at once.
fn many(table: &DecisionTable, direction: Direction, of: &[u32], tuples: &[FiveTuple]) -> Answers {
    let v4 = |address: u128| u32::try_from(address).unwrap_or(0);
    let sources: Vec<_> = tuples.iter().map(|tuple| tuple.source).collect();
    let destinations: Vec<_> = tuples.iter().map(|tuple| tuple.destination).collect();
    let [v4_sources, v4_destinations] =
        [&sources, &destinations].map(|all| all.iter().copied().map(v4).collect::<Vec<_>>());
    let [v6_sources, v6_destinations] =
        [&sources, &destinations].map(|all| all.iter().map(|one| one.to_be_bytes()).collect::<Vec<_>>());
    let addresses = match tuples[0].family {
        Family::V4 => {
            Addresses::V4 { source: Column::Each(&v4_sources), destination: Column::Each(&v4_destinations) }
        }
        Family::V6 => {
            Addresses::V6 { source: Column::Each(&v6_sources), destination: Column::Each(&v6_destinations) }
        }
    };
    let (mut protocols, mut fragments, mut ports) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for tuple in tuples {
        let (source, destination) = match tuple.transport {
            Transport::Ports { source, destination } => (source, destination),
            Transport::Icmp { kind, code } => (0, u16::from_be_bytes([kind, code])),
            Transport::Opaque => (0, 0),
        };
        protocols.push(tuple.protocol);
        let read = Transport::of(tuple.protocol, source, destination);
        fragments.push(u8::from(read != tuple.transport));
        ports[0].push(source);
        ports[1].push(destination);
    }
    let flows = Flows {
        protocol: Column::Each(&protocols),
        source_port: Column::Each(&ports[0]),
        destination_port: Column::Each(&ports[1]),
        fragment: Column::Each(&fragments),
        ..Flows::new(Hook::RawOutput, addresses)
    };
    let (mut verdicts, mut outcomes) = (vec![99; tuples.len()], vec![u32::MAX; tuples.len()]);
    let asked = table.gate_batch(direction, Column::Each(of), &flows, &mut verdicts, &mut outcomes);
    asked.expect("columns of one length");
    (verdicts, outcomes)
}

/// The budgets of a table whose batches are answered side by side.
fn deep() -> Budgets {
    let mut budgets = Budgets::default();
    (budgets.classes.direct_maps, budgets.classes.flat_maps) = (0, 0);
    budgets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_batch_of_gates_answers_as_each_and_as_linear(mut choices in choices(), seed in any::<u64>()) {
        let program = Arc::new(program(&mut choices));
        // Batches take more choices than a list has.
        let mut choices = Choices::Seeded(seed);
        let aims = Aims::at(&program);
        let linear = built(&program, &Budgets::LINEAR).table;
        for budgets in [deep(), tiny(&mut choices)] {
            let table = built(&program, &budgets).table;
            for count in [1, 31, 32, 65, 64 + 32 + 1] {
                let direction = choices.of(&[Direction::Ingress, Direction::Egress]);
                let family = choices.of(&[Family::V4, Family::V6]);
                // One later fragment, and none of the packets is answered in a block.
                let is_whole = choices.chance(75);
                let tuple = |_| {
                    let mut tuple = aims.tuple_of(&mut choices, family);
                    if is_whole {
                        let [source, destination] = [(); 2].map(|()| aims.port(&mut choices));
                        tuple.transport = Transport::of(tuple.protocol, source, destination);
                    }
                    tuple
                };
                let tuples: Vec<_> = (0..count).map(tuple).collect();
                let of: Vec<_> = (0..count)
                    .map(|_| EndpointId::new(choices.below(program.endpoints.len())).number()).collect();
                let (verdicts, outcomes) = many(&table, direction, &of, &tuples);
                for (index, tuple) in tuples.iter().enumerate() {
                    let workload = EndpointId::from_number(of[index]);
                    let gate = table.gate(workload, direction, tuple);
                    prop_assert_eq!(gate, gate_like(&linear, workload, direction, tuple, &gate));
                    let verdict = if gate.allows { Verdict::Allow } else { Verdict::Deny };
                    prop_assert_eq!((verdicts[index], outcomes[index]), (verdict as u8, gate.outcome.number()));
                }
            }
        }
    }
}

/// What `linear` says; it tells no Log rules, so those are the other table's.
fn gate_like(
    linear: &DecisionTable,
    workload: EndpointId,
    direction: Direction,
    tuple: &FiveTuple,
    other: &Gate,
) -> Gate {
    Gate { outcome: other.outcome, ..linear.gate(workload, direction, tuple) }
}

/// Of a whole cluster, whose maps have several groups of 512 classes.
#[test]
fn a_batch_of_a_cluster_answers_as_each_of_it() {
    for name in ["labels-10k-cluster", "labels-10k-cluster-v6"] {
        let workload = Named::find(name).expect("a named workload").workload(1);
        let program = Arc::new(compile(&workload.model, None).expect("valid policies"));
        let table = built(&program, &deep()).table;
        let classes = table.describe().classes;
        assert!(classes.ipv4_classes.max(classes.ipv6_classes) > 2 * 512, "{name}: {classes:?}");
        for questions in questions(&workload, &table, 1, 20_000).expect("somebody to ask about") {
            let (mut verdicts, mut outcomes) = (vec![99; questions.len()], vec![u32::MAX; questions.len()]);
            let (asked, flows) = (Column::Each(questions.workloads()), questions.flows());
            for direction in [Direction::Ingress, Direction::Egress] {
                let done = table.gate_batch(direction, asked, &flows, &mut verdicts, &mut outcomes);
                done.expect("columns of one length");
                for (index, &workload) in questions.workloads().iter().enumerate() {
                    let tuple = flows.key(index).tuple;
                    let gate = table.gate(EndpointId::from_number(workload), direction, &tuple);
                    let verdict = if gate.allows { Verdict::Allow } else { Verdict::Deny };
                    let found = (verdicts[index], outcomes[index]);
                    assert_eq!(found, (verdict as u8, gate.outcome.number()), "{direction:?} {tuple:?}");
                }
            }
        }
    }
}

#[test]
fn workloads_of_another_count_are_refused() {
    let program = Arc::new(program(&mut Choices::Seeded(1)));
    let table = built(&program, &deep()).table;
    let addresses = Addresses::V4 { source: Column::One(1), destination: Column::One(2) };
    let flows = Flows::new(Hook::FilterForward, addresses);
    let found = table.gate_batch(Direction::Ingress, Column::Each(&[2; 6]), &flows, &mut [0; 7], &mut [0; 7]);
    assert_eq!(found, Err(FlowsError::Length { column: "workload", found: 6, expected: 7 }));
}
