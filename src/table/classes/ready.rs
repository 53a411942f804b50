//! Chains made ready for an interface: what a record says, and what the endpoint behind the interface adds to it, so that
//! a new packet has one address and the service left to be asked about.

use std::array;
use std::fmt::{self, Debug};
use std::hint::select_unpredictable;
use std::ops::BitXor;

use rustc_hash::FxHashMap;

use super::{
    BY_DESTINATION, BY_MORE, CELLS, Classes, DEEP, DESTINATION, DESTINATIONS, DIRECT, FLAT, FORM, MASK, NEAR,
    SERVICE, SERVICES, SOURCE, SOURCE_PORTS, SOURCES, WIDTH, low,
};
use crate::flow::{Direction, Family, FiveTuple};
use crate::program::ChainId;
use crate::table::answer::Answer;
use crate::table::point::{Point, PointBlock};

/// An address of one family.
pub trait Address: Copy + Debug + Default + BitXor<Output = Self> {
    /// Which one.
    const FAMILY: Family;

    /// As tuples have it.
    fn of(number: u128) -> Self;

    /// Zero only if all bits are.
    fn folded(self) -> u32;

    /// Its class, if it is found where it is looked for first.
    fn near(self, classes: &Classes) -> Option<u32>;
}

impl Address for u32 {
    const FAMILY: Family = Family::V4;

    #[inline]
    fn of(number: u128) -> Self {
        low(number)
    }

    #[inline]
    fn folded(self) -> u32 {
        self
    }

    #[inline]
    fn near(self, classes: &Classes) -> Option<u32> {
        Some(classes.roots.v4.class(&classes.image, self))
    }
}

impl Address for u128 {
    const FAMILY: Family = Family::V6;

    #[inline]
    fn of(number: u128) -> Self {
        number
    }

    #[inline]
    fn folded(self) -> u32 {
        let half = self | self >> 64;
        low(half | half >> 32)
    }

    #[allow(clippy::inline_always)] // A call would save registers for what is not common.
    #[inline(always)]
    fn near(self, classes: &Classes) -> Option<u32> {
        classes.roots.v6.near(&classes.image, self)
    }
}

/// Of a chain that looks at one address and the service; or at both addresses, of which the endpoint has one, so that
/// packets of that address need no look at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready<A> {
    /// The map of the address that is asked about.
    near: u32,
    /// That of services.
    service: u32,
    /// Where cells begin: in the image, or in [`OwnCells`].
    cells: u32,
    /// From the cell of one local class of the address to that of the next one.
    step: u32,
    /// Of local classes: binary logarithm of their width, and from [`MASK_BITS`] on their mask.
    width: u32,
    /// Whether the other address counts, and cells are [`OwnCells`], as a mask: all bits or none.
    own: u32,
    /// The other address then.
    other: A,
}

const MASK_BITS: u32 = 16;

/// Cells of chains that look at both addresses, for the addresses that endpoints have: in the image one row may be that of
/// many pairs of addresses, so that rows of one of them do not lie in order.
pub struct OwnCells {
    /// More than are used: a place is one of these without a comparison.
    words: Box<[u32; MOST_CELLS]>,
    count: usize,
}

/// No more than a second cache holds: chains for which there is no room are walked the long way.
const MOST_CELLS: usize = 1 << 17;
/// Of one chain, so that none leaves no room for others.
const MOST_OF_ONE: u32 = 1 << 13;

impl OwnCells {
    /// The cell at a place; behind the last one, something.
    #[inline]
    fn at(&self, place: u32) -> &[u32; 1] {
        // The remainder is its lower bits.
        array::from_ref(&self.words[place as usize % MOST_CELLS])
    }
}

impl Debug for OwnCells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCells").field("count", &self.count).finish_non_exhaustive()
    }
}

/// They are written once for each chain, family, and local class of the endpoint's address, which is the source or the
/// destination.
pub struct OwnCellsBuilder {
    cells: OwnCells,
    known: FxHashMap<OwnKey, u32>,
}

type OwnKey = (ChainId, Family, Direction, u32);

