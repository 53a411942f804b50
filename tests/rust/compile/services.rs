//! Services in rules: their backends as address sets and port sets (M-31, M-32).

use labelgate::compile::compile;
use serde_json::{Value, json};

use crate::models::{built_in_tiers, global, model, pod, program, with};

fn world(policy: Value) -> Value {
    json!({
        "workloads": [pod("shop", "web", "cali1", "10.65.0.2/32", "web")],
        "tiers": built_in_tiers(),
        "services": [
            {
                "namespace": "shop", "name": "db", "addresses": ["fd00::3", "10.65.0.4", "10.65.0.3"],
                "ports": [["10.65.0.4", 6, 5432], ["10.65.0.3", 6, 5432], ["fd00::3", 17, 53]],
            },
            {"namespace": "other", "name": "db", "addresses": ["10.9.0.1"], "ports": [["10.9.0.1", 6, 1]]},
        ],
        "policies": [policy],
    })
}

fn meant(name: &str) -> Value {
    json!({"service": {"namespace": "shop", "name": name}})
}

/// The text of the program from its rules on, without profiles.
fn text(fields: Value) -> String {
    let text = program(world(global("p", fields))).to_string();
    let rules = text.find("rules GlobalNetworkPolicy/p").expect("rules");
    let rules = &text[rules..];
    let profiles = rules.find("rules Profile").expect("profiles");
    let sets = rules.find("\naddresses a").or_else(|| rules.find("\nports p")).expect("sets");
    format!("{}{}", &rules[..profiles], &rules[sets..])
}

/// M-32: addresses alone, beside ports of both sides; an unknown service has none.
#[test]
fn sources_of_ingress() {
    let rules = json!([
        {
            "action": "Allow", "protocol": 6, "source": with(meant("db"), json!({"ports": [[1, 9]]})),
            "destination": {"ports": [[80, 80]]},
        },
        {"action": "Deny", "source": meant("gone")},
    ]);
    let expected = "\
rules GlobalNetworkPolicy/p Ingress in tier default
  0 Allow protocol tcp from a0 from ports 1-9 to ports 80
  1 Deny from a1


addresses a0: 10.65.0.3-10.65.0.4 fd00::3
addresses a1: none
";
    assert_eq!(text(json!({"ingress": rules})), expected);
}

/// M-31: address, protocol and port of the same backend.
#[test]
fn destinations_of_egress() {
    let rules = json!([{"action": "Allow", "destination": meant("db")}, {"action": "Deny", "destination": meant("gone")}]);
    let expected = "\
rules GlobalNetworkPolicy/p Egress in tier default
  0 Allow to ports p0
  1 Deny to ports p1


ports p0: 10.65.0.3 tcp 5432, 10.65.0.4 tcp 5432, fd00::3 udp 53
ports p1: none
";
    let fields = json!({"applies_ingress": false, "applies_egress": true, "egress": rules});
    assert_eq!(text(fields), expected);
}

#[test]
fn wrong_services() {
    let said = |value: Value| compile(&model(value), Some("edge1")).expect_err("refused").to_string();
    let mut twice = world(global("p", json!({})));
    twice["services"][1]["namespace"] = json!("shop");
    assert_eq!(said(twice), "Service/shop/db: metadata.name: found twice, expected once");
    let mut name = world(global("p", json!({})));
    name["services"][0]["addresses"][1] = json!("db.example");
    assert_eq!(
        said(name),
        "Service/shop/db: addresses: found `db.example`, expected a single address such as 10.0.0.1 or fd00::1"
    );
    let both = with(meant("db"), json!({"ports": [[80, 80]]}));
    let rules = json!({"applies_egress": true, "egress": [{"action": "Allow", "destination": both}]});
    assert_eq!(
        said(world(global("p", rules))),
        "GlobalNetworkPolicy/p: spec.egress[0].destination.services: found together with ports, expected alone \
         (V-53)"
    );
}
