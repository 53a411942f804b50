//! Changes in an image that nobody reads yet. Tables that other places may lead to are copied before they are changed.

use rustc_hash::{FxHashMap, FxHashSet};

use super::image::Builder;
use super::limits::Refused;
use super::ranges::V6;
use super::{BLOCK, BLOCK_WORD};

/// What may be changed in place, and what is there more than once.
#[derive(Debug, Default)]
pub struct Patches {
    /// Tables that one place leads to.
    own: FxHashSet<u32>,
    /// Class to tables of 256 values, and of 256 such tables, that have no other.
    uniform: FxHashMap<u32, [u32; 2]>,
}

/// Addresses in a span that are written one by one.
const FEW: u128 = 64;

impl Patches {
    /// The table that the word at this offset leads to, which is nobody else's then.
    fn own(&mut self, image: &mut Builder, at: u32, words: usize) -> Result<u32, Refused> {
        let table = image.word(at);
        if self.own.contains(&table) {
            return Ok(table);
        }
        image.check(words)?;
        let copy = image.copy(table, words);
        image.set(at, &[copy]);
        self.own.insert(copy);
        Ok(copy)
    }

    #[allow(clippy::cast_possible_truncation)] // Classes of addresses have 16 bits.
    fn uniform(&mut self, image: &mut Builder, class: u32) -> Result<[u32; 2], Refused> {
        if let Some(&known) = self.uniform.get(&class) {
            return Ok(known);
        }
        image.check(128 + 256)?;
        let block = image.push_halves(&[class as u16; 256]);
        let middle = image.push([block; 256]);
        self.uniform.insert(class, [block, middle]);
        Ok([block, middle])
    }

    /// Gives IPv4 addresses another class.
    pub fn v4(
        &mut self,
        image: &mut Builder,
        root: u32,
        (first, last, class): (u32, u32, u32),
    ) -> Result<(), Refused> {
        for upper in first >> 16..=last >> 16 {
            let (from, to) = (first.max(upper << 16), last.min(upper << 16 | 0xffff));
            if to - from == 0xffff {
                let [_, middle] = self.uniform(image, class)?;
                image.set(root + upper, &[middle]);
                continue;
            }
            let middle = self.own(image, root + upper, 256)?;
            for third in from >> 8..=to >> 8 {
                let (from, to) = (from.max(third << 8), to.min(third << 8 | 0xff));
                let at = middle + (third & 0xff);
                if to - from == 0xff {
                    let [block, _] = self.uniform(image, class)?;
                    image.set(at, &[block]);
                    continue;
                }
                let block = self.own(image, at, 128)?;
                for address in from..=to {
                    image.set_half(block, address & 0xff, class);
                }
            }
        }
        Ok(())
    }

    /// Gives IPv6 addresses another class; says whether there was room for that.
    pub fn v6(image: &mut Builder, roots: &V6, moved: &[(u128, u128, u32)]) -> bool {
        moved.iter().all(|&(first, last, class)| {
            last - first < FEW && (first..=last).all(|address| roots.put(image, address, class))
        })
    }

    /// Sets the local class of a class in a map of 16-bit blocks.
    #[allow(clippy::cast_possible_truncation)] // Blocks are small.
    pub fn local(&mut self, image: &mut Builder, map: u32, class: u32, local: u16) -> Result<(), Refused> {
        let (at, index) = (map + class / BLOCK_WORD, class % BLOCK_WORD);
        if image.half(image.word(at), index) == u32::from(local) {
            return Ok(());
        }
        let block = self.own(image, at, BLOCK / 2)?;
        image.set_half(block, index, u32::from(local));
        Ok(())
    }
}
