//! The keys of the widest interval: those of addresses that no policy knows, mostly.

use super::spans::{NOTHING, Span};

/// The interval that has the most of [`GLOBAL`], or what is left of it: what the tree says of its keys, without the tree.
/// So it is not in the image. A key in it that leads elsewhere since tables were built is in its first bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wide {
    first: u64,
    /// How many keys of it are told by the comparison: all but the last, as 64 bits may not count that. 0 without an interval.
    count: u64,
    /// What they lead to.
    pub span: Span,
}

/// The upper halves of global unicast addresses, which strangers have (IANA: `2000::/3`).
const GLOBAL: (u64, u64) = (0x2000 << 48, (0x4000 << 48) - 1);

impl Wide {
    /// Of keys and the spans that they and all up to the next one lead to, ascending from 0 on.
    pub fn of(leads: &[(u64, Span)]) -> Self {
        let lasts = leads.iter().skip(1).map(|&(next, _)| next - 1).chain([u64::MAX]);
        let intervals = leads.iter().zip(lasts).map(|(&(first, span), last)| (first, last, span));
        let global =
            |&(first, last, _): &(u64, u64, Span)| last.min(GLOBAL.1).saturating_sub(first.max(GLOBAL.0));
        let widest = intervals.max_by_key(global).filter(|interval| global(interval) > 0);
        let (first, last, span) = widest.unwrap_or((u64::MAX, u64::MAX, NOTHING));
        Self { first, count: last - first, span }
    }

    /// Without this key: what is left is the longer of both sides.
    pub const fn cut(&mut self, key: u64) {
        if self.holds(key) {
            let before = key - self.first;
            let behind = self.count - before - 1;
            if before >= behind {
                self.count = before;
            } else {
                (self.first, self.count) = (key + 1, behind);
            }
        }
    }

    /// Whether a key is of it.
    #[inline]
    pub const fn holds(&self, key: u64) -> bool {
        key.wrapping_sub(self.first) < self.count
    }
}
