//! The answers of one chain, one for each combination of local classes: all of tiers, Pass, Log and defaults is settled
//! here.

use std::cell::Cell;

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::limits::{Limits, Refused, Steps, within};
use super::local::{Axis, Bits};
use crate::flow::OutcomeId;
use crate::program::Action;
use crate::table::answer::{Answer, Answers, End, meaning_bytes};
use crate::table::flat::Flat;

/// The axes of a chain, in the order of the table's nesting.
#[derive(Clone)]
pub struct Axes {
    /// By source address.
    pub source: Axis,
    /// By destination address.
    pub destination: Axis,
    /// By protocol and second key.
    pub service: Axis,
    /// By source port.
    pub source_port: Axis,
}

/// Rows have to fit 16 bits.
const MOST_PAIRS: usize = 1 << 16;
/// What one more outcome takes where a worker counts packets. How many workers there will be is not known here; mostly
/// there is one.
const COUNT_BYTES: usize = 32;

/// Row of (source, destination); cell of (row, service, source port).
pub struct Cells {
    /// By `source * destinations + destination`.
    pub rows: Vec<u16>,
    /// Destination classes.
    pub destinations: usize,
    /// Service classes.
    pub services: usize,
    /// Source port classes.
    pub source_ports: usize,
    /// By `(row * services + service) * source_ports + source_port`.
    pub answers: Vec<Answer>,
    /// There are Pass rules, and the answers do not tell which of them were passed.
    pub is_silent: bool,
}

/// What filling may take.
pub struct Allowance<'a> {
    pub limits: &'a Limits,
    pub steps: &'a mut Steps,
    /// What other chains have left of [`Limits::passes`].
    pub passes: &'a mut usize,
}

impl Axes {
    /// Fills the table and merges what gives equal answers; the axes then say the merged classes.
    pub fn fill(
        &mut self,
        flat: &Flat,
        answers: &mut Answers,
        allowance: &mut Allowance<'_>,
    ) -> Result<Cells, Refused> {
        let grid = Grid::of(self, flat, allowance)?;
        let has_passes = flat.rules.iter().any(|&(action, _)| action == Action::Pass);
        if has_passes && let Some(cells) = self.fill_telling(&grid, flat, answers, allowance) {
            return Ok(cells);
        }
        let (used, most) = (answers.bytes(), allowance.limits.bytes);
        let room =
            |ways: &Ways| within(used + ways.bytes, most, |found, most| Refused::Bytes { found, most });
        let ways = grid.ways(flat, &[Action::Log], room, allowance.steps)?;
        let merged = self.merge(&grid.row_of, &ways.cells);
        Ok(self.cells(&merged, &ways, answers, has_passes))
    }

    /// The same with answers that tell the Pass rules passed; none where that takes more memory than is allowed.
    fn fill_telling(
        &mut self,
        grid: &Grid,
        flat: &Flat,
        answers: &mut Answers,
        Allowance { limits, steps, passes }: &mut Allowance<'_>,
    ) -> Option<Cells> {
        let (left, allowed) = (limits.bytes.saturating_sub(answers.bytes()), **passes);
        let within = |found, most| within(found, most, |found, most| Refused::Bytes { found, most });
        let room = |ways: &Ways| within(ways.bytes, left).and_then(|_| within(ways.added_bytes(), allowed));
        let ways = grid.ways(flat, &[Action::Log, Action::Pass], room, steps).ok()?;
        let (mut plain, mut telling) = (self.clone(), self.clone());
        let without = plain.merge(&grid.row_of, &ways.without_passes());
        let merged = telling.merge(&grid.row_of, &ways.cells);
        let added = (merged.bytes() + ways.added_bytes()).saturating_sub(without.bytes());
        **passes = allowed.checked_sub(added)?;
        *self = telling;
        Some(self.cells(&merged, &ways, answers, false))
    }

