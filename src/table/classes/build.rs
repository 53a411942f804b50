//! The clauses of a program to the image.

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::cells::{Allowance, Axes, Cells};
use super::image::Builder;
use super::limits::{Limits, Refused, Steps, within};
use super::local::{Axis, Bits, KeptAxis, NEVER, Splitter, every};
use super::maps::{Maps, Width};
use super::numbers::{self, Addresses, Listed, Numbers, Services, is_every_key, is_every_service};
use super::partition::Value;
use super::ranges::{Keys, V4};
use super::update::Kept;
use super::v6::V6;
use super::{
    BLOCK, BY_DESTINATION, BY_MORE, BY_SOURCE, Classes, Counts, DEEP, DESTINATION, DIRECT, DIRECTION, FLAT,
    HEADER, NO_FORM, PLAIN, RECORD, ROWS, Roots, SERVICE, SOURCE, SOURCE_PORT, Uses,
};
use crate::flow::{Direction, Family};
use crate::program::{Chain, ChainId, Program, RuleListId};
use crate::table::answer::Answers;
use crate::table::flat::{Clause, Flat, Flats, lists};
use crate::table::pages::Pages;
use crate::table::terms::{AddressTerm, Ranges};

/// Services are few, and most edits of policies bring one.
const MORE_SERVICES: usize = 256;

/// Of each chain, by family: whether it has a table, and if not why.
pub type Built = Vec<[Result<(), Refused>; 2]>;

/// Tables for those of the wanted chains that fit. If all of those have theirs, what is known of them is kept on demand.
pub fn build(
    flats: &Flats<'_>,
    is_wanted: impl Fn(ChainId) -> bool,
    limits: &Limits,
    keeps: bool,
) -> (Option<Classes>, Answers, Built, Option<Kept>) {
    let chains: Vec<_> = flats.program().chains.iter().enumerate().collect();
    let memory = Pages::check().map_err(|error| Refused::memory(&error));
    let fits = |number, chain| {
        if !is_wanted(ChainId::new(number)) {
            return Err(Refused::Elsewhere);
        }
        fits(flats, chain, limits).and(memory)
    };
    let mut built: Built = chains.iter().map(|&(number, chain)| [fits(number, chain); 2]).collect();
    let wanted = chains.iter().zip(&built).filter(|(_, fits)| fits[0].is_ok()).map(|(&(_, chain), _)| chain);
    let lists = listed(flats, wanted.clone());
    let looks = looks(flats, wanted);
    let mut writer = Writer::new(directions(flats.program()), *limits, flats.program().outcomes.len(), keeps);
    let v4 = numbers::addresses(flats, &lists, Family::V4, |set| &set.v4[..], limits);
    let v6 = numbers::addresses(flats, &lists, Family::V6, |set| &set.v6[..], limits);
    writer.counts.v4 = v4.as_ref().map_or(0, |numbers| numbers.partition.count());
    writer.counts.v6 = v6.as_ref().map_or(0, |numbers| numbers.partition.count());
    let frame = writer.frame(Frame::of(flats, &lists, limits), chains.len(), looks);
    let v4 = v4.and_then(|numbers| writer.v4(numbers));
    let v6 = v6.and_then(|numbers| writer.v6(numbers));
    for ((number, chain), built) in chains.into_iter().zip(&mut built).filter(|(_, built)| built[0].is_ok()) {
        let flat = flats.chain(chain).expect("its clauses have been counted");
        *built = [
            writer.chain(2 * number, &flat, Family::V4, v4.as_ref(), frame.as_ref()),
            writer.chain(2 * number + 1, &flat, Family::V6, v6.as_ref(), frame.as_ref()),
        ];
    }
    let classes = frame.as_ref().map_err(|&refused| refused).and_then(|_| writer.classes());
    if let Err(refused) = classes {
        // Where there is no frame, no chain was written.
        built.iter_mut().flatten().filter(|built| built.is_ok()).for_each(|built| *built = Err(refused));
        writer.answers = Answers::new(flats.program().outcomes.len());
    }
    let answers = writer.answers.clone();
    let is_done = |built: &Result<(), Refused>| matches!(built, Ok(()) | Err(Refused::Elsewhere));
    let has_all = writer.can_change() && built.iter().flatten().all(is_done);
    writer.tables.resize_with(2 * built.len(), || None);
    let kept = match (frame, v4, v6) {
        (Ok(frame), Ok(v4), Ok(v6)) if has_all => Some(Kept::new(writer, frame, v4, v6)),
        _ => None,
    };
    (classes.ok(), answers, built, kept)
}

