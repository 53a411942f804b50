//! The clocked loops.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{MeasureError, verdict};
use crate::flow::{Direction, EndpointId, FlowKey, OutcomeId, Verdict};
use crate::table::{Column, DecisionTable};
use crate::workload::traffic::{Asked, Questions};

/// Questions that are laid out ahead of the clock: few enough to stay in the first cache beside the table, many enough
/// to make reading the clock cheap.
const BLOCK: usize = 256;
/// Questions of one batch: as a script would pass them, and over before the scheduler is likely to interrupt.
const BATCH: usize = 1024;

/// Times of blocks of questions. Their median counts: a block during which the processor did something else does not.
#[derive(Debug, Default)]
pub struct Clock(Vec<f64>);

impl Clock {
    /// The time that one question took, in the median block; zero without blocks.
    pub fn nanoseconds(&mut self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.is_empty() { 0.0 } else { *self.0.select_nth_unstable_by(middle, f64::total_cmp).1 }
    }

    #[allow(clippy::cast_precision_loss)] // Counts and nanoseconds are far below 2^52.
    fn add(&mut self, spent: Duration, questions: usize) {
        self.0.push(spent.as_nanos() as f64 / questions as f64);
    }
}

/// Questions, and where their answers are put.
#[derive(Debug)]
pub struct Trace {
    pub name: &'static str,
    pub questions: Vec<Questions>,
    /// One for each of `questions`.
    pub answers: Vec<Answers>,
}

/// Verdicts and outcome ids of questions, by column.
#[derive(Clone, Debug)]
pub struct Answers {
    verdicts: Vec<u8>,
    outcomes: Vec<u32>,
}

/// How a table is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The next question does not wait for the answer: the processor may overlap them.
    One,
    /// The next question is not known before the answer is.
    Dependent,
    /// All by column.
    Batch,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::One, Self::Dependent, Self::Batch];

    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Dependent => "dependent",
            Self::Batch => "batch",
        }
    }
}

impl Answers {
    /// For as many questions; written once, so that no round waits for memory.
    fn room(count: usize) -> Self {
        Self { verdicts: vec![u8::MAX; count], outcomes: vec![u32::MAX; count] }
    }

    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.verdicts.iter().map(|&number| verdict(number))
    }

    fn pairs(&self) -> impl Iterator<Item = (u8, u32)> {
        self.verdicts.iter().copied().zip(self.outcomes.iter().copied())
    }
}

impl Trace {
    pub fn new(name: &'static str, questions: Vec<Questions>) -> Self {
        let answers = questions.iter().map(|questions| Answers::room(questions.len())).collect();
        Self { name, questions, answers }
    }

    pub fn len(&self) -> usize {
        self.questions.iter().map(Questions::len).sum()
    }

    /// How many answers are not those.
    pub fn differing(&self, others: &[Answers]) -> usize {
        let pairs = self.answers.iter().zip(others);
        pairs
            .map(|(own, other)| own.pairs().zip(other.pairs()).filter(|(own, other)| own != other).count())
            .sum()
    }

    /// Asks everything once.
    pub fn ask(
        &mut self,
        table: &DecisionTable,
        way: Way,
        clock: &mut Clock,
        stop: &AtomicBool,
    ) -> Result<(), MeasureError> {
        for (questions, answers) in self.questions.iter().zip(&mut self.answers) {
            let workloads = questions.workloads();
            let hook = |_, key: &FlowKey| decide(table, key);
            let workload = |index: usize, key: &FlowKey| ingress(table, workloads[index], key);
            match (way, questions.asked) {
                (Way::One, Asked::Hook(_)) => one(questions, answers, clock, stop, hook),
                (Way::One, Asked::Workload) => one(questions, answers, clock, stop, workload),
                (Way::Dependent, Asked::Hook(_)) => dependent(questions, answers, clock, stop, hook),
                (Way::Dependent, Asked::Workload) => dependent(questions, answers, clock, stop, workload),
                (Way::Batch, _) => batch(table, questions, answers, clock, stop),
            }
            if stop.load(Ordering::Relaxed) {
                return Err(MeasureError::Stopped);
            }
        }
        Ok(())
    }

    /// Asks the first `count` questions in another way.
    pub fn sampled(&self, count: usize, mut ask: impl FnMut(&Questions, usize, &FlowKey)) -> Clock {
        let (mut clock, mut left) = (Clock::default(), count);
        let block = (count / 16).clamp(1, BLOCK);
        for questions in &self.questions {
            let of_these = questions.len().min(left);
            blocks(questions, of_these, block, &mut clock, |first, keys| {
                for (index, key) in (first..).zip(keys) {
                    ask(questions, index, key);
                }
                true
            });
            left -= of_these;
        }
        clock
    }
}

