//! The clauses of a program to the image.

use rustc_hash::{FxHashMap, FxHashSet};

use super::cells::{Axes, Cells};
use super::image::Builder;
use super::limits::{Limits, Refused, Steps, within};
use super::local::{Axis, KeptAxis, NEVER, Splitter};
use super::numbers::{self, Addresses, Numbers, Services};
use super::partition::Value;
use super::ranges::{Keys, V4, V6};
use super::update::Kept;
use super::{BLOCK, Classes, Counts, HEADER, PLAIN, RECORD, Roots, Uses};
use crate::flow::Family;
use crate::program::{Chain, ChainId};
use crate::table::answer::Answers;
use crate::table::flat::{Clause, Flat, Flats, Ranges, lists};

/// Of each chain, by family: whether it has a table, and if not why.
pub type Built = Vec<[Result<(), Refused>; 2]>;

/// Tables for those of the wanted chains that fit. If all chains have theirs, what is known of them is kept on demand.
pub fn build(
    flats: &Flats<'_>,
    is_wanted: impl Fn(ChainId) -> bool,
    limits: &Limits,
    keeps: bool,
) -> (Classes, Answers, Built, Option<Kept>) {
    let chains: Vec<_> = flats.program().chains.iter().enumerate().collect();
    let fits = |number, chain| {
        if is_wanted(ChainId::new(number)) { fits(flats, chain, limits) } else { Err(Refused::Elsewhere) }
    };
    let mut built: Built = chains.iter().map(|&(number, chain)| [fits(number, chain); 2]).collect();
    let wanted = chains.iter().zip(&built).filter(|(_, fits)| fits[0].is_ok()).map(|(&(_, chain), _)| chain);
    let clauses = clauses(flats, wanted);
    let mut writer = Writer::new(*limits, flats.program().outcomes.len(), keeps);
    let v4 = numbers::addresses(flats, &clauses, Family::V4, |set| &set.v4, limits);
    let v6 = numbers::addresses(flats, &clauses, Family::V6, |set| &set.v6, limits);
    writer.counts.v4 = v4.as_ref().map_or(0, |numbers| numbers.partition.count());
    writer.counts.v6 = v6.as_ref().map_or(0, |numbers| numbers.partition.count());
    let frame = writer.frame(Frame::of(flats, &clauses, limits), chains.len());
    let v4 = v4.and_then(|numbers| writer.v4(numbers));
    let v6 = v6.and_then(|numbers| writer.v6(numbers));
    for ((number, chain), built) in chains.into_iter().zip(&mut built).filter(|(_, built)| built[0].is_ok()) {
        let flat = flats.chain(chain).expect("its clauses have been counted");
        *built = [
            writer.chain(2 * number, &flat, Family::V4, v4.as_ref(), frame.as_ref()),
            writer.chain(2 * number + 1, &flat, Family::V6, v6.as_ref(), frame.as_ref()),
        ];
    }
    let (image, answers) = (writer.classes(), writer.answers.clone());
    let has_all = keeps && built.iter().flatten().all(Result::is_ok);
    let kept = match (frame, v4, v6) {
        (Ok(frame), Ok(v4), Ok(v6)) if has_all => Some(Kept::new(writer, frame, v4, v6)),
        _ => None,
    };
    (image, answers, built, kept)
}

fn fits(flats: &Flats<'_>, chain: &Chain, limits: &Limits) -> Result<(), Refused> {
    let too_many = |found, most| Refused::Clauses { found, most };
    let count = flats.count(chain).map_err(|many| too_many(many.found, many.most))?;
    within(count, limits.clauses, too_many)?;
    Ok(())
}

/// Those of the rule lists of these chains.
fn clauses<'f>(flats: &'f Flats<'_>, chains: impl Iterator<Item = &'f Chain>) -> Vec<&'f [Clause]> {
    let mut seen = FxHashSet::default();
    let lists = chains.flat_map(lists).filter(|list| seen.insert(*list));
    lists.map(|list| flats.clauses(list)).collect()
}

/// What chains of both families are made with.
pub struct Frame {
    pub services: Services,
    pub source_ports: Numbers<u32, Ranges>,
}

impl Frame {
    fn of(flats: &Flats<'_>, clauses: &[&[Clause]], limits: &Limits) -> Result<Self, Refused> {
        let services = numbers::services(flats, clauses, limits)?;
        Ok(Self { services, source_ports: numbers::source_ports(flats, clauses, limits)? })
    }
}

