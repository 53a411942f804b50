//! Which engine answers for which chain: the fastest one whose budget the chain fits, `linear` as the last resort.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::{Answer, Answers};
use super::classes::{self, Classes, Counts, Refused};
use super::flat::{Flat, Point, Sets};
use super::linear::Linear;
use crate::flow::{Family, FiveTuple, OutcomeId};
use crate::program::{ChainId, Program, RuleOrigin};

pub use super::classes::Seen;

/// What the tables of a program may grow to; a chain above a budget gets a slower engine, never more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Of the `classes` engine.
    pub classes: classes::Limits,
}

impl Budgets {
    /// No memory for anything but `linear`.
    pub const LINEAR: Self = Self { classes: classes::Limits { clauses: 0, cells: 0, bytes: 0 } };
}

impl Default for Budgets {
    /// 64 MiB for all tables, 64 K cells (256 KiB) for one chain.
    fn default() -> Self {
        Self { classes: classes::Limits { clauses: 4096, cells: 1 << 16, bytes: 64 << 20 } }
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

/// Answers for the chains that it was built for.
pub trait Engine: fmt::Debug {
    /// Its name in descriptions.
    const NAME: &'static str;

    /// How the chain ends for the packet; `seen` keeps between chains what is the same for all of them.
    fn find(&self, chain: ChainId, packet: &Packet<'_>, seen: &mut Seen) -> Answer;

    /// The memory of its tables.
    fn bytes(&self) -> usize;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Classes,
    Linear,
}

/// All engines of a program. Interfaces are not in here: a change of links needs no new one.
#[derive(Debug)]
pub struct Engines {
    program: Arc<Program>,
    answers: Answers,
    /// By `2 * chain + family`.
    choices: Vec<Choice>,
    /// Why a chain of a family is not in `classes`.
    refused: Vec<(ChainId, Family, Refused)>,
    classes: Classes,
    linear: Linear,
}

impl Engines {
    /// Chooses and builds.
    pub fn build(program: Arc<Program>, budgets: &Budgets) -> Self {
        let mut sets = Sets::of(&program);
        let flats: Vec<Option<Flat>> =
            program.chains.iter().map(|chain| Some(Flat::of(&program, &mut sets, chain))).collect();
        let mut answers = Answers::new(program.outcomes.len());
        let (classes, built) = Classes::build(&flats, &sets, &budgets.classes, &mut answers);
        let (mut choices, mut refused) = (Vec::with_capacity(2 * built.len()), Vec::new());
        for (chain, built) in built.into_iter().enumerate() {
            for (family, built) in [Family::V4, Family::V6].into_iter().zip(built) {
                choices.push(if built.is_ok() { Choice::Classes } else { Choice::Linear });
                refused.extend(built.err().map(|why| (ChainId::new(chain), family, why)));
            }
        }
        let linear = Linear::new(Arc::clone(&program));
        Self { program, answers, choices, refused, classes, linear }
    }

    /// The compiled policy.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// How the chain ends for the packet.
    #[inline]
    pub fn find(&self, chain: ChainId, packet: &Packet<'_>, seen: &mut Seen) -> Answer {
        match self.choices[2 * chain.index() + packet.point.family as usize] {
            Choice::Classes => self.classes.find(chain, packet, seen),
            Choice::Linear => self.linear.find(chain, packet, seen),
        }
    }

    /// How many outcome ids there are.
    pub fn outcome_count(&self) -> usize {
        self.answers.count()
    }

    /// The program's outcome behind an id of this table, and the Log rules passed before it, in order.
    #[inline]
    pub fn meaning(&self, id: OutcomeId) -> (OutcomeId, &[OutcomeId]) {
        self.answers.meaning(id)
    }

    /// What has been chosen, and why.
    pub fn describe(&self) -> Description {
        let Counts { v4, v6, services, source_ports, cells } = self.classes.counts();
        let count = |choice| self.choices.iter().filter(|&&chosen| chosen == choice).count();
        let others = self.refused.iter().map(|(chain, family, why)| Other {
            chain: chain.index(),
            family: if *family == Family::V4 { 4 } else { 6 },
            engine: Linear::NAME,
            why: why.to_string(),
        });
        Description {
            chains: self.choices.len() / 2,
            bytes: self.classes.bytes() + self.linear.bytes(),
            classes: ClassesDescription {
                tables: count(Choice::Classes),
                bytes: self.classes.bytes(),
                ipv4_classes: v4,
                ipv6_classes: v6,
                service_classes: services,
                source_port_classes: source_ports,
                cells,
            },
            others: others.collect(),
        }
    }

    /// What an outcome of the program means.
    pub fn origin(&self, id: OutcomeId) -> &RuleOrigin {
        self.program.outcome(id)
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
    /// Tables that are not in it.
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
