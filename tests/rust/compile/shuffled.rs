//! State, not history: the order of lists that are sets changes neither the program nor its text.

use std::collections::HashSet;
use std::hash::Hash;

use labelgate::compile::compile;
use labelgate::model::{Entity, Model};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::models::{allow_profile, built_in_tiers, global, model, namespaced, pod, with};

const SELECTORS: [&str; 8] = [
    "",
    "all()",
    "app == 'a'",
    "app in {'a', 'b'}",
    "app != 'a'",
    "has(role)",
    "pcns.env == 'x' || role == 'edge'",
    "!(app == 'b' && has(pcns.env))",
];
const NAMESPACE_SELECTORS: [&str; 5] = ["", "", "all()", "global()", "env == 'x'"];
const NETS: [&str; 6] = ["10.0.0.0/24", "10.0.1.0/24", "10.0.0.7/32", "fd00::/8", "0.0.0.0/0", "fd00::7/128"];
const PORT_NAMES: [&str; 3] = ["http", "dns", "none"];

fn some_of(texts: &'static [&'static str], most: usize) -> impl Strategy<Value = Value> {
    subsequence(texts, 0..=most).prop_map(|texts| json!(texts))
}

fn entity() -> impl Strategy<Value = Value> {
    let nets = || some_of(&NETS, 3);
    let names = || some_of(&PORT_NAMES, 2);
    let ranges =
        || subsequence(vec![(1, 9), (5, 20), (21, 30), (80, 80)], 0..3).prop_map(|ranges| json!(ranges));
    let members =
        (select(&SELECTORS), select(&SELECTORS), select(&NAMESPACE_SELECTORS), some_of(&["sa", "sb"], 2));
    (members, nets(), nets(), names(), names(), ranges(), ranges()).prop_map(
        |(
            (selector, not_selector, namespace_selector, accounts),
            nets,
            not_nets,
            named,
            not_named,
            ports,
            not_ports,
        )| {
            json!({
                "selector": selector, "not_selector": not_selector, "namespace_selector": namespace_selector,
                "service_accounts": {"names": accounts}, "nets": nets, "not_nets": not_nets, "ports": ports,
                "not_ports": not_ports, "named_ports": named, "not_named_ports": not_named,
            })
        },
    )
}

fn rule() -> impl Strategy<Value = Value> {
    (select(&["Allow", "Deny", "Pass", "Log"]), select(&[None, Some(1), Some(6), Some(17)]), entity(), entity())
        .prop_map(|(action, protocol, source, destination)| {
            json!({"action": action, "protocol": protocol, "source": source, "destination": destination})
        })
}

fn rules() -> impl Strategy<Value = Value> {
    proptest::collection::vec(rule(), 0..3).prop_map(|rules| json!(rules))
}

/// Names are numbers, so that few orders and many ties meet.
fn policy() -> impl Strategy<Value = Value> {
    let subject = (select(&SELECTORS), select(&["", "n0", "n1"]), select(&["default", "kube-admin", "gone"]));
    let order = select(&[None, Some(1), Some(2)]);
    let flags = any::<[bool; 6]>();
    (subject, order, flags, rules(), rules()).prop_map(
        |((selector, namespace, tier), order, flags, ingress, egress)| {
            let [applies_ingress, applies_egress, do_not_track, pre_dnat, apply_on_forward, staged] = flags;
            let fields = json!({
                "tier": tier, "order": order, "selector": selector, "applies_ingress": applies_ingress,
                "applies_egress": applies_egress, "do_not_track": do_not_track, "pre_dnat": pre_dnat,
                "apply_on_forward": apply_on_forward, "staged": staged, "ingress": ingress, "egress": egress,
            });
            if namespace.is_empty() { global("p", fields) } else { namespaced(namespace, "p", fields) }
        },
    )
}

fn ports() -> impl Strategy<Value = Value> {
    subsequence(vec![("http", 6, 80), ("http", 6, 81), ("dns", 17, 53), ("dns", 6, 53)], 0..4).prop_map(
        |ports| {
            let port = |(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port});
            ports.into_iter().map(port).collect()
        },
    )
}

fn workload() -> impl Strategy<Value = Value> {
    let place = (select(&["n0", "n1"]), select(&["edge1", "edge2"]), select(&["a", "b", "c"]));
    let profiles = subsequence(vec!["pn0", "pn1", "gone"], 0..3);
    (place, profiles, ports(), some_of(&["10.0.0.1", "10.0.0.2", "fd00::1", "10.0.1.255"], 3)).prop_map(
        |((namespace, node, app), profiles, ports, networks)| {
            let fields = json!({
                "node": node, "profiles": profiles, "ports": ports, "networks": networks,
                "spoofed_prefixes": ["10.9.0.0/16", "10.8.0.0/16"],
            });
            with(pod(namespace, "w", "cali1", "10.0.0.1", app), fields)
        },
    )
}

