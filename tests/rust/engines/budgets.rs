//! Budgets that are too small: every guard speaks, and what it refuses is answered all the same.

use labelgate::table::Budgets;

use crate::choices::Choices;

/// One of the budgets is next to nothing.
pub fn tiny(choices: &mut Choices) -> Budgets {
    let mut budgets = Budgets::default();
    match choices.below(3) {
        0 => budgets.classes.clauses = choices.below(8),
        1 => budgets.classes.cells = choices.below(100),
        _ => budgets.classes.bytes = choices.below(1 << 16),
    }
    budgets
}
