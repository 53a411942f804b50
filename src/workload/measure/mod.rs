//! Time and answers of a workload's table: one question at a time, each waiting for the answer before it, and in
//! batches; beside it `linear` and the naive way on a sample of the same questions.
//!
//! All measures of a round are taken one after the other, so that what else the machine does meets all of them.

mod ways;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use super::five_tuples::trace;
use super::traffic::{Aim, Questions, Scope, aim, targets};
use super::{Random, Traffic, Workload};
use crate::compile::{CompileError, compile};
use crate::flow::{FlowKey, Hook, Verdict};
use crate::table::{Budgets, DecisionTable, Description, Engines};

use ways::{Answers, Clock, Trace, Way, answer};

/// Of the questions that `linear` and the naive way answer as well.
const SAMPLE: usize = 20_000;
/// So many of them, however long that takes.
const LEAST_SAMPLE: usize = 2_000;
/// For each of the two, when checking.
const CHECK_TIME: Duration = Duration::from_secs(2);
/// For each of the two, in a round.
const ROUND_TIME: Duration = Duration::from_millis(20);
/// A round asks at least so many questions in every way, by repeating short traces.
const LEAST: usize = 100_000;

/// Why nothing can be measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The policies do not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// There is nobody to ask about.
    #[error("no endpoint has an interface here, so there is nothing to ask")]
    NoEndpoint,
    /// The caller wanted it.
    #[error("stopped")]
    Stopped,
}

/// A table with the questions to it.
#[derive(Debug)]
pub struct Bench {
    workload: Workload,
    table: DecisionTable,
    linear: DecisionTable,
    /// Every question once.
    uniform: Trace,
    /// Few questions often.
    zipf: Trace,
    /// How much of the sample can be answered in a round.
    linear_count: usize,
    naive_count: usize,
}

/// What is measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Workloads and host endpoints of the whole cluster.
    pub endpoints: usize,
    /// Those whose policy is enforced here.
    pub enforced: usize,
    /// Policies of the whole cluster.
    pub policies: usize,
    /// Rules of the policies and profiles that enforced endpoints have.
    pub rules: usize,
    /// In each trace.
    pub questions: usize,
    /// Engines, their memory, and why they were chosen.
    pub table: Description,
}

/// Whether all answers are the same.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Answered one at a time, dependent and in batches, over both traces.
    pub questions: usize,
    /// Answered by `linear` as well.
    pub linear: usize,
    /// Answered the naive way as well.
    pub naive: usize,
    /// Answers that differ.
    pub mismatches: usize,
    /// The first of them.
    pub first: Option<String>,
    /// Of the trace that asks every question once.
    pub verdicts: BTreeMap<&'static str, usize>,
}

/// The time that one question took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// `uniform` or `zipf`.
    pub trace: &'static str,
    /// `one`, `dependent`, `batch`; on a sample `linear`, `naive`.
    pub way: &'static str,
    /// Median of the round's blocks of questions.
    pub nanoseconds: f64,
}

impl Bench {
    /// Compiles, builds, and aims `count` questions of this seed.
    pub fn new(workload: Workload, seed: u64, count: usize) -> Result<Self, MeasureError> {
        let program = Arc::new(compile(&workload.model, workload.node.as_deref())?);
        let bound = |budgets| {
            DecisionTable::new(Arc::new(Engines::build(Arc::clone(&program), &budgets)), &workload.host)
        };
        let (table, linear) = (bound(Budgets::default()), bound(Budgets::LINEAR));
        let mut random = Random::new(seed);
        let uniform = questions(&workload, &table, random.bits(), count)?;
        let zipf = uniform.iter().map(|questions| questions.repeated(&mut random)).collect();
        let (uniform, zipf) = (Trace::new("uniform", uniform), Trace::new("zipf", zipf));
        Ok(Self { workload, table, linear, uniform, zipf, linear_count: 0, naive_count: 0 })
    }