fn fits(flats: &Flats<'_>, chain: &Chain, limits: &Limits) -> Result<(), Refused> {
    let too_many = |found, most| Refused::Clauses { found, most };
    let count = flats.count(chain).map_err(|many| too_many(many.found, many.most))?;
    within(count, limits.clauses, too_many)?;
    Ok(())
}

/// Of each chain, the direction that packets meet it in; of one that stands in both, the one where more is looked at.
pub fn directions(program: &Program) -> Vec<Direction> {
    let mut directions = vec![Direction::Ingress; program.chains.len()];
    for endpoint in program.endpoints.iter() {
        let pairs = [Some(endpoint.normal), endpoint.forward, endpoint.untracked];
        for pair in pairs.into_iter().flatten() {
            directions[pair.egress.index()] = Direction::Egress;
        }
    }
    directions
}

/// The rule lists of these chains.
fn listed<'f>(flats: &'f Flats<'_>, chains: impl Iterator<Item = &'f Chain>) -> Vec<Listed<'f>> {
    let mut chains_of: IndexMap<RuleListId, usize, FxBuildHasher> = IndexMap::default();
    for list in chains.flat_map(lists) {
        *chains_of.entry(list).or_default() += 1;
    }
    chains_of.into_iter().map(|(list, chains)| Listed { clauses: flats.clauses(list), chains }).collect()
}

/// How many maps these chains may have, by dimension: IPv4, IPv6, services, source ports. A chain has one for each
/// dimension that a clause of it looks at, two for addresses.
fn looks<'f>(flats: &'f Flats<'_>, chains: impl Iterator<Item = &'f Chain>) -> [usize; 4] {
    let addresses: Vec<bool> = (0..narrow(flats.addresses.len()))
        .map(|index| flats.addresses[index] != AddressTerm::default())
        .collect();
    let services: Vec<bool> = flats.services.iter().map(|term| !is_every_service(term)).collect();
    let ports: Vec<bool> = flats.source_ports.iter().map(|term| !is_every_key(term)).collect();
    let mut known: FxHashMap<RuleListId, [bool; 6]> = FxHashMap::default();
    let mut counts = [0; 4];
    for chain in chains {
        let mut looks = [false; 6];
        for list in lists(chain) {
            let of_list = known.entry(list).or_insert_with(|| {
                let mut looks = [false; 6];
                for clause in flats.clauses(list) {
                    let [v4, v6] = clause.families;
                    let (source, destination) =
                        (addresses[clause.source as usize], addresses[clause.destination as usize]);
                    let of_clause = [
                        v4 & source,
                        v4 & destination,
                        v6 & source,
                        v6 & destination,
                        services[clause.service as usize],
                        ports[clause.source_ports as usize],
                    ];
                    looks.iter_mut().zip(of_clause).for_each(|(looks, of_clause)| *looks |= of_clause);
                }
                looks
            });
            looks.iter_mut().zip(of_list).for_each(|(looks, of_list)| *looks |= *of_list);
        }
        for (dimension, looks) in [0, 0, 1, 1, 2, 3].into_iter().zip(looks) {
            counts[dimension] += usize::from(looks);
        }
    }
    counts
}

/// What chains of both families are made with.
pub struct Frame {
    pub services: Services,
    pub source_ports: Numbers<u32, Ranges>,
}

impl Frame {
    fn of(flats: &Flats<'_>, lists: &[Listed<'_>], limits: &Limits) -> Result<Self, Refused> {
        let services = numbers::services(flats, lists, limits)?;
        Ok(Self { services, source_ports: numbers::source_ports(flats, lists, limits)? })
    }
}

/// Writes the image.
pub struct Writer {
    pub image: Builder,
    pub roots: Roots,
    uses: [[Uses; 2]; 2],
    /// By chain.
    pub directions: Vec<Direction>,
    pub counts: Counts,
    pub limits: Limits,
    pub answers: Answers,
    pub steps: Steps,
    /// What is left of [`Limits::passes`].
    passes: usize,
    splitter: Splitter,
    pub maps: Maps,
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
    /// All but the direction, which may change.
    pub record: [u32; DIRECTION],
    /// Of local classes of addresses.
    pub width: Width,
    pub axes: [KeptAxis; 4],
    /// Of its answers.
    pub cells: usize,
    /// What they take of [`Limits::passes`].
    passes: usize,
}

impl Table {
    /// Of local classes of a dimension.
    pub fn width_of(&self, axis: usize, maps: &Maps) -> Width {
        if axis <= DESTINATION { self.width } else { maps.keys() }
    }
}

