//! What one side of a rule says of members (M-20..M-30, R-20, R-26, R-30, V-68).
//!
//! Every member of the world has one address that nobody else has, so a set of addresses reads as a list of names.

use std::net::IpAddr;
use std::sync::Arc;

use labelgate::flow::{Family, address_number, number_address};
use labelgate::program::{AddressSet, PortSet, Program, Side};
use serde_json::{Value, json};

use crate::models::{allow_profile, built_in_tiers, global, namespaced, pod, program, with};
use crate::read::ingress_rules;

/// Short name and address; the last two are absent (V-68) and unknown.
const WHO: [(&str, &str); 9] = [
    ("shop/web", "10.0.0.1"),
    ("shop/db", "10.0.0.2"),
    ("dev/web", "10.0.0.3"),
    ("edge", "10.0.0.4"),
    ("shop/office", "10.0.0.5"),
    ("dev/lab", "10.0.0.6"),
    ("internet", "10.0.0.7"),
    ("absent", "10.0.0.8"),
    ("unknown", "10.0.0.9"),
];

fn address(who: &str) -> &'static str {
    WHO.iter().find(|(name, _)| *name == who).expect("a name of the world").1
}

fn port(name: &str, protocol: u8, port: u16) -> Value {
    json!({"name": name, "protocol": protocol, "port": port})
}

fn world_pod(namespace: &str, name: &str, account: Option<&str>, ports: &Value) -> Value {
    let who = format!("{namespace}/{name}");
    let mut pod = pod(namespace, name, &format!("cali-{who}"), address(&who), name);
    if let Some(account) = account {
        pod["labels"]["projectcalico.org/serviceaccount"] = account.into();
        pod["profiles"] = json!([format!("kns.{namespace}"), format!("ksa.{namespace}.{account}")]);
    }
    with(pod, json!({"ports": ports}))
}

fn set(who: &str, namespace: Option<&str>, app: &str) -> Value {
    let mut labels = json!({"app": app});
    if let Some(namespace) = namespace {
        labels["projectcalico.org/namespace"] = namespace.into();
    }
    let kind = if namespace.is_some() { "NetworkSet" } else { "GlobalNetworkSet" };
    let profiles: Vec<_> = namespace.iter().map(|namespace| format!("kns.{namespace}")).collect();
    json!({"name": format!("{kind}/{who}"), "labels": labels, "profiles": profiles, "nets": [address(who)]})
}

fn world(policy: Value) -> Program {
    let ports = json!([port("http", 6, 80), port("dns", 17, 53), port("dns", 6, 53), port("odd", 136, 9)]);
    let mut absent = world_pod("shop", "web", None, &ports);
    absent =
        with(absent, json!({"name": "Pod/shop/absent", "interface": "", "networks": [address("absent")]}));
    let without_address =
        with(absent.clone(), json!({"name": "Pod/shop/none", "interface": "x", "networks": []}));
    let labels = |name: &str, env: &str| json!({"pcns.projectcalico.org/name": name, "pcns.env": env});
    program(json!({
        "workloads": [
            world_pod("shop", "web", Some("front"), &ports),
            world_pod("shop", "db", None, &json!([port("http", 6, 8080)])),
            world_pod("dev", "web", Some("front"), &json!([port("http", 17, 80)])),
            absent, without_address,
        ],
        "hosts": [{
            "name": "edge", "node": "elsewhere", "interface": "eth0", "addresses": [address("edge")],
            "labels": {"app": "web", "role": "edge"}, "ports": [port("http", 6, 9080)],
        }],
        "network_sets": [
            set("shop/office", Some("shop"), "office"), set("dev/lab", Some("dev"), "web"),
            set("internet", None, "web"),
        ],
        "profiles": [
            allow_profile("kns.shop", labels("shop", "prod")),
            allow_profile("kns.dev", labels("dev", "test")),
            {"name": "ksa.shop.front", "labels": {"pcsa.projectcalico.org/name": "front", "pcsa.team": "a"}},
            {"name": "ksa.dev.front", "labels": {"pcsa.projectcalico.org/name": "front", "pcsa.team": "b"}},
        ],
        "tiers": built_in_tiers(),
        "policies": [policy],
    }))
}

