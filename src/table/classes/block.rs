//! Many packets at once, load by load: loads that depend on each other wait for memory, those of many packets wait at
//! the same time. Loops are short, so that many rounds of one overlap in the processor, and what they need stays in
//! registers; each writes down what the next one reads.

use std::hint::select_unpredictable;

use super::{
    BY_DESTINATION, BY_MORE, BY_SOURCE, CELLS, Classes, DEEP, DESTINATION, DESTINATIONS, DIRECT, FLAT, FORM,
    NEAR, PLAIN, ROWS, Record, SERVICE, SERVICES, SOURCE, SOURCE_PORT, SOURCE_PORTS, Uses,
};
use crate::flow::Family;
use crate::program::ChainId;
use crate::table::answer::Answer;
use crate::table::point::{AddressBlock, PointBlock};

impl Classes {
    /// The answers of the packets' chains; none if one of them has no table. All packets are of one family.
    #[inline]
    pub fn find_block<const N: usize>(
        &self,
        chains: &[ChainId; N],
        points: &PointBlock<'_, N>,
    ) -> Option<[Answer; N]> {
        if self.roots.levels == DEEP
            && let Some(answers) = self.find_far_block(chains, points)
        {
            return Some(answers);
        }
        by_levels!(self.block_answers::<N>(chains, points))
    }

    /// The same, where maps have so many levels: apart, so that each has its own form.
    #[inline(never)]
    fn block_answers<const LEVELS: u32, const N: usize>(
        &self,
        chains: &[ChainId; N],
        points: &PointBlock<'_, N>,
    ) -> Option<[Answer; N]> {
        match points.addresses {
            AddressBlock::V4 { source, destination } => {
                let class = |index: usize| self.roots.v4.class(&self.image, destination[index]);
                if LEVELS != DEEP
                    && let Some((records, classes)) = self.formed_v4(chains, source, destination)
                {
                    return Some(self.formed_answers::<LEVELS, N>(&records, points, &classes, class));
                }
                let records = self.records(chains, Family::V4)?;
                let sources = || self.roots.v4.classes(&self.image, source);
                Some(self.answers::<LEVELS, N>(&records, points, Family::V4, sources, class))
            }
            AddressBlock::V6 { source, destination } => {
                let class = |index: usize| self.class_v6(u128::from_be_bytes(destination[index]));
                if LEVELS != DEEP
                    && let Some(records) = self.formed_records(chains, Family::V6)
                {
                    let addresses = near_addresses(&records, source, destination);
                    let classes = self.roots.v6.classes(&self.image, &addresses);
                    return Some(self.formed_answers::<LEVELS, N>(&records, points, &classes, class));
                }
                let records = self.records(chains, Family::V6)?;
                let sources = || self.roots.v6.classes(&self.image, &source.each_ref());
                Some(self.answers::<LEVELS, N>(&records, points, Family::V6, sources, class))
            }
        }
    }

    #[inline]
    fn records<const N: usize>(&self, chains: &[ChainId; N], family: Family) -> Option<[&Record; N]> {
        let mut records = [self.record(*chains.first()?, family)?; N];
        for index in 1..N {
            records[index] = self.record(chains[index], family)?;
        }
        Some(records)
    }

    /// If the records of all chains have a form.
    #[allow(clippy::inline_always)] // What it finds stays in registers, or is written once.
    #[inline(always)]
    fn formed_records<const N: usize>(&self, chains: &[ChainId; N], family: Family) -> Option<[&Record; N]> {
        let mut records = [self.formed_record(*chains.first()?, family)?; N];
        for index in 1..N {
            records[index] = self.formed_record(chains[index], family)?;
        }
        Some(records)
    }

