//! The image: the same for the same program, no larger than its budget, and enough by itself. The reader below knows
//! the documented layout and the bytes, nothing else.

use std::sync::Arc;

use labelgate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, Verdict};
use labelgate::program::{Action, AddressSet, AddressSetId, ChainId, Directed, Program, RuleListId};
use labelgate::table::{Budgets, DecisionTable, Engines};
use proptest::prelude::*;

use crate::budgets::tiny;
use crate::choices::{Choices, choices};
use crate::packets::Aims;
use crate::programs::{host, of_rules, plain, program, shown};

/// Everything by offsets in words from the beginning.
struct Image<'i>(&'i [u8]);

/// The value of a key that a packet does not have.
const OPAQUE: u32 = 65536;

impl Image<'_> {
    fn word(&self, at: u32) -> u32 {
        let at = 4 * at as usize;
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn half(&self, at: u32, index: u32) -> u32 {
        self.word(at + index / 2) >> (16 * (index % 2)) & 0xffff
    }

    fn wide(&self, at: u32) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 1)) << 32
    }

    /// The answer of a chain: how it ends, and the outcome.
    fn answer(&self, chain: u32, tuple: &FiveTuple) -> (u32, u32) {
        let (port, key) = match tuple.transport {
            Transport::Ports { source, destination } => (u32::from(source), u32::from(destination)),
            Transport::Icmp { kind, code } => (OPAQUE, u32::from(kind) << 8 | u32::from(code)),
            Transport::Opaque => (OPAQUE, OPAQUE),
        };
        let record = self.word(3) + 16 * (2 * chain + tuple.family as u32);
        let field = |index: u32| self.word(record + index);
        let keys = if self.word(12) == 0 { 8 } else { 16 };
        let local = |map: u32, class: u32| self.local(map, class, keys);
        let width = 1 << field(13);
        assert_eq!(u64::from(field(14)), (1_u64 << width) - 1);
        let address = |map: u32, address: u128| self.local(map, self.address(tuple.family, address), width);
        let source = address(field(0), tuple.source);
        let destination = address(field(1), tuple.destination);
        assert!(source < field(9) && destination < field(5), "more local classes than chain {chain} has");
        let mut row = source * field(5) + destination;
        if field(4) != 0 {
            row = self.half(field(4), row);
        }
        let column = local(field(2), self.key(self.word(6), tuple.protocol, key));
        let cell = (row * field(7) + column) * field(8);
        let cell = cell + local(field(3), self.key(self.word(7), tuple.protocol, port));
        let near = match field(11) {
            0 | 3 => None,
            1 => Some(tuple.source),
            2 => Some(tuple.destination),
            form => panic!("a record of form {form}"),
        };
        if let Some(near) = near {
            let row = address(field(12), near);
            assert_eq!(row * field(7) + column, cell, "the short form of chain {chain} leads elsewhere");
        }
        let answer = self.word(field(6) + cell);
        (answer >> 30, answer & ((1 << 30) - 1))
    }

    fn local(&self, map: u32, class: u32, width: u32) -> u32 {
        let (block, index) = match self.word(12) {
            0 => (map, class),
            1 => (self.word(map + class / 32), class % 32),
            2 => (self.word(self.word(map + class / 512) + class / 32 % 16), class % 32),
            levels => panic!("maps of {levels} levels"),
        };
        let bit = index * width;
        let word = self.word(block + bit / 32);
        u32::try_from(u64::from(word) >> (bit % 32) & ((1 << width) - 1)).expect("a part of 32 bits")
    }

    fn key(&self, protocols: u32, protocol: u8, key: u32) -> u32 {
        let directory = self.word(protocols + u32::from(protocol));
        self.half(self.word(directory + key / 256), key % 256)
    }

    fn address(&self, family: Family, address: u128) -> u32 {
        match (family, self.word(5), self.word(8)) {
            (Family::V4, 0, _) | (Family::V6, _, 0) => 0,
            (Family::V4, roots, _) => self.v4(roots, u32::try_from(address).expect("an IPv4 address")),
            (Family::V6, ..) => self.v6(address),
        }
    }

    fn v4(&self, roots: u32, address: u32) -> u32 {
        let middle = self.word(roots + (address >> 16));
        self.half(self.word(middle + (address >> 8 & 0xff)), address & 0xff)
    }

    fn v6(&self, address: u128) -> u32 {
        let [upper, lower] =
            [address >> 64, address & u128::from(u64::MAX)].map(|half| u64::try_from(half).expect("64 bits"));
        let mut span = self.search([8, 9, 10, 11, 16], upper);
        if self.word(span + 2) == 63 {
            let line = self.word(span + 3);
            span = self
                .search(std::array::from_fn(|place| line + u32::try_from(place).expect("few")), lower >> 8);
        }
        let (base, form, table) = (self.wide(span), self.word(span + 2), self.word(span + 3));
        let place = (lower.wrapping_sub(base) >> (form & 63)).min((form >> 6).into());
        self.half(table, u32::try_from(place).expect("32 bits"))
    }

    /// Where a span is; `at`: where buckets, their count, spans and height are said, and levels from there on.
    fn search(&self, at: [u32; 5], key: u64) -> u32 {
        let [buckets, count, spans, height] = [0, 1, 2, 3].map(|field| self.word(at[field]));
        let hash = u128::from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = u32::try_from((hash * u128::from(count)) >> 64).expect("below the count");
        'probes: for probe in 0..8 {
            let bucket = (buckets + (first + probe) % count) * 16;
            for place in 0..2 {
                let entry = bucket + 8 * place;
                let span = entry + 2;
                if self.word(span + 3) == 0 {
                    break 'probes;
                }
                if self.wide(entry) == key {
                    return span;
                }
            }
        }
        let index = (0..height).rev().fold(0, |index, level| {
            let node = self.word(at[4] + level) + index * 16;
            let bounds = (0..8).filter(|bound| self.wide(node + 2 * bound) <= key);
            8 * index + u32::try_from(bounds.count()).expect("at most 8").max(1) - 1
        });
        spans + 4 * index
    }
}

