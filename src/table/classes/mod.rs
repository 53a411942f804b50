//! The `classes` engine: addresses and services to classes, the verdict by array lookup.
//!
//! ```text
//! source ------ v4 | v6 --> class --+
//! destination - v4 | v6 --> class --+--> the chain's record: class -> local class -> row
//! protocol, key - services --> class --> local class -> column ------------------+--> cell: the answer
//! source port ---- source ports --> class --> local class -----------------------+
//! ```
//!
//! Everything a walk reads is in one [`Image`]: 32-bit words, offsets in words from its beginning, position-independent.
//!
//! | at | words |
//! |---|---|
//! | 0 | [`MAGIC`], [`VERSION`], offset of the records |
//! | records + 16 * (2 * chain + family) | a [`Record`], one cache line |
//! | a record's map | for each 32 classes the offset of a block of 32 local classes (16 bits each) |
//! | a record's rows | 16 bits each, by source * destinations + destination |
//! | a record's cells | [`Answer`]s, by (row * services + service) * ports + port |

mod cells;
mod image;
mod local;
mod partition;
mod ranges;

use std::fmt;

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Answers};
use super::engines::{Engine, Packet};
use super::flat::{
    AddressTerm, Flat, OPAQUE, Point, Protocols, Ranges, ServiceTerm, SetId, Sets, has_protocol,
};
use crate::flow::Family;
use crate::program::{AddressSet, ChainId};
use cells::{Axes, Cells};
use image::{Builder, Image};
use local::{Axis, Splitter, Term};
use partition::Partition;
pub use partition::Value;
use ranges::{Keys, MOST_CLASSES, V4, V6};

/// "LGCT", the first word of an image.
pub const MAGIC: u32 = 0x5443_474c;
/// Of the layout above; changes with it.
pub const VERSION: u32 = 1;

const BLOCK: usize = 32;
#[allow(clippy::cast_possible_truncation)] // 32.
const BLOCK_WORD: u32 = BLOCK as u32;
const RECORD: u32 = 16;
/// Rows that are their own indexes.
const PLAIN: u32 = 0;

/// What a class engine may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Clauses of a chain.
    pub clauses: usize,
    /// Cells of a chain, and its (source, destination) pairs.
    pub cells: usize,
    /// The image.
    pub bytes: usize,
}

/// Why a chain of a family has no table here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More clauses than allowed.
    Clauses(usize),
    /// More cells than allowed.
    Cells(usize),
    /// A dimension has more local classes than 16 bits tell apart.
    LocalClasses(usize),
    /// All chains together would have more classes of addresses.
    Classes(usize),
    /// The image is full.
    Bytes(usize),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clauses(found) => write!(f, "{found} clauses, above the budget of classes"),
            Self::Cells(found) => write!(f, "{found} cells, above the budget of one chain"),
            Self::LocalClasses(found) => write!(f, "{found} local classes, above 65536"),
            Self::Classes(found) => write!(f, "{found} classes of addresses, above 65536"),
            Self::Bytes(found) => write!(f, "{found} bytes, above the budget of classes"),
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Classes {
    image: Image,
    records: u32,
    v4: V4,
    v6: V6,
    services: Keys,
    source_ports: Keys,
    uses: Uses,
    counts: Counts,
}

