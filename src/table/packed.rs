//! A decision in one word, as calls return it in a register: so that none of them writes it down for its caller to read.

use std::num::NonZero;

use super::Decision;
use crate::flow::{OutcomeId, Verdict};

/// The outcome, and above it the rest.
#[derive(Clone, Copy, Debug)]
pub struct Packed(NonZero<u64>);

/// Where the verdict is.
const VERDICT: u32 = u32::BITS;
const FAILSAFE: u64 = 1 << 40;
const ACCEPTED: u64 = 1 << 48;
/// Of every decision, so that none is zero.
const DECIDED: u64 = 1 << 63;

const DENY: u8 = Verdict::Deny as u8;
const ALLOW: u8 = Verdict::Allow as u8;
const ALLOW_NOTRACK: u8 = Verdict::AllowNotrack as u8;
const ALLOW_SKIP_HEP: u8 = Verdict::AllowSkipHep as u8;
// `decision` knows them all.
const _: () = assert!(Verdict::ALL.len() == 5);

impl Packed {
    /// Denied for no reason, in a list by kinds of answers: what stands for a kind that none has.
    pub const DENY: Self = Self::of_bits((DENY as u64) << VERDICT);

    const fn of_bits(bits: u64) -> Self {
        Self(NonZero::new(DECIDED | bits).expect("a bit is set"))
    }

    /// A decision.
    #[inline]
    pub fn of(decision: Decision) -> Self {
        Self::but_outcome(decision).with(decision.outcome)
    }

    /// A decision whose outcome is not known yet.
    #[inline]
    pub fn but_outcome(Decision { verdict, failsafe, accepted, .. }: Decision) -> Self {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        Self::of_bits((verdict as u64) << VERDICT | bit(failsafe, FAILSAFE) | bit(accepted, ACCEPTED))
    }

    /// The same with its outcome; it had [none](Self::but_outcome).
    #[inline]
    pub fn with(self, outcome: OutcomeId) -> Self {
        debug_assert_eq!(self.decision().outcome.number(), 0, "there is one already");
        Self(self.0 | u64::from(outcome.number()))
    }

    /// As others know it.
    #[inline]
    pub fn decision(self) -> Decision {
        let word = self.0.get();
        #[allow(clippy::cast_possible_truncation)] // Its parts.
        let (verdict, outcome) = ((word >> VERDICT) as u8, OutcomeId::from_number(word as u32));
        let verdict = match verdict {
            DENY => Verdict::Deny,
            ALLOW => Verdict::Allow,
            ALLOW_NOTRACK => Verdict::AllowNotrack,
            ALLOW_SKIP_HEP => Verdict::AllowSkipHep,
            _ => Verdict::Continue,
        };
        Decision { verdict, failsafe: word & FAILSAFE != 0, accepted: word & ACCEPTED != 0, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_comes_out() {
        for verdict in Verdict::ALL {
            for (failsafe, accepted) in [(false, false), (false, true), (true, false), (true, true)] {
                for outcome in [0, 1, u32::MAX >> 2, u32::MAX] {
                    let outcome = OutcomeId::from_number(outcome);
                    let decision = Decision { verdict, failsafe, accepted, outcome };
                    assert_eq!(Packed::of(decision).decision(), decision);
                    assert_eq!(Packed::but_outcome(decision).with(outcome).decision(), decision);
                }
            }
        }
        assert_eq!(Packed::DENY.decision().verdict, Verdict::Deny);
    }
}
