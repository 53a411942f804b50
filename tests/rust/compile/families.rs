//! For which families a rule exists (M-10..M-14).

use serde_json::{Value, json};

use crate::models::{built_in_tiers, global, program, with};
use crate::read::ingress_rules;

/// `v4`, `v6`, both or none.
fn families(rule: &Value) -> String {
    let rule = with(json!({"action": "Allow"}), rule.clone());
    let program = program(json!({
        "hosts": [{"name": "a", "node": "edge1", "interface": "eth0", "labels": {}}],
        "tiers": built_in_tiers(),
        "policies": [global("p", json!({"ingress": [rule]}))],
    }));
    let exists = ingress_rules(&program, "GlobalNetworkPolicy/p")[0].families;
    ["v4", "v6"]
        .into_iter()
        .zip(exists)
        .filter(|(_, exists)| *exists)
        .map(|(name, _)| name)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn rules_exist_for_the_families_that_they_can_match() {
    let source = |lists: Value| json!({"source": lists});
    let destination = |lists: Value| json!({"destination": lists});
    let rows = [
        ("M-2", json!({}), "v4 v6"),
        ("M-10", json!({"ip_version": 4}), "v4"),
        ("M-10", json!({"ip_version": 6}), "v6"),
        ("M-11", json!({"protocol": 1}), "v4"),
        ("M-11", json!({"protocol": 58}), "v6"),
        ("M-11", json!({"not_protocol": 1}), "v4 v6"),
        ("M-11", json!({"protocol": 6}), "v4 v6"),
        ("M-10, M-11", json!({"ip_version": 6, "protocol": 1}), ""),
        ("M-12", source(json!({"nets": ["10.0.0.0/8"]})), "v4"),
        ("M-12", destination(json!({"nets": ["fd00::/8"]})), "v6"),
        ("M-12", source(json!({"not_nets": ["10.0.0.0/8"]})), "v4"),
        ("M-12", destination(json!({"not_nets": ["fd00::/8"]})), "v6"),
        ("M-12", json!({"source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["fd00::/8"]}}), ""),
        ("M-13", source(json!({"nets": ["10.0.0.0/8", "fd00::/8"]})), "v4 v6"),
        ("M-13", source(json!({"nets": ["10.0.0.0/8", "fd00::/8"], "not_nets": ["10.1.0.0/16"]})), "v4"),
        ("M-14", source(json!({"not_nets": ["0.0.0.0/0"]})), ""),
        ("M-14", destination(json!({"not_nets": ["::/0", "10.0.0.0/8"]})), "v4"),
        ("M-14", source(json!({"not_nets": ["0.0.0.0/0", "fd00::/8"]})), "v6"),
        ("M-14", source(json!({"nets": ["0.0.0.0/0"]})), "v4"),
    ];
    for (id, rule, expected) in rows {
        assert_eq!(families(&rule), expected, "{id}: {rule}");
    }
}