/// The program and the first ingress rule's source side of a policy; no namespace makes it global.
fn compiled(namespace: &str, rule: &Value) -> (Program, Side) {
    let fields = json!({"ingress": [rule]});
    let (key, policy) = if namespace.is_empty() {
        ("GlobalNetworkPolicy/p".to_owned(), global("p", fields))
    } else {
        (format!("NetworkPolicy/{namespace}/p"), namespaced(namespace, "p", fields))
    };
    let program = world(policy);
    let side = ingress_rules(&program, &key)[0].source.clone();
    (program, side)
}

fn names(set: &AddressSet) -> String {
    let holds = |address: &str| {
        let (family, number) = address_number(address.parse::<IpAddr>().expect("an address"));
        set.contains(family, number)
    };
    let names: Vec<_> = WHO.iter().filter(|(_, address)| holds(address)).map(|(name, _)| *name).collect();
    names.join(" ")
}

fn ports(set: &PortSet) -> String {
    let name = |family: Family, number: u128| {
        let text = number_address(family, number).to_string();
        WHO.iter().find(|(_, address)| *address == text).expect("an address of the world").0
    };
    let texts = set
        .members()
        .map(|(family, number, protocol, port)| format!("{} {protocol}/{port}", name(family, number)));
    texts.collect::<Vec<_>>().join(", ")
}

/// `in NAMES`, `not in NAMES`, or nothing.
fn said(namespace: &str, source: &Value) -> String {
    let (program, side) = compiled(namespace, &json!({"action": "Allow", "source": source}));
    let sets = |word: &str, ids: &[labelgate::program::AddressSetId]| -> Vec<String> {
        ids.iter().map(|id| format!("{word}: {}", names(&program.address_sets[id.index()]))).collect()
    };
    [sets("in", &side.in_sets), sets("not in", &side.not_in_sets)].concat().join("; ")
}

fn check(rows: &[(&str, &str, Value, &str)]) {
    for (rule, namespace, source, expected) in rows {
        assert_eq!(said(namespace, source), *expected, "{rule}: {source} in `{namespace}`");
    }
}

const EVERYONE: &str = "in: shop/web shop/db dev/web edge shop/office dev/lab internet";

/// M-20: workloads, expectedIPs and sets of the whole cluster; R-30 and V-68 keep the others out.
#[test]
fn global_policies_reach_every_member() {
    check(&[
        ("M-2", "", json!({}), ""),
        ("M-20", "", json!({"selector": "all()"}), EVERYONE),
        ("M-20", "", json!({"selector": "app == 'web'"}), "in: shop/web dev/web edge dev/lab internet"),
        ("R-20", "", json!({"selector": "pcns.env == 'prod'"}), "in: shop/web shop/db shop/office"),
        (
            "S-9",
            "",
            json!({"selector": "role != 'edge'"}),
            "in: shop/web shop/db dev/web shop/office dev/lab internet",
        ),
        ("M-20", "", json!({"selector": "app == 'nobody'"}), "in: "),
    ]);
}

/// M-21.3, M-21.4, M-23: any criterion on members keeps to the namespace; nets and ports do not.
#[test]
fn namespaced_policies_keep_to_their_namespace() {
    check(&[
        ("M-21", "shop", json!({}), ""),
        ("M-21", "shop", json!({"nets": ["10.0.0.1/32"]}), "in: shop/web"),
        ("M-21", "shop", json!({"named_ports": ["http"]}), ""),
        ("M-21", "shop", json!({"service_accounts": {}}), ""),
        ("M-21", "shop", json!({"selector": "all()"}), "in: shop/web shop/db shop/office"),
        ("M-21", "dev", json!({"selector": "app == 'web'"}), "in: dev/web dev/lab"),
        ("M-21", "shop", json!({"not_selector": "app == 'web'"}), "in: shop/db shop/office"),
        ("M-21", "shop", json!({"service_accounts": {"names": ["front"]}}), "in: shop/web"),
        (
            "M-3",
            "shop",
            json!({"selector": "all()", "nets": ["10.0.0.1/32"], "not_nets": ["10.0.0.2/32"]}),
            "in: shop/web; in: shop/web shop/db shop/office; not in: shop/db",
        ),
    ]);
}