impl Default for OwnCellsBuilder {
    fn default() -> Self {
        let words = vec![0; MOST_CELLS].try_into().expect("so many");
        Self { cells: OwnCells { words, count: 0 }, known: FxHashMap::default() }
    }
}

impl OwnCellsBuilder {
    /// Where these begin; none without room for so many.
    fn place(&mut self, key: OwnKey, count: u32, cells: impl Iterator<Item = u32>) -> Option<u32> {
        if let Some(&known) = self.known.get(&key) {
            return Some(known);
        }
        let OwnCells { words, count: begin } = &mut self.cells;
        let end = *begin + count as usize;
        if count > MOST_OF_ONE || end > MOST_CELLS {
            return None;
        }
        let place = u32::try_from(*begin).ok()?;
        words[*begin..end].iter_mut().zip(cells).for_each(|(word, cell)| *word = cell);
        *begin = end;
        self.known.insert(key, place);
        Some(place)
    }

    /// All of them.
    pub fn build(self) -> OwnCells {
        self.cells
    }
}

/// A chain that is ready, as a packet asks it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a, A> {
    /// The chain.
    pub ready: &'a Ready<A>,
    /// All that there are.
    pub own_cells: &'a OwnCells,
    /// It asks about destinations.
    pub is_by_destination: bool,
}

impl<A: Address> Ready<A> {
    /// The address of a packet that is asked about, and whether the other one is the endpoint's, or does not count.
    #[inline]
    fn asked(&self, is_by_destination: bool, source: A, destination: A) -> (A, bool) {
        // Not a branch: packets of both directions may alternate.
        let asked = select_unpredictable(is_by_destination, destination, source);
        let other = source ^ destination ^ asked;
        (asked, self.is_own(other))
    }

    /// Whether this is the endpoint's address, or does not count.
    #[inline]
    fn is_own(&self, other: A) -> bool {
        (other ^ self.other).folded() & self.own == 0
    }
}

impl Classes {
    /// Whether any chain can be ready for packets of IPv6.
    pub fn tells_v6_apart(&self) -> bool {
        self.roots.v6.is_built()
    }

    /// The chain as an endpoint meets it that has this address of its own, and whether destinations are asked about; none
    /// if the chain has no such short form.
    pub fn ready<A: Address>(
        &self,
        chain: ChainId,
        direction: Direction,
        own: Option<u128>,
        cells: &mut OwnCellsBuilder,
    ) -> Option<(Ready<A>, bool)> {
        let record = self.formed_record(chain, A::FAMILY)?;
        let ready = Ready {
            near: record[NEAR],
            service: record[SERVICE],
            cells: record[CELLS],
            step: record[SERVICES],
            width: record[WIDTH] | record[MASK] << MASK_BITS,
            ..Ready::default()
        };
        if record[FORM] != BY_MORE {
            return Some((ready, record[FORM] == BY_DESTINATION));
        }
        let own = own.filter(|_| record[SOURCE_PORTS] == 1)?;
        let (asked, count, settled) = match direction {
            Direction::Ingress => (SOURCE, record[SOURCES], DESTINATION),
            Direction::Egress => (DESTINATION, record[DESTINATIONS], SOURCE),
        };
        let local = self.local_address(record, settled, self.class(A::FAMILY, own));
        let pairs = (0..count).map(|asked| if settled == SOURCE { (local, asked) } else { (asked, local) });
        // Of chains that do not look at source ports, whatever the levels of maps are.
        let columns =
            |pair| (0..record[SERVICES]).map(move |column| self.cell::<FLAT>(record, pair, column, || 0));
        let words = pairs.flat_map(columns).map(|cell| self.image.word(cell));
        let cells = cells.place((chain, A::FAMILY, direction, local), count * record[SERVICES], words)?;
        let own = Ready { near: record[asked], cells, own: u32::MAX, other: A::of(own), ..ready };
        Some((own, asked == DESTINATION))
    }

