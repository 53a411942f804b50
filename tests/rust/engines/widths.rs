//! Edits that take chains over the borders of 16 and 256 local classes of addresses, and back, and over that of 256 local
//! classes of services: engines made from those before, fresh ones and `linear` say the same, of one packet and of many.

use std::sync::Arc;

use labelgate::flow::{
    CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, OutcomeId, Transport, protocol,
};
use labelgate::program::{
    Action, AddressSet, AddressSetId, Chain, ChainId, Directed, Program, Reason, Rule, RuleListId,
    RuleOrigin, Side,
};
use labelgate::table::{Budgets, Builder, DecisionTable, Engines, Passing};

use crate::batches::Batch;
use crate::choices::Choices;
use crate::equal::{Built, Expected, bound, built};
use crate::programs::{numeric, of_rules, plain};
use crate::random::programs;

/// Sets that rules decide by, each of a few addresses; behind them [`MARKERS`] sets that rules log by.
const SETS: usize = 300;
const MARKERS: usize = 3;
/// Addresses of a set, and from one to the next.
const MEMBERS: usize = 4;
const APART: usize = 8;
/// Rules of each list at first: markers and no set at all make more local classes.
const RULES: [usize; 4] = [13, 252, 13, 252];
/// A stage, a part of one, and some left over.
const PACKETS: usize = 32 + 8 + 3;
const STEPS: usize = 8;

/// That of an IPv4 address, and of its IPv6 twin.
fn twins(offset: usize) -> (u32, u128) {
    let low = u32::try_from(offset).expect("small");
    (0x0a00_0000 + low, 0xfd00 << 112 | u128::from(low))
}

fn some(first: usize, last: usize) -> AddressSet {
    let ((v4, v6), (last_v4, last_v6)) = (twins(first), twins(last));
    AddressSet { v4: vec![(v4, last_v4)].into(), v6: vec![(v6, last_v6)] }
}

fn own(set: usize) -> AddressSet {
    some(set * APART, set * APART + MEMBERS - 1)
}

/// With one address more, or without it.
fn toggled(set: &AddressSet, offset: usize) -> AddressSet {
    fn toggled<T: Copy + Ord>(ranges: &[(T, T)], address: T, step: impl Fn(T, bool) -> T) -> Vec<(T, T)> {
        let mut singles = Vec::new();
        let mut is_there = false;
        for &(first, last) in ranges {
            if first <= address && address <= last {
                is_there = true;
                singles.extend((first < address).then(|| (first, step(address, false))));
                singles.extend((address < last).then(|| (step(address, true), last)));
            } else {
                singles.push((first, last));
            }
        }
        singles.extend((!is_there).then_some((address, address)));
        singles.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::new();
        for (first, last) in singles {
            match merged.last_mut() {
                Some(open) if step(open.1, true) == first => open.1 = last,
                _ => merged.push((first, last)),
            }
        }
        merged
    }
    let (v4, v6) = twins(offset);
    AddressSet {
        v4: toggled(&set.v4, v4, |at, up| if up { at.wrapping_add(1) } else { at - 1 }).into(),
        v6: toggled(&set.v6, v6, |at, up| if up { at.wrapping_add(1) } else { at - 1 }),
    }
}

/// What a rule of a list asks: the first and the last list the source, the second one the destination, the third both.
fn sides(list: usize, set: usize) -> [Side; 2] {
    let of = |set: usize| Side { in_sets: vec![AddressSetId::new(set)].into(), ..Side::default() };
    match list {
        1 => [Side::default(), of(set)],
        2 => [of(set), if set.is_multiple_of(3) { of(set + 1) } else { Side::default() }],
        _ => [of(set), Side::default()],
    }
}

fn outcome(program: &mut Program, action: Action) -> OutcomeId {
    let id = OutcomeId::new(program.outcomes.len());
    let origin = RuleOrigin {
        tier: None,
        policy: None,
        direction: None,
        rule: Some(id.number()),
        action: Some(action),
        reason: Reason::RuleAllow,
    };
    Arc::make_mut(&mut program.outcomes).push(Arc::new(origin));
    id
}

/// Of a set, in a list: no two rules give the same answer.
fn rule(program: &mut Program, list: usize, set: usize) -> Rule {
    let action = match set {
        SETS.. => Action::Log,
        set if set.is_multiple_of(2) => Action::Allow,
        _ => Action::Deny,
    };
    let [source, destination] = sides(list, set);
    let mut rule = Rule { outcome: outcome(program, action), source, destination, ..plain(action) };
    if list == 2 && set % 5 == 1 {
        rule.protocol = Some(protocol::TCP);
        rule.source.ports = Some(numeric(vec![(0, 79), (65535, 65535)]));
    }
    rule
}

