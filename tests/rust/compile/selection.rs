//! Which policies select which endpoints, in which order, into which lists (E-1..E-6, E-10..E-15, R-20, R-27, K-30).

use labelgate::program::Program;
use serde_json::{Value, json};

use crate::models::{built_in_tiers, global, namespaced, pod, program, with};
use crate::read::{chains, endpoint};

/// Two namespaces, one pod with a service account, two host endpoints: one forged into a namespace, one plain.
fn world(policies: &Value) -> Program {
    let mut account = pod("shop", "web", "cali1", "10.0.0.1", "web");
    account["labels"]["projectcalico.org/serviceaccount"] = "front".into();
    account["profiles"] = json!(["kns.shop", "ksa.shop.front", "extra"]);
    let other_node = with(pod("shop", "far", "cali9", "10.0.0.9", "web"), json!({"node": "edge2"}));
    let forged = json!({"role": "edge", "projectcalico.org/namespace": "shop"});
    let host = |name: &str, labels: &Value| {
        json!({
            "name": name, "node": "edge1", "interface": name, "labels": labels, "profiles": ["extra"],
        })
    };
    program(json!({
        "workloads": [account, pod("shop", "db", "cali2", "10.0.0.2", "db"), pod("dev", "web", "cali3", "10.0.0.3", "web"), other_node],
        "hosts": [
            host("plain", &json!({"role": "edge", "team": "own"})), host("forged", &forged),
            {"name": "far", "node": "edge2", "interface": "eth0", "labels": {"role": "edge"}},
        ],
        "profiles": [
            {"name": "kns.shop", "labels": {"pcns.env": "prod"}}, {"name": "kns.dev", "labels": {"pcns.env": "test"}},
            {"name": "ksa.shop.front", "labels": {"pcsa.team": "a", "team": "account"}},
            {"name": "extra", "labels": {"team": "profile"}},
        ],
        "tiers": built_in_tiers(),
        "policies": policies,
    }))
}

/// The endpoints that have the policy in their normal ingress list.
fn selected_by(policy: Value) -> String {
    let program = world(&json!([policy]));
    let has = |chain| program.chain(chain).tiers.iter().any(|tier| !tier.policies.is_empty());
    let selected = program.endpoints.iter().filter(|endpoint| has(endpoint.normal.ingress));
    selected.map(|endpoint| endpoint.name.as_str()).collect::<Vec<_>>().join(" ")
}

const PODS: &str = "Pod/dev/web Pod/shop/db Pod/shop/web";

/// E-1, R-20, R-27: endpoints of the node, by effective labels.
#[test]
fn global_policies_select() {
    let hosts = "HostEndpoint/forged HostEndpoint/plain";
    let everyone = format!("{hosts} {PODS}");
    let rows = [
        ("S-20", json!({}), everyone.as_str()),
        ("E-1", json!({"selector": "role == 'edge'"}), hosts),
        ("E-1", json!({"selector": "app == 'web'"}), "Pod/dev/web Pod/shop/web"),
        ("R-20", json!({"selector": "team == 'own'"}), "HostEndpoint/plain"),
        ("R-20", json!({"selector": "team == 'profile'"}), "HostEndpoint/forged"),
        ("R-20", json!({"selector": "team == 'account'"}), "Pod/shop/web"),
        ("E-1", json!({"namespace_selector": "env == 'prod'"}), "Pod/shop/db Pod/shop/web"),
        (
            "E-1",
            json!({"namespace_selector": "all()"}),
            "HostEndpoint/forged Pod/dev/web Pod/shop/db Pod/shop/web",
        ),
        (
            "M-23",
            json!({"namespace_selector": "env != 'prod'"}),
            "HostEndpoint/forged HostEndpoint/plain Pod/dev/web",
        ),
        ("E-1", json!({"service_account_selector": "all()"}), "Pod/shop/web"),
        ("E-1", json!({"service_account_selector": "team == 'a'"}), "Pod/shop/web"),
        (
            "E-1",
            json!({"service_account_selector": "team != 'a'", "namespace_selector": "env == 'prod'"}),
            "Pod/shop/db",
        ),
        (
            "E-1, each field apart",
            json!({"selector": "all()", "service_account_selector": "!has(team)"}),
            "HostEndpoint/forged HostEndpoint/plain Pod/dev/web Pod/shop/db",
        ),
        ("E-1, each field apart", json!({"selector": "all()", "namespace_selector": "!has(env)"}), hosts),
    ];
    for (id, fields, expected) in rows {
        assert_eq!(selected_by(global("p", fields.clone())), expected, "{id}: {fields}");
    }
}

/// E-1, K-30: only the own namespace; a host endpoint only if somebody labels it so.
#[test]
fn namespaced_policies_select() {
    let rows = [
        ("E-1", "dev", json!({}), "Pod/dev/web"),
        ("E-1", "shop", json!({"selector": "app == 'web'"}), "Pod/shop/web"),
        ("E-1", "shop", json!({}), "HostEndpoint/forged Pod/shop/db Pod/shop/web"),
        (
            "E-1, all() is not rewritten",
            "shop",
            json!({"service_account_selector": "all()"}),
            "HostEndpoint/forged Pod/shop/db Pod/shop/web",
        ),
        ("E-1", "shop", json!({"service_account_selector": "team == 'a'"}), "Pod/shop/web"),
        (
            "K-30",
            "shop",
            json!({"kind": "KubernetesNetworkPolicy", "selector": "projectcalico.org/orchestrator == 'k8s'"}),
            "Pod/shop/db Pod/shop/web",
        ),
    ];
    for (id, namespace, fields, expected) in rows {
        assert_eq!(selected_by(namespaced(namespace, "p", fields.clone())), expected, "{id}: {fields}");
    }
}

