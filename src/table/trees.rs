//! The `tree` engine: a chain's clauses as boxes in five dimensions, one [`Tree`] for each of its segments.
//!
//! Address sets become ranges; IPv6 addresses become the rank of the interval that they are in, as trees compare 32-bit
//! numbers. What follows a Log rule of a segment has a tree of its own, so that a packet can pass the rule.

use std::array;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Index;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::Trace;
use super::answer::{Answer, End};
use super::classes::{Seen, Value};
use super::engines::{Engine, Packet};
use super::flat::{Clause, Flat, Flats};
use super::point::{AddressBlock, Point, PointBlock};
use super::terms::{AddressTerm, Protocols, SetId, has_protocol, intersected, narrow};
use super::tree::{self, Cuboid, DIMENSIONS, NONE, Packed, Tree};
use crate::flow::{Family, FiveTuple, OutcomeId};
use crate::program::{Action, AddressSet, ChainId};

/// What the engine may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// A chain of more clauses is tried here before `classes`: many clauses are mostly five-tuples.
    pub wide: usize,
    /// But not one whose clauses differ in their addresses and source ports in so few ways: one port after the other.
    pub kinds: usize,
    /// Boxes of a chain of one family, and ranges of its addresses; 0: no trees at all.
    pub cuboids: usize,
    /// Bytes of a tree for each of its boxes.
    pub bytes_per_cuboid: usize,
    /// Boxes from which on a tree says addresses as nets where it can: fewer bytes, a few more instructions.
    pub nets: usize,
    /// As `nets`, boxes from which on it says ports and protocols by numbers, if few of them differ: still fewer bytes.
    pub services: usize,
    /// All trees.
    pub bytes: usize,
    /// Boxes made for all chains, and ranges of sets read for them: what building takes.
    pub steps: usize,
}

impl Limits {
    /// No trees.
    pub const NOTHING: Self = Self {
        wide: usize::MAX,
        kinds: 0,
        cuboids: 0,
        bytes_per_cuboid: 0,
        nets: 0,
        services: 0,
        bytes: 0,
        steps: 0,
    };
}

impl Default for Limits {
    /// A million boxes for one chain, 128 MiB for all, some seconds.
    fn default() -> Self {
        Self {
            wide: 512,
            kinds: 64,
            cuboids: 1 << 20,
            bytes_per_cuboid: 160,
            nets: tree::Limits::of(0).nets,
            services: tree::Limits::of(0).services,
            bytes: 128 << 20,
            steps: 1 << 24,
        }
    }
}

/// Why a chain of a family has no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More boxes than allowed.
    Cuboids(usize),
    /// A tree would take more bytes than allowed.
    Bytes(usize),
    /// No memory: the number of the system's error.
    Memory(i32),
    /// The trees of other chains take all that is allowed.
    Full(usize),
    /// Building takes too long.
    Steps(usize),
    /// Named ports in `notPorts`: boxes that are not ones.
    Vetoes,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuboids(found) => write!(f, "{found} boxes or more, above the budget of tree"),
            Self::Bytes(found) => write!(f, "{found} bytes, above the budget of tree"),
            Self::Memory(code) => {
                write!(f, "no memory for a tree: {}", io::Error::from_raw_os_error(*code))
            }
            Self::Full(found) => write!(f, "trees of {found} bytes already, the budget of tree"),
            Self::Steps(most) => write!(f, "more boxes for all trees than {most}"),
            Self::Vetoes => write!(f, "named ports in notPorts"),
        }
    }
}

/// The engine.
#[derive(Clone, Debug)]
pub struct Trees {
    limits: Limits,
    /// Of [`Limits::steps`].
    left: usize,
    /// By `2 * chain + family`.
    chains: Vec<Option<Arc<Segments>>>,
    bytes: usize,
}

/// A chain of one family.
#[derive(Debug)]
struct Segments {
    /// IPv6: where intervals begin, ascending.
    bounds: Vec<u128>,
    /// In order.
    parts: Vec<Part>,
    end: Answer,
    /// There are more Log rules than are told.
    is_silent: bool,
    /// Clauses of the chain.
    clauses: usize,
}

