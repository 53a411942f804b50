//! The `classes` engine: addresses and services to classes, the verdict by array lookup.
//!
//! ```text
//! source ------ v4 | v6 --> class --+
//! destination - v4 | v6 --> class --+--> the chain's record: class -> local class -> row
//! protocol, key - services --> class --> local class -> column ------------------+--> cell: the answer
//! source port ---- source ports --> class --> local class -----------------------+
//! ```
//!
//! Everything a walk reads is in one [`Image`]: 32-bit words in the byte order of the machine, offsets in words from its
//! beginning and no pointer, so that it can be mapped anywhere.
//!
//! | at | words |
//! |---|---|
//! | 0 | the header: [`Roots`], two cache lines |
//! | records + 16 * (2 * chain + family) | a record, one cache line |
//! | V4 root | see [`V4`]: 65536 words |
//! | V6 slots, levels, classes | see [`V6`] |
//! | services, source ports | see [`Keys`]: 256 words |
//!
//! A record is: source, destination, service and source port maps; rows; destinations; cells; services; source ports.
//! Rows at 0 are their own index. Records of chains that have no table are 0.
//!
//! | at | words |
//! |---|---|
//! | map + class / 32 | offset of a block of 32 local classes (16 bits each) |
//! | rows | 16 bits each, by source * destinations + destination |
//! | cells | [`Answer`]s, by (row * services + service) * source ports + source port |

mod build;
mod cells;
mod image;
mod limits;
mod local;
mod numbers;
mod order;
mod partition;
mod patch;
mod ranges;
mod refine;
mod update;

use super::answer::Answer;
use super::engines::{Engine, Packet};
use super::flat::Point;
use crate::flow::Family;
use crate::program::ChainId;
use image::Image;
use ranges::{Keys, V4, V6};

pub use build::build;
pub use limits::{Limits, Refused};
pub use partition::Value;
pub use update::Kept;

/// "LGCT", the first word of an image.
pub const MAGIC: u32 = 0x5443_474c;
/// Of the layout above; changes with it.
pub const VERSION: u32 = 2;

const HEADER: usize = 32;
const BLOCK: usize = 32;
#[allow(clippy::cast_possible_truncation)] // 32.
const BLOCK_WORD: u32 = BLOCK as u32;
const RECORD: u32 = 16;
/// Rows that are their own indexes.
const PLAIN: u32 = 0;

/// Where a walk begins; an offset of 0 is of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roots {
    records: u32,
    record_count: u32,
    v4: V4,
    v6: V6,
    services: Keys,
    source_ports: Keys,
}

impl Roots {
    /// The header of an image of so many words.
    fn words(&self, size: u32) -> [u32; HEADER] {
        let V6 { slots, mask, levels, height, classes } = self.v6;
        let mut words = [0; HEADER];
        let head = [
            MAGIC,
            VERSION,
            size,
            self.records,
            self.record_count,
            self.v4.root,
            self.services.protocols,
            self.source_ports.protocols,
            slots,
            mask,
            classes,
            height,
        ];
        words[..head.len()].copy_from_slice(&head);
        words[16..][..levels.len()].copy_from_slice(&levels);
        words
    }
}

/// The engine.
#[derive(Debug)]
pub struct Classes {
    image: Image,
    roots: Roots,
    /// By family.
    uses: [Uses; 2],
    counts: Counts,
}

/// What any chain of a family looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uses {
    source: bool,
    destination: bool,
    /// There is a chain.
    service: bool,
    source_port: bool,
    /// Rows are looked up in a table.
    rows: bool,
}

/// Sizes, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Classes of IPv4 addresses.
    pub v4: usize,
    /// Classes of IPv6 addresses.
    pub v6: usize,
    /// Classes of (protocol, second key).
    pub services: usize,
    /// Classes of source ports.
    pub source_ports: usize,
    /// Cells of all chains.
    pub cells: usize,
}

/// The classes of one packet, found when first needed.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    source: u32,
    destination: u32,
    service: u32,
    source_port: u32,
}

const NOT_YET: u32 = u32::MAX;

