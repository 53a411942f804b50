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
//! | 0 | the header: [`Roots`], two cache lines; word 12: how many levels of maps lead to blocks, 0 if local classes lie in maps |
//! | records + 16 * (2 * chain + family) | a record, one cache line |
//! | V4 root | see [`V4`]: 65536 words |
//! | V6 buckets, spans, levels | see [`V6`] |
//! | services, source ports | see [`Keys`]: 256 words |
//!
//! A record is: source, destination, service and source port maps; rows; destinations; cells; services; source ports;
//! sources; the [`Direction`](crate::flow::Direction) that packets meet the chain in; the form, and a map for it; the width of
//! local classes in maps of addresses: 1, 2, 4, 8 or 16 bits, as binary logarithm, and as many bits set. Rows at 0 are their
//! own index. Records of chains that have no table are 0.
//!
//! Most chains look at one address and the service: they have a short form, 1 if that address is the source, 2 if it is
//! the destination; the map is that of the address, and the cell is local class * services + service. Of other chains
//! the form is 3, and the map that of sources. It is 0, which promises nothing, where all addresses of the family are one
//! class.
//!
//! | at | words |
//! |---|---|
//! | map | local classes by class, as in a block, but of services and source ports 8 bits each; in an image with maps of one level: |
//! | map + class / 32 | offset of a block; with maps of two levels: |
//! | map + class / 512 | offset of a group |
//! | group + class / 32 % 16 | offset of a block |
//! | block | 32 local classes by class % 32, of services and source ports 16 bits each, of addresses as the record says; the first one is in the lowest bits |
//! | rows | 16 bits each, by source * destinations + destination |
//! | cells | [`Answer`]s, by (row * services + service) * source ports + source port: in the two upper bits 0 where the chain denies, 1 where it accepts, 2 where it does neither; below, the outcome |
//!
//! A walk that goes by these offsets stays in the image: nothing in it asks how long that is. Whoever maps the image gives it
//! [memory behind its end](super::pages).

/// Calls a method in its form for the levels that the maps of the image have.
macro_rules! by_levels {
    ($classes:ident.$method:ident $(::<$count:ident>)? ($($argument:expr),*)) => {
        match $classes.roots.levels {
            DIRECT => $classes.$method::<DIRECT $(, $count)?>($($argument),*),
            FLAT => $classes.$method::<FLAT $(, $count)?>($($argument),*),
            _ => $classes.$method::<DEEP $(, $count)?>($($argument),*),
        }
    };
}

mod block;
mod build;
mod cells;
mod far;
mod image;
mod limits;
mod local;
mod maps;
mod numbers;
mod order;
mod partition;
mod patch;
mod ranges;
mod ready;
mod refine;
mod spare;
mod update;
mod v6;

use super::Trace;
use super::answer::Answer;
use super::engines::{Engine, Packet};
use super::point::Point;
use crate::flow::{Family, FiveTuple};
use crate::program::ChainId;
use image::Image;
use ranges::{Keys, V4};
use v6::{Search, V6};

pub use build::build;
pub use limits::{Limits, Refused};
pub use partition::Value;
pub use ready::{Address, Asked, OwnCells, OwnCellsBuilder, Ready};
pub use update::Kept;

/// "LGCT", the first word of an image.
pub const MAGIC: u32 = 0x5443_474c;
/// Of the layout above; changes with it.
pub const VERSION: u32 = 13;

const HEADER: usize = 32;
const BLOCK: usize = 32;
#[allow(clippy::cast_possible_truncation)] // 32.
const BLOCK_WORD: u32 = BLOCK as u32;
/// Blocks of a group.
const GROUP: usize = 16;
#[allow(clippy::cast_possible_truncation)] // 16.
const GROUP_WORD: u32 = GROUP as u32;
const RECORD: u32 = 16;
type Record = [u32; RECORD as usize];
/// What is where in a record.
const SOURCE: usize = 0;
const DESTINATION: usize = 1;
const SERVICE: usize = 2;
const SOURCE_PORT: usize = 3;
const ROWS: usize = 4;
const DESTINATIONS: usize = 5;
const CELLS: usize = 6;
const SERVICES: usize = 7;
const SOURCE_PORTS: usize = 8;
const SOURCES: usize = 9;
const DIRECTION: usize = 10;
const FORM: usize = 11;
const NEAR: usize = 12;
const WIDTH: usize = 13;
const MASK: usize = 14;
/// Rows that are their own indexes.
const PLAIN: u32 = 0;
/// Cells of a chain that has none.
const NO_TABLE: u32 = 0;

/// Levels of maps that lead to blocks of local classes; none where these lie in the maps.
const DIRECT: u32 = 0;
const FLAT: u32 = 1;
const DEEP: u32 = 2;

