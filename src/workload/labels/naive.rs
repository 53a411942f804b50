//! The naive way: for every flow all policies in order, by the labels of both pods. It shares nothing with compiler and
//! table, so it also judges them.

use rustc_hash::FxHashMap;

use super::{Cluster, Key, Labels, Peer, Policy, Rule, Service, Terms, Tier, address, protocol_in};
use crate::flow::{Family, FiveTuple, Transport, protocol};
use crate::program::Action;
use crate::workload::{Naive, NaiveAnswer};

/// A cluster, ready to judge.
#[derive(Debug)]
pub struct NaiveCluster {
    names: Vec<String>,
    family: Family,
    /// By address: labels and named ports.
    pods: FxHashMap<u128, NaivePod>,
    /// In order.
    tiers: [Vec<NaivePolicy>; 2],
}

#[derive(Debug)]
struct NaivePod {
    labels: Labels,
    ports: Vec<(&'static str, u16)>,
}

#[derive(Debug)]
struct NaivePolicy {
    index: usize,
    subject: NaiveTerms,
    rules: Vec<NaiveRule>,
}

/// Three pairs of label and value: with fewer terms the first one is repeated.
type NaiveTerms = [(u8, u16); 3];

#[derive(Debug)]
struct NaiveRule {
    action: Action,
    peer: NaivePeer,
    service: Service,
}

#[derive(Debug)]
enum NaivePeer {
    Any,
    Pods(NaiveTerms),
    Nets { within: Vec<(u128, u128)>, except: Option<(u128, u128)> },
}

impl NaiveCluster {
    /// The cluster in one family.
    pub fn new(cluster: &Cluster, family: Family) -> Self {
        let pods = cluster.pods.iter().map(|pod| {
            let ports = cluster.apps[pod.app].ports.iter().map(|named| (named.name, named.port));
            (address(family, pod.address), NaivePod { labels: pod.labels, ports: ports.collect() })
        });
        let policies_of = |tier| {
            let policies = cluster.policies.iter().enumerate().filter(move |(_, policy)| policy.tier == tier);
            policies.map(|(index, policy)| NaivePolicy::of(index, policy, family)).collect()
        };
        Self {
            names: (0..cluster.policies.len()).map(|index| cluster.policy_name(index)).collect(),
            family,
            pods: pods.collect(),
            tiers: [policies_of(Tier::Security), policies_of(Tier::Default)],
        }
    }
}

impl Naive for NaiveCluster {
    fn judge(&self, tuple: &FiveTuple) -> Option<NaiveAnswer> {
        let own = self.pods.get(&tuple.destination)?;
        let question = Question { tuple, family: self.family, own, peer: self.pods.get(&tuple.source) };
        for (tier, is_pass) in self.tiers.iter().zip([true, false]) {
            match question.tier(tier) {
                TierAnswer::Rule(action, policy, rule) if action != Action::Pass => {
                    return Some(NaiveAnswer { allows: action == Action::Allow, rule: Some((policy, rule)) });
                }
                TierAnswer::NoRule if !is_pass => return Some(NaiveAnswer { allows: false, rule: None }),
                TierAnswer::Rule(..) | TierAnswer::NoRule | TierAnswer::NoPolicy => {}
            }
        }
        Some(NaiveAnswer { allows: true, rule: None })
    }

    fn policy(&self, index: usize) -> &str {
        &self.names[index]
    }
}

/// What a tier says.
enum TierAnswer {
    /// The first rule that matches and is not Log: action, policy, rule.
    Rule(Action, usize, usize),
    /// A policy selects the pod, no rule matches.
    NoRule,
    NoPolicy,
}

/// A flow between two pods, or from elsewhere.
struct Question<'a> {
    tuple: &'a FiveTuple,
    family: Family,
    own: &'a NaivePod,
    peer: Option<&'a NaivePod>,
}

impl Question<'_> {
    fn tier(&self, policies: &[NaivePolicy]) -> TierAnswer {
        let mut answer = TierAnswer::NoPolicy;
        for policy in policies.iter().filter(|policy| holds(&policy.subject, &self.own.labels)) {
            answer = TierAnswer::NoRule;
            for (number, rule) in policy.rules.iter().enumerate() {
                if rule.action != Action::Log && self.is_peer(&rule.peer) && self.is_service(&rule.service) {
                    return TierAnswer::Rule(rule.action, policy.index, number);
                }
            }
        }
        answer
    }

    fn is_peer(&self, peer: &NaivePeer) -> bool {
        let source = self.tuple.source;
        let holds_source = |&(first, last): &(u128, u128)| first <= source && source <= last;
        match peer {
            NaivePeer::Any => true,
            NaivePeer::Pods(terms) => self.peer.is_some_and(|pod| holds(terms, &pod.labels)),
            NaivePeer::Nets { within, except } => {
                within.iter().any(holds_source) && !except.as_ref().is_some_and(holds_source)
            }
        }
    }

    fn is_service(&self, service: &Service) -> bool {
        match (service, self.tuple.transport) {
            (Service::Any, _) => true,
            (Service::Protocol(number), _) => self.tuple.protocol == *number,
            (Service::Icmp(wanted), transport) => {
                self.tuple.protocol == protocol_in(self.family, protocol::ICMP)
                    && wanted.is_none_or(
                        |wanted| matches!(transport, Transport::Icmp { kind, .. } if kind == wanted),
                    )
            }
            (Service::Ports(number, ports), Transport::Ports { destination, .. }) => {
                self.tuple.protocol == *number
                    && ports.iter().any(|&(first, last)| first <= destination && destination <= last)
            }
            (Service::Named(name), Transport::Ports { destination, .. }) => {
                self.tuple.protocol == protocol::TCP && self.own.ports.contains(&(*name, destination))
            }
            (Service::Ports(..) | Service::Named(_), Transport::Opaque | Transport::Icmp { .. }) => false,
        }
    }
}

impl NaivePolicy {
    fn of(index: usize, policy: &Policy, family: Family) -> Self {
        let rules = policy.ingress.iter().map(|rule| NaiveRule::of(rule, family)).collect();
        Self { index, subject: compact(&policy.subject), rules }
    }
}

impl NaiveRule {
    fn of(rule: &Rule, family: Family) -> Self {
        let peer = match &rule.peer {
            Peer::Any => NaivePeer::Any,
            Peer::Pods(terms) => NaivePeer::Pods(compact(terms)),
            Peer::Nets { within, except } => NaivePeer::Nets {
                within: within.iter().map(|block| block.range_in(family)).collect(),
                except: except.map(|block| block.range_in(family)),
            },
        };
        Self { action: rule.action, peer, service: rule.service.clone() }
    }
}

fn compact(terms: &Terms) -> NaiveTerms {
    let term = |index: usize| {
        let (key, value): (Key, u16) = *terms.get(index).unwrap_or(&terms[0]);
        (key as u8, value)
    };
    [term(0), term(1), term(2)]
}

fn holds(terms: &NaiveTerms, labels: &Labels) -> bool {
    terms.iter().all(|&(key, value)| labels[usize::from(key)] == value)
}
