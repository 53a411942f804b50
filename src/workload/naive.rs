//! Judging flows by what was made from the seed, without compiler and table: slow, and an oracle for both.

use std::fmt::Debug;

use crate::flow::{FiveTuple, Verdict};
use crate::program::{Reason, RuleOrigin};

/// What the ingress policies of whoever has the destination say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NaiveAnswer {
    /// Whether the flow is allowed.
    pub allows: bool,
    /// Policy and rule that decided. None: the profile allowed, for want of a policy or because all tiers were passed;
    /// or the last tier denied, because no rule matched.
    pub rule: Option<(usize, usize)>,
}

/// Policies that judge by themselves.
pub trait Naive: Debug + Send + Sync {
    /// The answer to a new connection; `None` where nobody has the destination.
    fn judge(&self, tuple: &FiveTuple) -> Option<NaiveAnswer>;

    /// The name of a policy, as in answers.
    fn policy(&self, index: usize) -> &str;

    /// Whether a table's verdict and its meaning say the same.
    fn agrees(&self, answer: Option<NaiveAnswer>, verdict: Verdict, origin: &RuleOrigin) -> bool {
        let Some(NaiveAnswer { allows, rule }) = answer else {
            return false;
        };
        let expected = if allows { Verdict::Allow } else { Verdict::Deny };
        verdict == expected
            && match rule {
                Some((policy, rule)) => {
                    origin.policy.as_deref() == Some(self.policy(policy))
                        && origin.rule.map(|number| number as usize) == Some(rule)
                }
                None if allows => origin.reason == Reason::ProfileRule,
                None => origin.reason == Reason::EndOfTier,
            }
    }
}