/// Where a walk begins; an offset of 0 is of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roots {
    records: u32,
    record_count: u32,
    v4: V4,
    v6: V6,
    services: Keys,
    source_ports: Keys,
    /// [`DIRECT`], [`FLAT`] or [`DEEP`].
    levels: u32,
}

impl Roots {
    /// The header of an image of so many words.
    fn words(&self, size: u32) -> [u32; HEADER] {
        let Search { buckets, bucket_count, levels, height, spans } = self.v6.upper;
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
            buckets,
            bucket_count,
            spans,
            height,
            self.levels,
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
    /// By direction and family.
    uses: [[Uses; 2]; 2],
    counts: Counts,
}

/// What any chain of a direction and family looks at: those that ask about sources alone must not wait for destinations
/// because others do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uses {
    source: bool,
    destination: bool,
    source_port: bool,
    /// Rows are looked up in a table.
    rows: bool,
}

impl Uses {
    /// What either looks at.
    fn and(self, other: Self) -> Self {
        Self {
            source: self.source | other.source,
            destination: self.destination | other.destination,
            source_port: self.source_port | other.source_port,
            rows: self.rows | other.rows,
        }
    }
}

/// Of a chain of which nothing is known.
const NO_FORM: u32 = 0;
/// Of a chain that looks at the source and the service.
const BY_SOURCE: u32 = 1;
/// Of a chain that looks at the destination and the service.
const BY_DESTINATION: u32 = 2;
/// Of a chain that looks at more than one address and the service.
const BY_MORE: u32 = 3;

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
    #[inline]
    pub const fn new() -> Self {
        Self { source: NOT_YET, destination: NOT_YET, service: NOT_YET, source_port: NOT_YET }
    }
}

/// What has been found before, or is now.
#[inline]
fn known(class: &mut u32, find: impl FnOnce() -> u32) -> u32 {
    if *class == NOT_YET {
        *class = find();
    }
    *class
}

impl Classes {
    /// That of a chain; none if it has no table for the family.
    #[inline]
    fn record(&self, chain: ChainId, family: Family) -> Option<&Record> {
        let index = 2 * chain.number() + family as u32;
        if index >= self.roots.record_count {
            return None;
        }
        let record = self.image.line(self.roots.records + RECORD * index);
        (record[CELLS] != NO_TABLE).then_some(record)
    }

    /// Whether a chain has a table for the family.
    pub fn has(&self, chain: ChainId, family: Family) -> bool {
        self.record(chain, family).is_some()
    }

    /// By the class of the address that the chain looks at first, where maps have so many levels.
    #[allow(clippy::inline_always)] // Each is to have its own form.
    #[inline(always)]
    fn lone_at<const LEVELS: u32>(&self, record: &Record, class: u32, tuple: &FiveTuple) -> Answer {
        if record[FORM] == BY_MORE || LEVELS == DEEP {
            return self.lone_by_more(record, class, tuple);
        }
        self.near_answer::<LEVELS>(record, class, tuple.protocol, Point::service_of(&tuple.transport))
    }

    /// Of a chain that looks at one address, whose class this is, and the service.
    #[allow(clippy::inline_always)] // As the short ways are.
    #[inline(always)]
    fn near_answer<const LEVELS: u32>(
        &self,
        record: &Record,
        class: u32,
        protocol: u8,
        service: u32,
    ) -> Answer {
        let row = self.local_at::<LEVELS>(record, NEAR, class);
        let column = self.column::<LEVELS>(record, protocol, service);
        self.answer_at(record, row * record[SERVICES] + column)
    }

    #[inline]
    fn answer_from<const LEVELS: u32>(&self, record: &Record, class: u32, point: &Point) -> Answer {
        if LEVELS == DEEP && record[FORM] != BY_MORE {
            return self.near_answer::<LEVELS>(record, class, point.protocol, point.service);
        }
        let near = self.local_at::<LEVELS>(record, NEAR, class);
        let column = self.column::<LEVELS>(record, point.protocol, point.service);
        let class = self.class(point.family, point.destination);
        let destination = self.local_at::<LEVELS>(record, DESTINATION, class);
        let cell = self.cell::<LEVELS>(record, (near, destination), column, || {
            self.roots.source_ports.class(&self.image, point.protocol, point.source_port)
        });
        Answer::from_word(self.image.word(cell))
    }

    /// As [`Engine::find`], for the only chain that a packet meets; none also if its record has no form.
    #[inline]
    pub fn find_lone(&self, chain: ChainId, tuple: &FiveTuple) -> Option<Answer> {
        let record = self.formed_record(chain, tuple.family)?;
        // A branch, which is guessed, as most chains of a direction are alike: the class need not wait for the record.
        if record[FORM] == BY_DESTINATION {
            return Some(self.lone_by_destination(record, tuple));
        }
        if tuple.family == Family::V6 {
            return Some(self.lone_v6(record, tuple));
        }
        Some(by_levels!(self.lone_v4(record, tuple)))
    }

