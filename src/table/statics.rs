//! What kernel rules may answer ahead of the queue: chains that give every packet of a family the same answer.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use serde::Serialize;

use super::interfaces::{Interfaces, WorkloadSide};
use super::linear::{self, Passed};
use super::meanings::{RuleCount, Tally};
use super::services::{Service, services};
use crate::flow::{EndpointId, Family, FiveTuple, OutcomeId, Transport, protocol};
use crate::program::{
    Action, Chain, ChainEnd, ChainId, Directed, Net, Program, Reason, Rule, RuleListId, Side, TierEnd,
};

/// A chain's answer to every packet of one family, as far as the packet's content does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Static {
    /// It depends on the packet, or somebody wants to see the packet (Log): ask the engine.
    Queue,
    /// The same for packets of these services; all others are left without a mark, and meet no rule.
    Services(Vec<Service>),
    /// Always accepted.
    Allow,
    /// Always denied.
    Deny,
    /// Always left without a mark.
    Unmarked,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Something about a chain by family: `[v4, v6]`.
pub type ByFamily<T> = [T; 2];

/// What the netfilter ruleset is made from: something about each chain that rules may lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleFacts<T = Static> {
    /// Host endpoints that govern an interface, sorted by name.
    pub hosts: Vec<HostRules<T>>,
    /// Workloads with an interface here, sorted by interface.
    pub workloads: Vec<WorkloadRules<T>>,
}

/// The rules that packets meet in chains that give every packet the same answer, by outcome id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settled<'a> {
    /// Of each chain that is static in a family what every packet meets there, in order; the last decides.
    pub chains: RuleFacts<Vec<u32>>,
    /// What those outcomes are, and whatever else kernel rules answer by reason alone.
    pub names: BTreeMap<u32, RuleCount<'a>>,
}

/// The chains of a host endpoint, for rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostRules<T = Static> {
    /// As in answers.
    pub endpoint: String,
    /// The interfaces that it governs by name or address.
    pub interfaces: Vec<String>,
    /// The `*` host endpoint: governs all other interfaces (E-47).
    pub any: bool,
    /// Untracked policy, if it has any.
    pub untracked: Option<Both<T>>,
    /// Where untracked policy may deny a packet with which the kernel answers another one: a reset, or a message of
    /// ICMP.
    pub untracked_denies: Both<bool>,
    /// preDNAT policy, if it has any.
    pub prednat: Option<ByFamily<T>>,
    /// normal ingress.
    pub input: ByFamily<T>,
    /// normal egress.
    pub output: ByFamily<T>,
    /// forward policy.
    pub forward: Both<T>,
}

/// Answers for both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Both<T = Static> {
    /// Towards the endpoint.
    pub ingress: ByFamily<T>,
    /// From the endpoint.
    pub egress: ByFamily<T>,
}

/// The chains of a workload, for rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadRules<T = Static> {
    /// As in answers.
    pub endpoint: String,
    /// Its interface.
    pub interface: String,
    /// E-30: its sources, as CIDR text.
    pub sources: Vec<String>,
    /// normal ingress.
    pub ingress: ByFamily<T>,
    /// normal egress.
    pub egress: ByFamily<T>,
}

/// The facts for the interfaces as they are bound now.
pub fn rule_facts(program: &Program, interfaces: &Interfaces) -> RuleFacts {
    facts(program, interfaces, &|chain, family| {
        match static_answer(program, chain, family) {
            // Whatever matches no rule leaves such a chain unmarked (E-22).
            Static::Queue if may_fall_through(chain) => {
                services(program, chain, family).map_or(Static::Queue, Static::Services)
            }
            answer => answer,
        }
    })
}

/// What is met where an answer of the rule facts is static.
pub fn settled<'a>(program: &'a Program, interfaces: &Interfaces) -> Settled<'a> {
    let numbers = |chain: &Chain, family| met(program, chain, family).iter().map(|id| id.number()).collect();
    let names = settled_outcomes(program).into_iter().chain((0..Reason::ALL.len()).map(OutcomeId::new));
    Settled {
        chains: facts(program, interfaces, &numbers),
        names: names.map(|id| (id.number(), RuleCount::of(program.outcome(id), Tally::default()))).collect(),
    }
}

fn may_fall_through(chain: &Chain) -> bool {
    matches!(chain.end, ChainEnd::Unmarked(_)) && chain.tiers.iter().all(|tier| tier.end == TierEnd::Fall)
}