impl Seen {
    /// Nothing is known yet.
    pub const NOTHING: Self =
        Self { source: NOT_YET, destination: NOT_YET, service: NOT_YET, source_port: NOT_YET };
}

impl Classes {
    /// The answer of a chain that has a table for the packet's family.
    #[inline]
    fn answer(&self, chain: ChainId, point: &Point, seen: &mut Seen) -> Answer {
        let record =
            self.image.line(self.roots.records + RECORD * (2 * chain.number() + point.family as u32));
        let [source, destination, service, port, rows, destinations, cells, services, ports, ..] = *record;
        // What no chain looks at is skipped; for what this one does not look at, every class is 0. So the branches are
        // the same for all packets.
        let uses = &self.uses[point.family as usize];
        let mut row = 0;
        if uses.source {
            row = self.local(source, self.address(point.family, point.source, &mut seen.source));
        }
        if uses.destination {
            let class = self.address(point.family, point.destination, &mut seen.destination);
            row = row * destinations + self.local(destination, class);
        }
        if uses.rows && rows != PLAIN {
            row = self.image.half(rows, row);
        }
        if seen.service == NOT_YET {
            seen.service = self.roots.services.class(&self.image, point.protocol, point.service);
        }
        let mut cell = row * services + self.local(service, seen.service);
        if uses.source_port {
            if seen.source_port == NOT_YET {
                seen.source_port =
                    self.roots.source_ports.class(&self.image, point.protocol, point.source_port);
            }
            cell = cell * ports + self.local(port, seen.source_port);
        }
        Answer::from_word(self.image.word(cells + cell))
    }

    /// First stage of a batch: asks for what the first loads of both addresses read.
    #[inline]
    pub fn prefetch(&self, point: &Point) {
        for (address, is_used) in self.uses_of(point) {
            if is_used {
                match point.family {
                    #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32.
                    Family::V4 => self.roots.v4.prefetch(&self.image, address as u32),
                    Family::V6 => self.roots.v6.prefetch(&self.image, address),
                }
            }
        }
    }

    /// Second stage: asks for what the second loads read.
    #[inline]
    pub fn prefetch_next(&self, point: &Point) {
        for (address, is_used) in self.uses_of(point) {
            if is_used && point.family == Family::V4 {
                #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32.
                self.roots.v4.prefetch_next(&self.image, address as u32);
            }
        }
    }

    /// Third stage: the classes that any chain may ask for.
    #[inline]
    pub fn look_up(&self, point: &Point) -> Seen {
        let uses = &self.uses[point.family as usize];
        let mut seen = Seen::NOTHING;
        if uses.source {
            self.address(point.family, point.source, &mut seen.source);
        }
        if uses.destination {
            self.address(point.family, point.destination, &mut seen.destination);
        }
        if uses.service {
            seen.service = self.roots.services.class(&self.image, point.protocol, point.service);
        }
        seen
    }

    #[inline]
    fn uses_of(&self, point: &Point) -> [(u128, bool); 2] {
        let uses = &self.uses[point.family as usize];
        [(point.source, uses.source), (point.destination, uses.destination)]
    }

    #[inline]
    fn local(&self, map: u32, class: u32) -> u32 {
        let block = self.image.word(map + class / BLOCK_WORD);
        self.image.half(block, class % BLOCK_WORD)
    }

    #[inline]
    fn address(&self, family: Family, address: u128, seen: &mut u32) -> u32 {
        if *seen == NOT_YET {
            *seen = match family {
                #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32.
                Family::V4 => self.roots.v4.class(&self.image, address as u32),
                Family::V6 => self.roots.v6.class(&self.image, address),
            };
        }
        *seen
    }

    /// All that a walk reads; empty if no budget was given.
    pub fn image(&self) -> &[u8] {
        self.image.bytes()
    }

    /// Sizes of its parts.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl Engine for Classes {
    const NAME: &'static str = "classes";

    #[inline]
    fn find(&self, chain: ChainId, packet: &Packet<'_>, seen: &mut Seen) -> Answer {
        self.answer(chain, &packet.point, seen)
    }

    fn bytes(&self) -> usize {
        self.image.bytes().len()
    }
}