    fn merge(&mut self, row_of: &[usize], cells: &[u32]) -> Merged {
        let ports = self.source_port.count();
        let columns = self.service.bits.len() * ports;
        let (cells, merged) = merge_rows(cells, columns);
        let rows: Vec<usize> = row_of.iter().map(|&row| merged[row]).collect();
        let by_service = transposed(&cells, columns / ports, ports);
        let (by_service, services) = merge_rows(&by_service, by_service.len() * ports / columns);
        self.service.rename(&services);
        let cells = transposed_back(&by_service, self.service.count(), ports);
        let destinations = self.destination.count();
        let (rows, sources) = merge_rows(&rows, destinations);
        self.source.rename(&sources);
        let (by_destination, merged) = merge_rows(&transposed(&rows, destinations, 1), self.source.count());
        self.destination.rename(&merged);
        Merged { rows: transposed_back(&by_destination, self.destination.count(), 1), cells }
    }

    fn cells(&self, merged: &Merged, ways: &Ways, answers: &mut Answers, is_silent: bool) -> Cells {
        let narrow = |&row: &usize| u16::try_from(row).expect("checked before filling");
        let told: Vec<Answer> = ways.told.iter().map(|(end, passed)| answers.of(*end, passed)).collect();
        let answer =
            |&word: &u32| Answer::beside_number(word).map_or(Answer::from_word(word), |number| told[number]);
        Cells {
            rows: merged.rows.iter().map(narrow).collect(),
            destinations: self.destination.count(),
            services: self.service.count(),
            source_ports: self.source_port.count(),
            answers: merged.cells.iter().map(answer).collect(),
            is_silent,
        }
    }
}

/// Rows by (source, destination), and cells by (row, service, source port).
struct Merged {
    rows: Vec<usize>,
    cells: Vec<u32>,
}

impl Merged {
    fn bytes(&self) -> usize {
        self.rows.len() * size_of::<u16>() + self.cells.len() * size_of::<Answer>()
    }
}

/// All combinations of local classes, by the clauses that hold there.
struct Grid {
    rows: IndexSet<Bits, FxBuildHasher>,
    /// By (source, destination).
    row_of: Vec<usize>,
    /// By (service, source port).
    columns: Vec<Bits>,
}

impl Grid {
    fn of(axes: &Axes, flat: &Flat, allowance: &mut Allowance<'_>) -> Result<Self, Refused> {
        let (sources, destinations) = (&axes.source.bits, &axes.destination.bits);
        let (services, ports) = (&axes.service.bits, &axes.source_port.bits);
        let limits = allowance.limits;
        let words = 1 + flat.clauses.len() / 64;
        let most = |cells, most| within(cells, most, |found, most| Refused::Cells { found, most });
        let pairs = most(sources.len() * destinations.len(), limits.cells.min(MOST_PAIRS))?;
        let columns = most(services.len() * ports.len(), limits.cells)?;
        allowance.steps.take((pairs + columns) * words)?;
        let mut rows: IndexSet<Bits, FxBuildHasher> = IndexSet::default();
        let mut row_of = Vec::with_capacity(pairs);
        for source in sources {
            for destination in destinations {
                row_of.push(rows.insert_full(both(source, destination)).0);
            }
        }
        most(rows.len() * columns, limits.cells)?;
        let columns = services.iter().flat_map(|service| ports.iter().map(|port| both(service, port)));
        Ok(Self { rows, row_of, columns: columns.collect() })
    }

    /// Which way each goes, with the rules of some actions told; `room` is asked after each row.
    fn ways(
        &self,
        flat: &Flat,
        told: &[Action],
        room: impl Fn(&Ways) -> Result<usize, Refused>,
        steps: &mut Steps,
    ) -> Result<Ways, Refused> {
        let mut ways = Ways::of(flat);
        ways.cells.reserve_exact(self.rows.len() * self.columns.len());
        for row in &self.rows {
            for column in &self.columns {
                ways.push(way(flat, row, column, told, steps)?);
            }
            room(&ways)?;
        }
        Ok(ways)
    }
}

/// How a chain ends, and the rules passed on the way.
type Way = (End, Vec<OutcomeId>);