fn program() -> Program {
    let sets = (0..SETS).map(own).chain((0..MARKERS).map(|_| AddressSet::default()));
    let mut program = of_rules(Vec::new(), sets.collect(), Vec::new());
    let (list, chain) = (program.rule_lists[0].clone(), program.chains[0].clone());
    for (number, rules) in RULES.into_iter().enumerate() {
        let sets = (SETS..SETS + MARKERS).chain(0..rules);
        let rules = sets.map(|set| rule(&mut program, number, set)).collect();
        let mut list = (*list).clone();
        (list.policy, list.rules) = (format!("GlobalNetworkPolicy/p{number}"), rules);
        let mut tier = chain.tiers[0].clone();
        tier.policies = vec![RuleListId::new(number)];
        let chain = Chain { tiers: vec![tier], ..chain.clone() };
        if number == 0 {
            program.rule_lists = Arc::new(vec![Arc::new(list)]);
            program.chains = Arc::new(vec![chain]);
        } else {
            Arc::make_mut(&mut program.rule_lists).push(Arc::new(list));
            Arc::make_mut(&mut program.chains).push(chain);
        }
    }
    let [host, one, other] = &mut Arc::make_mut(&mut program.endpoints)[..] else {
        panic!("three endpoints")
    };
    let forward = Arc::make_mut(host).forward.as_mut().expect("of a host");
    (forward.egress, forward.ingress) = (ChainId::new(1), ChainId::new(3));
    for (workload, chain) in [(one, 0), (other, 2)] {
        let normal = &mut Arc::make_mut(workload).normal;
        (normal.ingress, normal.egress) = (ChainId::new(chain), ChainId::new(2));
    }
    program
}

/// Gives an address that may have another class now.
fn edit(choices: &mut Choices, program: &mut Program) -> usize {
    let set = if choices.chance(50) { choices.below(RULES[0]) } else { choices.below(RULES[1]) };
    let offset = set * APART + choices.below(MEMBERS);
    let sets = &mut program.address_sets;
    match choices.below(12) {
        0..=5 => {
            let marker = SETS + choices.below(MARKERS);
            sets[marker] = Arc::new(toggled(&sets[marker], offset));
        }
        6 => sets[set] = Arc::new(toggled(&sets[set], offset)),
        7 => sets[set] = Arc::new(toggled(&sets[set], offset + APART)),
        8 => {
            let last = RULES[1] - 1;
            let everything = AddressSet { v4: vec![(0, u32::MAX)].into(), v6: vec![(0, u128::MAX)] };
            let kinds = [own(last), AddressSet::default(), everything];
            sets[last] = Arc::new(kinds[choices.below(kinds.len())].clone());
        }
        kind => {
            let list = choices.below(RULES.len());
            let count = program.rule_lists[list].rules.len() - MARKERS;
            let more = rule(program, list, count.min(SETS - 2));
            let rules = &mut Arc::make_mut(&mut Arc::make_mut(&mut program.rule_lists)[list]).rules;
            if kind > 9 && count < SETS - 2 {
                rules.push(more);
            } else {
                rules.pop();
            }
        }
    }
    offset
}

/// Packets of one family in FORWARD; mostly such that one chain decides.
fn keys(choices: &mut Choices, table: &DecisionTable, touched: &[usize]) -> Vec<FlowKey> {
    let family = choices.of(&[Family::V4, Family::V6]);
    let is_lone = choices.chance(70);
    let names =
        [("eth1", "cali0"), ("eth1", "eth0"), ("eth1", "cali1"), ("eth0", "eth1"), ("cali0", "cali1")];
    let pairs = names.map(|(input, output)| (table.interface(input), table.interface(output)));
    let address = |choices: &mut Choices| {
        let near = choices.of(&[0, 0, 0, 1, 8]);
        let any = choices.below(SETS) * APART + choices.below(MEMBERS + 1);
        let offset = if choices.chance(60) { choices.of(touched) + near } else { any };
        let (v4, v6) = twins(offset);
        if family == Family::V4 { v4.into() } else { v6 }
    };
    let key = |_| {
        let (input, output) = choices.of(&pairs[..if is_lone { 4 } else { 5 }]);
        let (source, destination) = (address(choices), address(choices));
        let protocol = choices.of(&[protocol::TCP, protocol::UDP, protocol::ICMP, 47]);
        let ports = [choices.of(&[0, 79, 80, 65535]), choices.of(&[0, 443])];
        let transport = Transport::of(protocol, ports[0], ports[1]);
        let tuple = FiveTuple { family, source, destination, protocol, transport };
        let (hook, ct) = (Hook::FilterForward, CtState::New);
        FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false }
    };
    (0..PACKETS).map(key).collect()
}

fn assert_alike(keys: &[FlowKey], linear: &DecisionTable, others: [&Built; 2]) {
    let expected: Vec<_> = keys.iter().map(|&key| Expected::of(linear, key)).collect();
    for other in others {
        let mut decisions = Vec::new();
        other.table.decide_packets(keys, &mut decisions, &mut Passing::with_capacity(PACKETS));
        let (verdicts, outcomes) = Batch::of(keys).ask(&other.table).expect("columns of one length");
        for (index, expected) in expected.iter().enumerate() {
            expected.assert_same(other, decisions[index]);
            assert_eq!(other.table.decide(&keys[index]), decisions[index]);
            let found = (verdicts[index], outcomes[index]);
            assert_eq!(found, (decisions[index].verdict as u8, decisions[index].outcome.number()));
        }
    }
}