/// The policies of the normal ingress list of `Pod/shop/web`, by tier.
fn order(tiers: Value, policies: &Value) -> Vec<String> {
    let program = program(json!({
        "workloads": [pod("shop", "web", "cali1", "10.0.0.1", "web")], "tiers": tiers, "policies": policies,
    }));
    let list = |id: &labelgate::program::RuleListId| program.rule_lists[id.index()].policy.clone();
    let tiers = &program.chain(endpoint(&program, "Pod/shop/web").normal.ingress).tiers;
    tiers
        .iter()
        .map(|tier| {
            format!("{}: {}", tier.name, tier.policies.iter().map(list).collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// E-2, E-3, E-4: by order, then by name bytewise; tiers that do not exist last.
#[test]
fn tiers_are_ordered() {
    let tier = |name: &str, order: f64| json!({"name": name, "order": order, "pass": false});
    let mut tiers = built_in_tiers();
    let more = [
        tier("late", 2e6),
        tier("b-million", 1e6),
        tier("Z-million", 1e6),
        tier("early", -0.0),
        tier("also-early", 0.0),
    ];
    tiers.as_array_mut().expect("a list").extend(more);
    let names = [
        "gone",
        "a-gone",
        "late",
        "b-million",
        "Z-million",
        "early",
        "also-early",
        "default",
        "kube-admin",
        "kube-baseline",
    ];
    let policies: Vec<_> = names.iter().map(|tier| global(tier, json!({"tier": tier}))).collect();
    let expected = [
        "also-early",
        "early",
        "kube-admin",
        "Z-million",
        "b-million",
        "default",
        "late",
        "kube-baseline",
        "a-gone",
        "gone",
    ];
    assert_eq!(
        order(tiers, &json!(policies)),
        expected.map(|name| format!("{name}: GlobalNetworkPolicy/{name}"))
    );
}

/// E-5, E-6: by order, absent last; ties by `name/namespace/kind`, whatever the kind.
#[test]
fn policies_are_ordered() {
    let kubernetes = json!({"kind": "KubernetesNetworkPolicy", "order": 1000});
    let policies = json!([
        global("no-order", json!({})),
        global("a-no-order", json!({})),
        namespaced("shop", "same", json!({"order": 1000})),
        with(namespaced("shop", "same", json!({})), kubernetes),
        global("same", json!({"order": 1000})),
        global("same-longer", json!({"order": 1000})),
        global("z", json!({"order": 999.5})),
        namespaced("shop", "negative", json!({"order": -1})),
        global("b-zero", json!({"order": 0})),
        global("a-zero", json!({"order": -0.0})),
    ]);
    let expected = "default: NetworkPolicy/shop/negative GlobalNetworkPolicy/a-zero GlobalNetworkPolicy/b-zero \
                    GlobalNetworkPolicy/z GlobalNetworkPolicy/same-longer GlobalNetworkPolicy/same \
                    KubernetesNetworkPolicy/shop/same NetworkPolicy/shop/same GlobalNetworkPolicy/a-no-order \
                    GlobalNetworkPolicy/no-order";
    assert_eq!(order(built_in_tiers(), &policies), [expected]);
}

/// The lists of a host endpoint and of a pod that have a policy of these fields; its rules are there or not.
fn lists(fields: Value) -> [String; 2] {
    let program = world(&json!([global("p", fields)]));
    ["HostEndpoint/plain", "Pod/shop/db"].map(|name| {
        let chains = chains(endpoint(&program, name)).into_iter();
        let with_policy = chains.filter(|(_, id)| !program.chain(*id).tiers.is_empty());
        with_policy.map(|(list, _)| list).collect::<Vec<_>>().join(", ")
    })
}

/// E-10, E-11, E-14.
#[test]
fn policies_go_into_lists() {
    let both = json!({"applies_ingress": true, "applies_egress": true});
    let rows = [
        ("E-10", json!({}), ["normal Ingress, normal Egress", "normal Ingress, normal Egress"]),
        (
            "E-10",
            json!({"apply_on_forward": true}),
            [
                "normal Ingress, normal Egress, forward Ingress, forward Egress",
                "normal Ingress, normal Egress",
            ],
        ),
        (
            "E-11",
            json!({"do_not_track": true, "apply_on_forward": true}),
            ["untracked Ingress, untracked Egress", ""],
        ),
        ("E-11", json!({"pre_dnat": true, "apply_on_forward": true}), ["prednat Ingress", ""]),
        (
            "E-10, untracked first",
            json!({"do_not_track": true, "pre_dnat": true}),
            ["untracked Ingress, untracked Egress", ""],
        ),
    ];
    for (id, fields, expected) in rows {
        assert_eq!(lists(with(both.clone(), fields.clone())), expected, "{id}: {fields}");
    }
    let one_way = ["normal Ingress, forward Ingress", "normal Ingress"];
    let inert = json!({"apply_on_forward": true, "egress": [{"action": "Allow"}]});
    assert_eq!(lists(inert), one_way, "E-14: rules of a direction outside of types are ignored");
    let egress = json!({"applies_ingress": false, "applies_egress": true, "do_not_track": true});
    assert_eq!(lists(egress), ["untracked Egress", ""], "E-31: one direction makes an untracked endpoint");
}
