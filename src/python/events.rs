//! Events as JSON, with all names: what Python writes, shows and filters.

use std::fmt::Write;

use serde_json::{Value, json};

use super::enforcer::tuple;
use crate::enforce::{Event, Recorded};
use crate::flow::{Direction, Family, Verdict};
use crate::program::{Action, RuleOrigin};
use crate::table::{DecisionTable, Meanings, Step};
use crate::wire;

/// One object for the step that denied, one for each Log rule that was met.
pub fn values(event: &Event<DecisionTable>) -> Vec<Value> {
    let Event { table, key, outcome, decided, verdict, .. } = event;
    let (own, logged) = table.meaning(*outcome);
    let steps = table.trace(key).1;
    let endpoint = |origin: &RuleOrigin| {
        // Several endpoints may have the rule: the last chain decides, those before it let the packet through.
        let is_asked = |step: &&Step| table.origin(step) == origin;
        let step = if *decided { steps.iter().rev().find(is_asked) } else { steps.iter().find(is_asked) };
        step.map(|step| (step.stage.name(), table.endpoint_name(step)))
    };
    if event.staged {
        return vec![value(event, "staged-deny", own, endpoint(own))];
    }
    let denied = (*decided && *verdict == Verdict::Deny).then_some(("deny", own));
    let told = logged.map(|origin| ("log", origin)).chain(denied);
    told.map(|(kind, origin)| value(event, kind, origin, endpoint(origin))).collect()
}

/// A denied packet of the flight recorder. Its bytes are read again, and its rule is null where its table is forgotten.
pub fn recorded(packet: &Recorded, meanings: Option<&Meanings>) -> Value {
    let bytes = packet.header.bytes();
    let family = if bytes.first().is_some_and(|byte| byte >> 4 == 6) { Family::V6 } else { Family::V4 };
    let mut value = json!({
        "time": packet.time,
        "kind": "deny",
        "generation": packet.generation,
        "hook": packet.hook.name(),
        "verdict": Verdict::Deny.name(),
        "in": packet.interfaces.0,
        "out": packet.interfaces.1,
        "src": null, "dst": null, "protocol": null, "sport": null, "dport": null, "icmp": null,
        "stage": null, "endpoint": null,
        "tier": null, "policy": null, "direction": null, "rule": null, "action": null,
        "reason": "its table is forgotten",
        "length": packet.header.length,
        "header": hex(bytes),
    });
    // None only where what was read lies behind the bytes that are kept.
    let asked = wire::parse(family, bytes, packet.header.length as usize).ok();
    extend(&mut value, asked.map_or(Value::Null, |asked| tuple(&asked)));
    extend(&mut value, meanings.map_or(Value::Null, |meanings| rule(meanings.origin(packet.outcome))));
    value
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
        "in": event.interfaces.0,
        "out": event.interfaces.1,
        "stage": stage,
        "endpoint": endpoint.flatten(),
        "length": event.header.length,
        "header": hex(event.header.bytes()),
    });
    extend(&mut value, tuple(&event.key.tuple));
    extend(&mut value, rule(origin));
    value
}

fn rule(origin: &RuleOrigin) -> Value {
    json!({
        "tier": origin.tier,
        "policy": origin.policy,
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
