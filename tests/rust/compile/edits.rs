//! An edited model compiles to the program that a fresh compile of it gives, and shares what did not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use labelgate::compile::{Compiler, compile};
use labelgate::model::{Change, Model, Resource};
use labelgate::program::Program;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::models::{allow_profile, built_in_tiers, global, model, namespaced, pod, with};
use crate::shuffled::models;

/// A model as resources by key.
type Resources = BTreeMap<String, Resource>;

fn key(resource: &Resource) -> String {
    match resource {
        Resource::Workload(workload) => workload.name.clone(),
        Resource::Host(host) => format!("HostEndpoint/{}", host.name),
        Resource::NetworkSet(set) => set.name.clone(),
        Resource::Profile(profile) => format!("Profile/{}", profile.name),
        Resource::Tier(tier) => format!("Tier/{}", tier.name),
        Resource::Policy(policy) if policy.namespace.is_empty() => format!("{}/{}", policy.kind, policy.name),
        Resource::Policy(policy) => format!("{}/{}/{}", policy.kind, policy.namespace, policy.name),
        Resource::Service(service) => format!("Service/{}/{}", service.namespace, service.name),
    }
}

fn resources(model: &Model) -> Resources {
    let Model { workloads, hosts, network_sets, profiles, tiers, policies, services, .. } = model.clone();
    let all = (workloads.into_iter().map(Resource::Workload))
        .chain(hosts.into_iter().map(Resource::Host))
        .chain(network_sets.into_iter().map(Resource::NetworkSet))
        .chain(profiles.into_iter().map(Resource::Profile))
        .chain(tiers.into_iter().map(Resource::Tier))
        .chain(policies.into_iter().map(Resource::Policy))
        .chain(services.into_iter().map(Resource::Service));
    all.map(|resource| (key(&resource), resource)).collect()
}

/// The same settings and limits with these resources.
fn model_of(base: &Model, resources: &Resources) -> Model {
    let mut model =
        Model { settings: base.settings.clone(), limits: base.limits.clone(), ..Model::default() };
    for resource in resources.values().cloned() {
        match resource {
            Resource::Workload(workload) => model.workloads.push(workload),
            Resource::Host(host) => model.hosts.push(host),
            Resource::NetworkSet(set) => model.network_sets.push(set),
            Resource::Profile(profile) => model.profiles.push(profile),
            Resource::Tier(tier) => model.tiers.push(tier),
            Resource::Policy(policy) => model.policies.push(policy),
            Resource::Service(service) => model.services.push(service),
        }
    }
    model
}

/// What generated models have not, or always alike: services, profiles and tiers, and policies that are refused as soon
/// as they select somebody.
fn others() -> Model {
    let service = |name: &str, address: &str| json!({"namespace": "n0", "name": name, "addresses": [address], "ports": [[address, 6, 80]]});
    let of_service = json!({"service": {"namespace": "n0", "name": "s"}});
    let served = json!({
        "applies_egress": true, "ingress": [{"action": "Allow", "source": of_service}],
        "egress": [{"action": "Allow", "protocol": 6, "destination": of_service}],
    });
    let broken = |fields| with(json!({"ingress": [{"action": "Nothing"}]}), fields);
    let profile =
        |name: &str, env: &str| with(allow_profile(name, json!({"pcns.env": env})), json!({"egress": []}));
    model(json!({
        "profiles": [
            profile("pn0", "y"), profile("pn1", "z"), allow_profile("gone", json!({"role": "edge", "app": "d"})),
        ],
        "tiers": [
            {"name": "gone", "order": 2000.0, "pass": true}, {"name": "default", "order": 10.0, "pass": true},
            {"name": "kube-admin", "order": 20.0, "pass": false},
        ],
        "services": [service("s", "10.0.0.1"), service("s", "10.0.0.2"), service("t", "10.0.0.1")],
        "policies": [
            global("served", served), global("broken", broken(json!({"selector": "app == 'a'"}))),
            namespaced("n1", "broken", broken(json!({"selector": "role == 'edge'"}))),
        ],
    }))
}

#[derive(Debug)]
struct Edits {
    base: Model,
    /// What comes and goes, in steps of one or more at once.
    steps: Vec<Vec<(bool, Index)>>,
    pool: Vec<Resource>,
}

fn edits() -> impl Strategy<Value = Edits> {
    let steps = vec(vec((prop::bool::weighted(0.7), any::<Index>()), 1..4), 1..12);
    (models(), models(), models(), steps).prop_map(|(base, one, two, steps)| {
        let others = others();
        let services = others.services.iter().cloned().map(Resource::Service);
        let profiles = others.profiles.iter().cloned().map(Resource::Profile);
        let pool = [&one, &two, &base, &others].into_iter().flat_map(|model| resources(model).into_values());
        let pool = pool.chain(services).chain(profiles).collect();
        Edits { base, steps, pool }
    })
}

