//! The forms of blocks: what each asks of a packet.
#![expect(clippy::inline_always, reason = "as of walks")]

use super::image::{Form, Line, Nets, Ranges, Services};
use super::lanes::Lanes;
use super::walk::{Key, Walked};

/// The lines of a block.
pub trait Block: Copy + AsRef<[Line]> {
    /// How many.
    const LINES: usize;

    /// Of so many lines.
    fn of(lines: &[Line]) -> &Self;

    /// In which answers are.
    #[inline(always)]
    fn last(&self) -> &Line {
        &self.as_ref()[Self::LINES - 1]
    }

    /// What is worked out for a packet once, beside its key.
    type More: Copy;
    /// Of a packet that does not count.
    const NOTHING: Self::More;

    /// Of a packet.
    fn more(image: &Walked<'_>, key: &Key) -> Self::More;

    /// The lanes whose rules hold the key, as bits.
    fn matches<L: Lanes>(&self, key: &Key, more: &Self::More) -> u32;
}

impl Block for Services {
    const LINES: usize = Form::Services.lines();
    type More = Line;
    const NOTHING: Line = Line([0; 16]);

    #[inline(always)]
    fn of(lines: &[Line]) -> &Self {
        lines.try_into().expect("as many lines")
    }

    #[inline(always)]
    fn more(image: &Walked<'_>, key: &Key) -> Line {
        let ports = key.ports();
        let values = [ports & 0xFFFF, ports >> 16, key.protocol()];
        let [first, second, third] = std::array::from_fn(|index| image.outside(index, values[index]));
        Line(std::array::from_fn(|word| first.0[word] | second.0[word] | third.0[word]))
    }

    #[inline(always)]
    fn matches<L: Lanes>(&self, key: &Key, outside: &Line) -> u32 {
        L::in_services(self, key, outside)
    }
}

/// Blocks that need no more of a packet than its key.
macro_rules! by_key {
    ($block:ident, $matches:ident) => {
        impl Block for $block {
            const LINES: usize = Form::$block.lines();
            type More = ();
            const NOTHING: () = ();

            #[inline(always)]
            fn of(lines: &[Line]) -> &Self {
                lines.try_into().expect("as many lines")
            }

            #[inline(always)]
            fn more(_: &Walked<'_>, _: &Key) {}

            #[inline(always)]
            fn matches<L: Lanes>(&self, key: &Key, (): &()) -> u32 {
                L::$matches(self, key)
            }
        }
    };
}

by_key!(Nets, in_nets);
by_key!(Ranges, in_ranges);

/// A packet, as blocks of a form are asked.
#[derive(Clone, Copy)]
pub struct Asked<B: Block> {
    /// As nodes are asked.
    pub key: Key,
    more: B::More,
}

impl<B: Block> Asked<B> {
    /// One that does not count.
    pub const NOTHING: Self = Self { key: Key::NOTHING, more: B::NOTHING };

    #[inline(always)]
    pub fn new(image: &Walked<'_>, key: Key) -> Self {
        Self { key, more: B::more(image, &key) }
    }

    #[inline(always)]
    pub fn matches<L: Lanes>(&self, block: &B) -> u32 {
        block.matches::<L>(&self.key, &self.more)
    }
}
