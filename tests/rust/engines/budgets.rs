//! Budgets that are too small: every guard speaks, and what it refuses is answered all the same.

use labelgate::flow::{Family, protocol};
use labelgate::program::{Action, AddressSet, AddressSetId, PortSet, Program, Rule};
use labelgate::table::Budgets;

use crate::choices::Choices;
use crate::equal::others;
use crate::programs::{named, numeric, of_rules, plain};

/// One of the budgets is next to nothing; then a chain has its answers from the tree, or from `linear`.
pub fn tiny(choices: &mut Choices) -> Budgets {
    let mut budgets = ample(choices);
    let (classes, tree) = (&mut budgets.classes, &mut budgets.tree);
    match choices.below(7) {
        0 => classes.clauses = choices.below(8),
        1 => classes.cells = choices.below(100),
        2 => classes.bytes = choices.below(1 << 16) * 8,
        3 => classes.classes = choices.below(12),
        4 => classes.steps = choices.below(1 << 14),
        5 => (tree.wide, tree.kinds) = (choices.below(4), choices.below(3)),
        _ => classes.clauses = 0,
    }
    match choices.below(5) {
        0 | 1 => {}
        2 => tree.cuboids = choices.below(40),
        3 => tree.steps = choices.below(200),
        _ => tree.bytes_per_cuboid = 0,
    }
    budgets
}

/// Maps of classes hold local classes, lead to blocks of those, or to groups of blocks.
fn maps(choices: &mut Choices, budgets: &mut Budgets) {
    if choices.chance(60) {
        budgets.classes.direct_maps = 0;
        if choices.chance(50) {
            budgets.classes.flat_maps = choices.below(1 << 10);
        }
    }
}

/// All that is needed, with maps of any kind, and trees that say services, nets or ranges.
pub fn ample(choices: &mut Choices) -> Budgets {
    let mut budgets = Budgets::default();
    maps(choices, &mut budgets);
    match choices.below(3) {
        0 => {}
        1 => budgets.tree.nets = 0,
        // What tells services apart is larger than the trees of these programs may be.
        _ => (budgets.tree.nets, budgets.tree.services, budgets.tree.bytes_per_cuboid) = (0, 0, 1 << 20),
    }
    budgets
}

/// Rules on five sets that overlap.
fn on_sets(count: u16) -> Vec<Rule> {
    let rule = |number: u16| {
        let mut rule =
            plain([Action::Allow, Action::Log, Action::Deny, Action::Pass][usize::from(number % 4)]);
        rule.source.in_sets = vec![AddressSetId::new(usize::from(number % 5))].into();
        rule
    };
    (0..count).map(rule).collect()
}

fn of_sets(rules: Vec<Rule>) -> Program {
    let set = |number: u32| {
        let first = number << 8;
        AddressSet { v4: vec![(first, first + 300)].into(), v6: vec![(number.into(), 99)] }
    };
    of_rules(rules, (0..5).map(set).collect(), Vec::new())
}

/// A dozen of rules on sets and ports.
fn dozen() -> Program {
    let mut rules = on_sets(12);
    for (number, rule) in (0..).zip(&mut rules) {
        let side = if number % 2 == 0 { &mut rule.source } else { &mut rule.destination };
        side.ports = Some(numeric(vec![(number, 2 * number)]));
    }
    of_sets(rules)
}

/// A program, a budget that is too small for it, and what is said of it.
type Guard<'a> = (&'a dyn Fn() -> Program, fn(&mut Budgets), &'a str);

#[test]
fn every_guard_of_classes_speaks() {
    let sets = || of_sets(on_sets(5));
    let guards: [Guard<'_>; 7] = [
        (&dozen, |budgets| budgets.classes.clauses = 11, "12 clauses, above the budget of 11"),
        (&dozen, |budgets| budgets.classes.classes = 5, "more classes of services than 5 in all chains"),
        (&dozen, |budgets| budgets.classes.cells = 20, "cells, above the budget of 20"),
        (&dozen, |budgets| budgets.classes.bytes = 4096, "bytes of tables, above the budget of 4096"),
        (&dozen, |budgets| budgets.classes.bytes = 1 << 18, "bytes of tables, above the budget of 262144"),
        (&dozen, |budgets| budgets.classes.steps = 99, "more steps of building than 99"),
        (&sets, |budgets| budgets.classes.classes = 5, "more classes of IPv4 addresses than 5 in all chains"),
    ];
    for (program, shrink, why) in guards {
        let mut budgets = Budgets::default();
        shrink(&mut budgets);
        let others = others(program(), &budgets);
        assert!(others[0].why.contains(why), "found {}, expected {why}", others[0].why);
        assert_eq!((others[0].engine, others[0].family), ("tree", 4));
    }
}