    /// The same, with the classes of the addresses that are looked at first.
    #[allow(clippy::inline_always)] // What it finds stays in registers, or is written once.
    #[inline(always)]
    fn formed_v4<const N: usize>(
        &self,
        chains: &[ChainId; N],
        sources: &[u32; N],
        destinations: &[u32; N],
    ) -> Option<([&Record; N], [u32; N])> {
        let mut records = [self.formed_record(*chains.first()?, Family::V4)?; N];
        let mut addresses = [0; N];
        for index in 0..N {
            let record = self.formed_record(chains[index], Family::V4)?;
            let is_destination = record[FORM] == BY_DESTINATION;
            addresses[index] = select_unpredictable(is_destination, destinations[index], sources[index]);
            records[index] = record;
        }
        Some((records, self.roots.v4.classes(&self.image, &addresses)))
    }

    /// By the classes of the addresses that are looked at first; `destination` is the class of one that is looked at then.
    #[allow(clippy::inline_always)] // What it finds stays in registers, or is written once.
    #[inline(always)]
    fn formed_answers<const LEVELS: u32, const N: usize>(
        &self,
        records: &[&Record; N],
        points: &PointBlock<'_, N>,
        classes: &[u32; N],
        destination: impl Fn(usize) -> u32,
    ) -> [Answer; N] {
        let (mut rows, mut cells) = ([0; N], [0; N]);
        for index in 0..N {
            rows[index] = self.local_at::<LEVELS>(records[index], NEAR, classes[index]);
        }
        let services = self.service_classes(points);
        let (mut others, mut count) = ([0_u8; N], 0);
        const { assert!(N <= 256) };
        // Without branches: which chains look at more cannot be predicted.
        for index in 0..N {
            let record = records[index];
            let column = self.local_key_at::<LEVELS>(record[SERVICE], services[index]);
            cells[index] = record[CELLS] + rows[index] * record[SERVICES] + column;
            #[allow(clippy::cast_possible_truncation)] // Below N.
            let place = index as u8;
            others[count] = place;
            count += usize::from(record[FORM] == BY_MORE);
        }
        self.look_at_more::<LEVELS, N>(&others[..count], records, points, (&rows, &mut cells), destination);
        self.answers_at(&cells)
    }

    /// The cells of those packets whose chains look at more than one address and the service, by the local classes of the
    /// first addresses and the cells that they would have without the rest.
    #[allow(clippy::inline_always)] // As its callers are.
    #[inline(always)]
    fn look_at_more<const LEVELS: u32, const N: usize>(
        &self,
        packets: &[u8],
        records: &[&Record; N],
        points: &PointBlock<'_, N>,
        (rows, cells): (&[u32; N], &mut [u32; N]),
        destination: impl Fn(usize) -> u32,
    ) {
        for &index in packets {
            let index = usize::from(index);
            let (record, row) = (records[index], rows[index]);
            let column = cells[index] - record[CELLS] - row * record[SERVICES];
            let local = self.local_at::<LEVELS>(record, DESTINATION, destination(index));
            cells[index] = self.cell::<LEVELS>(record, (row, local), column, || {
                let keys = self.roots.source_ports;
                keys.class(&self.image, points.protocol[index], points.source_port(index))
            });
        }
    }

    /// The classes of their services.
    #[inline]
    pub fn service_classes<const N: usize>(&self, points: &PointBlock<'_, N>) -> [u32; N] {
        self.roots.services.classes(&self.image, points.protocol, |index| points.service(index))
    }

    /// Those in cells.
    #[inline]
    pub fn answers_at<const N: usize>(&self, cells: &[u32; N]) -> [Answer; N] {
        let mut answers = [Answer::from_word(0); N];
        for (answer, &cell) in answers.iter_mut().zip(cells) {
            *answer = Answer::from_word(self.image.word(cell));
        }
        answers
    }