    /// The answer to a packet; none if its other address is not the endpoint's.
    #[allow(clippy::inline_always)] // As the short ways are.
    #[inline(always)]
    pub fn find_ready<A: Address>(&self, asked: &Asked<'_, A>, tuple: &FiveTuple) -> Option<Answer> {
        let (source, destination) = (A::of(tuple.source), A::of(tuple.destination));
        let (address, is_own) = asked.ready.asked(asked.is_by_destination, source, destination);
        if !is_own {
            return None;
        }
        match address.near(self) {
            Some(class) => Some(self.answer_ready(asked, class, tuple)),
            None => Some(self.find_ready_elsewhere(asked, tuple)),
        }
    }

    /// The same of an address that is looked for in more than one place: a call of its own, for which nobody saves registers.
    #[inline(never)]
    fn find_ready_elsewhere<A: Address>(&self, asked: &Asked<'_, A>, tuple: &FiveTuple) -> Answer {
        let address = if asked.is_by_destination { tuple.destination } else { tuple.source };
        self.answer_ready(asked, self.class(A::FAMILY, address), tuple)
    }

    /// By the class of the address that is asked about.
    #[allow(clippy::inline_always)] // Each family is to have its own form.
    #[inline(always)]
    fn answer_ready(&self, asked: &Asked<'_, impl Address>, class: u32, tuple: &FiveTuple) -> Answer {
        let (ready, service) = (asked.ready, Point::service_of(&tuple.transport));
        // The same for all packets; ways that are apart from here on are shorter.
        let service = self.roots.services.class(&self.image, tuple.protocol, service);
        let cell = by_levels!(self.ready_cell(ready, class, service));
        self.ready_answer(ready, asked.own_cells, cell)
    }

    /// Where the cell of a packet is.
    #[allow(clippy::inline_always)] // As the short ways are.
    #[inline(always)]
    fn ready_cell<const LEVELS: u32>(&self, ready: &Ready<impl Address>, class: u32, service: u32) -> u32 {
        let block = self.block::<LEVELS>(ready.near, class);
        let index = Self::index_in_block::<LEVELS>(class);
        let row = self.image.bits(block, index, ready.width, ready.width >> MASK_BITS);
        ready.cells + row * ready.step + self.local_key_at::<LEVELS>(ready.service, service)
    }

