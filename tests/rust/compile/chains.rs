//! What follows which tier, and what ends a chain (E-15, E-20..E-28, E-52, R-29), and warnings (E-45..E-47).

use labelgate::program::{Action, Program};
use serde_json::{Value, json};

use crate::models::{allow_profile, built_in_tiers, global, pod, program, with};
use crate::read::{chain_texts, endpoint, ingress_rules};

fn host(fields: Value) -> Value {
    with(json!({"name": "a", "node": "edge1", "interface": "eth0", "labels": {"role": "edge"}}), fields)
}

fn compiled(hosts: Value, policies: Value) -> Program {
    program(json!({
        "hosts": hosts,
        "workloads": [with(pod("shop", "web", "cali1", "10.0.0.1", "web"), json!({"profiles": ["first", "gone", "last"]}))],
        "profiles": [allow_profile("first", json!({})), allow_profile("last", json!({}))],
        "tiers": built_in_tiers(),
        "policies": policies,
    }))
}

fn host_chains(policies: Value) -> Vec<String> {
    chain_texts(&compiled(json!([host(json!({}))]), policies), "HostEndpoint/a")
}

fn staged(name: &str, fields: Value) -> Value {
    global(name, with(json!({"kind": "StagedGlobalNetworkPolicy", "staged": true}), fields))
}

/// E-20.7, E-25, E-52: no policy at all.
#[test]
fn without_policy() {
    let expected = [
        "normal Ingress: profiles ",
        "normal Egress: profiles ",
        "forward Ingress: accept",
        "forward Egress: accept",
    ];
    assert_eq!(host_chains(json!([])), expected);
}

/// E-21: tiers with action Deny and Pass; E-26: other tiers and directions are invisible.
#[test]
fn ends_of_tiers() {
    let policies = json!([
        global("admin", json!({"tier": "kube-admin"})),
        global("p", json!({})),
        global("elsewhere", json!({"tier": "kube-baseline", "selector": "role == 'other'"})),
    ]);
    let expected = [
        "normal Ingress: kube-admin: GlobalNetworkPolicy/admin -> pass, end of tier, action Pass (E-21); \
         default: GlobalNetworkPolicy/p -> deny, end of tier (E-21); profiles ",
        "normal Egress: profiles ",
        "forward Ingress: accept",
        "forward Egress: accept",
    ];
    assert_eq!(host_chains(policies), expected);
}

/// E-4: a tier that does not exist ends in deny.
#[test]
fn missing_tier_denies() {
    let texts = host_chains(json!([global("p", json!({"tier": "gone"}))]));
    assert_eq!(
        texts[0],
        "normal Ingress: gone: GlobalNetworkPolicy/p -> deny, end of tier (E-21); profiles "
    );
}

/// E-22: untracked and preDNAT fall through, whatever the tier's action.
#[test]
fn untracked_and_prednat_fall_through() {
    let policies = json!([
        global("dnt", json!({"do_not_track": true, "apply_on_forward": true})),
        global("pdn", json!({"pre_dnat": true, "apply_on_forward": true, "tier": "kube-admin"})),
    ]);
    let expected = [
        "normal Ingress: profiles ",
        "normal Egress: profiles ",
        "forward Ingress: accept",
        "forward Egress: accept",
        "untracked Ingress: default: GlobalNetworkPolicy/dnt -> fall, no rule decided (E-22); no rule decided (E-22)",
        "untracked Egress: no rule decided (E-22)",
        "prednat Ingress: kube-admin: GlobalNetworkPolicy/pdn -> fall, no rule decided (E-22); no rule decided (E-22)",
    ];
    assert_eq!(host_chains(policies), expected);
}

/// E-27: the other direction has policy; E-28: every tier is passed.
#[test]
fn ends_of_forward_chains() {
    let forward = json!({"apply_on_forward": true});
    let texts = host_chains(json!([global("p", forward.clone())]));
    let other = "no applyOnForward policy in this direction (E-27)";
    assert_eq!(texts[2..], [
        "forward Ingress: default: GlobalNetworkPolicy/p -> deny, end of tier (E-21); all tiers passed (E-28)".to_owned(),
        format!("forward Egress: {other}"),
    ]);
    let texts = host_chains(json!([staged("p", forward.clone())]));
    assert_eq!(
        texts[2..],
        [
            "forward Ingress: default:  -> pass, end of tier, all staged (E-23); all tiers passed (E-28)"
                .to_owned(),
            format!("forward Egress: {other}"),
        ]
    );
    let texts = host_chains(json!([global("p", with(forward, json!({"tier": "kube-admin"})))]));
    assert_eq!(
        texts[2],
        "forward Ingress: kube-admin: GlobalNetworkPolicy/p -> pass, end of tier, action Pass (E-21); all tiers passed (E-28)"
    );
}

