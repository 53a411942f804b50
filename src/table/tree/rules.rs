//! Cuboids made ready for the image: clipped to the domain, second keys in 16 bits, answers ranked.

use super::image::Form;
use super::services::{self, Services};
use super::{Cuboid, DIMENSIONS, Limits, NONE};

/// Highest value of each dimension.
pub const DOMAIN: [u32; DIMENSIONS] = [u32::MAX, u32::MAX, NO_PORT, NO_PORT, 255];
/// The dimensions that hold a port, or [`NO_PORT`].
pub const PORTS: [usize; 2] = [2, 3];
/// The dimensions that hold an address.
pub const ADDRESSES: [usize; 2] = [0, 1];
/// Port of a packet without readable ports.
pub const NO_PORT: u32 = 65536;

/// Ranges of addresses that are no nets are parted into nets where that makes no more than one rule more for so many.
const FEW_PARTED: usize = 16;

/// A cuboid in the terms of the image.
#[derive(Clone, Debug)]
pub struct Rule {
    pub low: [u32; DIMENSIONS],
    pub high: [u32; DIMENSIONS],
    /// Grows with the order; neighbours with one value share it.
    pub rank: u32,
    /// The number of its service, if there are [`Rules::services`].
    pub service: u16,
}

/// Bounds of a part of the space, ends inclusive.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub low: [u32; DIMENSIONS],
    pub high: [u32; DIMENSIONS],
}

impl Bounds {
    /// Whether, inside these bounds, `outer` holds all that `inner` holds.
    pub fn hides(&self, outer: &Rule, inner: &Rule) -> bool {
        (0..DIMENSIONS).all(|d| {
            (outer.low[d] <= self.low[d] || outer.low[d] <= inner.low[d])
                && (outer.high[d] >= self.high[d] || outer.high[d] >= inner.high[d])
        })
    }

    /// Whether all of these bounds are inside `rule`.
    pub fn is_inside(&self, rule: &Rule) -> bool {
        (0..DIMENSIONS).all(|d| rule.low[d] <= self.low[d] && rule.high[d] >= self.high[d])
    }
}

/// How a port dimension, 65537 values wide, is brought to 16 bits: every value from `from` on moves down by one.
/// No rule tells `from` and `from - 1` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squeeze {
    pub from: u32,
}

impl Squeeze {
    /// Every pair of neighbours is told apart: nothing moves, and the tree must first cut [`NO_PORT`] off.
    pub const IMPOSSIBLE: Self = Self { from: u32::MAX };

    /// The highest value that no cuboid tells from the one below.
    fn of(cuboids: &[Cuboid], dimension: usize) -> Self {
        let mut is_edge = vec![false; NO_PORT as usize + 2];
        for cuboid in cuboids {
            is_edge[cuboid.low[dimension].min(NO_PORT) as usize] = true;
            is_edge[cuboid.high[dimension].min(NO_PORT) as usize + 1] = true;
        }
        (1..=NO_PORT)
            .rev()
            .find(|&value| !is_edge[value as usize])
            .map_or(Self::IMPOSSIBLE, |from| Self { from })
    }

    /// The value in the terms of the image.
    pub const fn apply(self, value: u32) -> u32 {
        value - (value >= self.from) as u32
    }
}

/// All rules of an image and what their ranks stand for.
#[derive(Debug)]
pub struct Rules {
    pub list: Vec<Rule>,
    /// Value of each rank.
    pub values: Vec<u32>,
    /// Of [`PORTS`].
    pub squeezes: [Squeeze; 2],
    /// The whole space.
    pub bounds: Bounds,
    /// What blocks are to say: nets if the addresses of all rules are nets.
    pub form: Form,
    /// Which services there are, if blocks say their numbers.
    pub services: Option<Services>,
}

