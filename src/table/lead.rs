//! The only chain that a packet meets, and what is to be known of it before its record is at hand, in one word.

use super::engines::Engines;
use crate::flow::Family;
use crate::program::ChainId;

/// Of hooks and sides of an interface: the only chain there ([`Lead`]), or [`NONE`], or [`MORE`]. The sum of two, in
/// 32 bits, is that of a chain only where one of them is and the other is [`NONE`]: so both are looked at in one
/// comparison.
pub type Chains = u32;
pub const NONE: Chains = 0;
/// Above the number of the only chain.
const ONE: Chains = 1 << KIND;
/// Several chains, or one with more ahead of it than a new packet can skip.
pub const MORE: Chains = 2 << KIND;
/// Where it is said which of these it is.
const KIND: u32 = 30;
/// The bit of a workload's egress, ahead of which encapsulated packets are settled (E-20.5).
const FROM_WORKLOAD: u32 = 29;
/// Where a bit for each family begins.
const IN_TREE: u32 = 27;
/// The bits of a chain that is made ready for an interface and a family, and of one that then asks about destinations.
const READY: u32 = 26;
const BY_DESTINATION: u32 = 25;
/// Where the number of a chain ends.
const NUMBER: u32 = 25;

/// The only chain that a packet meets.
#[derive(Clone, Copy, Debug)]
pub struct Lead(Chains);

impl Lead {
    /// To a chain; none above all numbers that fit.
    pub fn to(engines: &Engines, chain: ChainId, is_from_workload: bool) -> Option<Self> {
        if chain.number() >> NUMBER != 0 {
            return None;
        }
        let in_tree = |family| u32::from(engines.is_in_tree(chain, family)) << (IN_TREE + family as u32);
        let bits = in_tree(Family::V4) | in_tree(Family::V6) | u32::from(is_from_workload) << FROM_WORKLOAD;
        Some(Self(ONE | bits | chain.number()))
    }

    /// The only one there, if there is one.
    #[inline]
    pub fn of(chains: Chains) -> Option<Self> {
        (chains >> KIND == ONE >> KIND).then_some(Self(chains))
    }

    /// The same, if it is ready.
    #[inline]
    pub fn of_ready(chains: Chains) -> Option<Self> {
        (chains & (u32::MAX << KIND | 1 << READY) == ONE | 1 << READY).then_some(Self(chains))
    }

    /// Whether one of several is [a workload's](Self::is_from_workload); these are all of their bits, by "or".
    #[inline]
    pub const fn any_is_from_workload(bits: u32) -> bool {
        Self(bits).is_from_workload()
    }

    /// As the chains of a place where there is no other.
    pub const fn chains(self) -> Chains {
        self.0
    }

    /// Made [ready](super::classes::Ready).
    #[must_use]
    pub fn made_ready(self, is_by_destination: bool) -> Self {
        Self(self.0 | 1 << READY | u32::from(is_by_destination) << BY_DESTINATION)
    }

    /// Its number.
    #[inline]
    pub const fn chain(self) -> ChainId {
        ChainId::from_number(self.0 & ((1 << NUMBER) - 1))
    }

    /// Whether encapsulated packets are settled ahead of it (E-20.5).
    #[inline]
    pub const fn is_from_workload(self) -> bool {
        self.0 >> FROM_WORKLOAD & 1 != 0
    }

    /// Of one that is ready: whether it asks about destinations. The way to the class of an address need not wait for more
    /// than this word.
    #[inline]
    pub const fn is_by_destination(self) -> bool {
        self.0 >> BY_DESTINATION & 1 != 0
    }

    /// Whether `tree` answers for it: who asks need not find out that it has no table in `classes`.
    #[inline]
    pub const fn is_in_tree(self, family: Family) -> bool {
        self.0 >> (IN_TREE + family as u32) & 1 != 0
    }
}
