//! Whether a table answers as the one that has nothing but `linear`.

use std::sync::Arc;

use labelgate::flow::{Direction, Family, FlowKey, Hook};
use labelgate::program::{Action, ChainId, Program, Reason, RuleOrigin};
use labelgate::table::{Budgets, Decision, DecisionTable, Engines, Other, Stage, Step};

use crate::choices::Choices;
use crate::packets::Aims;
use crate::programs;

/// A table, and the chains that `classes` does not answer for: their outcomes tell no Log rules.
pub struct Built {
    pub table: DecisionTable,
    silent: Vec<(ChainId, Family)>,
}

/// Bound to the host of [`programs::host`].
pub fn built(program: &Arc<Program>, budgets: &Budgets) -> Built {
    bound(Engines::build(Arc::clone(program), budgets))
}

/// Engines with a host.
pub fn bound(engines: Engines) -> Built {
    let table = DecisionTable::new(Arc::new(engines), &programs::host());
    let family = |version| if version == 4 { Family::V4 } else { Family::V6 };
    let others = table.describe().others.into_iter();
    let silent = others.map(|other| (ChainId::new(other.chain), family(other.family))).collect();
    Built { table, silent }
}

/// What `linear` says to one packet.
pub struct Expected {
    key: FlowKey,
    decision: Decision,
    step: Step,
    trace: Vec<Step>,
}

impl Expected {
    /// Of a table that was built with [`Budgets::LINEAR`].
    pub fn of(linear: &DecisionTable, key: FlowKey) -> Self {
        let (decision, trace) = linear.trace(&key);
        let (same, step) = linear.decide_step(&key);
        assert_eq!([linear.decide(&key), same], [decision; 2], "a trace changes nothing");
        assert_eq!(decision.outcome, step.outcome, "`linear` tells no Log rules in its outcomes");
        Self { key, decision, step, trace }
    }

    /// Fails where `found`, the answer of another table of the program, is another one or means something else.
    pub fn assert_same(&self, built: &Built, found: Decision) {
        let (table, program) = (&built.table, built.table.program());
        let answer = |decision: Decision| (decision.verdict, decision.failsafe, decision.accepted);
        let context = || format!("{:?}\n{}\n{:?}", self.key, programs::shown(program), table.describe());
        assert_eq!(answer(found), answer(self.decision), "{}", context());
        assert_eq!(table.decide_step(&self.key), (found, self.step), "{}", context());
        assert!(found.outcome.index() < table.outcome_count(), "{}", context());
        let (origin, logged) = table.meaning(found.outcome);
        assert_eq!(origin, program.outcome(self.step.outcome), "{}", context());
        assert_eq!(logged.collect::<Vec<_>>(), self.logged(built), "{}", context());
    }

    /// The Log rules that the deciding chain has passed, in order, where an engine tells them.
    fn logged<'p>(&self, built: &'p Built) -> Vec<&'p RuleOrigin> {
        let (program, last) = (built.table.program(), self.step);
        // E-20.5, E-27: decided beside the tiers.
        let reason = program.outcome(last.outcome).reason;
        let is_settled = matches!(reason, Reason::Encapsulation | Reason::ForwardEnd);
        match deciding_chain(program, &last, self.key.hook).filter(|_| !is_settled) {
            Some(chain) if !built.silent.contains(&(chain, self.key.tuple.family)) => {
                let own = |step: &&Step| (step.stage, step.endpoint) == (last.stage, last.endpoint);
                let logged = self.trace.iter().filter(own).filter(|step| step.action == Some(Action::Log));
                logged.map(|step| program.outcome(step.outcome)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What `describe` says of the tables that are not in `classes`, after comparing answers.
pub fn others(program: Program, budgets: &Budgets) -> Vec<Other> {
    let program = Arc::new(program);
    let (linear, other) = (built(&program, &Budgets::LINEAR), built(&program, budgets));
    let (aims, mut choices) = (Aims::at(&program), Choices::Seeded(7));
    for _ in 0..200 {
        let key = aims.key(&mut choices, &linear.table);
        Expected::of(&linear.table, key).assert_same(&other, other.table.decide(&key));
    }
    other.table.describe().others
}

/// The chain that a step of this hook belongs to.
fn deciding_chain(program: &Program, step: &Step, hook: Hook) -> Option<ChainId> {
    let endpoint = program.endpoint(step.endpoint?);
    let is_outwards = matches!(hook, Hook::RawOutput | Hook::FilterOutput | Hook::ManglePostrouting);
    let direction = if is_outwards { Direction::Egress } else { Direction::Ingress };
    match step.stage {
        Stage::Untracked => Some(endpoint.untracked?.of(direction)),
        Stage::Prednat => endpoint.prednat,
        Stage::Normal => Some(endpoint.normal.of(direction)),
        Stage::FromHep => Some(endpoint.forward?.ingress),
        Stage::ToHep => Some(endpoint.forward?.egress),
        Stage::WorkloadEgress => Some(endpoint.normal.egress),
        Stage::WorkloadIngress => Some(endpoint.normal.ingress),
        _ => None,
    }
}