/// E-15, E-23: staged policies leave no rules; a tier of nothing else passes, one with others ends as ever.
#[test]
fn staged_policies() {
    let texts = host_chains(json!([staged("s", json!({"ingress": [{"action": "Deny"}]}))]));
    assert_eq!(texts[0], "normal Ingress: default:  -> pass, end of tier, all staged (E-23); profiles ");
    let texts = host_chains(json!([staged("s", json!({})), global("p", json!({}))]));
    assert_eq!(
        texts[0],
        "normal Ingress: default: GlobalNetworkPolicy/p -> deny, end of tier (E-21); profiles "
    );
}

/// E-15: a staged policy alone gives no untracked and no preDNAT chain.
#[test]
fn staged_policies_alone_make_no_chain() {
    let policies =
        json!([staged("dnt", json!({"do_not_track": true})), staged("pdn", json!({"pre_dnat": true})),]);
    let program = compiled(json!([host(json!({}))]), policies);
    let host = endpoint(&program, "HostEndpoint/a");
    assert_eq!((host.untracked, host.prednat), (None, None));
}

/// E-20.8, R-29, M-54: profiles in the endpoint's order; a missing one denies in its place.
#[test]
fn profiles() {
    let program = compiled(json!([]), json!([]));
    let profiles = "profiles Profile/first Profile/gone Profile/last";
    let expected = [format!("normal Ingress: {profiles}"), format!("normal Egress: {profiles}")];
    assert_eq!(chain_texts(&program, "Pod/shop/web"), expected);
    let origins = ["Profile/first", "Profile/gone"].map(|profile| {
        let origin = program.outcome(ingress_rules(&program, profile)[0].outcome);
        (
            origin.tier.as_deref(),
            origin.policy.as_deref(),
            origin.rule,
            origin.action.map(Action::name),
            origin.reason.text(),
        )
    });
    let expected = [
        (None, Some("Profile/first"), Some(0), Some("Allow"), "profile rule (M-54)"),
        (None, Some("Profile/gone"), None, Some("Deny"), "missing profile (R-29)"),
    ];
    assert_eq!(origins, expected);
}

/// E-45, E-46, E-47: what does nothing here is said.
#[test]
fn warnings() {
    let named = |name: &str, interface: &str| host(json!({"name": name, "interface": interface}));
    let hosts = json!([
        named("d", "*"),
        named("c", "*"),
        named("b", "eth0"),
        named("a", "eth0"),
        named("other", "eth1"),
        host(json!({"name": "by-address", "interface": "", "addresses": ["198.51.100.10"]})),
        host(json!({"name": "elsewhere", "interface": "*", "node": "edge2"})),
    ]);
    let program = compiled(
        hosts,
        json!([
            global("dnt", json!({"do_not_track": true, "apply_on_forward": true})),
            staged("quiet", json!({"do_not_track": true})),
        ]),
    );
    let ignored = "untracked policy is ignored on";
    let expected = [
        format!("GlobalNetworkPolicy/dnt: {ignored} HostEndpoint/c, whose interfaceName is `*` (E-47)"),
        format!("GlobalNetworkPolicy/dnt: {ignored} HostEndpoint/d, whose interfaceName is `*` (E-47)"),
        "HostEndpoint/b: is inactive, HostEndpoint/a governs the interfaceName `eth0` (E-45)".to_owned(),
        "HostEndpoint/d: is inactive, HostEndpoint/c governs the interfaceName `*` (E-46)".to_owned(),
    ];
    assert_eq!(program.warnings, expected);
    assert_eq!(endpoint(&program, "HostEndpoint/c").untracked, None);
    assert!(endpoint(&program, "HostEndpoint/by-address").untracked.is_some());
}
