//! Which engine answers for which chain: the fastest one whose budget the chain fits, `linear` as the last resort.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Trace;
use super::answer::{Answer, Answers};
use super::classes::{self, Classes, Counts, Kept, Refused};
use super::flat::Flats;
use super::lineage::{Lineage, is_same_chain};
use super::linear::Linear;
use super::named::NamedPorts;
use super::point::{Point, PointBlock};
use super::trees::{self, Trees};
use crate::flow::{Family, FiveTuple, OutcomeId};
use crate::program::{Chain, ChainId, Program, RuleOrigin};

/// What is known of a packet before a chain is asked.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What all chains in `classes` can share.
    classes: classes::Seen,
    /// The answer of a chain in `tree`.
    tree: Option<(ChainId, Answer)>,
}

impl Seen {
    /// Nothing is known yet.
    pub const NOTHING: Self = Self { classes: classes::Seen::new(), tree: None };

    /// The answer of a chain in `tree`, if it has been asked.
    pub const fn of_tree(tree: Option<(ChainId, Answer)>) -> Self {
        Self { classes: classes::Seen::new(), tree }
    }
}

/// What the tables of a program may grow to; a chain above a budget gets a slower engine, never more memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Of the `classes` engine.
    pub classes: classes::Limits,
    /// Of the `tree` engine.
    pub tree: trees::Limits,
}

impl Budgets {
    /// No memory for anything but `linear`.
    pub const LINEAR: Self = Self { classes: classes::Limits::NOTHING, tree: trees::Limits::NOTHING };

    /// Whether a chain is tried in `tree` first: many clauses are mostly five-tuples, which tell more classes apart
    /// than there is room for. Clauses of few kinds do not: those make about twice as many classes, and twice as many
    /// services as there are clauses.
    fn is_wide(&self, flats: &Flats<'_>, chain: &Chain) -> bool {
        let Ok(count) = flats.count(chain) else { return false };
        if count <= self.tree.wide {
            return false;
        }
        let most = self.tree.kinds.min(self.classes.cells / (4 * count));
        count > self.classes.clauses || flats.kinds(chain, most).is_none()
    }
}

/// One packet, as engines are asked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// As the bytes told it.
    pub tuple: &'a FiveTuple,
    /// As numbers.
    pub point: Point,
}

impl<'a> Packet<'a> {
    /// Of these bytes.
    #[inline]
    pub fn of(tuple: &'a FiveTuple) -> Self {
        Self { tuple, point: Point::of(tuple) }
    }
}

/// Answers for the chains that it was built for.
pub trait Engine: fmt::Debug {
    /// Its name in descriptions.
    const NAME: &'static str;

    /// How the chain ends for the packet; none if the engine has no table for that chain and family. `seen` keeps between
    /// chains what is the same for all of them; `trace` gets the rules passed that the answer does not tell.
    fn find<T: Trace>(
        &self,
        chain: ChainId,
        packet: &Packet<'_>,
        seen: &mut classes::Seen,
        trace: &mut T,
    ) -> Option<Answer>;

    /// The memory of its tables.
    fn bytes(&self) -> usize;
}

/// Why a chain is not in `classes`.
#[derive(Debug)]
enum Why {
    /// So many clauses are tried in `tree` first.
    Wide(usize),
    /// A budget of `classes`, and one of `tree` if it is not there either.
    Refused(Refused, Option<trees::Refused>),
    /// No memory for `classes`: trees of what would be there take a hundred times as much.
    NoMemory(Refused),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wide(clauses) => write!(f, "{clauses} clauses: wide lists are tried in tree first"),
            Self::Refused(classes, None) | Self::NoMemory(classes) => write!(f, "{classes}"),
            Self::Refused(classes, Some(tree)) => write!(f, "{classes}; {tree}"),
        }
    }
}

/// All engines of a program. Interfaces are not in here: a change of links needs no new one.
#[derive(Debug)]
pub struct Engines {
    program: Arc<Program>,
    answers: Answers,
    /// Chains of a family that are not in `classes`.
    others: Vec<(ChainId, Family, Why)>,
    /// None without memory for it, or where no budget was given.
    classes: Option<Classes>,
    trees: Trees,
    linear: Linear,
    /// Edits since a fresh build, and the bytes that they have added.
    age: (usize, usize),
}

impl Engines {
    /// Chooses and builds.
    pub fn build(program: Arc<Program>, budgets: &Budgets) -> Self {
        Self::fresh(program, budgets, false).0
    }

