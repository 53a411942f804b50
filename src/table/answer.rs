//! What a chain answers, in one word: how it ends, and an outcome id that also tells the rules passed: Log rules, and
//! Pass rules where that is wanted and fits.

use std::collections::BTreeSet;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use crate::flow::OutcomeId;
use crate::program::ChainId;

/// How a chain run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The accept mark is set.
    Accept(OutcomeId),
    /// Denied: nothing later can undo it (M-51).
    Deny(OutcomeId),
    /// Left without a mark.
    Unmarked(OutcomeId),
}

impl End {
    /// Why.
    pub const fn outcome(self) -> OutcomeId {
        match self {
            Self::Accept(outcome) | Self::Deny(outcome) | Self::Unmarked(outcome) => outcome,
        }
    }
}

/// [`End`] without its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// [`End::Deny`]; so memory that nobody has written denies.
    Deny = 0,
    /// [`End::Accept`].
    Accept = 1,
    /// [`End::Unmarked`].
    Unmarked = 2,
}

/// How a chain run ends: the end in the two upper bits, the outcome below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer(u32);

const KIND: u32 = 30;
const OUTCOME: u32 = (1 << KIND) - 1;
/// A kind that no end has.
const OTHER: u32 = 3;

impl Answer {
    /// Of an end of which no rules passed are told.
    #[inline]
    pub fn plain(end: End) -> Self {
        let (kind, outcome) = match end {
            End::Accept(outcome) => (EndKind::Accept, outcome),
            End::Deny(outcome) => (EndKind::Deny, outcome),
            End::Unmarked(outcome) => (EndKind::Unmarked, outcome),
        };
        Self((kind as u32) << KIND | outcome.number())
    }

    /// No answer, but a word beside those of answers, for something that has this number.
    pub fn beside_word(number: usize) -> u32 {
        OTHER << KIND | OutcomeId::new(number).number()
    }

    /// Whether this is the word of an answer, and not [beside](Self::beside_word) those.
    #[inline]
    pub const fn is_word(word: u32) -> bool {
        word < OTHER << KIND
    }

    /// The number of a [`beside_word`](Self::beside_word); none of an answer.
    pub const fn beside_number(word: u32) -> Option<usize> {
        if Self::is_word(word) { None } else { Some((word & OUTCOME) as usize) }
    }

    /// As stored in tables.
    #[inline]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// As stored in tables.
    pub const fn word(self) -> u32 {
        self.0
    }

    /// How it ends.
    #[inline]
    pub const fn end(self) -> EndKind {
        const KINDS: [EndKind; 4] = [EndKind::Deny, EndKind::Accept, EndKind::Unmarked, EndKind::Unmarked];
        KINDS[self.kind()]
    }

    /// How it ends, as a number: that of the [`EndKind`].
    #[inline]
    pub const fn kind(self) -> usize {
        (self.0 >> KIND) as usize
    }

    /// The outcome, as [`Answers`] numbers it.
    #[inline]
    pub const fn outcome(self) -> OutcomeId {
        OutcomeId::from_number(self.0 & OUTCOME)
    }
}

/// All outcomes that chains end with: those of the program by their own ids, then those with rules passed on the way.
#[derive(Clone, Debug)]
pub struct Answers {
    plain: usize,
    passed: IndexSet<(OutcomeId, Vec<OutcomeId>), FxBuildHasher>,
    bytes: usize,
    /// Chains whose answers do not tell the Pass rules passed, by family: `2 * chain + family`.
    silent: BTreeSet<usize>,
}

/// How far [`Answers`] had grown.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    passed: usize,
    bytes: usize,
}

impl Answers {
    /// For a program with so many outcomes.
    pub fn new(plain: usize) -> Self {
        Self { plain, passed: IndexSet::default(), bytes: 0, silent: BTreeSet::new() }
    }

    /// The word for an end with these rules on the way.
    pub fn of(&mut self, end: End, passed: &[OutcomeId]) -> Answer {
        if passed.is_empty() {
            return Answer::plain(end);
        }
        let (number, is_new) = self.passed.insert_full((end.outcome(), passed.to_vec()));
        if is_new {
            self.bytes += meaning_bytes(passed);
        }
        let id = OutcomeId::new(self.plain + number);
        assert!(id.number() <= OUTCOME, "outcomes are limited far below");
        Answer::plain(match end {
            End::Accept(_) => End::Accept(id),
            End::Deny(_) => End::Deny(id),
            End::Unmarked(_) => End::Unmarked(id),
        })
    }

    /// The memory of what is behind the program's own outcomes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How far it has grown, for [`rewind`](Self::rewind).
    pub fn mark(&self) -> Mark {
        Mark { passed: self.passed.len(), bytes: self.bytes }
    }

    /// Forgets what has come since.
    pub fn rewind(&mut self, mark: Mark) {
        self.passed.truncate(mark.passed);
        self.bytes = mark.bytes;
    }

    /// Gives outcomes the numbers of another program; what ends with one that this has not is forgotten. Gives what
    /// becomes of the words of answers.
    pub fn rename(&mut self, plain: usize, new_of: &[Option<OutcomeId>]) -> impl Fn(u32) -> u32 + use<> {
        let silent = std::mem::take(&mut self.silent);
        let old = std::mem::replace(self, Self { silent, ..Self::new(plain) });
        let mut ids = new_of.to_vec();
        for (outcome, passed) in old.passed {
            let outcomes = std::iter::once(&outcome).chain(&passed).map(|old| new_of[old.index()]);
            let renamed: Option<Vec<OutcomeId>> = outcomes.collect();
            ids.push(renamed.map(|new| self.of(End::Accept(new[0]), &new[1..]).outcome()));
        }
        // Words of answers that nobody asks for stay what they are.
        move |word| {
            let new = ids.get((word & OUTCOME) as usize).copied().flatten();
            new.map_or(word, |new| word & !OUTCOME | new.number())
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.plain + self.passed.len()
    }

    /// Notes whether a chain's answers tell the Pass rules passed; `record` is `2 * chain + family`.
    pub fn set_silent(&mut self, record: usize, is_silent: bool) {
        if is_silent {
            self.silent.insert(record);
        } else {
            self.silent.remove(&record);
        }
    }

    /// Chains are numbered anew: each new one has the answers of the old one given for it.
    pub fn renumber_chains(&mut self, old_of: &[Option<ChainId>]) {
        let was = std::mem::take(&mut self.silent);
        for (chain, old) in old_of.iter().enumerate() {
            for family in 0..2 {
                if old.is_some_and(|old| was.contains(&(2 * old.index() + family))) {
                    self.silent.insert(2 * chain + family);
                }
            }
        }
    }

    /// Chains whose answers for a family do not tell the Pass rules passed.
    pub fn silent_chains(&self) -> impl Iterator<Item = ChainId> {
        self.silent.iter().map(|record| ChainId::new(record / 2))
    }

    /// The program's outcome, and the rules passed before it, in order.
    pub fn meaning(&self, id: OutcomeId) -> (OutcomeId, &[OutcomeId]) {
        match id.index().checked_sub(self.plain) {
            None => (id, &[]),
            Some(index) => {
                let (outcome, passed) = &self.passed[index];
                (*outcome, passed)
            }
        }
    }
}

/// The memory of an outcome with these rules on the way.
pub fn meaning_bytes(passed: &[OutcomeId]) -> usize {
    size_of::<(OutcomeId, Vec<OutcomeId>)>() + size_of_val(passed)
}
