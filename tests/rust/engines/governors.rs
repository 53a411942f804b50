//! Who governs an interface of several endpoints that could: the smallest name, however it is found (E-38, E-45, E-46).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use labelgate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, protocol};
use labelgate::model::HostFacts;
use labelgate::program::{Action, Attachment, ChainId, Directed, Endpoint, EndpointKind, Net};
use labelgate::table::{Budgets, DecisionTable, Engines};

use crate::choices::Choices;
use crate::programs::{of_rules, plain};

const HOSTS: [&str; 4] = ["eth0", "eth1", "eth2", "eth3"];
const WORKLOADS: [&str; 3] = ["cali0", "cali1", "cali2"];

fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(number).expect("few addresses")))
}

/// A few, none twice.
fn addresses(choices: &mut Choices) -> Vec<IpAddr> {
    (0..8).filter(|_| choices.chance(25)).map(address).collect()
}

fn endpoint(choices: &mut Choices, number: usize) -> Endpoint {
    let is_host = choices.chance(60);
    let own = choices.of(if is_host { HOSTS.as_slice() } else { &WORKLOADS });
    let attachment = match choices.below(if is_host { 8 } else { 4 }) {
        0 if is_host => Attachment::Any,
        1..4 => Attachment::Name(own.to_owned()),
        0 => Attachment::Remote,
        _ => Attachment::Address,
    };
    let chains = Directed { ingress: ChainId::new(0), egress: ChainId::new(0) };
    // Workloads of several namespaces have a name in common; places in the program say nothing of names.
    let short_name = choices.of(&["a", "b", "c", "d"]);
    Endpoint {
        name: format!("Endpoint/{}{number}", choices.of(&["x", "y", "z"])),
        short_name: if is_host { format!("{short_name}{number}") } else { short_name.to_owned() },
        kind: if is_host { EndpointKind::Host } else { EndpointKind::Workload },
        attachment,
        addresses: addresses(choices),
        sources: vec![Net { family: Family::V4, first: 0, last: 0xffff_ffff }],
        normal: chains,
        forward: None,
        untracked: None,
        prednat: None,
    }
}

/// Of those that could govern an interface the one with the smallest name.
fn governor(endpoints: &[Endpoint], could: impl Fn(&Endpoint) -> bool) -> Option<&Endpoint> {
    let mut found: Vec<_> = endpoints.iter().filter(|one| could(one)).collect();
    found.sort_by_key(|one| (&one.short_name, &one.name));
    found.first().copied()
}

/// Whose chain decides of a packet that comes in.
fn asked<'a>(table: &'a DecisionTable, hook: Hook, name: &str) -> Option<&'a str> {
    let transport = Transport::of(protocol::TCP, 40_000, 9_999);
    let tuple =
        FiveTuple { family: Family::V4, source: 1, destination: 2, protocol: protocol::TCP, transport };
    let (input, output, ct) = (table.interface(name), InterfaceId::NONE, CtState::New);
    let (_, step) =
        table.decide_step(&FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false });
    table.endpoint_name(&step)
}

#[test]
fn the_smallest_name_governs_however_it_is_found() {
    let mut tied = 0;
    for seed in 0..400 {
        let mut choices = Choices::Seeded(seed);
        let endpoints: Vec<_> = (0..choices.below(16)).map(|number| endpoint(&mut choices, number)).collect();
        let host = HostFacts {
            interfaces: HOSTS.map(|name| (name.to_owned(), addresses(&mut choices))).into(),
            workload_prefixes: vec!["cali".to_owned()],
        };
        let mut program = of_rules(vec![plain(Action::Deny)], Vec::new(), Vec::new());
        program.endpoints = Arc::new(endpoints.iter().cloned().map(Arc::new).collect());
        let engines = Engines::build(Arc::new(program), &Budgets::default());
        let table = DecisionTable::new(Arc::new(engines), &host);

        let named = |one: &Endpoint, name: &str| one.attachment == Attachment::Name(name.to_owned());
        let any = governor(&endpoints, |one| one.attachment == Attachment::Any);
        for name in HOSTS {
            let carried = &host.interfaces[name];
            let expects = |one: &Endpoint| one.addresses.iter().any(|own| carried.contains(own));
            let could = |one: &Endpoint| {
                one.kind == EndpointKind::Host
                    && (named(one, name) || (one.attachment == Attachment::Address && expects(one)))
            };
            tied += usize::from(endpoints.iter().filter(|one| could(one)).count() > 1);
            let own = governor(&endpoints, could);
            let normal = own.or(any).map(|one| one.name.as_str());
            assert_eq!(asked(&table, Hook::FilterInput, name), normal, "seed {seed}, {name}");
        }
        for name in WORKLOADS {
            let own = governor(&endpoints, |one| one.kind == EndpointKind::Workload && named(one, name));
            let egress = own.map(|one| one.name.as_str());
            assert_eq!(asked(&table, Hook::FilterForward, name), egress, "seed {seed}, {name}");
        }
    }
    assert!(tied > 100, "{tied}");
}