/// Bits of local classes, by record.
fn widths(engines: &Engines) -> Vec<u32> {
    let image = engines.image();
    let word = |at: usize| u32::from_ne_bytes(image[4 * at..][..4].try_into().expect("four bytes"));
    let records = word(3) as usize;
    (0..2 * RULES.len()).map(|record| 1 << word(records + 16 * record + 13)).collect()
}

/// How often a record's local classes have come to so many bits, from so many, by an edit in place.
fn check(choices: &mut Choices, direct_maps: usize, changes: &mut Vec<(u32, u32)>) {
    let mut program = program();
    let mut budgets = Budgets::default();
    budgets.tree.wide = usize::MAX;
    budgets.classes.direct_maps = direct_maps;
    let mut builder = Builder::new(budgets);
    let (mut touched, mut before, mut earlier) = (vec![0], Vec::new(), Vec::new());
    for left in (0..STEPS).rev() {
        let now = Arc::new(program.clone());
        let engines = builder.build(Arc::clone(&now));
        let (is_edited, after) = (engines.describe().classes.edits > 0, widths(&engines));
        assert_eq!(engines.describe().others, [], "all chains are in `classes`");
        // Maps of two levels are never edited.
        let mut other = budgets;
        (other.classes.direct_maps, other.classes.flat_maps) =
            [(usize::MAX, 0), (0, usize::MAX), (0, 0)][left % 3];
        let (edited, fresh, linear) = (bound(engines), built(&now, &other), built(&now, &Budgets::LINEAR));
        for _ in 0..2 {
            let keys = keys(choices, &linear.table, &touched);
            assert_alike(&keys, &linear.table, [&edited, &fresh]);
        }
        if is_edited {
            changes.extend(std::iter::zip(before, after.iter().copied()).filter(|(was, is)| was != is));
        }
        before = after;
        earlier.push(program.clone());
        touched.extend((0..=choices.below(4)).map(|_| edit(choices, &mut program)));
        if left == 1 || choices.chance(10) {
            let back = if left == 1 { 0 } else { choices.below(earlier.len()) };
            program = earlier[back].clone();
        }
    }
}

#[test]
fn chains_pass_the_borders_of_widths() {
    for direct_maps in [0, usize::MAX] {
        let mut changes = Vec::new();
        for seed in 0..programs() / 75 {
            check(&mut Choices::Seeded(seed), direct_maps, &mut changes);
        }
        for change in [(4, 8), (8, 16), (8, 4), (16, 8)] {
            assert!(changes.contains(&change), "no change of {change:?} in {changes:?}");
        }
    }
}

/// One port for each rule: no two of them give the same answer.
fn on_ports(count: u16) -> Program {
    let rule = |number: u16| {
        let mut rule = plain([Action::Allow, Action::Deny][usize::from(number % 2)]);
        rule.protocol = Some(protocol::TCP);
        rule.destination.ports = Some(numeric(vec![(2 * number, 2 * number)]));
        rule
    };
    let mut program = of_rules((0..count).map(rule).collect(), Vec::new(), Vec::new());
    let chain = ChainId::new(0);
    Arc::make_mut(&mut Arc::make_mut(&mut program.endpoints)[0]).normal =
        Directed { ingress: chain, egress: chain };
    program
}

/// Maps that hold local classes have bytes for those of services.
#[test]
fn services_of_a_chain_pass_the_border_of_bytes() {
    let mut budgets = Budgets::default();
    budgets.tree.wide = usize::MAX;
    let mut builder = Builder::new(budgets);
    // Beside the ports of rules there are all others.
    for (count, levels) in [(200, 0), (254, 0), (255, 0), (256, 1), (300, 1), (200, 1)] {
        let program = Arc::new(on_ports(count));
        let engines = builder.build(Arc::clone(&program));
        assert_eq!(engines.image()[4 * 12..][..4], u32::to_ne_bytes(levels), "{count} rules");
        assert_eq!(engines.describe().others, [], "all chains are in `classes`");
        let (edited, fresh) = (bound(engines), built(&program, &budgets));
        let linear = built(&program, &Budgets::LINEAR).table;
        let key = |port| {
            let transport = Transport::of(protocol::TCP, 1, port);
            let tuple = FiveTuple {
                family: Family::V4,
                source: 1,
                destination: 2,
                protocol: protocol::TCP,
                transport,
            };
            let (input, output) = (linear.interface("eth0"), InterfaceId::NONE);
            let (hook, ct) = (Hook::FilterInput, CtState::New);
            FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false }
        };
        for keys in (0..620_u16).map(key).collect::<Vec<_>>().chunks(PACKETS) {
            assert_alike(keys, &linear, [&edited, &fresh]);
        }
    }
}
