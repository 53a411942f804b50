//! Many packets at once where maps have two levels: such an image is in no near cache. Each step asks for the memory that
//! the next one reads, of all packets, so that no packet waits for more than the caches can bring at the same time. Not
//! for what stays near: tables of services, roots of IPv4; nor for what few chains look at. Where images are nearer, asking takes
//! longer than it spares.

use super::block::near_addresses;
use super::{
    BLOCK_WORD, BY_MORE, CELLS, Classes, DEEP, FORM, NEAR, RECORD, Record, SERVICE, SERVICES, WIDTH, group,
    in_group,
};
use crate::program::ChainId;
use crate::table::answer::Answer;
use crate::table::point::{AddressBlock, PointBlock};

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
        let services = self.service_classes(points);
        let records = &self.formed_records(chains, family)?;
        let (classes, cells);
        match points.addresses {
            AddressBlock::V4 { source, destination } => {
                let addresses = near_addresses(records, source, destination).map(|&address| address);
                classes = self.roots.v4.far_classes(&self.image, &addresses);
                let class = |index: usize| self.roots.v4.class(&self.image, destination[index]);
                cells = self.far_cells(records, points, &classes, &services, class);
            }
            AddressBlock::V6 { source, destination } => {
                let addresses = near_addresses(records, source, destination);
                classes = self.roots.v6.classes(&self.image, &addresses);
                let class = |index: usize| self.class_v6(u128::from_be_bytes(destination[index]));
                cells = self.far_cells(records, points, &classes, &services, class);
            }
        }
        Some(self.answers_at(&cells))
    }

    /// By the classes of the addresses that are looked at first; `destination` is the class of one that is looked at then.
    #[inline]
    fn far_cells<const N: usize>(
        &self,
        records: &[&Record; N],
        points: &PointBlock<'_, N>,
        classes: &[u32; N],
        services: &[u32; N],
        destination: impl Fn(usize) -> u32,
    ) -> [u32; N] {
        for index in 0..N {
            self.image.ask(records[index][NEAR] + group(classes[index]));
            self.image.ask(records[index][SERVICE] + group(services[index]));
        }
        let (mut near, mut keys) = ([0; N], [0; N]);
        for index in 0..N {
            near[index] =
                self.image.word(records[index][NEAR] + group(classes[index])) + in_group(classes[index]);
            self.image.ask(near[index]);
            keys[index] =
                self.image.word(records[index][SERVICE] + group(services[index])) + in_group(services[index]);
            self.image.ask(keys[index]);
        }
        for index in 0..N {
            near[index] = self.image.word(near[index]);
            let bit = (classes[index] % BLOCK_WORD) << (records[index][WIDTH] % u32::BITS);
            self.image.ask(near[index] + bit / u32::BITS);
            keys[index] = self.image.word(keys[index]);
            self.image.ask(keys[index] + services[index] % BLOCK_WORD / 2);
        }
        let (mut rows, mut cells) = ([0; N], [0; N]);
        let (mut others, mut count) = ([0_u8; N], 0);
        const { assert!(N <= 256) };
        // Without branches: which chains look at more cannot be predicted.
        for index in 0..N {
            let record = records[index];
            rows[index] = self.in_block::<DEEP>(record, near[index], classes[index]);
            let column = self.key_in_block::<DEEP>(keys[index], services[index]);
            cells[index] = record[CELLS] + rows[index] * record[SERVICES] + column;
            self.image.ask(cells[index]);
            #[allow(clippy::cast_possible_truncation)] // Below N.
            let place = index as u8;
            others[count] = place;
            count += usize::from(record[FORM] == BY_MORE);
        }
        self.look_at_more::<DEEP, N>(&others[..count], records, points, (&rows, &mut cells), destination);
        cells
    }
}
