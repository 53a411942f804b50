//! The answers of one chain, one for each combination of local classes: all of tiers, Pass, Log and defaults is settled
//! here.

use std::cell::Cell;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::limits::{Limits, Refused, Steps, within};
use super::local::{Axis, Bits};
use crate::table::answer::{Answer, Answers};
use crate::table::flat::Flat;

/// The axes of a chain, in the order of the table's nesting.
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
}

impl Axes {
    /// Fills the table and merges what gives equal answers; the axes then say the merged classes.
    pub fn fill(
        &mut self,
        flat: &Flat,
        answers: &mut Answers,
        limits: &Limits,
        steps: &mut Steps,
    ) -> Result<Cells, Refused> {
        let (sources, destinations) = (&self.source.bits, &self.destination.bits);
        let (services, ports) = (&self.service.bits, &self.source_port.bits);
        let words = 1 + flat.clauses.len() / 64;
        let most = |cells, most| within(cells, most, |found, most| Refused::Cells { found, most });
        let pairs = most(sources.len() * destinations.len(), limits.cells.min(MOST_PAIRS))?;
        let columns = most(services.len() * ports.len(), limits.cells)?;
        steps.take((pairs + columns) * words)?;
        let mut rows: IndexSet<Bits, FxBuildHasher> = IndexSet::default();
        let mut row_of = Vec::with_capacity(pairs);
        for source in sources {
            for destination in destinations {
                row_of.push(rows.insert_full(both(source, destination)).0);
            }
        }
        let cells = most(rows.len() * columns, limits.cells)?;
        let columns: Vec<Bits> =
            services.iter().flat_map(|service| ports.iter().map(|port| both(service, port))).collect();
        let mut found = Vec::with_capacity(cells);
        for row in &rows {
            for column in &columns {
                found.push(answer(flat, row, column, answers, steps)?);
            }
            within(answers.bytes(), limits.bytes, |found, most| Refused::Bytes { found, most })?;
        }
        Ok(self.merge(&row_of, &found, columns.len()))
    }

    fn merge(&mut self, row_of: &[usize], cells: &[Answer], columns: usize) -> Cells {
        let ports = self.source_port.count();
        let (cells, merged) = merge_rows(cells, columns);
        let rows: Vec<usize> = row_of.iter().map(|&row| merged[row]).collect();
        let by_service = transposed(&cells, columns / ports, ports);
        let (by_service, services) = merge_rows(&by_service, by_service.len() * ports / columns);
        self.service.rename(&services);
        let kept = self.service.count();
        let answers = transposed_back(&by_service, kept, ports);
        let destinations = self.destination.count();
        let (rows, sources) = merge_rows(&rows, destinations);
        self.source.rename(&sources);
        let (by_destination, merged) = merge_rows(&transposed(&rows, destinations, 1), self.source.count());
        self.destination.rename(&merged);
        let rows = transposed_back(&by_destination, self.destination.count(), 1);
        let narrow = |row| u16::try_from(row).expect("checked before filling");
        Cells {
            rows: rows.into_iter().map(narrow).collect(),
            destinations: self.destination.count(),
            services: kept,
            source_ports: ports,
            answers,
        }
    }
}

fn both(a: &[u64], b: &[u64]) -> Bits {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

fn answer(
    flat: &Flat,
    row: &[u64],
    column: &[u64],
    answers: &mut Answers,
    steps: &mut Steps,
) -> Result<Answer, Refused> {
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
    let mut logged = Vec::new();
    let end = flat.walk(next, &mut logged);
    // Each segment may look through all words, each clause on the way ends one look.
    steps.take(asked.get() + flat.segments.len() * row.len())?;
    Ok(answers.of(end, &logged))
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