/// What packets look at before they can end: a segment, or a part of one that ends with a Log rule.
#[derive(Debug)]
struct Part {
    tree: Tree,
    /// The Log rule that ends it.
    log: Option<OutcomeId>,
    /// Where nothing ends the packet; none: the next part follows.
    deny: Option<Answer>,
    /// Where the next segment begins.
    next: usize,
}

/// Ranges of addresses by the index of their [`AddressTerm`].
struct Terms<P> {
    /// Those of all terms, one after the other: clauses mostly ask for them in this order.
    ranges: Vec<(P, P)>,
    places: Places,
}

/// Of terms that clauses have asked for: where their ranges begin and end.
enum Places {
    /// By index, of a chain that has many of all terms.
    Many(Vec<Option<(u32, u32)>>),
    /// Of one among many chains: it must not take what all terms take.
    Few(FxHashMap<u32, (u32, u32)>),
}

impl Places {
    /// For so many clauses, where there are so many terms.
    fn of(clauses: usize, terms: usize) -> Self {
        // An entry of a map takes about as long as so many of a list take to be made.
        if 16 * clauses < terms { Self::Few(FxHashMap::default()) } else { Self::Many(vec![None; terms]) }
    }

    #[inline]
    fn get(&self, term: u32) -> Option<(u32, u32)> {
        match self {
            Self::Many(all) => all[term as usize],
            Self::Few(some) => some.get(&term).copied(),
        }
    }

    fn set(&mut self, term: u32, place: (u32, u32)) {
        match self {
            Self::Many(all) => all[term as usize] = Some(place),
            Self::Few(some) => {
                some.insert(term, place);
            }
        }
    }
}

impl<P> Index<u32> for Terms<P> {
    type Output = [(P, P)];

    #[inline]
    fn index(&self, term: u32) -> &[(P, P)] {
        let (first, end) = self.places.get(term).expect("terms of clauses are read before boxes are made");
        &self.ranges[first as usize..end as usize]
    }
}

/// The value of the Log rule of a part: no answer looks like this. A Pass rule has the word beside answers of its outcome.
const LOG: u32 = NONE - 1;
/// Log rules of a chain that are told: each is one more tree to look at.
const MOST_LOGS: usize = 16;

impl Trees {
    /// For so many chains, none of which has a tree yet.
    pub fn new(chains: usize, limits: &Limits) -> Self {
        let chains = (0..2 * chains).map(|_| None).collect();
        Self { limits: *limits, left: limits.steps, chains, bytes: 0 }
    }

    /// Gives a chain the trees that a chain of another program has: it has the same clauses, which mean the same.
    pub fn share(&mut self, chain: ChainId, others: &Self, other: ChainId) {
        for family in 0..2 {
            let trees = others.chains[2 * other.index() + family].clone();
            self.bytes += trees.as_ref().map_or(0, |trees| trees.bytes());
            self.chains[2 * chain.index() + family] = trees;
        }
    }

    /// Gives a chain of a family its trees.
    pub fn add(&mut self, chain: ChainId, family: Family, flats: &Flats<'_>) -> Result<(), Refused> {
        let policy = flats.program().chain(chain);
        let clauses = flats.count(policy).map_err(|many| Refused::Cuboids(many.found))?;
        if self.limits.cuboids == 0 || clauses > self.limits.cuboids {
            return Err(Refused::Cuboids(clauses));
        }
        if self.bytes >= self.limits.bytes {
            return Err(Refused::Full(self.bytes));
        }
        let flat = flats.chain(policy).map_err(|many| Refused::Cuboids(many.found))?;
        let mut own = flat.clauses.iter().filter(|clause| clause.families[family as usize]);
        if own.any(|clause| clause.is_veto) {
            return Err(Refused::Vetoes);
        }
        let built = match family {
            Family::V4 => {
                let terms = self.terms(&flat, family, flats, |set| &set.v4[..], u32::MAX)?;
                self.segments(&flat, family, flats, Vec::new(), &terms)?
            }
            Family::V6 => {
                let terms = self.terms(&flat, family, flats, |set| &set.v6[..], u128::MAX)?;
                let bounds = bounds(&terms);
                let ranked = |&(first, last): &_| (rank(&bounds, first), rank(&bounds, last));
                let Terms { ranges, places } = terms;
                let terms = Terms { ranges: ranges.iter().map(ranked).collect(), places };
                self.segments(&flat, family, flats, bounds, &terms)?
            }
        };
        self.bytes += built.bytes();
        self.chains[2 * chain.index() + family as usize] = Some(Arc::new(built));
        Ok(())
    }