/// Too many classes of one family leave the other one alone; those of source ports concern both.
#[test]
fn ipv6_addresses_and_source_ports_have_guards_of_their_own() {
    let mut budgets = Budgets::default();
    budgets.classes.classes = 5;
    let set = |number: u32| AddressSet { v4: Vec::new().into(), v6: vec![(number.into(), 99)] };
    let ipv6 = of_rules(on_sets(5), (0..5).map(set).collect(), Vec::new());
    let by_source_port = |number: u16| {
        let mut rule = single_port(number);
        rule.source.ports = rule.destination.ports.take();
        rule
    };
    let ports = of_rules((0..5).map(by_source_port).collect(), Vec::new(), Vec::new());
    for (program, of, families) in [(ipv6, "IPv6 addresses", &[6][..]), (ports, "source ports", &[4, 6])] {
        let others = others(program, &budgets);
        assert_eq!(others.iter().map(|other| other.family).collect::<Vec<_>>(), families, "{of}");
        for other in others {
            assert_eq!(other.engine, "tree", "{of}");
            let why = format!("more classes of {of} than 5 in all chains");
            assert!(other.why.contains(&why), "found {}, expected {why}", other.why);
        }
    }
}

#[test]
fn every_guard_of_the_tree_speaks() {
    let mut excluded = plain(Action::Allow);
    excluded.source.not_ports = Some(named(0));
    let port_set = PortSet::from_iter([(Family::V4, 1, protocol::TCP, 80)]);
    let excluded = || of_rules(vec![excluded.clone()], Vec::new(), vec![port_set.clone()]);
    let many = || of_rules((0..2000).map(single_port).collect(), Vec::new(), Vec::new());
    let guards: [Guard<'_>; 5] = [
        (&dozen, |budgets| budgets.tree.cuboids = 0, "12 boxes or more, above the budget of tree"),
        (&dozen, |budgets| budgets.tree.cuboids = 12, "boxes or more, above the budget of tree"),
        (&dozen, |budgets| budgets.tree.steps = 9, "more boxes for all trees than 9"),
        (&many, |budgets| budgets.tree.bytes_per_cuboid = 0, "bytes, above the budget of tree"),
        (&excluded, |_| {}, "named ports in notPorts"),
    ];
    for (program, shrink, why) in guards {
        let mut budgets = Budgets::default();
        budgets.classes.clauses = 0;
        shrink(&mut budgets);
        let others = others(program(), &budgets);
        assert!(others[0].why.contains(why), "found {}, expected {why}", others[0].why);
        assert_eq!(others[0].engine, "linear");
    }
}

fn single_port(number: u16) -> Rule {
    let mut rule = plain(if number.is_multiple_of(2) { Action::Allow } else { Action::Deny });
    rule.destination.ports = Some(numeric(vec![(number, number)]));
    rule
}

#[test]
fn a_wide_list_is_tried_in_the_tree_first() {
    let mut budgets = Budgets::default();
    (budgets.tree.wide, budgets.tree.kinds) = (11, 0);
    let others = others(dozen(), &budgets);
    assert_eq!(
        (others[0].engine, others[0].why.as_str()),
        ("tree", "12 clauses: wide lists are tried in tree first")
    );
}

#[test]
fn a_wide_list_of_one_port_after_the_other_stays_in_classes() {
    let mut budgets = Budgets::default();
    (budgets.tree.wide, budgets.tree.kinds) = (11, 1);
    let ports = || of_rules((0..300).map(single_port).collect(), Vec::new(), Vec::new());
    let is_tree = |budgets: &Budgets| others(ports(), budgets).first().map(|other| other.engine);
    assert_eq!(is_tree(&budgets), None);
    // Two answers for each of 301 ports would be too many.
    budgets.classes.cells = 1199;
    assert_eq!(is_tree(&budgets), Some("tree"));
    budgets = Budgets { classes: Budgets::default().classes, ..budgets };
    budgets.classes.clauses = 299;
    assert_eq!(is_tree(&budgets), Some("tree"));
}
