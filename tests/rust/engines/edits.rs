//! Engines made from those of the program before answer as `linear` does: whatever has changed, however often.

use std::sync::Arc;

use labelgate::flow::OutcomeId;
use labelgate::program::{
    Action, AddressSet, AddressSetId, ChainEnd, ChainId, PortMatch, Program, Reason, Rule, RuleListId,
    RuleOrigin,
};
use labelgate::table::{Budgets, Builder};
use proptest::prelude::*;

use crate::budgets::tiny;
use crate::choices::{Choices, choices};
use crate::equal::{Expected, bound, built};
use crate::packets::Aims;
use crate::programs::{PROTOCOLS, V4, V6, address_set, port_set, program};

const PACKETS: usize = 25;
const STEPS: usize = 6;

fn rules(program: &mut Program) -> impl Iterator<Item = &mut Rule> {
    Arc::make_mut(&mut program.rule_lists).iter_mut().flat_map(|list| &mut Arc::make_mut(list).rules)
}

/// One address more, or one less.
fn toggle(choices: &mut Choices, set: &mut AddressSet) {
    fn toggled<T: Copy + Ord>(ranges: &[(T, T)], address: T, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
        let mut ranges = ranges.to_vec();
        if let Some(place) = ranges.iter().position(|&(first, last)| first == address && last == address) {
            ranges.remove(place);
        } else if !ranges.iter().any(|&(first, last)| {
            first <= address && address <= last || next(address) == Some(first) || next(last) == Some(address)
        }) {
            ranges.push((address, address));
            ranges.sort_unstable();
        }
        ranges
    }
    set.v4 = toggled(&set.v4, choices.of(&V4), |address| address.checked_add(1)).into();
    set.v6 = toggled(&set.v6, choices.of(&V6), |address| address.checked_add(1));
}

/// The same program by other numbers.
fn renumber(choices: &mut Choices, program: &mut Program) {
    let last = program.address_sets.len().saturating_sub(1);
    program.address_sets.reverse();
    let outcome = RuleOrigin {
        tier: None,
        policy: Some("GlobalNetworkPolicy/other".into()),
        direction: None,
        rule: Some(0),
        action: Some(Action::Log),
        reason: Reason::RuleLog,
    };
    let first = Reason::ALL.len() + choices.below(program.outcomes.len() - Reason::ALL.len() + 1);
    Arc::make_mut(&mut program.outcomes).insert(first, Arc::new(outcome));
    let moved = |id: OutcomeId| if id.index() < first { id } else { OutcomeId::new(id.index() + 1) };
    for rule in rules(program) {
        rule.outcome = moved(rule.outcome);
        for side in [&mut rule.source, &mut rule.destination] {
            for id in side.in_sets.iter_mut().chain(&mut side.not_in_sets) {
                *id = AddressSetId::new(last - id.index());
            }
        }
    }
    for chain in Arc::make_mut(&mut program.chains) {
        for tier in &mut chain.tiers {
            tier.outcome = moved(tier.outcome);
        }
        if let ChainEnd::Unmarked(outcome) = &mut chain.end {
            *outcome = moved(*outcome);
        }
    }
}

fn change_rule(choices: &mut Choices, program: &mut Program) {
    let count = rules(program).count();
    if count == 0 {
        return;
    }
    let (index, sets) = (choices.below(count), program.address_sets.len());
    let chosen = Arc::make_mut(&mut program.rule_lists).iter_mut().scan(0, |before, list| {
        let from = *before;
        *before += list.rules.len();
        Some((from, list))
    });
    let (from, list) = chosen.filter(|(from, _)| *from <= index).last().expect("the first one begins at 0");
    let rule = &mut Arc::make_mut(list).rules[index - from];
    match choices.below(6) {
        0 => rule.protocol = choices.maybe(70, |choices| choices.of(&PROTOCOLS)),
        1 => {
            rule.action = choices.of(&[Action::Allow, Action::Deny, Action::Pass, Action::Log]);
            let old = RuleOrigin::clone(&program.outcomes[rule.outcome.index()]);
            let number = u32::try_from(program.outcomes.len()).ok();
            rule.outcome = OutcomeId::new(program.outcomes.len());
            Arc::make_mut(&mut program.outcomes).push(Arc::new(RuleOrigin {
                rule: number,
                action: Some(rule.action),
                ..old
            }));
        }
        2 if sets > 0 => {
            rule.source.in_sets = choices.list(2, |choices| AddressSetId::new(choices.below(sets))).into();
        }
        3 => rule.source.ports = Some(some_ports(choices)),
        4 => rule.destination.ports = Some(some_ports(choices)),
        _ => rule.destination.ports = None,
    }
}

