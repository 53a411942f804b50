//! Class to local class, for every dimension of every chain. Chains differ in few places, so equal parts are one: blocks
//! of 32 local classes; in images that would be large otherwise, groups of 16 blocks; and whole maps. Local classes of
//! addresses are few, and the blocks that lead to them make up most of an image: they are as narrow as can be.

use rustc_hash::FxHashMap;

use super::image::Builder;
use super::local::Axis;
use super::{BLOCK, GROUP};

/// How many bits a local class has in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Its binary logarithm: 2, 3 or 4.
    pub log: u32,
}

impl Width {
    /// That of services and ports: they are looked up with fewer steps.
    pub const WIDE: Self = Self { log: 4 };

    /// The least one for so many local classes.
    pub fn of(count: usize) -> Self {
        let fitting = [2, 3].into_iter().map(|log| Self { log });
        fitting.into_iter().find(|width| count <= 1 << (1 << width.log)).unwrap_or(Self::WIDE)
    }

    /// The bits of one.
    pub const fn mask(self) -> u32 {
        (1 << (1 << self.log)) - 1
    }

    /// Words of a block.
    pub const fn words(self) -> usize {
        BLOCK << self.log >> u32::BITS.trailing_zeros()
    }

    fn packed(self, block: &[u16; BLOCK]) -> Box<[u32]> {
        let mut words = vec![0; self.words()];
        for (bit, &local) in (0..).step_by(1 << self.log).zip(block) {
            words[bit / 32] |= u32::from(local) << (bit % 32);
        }
        words.into()
    }
}

/// Parts of maps that are in the image.
#[derive(Debug)]
pub struct Maps {
    /// Maps lead to groups, not to blocks.
    is_deep: bool,
    blocks: FxHashMap<Box<[u32]>, u32>,
    /// Groups and maps.
    offsets: FxHashMap<Box<[u32]>, u32>,
}

impl Maps {
    /// None yet.
    pub fn new(is_deep: bool) -> Self {
        Self { is_deep, blocks: FxHashMap::default(), offsets: FxHashMap::default() }
    }

    /// Words that writing a map takes at most: that of any axis, of which so many blocks are not like the others.
    pub fn most_words(classes: usize, blocks: usize) -> usize {
        let all = classes.div_ceil(BLOCK);
        (blocks + 1) * BLOCK / 2 + all + all.div_ceil(GROUP)
    }

    /// Writes what is not there yet; the offset of the map.
    pub fn write(&mut self, image: &mut Builder, axis: &Axis, width: Width) -> u32 {
        let other = self.block(image, &[axis.other; BLOCK], width);
        let mut offsets = vec![other; axis.classes.div_ceil(BLOCK)];
        for (index, block) in &axis.blocks {
            offsets[*index] = self.block(image, block, width);
        }
        if self.is_deep {
            offsets = offsets.chunks(GROUP).map(|group| self.offsets(image, group)).collect();
        }
        self.offsets(image, &offsets)
    }

    /// Writes a map of one level that is nobody else's, with room for so many blocks.
    pub fn write_own(&mut self, image: &mut Builder, axis: &Axis, width: Width, room: usize) -> u32 {
        let other = self.block(image, &[axis.other; BLOCK], width);
        let mut offsets = vec![other; room];
        for (index, block) in &axis.blocks {
            offsets[*index] = self.block(image, block, width);
        }
        image.push(offsets)
    }

    fn block(&mut self, image: &mut Builder, block: &[u16; BLOCK], width: Width) -> u32 {
        let entry = self.blocks.entry(width.packed(block));
        *entry.or_insert_with_key(|words| image.push(words.iter().copied()))
    }

    fn offsets(&mut self, image: &mut Builder, offsets: &[u32]) -> u32 {
        if let Some(&known) = self.offsets.get(offsets) {
            return known;
        }
        let offset = image.push(offsets.iter().copied());
        self.offsets.insert(offsets.into(), offset);
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_width_hold_their_local_classes() {
        for (count, log) in [(1, 2), (16, 2), (17, 3), (256, 3), (257, 4), (65536, 4)] {
            let width = Width::of(count);
            assert_eq!(width.log, log, "{count} local classes");
            let most = u16::try_from(count - 1).expect("16 bits");
            let mut block: [u16; BLOCK] =
                std::array::from_fn(|class| most - most.min(3 * u16::try_from(class).expect("small")));
            let mut image = Builder::new(usize::MAX);
            image.push([7]);
            let at = Maps::new(false).block(&mut image, &block, width);
            assert_eq!(image.offset() - at, u32::try_from(width.words()).expect("a block is small"));
            for changed in [0, 13, BLOCK - 1] {
                block[changed] = most / 2;
                image.set_bits(at, u32::try_from(changed).expect("small"), width, u32::from(most / 2));
                let read = image.image().expect("memory");
                for (class, local) in (0..).zip(block.map(u32::from)) {
                    assert_eq!(image.bits(at, class, width), local, "{count}: {class}");
                    assert_eq!(read.bits(at, class, width.log, width.mask()), local, "{count}: {class}");
                }
            }
        }
    }
}
