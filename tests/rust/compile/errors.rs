//! Whole messages of models that cannot be compiled: resource, field, what was found, what was expected.

use labelgate::compile::compile;
use serde_json::{Value, json};

use crate::models::{built_in_tiers, global, model, pod, with};

fn said(fields: Value) -> String {
    let base = json!({
        "workloads": [pod("shop", "web", "cali1", "10.0.0.1", "web")], "tiers": built_in_tiers(),
    });
    compile(&model(with(base, fields)), Some("edge1")).expect_err("refused").to_string()
}

fn said_of_rule(fields: Value) -> String {
    let rule = with(json!({"action": "Allow"}), fields);
    said(json!({"policies": [global("p", json!({"ingress": [{"action": "Deny"}, rule]}))]}))
}

#[test]
fn rules() {
    let at = "GlobalNetworkPolicy/p: spec.ingress[1]";
    let rows = [
        (
            json!({"action": "allow"}),
            format!("{at}.action: found `allow`, expected Allow, Deny, Pass or Log"),
        ),
        (json!({"ip_version": 5}), format!("{at}.ipVersion: found `5`, expected 4 or 6")),
        (
            json!({"source": {"nets": ["10.0.0.0/8", "10.0/8"]}}),
            format!("{at}.source.nets: found `10.0/8`, expected a CIDR such as 10.0.0.0/8 or fd00::/8"),
        ),
        (
            json!({"destination": {"not_nets": ["fd00::/129"]}}),
            format!(
                "{at}.destination.notNets: found `fd00::/129`, expected a CIDR such as 10.0.0.0/8 or fd00::/8"
            ),
        ),
        (
            json!({"destination": {"not_ports": [[90, 80]]}}),
            format!("{at}.destination.notPorts: found `90:80`, expected the smaller port first"),
        ),
        (
            json!({"source": {"selector": "a == "}}),
            format!(
                "{at}.source.selector: expected a string in quotes, found the end of the selector\n  a == \n       ^"
            ),
        ),
        (
            json!({"source": {"service_accounts": {"selector": "!"}}}),
            format!(
                "{at}.source.serviceAccounts.selector: {}",
                "expected a label name, `has(`, `all()`, `global()`, `!` or `(`, found the end of the selector\n  !\n   ^"
            ),
        ),
    ];
    for (fields, expected) in rows {
        assert_eq!(said_of_rule(fields.clone()), expected, "{fields}");
    }
}

#[test]
fn resources() {
    let host =
        |fields: Value| with(json!({"name": "a", "node": "n", "interface": "eth0", "labels": {}}), fields);
    let set = |name: &str| json!({"name": name, "labels": {}, "nets": ["10.0.0.0/8x"]});
    let mut nets = pod("shop", "db", "cali2", "10.0.0.0/31", "db");
    let single = "expected a single address such as 10.0.0.1 or fd00::1";
    let rows = [
        (json!({"policies": [global("p", json!({"namespace_selector": "a ="}))]}),
            "GlobalNetworkPolicy/p: spec.namespaceSelector: expected an operator (`==`, `!=`, `contains`, `starts with`, \
             `ends with`, `in` or `not in`) after the label name, found `=`\n  a =\n    ^".to_owned()),
        (json!({"hosts": [host(json!({"addresses": ["10.0.0.1/24"]}))]}),
            format!("HostEndpoint/a: spec.expectedIPs: found `10.0.0.1/24`, {single}")),
        (json!({"workloads": [nets.clone()]}), format!("Pod/shop/db: spec.ipNetworks: found `10.0.0.0/31`, {single}")),
        (json!({"network_sets": [set("NetworkSet/shop/s")]}),
            "NetworkSet/shop/s: spec.nets: found `10.0.0.0/8x`, expected a CIDR such as 10.0.0.0/8 or fd00::/8".to_owned()),
        (json!({"hosts": [host(json!({})), host(json!({"node": "m"}))]}),
            "HostEndpoint/a: metadata.name: found twice, expected once".to_owned()),
        (json!({"tiers": [{"name": "t", "order": 1.0, "pass": false}, {"name": "t", "order": 2.0, "pass": true}]}),
            "Tier/t: metadata.name: found twice, expected once".to_owned()),
        (json!({"policies": [global("p", json!({})), global("p", json!({"order": 1}))]}),
            "GlobalNetworkPolicy/p: metadata.name: found twice, expected once".to_owned()),
        (json!({"settings": {"endpoint_to_host": "ACCEPT"}}),
            "settings: endpoint_to_host: found `ACCEPT`, expected Drop, Accept or Return".to_owned()),
        (json!({"settings": {"forward_unmarked": "Return"}}),
            "settings: forward_unmarked: found `Return`, expected return, accept or deny".to_owned()),
        (json!({"settings": {"failsafe_inbound": [{"protocol": 6, "net": "x", "port": 22}]}}),
            "settings: failsafe_inbound: found `x`, expected a CIDR such as 10.0.0.0/8 or fd00::/8".to_owned()),
    ];
    for (fields, expected) in rows {
        assert_eq!(said(fields.clone()), expected, "{fields}");
    }
    nets["networks"] = json!(["10.0.0.2"]);
    nets["spoofed_prefixes"] = json!(["10.0.0.0/33"]);
    assert_eq!(
        said(json!({"workloads": [nets]})),
        "Pod/shop/db: spec.allowSpoofedSourcePrefixes: found `10.0.0.0/33`, expected a CIDR such as 10.0.0.0/8 or fd00::/8"
    );
}

/// Each limit is reached, and exceeded by one.
#[test]
fn limits() {
    let port = |name: &str| json!({"name": name, "protocol": 6, "port": 80});
    let web = with(pod("shop", "web", "cali1", "10.0.0.1", "web"), json!({"ports": [port("http")]}));
    let rule = json!({"action": "Allow", "protocol": 6, "source": {
        "nets": ["10.0.0.0/8", "fd00::/8"], "not_selector": "all()", "named_ports": ["http"],
    }});
    let base = json!({
        "workloads": [web, pod("shop", "db", "cali2", "10.0.0.2", "db")], "tiers": built_in_tiers(),
        "policies": [global("p", json!({"ingress": [rule, rule]}))],
    });
    let compiled = |limits: Value| {
        let model = model(with(base.clone(), json!({"limits": limits})));
        compile(&model, Some("edge1")).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(compiled(json!({"endpoints": 2, "rules": 2, "addresses": 4})), Ok(()));
    for (limit, size) in [("endpoints", 2), ("rules", 2), ("addresses", 4)] {
        let expected = format!("limits: {limit}: found {size}, expected at most {}", size - 1);
        assert_eq!(compiled(json!({limit: size - 1})), Err(expected));
    }
}