fn some_ports(choices: &mut Choices) -> Arc<PortMatch> {
    let first = choices.of(&[0, 79, 80, 255, 256, 443, 8080, 65_000]);
    let last = first + choices.of(&[0, 0, 1, 20, 255, 256, 535]);
    Arc::new(PortMatch { ranges: vec![(first, last)], named: Vec::new() })
}

/// Other chains, more or fewer, in another order.
fn change_chains(choices: &mut Choices, program: &mut Program) {
    let lists = program.rule_lists.len();
    let mut chain = program.chains[choices.below(program.chains.len())].clone();
    if let Some(tier) = chain.tiers.last_mut() {
        tier.policies = choices.list(3, |choices| RuleListId::new(choices.below(lists)));
    }
    if choices.chance(50) {
        Arc::make_mut(&mut program.chains).insert(0, chain);
    } else {
        Arc::make_mut(&mut program.chains)[0] = chain;
    }
    let count = program.chains.len();
    let endpoint = choices.below(program.endpoints.len());
    Arc::make_mut(&mut Arc::make_mut(&mut program.endpoints)[endpoint]).normal.ingress =
        ChainId::new(choices.below(count));
}

pub fn changed(choices: &mut Choices, program: &mut Program) {
    let shared = |set: AddressSet| Arc::new(set);
    let (sets, ports) = (program.address_sets.len(), program.port_sets.len());
    match choices.below(12) {
        0..=3 if sets > 0 => {
            let index = choices.below(sets);
            toggle(choices, Arc::make_mut(&mut program.address_sets[index]));
        }
        4 if sets > 0 => program.address_sets[choices.below(sets)] = shared(address_set(choices)),
        5 => program.address_sets.push(shared(address_set(choices))),
        6 if ports > 0 => program.port_sets[choices.below(ports)] = Arc::new(port_set(choices)),
        7 if ports > 0 => {
            let set = Arc::make_mut(&mut program.port_sets[choices.below(ports)]);
            let left = choices.below(set.len() + 1);
            *set = set.members().take(left).collect();
        }
        8 => renumber(choices, program),
        9 => change_chains(choices, program),
        10 if choices.chance(30) => *program = self::program(choices),
        _ => change_rule(choices, program),
    }
}

/// How many programs have got their engines by an edit, and how many of those have trees.
fn check(mut choices: Choices) -> [usize; 2] {
    let mut program = program(&mut choices);
    // Small lists in trees: beside others in classes.
    let mut wooded = Budgets::default();
    (wooded.tree.wide, wooded.tree.kinds) = (3, 0);
    // Local classes in blocks, which maps may share.
    let mut flat = Budgets::default();
    flat.classes.direct_maps = 0;
    let mut builders = [Budgets::default(), flat, wooded, tiny(&mut choices)].map(Builder::new);
    let mut edits = [0; 2];
    for _ in 0..STEPS {
        let now = Arc::new(program.clone());
        let aims = Aims::at(&now);
        let linear = built(&now, &Budgets::LINEAR);
        let others = builders.each_mut().map(|builder| bound(builder.build(Arc::clone(&now))));
        for made in others.iter().map(|other| other.table.describe()) {
            edits[0] += usize::from(made.classes.edits > 0);
            edits[1] += usize::from(made.classes.edits > 0 && made.tree.tables > 0);
        }
        for _ in 0..PACKETS {
            let key = aims.key(&mut choices, &linear.table);
            let expected = Expected::of(&linear.table, key);
            for other in &others {
                expected.assert_same(other, other.table.decide(&key));
            }
        }
        for _ in 0..=choices.below(3) {
            changed(&mut choices, &mut program);
        }
    }
    edits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn edited_engines_answer_alike(choices in choices()) {
        check(choices);
    }
}

#[test]
fn edited_engines_answer_alike_to_many() {
    let counted: Vec<[usize; 2]> = (0..60).map(|seed| check(Choices::Seeded(seed))).collect();
    let [edits, of_trees] = [0, 1].map(|count| counted.iter().map(|edits| edits[count]).sum::<usize>());
    assert!(edits > 60 * 3 && of_trees > 60 / 2, "{edits} edits in place, {of_trees} with trees");
}
