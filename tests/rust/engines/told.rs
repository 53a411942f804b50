//! What is told of each packet of a batch is what its trace says, step by step: whichever way it is decided, by one chain
//! alone, by two, or through the whole hook, in a block or by itself.

use std::sync::Arc;

use labelgate::flow::{CtState, FlowKey, OutcomeId, Transport, protocol};
use labelgate::program::{Action, Reason};
use labelgate::table::{DecisionTable, Meanings, Passing, RuleCount, Tally};
use proptest::prelude::*;

use crate::choices::{Choices, choices};
use crate::counted::{Name, PACKETS, all_budgets, batch, is_uncounted, name, name_of};
use crate::equal::built;
use crate::packets::Aims;
use crate::programs::{program, shown};

/// Numbers of steps, and what was met there.
type Told = Vec<(usize, Name)>;

/// What the packet loop is told of each packet; its decisions are those of the walk.
fn told(table: &DecisionTable, keys: &[FlowKey]) -> Vec<Told> {
    let (mut decisions, mut passing) = (Vec::new(), Passing::with_capacity(PACKETS));
    table.decide_packets(keys, &mut decisions, &mut passing);
    assert_eq!(decisions, keys.iter().map(|key| table.decide_step(key).0).collect::<Vec<_>>());
    let (meanings, mut told) = (table.meanings(), vec![(Told::new(), 0); keys.len()]);
    for passed in passing.passed() {
        let (told, chains) = &mut told[passed.packet];
        told.extend(met(&meanings, passed.step, passed.outcome));
        let action = table.meaning(passed.outcome).0.action;
        *chains += usize::from(!matches!(action, Some(Action::Log | Action::Pass)));
    }
    let told = told.into_iter().zip(decisions).map(|((mut told, chains), decision)| {
        told.extend(met(&meanings, chains, decision.outcome));
        told
    });
    told.collect()
}

/// All that an outcome tells.
fn met(meanings: &Meanings, step: usize, outcome: OutcomeId) -> Told {
    let counts = meanings.counts([(outcome, Tally { packets: 1, last_hit: 1 })]);
    // A rule may be in several tiers.
    let often = |row: &RuleCount<'_>| vec![(step, name_of(row)); row.tally.packets.try_into().expect("few")];
    counts.iter().flat_map(often).collect()
}

/// The same of its trace.
fn traced(table: &DecisionTable, key: &FlowKey) -> Told {
    let (mut told, mut number) = (Told::new(), 0);
    for step in table.trace(key).1 {
        let origin = table.origin(&step);
        let is_passed = matches!(step.action, Some(Action::Log | Action::Pass));
        // A tier that is passed at its end is no rule.
        if !is_passed || origin.reason != Reason::EndOfTier {
            told.push((number, name(table.program(), step.outcome)));
        }
        number += usize::from(!is_passed);
    }
    told
}

/// Now and then one that is no plain packet, which takes its block off the short way.
fn disturb(choices: &mut Choices, keys: &mut [FlowKey]) {
    for key in keys {
        match choices.below(200) {
            0 => key.accepted = true,
            1 => key.ct = choices.of(&CtState::ALL),
            2 => (key.tuple.protocol, key.tuple.transport) = (protocol::IPIP, Transport::Opaque),
            3 => key.tuple.transport = Transport::Opaque,
            _ => {}
        }
    }
}

fn check(mut choices: Choices) {
    let program = Arc::new(program(&mut choices));
    let aims = Aims::at(&program);
    for budgets in all_budgets(&mut choices) {
        let table = built(&program, &budgets).table;
        let rules = table.rules();
        let counted = |told: Told| {
            let mut told: Told = told.into_iter().filter(|(_, name)| !is_uncounted(name, &rules)).collect();
            told.sort();
            told
        };
        for _ in 0..2 {
            let mut keys = batch(&mut choices, &aims, &table);
            if choices.chance(50) {
                disturb(&mut choices, &mut keys);
            }
            for (key, found) in keys.iter().zip(told(&table, &keys)) {
                let expected = counted(traced(&table, key));
                assert_eq!(counted(found), expected, "{key:?}\n{}\n{:?}", shown(&program), table.describe());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_packet_is_told_as_traced(choices in choices()) {
        check(choices);
    }
}

#[test]
fn each_of_many_is_told_as_traced() {
    (0..crate::random::programs() / 5).for_each(|seed| check(Choices::Seeded(seed)));
}