    fn take(&mut self, boxes: usize) -> Result<(), Refused> {
        self.left = self.left.checked_sub(boxes).ok_or(Refused::Steps(self.limits.steps))?;
        Ok(())
    }

    /// The addresses of each term that clauses of the family have.
    fn terms<P: Value>(
        &mut self,
        flat: &Flat,
        family: Family,
        flats: &Flats<'_>,
        members: impl Fn(&AddressSet) -> &[(P, P)],
        last: P,
    ) -> Result<Terms<P>, Refused> {
        let own = flat.clauses.iter().filter(|clause| clause.families[family as usize]);
        let places = Places::of(own.clone().count(), flats.addresses.len());
        let mut terms = Terms { ranges: Vec::new(), places };
        for index in own.flat_map(|clause| [clause.source, clause.destination]) {
            if terms.places.get(index).is_some() {
                continue;
            }
            let AddressTerm { within, outside } = &flats.addresses[index];
            let read = within.iter().chain(outside).map(|&set| members(flats.set(set)).len());
            self.take(read.sum())?;
            let found = ranges(within, outside, |set| members(flats.set(set)), last);
            let (first, end) = (terms.ranges.len(), terms.ranges.len() + found.len());
            if end > self.limits.cuboids {
                return Err(Refused::Cuboids(end));
            }
            terms.ranges.extend_from_slice(&found);
            terms.places.set(index, (narrow(first), narrow(end)));
        }
        Ok(terms)
    }

    fn segments(
        &mut self,
        flat: &Flat,
        family: Family,
        flats: &Flats<'_>,
        bounds: Vec<u128>,
        terms: &Terms<u32>,
    ) -> Result<Segments, Refused> {
        let own = |clause: &&Clause| clause.families[family as usize];
        let rule = |clause: &Clause| flat.rules[clause.rule as usize];
        let logs = flat.clauses.iter().filter(own).filter(|clause| rule(clause).0 == Action::Log);
        let is_silent = logs.map(|clause| clause.rule).collect::<FxHashSet<_>>().len() > MOST_LOGS;
        let mut boxes = Boxes { flats, terms, protocols: FxHashMap::default(), left: self.limits.cuboids };
        let mut parts = Vec::with_capacity(flat.segments.len());
        for (number, segment) in flat.segments.iter().enumerate() {
            let first = parts.len();
            // Most clauses are one box.
            let (mut cuboids, mut log) = (Vec::with_capacity(flat.clauses_of(number).len()), None);
            for clause in flat.clauses[flat.clauses_of(number)].iter().filter(own) {
                let (action, outcome) = rule(clause);
                if is_silent && action == Action::Log {
                    continue;
                }
                // Alternatives of one Log rule are in one part.
                if let Some((_, log)) = log.take_if(|(rule, _)| *rule != clause.rule) {
                    parts.push(self.part(&mut boxes, &mut cuboids, Some(log), None)?);
                }
                if action == Action::Log {
                    log = Some((clause.rule, outcome));
                }
                boxes.add(clause, value(action, outcome), &mut cuboids)?;
            }
            let deny = segment.deny.map(|outcome| Answer::plain(End::Deny(outcome)));
            parts.push(self.part(&mut boxes, &mut cuboids, log.map(|(_, log)| log), deny)?);
            let next = parts.len();
            parts[first..].iter_mut().for_each(|part| part.next = next);
        }
        Ok(Segments { bounds, parts, end: Answer::plain(flat.end), is_silent, clauses: flat.clauses.len() })
    }