    #[inline]
    fn lone_v4<const LEVELS: u32>(&self, record: &Record, tuple: &FiveTuple) -> Answer {
        let class = self.roots.v4.class(&self.image, low(tuple.source));
        self.lone_at::<LEVELS>(record, class, tuple)
    }

    #[inline(never)]
    fn lone_by_destination(&self, record: &Record, tuple: &FiveTuple) -> Answer {
        self.lone_answer(record, self.class(tuple.family, tuple.destination), tuple)
    }

    #[inline(never)]
    fn lone_v6(&self, record: &Record, tuple: &FiveTuple) -> Answer {
        match self.roots.v6.near(&self.image, tuple.source) {
            Some(class) => self.lone_answer(record, class, tuple),
            None => self.lone_far_v6(record, tuple),
        }
    }

    /// Of a source that is looked for in more than one place.
    #[inline(never)]
    fn lone_far_v6(&self, record: &Record, tuple: &FiveTuple) -> Answer {
        self.lone_answer(record, self.roots.v6.class_elsewhere(&self.image, tuple.source), tuple)
    }

    /// By the class of the address that the chain looks at first.
    #[inline]
    fn lone_answer(&self, record: &Record, class: u32, tuple: &FiveTuple) -> Answer {
        by_levels!(self.lone_at(record, class, tuple))
    }

    /// The same of a chain that looks at more, or where maps have two levels.
    #[inline(never)]
    fn lone_by_more(&self, record: &Record, class: u32, tuple: &FiveTuple) -> Answer {
        by_levels!(self.answer_from(record, class, &Point::of(tuple)))
    }

    /// That in a cell of a chain.
    #[inline]
    fn answer_at(&self, record: &Record, cell: u32) -> Answer {
        Answer::from_word(self.image.word(record[CELLS] + cell))
    }

    /// That of a chain, if it has a form.
    #[inline]
    fn formed_record(&self, chain: ChainId, family: Family) -> Option<&Record> {
        let index = 2 * chain.number() + family as u32;
        if index >= self.roots.record_count {
            return None;
        }
        let record = self.image.line(self.roots.records + RECORD * index);
        (record[FORM] != NO_FORM).then_some(record)
    }

    /// The local class of a service.
    #[allow(clippy::inline_always)] // As the short ways are.
    #[inline(always)]
    fn column<const LEVELS: u32>(&self, record: &Record, protocol: u8, service: u32) -> u32 {
        let class = self.roots.services.class(&self.image, protocol, service);
        self.local_key_at::<LEVELS>(record[SERVICE], class)
    }

    /// Where the cell of a packet is whose source, destination and service have these local classes; the class of the
    /// source port is asked for if the chain looks at it.
    #[inline]
    fn cell<const LEVELS: u32>(
        &self,
        record: &Record,
        (source, destination): (u32, u32),
        column: u32,
        source_port: impl FnOnce() -> u32,
    ) -> u32 {
        let pair = source * record[DESTINATIONS] + destination;
        self.cell_of_pair::<LEVELS>(record, pair, column, source_port)
    }

    /// The same by source * destinations + destination.
    #[inline]
    fn cell_of_pair<const LEVELS: u32>(
        &self,
        record: &Record,
        mut row: u32,
        column: u32,
        source_port: impl FnOnce() -> u32,
    ) -> u32 {
        if record[ROWS] != PLAIN {
            row = self.image.half(record[ROWS], row);
        }
        let mut cell = row * record[SERVICES] + column;
        if record[SOURCE_PORTS] != 1 {
            let local = self.local_key_at::<LEVELS>(record[SOURCE_PORT], source_port());
            cell = cell * record[SOURCE_PORTS] + local;
        }
        record[CELLS] + cell
    }

    #[inline]
    fn class(&self, family: Family, address: u128) -> u32 {
        match family {
            Family::V4 => self.roots.v4.class(&self.image, low(address)),
            Family::V6 => self.class_v6(address),
        }
    }

    /// Apart, so that IPv4 need not make room for it.
    #[inline(never)]
    fn class_v6(&self, address: u128) -> u32 {
        self.roots.v6.class(&self.image, address)
    }

    /// One form for each family: the short one must not make room for the long one.
    #[inline]
    fn answer_of_family(&self, record: &Record, point: &Point, seen: &mut Seen) -> Answer {
        match point.family {
            Family::V4 => {
                self.answer(record, point, seen, |address| self.roots.v4.class(&self.image, low(address)))
            }
            Family::V6 => {
                self.answer(record, point, seen, |address| self.roots.v6.class(&self.image, address))
            }
        }
    }

