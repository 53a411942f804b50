//! A program as JSON: for those who ask questions about rules, not about packets.

use serde_json::{Value, json};

use super::{
    Attachment, Chain, ChainEnd, Directed, Endpoint, EndpointKind, Icmp, PortMatch, Program, Rule, RuleList,
    Side, TierEnd,
};
use super::{ChainId, RuleListId};

/// Endpoints, chains and rule lists; address and port sets by number. `python/labelgate/_core.pyi` has the fields.
///
/// Of rule lists only those that one of the chains has, or with `None` all; the others are null.
pub fn contents(program: &Program, chains: Option<&[ChainId]>) -> Value {
    let all = &program.rule_lists;
    let is_wanted = chains.map_or_else(|| vec![true; all.len()], |chains| lists_of(program, chains));
    let lists = all.iter().zip(is_wanted);
    json!({
        "endpoints": program.endpoints.iter().map(|one| endpoint(one)).collect::<Vec<_>>(),
        "chains": program.chains.iter().map(chain).collect::<Vec<_>>(),
        "lists": lists.map(|(list, wanted)| wanted.then(|| rule_list(program, list))).collect::<Vec<_>>(),
    })
}

/// Which rule lists some chains have.
fn lists_of(program: &Program, chains: &[ChainId]) -> Vec<bool> {
    let mut found = vec![false; program.rule_lists.len()];
    for chain in chains.iter().map(|&id| program.chain(id)) {
        let policies = chain.tiers.iter().flat_map(|tier| &tier.policies);
        let profiles = if let ChainEnd::Profiles(lists) = &chain.end { lists.as_slice() } else { &[] };
        for list in policies.chain(profiles) {
            found[list.index()] = true;
        }
    }
    found
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

fn rule_list(program: &Program, list: &RuleList) -> Value {
    json!({
        "policy": list.policy,
        "tier": list.tier,
        "direction": list.direction.name(),
        "rules": list.rules.iter().map(|one| rule(program, one)).collect::<Vec<_>>(),
    })
}

fn rule(program: &Program, rule: &Rule) -> Value {
    json!({
        "action": rule.action.name(),
        "number": program.outcome(rule.outcome).rule,
        "families": rule.families,
        "protocol": rule.protocol,
        "not_protocol": rule.not_protocol,
        "icmp": rule.icmp.map(icmp),
        "not_icmp": rule.not_icmp.map(icmp),
        "source": side(&rule.source),
        "destination": side(&rule.destination),
    })
}

fn icmp(icmp: Icmp) -> (u8, Option<u8>) {
    (icmp.kind, icmp.code)
}

fn side(side: &Side) -> Value {
    json!({
        "in": side.in_sets.iter().map(|set| set.number()).collect::<Vec<_>>(),
        "not_in": side.not_in_sets.iter().map(|set| set.number()).collect::<Vec<_>>(),
        "ports": side.ports.as_ref().map(ports),
        "not_ports": side.not_ports.as_ref().map(ports),
    })
}

fn ports(ports: &PortMatch) -> Value {
    json!({
        "ranges": ports.ranges,
        "named": ports.named.iter().map(|set| set.number()).collect::<Vec<_>>(),
    })
}