    /// What is measured.
    pub fn facts(&self) -> Facts {
        let (model, program) = (&self.workload.model, self.table.program());
        Facts {
            endpoints: model.workloads.len() + model.hosts.len(),
            enforced: program.endpoints.len(),
            policies: model.policies.len(),
            rules: program.rule_lists.iter().map(|list| list.rules.len()).sum(),
            questions: self.uniform.len(),
            table: self.table.describe(),
        }
    }

    /// Compiles and builds once more: the time of each.
    pub fn build(&self) -> Result<[Duration; 2], MeasureError> {
        let begun = Instant::now();
        let program = Arc::new(compile(&self.workload.model, self.workload.node.as_deref())?);
        let compiled = begun.elapsed();
        let begun = Instant::now();
        let engines = Arc::new(Engines::build(program, &Budgets::default()));
        let table = DecisionTable::new(engines, &self.workload.host);
        let built = begun.elapsed();
        drop(black_box(table));
        Ok([compiled, built])
    }

    /// Asks everything in every way and compares: all ways with each other, a sample with `linear` and the naive way.
    pub fn check(&mut self, stop: &AtomicBool) -> Result<Checked, MeasureError> {
        let mut checked = Checked::default();
        for trace in [&mut self.uniform, &mut self.zipf] {
            trace.ask(&self.table, Way::One, &mut Clock::default(), stop)?;
            let first = trace.answers.clone();
            for way in [Way::Dependent, Way::Batch] {
                trace.ask(&self.table, way, &mut Clock::default(), stop)?;
                let differing = trace.differing(&first);
                checked.note(differing, || format!("{} {}: not as one at a time", trace.name, way.name()));
            }
            checked.questions += trace.len();
        }
        for verdict in self.uniform.answers.iter().flat_map(Answers::verdicts) {
            *checked.verdicts.entry(verdict.name()).or_default() += 1;
        }
        self.check_linear(&mut checked, stop)?;
        self.check_naive(&mut checked, stop)?;
        Ok(checked)
    }

    fn check_linear(&mut self, checked: &mut Checked, stop: &AtomicBool) -> Result<(), MeasureError> {
        let (table, linear) = (&self.table, &self.linear);
        let sampled = sample(&self.uniform, stop, |asked, index, key| {
            let (found, expected) = (answer(table, asked, index, key), answer(linear, asked, index, key));
            let (meaning, wanted) = (table.meaning(found.1).0, linear.meaning(expected.1).0);
            let is_same = found.0 == expected.0 && meaning == wanted;
            checked.note(usize::from(!is_same), || {
                format!("{key:?}: found {} {meaning:?}, linear says {} {wanted:?}", found.0, expected.0)
            });
        })?;
        checked.linear = sampled.count;
        self.linear_count = sampled.fitting(ROUND_TIME);
        Ok(())
    }

    fn check_naive(&mut self, checked: &mut Checked, stop: &AtomicBool) -> Result<(), MeasureError> {
        let (table, Some(naive)) = (&self.table, &self.workload.naive) else {
            return Ok(());
        };
        let sampled = sample(&self.uniform, stop, |asked, index, key| {
            let (verdict, outcome) = answer(table, asked, index, key);
            let (meaning, judged) = (table.meaning(outcome).0, naive.judge(&key.tuple));
            let is_same = naive.agrees(judged, verdict, meaning);
            checked.note(usize::from(!is_same), || {
                format!("{key:?}: found {verdict} {meaning:?}, all policies in order say {judged:?}")
            });
        })?;
        checked.naive = sampled.count;
        self.naive_count = sampled.fitting(ROUND_TIME);
        Ok(())
    }

