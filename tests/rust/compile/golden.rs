//! Whole texts of programs. `UPDATE_GOLDEN=1` writes them anew.

use std::fs;
use std::path::Path;

use labelgate::compile::compile;
use serde_json::{Value, json};

use crate::models::{
    allow_profile, built_in_tiers, global, model, namespaced, pod, program, with, worked_example,
};

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/programs/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("the golden text can be written");
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
}

#[test]
fn workload_policy() {
    check("workload-policy", &program(worked_example(1)).to_string());
}

#[test]
fn host_endpoint() {
    check("host-endpoint", &program(worked_example(2)).to_string());
}

#[test]
fn apply_on_forward() {
    check("apply-on-forward", &program(worked_example(3)).to_string());
}

#[test]
fn prednat() {
    check("prednat", &program(worked_example(4)).to_string());
}

#[test]
fn do_not_track() {
    check("do-not-track", &program(worked_example(5)).to_string());
}

/// Variant (b) of 8.5 with an inactive rival: untracked policy on `*` (E-46, E-47).
#[test]
fn do_not_track_on_any_interface() {
    let any = |name| json!({"name": name, "node": "edge1", "interface": "*", "labels": {"role": "resolver"}});
    let example = with(worked_example(5), json!({"hosts": [any("any-b"), any("any-a")]}));
    check("do-not-track-any", &program(example).to_string());
}

/// The workloads of every node, without hosts.
#[test]
fn cluster_view() {
    let mut example = worked_example(1);
    example["workloads"][1]["node"] = "edge2".into();
    example["hosts"] = json!([{"name": "edge1-out", "node": "edge1", "interface": "eth0", "labels": {}}]);
    check("cluster-view", &compile(&model(example), None).expect("compiles").to_string());
}

/// Everything else that the text shows: tiers, staged policies, families, ICMP, named ports, negations, profiles.
#[test]
fn every_kind_of_line() {
    check("every-kind-of-line", &program(mixed()).to_string());
}

fn mixed() -> Value {
    let port = |name, protocol, port| json!({"name": name, "protocol": protocol, "port": port});
    let web = with(
        pod("shop", "web", "cali111", "10.65.0.2/32", "web"),
        json!({
            "networks": ["fd00::2/128", "10.65.0.2/32"], "spoofed_prefixes": ["10.80.0.0/16"],
            "profiles": ["kns.shop", "gone"], "ports": [port("http", 6, 8080), port("dns", 17, 53)],
        }),
    );
    let rules = json!([
        {"action": "Log", "protocol": 1, "icmp": {"type": 8, "code": 0}},
        {"action": "Deny", "protocol": 58, "not_icmp": {"type": 135}},
        {"action": "Pass", "ip_version": 6, "not_protocol": 132},
        {"action": "Allow", "source": {"not_nets": ["0.0.0.0/0"]}},
        {"action": "Allow", "protocol": 6, "destination": {
            "ports": [[90, 99], [80, 89], [443, 443]], "named_ports": ["http", "nobody"],
        }},
        {"action": "Allow", "protocol": 17, "source": {
            "selector": "has(app)", "not_nets": ["10.0.0.0/8"], "not_ports": [[0, 1023]],
            "not_named_ports": ["dns"],
        }},
        {"action": "Deny", "source": {"not_selector": "app == 'web'"}},
    ]);
    let staged = json!({"kind": "StagedGlobalNetworkPolicy", "staged": true, "ingress": rules});
    let settings = json!({
        "endpoint_to_host": "Return", "invalid_check": false, "workload_vxlan_port": null,
        "workload_ipip_denied": false, "forward_unmarked": "accept", "exempt_loopback": true,
        "failsafe_inbound": [
            {"protocol": 6, "net": "10.0.0.0/8", "port": 22}, {"protocol": 6, "net": "fd00::/8", "port": 22},
        ],
    });
    json!({
        "workloads": [web],
        "hosts": [{"name": "by-address", "node": "edge1", "addresses": ["fd00::1", "198.51.100.10"], "labels": {}}],
        "profiles": [allow_profile("kns.shop", json!({}))],
        "tiers": built_in_tiers(),
        "policies": [
            namespaced("shop", "rules", json!({"ingress": rules})),
            global("staged-only", with(staged, json!({"tier": "kube-admin"}))),
            global("baseline", json!({"tier": "kube-baseline", "apply_on_forward": true})),
            global("orphan", json!({"tier": "gone", "applies_ingress": false, "applies_egress": true})),
        ],
        "settings": settings,
    })
}
