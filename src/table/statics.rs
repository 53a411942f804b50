//! What kernel rules may answer ahead of the queue: chains that give every packet of a family the same answer.

use rustc_hash::FxHashSet;
use serde::Serialize;

use super::interfaces::{Interfaces, WorkloadSide};
use crate::flow::{EndpointId, Family, OutcomeId};
use crate::program::{
    Action, Chain, ChainEnd, ChainId, Directed, Net, Program, Rule, RuleListId, Side, TierEnd,
};

/// A chain's answer to every packet of one family, as far as the packet's content does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Static {
    /// It depends on the packet, or somebody wants to see the packet (Log): ask the engine.
    Queue,
    /// Always accepted.
    Allow,
    /// Always denied.
    Deny,
    /// Always left without a mark.
    Unmarked,
}

/// A chain's answers by family: `[v4, v6]`.
pub type ByFamily = [Static; 2];

/// What the netfilter ruleset is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleFacts {
    /// Host endpoints that govern an interface, sorted by name.
    pub hosts: Vec<HostRules>,
    /// Workloads with an interface here, sorted by interface.
    pub workloads: Vec<WorkloadRules>,
}

/// The chains of a host endpoint, for rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostRules {
    /// As in answers.
    pub endpoint: String,
    /// The interfaces that it governs by name or address.
    pub interfaces: Vec<String>,
    /// The `*` host endpoint: governs all other interfaces (E-47).
    pub any: bool,
    /// Untracked policy, if it has any.
    pub untracked: Option<Both>,
    /// preDNAT policy, if it has any.
    pub prednat: Option<ByFamily>,
    /// normal ingress.
    pub input: ByFamily,
    /// normal egress.
    pub output: ByFamily,
    /// forward policy.
    pub forward: Both,
}

/// Answers for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Both {
    /// Towards the endpoint.
    pub ingress: ByFamily,
    /// From the endpoint.
    pub egress: ByFamily,
}

/// The chains of a workload, for rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadRules {
    /// As in answers.
    pub endpoint: String,
    /// Its interface.
    pub interface: String,
    /// E-30: its sources, as CIDR text.
    pub sources: Vec<String>,
    /// normal ingress.
    pub ingress: ByFamily,
    /// normal egress.
    pub egress: ByFamily,
}

/// The facts for the interfaces as they are bound now.
pub fn rule_facts(program: &Program, interfaces: &Interfaces) -> RuleFacts {
    let listed = interfaces.listed();
    let any = interfaces.unnamed().forward;
    let mut hosts: Vec<HostRules> = Vec::new();
    for index in 0..program.endpoints.len() {
        let id = EndpointId::new(index);
        let is_any = any == Some(id);
        let governed = listed.iter().filter(|(_, governors)| {
            governors.workload == WorkloadSide::Host && governors.forward == Some(id) && !is_any
        });
        let names: Vec<String> = governed.map(|(name, _)| (*name).to_owned()).collect();
        if is_any || !names.is_empty() {
            hosts.push(host_rules(program, id, names, is_any));
        }
    }
    let workloads = listed
        .iter()
        .filter_map(|(name, governors)| match governors.workload {
            WorkloadSide::Known(id) => Some(workload_rules(program, id, name)),
            WorkloadSide::Host | WorkloadSide::Unknown => None,
        })
        .collect();
    RuleFacts { hosts, workloads }
}

fn host_rules(program: &Program, id: EndpointId, interfaces: Vec<String>, any: bool) -> HostRules {
    let endpoint = program.endpoint(id);
    let both = |chains: Directed<ChainId>| Both {
        ingress: by_family(program, chains.ingress),
        egress: by_family(program, chains.egress),
    };
    HostRules {
        endpoint: endpoint.name.clone(),
        interfaces,
        any,
        untracked: endpoint.untracked.map(both),
        prednat: endpoint.prednat.map(|chain| by_family(program, chain)),
        input: by_family(program, endpoint.normal.ingress),
        output: by_family(program, endpoint.normal.egress),
        forward: both(endpoint.forward.expect("the compiler gives every host endpoint forward chains")),
    }
}