/// One chain, asked of a host endpoint's interface.
struct Asked {
    table: DecisionTable,
    engines: Arc<Engines>,
    chain: ChainId,
}

fn asked(mut program: Program, chain: ChainId, budgets: &Budgets) -> Asked {
    program.settings.failsafe_inbound.clear();
    Arc::make_mut(&mut Arc::make_mut(&mut program.endpoints)[0]).normal =
        Directed { ingress: chain, egress: chain };
    let engines = Arc::new(Engines::build(Arc::new(program), budgets));
    Asked { table: DecisionTable::new(Arc::clone(&engines), &host()), engines, chain }
}

impl Asked {
    fn assert_read_alike(&self, image: &Image<'_>, tuple: FiveTuple) {
        let input = self.table.interface("eth0");
        let (hook, output, ct) = (Hook::FilterInput, InterfaceId::NONE, CtState::New);
        let key = FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false };
        let decision = self.table.decide(&key);
        let (end, outcome) = image.answer(self.chain.number(), &tuple);
        let found = (end == 1, outcome);
        let expected = (decision.verdict == Verdict::Allow, decision.outcome.number());
        assert_eq!(found, expected, "{tuple:?}\n{}", shown(self.table.program()));
    }

    fn has_table(&self, family: u8) -> bool {
        let others = self.table.describe().others;
        !others.iter().any(|other| (other.chain, other.family) == (self.chain.index(), family))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_image_alone_answers(mut choices in choices()) {
        let program = program(&mut choices);
        let chain = ChainId::new(choices.below(program.chains.len()));
        let budgets = choices.maybe(50, tiny).unwrap_or_default();
        let asked = asked(program.clone(), chain, &budgets);
        // Somewhere else: nothing in it may be an address.
        let copy = [&[0; 12], asked.engines.image()].concat();
        let image = Image(&copy[12..]);
        prop_assert!(image.0.len() <= budgets.classes.bytes);
        if !image.0.is_empty() {
            prop_assert_eq!([image.word(0), image.word(1)], [u32::from_le_bytes(*b"LGCT"), 13]);
            prop_assert_eq!(4 * image.word(2) as usize, image.0.len());
            prop_assert_eq!(image.word(4) as usize, 2 * program.chains.len());
        }
        let aims = Aims::at(&program);
        for _ in 0..60 {
            let tuple = aims.tuple(&mut choices);
            if asked.has_table(if tuple.family == Family::V4 { 4 } else { 6 }) {
                asked.assert_read_alike(&image, tuple);
            }
        }
    }

    #[test]
    fn the_same_program_gives_the_same_image(mut choices in choices()) {
        let program = program(&mut choices);
        let budgets = choices.maybe(30, tiny).unwrap_or_default();
        let build = |program| Engines::build(Arc::new(program), &budgets);
        let (one, other) = (build(program.clone()), build(program));
        prop_assert!(one.image() == other.image());
        prop_assert_eq!(one.describe(), other.describe());
    }
}