/// Writes the image.
pub struct Writer {
    pub image: Builder,
    pub roots: Roots,
    pub uses: [Uses; 2],
    pub counts: Counts,
    pub limits: Limits,
    pub answers: Answers,
    pub steps: Steps,
    splitter: Splitter,
    /// Equal blocks of local classes are one.
    blocks: FxHashMap<[u16; BLOCK], u32>,
    /// The map of a dimension that a chain does not look at.
    pub zeros: u32,
    /// There is room for more classes and chains, and tables are noted.
    keeps: bool,
    /// Blocks of a map, by dimension: IPv4, IPv6, services, source ports.
    pub rooms: [usize; 4],
    /// By record.
    pub tables: Vec<Option<Table>>,
}

/// What is known of a chain's table, to keep it when others change.
pub struct Table {
    pub record: [u32; 9],
    pub axes: [KeptAxis; 4],
    /// Of its answers.
    pub cells: usize,
}

impl Writer {
    fn new(limits: Limits, outcomes: usize, keeps: bool) -> Self {
        Self {
            image: Builder::new(limits.bytes),
            roots: Roots::default(),
            uses: [Uses::default(); 2],
            counts: Counts::default(),
            limits,
            answers: Answers::new(outcomes),
            steps: Steps::new(limits.steps),
            splitter: Splitter::default(),
            blocks: FxHashMap::default(),
            zeros: 0,
            keeps,
            rooms: [0; 4],
            tables: Vec::new(),
        }
    }

    /// Of a count, with room for more.
    fn room(&self, count: usize) -> usize {
        if self.keeps { count + count / 8 + 16 } else { count }
    }

    /// The header, room for the records, and the tables of services; without them there is no image.
    fn frame(&mut self, frame: Result<Frame, Refused>, chains: usize) -> Result<Frame, Refused> {
        let written = frame.and_then(|frame| self.try_frame(&frame, chains).map(|()| frame));
        if written.is_err() {
            self.image = Builder::new(0);
        }
        written
    }

    fn try_frame(&mut self, Frame { services, source_ports }: &Frame, chains: usize) -> Result<(), Refused> {
        self.counts.services = services.numbers.partition.count();
        self.counts.source_ports = source_ports.partition.count();
        let Counts { v4, v6, services: keys, source_ports: ports, .. } = self.counts;
        self.rooms = [v4, v6, keys, ports].map(|count| self.room(count).div_ceil(BLOCK));
        let blocks = self.rooms.into_iter().max().unwrap_or_default();
        let records = 2 * self.room(chains) * RECORD as usize;
        self.image.check(HEADER + records + BLOCK / 2 + blocks)?;
        self.image.push([0; HEADER]);
        self.roots.records = self.image.push(std::iter::repeat_n(0, records));
        self.roots.record_count = narrow(records / RECORD as usize);
        let zero = self.image.push_halves(&[0; BLOCK]);
        self.blocks.insert([0; BLOCK], zero);
        self.zeros = self.image.push(std::iter::repeat_n(zero, blocks));
        let image = &mut self.image;
        let services = Keys::build(image, &services.groups, &services.numbers.partition.intervals)?;
        let source_ports = Keys::build(image, &[0; 256], &source_ports.partition.intervals)?;
        self.roots = Roots { services, source_ports, ..self.roots };
        Ok(())
    }

    fn v4(&mut self, numbers: Addresses<u32>) -> Result<Addresses<u32>, Refused> {
        // A single class is never asked for.
        if numbers.partition.count() > 1 {
            self.roots.v4 = self.attempt(|image| V4::build(image, &numbers.partition.intervals))?;
        }
        Ok(numbers)
    }

    fn v6(&mut self, numbers: Addresses<u128>) -> Result<Addresses<u128>, Refused> {
        if numbers.partition.count() > 1 {
            self.roots.v6 = self.attempt(|image| V6::build(image, &numbers.partition.intervals))?;
        }
        Ok(numbers)
    }

    /// Writes tables whole, or not at all.
    fn attempt<T>(&mut self, write: impl FnOnce(&mut Builder) -> Result<T, Refused>) -> Result<T, Refused> {
        let before = self.image.offset();
        let written = write(&mut self.image);
        if written.is_err() {
            self.image.truncate(before);
        }
        written
    }