impl Rules {
    /// Leaves empty cuboids out. The limits say from how many rules on blocks may say nets and services.
    pub fn new(cuboids: &[Cuboid], limits: &Limits) -> Self {
        let squeezes = PORTS.map(|dimension| Squeeze::of(cuboids, dimension));
        let (list, values) = (Vec::with_capacity(cuboids.len()), Vec::with_capacity(cuboids.len()));
        let mut all =
            Self { list, values, squeezes, bounds: bounds(squeezes), form: Form::Ranges, services: None };
        for cuboid in cuboids.iter().filter(|cuboid| !is_empty(cuboid)) {
            if all.values.last() != Some(&cuboid.value) {
                all.values.push(cuboid.value);
            }
            let rank = u32::try_from(all.values.len() - 1).expect("fewer than 2^32 cuboids");
            let high = std::array::from_fn(|dimension| cuboid.high[dimension].min(DOMAIN[dimension]));
            let mut rule = Rule { low: cuboid.low, high, rank, service: 0 };
            for (dimension, squeeze) in PORTS.into_iter().zip(squeezes) {
                rule.low[dimension] = squeeze.apply(rule.low[dimension]);
                rule.high[dimension] = squeeze.apply(rule.high[dimension]);
            }
            all.list.push(rule);
        }
        all.part_unsqueezed();
        if all.list.len() >= limits.nets {
            all.part_ranges();
            if all.form == Form::Nets && all.list.len() >= limits.services {
                all.number_services();
            }
        }
        all
    }

    /// Where a dimension cannot be squeezed: parts rules that hold [`NO_PORT`] among others in two.
    fn part_unsqueezed(&mut self) {
        for (dimension, squeeze) in PORTS.into_iter().zip(self.squeezes) {
            if squeeze != Squeeze::IMPOSSIBLE {
                continue;
            }
            let whole = std::mem::take(&mut self.list);
            for rule in whole {
                if rule.high[dimension] < NO_PORT || rule.low[dimension] == NO_PORT {
                    self.list.push(rule);
                    continue;
                }
                let (mut below, mut marker) = (rule.clone(), rule);
                below.high[dimension] = NO_PORT - 1;
                marker.low[dimension] = NO_PORT;
                self.list.extend([below, marker]);
            }
        }
    }

    /// Makes all addresses nets, if few rules are parted for that.
    fn part_ranges(&mut self) {
        let most = self.list.len() + self.list.len() / FEW_PARTED;
        let nets_of =
            |rule: &Rule| ADDRESSES.map(|d| nets(rule.low[d], rule.high[d]).count()).iter().product();
        let mut needed = 0;
        let fits = self.list.iter().map(nets_of).all(|parts: usize| {
            needed += parts;
            needed <= most
        });
        if !fits {
            return;
        }
        self.form = Form::Nets;
        if needed == self.list.len() {
            return;
        }
        for rule in std::mem::take(&mut self.list) {
            for source in nets(rule.low[0], rule.high[0]) {
                for destination in nets(rule.low[1], rule.high[1]) {
                    let mut part = rule.clone();
                    [(part.low[0], part.high[0]), (part.low[1], part.high[1])] = [source, destination];
                    self.list.push(part);
                }
            }
        }
    }

    /// Makes services numbers, if there are few.
    fn number_services(&mut self) {
        if self.list.is_empty() || self.squeezes.contains(&Squeeze::IMPOSSIBLE) {
            return;
        }
        let Some((numbers, services)) = Services::of(self.list.iter().map(services::of_rule), &self.bounds)
        else {
            return;
        };
        for (rule, number) in self.list.iter_mut().zip(numbers) {
            rule.service = number;
        }
        (self.services, self.form) = (Some(services), Form::Services);
    }

    /// Whether so many trees must answer with ranks: where the lowest of several answers is not always that of the first
    /// rule, or where a value looks like no answer.
    pub fn must_rank(&self, trees: usize) -> bool {
        trees > 1 && !self.values.is_sorted() || self.values.contains(&NONE)
    }
}

/// The fewest nets that hold all from `low` to `high`, ascending: their lowest and highest values.
pub fn nets(low: u32, high: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut next = Some(low);
    std::iter::from_fn(move || {
        let low = next?;
        // As many last bits as may be anything.
        let fitting = (high - low).checked_add(1).map_or(32, u32::ilog2).min(low.trailing_zeros());
        let last = low | u32::MAX.checked_shr(32 - fitting).unwrap_or(0);
        next = (last < high).then(|| last + 1);
        Some((low, last))
    })
}

fn is_empty(cuboid: &Cuboid) -> bool {
    (0..DIMENSIONS).any(|d| cuboid.low[d] > cuboid.high[d] || cuboid.low[d] > DOMAIN[d])
}

fn bounds(squeezes: [Squeeze; 2]) -> Bounds {
    let mut high = DOMAIN;
    for (dimension, squeeze) in PORTS.into_iter().zip(squeezes) {
        high[dimension] = squeeze.apply(high[dimension]);
    }
    Bounds { low: [0; DIMENSIONS], high }
}