    /// Also gives what the next engines can be made from, if that is wanted and possible.
    fn fresh(program: Arc<Program>, budgets: &Budgets, keeps: bool) -> (Self, Option<(Kept, NamedPorts)>) {
        let flats = Flats::of(&program);
        let mut trees = Trees::new(program.chains.len(), &budgets.tree);
        let families = [Family::V4, Family::V6];
        let chains = || (0..program.chains.len()).map(ChainId::new);
        for chain in chains().filter(|&chain| budgets.is_wide(&flats, program.chain(chain))) {
            for family in families {
                // What does not fit is tried again below, and then says why.
                let _ = trees.add(chain, family, &flats);
            }
        }
        let (classes, answers, built, kept) =
            classes::build(&flats, |chain| !trees.has_all(chain), &budgets.classes, keeps);
        let mut others = Vec::new();
        for (chain, built) in chains().zip(built) {
            for (family, built) in families.into_iter().zip(built) {
                let Err(why) = built else {
                    continue;
                };
                let why = if trees.has(chain, family) {
                    Why::Wide(flats.count(program.chain(chain)).unwrap_or_default())
                } else if let Refused::Memory(_) = why {
                    Why::NoMemory(why)
                } else {
                    Why::Refused(why, trees.add(chain, family, &flats).err())
                };
                others.push((chain, family, why));
            }
        }
        let kept = kept.map(|kept| (kept, flats.into_named_ports()));
        let linear = Linear::new(Arc::clone(&program));
        (Self { program, answers, others, classes, trees, linear, age: (0, 0) }, kept)
    }

    /// Those of a program whose chains all have tables in `classes`, or trees of both families.
    fn edited(
        program: Arc<Program>,
        (classes, answers): (Classes, Answers),
        trees: Trees,
        age: (usize, usize),
    ) -> Self {
        let chains = (0..program.chains.len()).map(ChainId::new).filter(|&chain| trees.has_all(chain));
        let others = chains.flat_map(|chain| {
            [Family::V4, Family::V6].map(|family| (chain, family, Why::Wide(trees.clauses(chain))))
        });
        Self {
            answers,
            others: others.collect(),
            classes: Some(classes),
            linear: Linear::new(Arc::clone(&program)),
            program,
            trees,
            age,
        }
    }

    /// The compiled policy.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// How the chain ends for the packet.
    #[inline]
    pub fn find<T: Trace>(
        &self,
        chain: ChainId,
        packet: &Packet<'_>,
        seen: &mut Seen,
        trace: &mut T,
    ) -> Answer {
        let classes = self.classes.as_ref();
        match classes.and_then(|classes| classes.find(chain, packet, &mut seen.classes, trace)) {
            Some(answer) => answer,
            None => self.find_elsewhere(chain, packet, seen, trace),
        }
    }

    /// The engine that makes chains [ready](Classes::ready), and answers for those.
    #[inline]
    pub fn classes(&self) -> Option<&Classes> {
        self.classes.as_ref()
    }

    /// How the only chain that a packet meets ends for it: nothing is kept for others.
    #[inline]
    pub fn find_lone<T: Trace>(&self, chain: ChainId, tuple: &FiveTuple, trace: &mut T) -> Answer {
        let answer = self.find_lone_in_classes(chain, tuple);
        answer.unwrap_or_else(|| self.find(chain, &Packet::of(tuple), &mut { Seen::NOTHING }, trace))
    }

    /// The same by the short way of `classes`, if the chain has one: rules passed are told by the answer alone.
    #[inline]
    pub fn find_lone_in_classes(&self, chain: ChainId, tuple: &FiveTuple) -> Option<Answer> {
        self.classes.as_ref()?.find_lone(chain, tuple)
    }

    /// The same of a chain that [is in `tree`](Self::is_in_tree); `known` is what one of those has answered.
    #[inline]
    pub fn find_lone_in_tree<T: Trace>(
        &self,
        chain: ChainId,
        tuple: &FiveTuple,
        known: Option<(ChainId, Answer)>,
        trace: &mut T,
    ) -> Answer {
        match known {
            Some((asked, answer)) if asked == chain => {
                trace.come_true();
                answer
            }
            _ => self.trees.find_lone(chain, tuple, trace),
        }
    }