impl Writer {
    fn new(directions: Vec<Direction>, limits: Limits, outcomes: usize, keeps: bool) -> Self {
        Self {
            image: Builder::new(limits.bytes),
            roots: Roots::default(),
            uses: [[Uses::default(); 2]; 2],
            directions,
            counts: Counts::default(),
            limits,
            answers: Answers::new(outcomes),
            steps: Steps::new(limits.steps),
            passes: limits.passes,
            splitter: Splitter::default(),
            maps: Maps::new(DIRECT),
            zeros: 0,
            keeps,
            rooms: [0; 4],
            tables: Vec::new(),
        }
    }

    /// Whether tables may be changed in an image that is made of this one: maps are not shared, and have no groups.
    fn can_change(&self) -> bool {
        self.keeps && self.roots.levels != DEEP
    }

    /// Of a count, with room for more.
    fn room(&self, count: usize) -> usize {
        if self.keeps { count + count / 8 + 16 } else { count }
    }

    /// The header, room for the records, and the tables of services; without them there is no image.
    fn frame(
        &mut self,
        frame: Result<Frame, Refused>,
        chains: usize,
        looks: [usize; 4],
    ) -> Result<Frame, Refused> {
        let written = frame.and_then(|frame| self.try_frame(&frame, chains, looks).map(|()| frame));
        if written.is_err() {
            (self.image, self.roots) = (Builder::new(0), Roots::default());
        }
        written
    }

    fn try_frame(
        &mut self,
        Frame { services, source_ports }: &Frame,
        chains: usize,
        looks: [usize; 4],
    ) -> Result<(), Refused> {
        self.counts.services = services.numbers.partition.count();
        self.counts.source_ports = source_ports.partition.count();
        let Counts { v4, v6, services: keys, source_ports: ports, .. } = self.counts;
        let room =
            |count, more: usize| (self.room(count) + if self.keeps { more } else { 0 }).div_ceil(BLOCK);
        self.rooms = [room(v4, 0), room(v6, 0), room(keys, MORE_SERVICES), room(ports, 0)];
        let most = BLOCK * self.rooms.into_iter().max().unwrap_or_default();
        let half_bytes = [v4, v6, 2 * keys, 2 * ports].into_iter().zip(looks).map(|(each, maps)| each * maps);
        let directories = 2 * chains * self.rooms.iter().sum::<usize>() * size_of::<u32>();
        self.roots.levels = if keys.max(ports) <= Width::MOST_OF_BYTES
            && half_bytes.sum::<usize>() / 2 <= self.limits.direct_maps
        {
            DIRECT
        } else if directories <= self.limits.flat_maps {
            FLAT
        } else {
            DEEP
        };
        self.maps = Maps::new(self.roots.levels);
        let records = 2 * self.room(chains) * RECORD as usize;
        self.image.check(HEADER + records + self.maps.most_words(most, 0))?;
        self.image.push([0; HEADER]);
        self.roots.records = self.image.push(std::iter::repeat_n(0, records));
        self.roots.record_count = narrow(records / RECORD as usize);
        self.zeros = {
            // Zeros are zeros in blocks of any width.
            let axis = Axis::single(most, Bits::new(), Vec::new());
            self.maps.write(&mut self.image, &axis, Width::WIDE)
        };
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
        let before = (self.answers.mark(), self.passes);
        let written = self.axes(flat, family, addresses, frame).and_then(|mut axes| {
            let Self { answers, limits, steps, passes, .. } = self;
            let cells = axes.fill(flat, answers, &mut Allowance { limits, steps, passes })?;
            self.write(record, family, axes, &cells, before.1 - self.passes).map(|()| cells.is_silent)
        });
        if written.is_err() {
            self.answers.rewind(before.0);
            self.passes = before.1;
        }
        self.answers.set_silent(record, written == Ok(true));
        written.map(|_| ())
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
        let mut existing = every(flat.clauses.len());
        for (index, clause) in flat.clauses.iter().enumerate() {
            if !clause.families[family as usize] {
                existing[index / 64] &= !(1 << (index % 64));
                axes.service.of_clause[index] = NEVER;
            }
        }
        for bits in &mut axes.service.bits {
            bits.iter_mut().zip(&existing).for_each(|(word, mask)| *word &= mask);
        }
        Ok(axes)
    }