#[test]
fn without_a_budget_there_is_no_image() {
    let program = program(&mut Choices::Seeded(1));
    let engines = Engines::build(Arc::new(program), &Budgets::LINEAR);
    assert_eq!(engines.image(), [0_u8; 0]);
}

/// So many classes that maps of one level have many blocks, and those of two have many groups; local classes of eight bits. A second chain tells few
/// classes apart: those that are in none of its sets fill blocks, and are fewer than those of each set.
#[test]
fn maps_of_all_levels_answer_as_the_rules_do() {
    let rule = |index: usize| {
        let mut rule = plain([Action::Allow, Action::Deny][index % 7 / 4]);
        rule.source.in_sets = vec![AddressSetId::new(index)].into();
        rule
    };
    let set = |index: u32| AddressSet {
        v4: vec![(index << 8, index << 9)].into(),
        v6: vec![(index.into(), (2 * index).into())],
    };
    let wide = |(first, last): (u32, u32)| AddressSet {
        v4: vec![(first << 8, last << 8 | 0xff)].into(),
        v6: vec![(first.into(), last.into())],
    };
    let widest = [(0, 299), (300, 599), (600, 899), (900, 1499)].map(wide);
    let sets = (0..900).map(set).chain(widest).collect();
    let program = with_second_list(of_rules((0..904).map(rule).collect(), sets, Vec::new()), 900);
    for chain in [0, 1].map(ChainId::new) {
        answers_by_maps_of_all_levels(&program, chain);
    }
}

/// Rules from this one on are those of another chain.
fn with_second_list(mut program: Program, from: usize) -> Program {
    let lists = Arc::make_mut(&mut program.rule_lists);
    let mut other = lists[0].clone();
    Arc::make_mut(&mut other).rules = Arc::make_mut(&mut lists[0]).rules.split_off(from);
    lists.push(other);
    let mut chain = program.chains[0].clone();
    chain.tiers[0].policies = vec![RuleListId::new(1)];
    Arc::make_mut(&mut program.chains).push(chain);
    program
}

fn answers_by_maps_of_all_levels(program: &Program, chain: ChainId) {
    let linear = asked(program.clone(), chain, &Budgets::LINEAR);
    for (direct_maps, flat_maps, levels) in [(usize::MAX, 0, 0), (0, usize::MAX, 1), (0, 0, 2)] {
        let mut budgets = Budgets::default();
        (budgets.classes.direct_maps, budgets.classes.flat_maps) = (direct_maps, flat_maps);
        // So many rules would be tried in `tree` first.
        budgets.tree.wide = usize::MAX;
        let asked = asked(program.clone(), chain, &budgets);
        assert!(asked.has_table(4) && asked.has_table(6));
        let image = Image(asked.engines.image());
        assert_eq!(image.word(12), levels);
        // They look at the source alone.
        for record in [0, 16, 32, 48] {
            assert_eq!(image.word(image.word(3) + record + 11), 1);
        }
        for number in 0..1900_u128 {
            for (family, source) in [(Family::V4, number << 8), (Family::V6, number)] {
                let transport = Transport::Opaque;
                let tuple = FiveTuple { family, source, destination: 1, protocol: 1, transport };
                asked.assert_read_alike(&image, tuple);
                linear.assert_read_alike(&image, tuple);
            }
        }
    }
}