/// The ways that a chain has.
struct Ways {
    /// Pass rules.
    passes: FxHashSet<OutcomeId>,
    /// Those with rules on the way that are told.
    told: IndexSet<Way, FxBuildHasher>,
    /// By (row, service, source port): the word of an answer, or one for the number of a way in `told`.
    cells: Vec<u32>,
    /// Of the rules passed.
    bytes: usize,
    /// Ways that tell Pass rules.
    telling: usize,
}

impl Ways {
    fn of(flat: &Flat) -> Self {
        let passes = flat.rules.iter().filter(|(action, _)| *action == Action::Pass);
        let passes = passes.map(|&(_, outcome)| outcome).collect();
        Self { passes, told: IndexSet::default(), cells: Vec::new(), bytes: 0, telling: 0 }
    }

    fn push(&mut self, way: Way) {
        if way.1.is_empty() {
            self.cells.push(Answer::plain(way.0).word());
            return;
        }
        let (number, is_new) = self.told.insert_full(way);
        self.cells.push(Answer::beside_word(number));
        if is_new {
            let passed = &self.told[number].1;
            self.bytes += meaning_bytes(passed);
            self.telling += usize::from(passed.iter().any(|outcome| self.passes.contains(outcome)));
        }
    }

    /// Beside the table: where Pass rules are told there are more outcomes.
    fn added_bytes(&self) -> usize {
        if self.telling == 0 { 0 } else { self.bytes + self.telling * COUNT_BYTES }
    }

    /// The cells where Pass rules are not told.
    fn without_passes(&self) -> Vec<u32> {
        let mut logging: IndexSet<Way, FxBuildHasher> = IndexSet::default();
        let word = |(end, passed): &Way| {
            let logged = passed.iter().copied().filter(|outcome| !self.passes.contains(outcome));
            let way = (*end, logged.collect::<Vec<_>>());
            let is_plain = way.1.is_empty();
            if is_plain {
                Answer::plain(*end).word()
            } else {
                Answer::beside_word(logging.insert_full(way).0)
            }
        };
        let words: Vec<u32> = self.told.iter().map(word).collect();
        self.cells
            .iter()
            .map(|&cell| Answer::beside_number(cell).map_or(cell, |number| words[number]))
            .collect()
    }
}

fn both(a: &[u64], b: &[u64]) -> Bits {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

fn way(flat: &Flat, row: &[u64], column: &[u64], told: &[Action], steps: &mut Steps) -> Result<Way, Refused> {
    let asked = Cell::new(0);
    let next = |from: usize| {
        asked.set(asked.get() + 1);
        let mut word = from / 64;
        let mut bits = row.get(word)? & column[word] & u64::MAX << (from % 64);
        while bits == 0 {
            word += 1;
            bits = row.get(word)? & column[word];
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    };
    let mut passed = Vec::new();
    let end = flat.walk(next, &mut |action, outcome| {
        if told.contains(&action) {
            passed.push(outcome);
        }
    });
    // Each segment may look through all words, each clause on the way ends one look.
    steps.take(asked.get() + flat.segments.len() * row.len())?;
    Ok((end, passed))
}

/// Equal rows become one; also says which one each is now.
fn merge_rows<T: Copy + Eq + std::hash::Hash>(table: &[T], width: usize) -> (Vec<T>, Vec<usize>) {
    let mut kept: IndexSet<&[T], FxBuildHasher> = IndexSet::default();
    let merged = table.chunks_exact(width).map(|row| kept.insert_full(row).0).collect();
    (kept.into_iter().flatten().copied().collect(), merged)
}

/// (row, column, depth) to (column, row, depth).
fn transposed<T: Copy>(table: &[T], columns: usize, depth: usize) -> Vec<T> {
    let rows = table.len() / (columns * depth);
    let mut out = Vec::with_capacity(table.len());
    for column in 0..columns {
        for row in 0..rows {
            out.extend_from_slice(&table[(row * columns + column) * depth..][..depth]);
        }
    }
    out
}

/// The inverse of [`transposed`], for a table that has `columns` of them left.
fn transposed_back<T: Copy>(table: &[T], columns: usize, depth: usize) -> Vec<T> {
    let rows = table.len() / (columns * depth);
    transposed(table, rows, depth)
}