    /// Of chains without a form: in the shortest loops, in which addresses do not wait for records.
    #[inline]
    fn answers<const LEVELS: u32, const N: usize>(
        &self,
        records: &[&Record; N],
        points: &PointBlock<'_, N>,
        family: Family,
        sources: impl Fn() -> [u32; N],
        destination: impl Fn(usize) -> u32,
    ) -> [Answer; N] {
        let uses = self.uses_of(family);
        debug_assert!(uses.destination || !uses.rows, "rows of one destination are their own index");
        let mut rows = [0; N];
        if uses.source {
            rows = self.local_addresses::<LEVELS, N>(records, SOURCE, &sources());
        }
        if uses.destination {
            let (mut others, mut count) = ([0; N], 0);
            for (index, record) in records.iter().enumerate() {
                others[count] = index;
                count += usize::from(record[FORM] != BY_SOURCE);
            }
            let others = &others[..count];
            let mut found = [0; N];
            for &index in others {
                found[index] = destination(index);
            }
            let mut blocks = [0; N];
            for &index in others {
                blocks[index] = self.block::<LEVELS>(records[index][DESTINATION], found[index]);
            }
            for &index in others {
                let record = records[index];
                let local = self.in_block::<LEVELS>(record, blocks[index], found[index]);
                rows[index] = rows[index] * record[DESTINATIONS] + local;
            }
            if uses.rows {
                for &index in others {
                    if records[index][ROWS] != PLAIN {
                        rows[index] = self.image.half(records[index][ROWS], rows[index]);
                    }
                }
            }
        }
        let mut cells = self.local_keys::<LEVELS, N>(records, SERVICE, &self.service_classes(points));
        for index in 0..N {
            cells[index] += rows[index] * records[index][SERVICES];
        }
        if uses.source_port {
            let port = |index| points.source_port(index);
            let ports = self.roots.source_ports.classes(&self.image, points.protocol, port);
            let locals = self.local_keys::<LEVELS, N>(records, SOURCE_PORT, &ports);
            for index in 0..N {
                cells[index] = cells[index] * records[index][SOURCE_PORTS] + locals[index];
            }
        }
        for index in 0..N {
            cells[index] += records[index][CELLS];
        }
        self.answers_at(&cells)
    }

    /// Of both directions.
    fn uses_of(&self, family: Family) -> Uses {
        let [ingress, egress] = self.uses.map(|of| of[family as usize]);
        ingress.and(egress)
    }

    /// Local classes of classes of addresses, by the maps that records have at an index.
    #[inline]
    fn local_addresses<const LEVELS: u32, const N: usize>(
        &self,
        records: &[&Record; N],
        map: usize,
        classes: &[u32; N],
    ) -> [u32; N] {
        let blocks = self.blocks::<LEVELS, N>(records, map, classes);
        let mut locals = [0; N];
        for index in 0..N {
            locals[index] = self.in_block::<LEVELS>(records[index], blocks[index], classes[index]);
        }
        locals
    }

    /// The same of services and source ports.
    #[inline]
    fn local_keys<const LEVELS: u32, const N: usize>(
        &self,
        records: &[&Record; N],
        map: usize,
        classes: &[u32; N],
    ) -> [u32; N] {
        let blocks = self.blocks::<LEVELS, N>(records, map, classes);
        let mut locals = [0; N];
        for index in 0..N {
            locals[index] = self.key_in_block::<LEVELS>(blocks[index], classes[index]);
        }
        locals
    }

    #[inline]
    fn blocks<const LEVELS: u32, const N: usize>(
        &self,
        records: &[&Record; N],
        map: usize,
        classes: &[u32; N],
    ) -> [u32; N] {
        let mut blocks = [0; N];
        for index in 0..N {
            blocks[index] = self.block::<LEVELS>(records[index][map], classes[index]);
        }
        blocks
    }
}

/// The addresses that chains look at first.
#[inline]
fn near_addresses<'a, const N: usize, T>(
    records: &[&Record; N],
    sources: &'a [T; N],
    destinations: &'a [T; N],
) -> [&'a T; N] {
    let mut addresses = sources.each_ref();
    for index in 0..N {
        let is_destination = records[index][FORM] == BY_DESTINATION;
        addresses[index] = select_unpredictable(is_destination, &destinations[index], &sources[index]);
    }
    addresses
}
