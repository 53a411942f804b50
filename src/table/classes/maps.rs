//! Class to local class, for every dimension of every chain. Chains differ in few places, so equal parts are one: blocks
//! of 32 local classes; in images that would be large otherwise, groups of 16 blocks; and whole maps.

use rustc_hash::FxHashMap;

use super::image::Builder;
use super::local::Axis;
use super::{BLOCK, GROUP};

/// Parts of maps that are in the image.
#[derive(Debug)]
pub struct Maps {
    /// Maps lead to groups, not to blocks.
    is_deep: bool,
    blocks: FxHashMap<[u16; BLOCK], u32>,
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
    pub fn write(&mut self, image: &mut Builder, axis: &Axis) -> u32 {
        let other = self.block(image, &[axis.other; BLOCK]);
        let mut offsets = vec![other; axis.classes.div_ceil(BLOCK)];
        for (index, block) in &axis.blocks {
            offsets[*index] = self.block(image, block);
        }
        if self.is_deep {
            offsets = offsets.chunks(GROUP).map(|group| self.offsets(image, group)).collect();
        }
        self.offsets(image, &offsets)
    }

    /// Writes a map of one level that is nobody else's, with room for so many blocks.
    pub fn write_own(&mut self, image: &mut Builder, axis: &Axis, room: usize) -> u32 {
        let other = self.block(image, &[axis.other; BLOCK]);
        let mut offsets = vec![other; room];
        for (index, block) in &axis.blocks {
            offsets[*index] = self.block(image, block);
        }
        image.push(offsets)
    }

    fn block(&mut self, image: &mut Builder, block: &[u16; BLOCK]) -> u32 {
        *self.blocks.entry(*block).or_insert_with(|| image.push_halves(block))
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