    /// Of these boxes, of which then none are left.
    fn part(
        &mut self,
        boxes: &mut Boxes<'_, '_>,
        cuboids: &mut Vec<Cuboid>,
        log: Option<OutcomeId>,
        deny: Option<Answer>,
    ) -> Result<Part, Refused> {
        let cuboids = std::mem::take(cuboids);
        boxes.left -= cuboids.len();
        self.take(cuboids.len())?;
        let bytes = cuboids.len() * self.limits.bytes_per_cuboid + (64 << 10);
        let limits = tree::Limits {
            bytes,
            nets: self.limits.nets,
            services: self.limits.services,
            ..tree::Limits::of(cuboids.len())
        };
        let tree = tree::build(&cuboids, &limits).map_err(|error| match error {
            tree::Error::TooLarge { needed, .. } => Refused::Bytes(needed),
            tree::Error::Memory(code) => Refused::Memory(code),
        })?;
        Ok(Part { tree, log, deny, next: 0 })
    }

    /// Whether a chain has trees, of both families.
    pub fn has_all(&self, chain: ChainId) -> bool {
        self.has(chain, Family::V4) && self.has(chain, Family::V6)
    }

    /// The clauses that the trees of a chain are made of.
    pub fn clauses(&self, chain: ChainId) -> usize {
        self.chains[2 * chain.index()].as_ref().map_or(0, |trees| trees.clauses)
    }

    /// Whether a chain of a family has trees.
    pub fn has(&self, chain: ChainId, family: Family) -> bool {
        self.chains[2 * chain.index() + family as usize].is_some()
    }

    /// How a chain ends for packets of one family; none if it has no tree. `passed` gets places of packets, and rules that
    /// they pass.
    #[inline(never)]
    pub fn find_block<const N: usize>(
        &self,
        chain: ChainId,
        points: &PointBlock<'_, N>,
        passed: &mut impl FnMut(usize, OutcomeId),
    ) -> Option<[Answer; N]> {
        let family = match points.addresses {
            AddressBlock::V4 { .. } => Family::V4,
            AddressBlock::V6 { .. } => Family::V6,
        };
        let segments = self.chains[2 * chain.index() + family as usize].as_ref()?;
        let mut answers = [segments.end; N];
        // Those whose end no part has told yet, and their places.
        let mut keys = segments.keys(points);
        let mut places: [usize; N] = array::from_fn(|place| place);
        let (mut values, mut left) = ([NONE; N], N);
        for (number, part) in segments.parts.iter().enumerate() {
            part.tree.find_batch(&keys[..left], &mut values[..left]);
            let asked = std::mem::take(&mut left);
            for at in 0..asked {
                let (place, key) = (places[at], keys[at]);
                match part.end_of(values[at], number, &mut |rule| passed(place, rule)) {
                    Ok(answer) => answers[place] = answer,
                    Err(next) if next == number + 1 => {
                        (keys[left], places[left]) = (key, place);
                        left += 1;
                    }
                    // Beyond Log rules that the others look at.
                    Err(next) => {
                        answers[place] =
                            segments.find(next, Packed::of(&key), &mut |rule| passed(place, rule));
                    }
                }
            }
        }
        Some(answers)
    }

    /// As [`Engine::find`], of a chain that has trees for the packet's family.
    #[inline]
    pub fn find_lone<T: Trace>(&self, chain: ChainId, tuple: &FiveTuple, trace: &mut T) -> Answer {
        let segments = self.chains[2 * chain.index() + tuple.family as usize].as_ref();
        let segments = segments.expect("whoever asks knows that it has trees");
        let key = segments.key(&Point::of(tuple));
        // Most packets end in the first part; what has more to say is apart, so that this need not make room for it.
        let Some(first) = segments.parts.first() else { return segments.end };
        match first.tree.find_packed(key) {
            value if Answer::is_word(value) => Answer::from_word(value),
            value => segments.find_on(value, key, &mut |rule| trace.rule(rule)),
        }
    }

