//! The memory of an image that nobody reads any more, for a later one: few of its pages have changed since, so that an
//! edit copies those and no whole image.

use std::sync::{Arc, Mutex, Weak};

use crate::table::memory::Memory;

/// Words of a page.
const PAGE: usize = 1 << 10;

/// An image as it was when so many had been made.
#[derive(Debug)]
struct Spare {
    made: u64,
    memory: Memory,
}

/// Where the last image that was let go is left.
#[derive(Debug, Default)]
struct Place(Mutex<Option<Spare>>);

/// Where an image goes when nobody reads it any more: to the builder that made it, as long as there is one.
#[derive(Clone, Debug)]
pub struct Home {
    place: Weak<Place>,
    made: u64,
}

impl Home {
    /// Whoever lets an image go may be in a hurry: it waits for nobody, and leaves the memory to the system then.
    pub fn give(&self, memory: Memory) {
        let Some(place) = self.place.upgrade() else { return };
        let Ok(mut spare) = place.0.try_lock() else { return };
        if spare.as_ref().is_none_or(|spare| spare.made < self.made) {
            *spare = Some(Spare { made: self.made, memory });
        }
    }
}

/// What has changed since which image.
#[derive(Debug, Default)]
pub struct Pages {
    /// How many images have been made.
    made: u64,
    /// By page: how many images had been made when it changed last.
    changed: Vec<u64>,
    place: Arc<Place>,
}

impl Pages {
    /// Words from one to before another have changed, or have come.
    pub fn change(&mut self, from: usize, to: usize) {
        let behind = to.div_ceil(PAGE);
        if behind > self.changed.len() {
            self.changed.resize(behind, self.made);
        }
        self.changed[from / PAGE..behind].fill(self.made);
    }

    /// There are only so many words left.
    pub fn truncate(&mut self, words: usize) {
        self.changed.truncate(words.div_ceil(PAGE));
    }

    /// A copy of the words, and where it goes in the end.
    pub fn copy(&mut self, words: &[u32]) -> (Memory, Home) {
        let bytes = size_of_val(words);
        let spare = self.place.0.lock().ok().and_then(|mut spare| spare.take());
        let fitting =
            spare.and_then(|Spare { made, mut memory }| memory.resize(bytes).then_some((made, memory)));
        let copy = if let Some((made, mut old)) = fitting {
            let to = bytemuck::cast_slice_mut::<u8, u32>(old.bytes_mut());
            for (page, _) in self.changed.iter().enumerate().filter(|(_, changed)| **changed >= made) {
                let end = words.len().min((page + 1) * PAGE);
                let from = end.min(page * PAGE);
                to[from..end].copy_from_slice(&words[from..end]);
            }
            old
        } else {
            // An image that is edited grows.
            let room = if self.made == 0 { 0 } else { bytes / 4 };
            let mut new = Memory::zeroed(bytes, bytes + room);
            new.bytes_mut().copy_from_slice(bytemuck::cast_slice(words));
            new
        };
        self.made += 1;
        (copy, Home { place: Arc::downgrade(&self.place), made: self.made })
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::Builder;

    /// Whatever is read and let go in between, an image is what the builder holds.
    #[test]
    fn images_are_what_was_written_whatever_has_been_let_go() {
        let mut builder = Builder::new(usize::MAX);
        let mut expected: Vec<u32> = (0..10_000).collect();
        builder.push(expected.iter().copied());
        let mut read = Vec::new();
        for step in 0..40_u32 {
            let at = step * 7919 % 10_000;
            builder.set(at, &[step + 1]);
            expected[at as usize] = step + 1;
            builder.set_half(at / 2, 1, step);
            let word = &mut expected[(at / 2) as usize];
            *word = *word & 0xffff | step << 16;
            if step % 3 == 0 {
                builder.push([step; 1500]);
                expected.extend([step; 1500]);
            }
            let image = builder.image();
            expected.resize(builder.bytes() / size_of::<u32>(), 0);
            read.push((image, expected.clone()));
            if step % 4 > 1 {
                read.remove(0);
            }
            for (image, expected) in read.iter().rev().take(3) {
                assert!((0..).zip(expected).all(|(at, &word)| image.word(at) == word), "{step}");
            }
        }
    }
}