    pub fn chain<P: Value>(
        &mut self,
        record: usize,
        flat: &Flat,
        family: Family,
        addresses: Result<&Addresses<P>, &Refused>,
        frame: Result<&Frame, &Refused>,
    ) -> Result<(), Refused> {
        let (frame, addresses) = (frame.map_err(|&refused| refused)?, addresses.map_err(|&refused| refused)?);
        let before = self.answers.mark();
        let written = self.axes(flat, family, addresses, frame).and_then(|mut axes| {
            let cells = axes.fill(flat, &mut self.answers, &self.limits, &mut self.steps)?;
            self.write(record, family, axes, &cells)
        });
        if written.is_err() {
            self.answers.rewind(before);
        }
        written
    }

    fn axes<P: Value>(
        &mut self,
        flat: &Flat,
        family: Family,
        addresses: &Addresses<P>,
        frame: &Frame,
    ) -> Result<Axes, Refused> {
        let of = |term: fn(&Clause) -> u32| -> Vec<u32> { flat.clauses.iter().map(term).collect() };
        let Frame { services, source_ports } = frame;
        let (splitter, steps) = (&mut self.splitter, &mut self.steps);
        let mut axes = Axes {
            source: splitter.axis(addresses, of(|clause| clause.source), steps)?,
            destination: splitter.axis(addresses, of(|clause| clause.destination), steps)?,
            service: splitter.axis(&services.numbers, of(|clause| clause.service), steps)?,
            source_port: splitter.axis(source_ports, of(|clause| clause.source_ports), steps)?,
        };
        // A clause that does not exist for the family holds nowhere, whatever its terms are there.
        let missing = |(_, clause): &(usize, &Clause)| !clause.families[family as usize];
        for (index, _) in flat.clauses.iter().enumerate().filter(missing) {
            for bits in &mut axes.service.bits {
                bits[index / 64] &= !(1 << (index % 64));
            }
            axes.service.of_clause[index] = NEVER;
        }
        Ok(axes)
    }

    fn write(&mut self, record: usize, family: Family, axes: Axes, cells: &Cells) -> Result<(), Refused> {
        let axes = [axes.source, axes.destination, axes.service, axes.source_port];
        let rooms = [self.rooms[family as usize], self.rooms[family as usize], self.rooms[2], self.rooms[3]];
        let blocks: usize = axes.iter().map(|axis| axis.of_class.len().div_ceil(BLOCK)).sum();
        let directories: usize = rooms.iter().sum();
        let words = directories + blocks * (BLOCK / 2) + cells.rows.len().div_ceil(2) + cells.answers.len();
        self.image.check(words + self.answers.bytes() / size_of::<u32>())?;
        let maps: [u32; 4] = std::array::from_fn(|axis| self.map(&axes[axis], rooms[axis]));
        let [by_source, by_destination, _, by_port] = maps.map(|map| map != self.zeros);
        let is_plain = (0..).zip(&cells.rows).all(|(index, &row)| usize::from(row) == index);
        let rows = if is_plain { PLAIN } else { self.image.push_halves(&cells.rows) };
        let uses = &mut self.uses[family as usize];
        uses.source |= by_source;
        uses.destination |= by_destination;
        uses.service = true;
        uses.source_port |= by_port;
        uses.rows |= !is_plain;
        let answers = self.image.push(cells.answers.iter().map(|answer| answer.word()));
        let counts = [cells.destinations, cells.services, cells.source_ports].map(narrow);
        let ([source, destination, service, port], [destinations, services, ports]) = (maps, counts);
        let words = [source, destination, service, port, rows, destinations, answers, services, ports];
        self.image.set(self.roots.records + RECORD * narrow(record), &words);
        self.counts.cells += cells.answers.len();
        if self.keeps {
            self.tables.resize_with(self.tables.len().max(record + 1), || None);
            let axes = axes.map(KeptAxis::of);
            self.tables[record] = Some(Table { record: words, axes, cells: cells.answers.len() });
        }
        Ok(())
    }

    fn map(&mut self, axis: &Axis, room: usize) -> u32 {
        if axis.of_class.is_empty() {
            return self.zeros;
        }
        let mut directory = Vec::with_capacity(room);
        for chunk in axis.of_class.chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            let image = &mut self.image;
            directory.push(*self.blocks.entry(block).or_insert_with(|| image.push_halves(&block)));
        }
        directory.resize(room, self.blocks[&[0; BLOCK]]);
        self.image.push(directory)
    }

    /// The image as it is now.
    pub fn classes(&mut self) -> Classes {
        if self.image.bytes() > 0 {
            let size = self.image.align();
            self.image.set(0, &self.roots.words(size));
        }
        Classes { image: self.image.image(), roots: self.roots, uses: self.uses, counts: self.counts }
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("images are smaller than 4 GiB")
}