    /// Chains with more Log rules than are told.
    pub fn silent_chains(&self) -> impl Iterator<Item = ChainId> {
        let chains = self.chains.iter().enumerate();
        let silent = chains.filter(|(_, segments)| segments.as_ref().is_some_and(|found| found.is_silent));
        silent.map(|(record, _)| ChainId::new(record / 2))
    }

    /// The chains of a family that have trees.
    pub fn count(&self) -> usize {
        self.chains.iter().flatten().count()
    }
}

impl Engine for Trees {
    const NAME: &'static str = "tree";

    fn find<T: Trace>(
        &self,
        chain: ChainId,
        packet: &Packet<'_>,
        _: &mut Seen,
        trace: &mut T,
    ) -> Option<Answer> {
        let segments = self.chains[2 * chain.index() + packet.point.family as usize].as_ref()?;
        Some(segments.find(0, segments.key(&packet.point), &mut |rule| trace.rule(rule)))
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Part {
    /// How a chain ends in its part of this number, whose tree has this value for a packet; else the next part.
    #[inline]
    fn end_of(&self, value: u32, number: usize, passed: &mut impl FnMut(OutcomeId)) -> Result<Answer, usize> {
        match value {
            NONE => self.deny.ok_or(number + 1),
            LOG => {
                self.log.into_iter().for_each(passed);
                self.deny.ok_or(number + 1)
            }
            value => match Answer::beside_number(value) {
                None => Ok(Answer::from_word(value)),
                Some(rule) => {
                    passed(OutcomeId::new(rule));
                    Err(self.next)
                }
            },
        }
    }
}

impl Segments {
    /// How a chain ends for a packet for which the first part's tree has this value.
    #[inline(never)]
    fn find_on(&self, value: u32, key: Packed, passed: &mut impl FnMut(OutcomeId)) -> Answer {
        match self.parts[0].end_of(value, 0, passed) {
            Ok(answer) => answer,
            Err(next) => self.find(next, key, passed),
        }
    }

    /// How a chain ends for a packet, from this part on.
    #[inline]
    fn find(&self, first: usize, key: Packed, passed: &mut impl FnMut(OutcomeId)) -> Answer {
        let mut number = first;
        while let Some(part) = self.parts.get(number) {
            match part.end_of(part.tree.find_packed(key), number, passed) {
                Ok(answer) => return answer,
                Err(next) => number = next,
            }
        }
        self.end
    }

    fn keys<const N: usize>(&self, points: &PointBlock<'_, N>) -> [[u32; DIMENSIONS]; N] {
        let [sources, destinations] = match points.addresses {
            AddressBlock::V4 { source, destination } => [*source, *destination],
            AddressBlock::V6 { source, destination } => {
                let rank = |address| rank(&self.bounds, u128::from_be_bytes(address));
                [source, destination].map(|side| side.map(rank))
            }
        };
        array::from_fn(|at| {
            let (port, service) = (points.source_port(at), points.service(at));
            [sources[at], destinations[at], port, service, u32::from(points.protocol[at])]
        })
    }

    /// Of IPv6 addresses; apart, so that IPv4 need not make room for it.
    #[inline(never)]
    fn ranks(&self, addresses: [u128; 2]) -> [u32; 2] {
        addresses.map(|address| rank(&self.bounds, address))
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.bounds[..]) + self.parts.iter().map(|part| part.tree.bytes()).sum::<usize>()
    }

    #[inline]
    fn key(&self, point: &Point) -> Packed {
        #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32.
        let [source, destination] = match point.family {
            Family::V4 => [point.source as u32, point.destination as u32],
            Family::V6 => self.ranks([point.source, point.destination]),
        };
        Packed::of(&[source, destination, point.source_port, point.service, u32::from(point.protocol)])
    }
}

/// What the boxes of a chain are made of.
struct Boxes<'f, 'p> {
    flats: &'f Flats<'p>,
    terms: &'f Terms<u32>,
    /// By the index of a clause's service.
    protocols: FxHashMap<u32, Vec<(u32, u32)>>,
    /// How many more there may be, those of the part in work included.
    left: usize,
}

impl Boxes<'_, '_> {
    /// The product of a clause's ranges.
    fn add(&mut self, clause: &Clause, value: u32, cuboids: &mut Vec<Cuboid>) -> Result<(), Refused> {
        let service = &self.flats.services[clause.service as usize];
        let protocols =
            self.protocols.entry(clause.service).or_insert_with(|| protocol_ranges(&service.protocols));
        let (sources, destinations) = (&self.terms[clause.source], &self.terms[clause.destination]);
        let (keys, ports) = (&service.keys[..], &self.flats.source_ports[clause.source_ports as usize][..]);
        let dimensions = [sources, destinations, ports, keys, protocols].map(<[_]>::len);
        let product = dimensions.iter().try_fold(1_usize, |product, &count| product.checked_mul(count));
        let total = product.and_then(|product| product.checked_add(cuboids.len()));
        match total {
            Some(total) if total <= self.left => {}
            total => return Err(Refused::Cuboids(total.unwrap_or(usize::MAX))),
        }
        for &source in sources {
            for &destination in destinations {
                for &port in ports {
                    for &key in keys {
                        for &protocol in &*protocols {
                            let sides = [source, destination, port, key, protocol];
                            cuboids.push(Cuboid { low: sides.map(|s| s.0), high: sides.map(|s| s.1), value });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a match of a rule means in a tree.
fn value(action: Action, outcome: OutcomeId) -> u32 {
    match action {
        Action::Allow => Answer::plain(End::Accept(outcome)).word(),
        Action::Deny => Answer::plain(End::Deny(outcome)).word(),
        Action::Pass => Answer::beside_word(outcome.index()),
        Action::Log => LOG,
    }
}

fn protocol_ranges(protocols: &Protocols) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for protocol in (0..=255_u8).filter(|&protocol| has_protocol(protocols, protocol)).map(u32::from) {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == protocol => *last = protocol,
            _ => found.push((protocol, protocol)),
        }
    }
    found
}

/// The addresses that are in all of the sets `within`, and in none of those `outside`.
fn ranges<'s, P: Value + 's>(
    within: &[SetId],
    out: &[SetId],
    members: impl Fn(SetId) -> &'s [(P, P)],
    last: P,
) -> Cow<'s, [(P, P)]> {
    if let ([set], []) = (within, out) {
        return Cow::Borrowed(members(*set));
    }
    let mut found = vec![(P::FIRST, last)];
    for &set in within {
        found = intersected(&found, members(set));
    }
    for &set in out {
        found = intersected(&found, &outside(members(set), last));
    }
    Cow::Owned(found)
}

/// What the ranges leave out.
fn outside<P: Value>(ranges: &[(P, P)], last: P) -> Vec<(P, P)> {
    let mut gaps = Vec::new();
    let mut from = Some(P::FIRST);
    for &(first, end) in ranges {
        if let Some(from) = from.filter(|&from| from < first) {
            gaps.push((from, first.before()));
        }
        from = end.next();
    }
    gaps.extend(from.map(|from| (from, last)));
    gaps
}

/// Where the addresses of a chain's terms begin and end.
fn bounds(terms: &Terms<u128>) -> Vec<u128> {
    let edges = terms.ranges.iter().flat_map(|&(first, last)| [Some(first), last.checked_add(1)]);
    let mut bounds: Vec<u128> = edges.flatten().chain([0]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds
}

/// The number of the interval that an address is in.
#[allow(clippy::cast_possible_truncation)] // Bounds are limited far below.
fn rank(bounds: &[u128], address: u128) -> u32 {
    bounds.partition_point(|&bound| bound <= address) as u32 - 1
}
