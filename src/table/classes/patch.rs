//! Changes in an image that nobody reads yet. Tables that other places may lead to are copied before they are changed.

use rustc_hash::{FxHashMap, FxHashSet};

use super::image::Builder;
use super::limits::Refused;
use super::maps::{Map, Maps};
use super::ranges::Keys;

/// What may be changed in place, and what is there more than once.
#[derive(Debug, Default)]
pub struct Patches {
    /// Tables that one place leads to.
    own: FxHashSet<u32>,
    /// Class to tables of 256 values, and of 256 such tables, that have no other.
    uniform: FxHashMap<u32, [u32; 2]>,
}

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

    /// Gives keys another class; a protocol's group says which keys it has ([`Keys::number`]).
    pub fn keys(
        &mut self,
        image: &mut Builder,
        roots: Keys,
        groups: &[u8],
        (first, last, class): (u32, u32, u32),
    ) -> Result<(), Refused> {
        for (group, from, to) in Keys::of_groups(first, last) {
            let Some(directory) = self.directory(image, roots, groups, group)? else { continue };
            for upper in from >> 8..=to >> 8 {
                let (from, to) = (from.max(upper << 8), to.min(upper << 8 | 0xff));
                let at = directory + upper;
                if to - from == 0xff {
                    let [block, _] = self.uniform(image, class)?;
                    image.set(at, &[block]);
                    continue;
                }
                let block = self.own(image, at, 128)?;
                for key in from..=to {
                    image.set_half(block, key & 0xff, class);
                }
            }
        }
        Ok(())
    }

    /// The directory of a group's protocols, which no other group has then; none if it has no protocol.
    fn directory(
        &mut self,
        image: &mut Builder,
        roots: Keys,
        groups: &[u8],
        group: u32,
    ) -> Result<Option<u32>, Refused> {
        let mut protocols = (0..).zip(groups).filter(|(_, of)| u32::from(**of) == group).map(|(at, _)| at);
        let Some(first) = protocols.next() else { return Ok(None) };
        let directory = self.own(image, roots.protocols + first, Keys::DIRECTORY as usize)?;
        for protocol in protocols {
            image.set(roots.protocols + protocol, &[directory]);
        }
        Ok(Some(directory))
    }

    /// Sets the local class of a class in a map that is nobody else's.
    pub fn local(
        &mut self,
        image: &mut Builder,
        maps: &Maps,
        map: Map,
        class: u32,
        local: u16,
    ) -> Result<(), Refused> {
        if maps.local(image, map, class) == u32::from(local) {
            return Ok(());
        }
        let (block, index) = maps.place(map, class);
        let block = match block {
            Some(at) => self.own(image, at, map.width.words())?,
            None => map.at,
        };
        image.set_bits(block, index, map.width, u32::from(local));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::table::point::OPAQUE;

    /// Where tables begin and end, and anywhere.
    fn key() -> impl Strategy<Value = u32> {
        prop_oneof![0..4_u32, 250..260_u32, 510..514_u32, OPAQUE - 2..=OPAQUE, 0..=OPAQUE]
    }

    proptest! {
        /// Keys get the class that they are given, in the protocols of the group, and no other key gets it.
        #[test]
        fn keys_are_given_classes(moves in vec((0..3_u8, key(), key(), 1..9_u32), 1..8)) {
            let groups: Vec<u8> = (0..=255).map(|protocol| protocol % 3).collect();
            let mut image = Builder::new(usize::MAX);
            image.push([0; 16]);
            let roots = Keys::build(&mut image, &groups, &[(0, 0)]).expect("no limit");
            let mut patches = Patches::default();
            let mut expected = vec![vec![0; OPAQUE as usize + 1]; 3];
            for (group, one, two, class) in moves {
                let (first, last) = (one.min(two), one.max(two));
                let numbers = [first, last].map(|key| Keys::number(group.into(), key));
                patches.keys(&mut image, roots, &groups, (numbers[0], numbers[1], class)).expect("no limit");
                expected[usize::from(group)][first as usize..=last as usize].fill(class);
            }
            let image = image.image().expect("memory");
            for protocol in [0, 1, 2, 253, 254, 255_u8] {
                for (key, &class) in (0..).zip(&expected[usize::from(protocol % 3)]) {
                    prop_assert_eq!(roots.class(&image, protocol, key), class, "{} {}", protocol, key);
                }
            }
        }
    }
}
