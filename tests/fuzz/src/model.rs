//! JSON to programs and decisions: refused or compiled, the same in any order, and every packet gets its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use labelgate::compile::compile;
use labelgate::flow::{
    CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, address_number, protocol,
};
use labelgate::model::{HostFacts, Model};
use labelgate::program::{Attachment, Program};
use labelgate::table::{Budgets, Decision, DecisionTable, Engines};

/// Addresses and interfaces that packets have; more would cost speed and show little.
const MOST: usize = 3;

/// The bytes are the model.
pub fn check(bytes: &[u8]) {
    let Ok(model) = serde_json::from_slice::<Model>(bytes) else { return };
    let turned = turned(&model);
    let nodes: BTreeSet<_> = model
        .hosts
        .iter()
        .map(|host| &host.node)
        .chain(model.workloads.iter().map(|own| &own.node))
        .collect();
    for node in nodes.into_iter().take(MOST).map(|node| Some(node.as_str())).chain([None]) {
        let other = compile(&turned, node).map(|program| program.to_string());
        match compile(&model, node) {
            Ok(program) => {
                assert_eq!(other.as_ref(), Ok(&program.to_string()), "the order of lists does not matter");
                answers(program);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(other.is_err(), "refused in one order only: {error}");
            }
        }
    }
}

/// The same with every list that is a set turned around.
fn turned(model: &Model) -> Model {
    let mut turned = model.clone();
    turned.workloads.reverse();
    turned.hosts.reverse();
    turned.network_sets.reverse();
    turned.profiles.reverse();
    turned.tiers.reverse();
    turned.policies.reverse();
    turned.services.reverse();
    turned
}

/// Packets from and to the endpoints, at every hook: the answer is that of the trace, which ends in it.
fn answers(program: Program) {
    let host = host_of(&program);
    let engines = Engines::build(Arc::new(program), &Budgets::default());
    let table = DecisionTable::new(Arc::new(engines), &host);
    let _ = (table.warnings(), table.rule_facts());
    let addresses: Vec<_> = addresses(table.program());
    let names = host.interfaces.keys().map(String::as_str).chain(["cali-unknown"]);
    let interfaces: Vec<_> = names.map(|name| table.interface(name)).chain([InterfaceId::NONE]).collect();
    for (number, &(family, source)) in addresses.iter().enumerate() {
        for &(_, destination) in addresses.iter().filter(|(other, _)| *other == family) {
            let tuple = tuple(family, source, destination, number);
            let _ = table.connectivity(&tuple);
            for (turn, (&input, hook)) in interfaces.iter().zip(Hook::ALL.into_iter().cycle()).enumerate() {
                let output = interfaces[(turn + number) % interfaces.len()];
                let ct = CtState::ALL[(turn + number) % CtState::ALL.len()];
                let key = FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false };
                let (decision, steps) = table.trace(&key);
                // A trace speaks through `linear`, which does not number the Log rules on the way.
                let asked = Decision { outcome: decision.outcome, ..table.decide(&key) };
                assert_eq!(asked, decision, "a trace changes nothing: {key:?}");
                let last = steps.last().map(|step| step.outcome);
                assert_eq!(last, Some(decision.outcome), "the last step decides: {key:?}");
            }
        }
    }
}

/// A host whose interfaces are those of the program's endpoints, with their addresses.
fn host_of(program: &Program) -> HostFacts {
    let mut interfaces = BTreeMap::from([("eth0".to_owned(), Vec::new())]);
    for endpoint in program.endpoints.iter().take(2 * MOST) {
        if let Attachment::Name(name) = &endpoint.attachment {
            interfaces.insert(name.clone(), endpoint.addresses.iter().take(MOST).copied().collect());
        }
    }
    HostFacts { interfaces, workload_prefixes: vec!["cali".to_owned()] }
}

fn addresses(program: &Program) -> Vec<(Family, u128)> {
    let own =
        program.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).map(|own| address_number(*own));
    let first = |ranges: &[(u32, u32)]| ranges.first().map(|range| (Family::V4, u128::from(range.0)));
    let sets = program.address_sets.iter().filter_map(|set| first(&set.v4));
    let v6 = program.address_sets.iter().filter_map(|set| set.v6.first().map(|range| (Family::V6, range.0)));
    own.take(MOST)
        .chain(sets.take(MOST))
        .chain(v6.take(MOST))
        .chain([(Family::V4, 0), (Family::V6, 1)])
        .collect()
}

fn tuple(family: Family, source: u128, destination: u128, number: usize) -> FiveTuple {
    let (protocol, transport) = match number % 4 {
        0 => (protocol::TCP, Transport::Ports { source: 40_000, destination: 80 }),
        1 => (protocol::UDP, Transport::Ports { source: 53, destination: 53 }),
        2 => (protocol::ICMP, Transport::Icmp { kind: 8, code: 0 }),
        _ => (protocol::TCP, Transport::Opaque),
    };
    FiveTuple { family, source, destination, protocol, transport }
}
