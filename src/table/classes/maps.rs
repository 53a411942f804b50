//! Class to local class, for every dimension of every chain. In small images the local classes lie in the maps. Elsewhere
//! chains differ in few places, so equal parts are one: blocks of 32 local classes; in images that would be large otherwise,
//! groups of 16 blocks; and whole maps. Local classes of addresses are few, and they make up most of an image: they are as
//! narrow as can be.

use rustc_hash::FxHashMap;

use super::image::Builder;
use super::local::Axis;
use super::{BLOCK, BLOCK_WORD, DEEP, DIRECT, GROUP};

/// How many bits a local class has in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Its binary logarithm: 0 to 4.
    pub log: u32,
}

impl Width {
    /// Enough for all.
    pub const WIDE: Self = Self { log: 4 };
    /// Of [`Self::MOST_OF_BYTES`] local classes.
    const BYTES: Self = Self { log: 3 };
    /// Bytes hold so many.
    pub const MOST_OF_BYTES: usize = 256;

    /// The least one for so many local classes.
    pub fn of(count: usize) -> Self {
        let fitting = (0..Self::WIDE.log).map(|log| Self { log });
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
        self.pack(block, &mut words);
        words.into()
    }

    /// Into so many words.
    fn pack(self, block: &[u16; BLOCK], words: &mut [u32]) {
        for (bit, &local) in (0..).step_by(1 << self.log).zip(block) {
            words[bit / 32] |= u32::from(local) << (bit % 32);
        }
    }
}

/// A map in an image.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// Where it begins.
    pub at: u32,
    /// Of its local classes.
    pub width: Width,
}

/// Parts of maps that are in the image.
#[derive(Debug)]
pub struct Maps {
    /// [`DIRECT`], or how many levels lead to blocks.
    levels: u32,
    blocks: FxHashMap<Box<[u32]>, u32>,
    /// Groups and maps.
    shared: FxHashMap<Box<[u32]>, u32>,
}

impl Maps {
    /// None yet.
    pub fn new(levels: u32) -> Self {
        Self { levels, blocks: FxHashMap::default(), shared: FxHashMap::default() }
    }

    /// That of services and ports: they are looked up with fewer steps.
    pub fn keys(&self) -> Width {
        if self.levels == DIRECT { Width::BYTES } else { Width::WIDE }
    }

    /// Words that writing a map takes at most: that of any axis, of which so many blocks are not like the others.
    pub fn most_words(&self, classes: usize, blocks: usize) -> usize {
        let all = classes.div_ceil(BLOCK);
        if self.levels == DIRECT {
            all * Width::WIDE.words()
        } else {
            (blocks + 1) * Width::WIDE.words() + all + all.div_ceil(GROUP)
        }
    }

    /// Writes what is not there yet; the offset of the map.
    pub fn write(&mut self, image: &mut Builder, axis: &Axis, width: Width) -> u32 {
        let mut words = self.words(image, axis, width, axis.classes.div_ceil(BLOCK));
        if self.levels == DEEP {
            words = words.chunks(GROUP).map(|group| self.shared(image, group)).collect();
        }
        self.shared(image, &words)
    }

    /// Writes a map that has no groups and is nobody else's, with room for so many blocks.
    pub fn write_own(&mut self, image: &mut Builder, axis: &Axis, width: Width, room: usize) -> u32 {
        let words = self.words(image, axis, width, room);
        image.push(words)
    }

    /// Of a map: the local classes, or where the blocks are.
    fn words(&mut self, image: &mut Builder, axis: &Axis, width: Width, blocks: usize) -> Vec<u32> {
        if self.levels == DIRECT {
            let mut words = width.packed(&[axis.other; BLOCK]).repeat(blocks);
            for (index, block) in &axis.blocks {
                let place = &mut words[index * width.words()..][..width.words()];
                place.fill(0);
                width.pack(block, place);
            }
            return words;
        }
        let other = self.block(image, &[axis.other; BLOCK], width);
        let mut offsets = vec![other; blocks];
        for (index, block) in &axis.blocks {
            offsets[*index] = self.block(image, block, width);
        }
        offsets
    }

    /// Of a map that has no groups: where the offset of a class's block stands, if maps lead to blocks, and the class's
    /// index there.
    pub fn place(&self, map: Map, class: u32) -> (Option<u32>, u32) {
        if self.levels == DIRECT {
            (None, class)
        } else {
            (Some(map.at + class / BLOCK_WORD), class % BLOCK_WORD)
        }
    }

    /// The local class of a class in such a map.
    pub fn local(&self, image: &Builder, map: Map, class: u32) -> u32 {
        let (block, index) = self.place(map, class);
        image.bits(block.map_or(map.at, |at| image.word(at)), index, map.width)
    }

    fn block(&mut self, image: &mut Builder, block: &[u16; BLOCK], width: Width) -> u32 {
        let entry = self.blocks.entry(width.packed(block));
        *entry.or_insert_with_key(|words| image.push(words.iter().copied()))
    }

    fn shared(&mut self, image: &mut Builder, words: &[u32]) -> u32 {
        if let Some(&known) = self.shared.get(words) {
            return known;
        }
        let offset = image.push(words.iter().copied());
        self.shared.insert(words.into(), offset);
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::super::FLAT;
    use super::*;

    #[test]
    fn blocks_of_every_width_hold_their_local_classes() {
        for (count, log) in
            [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (16, 2), (17, 3), (256, 3), (257, 4), (65536, 4)]
        {
            let width = Width::of(count);
            assert_eq!(width.log, log, "{count} local classes");
            let most = u16::try_from(count - 1).expect("16 bits");
            let mut block: [u16; BLOCK] =
                std::array::from_fn(|class| most - most.min(3 * u16::try_from(class).expect("small")));
            let mut image = Builder::new(usize::MAX);
            image.push([7]);
            let at = Maps::new(FLAT).block(&mut image, &block, width);
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