    /// Writes the answers to packets of IPv4, of which each has its chain to ask; none if one has not, or its other address
    /// is not the endpoint's. Who is asked for the first chain is asked twice.
    #[inline]
    pub fn find_ready_v4_block<'a, const N: usize>(
        &self,
        mut asked: impl FnMut(usize) -> Option<Asked<'a, u32>>,
        points: &PointBlock<'_, N>,
        [sources, destinations]: [&[u32; N]; 2],
        answers: &mut [Answer; N],
    ) -> Option<()> {
        let Asked { ready, own_cells, .. } = asked(0)?;
        let (mut chains, mut addresses) = ([ready; N], [0; N]);
        for index in 0..N {
            let Asked { ready, is_by_destination, .. } = asked(index)?;
            let (address, is_own) = ready.asked(is_by_destination, sources[index], destinations[index]);
            if !is_own {
                return None;
            }
            (chains[index], addresses[index]) = (ready, address);
        }
        let classes = self.roots.v4.classes(&self.image, &addresses);
        self.answer_ready_block(&chains, own_cells, points, &classes, answers);
        Some(())
    }

    /// The same of IPv6.
    #[inline]
    pub fn find_ready_v6_block<'a, const N: usize>(
        &self,
        mut asked: impl FnMut(usize) -> Option<Asked<'a, u128>>,
        points: &PointBlock<'_, N>,
        [sources, destinations]: [&[[u8; 16]; N]; 2],
        answers: &mut [Answer; N],
    ) -> Option<()> {
        let Asked { ready, own_cells, .. } = asked(0)?;
        let (mut chains, mut addresses) = ([ready; N], sources.each_ref());
        for index in 0..N {
            let Asked { ready, is_by_destination, .. } = asked(index)?;
            let (source, destination) = (&sources[index], &destinations[index]);
            chains[index] = ready;
            addresses[index] = select_unpredictable(is_by_destination, destination, source);
            let other = select_unpredictable(is_by_destination, source, destination);
            if !ready.is_own(u128::from_be_bytes(*other)) {
                return None;
            }
        }
        let classes = self.roots.v6.classes(&self.image, &addresses);
        self.answer_ready_block(&chains, own_cells, points, &classes, answers);
        Some(())
    }

    /// By the classes of the addresses that are asked about.
    #[inline]
    fn answer_ready_block<const N: usize>(
        &self,
        chains: &[&Ready<impl Address>; N],
        own_cells: &OwnCells,
        points: &PointBlock<'_, N>,
        classes: &[u32; N],
        answers: &mut [Answer; N],
    ) {
        let cells = by_levels!(self.ready_cells::<N>(chains, points, classes));
        for index in 0..N {
            answers[index] = self.ready_answer(chains[index], own_cells, cells[index]);
        }
    }

    #[inline]
    fn ready_cells<const LEVELS: u32, const N: usize>(
        &self,
        chains: &[&Ready<impl Address>; N],
        points: &PointBlock<'_, N>,
        classes: &[u32; N],
    ) -> [u32; N] {
        let (services, mut cells) = (self.service_classes(points), [0; N]);
        for index in 0..N {
            cells[index] = self.ready_cell::<LEVELS>(chains[index], classes[index], services[index]);
        }
        cells
    }

    /// What is there.
    #[inline]
    fn ready_answer(&self, ready: &Ready<impl Address>, own_cells: &OwnCells, cell: u32) -> Answer {
        let is_own = ready.own != 0;
        let count = if is_own { own_cells.count } else { self.image.bytes().len() / size_of::<u32>() };
        debug_assert!((cell as usize) < count, "a walk leads behind the last cell");
        // Not a branch, and nothing is read but what counts.
        let [cell] = *select_unpredictable(is_own, own_cells.at(cell), self.image.chunk_anywhere(cell));
        Answer::from_word(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells are written once for each chain, family, direction and local class, and no more than there is room for.
    #[test]
    fn own_cells_are_limited() {
        let mut cells = OwnCellsBuilder::default();
        let key = |class| (ChainId::new(1), Family::V4, Direction::Ingress, class);
        assert_eq!(cells.place(key(0), 3, 7..10), Some(0));
        assert_eq!(cells.place(key(1), MOST_OF_ONE + 1, 0..=MOST_OF_ONE), None);
        assert_eq!(cells.place(key(1), MOST_OF_ONE, 3..3 + MOST_OF_ONE), Some(3));
        assert_eq!(cells.place(key(0), 3, 0..3), Some(0));
        for (place, others) in (3 + MOST_OF_ONE..).zip([
            (ChainId::new(1), Family::V4, Direction::Egress, 0),
            (ChainId::new(1), Family::V6, Direction::Ingress, 0),
            (ChainId::new(2), Family::V4, Direction::Ingress, 0),
        ]) {
            assert_eq!(cells.place(others, 1, 5..6), Some(place));
        }
        let places: Vec<_> = (2..)
            .map_while(|class| cells.place(key(class), MOST_OF_ONE, class..class + MOST_OF_ONE))
            .collect();
        assert_eq!(places.len(), MOST_CELLS / MOST_OF_ONE as usize - 2);
        let cells = cells.build();
        let at = |place| cells.at(place)[0];
        assert_eq!([0, 1, 2, 3, 3 + MOST_OF_ONE].map(at), [7, 8, 9, 3, 5]);
        for (class, &place) in (2..).zip(&places) {
            assert_eq!([at(place), at(place + MOST_OF_ONE - 1)], [class, class + MOST_OF_ONE - 1]);
        }
    }

    #[test]
    fn no_bit_is_folded_away() {
        assert!((0..128).all(|bit| (1_u128 << bit).folded() != 0) && u128::default().folded() == 0);
        assert!((0..32).all(|bit| (1_u32 << bit).folded() != 0) && u32::default().folded() == 0);
    }
}
