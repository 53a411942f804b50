//! Random programs, one after the other, under generous, tiny and no budgets.

use std::sync::Arc;

use labelgate::table::Budgets;
use proptest::prelude::*;

use crate::budgets::{ample, tiny};
use crate::choices::{Choices, choices};
use crate::equal::{Expected, built};
use crate::packets::Aims;
use crate::programs::program;

const PACKETS: usize = 60;

/// `make test-long` asks for more.
pub fn programs() -> u64 {
    let wanted = std::env::var("LABELGATE_PROGRAMS");
    wanted.map_or(150, |count| count.parse().expect("LABELGATE_PROGRAMS is a number"))
}

fn check(mut choices: Choices) {
    let program = Arc::new(program(&mut choices));
    let aims = Aims::at(&program);
    let linear = built(&program, &Budgets::LINEAR);
    let others = [&ample(&mut choices), &tiny(&mut choices)].map(|budgets| built(&program, budgets));
    for _ in 0..PACKETS {
        let key = aims.key(&mut choices, &linear.table);
        let expected = Expected::of(&linear.table, key);
        for other in &others {
            expected.assert_same(other, other.table.decide(&key));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_engine_answers_alike(choices in choices()) {
        check(choices);
    }
}

#[test]
fn every_engine_answers_alike_to_many() {
    for seed in 0..programs() {
        check(Choices::Seeded(seed));
    }
}
