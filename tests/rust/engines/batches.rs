//! Batches of every size and with every kind of column answer as one packet at a time.

use std::sync::Arc;

use labelgate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, Verdict, protocol};
use labelgate::table::{Addresses, Budgets, Column, DecisionTable, Flows, FlowsError};
use proptest::prelude::*;

use crate::budgets::{ample, tiny};
use crate::choices::{Choices, choices};
use crate::equal::built;
use crate::packets::{Aims, interface, own_address, short_pairs};
use crate::programs::program;

/// The values of a column; of one for all flows every value is the same.
struct Values<T> {
    is_one: bool,
    values: Vec<T>,
}

impl<T: Copy> Values<T> {
    fn new(choices: &mut Choices, count: usize, mut value: impl FnMut(&mut Choices) -> T) -> Self {
        let is_one = choices.chance(40);
        let first = value(choices);
        let rest = (1..count).map(|_| if is_one { first } else { value(choices) });
        Self { is_one, values: std::iter::once(first).chain(rest).collect() }
    }

    fn column(&self) -> Column<'_, T> {
        if self.is_one { Column::One(self.values[0]) } else { Column::Each(&self.values) }
    }
}

pub struct Batch {
    hook: Hook,
    family: Family,
    source: Values<u128>,
    destination: Values<u128>,
    protocol: Values<u8>,
    source_port: Values<u16>,
    destination_port: Values<u16>,
    input: Values<u32>,
    output: Values<u32>,
    ct: Values<u8>,
    accepted: Values<u8>,
    dnatted: Values<u8>,
    fragment: Values<u8>,
}

impl Batch {
    fn new(choices: &mut Choices, aims: &Aims<'_>, table: &DecisionTable, count: usize) -> Self {
        let family = if choices.chance(50) { Family::V6 } else { Family::V4 };
        // New packets that carry no mark: what is answered block by block.
        let is_plain = choices.chance(50);
        let flag = |choices: &mut Choices| choices.of(&[0, 0, 0, 1, 2, 255]);
        // A block with a later fragment is answered packet by packet.
        let is_whole = is_plain && choices.chance(75);
        let chains = if choices.chance(50) { 1 } else { 2 };
        let pairs = if is_plain { short_pairs(table, chains) } else { Vec::new() };
        let states: &[u8] = if is_plain { &[0, 4] } else { &[0, 0, 0, 0, 1, 2, 3, 4] };
        let (input, output) = if pairs.is_empty() {
            let input = Values::new(choices, count, |choices| interface(choices, table).0);
            // An id that no table has is answered as nobody's.
            let output = Values::new(choices, count, |choices| {
                choices.maybe(5, |_| u32::MAX).unwrap_or_else(|| interface(choices, table).0)
            });
            (input, output)
        } else {
            let pairs = Values::new(choices, count, |choices| choices.of(&pairs));
            let each = |of: fn(&(InterfaceId, InterfaceId)) -> u32| Values {
                is_one: pairs.is_one,
                values: pairs.values.iter().map(of).collect(),
            };
            (each(|pair| pair.0.0), each(|pair| pair.1.0))
        };
        let mut source = Values::new(choices, count, |choices| aims.address(choices, family));
        let mut destination = Values::new(choices, count, |choices| aims.address(choices, family));
        // As packets of workloads have them: all of them, or all but one.
        if is_plain && choices.chance(75) {
            for (addresses, interfaces) in [(&mut source, &input), (&mut destination, &output)] {
                let other = choices.maybe(20, |choices| choices.below(count));
                addresses.is_one &= interfaces.is_one;
                for (index, &interface) in interfaces.values.iter().enumerate() {
                    let own = own_address(table, InterfaceId(interface), family);
                    if let Some(own) = own.filter(|_| addresses.is_one || other != Some(index)) {
                        addresses.values[index] = own;
                    }
                }
            }
        }
        Self {
            hook: choices
                .maybe(if is_plain { 70 } else { 100 }, |choices| choices.of(&Hook::ALL))
                .unwrap_or(Hook::FilterForward),
            family,
            source,
            destination,
            protocol: Values::new(choices, count, |choices| aims.protocol(choices)),
            source_port: Values::new(choices, count, |choices| aims.port(choices)),
            destination_port: Values::new(choices, count, |choices| aims.port(choices)),
            input,
            output,
            ct: Values::new(choices, count, |choices| choices.of(states)),
            accepted: Values::new(choices, count, |choices| if is_plain { 0 } else { flag(choices) }),
            dnatted: Values::new(choices, count, |choices| if is_plain { 0 } else { flag(choices) }),
            fragment: Values::new(choices, count, |choices| if is_whole { 0 } else { flag(choices) }),
        }
    }

