//! The naive way: for every flow all policies in order, by the labels of both pods. It shares nothing with compiler and
//! table, so it also judges them.

use rustc_hash::FxHashMap;

use super::{Cluster, Key, Labels, Peer, Policy, Rule, Service, Terms, Tier, address, protocol_in};
use crate::flow::{Direction, Family, FiveTuple, Transport, protocol};
use crate::program::{Action, Reason};
use crate::workload::{Naive, NaiveAnswer};

/// A cluster, ready to judge.
#[derive(Debug)]
pub struct NaiveCluster {
    names: Vec<String>,
    family: Family,
    /// Whose policies are asked, in turn, until one side denies.
    gates: &'static [Direction],
    /// By address: labels and named ports.
    pods: FxHashMap<u128, NaivePod>,
    /// In order.
    tiers: [Vec<NaivePolicy>; 2],
}

/// What no workload may send, whatever its policies say (E-20.5): UDP to this port, and IP in IP.
const VXLAN: u16 = 4789;

#[derive(Debug)]
struct NaivePod {
    labels: Labels,
    ports: Vec<(&'static str, u16)>,
}

#[derive(Debug)]
struct NaivePolicy {
    index: usize,
    subject: NaiveTerms,
    /// By direction; none where it is not governed.
    rules: [Option<Vec<NaiveRule>>; 2],
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
    /// The cluster in one family, asked about packets to workloads, from workloads, or from one to another.
    pub fn new(cluster: &Cluster, family: Family, gates: &'static [Direction]) -> Self {
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
            gates,
            pods: pods.collect(),
            tiers: [policies_of(Tier::Security), policies_of(Tier::Default)],
        }
    }
}

impl Naive for NaiveCluster {
    fn judge(&self, tuple: &FiveTuple) -> Option<NaiveAnswer> {
        let mut answer = None;
        for &direction in self.gates {
            answer = Some(self.gate(tuple, direction)?);
            if answer.is_some_and(|answer| !answer.allows) {
                break;
            }
        }
        answer
    }

    fn policy(&self, index: usize) -> &str {
        &self.names[index]
    }
}

impl NaiveCluster {
    /// What the policies of one side say.
    fn gate(&self, tuple: &FiveTuple, direction: Direction) -> Option<NaiveAnswer> {
        let (source, destination) = (self.pods.get(&tuple.source), self.pods.get(&tuple.destination));
        let (own, peer, far) = match direction {
            Direction::Ingress => (destination?, source, tuple.source),
            Direction::Egress => (source?, destination, tuple.destination),
        };
        let answer = |allows, rule| Some(NaiveAnswer { allows, direction, rule });
        if direction == Direction::Egress && is_encapsulated(tuple) {
            return answer(false, Err(Reason::Encapsulation));
        }
        let question = Question { tuple, family: self.family, direction, own, peer, far, destination };
        for (tier, is_pass) in self.tiers.iter().zip([true, false]) {
            match question.tier(tier) {
                TierAnswer::Rule(action, policy, rule) if action != Action::Pass => {
                    return answer(action == Action::Allow, Ok((policy, rule)));
                }
                TierAnswer::NoRule if !is_pass => return answer(false, Err(Reason::EndOfTier)),
                TierAnswer::Rule(..) | TierAnswer::NoRule | TierAnswer::NoPolicy => {}
            }
        }
        answer(true, Err(Reason::ProfileRule))
    }
}

fn is_encapsulated(tuple: &FiveTuple) -> bool {
    let to_port =
        |wanted| matches!(tuple.transport, Transport::Ports { destination, .. } if destination == wanted);
    tuple.protocol == protocol::IPIP || tuple.protocol == protocol::UDP && to_port(VXLAN)
}

/// What a tier says.
enum TierAnswer {
    /// The first rule that matches and is not Log: action, policy, rule.
    Rule(Action, usize, usize),
    /// A policy selects the pod, no rule matches.
    NoRule,
    NoPolicy,
}

/// A flow between two pods, or between one and elsewhere, put to the policies of one of them.
struct Question<'a> {
    tuple: &'a FiveTuple,
    family: Family,
    direction: Direction,
    own: &'a NaivePod,
    peer: Option<&'a NaivePod>,
    /// The peer's address.
    far: u128,
    /// Who has the port that the flow goes to.
    destination: Option<&'a NaivePod>,
}

impl Question<'_> {
    fn tier(&self, policies: &[NaivePolicy]) -> TierAnswer {
        let mut answer = TierAnswer::NoPolicy;
        for policy in policies.iter().filter(|policy| holds(&policy.subject, &self.own.labels)) {
            let Some(rules) = &policy.rules[self.direction as usize] else {
                continue;
            };
            answer = TierAnswer::NoRule;
            for (number, rule) in rules.iter().enumerate() {
                if rule.action != Action::Log && self.is_peer(&rule.peer) && self.is_service(&rule.service) {
                    return TierAnswer::Rule(rule.action, policy.index, number);
                }
            }
        }
        answer
    }

    fn is_peer(&self, peer: &NaivePeer) -> bool {
        let holds_far = |&(first, last): &(u128, u128)| first <= self.far && self.far <= last;
        match peer {
            NaivePeer::Any => true,
            NaivePeer::Pods(terms) => self.peer.is_some_and(|pod| holds(terms, &pod.labels)),
            NaivePeer::Nets { within, except } => {
                within.iter().any(holds_far) && !except.as_ref().is_some_and(holds_far)
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
                self.tuple.protocol == protocol::TCP
                    && self.destination.is_some_and(|pod| pod.ports.contains(&(*name, destination)))
            }
            (Service::Ports(..) | Service::Named(_), Transport::Opaque | Transport::Icmp { .. }) => false,
        }
    }
}

impl NaivePolicy {
    fn of(index: usize, policy: &Policy, family: Family) -> Self {
        let rules = [Direction::Ingress, Direction::Egress].map(|direction| {
            let rules = policy.rules(direction)?.iter();
            Some(rules.map(|rule| NaiveRule::of(rule, family)).collect())
        });
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