/// What any chain looks at.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    source: bool,
    destination: bool,
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
    /// Tables for those chains that fit; `None` in `chains`: not wanted. Says for each chain and family why not.
    pub fn build(
        chains: &[Option<&Flat>],
        sets: &Sets<'_>,
        limits: &Limits,
        answers: &mut Answers,
    ) -> (Self, Vec<[Result<(), Refused>; 2]>) {
        let wanted: Vec<Option<&Flat>> =
            chains.iter().map(|chain| chain.filter(|flat| flat.clauses.len() <= limits.clauses)).collect();
        let services = ServiceNumbers::of(&wanted);
        let v4 = AddressNumbers::of(&wanted, Family::V4, sets, |set| &set.v4);
        let v6 = AddressNumbers::of(&wanted, Family::V6, sets, |set| &set.v6);
        let mut image = Builder::default();
        image.push([MAGIC, VERSION, 0]);
        let records = image.align();
        image.push(std::iter::repeat_n(0, chains.len() * 2 * RECORD as usize));
        image.set(2, records);
        let counts = Counts {
            v4: v4.partition.count(),
            v6: v6.partition.count(),
            services: services.services.count(),
            source_ports: services.source_ports.count(),
            cells: 0,
        };
        let mut writer = Writer::new(image, records, &counts);
        let mut results = Vec::with_capacity(chains.len());
        for (chain, flat) in chains.iter().enumerate() {
            results.push(match flat {
                None => [Ok(()), Ok(())],
                Some(flat) if wanted[chain].is_none() => {
                    [(); 2].map(|()| Err(Refused::Clauses(flat.clauses.len())))
                }
                Some(flat) => [
                    writer.chain(chain, flat, Family::V4, &v4, &services, limits, answers),
                    writer.chain(chain, flat, Family::V6, &v6, &services, limits, answers),
                ],
            });
        }
        let counts = Counts { cells: writer.cells, ..counts };
        let (mut image, uses) = (writer.image, writer.uses);
        let engine = Self {
            records,
            v4: V4::build(&mut image, v4.intervals()),
            v6: V6::build(&mut image, &v6.partition.intervals),
            services: Keys::build(&mut image, &services.groups, &services.services.intervals),
            source_ports: Keys::build(&mut image, &[0; 256], &services.source_ports.intervals),
            image: image.finish(),
            uses,
            counts,
        };
        (engine, results)
    }

    /// The answer of a chain that has a table for the packet's family.
    #[inline]
    fn answer(&self, chain: ChainId, point: &Point, seen: &mut Seen) -> Answer {
        let record = self.image.line(self.records + RECORD * (2 * chain.number() + point.family as u32));
        let [source, destination, service, port, rows, destinations, cells, services, ports, ..] = *record;
        // What no chain looks at is skipped; for what this one does not look at, every class is 0. So the branches are
        // the same for all packets.
        let mut row = 0;
        if self.uses.source {
            row = self.local(source, self.address(point.family, point.source, &mut seen.source));
        }
        if self.uses.destination {
            let class = self.address(point.family, point.destination, &mut seen.destination);
            row = row * destinations + self.local(destination, class);
        }
        if self.uses.rows && rows != PLAIN {
            row = self.image.half(rows, row);
        }
        if seen.service == NOT_YET {
            seen.service = self.services.class(&self.image, point.protocol, point.service);
        }
        let mut cell = row * services + self.local(service, seen.service);
        if self.uses.source_port {
            if seen.source_port == NOT_YET {
                seen.source_port = self.source_ports.class(&self.image, point.protocol, point.source_port);
            }
            cell = cell * ports + self.local(port, seen.source_port);
        }
        Answer::from_word(self.image.word(cells + cell))
    }

    /// First stage of a batch: asks for what the first loads of both addresses read.
    #[inline]
    pub fn prefetch(&self, point: &Point) {
        for (address, is_used) in
            [(point.source, self.uses.source), (point.destination, self.uses.destination)]
        {
            if is_used {
                match point.family {
                    #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32.
                    Family::V4 => self.v4.prefetch(&self.image, address as u32),
                    Family::V6 => self.v6.prefetch(&self.image, address),
                }
            }
        }
    }

    /// Second stage: asks for what the second loads read.
    #[inline]
    pub fn prefetch_next(&self, point: &Point) {
        for (address, is_used) in
            [(point.source, self.uses.source), (point.destination, self.uses.destination)]
        {
            if is_used && point.family == Family::V4 {
                #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32.
                self.v4.prefetch_next(&self.image, address as u32);
            }
        }
    }

    /// Third stage: the classes that any chain may ask for.
    #[inline]
    pub fn look_up(&self, point: &Point) -> Seen {
        let mut seen = Seen::NOTHING;
        if self.uses.source {
            self.address(point.family, point.source, &mut seen.source);
        }
        if self.uses.destination {
            self.address(point.family, point.destination, &mut seen.destination);
        }
        seen.service = self.services.class(&self.image, point.protocol, point.service);
        seen
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
                Family::V4 => self.v4.class(&self.image, address as u32),
                Family::V6 => self.v6.class(&self.image, address),
            };
        }
        *seen
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
        self.image.bytes()
    }
}

/// Classes of addresses of one family, and the sets' numbers there.
struct AddressNumbers<P> {
    partition: Partition<P>,
    /// [`SetId`] to number; `None` for sets that no clause of the family names.
    number_of: Vec<Option<u32>>,
}

impl<P: Value> AddressNumbers<P> {
    fn of(
        wanted: &[Option<&Flat>],
        family: Family,
        sets: &Sets<'_>,
        ranges: impl Fn(&AddressSet) -> &Vec<(P, P)>,
    ) -> Self {
        let mut number_of = vec![None; sets.count()];
        let mut used: Vec<SetId> = Vec::new();
        let clauses = wanted.iter().flatten().flat_map(|flat| &flat.clauses);
        for clause in clauses.filter(|clause| clause.families[family as usize]) {
            for term in [&clause.source, &clause.destination] {
                for &set in term.within.iter().chain(&term.outside) {
                    number_of[set.index()].get_or_insert_with(|| {
                        used.push(set);
                        u32::try_from(used.len() - 1).expect("sets are limited")
                    });
                }
            }
        }
        let partition = Partition::of(used.iter().map(|&set| ranges(sets.get(set)).as_slice()));
        Self { partition, number_of }
    }

