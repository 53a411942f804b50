//! Services by their numbers: ports and protocol of a rule in nine bits, where a list has few that differ. What a packet is for
//! each of them is worked out once, by its values, and then asked by number.

use rustc_hash::FxHashMap;

use super::image::Line;
use super::rules::{Bounds, Rule};

/// The dimensions of a service: ports and protocol.
const DIMENSIONS: [usize; 3] = [2, 3, 4];
/// Services that are told apart: as many as a line has bits.
const MOST: usize = Line::BITS;

/// The lowest and the highest value in each of [`DIMENSIONS`].
pub type Service = [(u32, u32); 3];

/// That of a rule.
pub fn of_rule(rule: &Rule) -> Service {
    DIMENSIONS.map(|d| (rule.low[d], rule.high[d]))
}

/// Of each dimension, which values lie in which services.
#[derive(Debug)]
pub struct Services(pub [Kinds; 3]);

impl Services {
    /// The number of each service, and what they are; none if there are too many, or too many kinds of values.
    pub fn of(services: impl Iterator<Item = Service>, bounds: &Bounds) -> Option<(Vec<u16>, Self)> {
        let (mut known, mut all) = (FxHashMap::default(), Vec::new());
        let mut numbers = Vec::with_capacity(services.size_hint().0);
        for service in services {
            let number = *known.entry(service).or_insert_with(|| {
                all.push(service);
                all.len() - 1
            });
            if number >= MOST {
                return None;
            }
            numbers.push(u16::try_from(number).ok()?);
        }
        let kinds = |at: usize| Kinds::of(all.iter().map(|service| service[at]), bounds.high[DIMENSIONS[at]]);
        Some((numbers, Self([kinds(0)?, kinds(1)?, kinds(2)?])))
    }

    /// Lines that they take in an image.
    pub fn lines(&self) -> usize {
        self.0.iter().map(Kinds::lines).sum()
    }
}

/// The values of a dimension, by the services that they lie in.
#[derive(Debug)]
pub struct Kinds {
    /// The kind of each value.
    pub of: Vec<u8>,
    /// By kind: the services, as bits, in which a value of it is not.
    pub outside: Vec<Line>,
}

impl Kinds {
    /// Lines that they take in an image.
    pub fn lines(&self) -> usize {
        self.of.len().div_ceil(size_of::<Line>()) + self.outside.len()
    }

    /// Of values up to the highest one and these services, in order; none if there are too many kinds.
    fn of(services: impl Iterator<Item = (u32, u32)>, highest: u32) -> Option<Self> {
        let services: Vec<_> = services.collect();
        let mut begins: Vec<u32> =
            services.iter().flat_map(|&(low, high)| [low, high + 1]).chain([0]).collect();
        begins.sort_unstable();
        begins.dedup();
        begins.retain(|&begin| begin <= highest);
        let (mut known, mut kinds) = (FxHashMap::default(), Self { of: Vec::new(), outside: Vec::new() });
        for (index, &begin) in begins.iter().enumerate() {
            let mut outside = Line([0; 16]);
            for (service, &(low, high)) in services.iter().enumerate() {
                outside.0[service / 32] |= u32::from(begin < low || begin > high) << (service % 32);
            }
            let kind = *known.entry(outside.0).or_insert_with(|| {
                kinds.outside.push(outside);
                kinds.outside.len() - 1
            });
            let end = begins.get(index + 1).copied().unwrap_or(highest + 1);
            kinds.of.resize(end as usize, u8::try_from(kind).ok()?);
        }
        Some(kinds)
    }
}