    /// One round of all measures. [`check`](Self::check) comes first: it finds out how much `linear` and the naive way
    /// can answer in a round.
    pub fn round(&mut self, stop: &AtomicBool) -> Result<Vec<Timing>, MeasureError> {
        let mut timings = Vec::new();
        for trace in [&mut self.uniform, &mut self.zipf] {
            // What others have left in the caches shall count for no way.
            trace.ask(&self.table, Way::Batch, &mut Clock::default(), stop)?;
            let passes = LEAST.div_ceil(trace.len());
            for way in Way::ALL {
                let mut clock = Clock::default();
                for _ in 0..passes {
                    trace.ask(&self.table, way, &mut clock, stop)?;
                }
                timings.push(Timing::of(trace, way.name(), clock));
            }
        }
        let linear = self.uniform.sampled(self.linear_count, |asked, index, key| {
            black_box(answer(&self.linear, asked, index, key));
        });
        timings.push(Timing::of(&self.uniform, "linear", linear));
        if let Some(naive) = &self.workload.naive {
            let naive = self.uniform.sampled(self.naive_count, |_, _, key| {
                black_box(naive.judge(&key.tuple));
            });
            timings.push(Timing::of(&self.uniform, "naive", naive));
        }
        Ok(timings)
    }
}

/// The questions of a workload to its table.
pub fn questions(
    workload: &Workload,
    table: &DecisionTable,
    seed: u64,
    count: usize,
) -> Result<Vec<Questions>, MeasureError> {
    let Workload { model, host, uplink, .. } = workload;
    let questions = match &workload.traffic {
        Traffic::Packets(rules) => {
            let packets = trace(rules, count, seed);
            vec![Questions::of_packets(&packets, Hook::FilterInput, table.interface(uplink))]
        }
        &Traffic::Aimed { scope, aimed } => {
            let targets = targets(table.program(), table, host, uplink, scope);
            let how = Aim { aimed, between: scope == Scope::Between, count, seed };
            if targets.is_empty() { Vec::new() } else { aim(table.program(), model, &targets, how) }
        }
    };
    if questions.is_empty() { Err(MeasureError::NoEndpoint) } else { Ok(questions) }
}

impl Timing {
    fn of(trace: &Trace, way: &'static str, mut clock: Clock) -> Self {
        Self { trace: trace.name, way, nanoseconds: clock.nanoseconds() }
    }
}

impl Checked {
    fn note(&mut self, differing: usize, what: impl FnOnce() -> String) {
        if differing > 0 && self.first.is_none() {
            self.first = Some(what());
        }
        self.mismatches += differing;
    }
}

/// How far a sample came.
struct Sampled {
    count: usize,
    spent: Duration,
}

impl Sampled {
    /// How many of the sample are answered in this time; at least one, if any was.
    fn fitting(&self, time: Duration) -> usize {
        let fitting = self.count as u128 * time.as_nanos() / self.spent.as_nanos().max(1);
        usize::try_from(fitting).unwrap_or(usize::MAX).max(1).min(self.count)
    }
}

/// The first questions, until there are [`SAMPLE`], or [`LEAST_SAMPLE`] and [`CHECK_TIME`] is over; those of every kind
/// in their share.
fn sample(
    trace: &Trace,
    stop: &AtomicBool,
    mut check: impl FnMut(&Questions, usize, &FlowKey),
) -> Result<Sampled, MeasureError> {
    let begun = Instant::now();
    let mut count = 0;
    for questions in &trace.questions {
        let (flows, share) = (questions.flows(), (SAMPLE * questions.len()).div_ceil(trace.len()));
        for index in 0..questions.len().min(share) {
            if count >= LEAST_SAMPLE && begun.elapsed() > CHECK_TIME {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(MeasureError::Stopped);
            }
            check(questions, index, &flows.key(index));
            count += 1;
        }
    }
    Ok(Sampled { count, spent: begun.elapsed() })
}

/// The verdict with this number.
fn verdict(number: u8) -> Verdict {
    const ALL: [Verdict; 5] =
        [Verdict::Deny, Verdict::Allow, Verdict::AllowNotrack, Verdict::AllowSkipHep, Verdict::Continue];
    ALL[usize::from(number)]
}