    fn term(&self, term: &AddressTerm) -> Term {
        let numbers = |sets: &[SetId]| {
            sets.iter().map(|set| self.number_of[set.index()].expect("numbered above")).collect()
        };
        Term { within: numbers(&term.within), outside: numbers(&term.outside) }
    }

    /// None where 16-bit tables cannot hold the classes: no chain has been given a table then.
    fn intervals(&self) -> &[(P, u32)] {
        let fits = self.partition.count() <= MOST_CLASSES;
        if fits { &self.partition.intervals } else { &self.partition.intervals[..1] }
    }
}

/// Classes of services and source ports, and the terms' numbers there.
struct ServiceNumbers {
    services: Partition<u32>,
    source_ports: Partition<u32>,
    /// Protocol to its group: protocols that no term tells apart.
    groups: Vec<u8>,
    service_terms: IndexSet<ServiceTerm, FxBuildHasher>,
    port_terms: IndexSet<Ranges, FxBuildHasher>,
}

impl ServiceNumbers {
    fn of(wanted: &[Option<&Flat>]) -> Self {
        let clauses = || wanted.iter().flatten().flat_map(|flat| &flat.clauses);
        let mut service_terms: IndexSet<ServiceTerm, FxBuildHasher> = IndexSet::default();
        let mut port_terms: IndexSet<Ranges, FxBuildHasher> = IndexSet::default();
        for clause in clauses() {
            if !is_every_service(&clause.service) && !service_terms.contains(&clause.service) {
                service_terms.insert(clause.service.clone());
            }
            if !is_every_key(&clause.source_ports) && !port_terms.contains(&clause.source_ports) {
                port_terms.insert(clause.source_ports.clone());
            }
        }
        let masks: IndexSet<Protocols, FxBuildHasher> =
            service_terms.iter().map(|term| term.protocols).collect();
        let mut kinds: IndexSet<Vec<bool>, FxBuildHasher> = IndexSet::default();
        let groups: Vec<u8> = (0..=255)
            .map(|protocol| {
                let kind = masks.iter().map(|mask| has_protocol(mask, protocol)).collect();
                u8::try_from(kinds.insert_full(kind).0).expect("no more groups than protocols")
            })
            .collect();
        let ranges: Vec<Ranges> = service_terms
            .iter()
            .map(|term| {
                let mask = masks.get_index_of(&term.protocols).expect("collected above");
                let with = (0..).zip(&kinds).filter(|(_, kind)| kind[mask]);
                let number = Keys::number;
                with.flat_map(|(group, _)| {
                    term.keys.iter().map(move |&(first, last)| (number(group, first), number(group, last)))
                })
                .collect()
            })
            .collect();
        Self {
            services: Partition::of(ranges.iter().map(Vec::as_slice)),
            source_ports: Partition::of(port_terms.iter().map(Vec::as_slice)),
            groups,
            service_terms,
            port_terms,
        }
    }

    fn service(&self, term: &ServiceTerm) -> Term {
        number(self.service_terms.get_index_of(term))
    }

    fn source_port(&self, term: &Ranges) -> Term {
        number(self.port_terms.get_index_of(term))
    }
}

/// The term of one set; without a number it holds everywhere.
fn number(index: Option<usize>) -> Term {
    let within = index.map(|index| u32::try_from(index).expect("terms are limited")).into_iter().collect();
    Term { within, outside: Vec::new() }
}

fn is_every_key(ranges: &Ranges) -> bool {
    ranges[..] == [(0, OPAQUE)]
}

fn is_every_service(term: &ServiceTerm) -> bool {
    term.protocols == [u64::MAX; 4] && is_every_key(&term.keys)
}

/// Writes the tables of chains.
struct Writer {
    image: Builder,
    records: u32,
    /// Equal blocks of local classes are one.
    blocks: FxHashMap<[u16; BLOCK], u32>,
    splitter: Splitter,
    uses: Uses,
    /// The map of a dimension that a chain does not look at.
    zeros: u32,
    cells: usize,
}

impl Writer {
    fn new(mut image: Builder, records: u32, counts: &Counts) -> Self {
        let zero = image.push_halves(&[0; BLOCK]);
        let most = counts.v4.max(counts.v6).max(counts.services).max(counts.source_ports).min(MOST_CLASSES);
        let zeros = image.push(std::iter::repeat_n(zero, most.div_ceil(BLOCK)));
        let blocks = FxHashMap::from_iter([([0; BLOCK], zero)]);
        Self { image, records, blocks, splitter: Splitter::default(), uses: Uses::default(), zeros, cells: 0 }
    }