    /// Of packets of one hook and IP version.
    pub fn of(keys: &[FlowKey]) -> Self {
        fn each<T>(keys: &[FlowKey], of: impl Fn(&FlowKey) -> T) -> Values<T> {
            Values { is_one: false, values: keys.iter().map(of).collect() }
        }
        let ports = |key: &FlowKey| match key.tuple.transport {
            Transport::Ports { source, destination } => (source, destination),
            Transport::Icmp { kind, code } => (0, u16::from_be_bytes([kind, code])),
            Transport::Opaque => (0, 0),
        };
        Self {
            hook: keys[0].hook,
            family: keys[0].tuple.family,
            source: each(keys, |key| key.tuple.source),
            destination: each(keys, |key| key.tuple.destination),
            protocol: each(keys, |key| key.tuple.protocol),
            source_port: each(keys, |key| ports(key).0),
            destination_port: each(keys, |key| ports(key).1),
            input: each(keys, |key| key.input.0),
            output: each(keys, |key| key.output.0),
            ct: each(keys, |key| key.ct as u8),
            accepted: each(keys, |key| key.accepted.into()),
            dnatted: each(keys, |key| key.dnatted.into()),
            fragment: each(keys, |_| 0),
        }
    }

    fn key(&self, index: usize) -> FlowKey {
        let protocol = self.protocol.values[index];
        let (sport, dport) = (self.source_port.values[index], self.destination_port.values[index]);
        let is_fragment = self.fragment.values[index] != 0;
        let transport = if is_fragment { Transport::Opaque } else { Transport::of(protocol, sport, dport) };
        let (source, destination) = (self.source.values[index], self.destination.values[index]);
        FlowKey {
            tuple: FiveTuple { family: self.family, source, destination, protocol, transport },
            hook: self.hook,
            input: InterfaceId(self.input.values[index]),
            output: InterfaceId(self.output.values[index]),
            accepted: self.accepted.values[index] != 0,
            ct: CtState::ALL[usize::from(self.ct.values[index])],
            dnatted: self.dnatted.values[index] != 0,
        }
    }

    /// Asks with these columns, the addresses in the form that columns have.
    pub fn ask(&self, table: &DecisionTable) -> Result<(Vec<u8>, Vec<u32>), FlowsError> {
        let count = self.source.values.len();
        let (mut verdicts, mut outcomes) = (vec![99; count], vec![u32::MAX; count]);
        let v4 = |values: &Values<u128>| Values {
            is_one: values.is_one,
            values: values.values.iter().map(|&address| u32::try_from(address).unwrap_or(0)).collect(),
        };
        let v6 = |values: &Values<u128>| Values {
            is_one: values.is_one,
            values: values.values.iter().map(|address| address.to_be_bytes()).collect(),
        };
        let v4 = [v4(&self.source), v4(&self.destination)];
        let v6 = [v6(&self.source), v6(&self.destination)];
        let addresses = match self.family {
            Family::V4 => Addresses::V4 { source: v4[0].column(), destination: v4[1].column() },
            Family::V6 => Addresses::V6 { source: v6[0].column(), destination: v6[1].column() },
        };
        let flows = Flows {
            hook: self.hook,
            addresses,
            protocol: self.protocol.column(),
            source_port: self.source_port.column(),
            destination_port: self.destination_port.column(),
            input: self.input.column(),
            output: self.output.column(),
            ct: self.ct.column(),
            accepted: self.accepted.column(),
            dnatted: self.dnatted.column(),
            fragment: self.fragment.column(),
        };
        table.decide_batch(&flows, &mut verdicts, &mut outcomes)?;
        Ok((verdicts, outcomes))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_batch_answers_as_its_packets(mut choices in choices(), seed in any::<u64>()) {
        let program = Arc::new(program(&mut choices));
        // Batches take more choices than a list has.
        let mut choices = Choices::Seeded(seed);
        let aims = Aims::at(&program);
        let mut tree = Budgets::default();
        tree.classes.clauses = 0;
        let budgets = [ample(&mut choices), tree, tiny(&mut choices), Budgets::LINEAR];
        for budgets in &budgets {
            let table = built(&program, budgets).table;
            for count in 1..=65 {
                let batch = Batch::new(&mut choices, &aims, &table, count);
                let (verdicts, outcomes) = batch.ask(&table).expect("columns of one length");
                for index in 0..count {
                    let key = batch.key(index);
                    // By the walk, which has no short way.
                    let (decision, _) = table.decide_step(&key);
                    let found = (verdicts[index], outcomes[index]);
                    prop_assert_eq!(found, (decision.verdict as u8, decision.outcome.number()));
                    prop_assert_eq!(table.decide(&key), decision);
                }
            }
        }
    }
}

/// Whether a batch of these packets has the answers of the walk.
fn assert_walked(table: &DecisionTable, keys: &[FlowKey], seed: u64) {
    let (verdicts, outcomes) = Batch::of(keys).ask(table).expect("columns of one length");
    for (index, key) in keys.iter().enumerate() {
        let (decision, _) = table.decide_step(key);
        let expected = (decision.verdict as u8, decision.outcome.number());
        assert_eq!((verdicts[index], outcomes[index]), expected, "{seed}: {key:?}");
    }
}

/// Blocks of packets of workloads, and the same with one packet to, or from, another address than the workload's first.
#[test]
fn a_block_answers_as_its_packets_do_to_other_addresses() {
    for seed in 0..150 {
        let mut choices = Choices::Seeded(seed);
        let program = Arc::new(program(&mut choices));
        let aims = Aims::at(&program);
        let table = built(&program, &Budgets::default()).table;
        for (input, output) in short_pairs(&table, 1) {
            for family in [Family::V4, Family::V6] {
                let owns = [input, output].map(|interface| own_address(&table, interface, family));
                for other in [None, Some(7)] {
                    let keys: Vec<_> = (0..32)
                        .map(|index| {
                            let mut tuple = aims.tuple_of(&mut choices, family);
                            tuple.transport = Transport::of(tuple.protocol, 40_000, aims.port(&mut choices));
                            if other != Some(index) {
                                tuple.source = owns[0].unwrap_or(tuple.source);
                                tuple.destination = owns[1].unwrap_or(tuple.destination);
                            }
                            let (hook, ct) = (Hook::FilterForward, CtState::New);
                            FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false }
                        })
                        .collect();
                    assert_walked(&table, &keys, seed);
                }
            }
        }
    }
}

