//! Policies that are written to hurt: what they would need is refused before it is taken, and they are answered all the
//! same.

use labelgate::flow::{Family, protocol};
use labelgate::program::{Action, AddressSet, AddressSetId, PortSet, Rule};
use labelgate::table::Budgets;

use crate::equal::others;
use crate::programs::{named, numeric, of_rules, plain};

/// The ports in whose number this bit is set.
fn with_bit(bit: u16) -> Vec<(u16, u16)> {
    let run = 1 << bit;
    (0..32768 >> bit).map(|number| (number * 2 + 1) * run).map(|first| (first, first + (run - 1))).collect()
}

#[test]
fn named_ports_of_both_sides_multiply() {
    let services = |address: u128| {
        let members = (1..=600).map(|port| (Family::V4, address, protocol::TCP, port));
        members.collect::<PortSet>()
    };
    let mut rule = plain(Action::Allow);
    (rule.source.ports, rule.destination.ports) = (Some(named(0)), Some(named(1)));
    let program = of_rules(vec![rule], Vec::new(), vec![services(0x0a00_0001), services(0x0a00_0002)]);
    let others = others(program, &Budgets::default());
    assert_eq!(others.len(), 2);
    for other in others {
        assert_eq!(other.engine, "linear");
        assert!(other.why.starts_with("66000 clauses, above the budget of 65536"), "{}", other.why);
    }
}

#[test]
fn a_named_port_that_stands_for_every_number_is_excluded() {
    let members = (0..=u16::MAX).map(|port| (Family::V4, 0x0a00_0001, protocol::TCP, port));
    let mut rule = plain(Action::Deny);
    rule.destination.not_ports = Some(named(0));
    let others = others(of_rules(vec![rule], Vec::new(), vec![members.collect()]), &Budgets::default());
    assert_eq!(others[0].engine, "linear");
}

#[test]
fn source_and_destination_ports_multiply() {
    let rule = |number: u16, is_source: bool| {
        let mut rule = plain(Action::Deny);
        let side = if is_source { &mut rule.source } else { &mut rule.destination };
        side.ports = Some(numeric(vec![(number * 2, number * 2)]));
        rule
    };
    let rules = (1..=2000).flat_map(|number| [rule(number, true), rule(number, false)]).collect();
    let mut budgets = Budgets::default();
    budgets.tree.wide = usize::MAX;
    let others = others(of_rules(rules, Vec::new(), Vec::new()), &budgets);
    assert!(others[0].why.starts_with("4006002 cells, above the budget of 262144"), "{}", others[0].why);
    assert_eq!(others[0].engine, "tree");
}

#[test]
fn every_port_of_two_protocols_is_a_class_of_its_own() {
    let rules = [protocol::TCP, protocol::UDP].into_iter().flat_map(|protocol| {
        (0..16).map(move |bit| {
            let mut rule = Rule { protocol: Some(protocol), ..plain(Action::Log) };
            rule.destination.ports = Some(numeric(with_bit(bit)));
            rule
        })
    });
    let others = others(of_rules(rules.collect(), Vec::new(), Vec::new()), &Budgets::default());
    assert!(
        others[0].why.starts_with("more classes of services than 65536 in all chains"),
        "{}",
        others[0].why
    );
}

#[test]
fn every_source_port_is_a_class_of_its_own() {
    let rules = (0..16).map(|bit| {
        let mut rule = plain(Action::Log);
        rule.source.ports = Some(numeric(with_bit(bit)));
        rule
    });
    let any = plain(Action::Allow);
    let mut readable = plain(Action::Log);
    readable.source.ports = Some(numeric(vec![(0, u16::MAX)]));
    let rules = rules.chain([readable, any]).collect();
    let others = others(of_rules(rules, Vec::new(), Vec::new()), &Budgets::default());
    assert!(
        others[0].why.starts_with("more classes of source ports than 65536 in all chains"),
        "{}",
        others[0].why
    );
}

#[test]
fn log_rules_take_part_in_the_budget() {
    // Every combination of them is an outcome.
    let sets = (0..14).map(|bit| {
        let ranges = (0..1_u32 << 14).filter(|address| address >> bit & 1 == 1);
        let mut set = AddressSet::default();
        ranges.for_each(|address| set.push(Family::V4, address.into()));
        set
    });
    let rules = (0..14).map(|set| {
        let mut rule = plain(Action::Log);
        rule.source.in_sets = vec![AddressSetId::new(set)].into();
        rule
    });
    let program = of_rules(rules.collect(), sets.collect(), Vec::new());
    let mut budgets = Budgets::default();
    assert_eq!(others(program.clone(), &budgets), []);
    budgets.classes.bytes = 1 << 20;
    let others = others(program, &budgets);
    assert_eq!(others.len(), 1);
    assert!(others[0].why.contains("bytes of tables, above the budget of 1048576"), "{}", others[0].why);
}