    #[allow(clippy::too_many_arguments)] // What a chain is made from; used in one place.
    fn chain<P: Value>(
        &mut self,
        chain: usize,
        flat: &Flat,
        family: Family,
        addresses: &AddressNumbers<P>,
        services: &ServiceNumbers,
        limits: &Limits,
        answers: &mut Answers,
    ) -> Result<(), Refused> {
        if addresses.partition.count() > MOST_CLASSES {
            return Err(Refused::Classes(addresses.partition.count()));
        }
        let mut axes =
            self.axes(flat, family, addresses, services).map_err(|most| Refused::LocalClasses(most.0))?;
        let cells = axes.fill(flat, answers, limits.cells).map_err(|most| Refused::Cells(most.cells))?;
        let maps = [&axes.source, &axes.destination, &axes.service, &axes.source_port];
        let halves: usize = maps.iter().map(|axis| axis.of_class.len()).sum::<usize>() + cells.rows.len();
        let most = self.image.bytes() + 2 * halves + 4 * cells.answers.len();
        if most > limits.bytes {
            return Err(Refused::Bytes(most));
        }
        self.write(chain, family, &axes, &cells);
        Ok(())
    }

    fn axes<P: Value>(
        &mut self,
        flat: &Flat,
        family: Family,
        addresses: &AddressNumbers<P>,
        services: &ServiceNumbers,
    ) -> Result<Axes, local::TooMany> {
        // A clause that does not exist for the family names sets that have no number here.
        let exists = |index: usize| flat.clauses[index].families[family as usize];
        let terms = |term: &dyn Fn(usize) -> Term| -> Vec<Term> {
            (0..flat.clauses.len())
                .map(|index| if exists(index) { term(index) } else { Term::default() })
                .collect()
        };
        let sources = terms(&|index| addresses.term(&flat.clauses[index].source));
        let destinations = terms(&|index| addresses.term(&flat.clauses[index].destination));
        let keys = terms(&|index| services.service(&flat.clauses[index].service));
        let ports = terms(&|index| services.source_port(&flat.clauses[index].source_ports));
        let mut service = self.splitter.axis(&services.services, &keys)?;
        for bits in &mut service.bits {
            for index in (0..flat.clauses.len()).filter(|&index| !exists(index)) {
                bits[index / 64] &= !(1 << (index % 64));
            }
        }
        Ok(Axes {
            source: self.splitter.axis(&addresses.partition, &sources)?,
            destination: self.splitter.axis(&addresses.partition, &destinations)?,
            service,
            source_port: self.splitter.axis(&services.source_ports, &ports)?,
        })
    }

    fn write(&mut self, chain: usize, family: Family, axes: &Axes, cells: &Cells) {
        let maps =
            [&axes.source, &axes.destination, &axes.service, &axes.source_port].map(|axis| self.map(axis));
        let [source, destination, service, port] = maps;
        let is_used =
            [&axes.source, &axes.destination, &axes.source_port].map(|axis| !axis.of_class.is_empty());
        let is_plain = (0..).zip(&cells.rows).all(|(index, &row)| usize::from(row) == index);
        let rows = if is_plain { PLAIN } else { self.image.push_halves(&cells.rows) };
        self.uses = Uses {
            source: self.uses.source || is_used[0],
            destination: self.uses.destination || is_used[1],
            source_port: self.uses.source_port || is_used[2],
            rows: self.uses.rows || !is_plain,
        };
        let start = self.image.push(cells.answers.iter().map(|answer| answer.word()));
        let narrow = |count: usize| u32::try_from(count).expect("checked before filling");
        let record = [
            source,
            destination,
            service,
            port,
            rows,
            narrow(cells.destinations),
            start,
            narrow(cells.services),
            narrow(cells.source_ports),
        ];
        let at = self.records + RECORD * narrow(2 * chain + family as usize);
        for (offset, word) in (at..).zip(record) {
            self.image.set(offset, word);
        }
        self.cells += cells.answers.len();
    }

    fn map(&mut self, axis: &Axis) -> u32 {
        if axis.of_class.is_empty() {
            return self.zeros;
        }
        let mut directory = Vec::with_capacity(axis.of_class.len().div_ceil(BLOCK));
        for chunk in axis.of_class.chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            let image = &mut self.image;
            directory.push(*self.blocks.entry(block).or_insert_with(|| image.push_halves(&block)));
        }
        self.image.push(directory)
    }
}