fn workload_rules(program: &Program, id: EndpointId, interface: &str) -> WorkloadRules {
    let endpoint = program.endpoint(id);
    WorkloadRules {
        endpoint: endpoint.name.clone(),
        interface: interface.to_owned(),
        sources: endpoint.sources.iter().map(Net::to_string).collect(),
        ingress: by_family(program, endpoint.normal.ingress),
        egress: by_family(program, endpoint.normal.egress),
    }
}

fn by_family(program: &Program, chain: ChainId) -> ByFamily {
    [Family::V4, Family::V6].map(|family| static_answer(program, program.chain(chain), family))
}

/// Walks the chain as an engine would; the first rule that looks at the packet makes the answer [`Static::Queue`].
fn static_answer(program: &Program, chain: &Chain, family: Family) -> Static {
    'tiers: for tier in &chain.tiers {
        for &policy in &tier.policies {
            match static_list(program, policy, family) {
                Some(Action::Pass) => continue 'tiers,
                Some(action) => return terminal(action),
                None => {}
            }
        }
        if tier.end == TierEnd::Deny {
            return Static::Deny;
        }
    }
    match &chain.end {
        ChainEnd::Profiles(profiles) => profiles
            .iter()
            .filter_map(|&profile| static_list(program, profile, family))
            .find(|&action| action != Action::Pass)
            .map_or(Static::Deny, terminal),
        ChainEnd::Accept => Static::Allow,
        ChainEnd::Unmarked(_) => Static::Unmarked,
    }
}

/// What decides where a chain gives every packet of a family the same answer: kernel rules may answer instead, and no
/// engine sees the packets.
pub fn settled(program: &Program) -> FxHashSet<OutcomeId> {
    let families = [Family::V4, Family::V6];
    let chains = program.chains.iter().flat_map(|chain| families.map(|family| (chain, family)));
    chains.flat_map(|(chain, family)| settling(program, chain, family)).collect()
}

/// Of one chain: the rules, or the end of a tier, that decide; nothing where the packet matters.
fn settling(program: &Program, chain: &Chain, family: Family) -> Vec<OutcomeId> {
    if static_answer(program, chain, family) == Static::Queue {
        return Vec::new();
    }
    let profiles = match &chain.end {
        ChainEnd::Profiles(profiles) => profiles.as_slice(),
        ChainEnd::Accept | ChainEnd::Unmarked(_) => &[],
    };
    let lists = chain.tiers.iter().flat_map(|tier| &tier.policies).chain(profiles);
    let firsts = lists.filter_map(|list| {
        let rules = &program.rule_lists[list.index()].rules;
        rules.iter().find(|rule| rule.families[family as usize])
    });
    firsts.map(|rule| rule.outcome).chain(chain.tiers.iter().map(|tier| tier.outcome)).collect()
}

/// A Log rule, or a rule with criteria, has to be seen by the engine.
fn terminal(action: Action) -> Static {
    match action {
        Action::Allow => Static::Allow,
        Action::Deny => Static::Deny,
        Action::Log | Action::Pass => Static::Queue,
    }
}

/// The action that ends the list for every packet of the family; `Log` stands for "ask the engine".
fn static_list(program: &Program, list: RuleListId, family: Family) -> Option<Action> {
    let rules = &program.rule_lists[list.index()].rules;
    let first = rules.iter().find(|rule| rule.families[family as usize])?;
    Some(if has_criteria(first) { Action::Log } else { first.action })
}

fn has_criteria(rule: &Rule) -> bool {
    rule.protocol.is_some()
        || rule.not_protocol.is_some()
        || rule.icmp.is_some()
        || rule.not_icmp.is_some()
        || rule.source != Side::default()
        || rule.destination != Side::default()
}
