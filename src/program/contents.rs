//! A program as JSON: for those who ask questions about rules, not about packets.

use serde::Serialize;
use serde_json::{Value, json};

use super::{AddressSetId, ChainId, RuleListId};
use super::{
    Attachment, Chain, ChainEnd, Directed, Endpoint, EndpointKind, Icmp, PortMatch, Program, Rule, RuleList,
    Side, TierEnd,
};

/// Endpoints, chains and the number of rule lists. `python/labelgate/_core.pyi` has the fields.
pub fn contents(program: &Program) -> String {
    json!({
        "endpoints": program.endpoints.iter().map(|one| endpoint(one)).collect::<Vec<_>>(),
        "chains": program.chains.iter().map(chain).collect::<Vec<_>>(),
        "lists": program.rule_lists.len(),
    })
    .to_string()
}

/// Rule lists; address and port sets by number.
pub fn rule_lists(program: &Program) -> String {
    let lists = program.rule_lists.iter().map(|list| RuleListText::of(program, list));
    serde_json::to_string(&lists.collect::<Vec<_>>()).expect("text, numbers and lists of them can be written")
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let attachment = match &endpoint.attachment {
        Attachment::Name(name) => json!({ "interface": name }),
        Attachment::Any => json!("any"),
        Attachment::Address => json!("address"),
        Attachment::Remote => json!("remote"),
    };
    json!({
        "name": endpoint.name,
        "short_name": endpoint.short_name,
        "kind": if endpoint.kind == EndpointKind::Host { "host" } else { "workload" },
        "attachment": attachment,
        "addresses": endpoint.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "sources": endpoint.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "normal": directed(endpoint.normal),
        "forward": endpoint.forward.map(directed),
        "untracked": endpoint.untracked.map(directed),
        "prednat": endpoint.prednat.map(ChainId::number),
    })
}

fn directed(chains: Directed<ChainId>) -> [u32; 2] {
    [chains.ingress.number(), chains.egress.number()]
}

fn numbers(lists: &[RuleListId]) -> Vec<u32> {
    lists.iter().map(|list| list.number()).collect()
}

fn chain(chain: &Chain) -> Value {
    let tiers: Vec<_> = (chain.tiers.iter())
        .map(|tier| {
            let end = match tier.end {
                TierEnd::Deny => "deny",
                TierEnd::Pass => "pass",
                TierEnd::Fall => "fall",
            };
            json!({ "name": tier.name, "lists": numbers(&tier.policies), "end": end })
        })
        .collect();
    let (end, profiles) = match &chain.end {
        ChainEnd::Profiles(lists) => ("deny", numbers(lists)),
        ChainEnd::Accept => ("accept", Vec::new()),
        ChainEnd::Unmarked(_) => ("unmarked", Vec::new()),
    };
    json!({ "tiers": tiers, "profiles": profiles, "end": end })
}

#[derive(Serialize)]
struct RuleListText<'a> {
    policy: &'a str,
    tier: &'a str,
    direction: &'static str,
    rules: Vec<RuleText<'a>>,
}

impl<'a> RuleListText<'a> {
    fn of(program: &'a Program, list: &'a RuleList) -> Self {
        Self {
            policy: &list.policy,
            tier: &list.tier,
            direction: list.direction.name(),
            rules: list.rules.iter().map(|one| RuleText::of(program, one)).collect(),
        }
    }
}

#[derive(Serialize)]
struct RuleText<'a> {
    action: &'static str,
    number: Option<u32>,
    families: [bool; 2],
    protocol: Option<u8>,
    not_protocol: Option<u8>,
    icmp: Option<(u8, Option<u8>)>,
    not_icmp: Option<(u8, Option<u8>)>,
    /// Null where nothing is asked of it, as of most sides.
    source: Option<SideText<'a>>,
    destination: Option<SideText<'a>>,
}

impl<'a> RuleText<'a> {
    fn of(program: &Program, rule: &'a Rule) -> Self {
        Self {
            action: rule.action.name(),
            number: program.outcome(rule.outcome).rule,
            families: rule.families,
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            icmp: rule.icmp.map(icmp),
            not_icmp: rule.not_icmp.map(icmp),
            source: SideText::of(&rule.source),
            destination: SideText::of(&rule.destination),
        }
    }
}

fn icmp(icmp: Icmp) -> (u8, Option<u8>) {
    (icmp.kind, icmp.code)
}

#[derive(Serialize)]
struct SideText<'a> {
    #[serde(rename = "in")]
    in_sets: Vec<u32>,
    not_in: Vec<u32>,
    ports: Option<PortsText<'a>>,
    not_ports: Option<PortsText<'a>>,
}

impl<'a> SideText<'a> {
    fn of(side: &'a Side) -> Option<Self> {
        let numbers = |sets: &[AddressSetId]| sets.iter().map(|set| set.number()).collect();
        (*side != Side::default()).then(|| Self {
            in_sets: numbers(&side.in_sets),
            not_in: numbers(&side.not_in_sets),
            ports: side.ports.as_deref().map(PortsText::of),
            not_ports: side.not_ports.as_deref().map(PortsText::of),
        })
    }
}

#[derive(Serialize)]
struct PortsText<'a> {
    ranges: &'a [(u16, u16)],
    named: Vec<u32>,
}

impl<'a> PortsText<'a> {
    fn of(ports: &'a PortMatch) -> Self {
        Self { ranges: &ports.ranges, named: ports.named.iter().map(|set| set.number()).collect() }
    }
}