/// M-22, M-23: `all()` and `global()` carry a namespace guard, negative tests do not.
#[test]
fn namespace_selectors() {
    let all = "in: shop/web shop/db dev/web shop/office dev/lab";
    for namespace in ["", "shop"] {
        let rows = [
            ("M-22", json!({"namespace_selector": "all()"}), all),
            ("M-22", json!({"namespace_selector": "global()"}), "in: edge internet"),
            ("M-22", json!({"namespace_selector": "!all()"}), "in: edge internet"),
            (
                "M-22",
                json!({"namespace_selector": "all() && env == 'prod'"}),
                "in: shop/web shop/db shop/office",
            ),
            ("M-21", json!({"namespace_selector": "env == 'test'"}), "in: dev/web dev/lab"),
            ("M-21", json!({"namespace_selector": "projectcalico.org/name == 'dev'"}), "in: dev/web dev/lab"),
            ("M-23", json!({"namespace_selector": "env != 'prod'"}), "in: dev/web edge dev/lab internet"),
            ("M-23", json!({"namespace_selector": "!has(env)"}), "in: edge internet"),
            (
                "M-21",
                json!({"namespace_selector": "all()", "selector": "app == 'web'"}),
                "in: shop/web dev/web dev/lab",
            ),
            ("M-22", json!({"namespace_selector": "global()", "selector": "all()"}), "in: edge internet"),
        ];
        check(&rows.map(|(rule, source, expected)| (rule, namespace, source, expected)));
    }
}

/// M-24: with a positive expression a difference of members; without one also unknown addresses pass.
#[test]
fn not_selector() {
    check(&[
        (
            "M-24",
            "",
            json!({"not_selector": "app == 'web'"}),
            "not in: shop/web dev/web edge dev/lab internet",
        ),
        ("M-24", "", json!({"selector": "!(app == 'web')"}), "in: shop/db shop/office"),
        (
            "M-24",
            "",
            json!({"selector": "has(pcns.env)", "not_selector": "app == 'web'"}),
            "in: shop/db shop/office",
        ),
        (
            "M-24",
            "",
            json!({"namespace_selector": "all()", "not_selector": "app == 'web'"}),
            "in: shop/db shop/office",
        ),
        (
            "M-24",
            "",
            json!({"service_accounts": {"names": ["front"]}, "not_selector": "pcns.env == 'prod'"}),
            "in: dev/web",
        ),
        (
            "M-24",
            "",
            json!({"not_selector": "all()"}),
            "not in: shop/web shop/db dev/web edge shop/office dev/lab internet",
        ),
    ]);
}

/// M-30, M-21.1: only workloads have service account labels; `all()` is not rewritten here.
#[test]
fn service_accounts() {
    check(&[
        ("M-30", "", json!({"service_accounts": {"names": ["front", "back"]}}), "in: shop/web dev/web"),
        ("M-30", "", json!({"service_accounts": {"selector": "team == 'a'"}}), "in: shop/web"),
        (
            "M-30",
            "",
            json!({"service_accounts": {"names": ["front"], "selector": "team != 'a'"}}),
            "in: dev/web",
        ),
        ("M-30", "", json!({"service_accounts": {"names": ["back"], "selector": "team == 'a'"}}), "in: "),
        ("M-30", "", json!({"service_accounts": {"selector": "all()"}}), EVERYONE),
        (
            "M-30",
            "shop",
            json!({"service_accounts": {"selector": "all()"}}),
            "in: shop/web shop/db shop/office",
        ),
        ("M-30", "shop", json!({"service_accounts": {"selector": "team != 'a'"}}), "in: shop/db shop/office"),
        (
            "M-21",
            "",
            json!({"service_accounts": {"names": ["front"]}, "selector": "app == 'web'",
            "namespace_selector": "env == 'test'"}),
            "in: dev/web",
        ),
        ("M-2", "", json!({"service_accounts": {}}), ""),
    ]);
}