fn host() -> impl Strategy<Value = Value> {
    let interface = select(&["", "*", "eth0", "eth1"]);
    (interface, some_of(&["10.0.2.1", "10.0.2.2", "fd00::2"], 3), ports()).prop_map(|(interface, addresses, ports)| {
        json!({
            "name": "h", "node": "edge1", "interface": interface, "addresses": addresses, "labels": {"role": "edge"},
            "profiles": ["pn0"], "ports": ports,
        })
    })
}

fn network_set() -> impl Strategy<Value = Value> {
    (select(&["a", "b"]), some_of(&NETS, 4))
        .prop_map(|(app, nets)| json!({"name": "GlobalNetworkSet/s", "labels": {"app": app}, "nets": nets}))
}

/// Elements with numbers behind their names, so that no two have the same.
fn numbered(element: impl Strategy<Value = Value>, most: usize) -> impl Strategy<Value = Value> {
    proptest::collection::vec(element, 0..=most).prop_map(|mut elements| {
        for (number, element) in elements.iter_mut().enumerate() {
            let name = element["name"].as_str().expect("a name").to_owned();
            element["name"] = format!("{name}{number}").into();
        }
        json!(elements)
    })
}

pub fn models() -> impl Strategy<Value = Model> {
    let lists =
        (numbered(workload(), 5), numbered(host(), 3), numbered(network_set(), 3), numbered(policy(), 8));
    lists.prop_map(|(workloads, hosts, network_sets, policies)| {
        let failsafe = |port| json!({"protocol": 6, "port": port});
        model(json!({
            "workloads": workloads, "hosts": hosts, "network_sets": network_sets, "policies": policies,
            "tiers": built_in_tiers(),
            "profiles": [allow_profile("pn0", json!({"pcns.env": "x"})), allow_profile("pn1", json!({"pcns.env": "y"}))],
            "settings": {"failsafe_inbound": [failsafe(22), failsafe(179)], "failsafe_outbound": [failsafe(53), failsafe(67)]},
        }))
    })
}

/// A small generator, so that a failing order can be repeated (Sebastiano Vigna's `SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % end as u64).expect("below a usize")
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }

    /// In another order, and some element twice: lists of these are sets (V-74).
    fn respell<T: Clone>(&mut self, list: &mut Vec<T>) {
        if !list.is_empty() {
            list.push(list[self.below(list.len())].clone());
        }
        self.shuffle(list);
    }

    fn respell_entity(&mut self, entity: &mut Entity) {
        for texts in
            [&mut entity.nets, &mut entity.not_nets, &mut entity.named_ports, &mut entity.not_named_ports]
        {
            self.respell(texts);
        }
        self.respell(&mut entity.ports);
        self.respell(&mut entity.not_ports);
        if let Some(accounts) = &mut entity.service_accounts {
            self.respell(&mut accounts.names);
        }
    }

    /// Rules, and the profiles of an endpoint, keep their order: it means something.
    fn shuffle_model(&mut self, model: &mut Model) {
        for workload in &mut model.workloads {
            self.respell(&mut workload.networks);
            self.respell(&mut workload.spoofed_prefixes);
            self.respell(&mut workload.ports);
        }
        for host in &mut model.hosts {
            self.respell(&mut host.addresses);
            self.respell(&mut host.ports);
        }
        model.network_sets.iter_mut().for_each(|set| self.respell(&mut set.nets));
        for policy in &mut model.policies {
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress) {
                self.respell_entity(&mut rule.source);
                self.respell_entity(&mut rule.destination);
            }
        }
        self.respell(&mut model.settings.failsafe_inbound);
        self.respell(&mut model.settings.failsafe_outbound);
        self.shuffle(&mut model.workloads);
        self.shuffle(&mut model.hosts);
        self.shuffle(&mut model.network_sets);
        self.shuffle(&mut model.profiles);
        self.shuffle(&mut model.tiers);
        self.shuffle(&mut model.policies);
    }
}

proptest! {
    #[test]
    fn the_order_of_lists_does_not_show(model in models(), seed in any::<u64>()) {
        let mut shuffled = model.clone();
        Random(seed).shuffle_model(&mut shuffled);
        for node in [Some("edge1"), None] {
            let program = compile(&model, node).expect("generated models compile");
            let again = compile(&shuffled, node).expect("shuffled models compile");
            prop_assert_eq!(program.to_string(), again.to_string());
            prop_assert_eq!(program, again);
        }
    }

    /// Also those that get their numbers without being looked for.
    #[test]
    fn equal_parts_are_one(model in models()) {
        fn is_each_once<T: Eq + Hash>(parts: &[T]) -> bool {
            parts.iter().collect::<HashSet<_>>().len() == parts.len()
        }
        for node in [Some("edge1"), None] {
            let program = compile(&model, node).expect("generated models compile");
            prop_assert!(is_each_once(&program.outcomes), "{}", program);
            prop_assert!(is_each_once(&program.address_sets) && is_each_once(&program.port_sets), "{}", program);
        }
    }
}
