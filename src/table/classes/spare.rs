//! The memory of an image that nobody reads any more, for a later one: few of its parts have changed since, so that an
//! edit copies those and no whole image.

use std::io;
use std::sync::{Arc, Mutex, Weak};

use crate::table::pages::Pages;

/// Words that are copied together.
const PART: usize = 1 << 10;

/// An image as it was when so many had been made.
#[derive(Debug)]
struct Spare {
    made: u64,
    pages: Pages,
}

/// Where the last image that was let go is left.
#[derive(Debug, Default)]
struct Place(Mutex<Option<Spare>>);

/// Where an image goes when nobody reads it any more: to the builder that made it, as long as there is one.
#[derive(Debug)]
pub struct Home {
    place: Weak<Place>,
    made: u64,
}

impl Home {
    /// Whoever lets an image go may be in a hurry: it waits for nobody, and leaves the memory to the system then.
    pub fn give(&self, pages: Pages) {
        let Some(place) = self.place.upgrade() else { return };
        let Ok(mut spare) = place.0.try_lock() else { return };
        if spare.as_ref().is_none_or(|spare| spare.made < self.made) {
            *spare = Some(Spare { made: self.made, pages });
        }
    }
}

/// What has changed since which image.
#[derive(Debug, Default)]
pub struct Changes {
    /// How many images have been made.
    made: u64,
    /// By part: how many images had been made when it changed last.
    parts: Vec<u64>,
    place: Arc<Place>,
}

impl Changes {
    /// Words from one to before another have changed, or have come.
    pub fn note(&mut self, from: usize, to: usize) {
        let behind = to.div_ceil(PART);
        if behind > self.parts.len() {
            self.parts.resize(behind, self.made);
        }
        self.parts[from / PART..behind].fill(self.made);
    }

    /// There are only so many words left.
    pub fn truncate(&mut self, words: usize) {
        self.parts.truncate(words.div_ceil(PART));
    }

    /// A copy of the words, and where it goes in the end.
    pub fn copy(&mut self, words: &[u32]) -> io::Result<(Pages, Home)> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let spare = self.place.0.lock().map_or(None, |mut spare| spare.take());
        let fitting =
            spare.and_then(|Spare { made, mut pages }| pages.resize(bytes.len()).then_some((made, pages)));
        let pages = if let Some((made, mut pages)) = fitting {
            let old = pages.bytes_mut();
            let size = PART * size_of::<u32>();
            for (part, _) in self.parts.iter().enumerate().filter(|(_, changed)| **changed >= made) {
                let span = part * size..bytes.len().min((part + 1) * size);
                old[span.clone()].copy_from_slice(&bytes[span]);
            }
            pages
        } else {
            // An image that is edited grows.
            let mut pages = Pages::zeroed(bytes.len() + if self.made == 0 { 0 } else { bytes.len() / 4 })?;
            pages.resize(bytes.len());
            pages.bytes_mut().copy_from_slice(bytes);
            pages
        };
        self.made += 1;
        Ok((pages, Home { place: Arc::downgrade(&self.place), made: self.made }))
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
            let image = builder.image().expect("memory");
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
