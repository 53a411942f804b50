//! The same policy in IPv6: every IPv4 address has a twin, and both get the same outcome from every engine.

use std::sync::Arc;

use labelgate::flow::{Family, FlowKey, Hook, protocol};
use labelgate::program::Program;
use labelgate::table::Budgets;
use proptest::prelude::*;

use crate::budgets::ample;
use crate::choices::choices;
use crate::equal::built;
use crate::packets::Aims;
use crate::programs::{program, shown};

/// How addresses become IPv6: single ones stay single, or become prefixes of 64 bits.
#[derive(Clone, Copy, Debug)]
struct Twin {
    prefix: u128,
    shift: u32,
}

impl Twin {
    fn first(self, address: u128) -> u128 {
        self.prefix | address << self.shift
    }

    fn last(self, address: u128) -> u128 {
        self.first(address) | ((1 << self.shift) - 1)
    }

    /// Both families say the same.
    fn give(self, program: &mut Program) {
        for set in program.address_sets.iter_mut().map(Arc::make_mut) {
            let ranges =
                set.v4.iter().map(|&(first, last)| (self.first(first.into()), self.last(last.into())));
            set.v6 = ranges.collect();
        }
        for set in program.port_sets.iter_mut().map(Arc::make_mut) {
            let twin =
                |&(address, protocol, port): &(u32, _, _)| (self.first(address.into()), protocol, port);
            set.v6 = set.v4.iter().map(twin).collect();
        }
        for rule in
            Arc::make_mut(&mut program.rule_lists).iter_mut().flat_map(|list| &mut Arc::make_mut(list).rules)
        {
            rule.families = [rule.families[0]; 2];
        }
        let settings = &mut program.settings;
        for failsafe in settings.failsafe_inbound.iter_mut().chain(&mut settings.failsafe_outbound) {
            failsafe.net = None;
        }
    }

    fn of(self, key: &FlowKey) -> FlowKey {
        let mut twin = *key;
        twin.tuple.family = Family::V6;
        twin.tuple.source = self.first(key.tuple.source);
        twin.tuple.destination = self.first(key.tuple.destination);
        twin
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn twins_get_the_same_outcome(mut choices in choices()) {
        let prefix = choices.of(&[0x2001_0db8 << 96, 0, 0xff << 120]);
        let twin = Twin { prefix, shift: choices.of(&[0, 64]) };
        let mut program = program(&mut choices);
        twin.give(&mut program);
        let program = Arc::new(program);
        let aims = Aims::at(&program);
        let mut tree = Budgets::default();
        tree.classes.clauses = 0;
        let tables = [ample(&mut choices), tree, Budgets::LINEAR].map(|budgets| built(&program, &budgets).table);
        for _ in 0..60 {
            let mut key = aims.key(&mut choices, &tables[0]);
            key.tuple = aims.tuple_of(&mut choices, Family::V4);
            // E-50: neighbour discovery is IPv6's own.
            if key.tuple.protocol == protocol::ICMPV6 && key.hook == Hook::FilterInput {
                continue;
            }
            for table in &tables {
                let (own, other) = (table.decide(&key), table.decide(&twin.of(&key)));
                prop_assert_eq!(own, other, "{:?} {:?}\n{}", twin, key, shown(&program));
            }
        }
    }
}
