//! Events as JSON, with all names: what Python writes, shows and filters.

use std::fmt::Write;

use serde_json::{Value, json};

use super::enforcer::tuple;
use crate::enforce::Event;
use crate::flow::Direction;
use crate::program::{Action, RuleOrigin};
use crate::table::DecisionTable;

/// One object for the step that denied, one for each Log rule that was met.
pub fn values(event: &Event<DecisionTable>) -> Vec<Value> {
    let Event { table, key, outcome, decided, verdict, .. } = event;
    let (own, logged) = table.meaning(*outcome);
    let steps = table.trace(key).1;
    let endpoint = |origin: &RuleOrigin| {
        let step = steps.iter().rev().find(|step| table.origin(step) == origin);
        step.map(|step| (step.stage.name(), table.endpoint_name(step)))
    };
    if event.staged {
        return vec![value(event, "staged-deny", own, endpoint(own))];
    }
    let denied = (*decided && *verdict == crate::flow::Verdict::Deny).then_some(("deny", own));
    let told = logged.map(|origin| ("log", origin)).chain(denied);
    told.map(|(kind, origin)| value(event, kind, origin, endpoint(origin))).collect()
}

fn value(
    event: &Event<DecisionTable>,
    kind: &str,
    origin: &RuleOrigin,
    place: Option<(&str, Option<&str>)>,
) -> Value {
    let (stage, endpoint) = place.unzip();
    let mut value = json!({
        "time": event.time,
        "kind": kind,
        "generation": event.generation,
        "hook": event.key.hook.name(),
        "verdict": event.verdict.name(),
        "in": event.arrival.interfaces.0,
        "out": event.arrival.interfaces.1,
        "stage": stage,
        "endpoint": endpoint.flatten(),
        "tier": origin.tier,
        "policy": origin.policy,
        "direction": origin.direction.map(Direction::name),
        "rule": origin.rule,
        "action": origin.action.map(Action::name),
        "reason": origin.reason.text(),
        "length": event.arrival.header.length,
        "header": hex(event.arrival.header.bytes()),
    });
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, tuple(&event.key.tuple)) {
        fields.extend(more);
    }
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
