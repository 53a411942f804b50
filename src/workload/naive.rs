//! Judging flows by what was made from the seed, without compiler and table: slow, and an oracle for both.

use std::fmt::Debug;

use crate::flow::{Direction, FiveTuple, Verdict};
use crate::program::{Reason, RuleOrigin};

/// What the policies of whoever has the destination say, or of whoever has the source, or of both in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NaiveAnswer {
    /// Whether the flow is allowed.
    pub allows: bool,
    /// Of the policies that decided: ingress is the destination's.
    pub direction: Direction,
    /// Policy and rule that decided, or why none did: the profile allowed, for want of a policy or because all tiers were
    /// passed; the last tier denied, because no rule matched; a workload sends what is encapsulated.
    pub rule: Result<(usize, usize), Reason>,
}

/// Policies that judge by themselves.
pub trait Naive: Debug + Send + Sync {
    /// The answer to a new connection; `None` where nobody has the address whose policies are asked.
    fn judge(&self, tuple: &FiveTuple) -> Option<NaiveAnswer>;

    /// The name of a policy, as in answers.
    fn policy(&self, index: usize) -> &str;

    /// Whether a table's verdict and its meaning say the same.
    fn agrees(&self, answer: Option<NaiveAnswer>, verdict: Verdict, origin: &RuleOrigin) -> bool {
        let Some(NaiveAnswer { allows, direction, rule }) = answer else {
            return false;
        };
        let expected = if allows { Verdict::Allow } else { Verdict::Deny };
        verdict == expected
            // What is settled beside policies has none.
            && origin.direction.is_none_or(|found| found == direction)
            && match rule {
                Ok((policy, rule)) => {
                    origin.policy.as_deref() == Some(self.policy(policy))
                        && origin.rule.map(|number| number as usize) == Some(rule)
                }
                Err(reason) => origin.reason == reason,
            }
    }
}
