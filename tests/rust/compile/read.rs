//! Short texts of parts of a program, for tables.

use labelgate::flow::Direction;
use labelgate::program::{ChainEnd, ChainId, Endpoint, Program, Rule, TierEnd};

pub fn endpoint<'a>(program: &'a Program, name: &str) -> &'a Endpoint {
    program.endpoints.iter().find(|endpoint| endpoint.name == name).expect("an endpoint of this name")
}

/// The chains that an endpoint has, by list and direction.
pub fn chains(endpoint: &Endpoint) -> Vec<(String, ChainId)> {
    let lists =
        [("normal", Some(endpoint.normal)), ("forward", endpoint.forward), ("untracked", endpoint.untracked)];
    let mut chains = Vec::new();
    for (list, directed) in lists {
        for direction in [Direction::Ingress, Direction::Egress] {
            chains.extend(
                directed.map(|chains| (format!("{list} {}", direction.name()), chains.of(direction))),
            );
        }
    }
    chains.extend(endpoint.prednat.map(|chain| ("prednat Ingress".to_owned(), chain)));
    chains
}

/// Tiers with their policies and ends, then what follows: `default: A B -> deny; profiles P`.
pub fn chain(program: &Program, id: ChainId) -> String {
    let list = |id: &labelgate::program::RuleListId| program.rule_lists[id.index()].policy.as_str();
    let chain = program.chain(id);
    let mut parts: Vec<String> = Vec::new();
    for tier in &chain.tiers {
        let policies: Vec<_> = tier.policies.iter().map(list).collect();
        let end = match tier.end {
            TierEnd::Deny => "deny",
            TierEnd::Pass => "pass",
            TierEnd::Fall => "fall",
        };
        let reason = program.outcome(tier.outcome).reason.text();
        parts.push(format!("{}: {} -> {end}, {reason}", tier.name, policies.join(" ")));
    }
    parts.push(match &chain.end {
        ChainEnd::Profiles(lists) => {
            format!("profiles {}", lists.iter().map(list).collect::<Vec<_>>().join(" "))
        }
        ChainEnd::Accept => "accept".to_owned(),
        ChainEnd::Unmarked(outcome) => program.outcome(*outcome).reason.text().to_owned(),
    });
    parts.join("; ")
}

/// All chains of an endpoint: `list direction: chain`.
pub fn chain_texts(program: &Program, name: &str) -> Vec<String> {
    let chains = chains(endpoint(program, name)).into_iter();
    chains.map(|(list, id)| format!("{list}: {}", chain(program, id))).collect()
}

/// The rules of a policy in ingress.
pub fn ingress_rules<'a>(program: &'a Program, policy: &str) -> &'a [Rule] {
    let of_policy = |list: &&std::sync::Arc<labelgate::program::RuleList>| list.policy == policy;
    let list = program.rule_lists.iter().filter(of_policy).find(|list| list.direction == Direction::Ingress);
    &list.expect("ingress rules of this policy").rules
}
