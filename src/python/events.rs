//! Events as JSON, with all names: what Python writes, shows and filters.

use std::fmt::Write;

use serde_json::{Value, json};

use super::question::tuple_value;
use crate::enforce::{Event, Recorded};
use crate::flow::{Direction, Verdict};
use crate::program::{Action, RuleOrigin};
use crate::table::{DecisionTable, Meanings, Step};

/// One object for the step that denied, one for each Log rule that was met.
pub fn values(event: &Event<DecisionTable>) -> Vec<Value> {
    if event.is_orphan {
        return vec![orphan(event)];
    }
    let Event { table, key, outcome, step: number, verdict, .. } = event;
    let (own, logged) = table.meaning(*outcome);
    let steps = table.trace(key).1;
    let told = |kind, origin: &RuleOrigin| {
        let step = place(table, &steps, *number, origin);
        let mut value = value(event, kind, step.map(|step| (step.stage.name(), table.endpoint_name(step))));
        extend(&mut value, rule(origin));
        value
    };
    if event.staged {
        return vec![told("staged-deny", own)];
    }
    let denied = (number.is_none() && *verdict == Verdict::Deny).then_some(("deny", own));
    let passed = (own.action == Some(Action::Log)).then_some(("log", own));
    let met = logged.map(|origin| ("log", origin)).chain(passed).chain(denied);
    met.map(|(kind, origin)| told(kind, origin)).collect()
}

/// A packet of an interface that is gone: no rule was asked.
fn orphan(event: &Event<DecisionTable>) -> Value {
    let mut value = value(event, "deny", None);
    extend(
        &mut value,
        json!({
            "tier": null, "policy": null, "direction": null, "rule": null, "action": Action::Deny.name(),
            "reason": "an interface of the packet is gone",
        }),
    );
    value
}

/// Where something was met, in the step of this number, or in the one that decided. Several endpoints may have the rule.
fn place<'s>(
    table: &DecisionTable,
    steps: &'s [Step],
    number: Option<usize>,
    origin: &RuleOrigin,
) -> Option<&'s Step> {
    // A trace tells the rules that a chain passes as steps of the same endpoint and stage.
    let chains: Vec<_> = steps.chunk_by(|a, b| (a.stage, a.endpoint) == (b.stage, b.endpoint)).collect();
    let is_asked = |step: &&Step| table.origin(step) == origin;
    match number {
        Some(number) => chains.get(number).or(chains.last())?.iter().find(is_asked),
        None => steps.iter().rev().find(is_asked),
    }
}

/// A denied packet of the flight recorder. Its rule is null where its table is forgotten.
pub fn recorded(packet: &Recorded, meanings: Option<&Meanings>) -> Value {
    let mut value = json!({
        "time": packet.time,
        "kind": "deny",
        "generation": packet.generation,
        "hook": packet.hook.name(),
        "verdict": Verdict::Deny.name(),
        "in": packet.interfaces.0,
        "out": packet.interfaces.1,
        "stage": null, "endpoint": null,
        "tier": null, "policy": null, "direction": null, "rule": null, "action": null,
        "reason": "its table is forgotten",
        "length": packet.header.length,
        "header": hex(packet.header.bytes()),
    });
    extend(&mut value, tuple_value(&packet.tuple));
    extend(&mut value, meanings.map_or(Value::Null, |meanings| rule(meanings.origin(packet.outcome))));
    value
}

fn value(event: &Event<DecisionTable>, kind: &str, place: Option<(&str, Option<&str>)>) -> Value {
    let (stage, endpoint) = place.unzip();
    let mut value = json!({
        "time": event.time,
        "kind": kind,
        "generation": event.generation,
        "hook": event.key.hook.name(),
        "verdict": event.verdict.name(),
        "in": event.interfaces.0,
        "out": event.interfaces.1,
        "stage": stage,
        "endpoint": endpoint.flatten(),
        "length": event.header.length,
        "header": hex(event.header.bytes()),
    });
    extend(&mut value, tuple_value(&event.key.tuple));
    value
}

fn rule(origin: &RuleOrigin) -> Value {
    json!({
        "tier": origin.tier.as_deref(),
        "policy": origin.policy.as_deref(),
        "direction": origin.direction.map(Direction::name),
        "rule": origin.rule,
        "action": origin.action.map(Action::name),
        "reason": origin.reason.text(),
    })
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (value, more) {
        fields.extend(more);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