    #[inline(never)]
    fn find_elsewhere<T: Trace>(
        &self,
        chain: ChainId,
        packet: &Packet<'_>,
        seen: &mut Seen,
        trace: &mut T,
    ) -> Answer {
        let seen = match seen.tree {
            Some((known, answer)) if known == chain => {
                trace.come_true();
                return answer;
            }
            _ => &mut seen.classes,
        };
        let tree = self.trees.find(chain, packet, seen, trace);
        let answer = tree.or_else(|| self.linear.find(chain, packet, seen, trace));
        answer.expect("`linear` answers for every chain")
    }

    /// How the chains end for packets of one family; none unless all are in `classes`, or all are one chain in `tree`.
    /// `passed` gets places of packets, and rules that they pass and their answers do not tell.
    #[inline]
    pub fn find_block<const N: usize>(
        &self,
        chains: &[ChainId; N],
        points: &PointBlock<'_, N>,
        passed: &mut impl FnMut(usize, OutcomeId),
    ) -> Option<[Answer; N]> {
        self.find_classes_block(chains, points).or_else(|| {
            let chain = chains.first().filter(|&first| chains.iter().all(|chain| chain == first))?;
            self.trees.find_block(*chain, points, passed)
        })
    }

    /// The same; none unless all are in `classes`.
    #[inline]
    pub fn find_classes_block<const N: usize>(
        &self,
        chains: &[ChainId; N],
        points: &PointBlock<'_, N>,
    ) -> Option<[Answer; N]> {
        self.classes.as_ref()?.find_block(chains, points)
    }

    /// How one chain ends for packets of one family; none unless it is in `tree`.
    pub fn find_tree_block<const N: usize>(
        &self,
        chain: ChainId,
        points: &PointBlock<'_, N>,
        passed: &mut impl FnMut(usize, OutcomeId),
    ) -> Option<[Answer; N]> {
        self.trees.find_block(chain, points, passed)
    }

    /// Whether `tree` answers for a chain of a family.
    pub fn is_in_tree(&self, chain: ChainId, family: Family) -> bool {
        let is_in_classes = self.classes.as_ref().is_some_and(|classes| classes.has(chain, family));
        !is_in_classes && self.trees.has(chain, family)
    }

    /// Chains that do not tell the Pass rules that packets pass, for want of room.
    pub fn silent_on_passes(&self) -> impl Iterator<Item = ChainId> {
        self.answers.silent_chains()
    }

    /// Chains that do not tell the Log rules that packets pass: too many of them in `tree`.
    pub fn silent_on_logs(&self) -> impl Iterator<Item = ChainId> {
        self.trees.silent_chains()
    }

    /// What the outcome ids of chains mean.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// How many outcome ids there are.
    pub fn outcome_count(&self) -> usize {
        self.answers.count()
    }

    /// The program's outcome behind an id of this table, and the rules passed before it that it tells, in order.
    #[inline]
    pub fn meaning(&self, id: OutcomeId) -> (OutcomeId, &[OutcomeId]) {
        self.answers.meaning(id)
    }

    /// The tables of `classes`: all that its walks read, without a pointer; empty if there are none.
    pub fn image(&self) -> &[u8] {
        self.classes.as_ref().map_or(&[], Classes::image)
    }

    /// What has been chosen, and why.
    pub fn describe(&self) -> Description {
        let Counts { v4, v6, services, source_ports, cells } =
            self.classes.as_ref().map(Classes::counts).unwrap_or_default();
        let others = self.others.iter().map(|(chain, family, why)| Other {
            chain: chain.index(),
            family: if *family == Family::V4 { 4 } else { 6 },
            engine: match why {
                Why::Refused(_, Some(_)) | Why::NoMemory(_) => Linear::NAME,
                Why::Refused(_, None) | Why::Wide(_) => Trees::NAME,
            },
            why: why.to_string(),
        });
        Description {
            chains: self.program.chains.len(),
            bytes: self.image().len() + self.trees.bytes() + self.linear.bytes(),
            classes: ClassesDescription {
                tables: 2 * self.program.chains.len() - self.others.len(),
                bytes: self.image().len(),
                ipv4_classes: v4,
                ipv6_classes: v6,
                service_classes: services,
                source_port_classes: source_ports,
                cells,
                edits: self.age.0,
                added_bytes: self.age.1,
            },
            tree: TreeDescription { tables: self.trees.count(), bytes: self.trees.bytes() },
            others: others.collect(),
        }
    }

    /// What an outcome of the program means.
    pub fn origin(&self, id: OutcomeId) -> &RuleOrigin {
        self.program.outcome(id)
    }
}

