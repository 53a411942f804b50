//! What outcome ids have meant, apart from the table: counts are read when it is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::answer::Answers;
use super::flat::lists;
use super::{DecisionTable, statics};
use crate::flow::{Direction, OutcomeId};
use crate::program::{Action, ChainId, Program, RuleListId, RuleOrigin};

/// How often something was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// When the last of them was answered: milliseconds since 1970 (UTC).
    pub last_hit: u64,
}

impl Tally {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.last_hit = self.last_hit.max(other.last_hit);
    }
}

/// How often a rule was met, or what stands in the place of one: the end of a tier, a failsafe port, no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleCount<'a> {
    /// Tier, if one is concerned.
    pub tier: Option<&'a str>,
    /// `Kind/namespace/name` or `Kind/name` of the policy or profile.
    pub policy: Option<&'a str>,
    /// `Ingress` or `Egress`, where it has one.
    pub direction: Option<&'static str>,
    /// Counts from 0 within its direction.
    pub rule: Option<u32>,
    /// What it does; none where nobody decides.
    pub action: Option<&'static str>,
    /// Why.
    pub reason: &'static str,
    /// How often.
    #[serde(flatten)]
    pub tally: Tally,
}

impl<'a> RuleCount<'a> {
    /// So often an outcome was met.
    pub fn of(origin: &'a RuleOrigin, tally: Tally) -> Self {
        Self {
            tier: origin.tier.as_deref(),
            policy: origin.policy.as_deref(),
            direction: origin.direction.map(Direction::name),
            rule: origin.rule,
            action: origin.action.map(Action::name),
            reason: origin.reason.text(),
            tally,
        }
    }
}

/// What the outcome ids of a table mean. Keeps no engine alive.
#[derive(Clone, Debug)]
pub struct Meanings {
    program: Arc<Program>,
    answers: Answers,
}

impl Meanings {
    /// Of outcome ids of the table to those of rules. Log and Pass rules on the way have been met too.
    pub fn counts(&self, met: impl IntoIterator<Item = (OutcomeId, Tally)>) -> Vec<RuleCount<'_>> {
        let mut tallies: BTreeMap<OutcomeId, Tally> = BTreeMap::new();
        for (outcome, tally) in met {
            let (own, passed) = self.answers.meaning(outcome);
            for &id in passed.iter().chain([&own]) {
                tallies.entry(id).or_default().add(tally);
            }
        }
        tallies
            .into_iter()
            .map(|(outcome, tally)| RuleCount::of(self.program.outcome(outcome), tally))
            .collect()
    }

    /// Tier, policy, rule and reason of what decided.
    pub fn origin(&self, outcome: OutcomeId) -> &RuleOrigin {
        self.program.outcome(self.answers.meaning(outcome).0)
    }
}

/// What is told of packets that met an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The first outcome of which the same is told.
    pub id: OutcomeId,
    /// Log rules: told whatever the verdict.
    pub logs: bool,
}

/// A rule that is in force, and whether what meets it is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedRule<'a> {
    /// Tier; none for a profile.
    pub tier: Option<&'a str>,
    /// `Kind/namespace/name` or `Kind/name` of the policy or profile.
    pub policy: Option<&'a str>,
    /// `Ingress` or `Egress`.
    pub direction: &'static str,
    /// Counts from 0 within its direction.
    pub rule: Option<u32>,
    /// What it does.
    pub action: &'static str,
    /// Why a packet that meets it ends so.
    pub reason: &'static str,
    /// Why not every packet is counted here: `kernel` (kernel rules may answer ahead of the queue); `pass` (a Pass rule of a
    /// chain for which telling those would take too much memory); `log` (a Log rule of a chain in `tree` that has many).
    pub uncounted: Option<&'static str>,
}

impl DecisionTable {
    /// The rules in force, in no particular order.
    pub fn rules(&self) -> Vec<ListedRule<'_>> {
        let (program, settled) = (self.program(), statics::settled_outcomes(self.program()));
        let passes = self.rules_of(self.engines.silent_on_passes(), Action::Pass);
        let logs = self.rules_of(self.engines.silent_on_logs(), Action::Log);
        let mut seen = FxHashSet::default();
        let rules =
            program.rule_lists.iter().flat_map(|list| list.rules.iter().map(move |rule| (list, rule)));
        let listed = rules.filter(|(_, rule)| seen.insert(rule.outcome)).map(|(list, rule)| {
            let origin = program.outcome(rule.outcome);
            let uncounted = match rule.action {
                Action::Pass if passes.contains(&rule.outcome) => Some("pass"),
                Action::Log if logs.contains(&rule.outcome) => Some("log"),
                _ => settled.contains(&rule.outcome).then_some("kernel"),
            };
            ListedRule {
                tier: origin.tier.as_deref(),
                policy: origin.policy.as_deref(),
                direction: list.direction.name(),
                rule: origin.rule,
                action: rule.action.name(),
                reason: origin.reason.text(),
                uncounted,
            }
        });
        listed.collect()
    }

    /// The rules of some chains that have this action.
    fn rules_of(&self, chains: impl Iterator<Item = ChainId>, action: Action) -> FxHashSet<OutcomeId> {
        let program = self.program();
        let lists: FxHashSet<RuleListId> = chains.flat_map(|chain| lists(program.chain(chain))).collect();
        let rules = lists.into_iter().flat_map(|list| &program.rule_lists[list.index()].rules);
        rules.filter(|rule| rule.action == action).map(|rule| rule.outcome).collect()
    }

    /// What its outcome ids mean, for whoever outlives it.
    pub fn meanings(&self) -> Meanings {
        Meanings { program: Arc::clone(self.engines.program()), answers: self.engines.answers().clone() }
    }

    /// Of all outcomes, by id.
    pub fn topics(&self) -> Vec<Topic> {
        let mut first: FxHashMap<(OutcomeId, Vec<OutcomeId>), OutcomeId> = FxHashMap::default();
        let topic = |id| {
            let (own, logged) = (self.engines.meaning(id).0, self.logged(id).collect::<Vec<_>>());
            let logs = !logged.is_empty() || self.program().outcome(own).action == Some(Action::Log);
            Topic { id: *first.entry((own, logged)).or_insert(id), logs }
        };
        (0..self.outcome_count()).map(OutcomeId::new).map(topic).collect()
    }

    /// Whether both number their outcomes alike: one program on other interfaces.
    pub fn counts_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.engines, &other.engines)
    }
}
