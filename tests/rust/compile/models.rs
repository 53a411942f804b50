//! Models as JSON, as the orchestrator hands them over.

use labelgate::compile::compile;
use labelgate::model::Model;
use labelgate::program::Program;
use serde_json::{Value, json};

/// The value with these fields put over its own.
pub fn with(mut base: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    for (name, value) in fields {
        base[name] = value;
    }
    base
}

pub fn model(json: Value) -> Model {
    serde_json::from_value(json).expect("a model")
}

/// Compiled for node `edge1`.
pub fn program(json: Value) -> Program {
    compile(&model(json), Some("edge1")).expect("a model that compiles")
}

/// A profile that allows everything, with these labels.
pub fn allow_profile(name: &str, labels: Value) -> Value {
    let allow = json!([{"action": "Allow"}]);
    with(json!({"name": name, "labels": labels}), json!({"ingress": allow, "egress": allow}))
}

/// A pod on `edge1` with the labels and profiles of.
pub fn pod(namespace: &str, name: &str, interface: &str, address: &str, app: &str) -> Value {
    json!({
        "name": format!("Pod/{namespace}/{name}"), "node": "edge1", "interface": interface,
        "networks": [address],
        "labels": {"app": app, "projectcalico.org/namespace": namespace, "projectcalico.org/orchestrator": "k8s"},
        "profiles": [format!("kns.{namespace}")],
    })
}

/// A global policy that selects everything and governs ingress.
pub fn global(name: &str, fields: Value) -> Value {
    let base = json!({
        "kind": "GlobalNetworkPolicy", "name": name, "tier": "default",
        "applies_ingress": true, "applies_egress": false,
    });
    with(base, fields)
}

/// A policy of a namespace that selects everything there and governs ingress.
pub fn namespaced(namespace: &str, name: &str, fields: Value) -> Value {
    with(global(name, fields), json!({"kind": "NetworkPolicy", "namespace": namespace}))
}

/// E-3.
pub fn built_in_tiers() -> Value {
    json!([
        {"name": "kube-admin", "order": 1000.0, "pass": true},
        {"name": "default", "order": 1_000_000.0, "pass": false},
        {"name": "kube-baseline", "order": 10_000_000.0, "pass": true},
    ])
}

/// The common setting of section 8: pods `web` and `db` in namespace `shop`.
fn shop() -> Value {
    json!({
        "workloads": [
            pod("shop", "web", "cali111", "10.65.0.2/32", "web"),
            pod("shop", "db", "cali222", "10.65.0.3/32", "db"),
        ],
        "profiles": [
            allow_profile("kns.shop", json!({"pcns.projectcalico.org/name": "shop"})),
            allow_profile("projectcalico-default-allow", json!({})),
        ],
        "tiers": built_in_tiers(),
        "settings": {
            "failsafe_inbound": [{"protocol": 6, "port": 22}, {"protocol": 17, "port": 68}],
            "failsafe_outbound": [{"protocol": 17, "port": 53}, {"protocol": 17, "port": 67}],
        },
    })
}

fn edge(name: &str, interface: &str, address: &str, role: &str) -> Value {
    json!([{
        "name": name, "node": "edge1", "interface": interface, "addresses": [address], "labels": {"role": role},
    }])
}

/// The worked examples of section 8, by number.
pub fn worked_example(number: u32) -> Value {
    let outside = edge("edge1-out", "eth0", "198.51.100.10", "edge");
    let (hosts, policy) = match number {
        1 => (json!([]), web_front()),
        2 => (outside, edge_mgmt()),
        3 => (outside, edge_transit()),
        4 => (outside, nodeport_guard()),
        5 => (edge("edge1-in", "eth1", "10.9.0.10", "resolver"), dns_fast()),
        other => panic!("section 8 has no example {other}"),
    };
    with(shop(), json!({"hosts": hosts, "policies": [policy]}))
}

fn web_front() -> Value {
    let fields = json!({
        "order": 100, "selector": "app == 'web'", "applies_egress": true,
        "ingress": [{
            "action": "Allow", "protocol": 6,
            "source": {"nets": ["203.0.113.0/24"], "not_nets": ["203.0.113.99/32"]},
            "destination": {"ports": [[443, 443]]},
        }],
        "egress": [{
            "action": "Allow", "protocol": 6,
            "destination": {"selector": "app == 'db'", "ports": [[5432, 5432]]},
        }],
    });
    namespaced("shop", "web-front", fields)
}

fn edge_mgmt() -> Value {
    let rule = json!({
        "action": "Allow", "protocol": 6,
        "source": {"nets": ["203.0.113.0/24"]}, "destination": {"ports": [[9100, 9100]]},
    });
    global("edge-mgmt", json!({"order": 100, "selector": "role == 'edge'", "ingress": [rule]}))
}

fn edge_transit() -> Value {
    let rules = json!([
        {"action": "Deny", "protocol": 6, "destination": {"ports": [[445, 445]]}},
        {"action": "Allow", "source": {"nets": ["203.0.113.0/24"]}},
    ]);
    let fields =
        json!({"order": 50, "selector": "role == 'edge'", "apply_on_forward": true, "ingress": rules});
    global("edge-transit", fields)
}

fn nodeport_guard() -> Value {
    let rules = json!([
        {
            "action": "Allow", "protocol": 6,
            "source": {"nets": ["203.0.113.0/24"]}, "destination": {"ports": [[30443, 30443]]},
        },
        {"action": "Deny", "protocol": 6, "destination": {"ports": [[30000, 32767], [22, 22]]}},
    ]);
    let fields = json!({
        "order": 10, "selector": "role == 'edge'", "pre_dnat": true, "apply_on_forward": true, "ingress": rules,
    });
    global("nodeport-guard", fields)
}

fn dns_fast() -> Value {
    let inside = json!({"nets": ["10.9.0.0/16"]});
    let fields = json!({
        "order": 5, "selector": "role == 'resolver'", "do_not_track": true, "apply_on_forward": true,
        "applies_egress": true,
        "ingress": [
            {"action": "Deny", "source": {"nets": ["10.9.66.0/24"]}},
            {"action": "Allow", "protocol": 17, "source": inside, "destination": {"ports": [[53, 53]]}},
        ],
        "egress": [
            {"action": "Allow", "protocol": 17, "source": {"ports": [[53, 53]]}, "destination": inside},
        ],
    });
    global("dns-fast", fields)
}
