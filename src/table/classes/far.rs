//! Many packets at once where maps have two levels: such an image is in no near cache. Each step asks for the memory that
//! the next one reads, of all packets, so that no packet waits for more than the caches can bring at the same time. Not
//! for what stays near: roots of IPv4, directories of services, tables of IPv6. Where images are nearer, asking takes longer
//! than it spares.

// Each family is to have its own form, and steps that are written once are those of two loops.
#![allow(clippy::inline_always)]

use std::hint::select_unpredictable;

use super::{
    BLOCK_WORD, BY_DESTINATION, BY_MORE, CELLS, Classes, DEEP, DESTINATION, DESTINATIONS, FORM, NEAR, RECORD,
    ROWS, Record, SERVICE, SERVICES, WIDTH, group, in_group,
};
use crate::flow::Family;
use crate::program::ChainId;
use crate::table::answer::Answer;
use crate::table::point::{AddressBlock, PointBlock};

/// What packets ask their chains.
struct Asked<'a, T, const N: usize> {
    records: [&'a Record; N],
    /// The addresses that are looked at first.
    near: [T; N],
    /// Packets whose chains look at destinations then.
    others: [u8; N],
    count: usize,
}

impl<T, const N: usize> Asked<'_, T, N> {
    fn others(&self) -> impl Iterator<Item = usize> {
        self.others[..self.count].iter().map(|&packet| usize::from(packet))
    }
}

impl Classes {
    /// The answers of the packets' chains; none if one of them has no form. All packets are of one family.
    #[inline(never)]
    pub fn find_far_block<const N: usize>(
        &self,
        chains: &[ChainId; N],
        points: &PointBlock<'_, N>,
    ) -> Option<[Answer; N]> {
        let family = points.addresses.family();
        for chain in chains {
            self.image.ask(self.roots.records + RECORD * (2 * chain.number() + family as u32));
        }
        // What needs no record, while those come.
        let services = self.roots.services.far_classes(&self.image, points);
        let mut others = [0; N];
        let cells = match points.addresses {
            AddressBlock::V4 { source, destination } => {
                let asked = self.asked(chains, family, |index| source[index], |index| destination[index])?;
                let others = &mut others[..asked.count];
                for (other, packet) in others.iter_mut().zip(asked.others()) {
                    *other = destination[packet];
                }
                let near = self.roots.v4.far_classes(&self.image, &asked.near, others);
                self.far_cells(&asked, points, &near, others, &services)
            }
            AddressBlock::V6 { source, destination } => {
                let asked =
                    self.asked(chains, family, |index| &source[index], |index| &destination[index])?;
                let near = self.roots.v6.classes(&self.image, &asked.near);
                let others = &mut others[..asked.count];
                for (other, packet) in others.iter_mut().zip(asked.others()) {
                    *other = self.class_v6(u128::from_be_bytes(destination[packet]));
                }
                self.far_cells(&asked, points, &near, others, &services)
            }
        };
        Some(self.answers_at(&cells))
    }

    #[inline(always)]
    fn asked<T: Copy, const N: usize>(
        &self,
        chains: &[ChainId; N],
        family: Family,
        source: impl Fn(usize) -> T,
        destination: impl Fn(usize) -> T,
    ) -> Option<Asked<'_, T, N>> {
        const { assert!(N <= 256) };
        let first = self.formed_record(*chains.first()?, family)?;
        let mut asked = Asked { records: [first; N], near: [source(0); N], others: [0; N], count: 0 };
        // Without branches: which chains look at more cannot be predicted.
        for (index, &chain) in chains.iter().enumerate() {
            let record = self.formed_record(chain, family)?;
            let form = record[FORM];
            asked.records[index] = record;
            asked.near[index] =
                select_unpredictable(form == BY_DESTINATION, destination(index), source(index));
            #[allow(clippy::cast_possible_truncation)] // Below N.
            let packet = index as u8;
            asked.others[asked.count] = packet;
            asked.count += usize::from(form == BY_MORE);
        }
        Some(asked)
    }

    /// Where the cells are: by the classes of the addresses that are looked at first, of the others, and of services.
    #[inline(always)]
    fn far_cells<T, const N: usize>(
        &self,
        asked: &Asked<'_, T, N>,
        points: &PointBlock<'_, N>,
        near: &[u32; N],
        others: &[u32],
        services: &[u32; N],
    ) -> [u32; N] {
        let records = &asked.records;
        // Where groups stand in maps, then blocks in groups, then where blocks begin.
        let (mut near_at, mut other_at, mut service_at) = ([0; N], [0; N], [0; N]);
        let other_at = &mut other_at[..others.len()];
        for index in 0..N {
            near_at[index] = records[index][NEAR] + group(near[index]);
            self.image.ask(near_at[index]);
            service_at[index] = records[index][SERVICE] + group(services[index]);
            self.image.ask(service_at[index]);
        }
        for ((at, packet), &class) in other_at.iter_mut().zip(asked.others()).zip(others) {
            *at = records[packet][DESTINATION] + group(class);
            self.image.ask(*at);
        }
        self.ask_blocks(&mut near_at, near);
        self.ask_blocks(&mut service_at, services);
        self.ask_blocks(other_at, others);
        for index in 0..N {
            near_at[index] = self.image.word(near_at[index]);
            self.ask_local(records[index], near_at[index], near[index]);
            service_at[index] = self.image.word(service_at[index]);
            self.image.ask(service_at[index] + services[index] % BLOCK_WORD / 2);
        }
        for ((at, packet), &class) in other_at.iter_mut().zip(asked.others()).zip(others) {
            *at = self.image.word(*at);
            self.ask_local(records[packet], *at, class);
        }
        let (mut rows, mut columns, mut cells) = ([0; N], [0; N], [0; N]);
        for index in 0..N {
            let record = records[index];
            rows[index] = self.in_block::<DEEP>(record, near_at[index], near[index]);
            columns[index] = self.key_in_block::<DEEP>(service_at[index], services[index]);
            cells[index] = record[CELLS] + rows[index] * record[SERVICES] + columns[index];
            self.image.ask(cells[index]);
        }
        let mut pairs = [0; N];
        let pairs = &mut pairs[..others.len()];
        for (((pair, &at), packet), &class) in
            pairs.iter_mut().zip(&*other_at).zip(asked.others()).zip(others)
        {
            let record = records[packet];
            *pair = rows[packet] * record[DESTINATIONS] + self.in_block::<DEEP>(record, at, class);
            self.image.ask(record[ROWS] + *pair / 2);
        }
        for (&pair, packet) in pairs.iter().zip(asked.others()) {
            cells[packet] = self.cell_of_pair::<DEEP>(records[packet], pair, columns[packet], || {
                let keys = self.roots.source_ports;
                keys.class(&self.image, points.protocol[packet], points.source_port(packet))
            });
            self.image.ask(cells[packet]);
        }
        cells
    }

    /// From groups to where the offsets of blocks stand.
    #[inline(always)]
    fn ask_blocks(&self, places: &mut [u32], classes: &[u32]) {
        for (place, &class) in places.iter_mut().zip(classes) {
            *place = self.image.word(*place) + in_group(class);
            self.image.ask(*place);
        }
    }

    #[inline(always)]
    fn ask_local(&self, record: &Record, block: u32, class: u32) {
        let bit = (class % BLOCK_WORD) << (record[WIDTH] % u32::BITS);
        self.image.ask(block + bit / u32::BITS);
    }
}