fn facts<T>(
    program: &Program,
    interfaces: &Interfaces,
    about: &impl Fn(&Chain, Family) -> T,
) -> RuleFacts<T> {
    let by_family = |chain: ChainId| FAMILIES.map(|family| about(program.chain(chain), family));
    let listed = interfaces.listed();
    let any = interfaces.unnamed().forward;
    let mut hosts = Vec::new();
    for index in 0..program.endpoints.len() {
        let id = EndpointId::new(index);
        let is_any = any == Some(id);
        let governed = listed.iter().filter(|(_, governors)| {
            governors.workload == WorkloadSide::Host && governors.forward == Some(id) && !is_any
        });
        let names: Vec<String> = governed.map(|(name, _)| (*name).to_owned()).collect();
        if is_any || !names.is_empty() {
            hosts.push(host_rules(program, id, names, is_any, &by_family));
        }
    }
    let workloads = listed
        .iter()
        .filter_map(|(name, governors)| match governors.workload {
            WorkloadSide::Known(id) => Some(workload_rules(program, id, name, &by_family)),
            WorkloadSide::Host | WorkloadSide::Unknown => None,
        })
        .collect();
    RuleFacts { hosts, workloads }
}

fn host_rules<T>(
    program: &Program,
    id: EndpointId,
    interfaces: Vec<String>,
    any: bool,
    by_family: &impl Fn(ChainId) -> ByFamily<T>,
) -> HostRules<T> {
    let endpoint = program.endpoint(id);
    let both = |chains: Directed<ChainId>| Both {
        ingress: by_family(chains.ingress),
        egress: by_family(chains.egress),
    };
    let denies =
        |chain: ChainId| FAMILIES.map(|family| may_deny_answers(program, program.chain(chain), family));
    let untracked_denies =
        endpoint.untracked.map_or(Both { ingress: [false; 2], egress: [false; 2] }, |chains| Both {
            ingress: denies(chains.ingress),
            egress: denies(chains.egress),
        });
    HostRules {
        endpoint: endpoint.name.clone(),
        interfaces,
        any,
        untracked: endpoint.untracked.map(both),
        untracked_denies,
        prednat: endpoint.prednat.map(by_family),
        input: by_family(endpoint.normal.ingress),
        output: by_family(endpoint.normal.egress),
        forward: both(endpoint.forward.expect("the compiler gives every host endpoint forward chains")),
    }
}

fn workload_rules<T>(
    program: &Program,
    id: EndpointId,
    interface: &str,
    by_family: &impl Fn(ChainId) -> ByFamily<T>,
) -> WorkloadRules<T> {
    let endpoint = program.endpoint(id);
    WorkloadRules {
        endpoint: endpoint.name.clone(),
        interface: interface.to_owned(),
        sources: endpoint.sources.iter().map(Net::to_string).collect(),
        ingress: by_family(endpoint.normal.ingress),
        egress: by_family(endpoint.normal.egress),
    }
}

/// Whether a rule may deny what the kernel sends by itself; there is no end of a tier in untracked policy (E-22).
fn may_deny_answers(program: &Program, chain: &Chain, family: Family) -> bool {
    let is_sent = |number| matches!(number, protocol::TCP | protocol::ICMP | protocol::ICMPV6);
    let policies = chain.tiers.iter().flat_map(|tier| &tier.policies);
    policies.flat_map(|policy| &program.rule_lists[policy.index()].rules).any(|rule| {
        rule.action == Action::Deny && rule.families[family as usize] && rule.protocol.is_none_or(is_sent)
    })
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

/// What packets meet where a chain gives every packet of a family the same answer: kernel rules may answer instead,
/// and no engine sees them.
pub fn settled_outcomes(program: &Program) -> FxHashSet<OutcomeId> {
    let chains = program.chains.iter().flat_map(|chain| FAMILIES.map(|family| (chain, family)));
    chains.flat_map(|(chain, family)| met(program, chain, family)).collect()
}

/// The rules that a packet passes in one chain, and what decides; nothing where the packet matters.
fn met(program: &Program, chain: &Chain, family: Family) -> Vec<OutcomeId> {
    if static_answer(program, chain, family) == Static::Queue {
        return Vec::new();
    }
    let mut outcomes = Vec::new();
    // Which packet it is does not matter.
    let packet = FiveTuple { family, source: 0, destination: 0, protocol: 0, transport: Transport::Opaque };
    let end = linear::run(program, chain, &packet, &mut |passed| {
        if let Passed::Rule(outcome) = passed {
            outcomes.push(outcome);
        }
    });
    outcomes.push(end.outcome());
    outcomes
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