/// Blocks of packets that two workloads send and get, in which one that is sent, the first or another, is encapsulated
/// (E-20.5). The last one is not sent.
#[test]
fn a_block_answers_as_its_packets_do_where_one_is_encapsulated() {
    let mut met = [0, 0];
    for seed in 0..300 {
        let mut choices = Choices::Seeded(seed);
        let program = Arc::new(program(&mut choices));
        let aims = Aims::at(&program);
        let table = built(&program, &Budgets::default()).table;
        for family in [Family::V4, Family::V6] {
            let own = |interface| own_address(&table, interface, family);
            let pairs = short_pairs(&table, 1);
            let (sent, got): (Vec<_>, Vec<_>) = pairs.iter().partition(|&&(input, _)| own(input).is_some());
            let Some((&sent, &got)) = sent.first().zip(got.first()) else { continue };
            for place in [0, 14] {
                let keys: Vec<_> = (0..32)
                    .map(|index| {
                        let (input, output) = if index % 2 == 0 { sent } else { got };
                        let mut tuple = aims.tuple_of(&mut choices, family);
                        tuple.source = own(input).unwrap_or(tuple.source);
                        tuple.destination = own(output).unwrap_or(tuple.destination);
                        tuple.protocol = if index == place { protocol::IPIP } else { protocol::TCP };
                        tuple.transport = Transport::of(tuple.protocol, 40_000, aims.port(&mut choices));
                        let (hook, ct) = (Hook::FilterForward, CtState::New);
                        FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false }
                    })
                    .collect();
                assert_walked(&table, &keys, seed);
                let (decision, _) = table.decide_step(&keys[place]);
                met[family as usize] += usize::from(decision.verdict == Verdict::Deny);
            }
        }
    }
    assert!(met.iter().all(|&met| met > 20), "{met:?} encapsulated packets were denied");
}

fn small() -> (DecisionTable, Batch) {
    let mut choices = Choices::Seeded(1);
    let program = Arc::new(program(&mut choices));
    let table = built(&program, &Budgets::default()).table;
    let batch = Batch::new(&mut choices, &Aims::at(&program), &table, 7);
    (table, batch)
}

type Shorten = fn(&mut Batch);

#[test]
fn columns_of_another_length_are_refused_by_name() {
    let short: [(&str, Shorten); 9] = [
        ("protocol", |batch| cut(&mut batch.protocol)),
        ("sport", |batch| cut(&mut batch.source_port)),
        ("dport", |batch| cut(&mut batch.destination_port)),
        ("in", |batch| cut(&mut batch.input)),
        ("out", |batch| cut(&mut batch.output)),
        ("ct", |batch| cut(&mut batch.ct)),
        ("accepted", |batch| cut(&mut batch.accepted)),
        ("dnatted", |batch| cut(&mut batch.dnatted)),
        ("fragment", |batch| cut(&mut batch.fragment)),
    ];
    for (name, shorten) in short {
        let (table, mut batch) = small();
        shorten(&mut batch);
        let expected = FlowsError::Length { column: name, found: 6, expected: 7 };
        assert_eq!(batch.ask(&table), Err(expected));
    }
    let (table, mut batch) = small();
    cut(&mut batch.destination);
    batch.source.is_one = true;
    let expected = FlowsError::Length { column: "dst", found: 6, expected: 7 };
    assert_eq!(batch.ask(&table), Err(expected));
}

fn cut<T: Copy>(column: &mut Values<T>) {
    column.is_one = false;
    column.values.truncate(6);
}

#[test]
fn an_unknown_conntrack_state_is_refused_by_its_place() {
    let (table, mut batch) = small();
    (batch.ct.is_one, batch.ct.values[3]) = (false, 5);
    assert_eq!(batch.ask(&table), Err(FlowsError::CtState { found: 5, index: 3 }));
}