type Said = (Verdict, OutcomeId);

#[inline]
fn decide(table: &DecisionTable, key: &FlowKey) -> Said {
    let decision = table.decide(key);
    (decision.verdict, decision.outcome)
}

/// The ingress policy of a workload.
#[inline]
fn ingress(table: &DecisionTable, workload: u32, key: &FlowKey) -> Said {
    let gate = table.gate(EndpointId::from_number(workload), Direction::Ingress, &key.tuple);
    (if gate.allows { Verdict::Allow } else { Verdict::Deny }, gate.outcome)
}

/// What a table says to one of the questions, of which this is the key.
pub fn answer(table: &DecisionTable, questions: &Questions, index: usize, key: &FlowKey) -> Said {
    match questions.asked {
        Asked::Hook(_) => decide(table, key),
        Asked::Workload => ingress(table, questions.workloads()[index], key),
    }
}

/// Lays out the first `count` questions in blocks and clocks what is done with each: its first index and its questions,
/// until that says false.
fn blocks(
    questions: &Questions,
    count: usize,
    block: usize,
    clock: &mut Clock,
    mut clocked: impl FnMut(usize, &[FlowKey]) -> bool,
) {
    let flows = questions.flows();
    let mut keys = Vec::with_capacity(block);
    for first in (0..count).step_by(block) {
        keys.clear();
        keys.extend((first..count.min(first + block)).map(|index| flows.key(index)));
        let begun = Instant::now();
        let goes_on = clocked(first, &keys);
        clock.add(begun.elapsed(), keys.len());
        if !goes_on {
            break;
        }
    }
}

fn one(
    questions: &Questions,
    answers: &mut Answers,
    clock: &mut Clock,
    stop: &AtomicBool,
    ask: impl Fn(usize, &FlowKey) -> Said,
) {
    blocks(questions, questions.len(), BLOCK, clock, |first, keys| {
        let verdicts = answers.verdicts[first..].iter_mut();
        let outcomes = &mut answers.outcomes[first..];
        for (index, ((key, verdict), outcome)) in (first..).zip(keys.iter().zip(verdicts).zip(outcomes)) {
            let said = ask(index, key);
            (*verdict, *outcome) = (said.0 as u8, said.1.number());
        }
        !stop.load(Ordering::Relaxed)
    });
}

/// Addresses, interfaces and workload of a question depend on the answer before it: nothing overlaps.
fn dependent(
    questions: &Questions,
    answers: &mut Answers,
    clock: &mut Clock,
    stop: &AtomicBool,
    ask: impl Fn(usize, &FlowKey) -> Said,
) {
    // Zero, but neither compiler nor processor can know.
    let nothing = black_box(0_u32);
    let mut last = 0_u32;
    blocks(questions, questions.len(), BLOCK, clock, |first, keys| {
        let verdicts = answers.verdicts[first..].iter_mut();
        let outcomes = &mut answers.outcomes[first..];
        for (index, ((key, verdict), outcome)) in (first..).zip(keys.iter().zip(verdicts).zip(outcomes)) {
            let twist = last & nothing;
            let mut key = *key;
            key.tuple.source ^= u128::from(twist);
            key.tuple.destination ^= u128::from(twist);
            key.input.0 ^= twist;
            key.output.0 ^= twist;
            let said = ask(index ^ twist as usize, &key);
            (*verdict, *outcome) = (said.0 as u8, said.1.number());
            last = *outcome ^ u32::from(*verdict);
        }
        !stop.load(Ordering::Relaxed)
    });
}

fn batch(
    table: &DecisionTable,
    questions: &Questions,
    answers: &mut Answers,
    clock: &mut Clock,
    stop: &AtomicBool,
) {
    let (all, workloads) = (questions.flows(), questions.workloads());
    let places = answers.verdicts.chunks_mut(BATCH).zip(answers.outcomes.chunks_mut(BATCH));
    for (first, (verdicts, outcomes)) in (0..).step_by(BATCH).zip(places) {
        let rows = first..first + verdicts.len();
        let flows = all.rows(&rows);
        let begun = Instant::now();
        let done = match questions.asked {
            Asked::Hook(_) => table.decide_batch(&flows, verdicts, outcomes),
            Asked::Workload => {
                let workloads = Column::Each(&workloads[rows]);
                table.gate_batch(Direction::Ingress, workloads, &flows, verdicts, outcomes)
            }
        };
        clock.add(begun.elapsed(), verdicts.len());
        done.expect("columns of one length");
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}