    #[allow(clippy::inline_always)] // Each family is to have its own form.
    #[inline(always)]
    fn answer(
        &self,
        record: &Record,
        point: &Point,
        seen: &mut Seen,
        address: impl Fn(u128) -> u32,
    ) -> Answer {
        // What no chain of the direction looks at is skipped; for what this one does not look at, every class is 0. So
        // the branches are the same for all packets.
        let uses = &self.uses[(record[DIRECTION] & 1) as usize][point.family as usize];
        let mut row = 0;
        if uses.source {
            let class = known(&mut seen.source, || address(point.source));
            row = self.local_address(record, SOURCE, class);
        }
        if uses.destination {
            let class = known(&mut seen.destination, || address(point.destination));
            row = row * record[DESTINATIONS] + self.local_address(record, DESTINATION, class);
        }
        if uses.rows && record[ROWS] != PLAIN {
            row = self.image.half(record[ROWS], row);
        }
        let class = known(&mut seen.service, || {
            self.roots.services.class(&self.image, point.protocol, point.service)
        });
        let mut cell = row * record[SERVICES] + self.local_key(record[SERVICE], class);
        if uses.source_port {
            let class = known(&mut seen.source_port, || {
                self.roots.source_ports.class(&self.image, point.protocol, point.source_port)
            });
            cell = cell * record[SOURCE_PORTS] + self.local_key(record[SOURCE_PORT], class);
        }
        Answer::from_word(self.image.word(record[CELLS] + cell))
    }

    /// The local class of an address's class, by the map that the record has there.
    #[inline]
    fn local_address(&self, record: &Record, map: usize, class: u32) -> u32 {
        // The same for all packets.
        by_levels!(self.local_at(record, map, class))
    }

    /// The local class of a service's or source port's class.
    #[inline]
    fn local_key(&self, map: u32, class: u32) -> u32 {
        by_levels!(self.local_key_at(map, class))
    }

    /// As [`local_address`](Self::local_address), where maps have so many levels.
    #[allow(clippy::inline_always)] // As the short ways are.
    #[inline(always)]
    fn local_at<const LEVELS: u32>(&self, record: &Record, map: usize, class: u32) -> u32 {
        self.in_block::<LEVELS>(record, self.block::<LEVELS>(record[map], class), class)
    }

    /// As [`local_key`](Self::local_key), where maps have so many levels.
    #[inline]
    fn local_key_at<const LEVELS: u32>(&self, map: u32, class: u32) -> u32 {
        self.key_in_block::<LEVELS>(self.block::<LEVELS>(map, class), class)
    }

    /// The block that a class is in; all of a map without levels is one.
    #[allow(clippy::inline_always)] // As the short ways are.
    #[inline(always)]
    fn block<const LEVELS: u32>(&self, map: u32, class: u32) -> u32 {
        match LEVELS {
            DIRECT => map,
            DEEP => self.image.word(self.image.word(map + group(class)) + in_group(class)),
            _ => self.image.word(map + class / BLOCK_WORD),
        }
    }

    /// The local class of an address's class in its block.
    #[inline]
    fn in_block<const LEVELS: u32>(&self, record: &Record, block: u32, class: u32) -> u32 {
        self.image.bits(block, Self::index_in_block::<LEVELS>(class), record[WIDTH], record[MASK])
    }

    #[inline]
    const fn index_in_block<const LEVELS: u32>(class: u32) -> u32 {
        if LEVELS == DIRECT { class } else { class % BLOCK_WORD }
    }

    /// The local class of a service's or source port's class in its block.
    #[inline]
    fn key_in_block<const LEVELS: u32>(&self, block: u32, class: u32) -> u32 {
        if LEVELS == DIRECT {
            self.image.byte(block, class)
        } else {
            self.image.half(block, class % BLOCK_WORD)
        }
    }

    /// All that a walk reads.
    pub fn image(&self) -> &[u8] {
        self.image.bytes()
    }

    /// Sizes of its parts.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Where a map of two levels has the group of a class.
#[inline]
const fn group(class: u32) -> u32 {
    class / (BLOCK_WORD * GROUP_WORD)
}

/// Where the group has the block of a class.
#[inline]
const fn in_group(class: u32) -> u32 {
    class / BLOCK_WORD % GROUP_WORD
}

/// An IPv4 address.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Below 2^32.
const fn low(address: u128) -> u32 {
    address as u32
}

impl Engine for Classes {
    const NAME: &'static str = "classes";

    #[inline]
    fn find<T: Trace>(
        &self,
        chain: ChainId,
        packet: &Packet<'_>,
        seen: &mut Seen,
        _: &mut T,
    ) -> Option<Answer> {
        let record = self.record(chain, packet.point.family)?;
        Some(self.answer_of_family(record, &packet.point, seen))
    }

    fn bytes(&self) -> usize {
        self.image.bytes().len()
    }
}