/// The named ports of the source side, positive and negated.
fn named(namespace: &str, protocol: Option<u8>, source: &Value) -> String {
    let rule = json!({"action": "Allow", "protocol": protocol, "source": source});
    let (program, side) = compiled(namespace, &rule);
    let sets = |word: &str, ports_of: &Option<Arc<labelgate::program::PortMatch>>| -> Vec<String> {
        let found = ports_of.iter().flat_map(|found| &found.named);
        found.map(|id| format!("{word}: {}", ports(&program.port_sets[id.index()]))).collect()
    };
    [sets("in", &side.ports), sets("not in", &side.not_ports)].concat().join("; ")
}

/// M-25..M-28.
#[test]
fn named_ports() {
    let (tcp, udp, sctp) = (Some(6), Some(17), Some(132));
    let http = json!({"named_ports": ["http"]});
    let rows = [
        ("M-25", "", tcp, http.clone(), "in: shop/web 6/80, shop/db 6/8080, edge 6/9080"),
        ("M-25", "", udp, http.clone(), "in: dev/web 17/80"),
        ("M-25", "", None, http.clone(), "in: shop/web 6/80, shop/db 6/8080, dev/web 17/80, edge 6/9080"),
        ("M-25, cluster-wide", "shop", tcp, http.clone(), "in: shop/web 6/80, shop/db 6/8080, edge 6/9080"),
        (
            "M-25",
            "shop",
            tcp,
            json!({"named_ports": ["http"], "selector": "all()"}),
            "in: shop/web 6/80, shop/db 6/8080",
        ),
        (
            "M-25",
            "",
            tcp,
            json!({"named_ports": ["http"], "selector": "app == 'web'"}),
            "in: shop/web 6/80, edge 6/9080",
        ),
        (
            "M-25",
            "",
            tcp,
            json!({"named_ports": ["http"], "not_selector": "app == 'web'"}),
            "in: shop/web 6/80, shop/db 6/8080, edge 6/9080",
        ),
        ("M-26", "", sctp, http, "in: "),
        ("M-26", "", tcp, json!({"not_named_ports": ["nobody"]}), "not in: "),
        (
            "M-27",
            "",
            tcp,
            json!({"not_named_ports": ["http"], "selector": "role == 'edge'"}),
            "not in: edge 6/9080",
        ),
        ("M-28", "", None, json!({"named_ports": ["dns"]}), "in: shop/web 6/53, shop/web 17/53"),
        ("M-25, other protocols", "", None, json!({"named_ports": ["odd"]}), "in: "),
        (
            "M-17",
            "",
            tcp,
            json!({"named_ports": ["http", "dns"]}),
            "in: shop/web 6/53; in: shop/web 6/80, shop/db 6/8080, edge 6/9080",
        ),
    ];
    for (rule, namespace, protocol, source, expected) in rows {
        assert_eq!(named(namespace, protocol, &source), expected, "{rule}: {source}");
    }
}

/// M-17, M-18: ranges are sorted, disjoint and maximal.
#[test]
fn numeric_ports() {
    let source =
        json!({"ports": [[443, 443], [80, 90], [85, 99], [100, 100]], "not_ports": [[65535, 65535], [0, 1]]});
    let (_, side) = compiled("", &json!({"action": "Allow", "protocol": 6, "source": source}));
    let ranges = |ports: Option<Arc<labelgate::program::PortMatch>>| ports.expect("ports").ranges.clone();
    assert_eq!(ranges(side.ports), [(80, 100), (443, 443)]);
    assert_eq!(ranges(side.not_ports), [(0, 1), (65535, 65535)]);
}

/// M-5 and house rule: equal expressions share one set.
#[test]
fn equal_sets_are_one() {
    let rule = |selector: &str| json!({"action": "Allow", "source": {"selector": selector}});
    let rules = json!([rule("app == 'web'"), rule("app == \"web\""), rule("role == 'edge' || app == 'web'")]);
    let program = world(global("p", json!({"ingress": rules})));
    let sets: Vec<_> = ingress_rules(&program, "GlobalNetworkPolicy/p")
        .iter()
        .map(|rule| rule.source.in_sets.clone())
        .collect();
    assert_eq!((sets[0] == sets[1], sets[1] == sets[2], program.address_sets.len()), (true, true, 1));
}