/// Builds the engines of one program after another, each from those before it as far as that goes: chains that have the
/// same rules keep their tables, and sets with other members change the classes of those.
///
/// Only engines in which `classes` and `tree` answer for every chain are made so; others, and what cannot be changed in
/// place, are built anew. A tree is built anew where a rule of its chain, or a set that one names, has changed. Answers
/// do not depend on it.
pub struct Builder {
    budgets: Budgets,
    last: Option<Last>,
}

/// What the engines of the last program were made of.
struct Last {
    program: Arc<Program>,
    kept: Kept,
    named: NamedPorts,
    trees: Trees,
}

impl Builder {
    /// Has built nothing yet.
    pub const fn new(budgets: Budgets) -> Self {
        Self { budgets, last: None }
    }

    /// The engines of the program. Those of earlier ones stay what they are.
    pub fn build(&mut self, program: Arc<Program>) -> Engines {
        if let Some(last) = self.last.take()
            && let Some(engines) = self.update(last, &program)
        {
            return engines;
        }
        let (engines, kept) = Engines::fresh(Arc::clone(&program), &self.budgets, true);
        self.last = kept.map(|(kept, named)| Last { program, kept, named, trees: engines.trees.clone() });
        engines
    }

    fn update(&mut self, last: Last, program: &Arc<Program>) -> Option<Engines> {
        let Last { program: old, mut kept, named, trees } = last;
        let mut lineage = Lineage::of(&old, program, named);
        let trees = self.trees((&old, &trees), program, &mut lineage);
        let made = kept.update(program, &mut lineage, |chain| !trees.has_all(chain)).ok()?;
        let age = kept.age();
        let (program, named) = (Arc::clone(program), lineage.named);
        self.last = Some(Last { program: Arc::clone(&program), kept, named, trees: trees.clone() });
        Some(Engines::edited(program, made, trees, age))
    }

    /// Trees of chains that are as they were, and of those that may have come to need some.
    fn trees(&self, (old, known): (&Program, &Trees), program: &Program, lineage: &mut Lineage) -> Trees {
        let mut trees = Trees::new(program.chains.len(), &self.budgets.tree);
        let mut open = Vec::new();
        for (chain, was) in (0..).map(ChainId::new).zip(&lineage.chains) {
            match *was {
                Some(was) if !known.has_all(was) => {}
                Some(was) if is_same_chain((old, was), (program, chain)) => trees.share(chain, known, was),
                _ => open.push(chain),
            }
        }
        if open.is_empty() {
            return trees;
        }
        let flats = Flats::of_chains(program, &open, &mut lineage.named);
        for &chain in &open {
            if self.budgets.is_wide(&flats, program.chain(chain)) {
                for family in [Family::V4, Family::V6] {
                    // What does not fit is for `classes`, or all is built anew.
                    let _ = trees.add(chain, family, &flats);
                }
            }
        }
        lineage.named = flats.into_named_ports();
        trees
    }
}

/// The engines of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Chains; each has a table for IPv4 and one for IPv6.
    pub chains: usize,
    /// Memory of all tables.
    pub bytes: usize,
    /// The `classes` engine.
    pub classes: ClassesDescription,
    /// The `tree` engine.
    pub tree: TreeDescription,
    /// Tables that are not in `classes`.
    pub others: Vec<Other>,
}

/// The `classes` engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassesDescription {
    /// Chains of a family that it answers for.
    pub tables: usize,
    /// Its image.
    pub bytes: usize,
    /// Addresses that no policy tells apart are one class.
    pub ipv4_classes: usize,
    /// As for IPv4.
    pub ipv6_classes: usize,
    /// Of (protocol, port or ICMP type and code).
    pub service_classes: usize,
    /// Of source ports.
    pub source_port_classes: usize,
    /// Answers stored.
    pub cells: usize,
    /// Edits since all tables were built anew ([`Builder`]).
    pub edits: usize,
    /// What those have added to the image; when it is as much as was built anew, everything is.
    pub added_bytes: usize,
}

/// The `tree` engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TreeDescription {
    /// Chains of a family that it answers for.
    pub tables: usize,
    /// Their trees.
    pub bytes: usize,
}

/// A chain that another engine answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// As in the program's text.
    pub chain: usize,
    /// IP version.
    pub family: u8,
    /// Its engine.
    pub engine: &'static str,
    /// Why not a faster one.
    pub why: String,
}