fn changes(pool: &[Resource], step: &[(bool, Index)], now: &mut Resources) -> Vec<Change> {
    let mut changes = Vec::new();
    for (put, index) in step {
        let resource = index.get(pool);
        changes.push(if *put {
            now.insert(key(resource), resource.clone());
            Change::Put(Box::new(resource.clone()))
        } else {
            now.remove(&key(resource));
            Change::Remove(key(resource))
        });
    }
    changes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// After each step the program is that of a fresh compile; a step that is refused changes nothing.
    #[test]
    fn an_edited_program_is_a_fresh_one(edits in edits(), on_node in any::<bool>()) {
        let Edits { base, steps, pool } = edits;
        let node = on_node.then_some("edge1");
        let mut compiler = Compiler::new(base.clone(), node).expect("generated models are read");
        let mut now = resources(&base);
        for step in &steps {
            let mut next = now.clone();
            let edited = compiler.apply(changes(&pool, step, &mut next));
            let fresh = compile(&model_of(&base, &next), node);
            match (&edited, &fresh) {
                (Ok(edited), Ok(fresh)) => {
                    prop_assert_eq!(edited.to_string(), fresh.to_string());
                    prop_assert_eq!(&**edited, fresh);
                    now = next;
                }
                (edited, fresh) => {
                    prop_assert_eq!(edited.as_ref().err(), fresh.as_ref().err());
                    let again = compiler.program().expect("nothing has changed");
                    let before = compile(&model_of(&base, &now), node).expect("it was compiled before");
                    prop_assert_eq!(&*again, &before);
                }
            }
        }
    }
}

fn shop() -> Model {
    let rule = |app: &str| json!([{"action": "Allow", "source": {"selector": format!("app == '{app}'")}}]);
    model(json!({
        "workloads": [
            pod("shop", "web", "cali1", "10.0.0.1", "web"), pod("shop", "db", "cali2", "10.0.0.2", "db"),
        ],
        "profiles": [allow_profile("kns.shop", json!({}))],
        "tiers": built_in_tiers(),
        "policies": [
            namespaced("shop", "to-web", json!({"selector": "app == 'web'", "ingress": rule("db")})),
            namespaced("shop", "to-db", json!({"selector": "app == 'db'", "ingress": rule("web")})),
        ],
    }))
}

fn put(resource: &str, value: &Value) -> Change {
    serde_json::from_value(json!({"put": {resource: value}})).expect("a change")
}

/// For each part of the new program whether the old one has it too, and not only an equal one.
fn kept<T>(old: &[Arc<T>], new: &[Arc<T>]) -> Vec<bool> {
    new.iter().map(|part| old.iter().any(|other| Arc::ptr_eq(part, other))).collect()
}

fn all_kept(old: &Program, new: &Program) -> [Vec<bool>; 3] {
    [
        kept(&old.rule_lists, &new.rule_lists),
        kept(&old.address_sets, &new.address_sets),
        kept(&old.endpoints, &new.endpoints),
    ]
}

/// Rule lists of `to-db`, profile and `to-web`; sets of `web` and `db`.
#[test]
fn what_an_edit_does_not_touch_is_shared() {
    let mut compiler = Compiler::new(shop(), Some("edge1")).expect("a model");
    let first = compiler.program().expect("it compiles");
    let again = compiler.apply([]).expect("it compiles");
    assert_eq!(all_kept(&first, &again), [vec![true; 4], vec![true; 2], vec![true; 2]]);
    let elsewhere = with(pod("shop", "db2", "cali9", "10.0.0.9", "db"), json!({"node": "edge2"}));
    let peer = compiler.apply([put("workload", &elsewhere)]).expect("it compiles");
    assert_eq!(all_kept(&first, &peer), [vec![true; 4], vec![true, false], vec![true; 2]]);
    let deny = json!({"selector": "app == 'web'", "ingress": [{"action": "Deny"}]});
    let edited = compiler.apply([put("policy", &namespaced("shop", "to-web", deny))]).expect("it compiles");
    let texts: Vec<_> = edited.rule_lists.iter().map(|list| list.policy.as_str()).collect();
    assert_eq!(
        texts,
        ["NetworkPolicy/shop/to-db", "Profile/kns.shop", "Profile/kns.shop", "NetworkPolicy/shop/to-web"]
    );
    assert_eq!(all_kept(&peer, &edited), [vec![true, true, true, false], vec![true], vec![true; 2]]);
    // Whatever is ahead of it: a list without rules, as of a policy that denies by default, has no numbers.
    let none = json!({"selector": "app == 'web'", "applies_ingress": true});
    let before = compiler.apply([put("policy", &namespaced("shop", "none", none))]).expect("it compiles");
    let more = json!({
        "selector": "app == 'web'", "order": 1.0, "ingress": [{"action": "Deny"}, {"action": "Allow"}],
    });
    let after = compiler.apply([put("policy", &namespaced("shop", "to-web", more))]).expect("it compiles");
    let list = |program: &Program| {
        let list = program.rule_lists.iter().find(|list| list.policy == "NetworkPolicy/shop/none");
        Arc::clone(list.expect("a list without rules is one"))
    };
    assert!(Arc::ptr_eq(&list(&before), &list(&after)));
}

/// What cannot be read is refused before anything changes, and so is what cannot be compiled.
#[test]
fn a_refused_edit_says_why() {
    let mut compiler = Compiler::new(shop(), Some("edge1")).expect("a model");
    let first = compiler.program().expect("it compiles");
    let said =
        |compiler: &mut Compiler<'_>, change| compiler.apply([change]).expect_err("refused").to_string();
    let pod = pod("shop", "new", "cali9", "10.0.0.9/24", "db");
    assert_eq!(
        said(&mut compiler, put("workload", &pod)),
        "Pod/shop/new: spec.ipNetworks: found `10.0.0.9/24`, expected a single address such as 10.0.0.1 or fd00::1"
    );
    let policy = namespaced("shop", "to-web", json!({"ingress": [{"action": "Drop"}]}));
    assert_eq!(
        said(&mut compiler, put("policy", &policy)),
        "NetworkPolicy/shop/to-web: spec.ingress[0].action: found `Drop`, expected Allow, Deny, Pass or Log"
    );
    assert_eq!(*compiler.program().expect("as before"), *first);
}
