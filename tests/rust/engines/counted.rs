//! What is counted of packets is what their traces say: the rules that decided, and the Log and Pass rules on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use labelgate::flow::{CtState, FiveTuple, FlowKey, Hook, OutcomeId, Transport};
use labelgate::program::{Action, Program, Reason};
use labelgate::table::{Budgets, Builder, DecisionTable, ListedRule, Passing, RuleCount, Tally};
use proptest::prelude::*;

use crate::budgets::tiny;
use crate::choices::{Choices, choices};
use crate::edits::changed;
use crate::equal::{bound, built, others};
use crate::packets::{Aims, short_pairs};
use crate::programs::{self, numeric, of_rules, plain, program};

/// Packets of a batch: two stages, a part, and some left over.
pub const PACKETS: usize = 64 + 8 + 3;

/// Policy, direction, rule, tier, action, reason.
pub type Name =
    (Option<String>, Option<&'static str>, Option<u32>, Option<String>, Option<&'static str>, &'static str);
type Counts = BTreeMap<Name, u64>;

/// With room for telling Pass rules.
fn telling(mut budgets: Budgets) -> Budgets {
    budgets.classes.passes = 1 << 20;
    budgets
}

/// All budgets that make a difference.
pub fn all_budgets(choices: &mut Choices) -> [Budgets; 6] {
    let mut scarce = Budgets::default();
    scarce.classes.passes = choices.below(2000);
    let mut trees = Budgets { classes: Budgets::LINEAR.classes, ..Budgets::default() };
    trees.tree.wide = 0;
    let mut wooded = telling(Budgets::default());
    wooded.tree.wide = 3;
    [telling(Budgets::default()), scarce, trees, wooded, telling(tiny(choices)), Budgets::LINEAR]
}

/// The packet with ports, or ICMP type and code, if its protocol has them.
fn whole(tuple: FiveTuple) -> FiveTuple {
    let transport = match tuple.transport {
        Transport::Opaque => Transport::of(tuple.protocol, 1, 80),
        transport => transport,
    };
    FiveTuple { transport, ..tuple }
}

/// Packets of one hook and IP version, most of them between the same interfaces; or new ones in FORWARD that meet one
/// chain, or one for each interface.
pub fn batch(choices: &mut Choices, aims: &Aims<'_>, table: &DecisionTable) -> Vec<FlowKey> {
    let first = aims.key(choices, table);
    let chains = choices.of(&[0, 1, 2]);
    let pairs = short_pairs(table, chains);
    let next = |_| {
        if !pairs.is_empty() {
            // A later fragment would have its block answered packet by packet.
            let tuple = whole(aims.tuple_of(choices, first.tuple.family));
            let ((input, output), hook) = (choices.of(&pairs), Hook::FilterForward);
            return FlowKey { tuple, hook, input, output, accepted: false, ct: CtState::New, dnatted: false };
        }
        let tuple = aims.tuple_of(choices, first.tuple.family);
        let other = aims.key(choices, table);
        match choices.below(20) {
            0 => FlowKey { tuple, hook: first.hook, ..other },
            _ => FlowKey { tuple, ..first },
        }
    };
    (0..PACKETS).map(next).collect()
}

/// What the packet loop counts.
fn counted(table: &DecisionTable, keys: &[FlowKey]) -> Counts {
    let (mut decisions, mut passing) = (Vec::new(), Passing::with_capacity(PACKETS));
    table.decide_packets(keys, &mut decisions, &mut passing);
    assert_eq!(decisions, keys.iter().map(|key| table.decide(key)).collect::<Vec<_>>());
    let one = Tally { packets: 1, last_hit: 1 };
    let met = decisions.iter().map(|decision| decision.outcome);
    let met = met.chain(passing.passed().iter().map(|passed| passed.outcome)).map(|outcome| (outcome, one));
    let mut counts = Counts::new();
    for row in table.meanings().counts(met) {
        *counts.entry(name_of(&row)).or_default() += row.tally.packets;
    }
    counts
}

pub fn name_of(row: &RuleCount<'_>) -> Name {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    (owned(row.policy), row.direction, row.rule, owned(row.tier), row.action, row.reason)
}

/// What traces say that is counted.
fn traced(table: &DecisionTable, keys: &[FlowKey]) -> Counts {
    let mut counts = Counts::new();
    for step in keys.iter().flat_map(|key| table.trace(key).1) {
        let origin = table.origin(&step);
        // A tier that is passed at its end is no rule.
        if origin.action != Some(Action::Pass) || origin.reason != Reason::EndOfTier {
            *counts.entry(name(table.program(), step.outcome)).or_default() += 1;
        }
    }
    counts
}

pub fn name(program: &Program, outcome: OutcomeId) -> Name {
    let origin = program.outcome(outcome);
    (
        origin.policy.as_deref().map(str::to_owned),
        origin.direction.map(labelgate::flow::Direction::name),
        origin.rule,
        origin.tier.as_deref().map(str::to_owned),
        origin.action.map(Action::name),
        origin.reason.text(),
    )
}

/// Leaves out what is said not to be counted.
fn without(counts: &Counts, rules: &[ListedRule<'_>]) -> Counts {
    let counted = counts.iter().filter(|(name, _)| !is_uncounted(name, rules));
    counted.map(|(name, count)| (name.clone(), *count)).collect()
}

/// Whether it is said not to be counted.
pub fn is_uncounted(name: &Name, rules: &[ListedRule<'_>]) -> bool {
    // In these programs numbers of rules are unique, and their origins have no direction.
    let is_it = |rule: &&ListedRule<'_>| rule.rule == name.2 && Some(rule.action) == name.4;
    rules.iter().filter(is_it).any(|rule| matches!(rule.uncounted, Some("pass" | "log")))
}

fn assert_counted(table: &DecisionTable, keys: &[FlowKey], expected: &Counts) {
    let rules = table.rules();
    let found = counted(table, keys);
    let context = || format!("{}\n{:?}", programs::shown(table.program()), table.describe());
    assert_eq!(without(&found, &rules), without(expected, &rules), "{}", context());
}

/// Of all budgets; gives how often Pass rules were counted.
fn check(mut choices: Choices) -> u64 {
    let program = Arc::new(program(&mut choices));
    let aims = Aims::at(&program);
    let linear = built(&program, &Budgets::LINEAR).table;
    let tables = all_budgets(&mut choices).map(|budgets| built(&program, &budgets).table);
    let mut passed = 0;
    for _ in 0..2 {
        let keys = batch(&mut choices, &aims, &linear);
        let expected = traced(&linear, &keys);
        for table in &tables {
            assert_counted(table, &keys, &expected);
        }
        passed +=
            expected.iter().filter(|(name, _)| name.4 == Some("Pass")).map(|(_, count)| count).sum::<u64>();
    }
    passed
}

/// Engines that are made from those before.
fn check_edited(mut choices: Choices) {
    let mut program = program(&mut choices);
    let mut builders = all_budgets(&mut choices).map(Builder::new);
    for _ in 0..3 {
        let now = Arc::new(program.clone());
        let aims = Aims::at(&now);
        let linear = built(&now, &Budgets::LINEAR).table;
        let keys = batch(&mut choices, &aims, &linear);
        let expected = traced(&linear, &keys);
        for builder in &mut builders {
            assert_counted(&bound(builder.build(Arc::clone(&now))).table, &keys, &expected);
        }
        changed(&mut choices, &mut program);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn counts_are_what_traces_say(choices in choices()) {
        check(choices);
    }

    #[test]
    fn edited_engines_count_alike(choices in choices()) {
        check_edited(choices);
    }
}

#[test]
fn counts_of_many_are_what_traces_say() {
    let passed: u64 = (0..30).map(|seed| check(Choices::Seeded(seed))).sum();
    assert!(passed > 60, "{passed} packets met Pass rules");
    (0..10).for_each(|seed| check_edited(Choices::Seeded(seed)));
}

/// Rules that all match, but the last one.
fn in_order(actions: &[Action], last: Action) -> Program {
    let mut rules: Vec<_> = actions.iter().map(|&action| plain(action)).collect();
    rules.push(plain(last));
    of_rules(rules, Vec::new(), Vec::new())
}

#[test]
fn a_tree_tells_so_many_log_rules() {
    let mut budgets = Budgets { classes: Budgets::LINEAR.classes, ..Budgets::default() };
    budgets.tree.wide = 0;
    for (logs, told) in [(16, true), (17, false)] {
        let program = Arc::new(in_order(&vec![Action::Log; logs], Action::Deny));
        let table = built(&program, &budgets).table;
        assert!(table.describe().others.iter().all(|other| other.engine == "tree"));
        let uncounted: Vec<_> = table.rules().iter().filter_map(|rule| rule.uncounted).collect();
        assert_eq!(uncounted, if told { vec![] } else { vec!["log"; logs] });
    }
}

#[test]
fn a_tier_denies_behind_a_log_rule_at_its_end() {
    let mut budgets = Budgets { classes: Budgets::LINEAR.classes, ..Budgets::default() };
    budgets.tree.wide = 0;
    assert!(
        others(in_order(&[Action::Log], Action::Log), &budgets).iter().all(|other| other.engine == "tree")
    );
}

#[test]
fn pass_rules_are_told_where_there_is_room() {
    let mut pass = plain(Action::Pass);
    pass.protocol = Some(6);
    let program = Arc::new(of_rules(vec![pass, plain(Action::Deny)], Vec::new(), Vec::new()));
    let uncounted = |passes| {
        let mut budgets = Budgets::default();
        budgets.classes.passes = passes;
        let table = built(&program, &budgets).table;
        table.rules().iter().filter_map(|rule| rule.uncounted).collect::<Vec<_>>()
    };
    assert_eq!(uncounted(1 << 10), Vec::<&str>::new());
    assert_eq!(uncounted(0), ["pass"]);
}

/// What is edited in place gives back what the tables took that it replaces.
#[test]
fn pass_rules_are_told_however_often_they_are_edited() {
    let mut budgets = Budgets::default();
    budgets.classes.passes = 400;
    let mut builder = Builder::new(budgets);
    for port in 1..12 {
        let mut pass = plain(Action::Pass);
        pass.destination.ports = Some(numeric(vec![(port, port)]));
        let program = of_rules(vec![pass, plain(Action::Deny)], Vec::new(), Vec::new());
        let table = bound(builder.build(Arc::new(program))).table;
        assert_eq!(table.describe().classes.edits, usize::from(port) - 1);
        assert!(table.rules().iter().all(|rule| rule.uncounted.is_none()), "behind {port} edits");
    }
}