    /// `passes` is what the cells take of [`Limits::passes`].
    fn write(
        &mut self,
        record: usize,
        family: Family,
        axes: Axes,
        cells: &Cells,
        passes: usize,
    ) -> Result<(), Refused> {
        let axes = [axes.source, axes.destination, axes.service, axes.source_port];
        let rooms = [self.rooms[family as usize], self.rooms[family as usize], self.rooms[2], self.rooms[3]];
        let of_maps =
            axes.iter().zip(rooms).map(|(axis, room)| self.maps.most_words(room * BLOCK, axis.blocks.len()));
        let words = of_maps.sum::<usize>() + cells.rows.len().div_ceil(2) + cells.answers.len();
        self.image.check(words + self.answers.bytes() / size_of::<u32>())?;
        let width = Width::of(axes[SOURCE].count().max(axes[DESTINATION].count()));
        let keys = self.maps.keys();
        let count = axes[SERVICE].count().max(axes[SOURCE_PORT].count());
        within(count, 1 << (1 << keys.log), |_, most| Refused::Classes { of: "services", most })?;
        let widths = [width, width, keys, keys];
        let maps: [u32; 4] = std::array::from_fn(|axis| self.map(&axes[axis], widths[axis], rooms[axis]));
        let is_plain = (0..).zip(&cells.rows).all(|(index, &row)| usize::from(row) == index);
        let rows = if is_plain { PLAIN } else { self.image.push_halves(&cells.rows) };
        let answers = self.image.push(cells.answers.iter().map(|answer| answer.word()));
        let counts = [cells.destinations, cells.services, cells.source_ports].map(narrow);
        let ([source, destination, service, port], [destinations, services, ports]) = (maps, counts);
        let sources = narrow(axes[SOURCE].count());
        let words =
            [source, destination, service, port, rows, destinations, answers, services, ports, sources];
        self.record(record, &words, width);
        self.counts.cells += cells.answers.len();
        if self.keeps {
            self.tables.resize_with(self.tables.len().max(record + 1), || None);
            let axes = axes.map(KeptAxis::of);
            self.tables[record] =
                Some(Table { record: words, width, axes, cells: cells.answers.len(), passes });
        }
        Ok(())
    }

    /// Writes where a chain's table is.
    pub fn record(&mut self, record: usize, words: &[u32; DIRECTION], width: Width) {
        let direction = self.directions[record / 2];
        let uses = Uses {
            source: words[SOURCE] != self.zeros,
            destination: words[DESTINATION] != self.zeros,
            source_port: words[SOURCE_PORT] != self.zeros,
            rows: words[ROWS] != PLAIN,
        };
        let of_direction = &mut self.uses[direction as usize][record % 2];
        *of_direction = of_direction.and(uses);
        let form = self.form(record % 2, uses, direction);
        let near = words[if form == BY_DESTINATION { DESTINATION } else { SOURCE }];
        let at = self.roots.records + RECORD * narrow(record);
        self.image.set(at, words);
        let rest = [direction as u32, form, near, width.log, width.mask()];
        self.image.set(at + narrow(DIRECTION), &rest);
    }

    /// The form of a record of a chain that looks at this.
    fn form(&self, family: usize, uses: Uses, direction: Direction) -> u32 {
        // Where all addresses are one class there are no tables of them.
        let has_classes = [self.roots.v4.root > 0, self.roots.v6.is_built()][family];
        if !has_classes {
            return NO_FORM;
        }
        if uses.source_port || uses.rows {
            return BY_MORE;
        }
        match (uses.source, uses.destination) {
            (true, true) => BY_MORE,
            (true, false) => BY_SOURCE,
            (false, true) => BY_DESTINATION,
            // As most of its direction.
            (false, false) => [BY_SOURCE, BY_DESTINATION][direction as usize],
        }
    }

    /// Writes that a chain has no table.
    pub fn clear_record(&mut self, record: usize) {
        self.image.set(self.roots.records + RECORD * narrow(record), &[0; RECORD as usize]);
    }

    fn map(&mut self, axis: &Axis, width: Width, room: usize) -> u32 {
        if axis.is_single() {
            self.zeros
        } else if self.can_change() {
            self.maps.write_own(&mut self.image, axis, width, room)
        } else {
            self.maps.write(&mut self.image, axis, width)
        }
    }

    /// Tables that are not kept leave what they took of [`Limits::passes`] to others.
    pub fn free_passes(&mut self) {
        let taken: usize = self.tables.iter().flatten().map(|table| table.passes).sum();
        self.passes = self.limits.passes - taken;
    }

    /// The image as it is now; fails without memory for it.
    pub fn classes(&mut self) -> Result<Classes, Refused> {
        let size = self.image.align();
        self.image.set(0, &self.roots.words(size));
        if !self.keeps {
            // As large as the image, which is copied once more.
            (self.maps, self.splitter) = (Maps::new(DIRECT), Splitter::default());
        }
        let (roots, uses, counts) = (self.roots, self.uses, self.counts);
        Ok(Classes { image: self.image.image()?, roots, uses, counts })
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("images are smaller than 4 GiB")
}
