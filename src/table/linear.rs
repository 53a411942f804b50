//! The `linear` engine: the rules of one chain in order, first match wins. Exact and slow; the yardstick for every
//! other engine.

use std::sync::Arc;

use super::Trace;
use super::answer::{Answer, End};
use super::classes::Seen;
use super::engines::{Engine, Packet};
use crate::flow::{FiveTuple, OutcomeId, Transport};
use crate::program::{
    Action, Chain, ChainEnd, ChainId, Icmp, PortMatch, Program, Reason, Rule, RuleListId, Side, TierEnd,
};

/// The engine; it keeps nothing of its own.
#[derive(Debug)]
pub struct Linear {
    program: Arc<Program>,
}

impl Linear {
    /// For all chains of the program.
    pub fn new(program: Arc<Program>) -> Self {
        Self { program }
    }
}

impl Engine for Linear {
    const NAME: &'static str = "linear";

    fn find<T: Trace>(
        &self,
        chain: ChainId,
        packet: &Packet<'_>,
        _: &mut Seen,
        trace: &mut T,
    ) -> Option<Answer> {
        let program = &*self.program;
        let end = run(program, program.chain(chain), packet.tuple, &mut |passed| {
            if let Passed::Rule(outcome) = passed {
                trace.rule(outcome);
            }
        });
        Some(Answer::plain(end))
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// What one rule list does to a packet.
enum ListEnd {
    Final(End),
    Pass,
    Fall,
}

/// What ends nothing.
pub enum Passed {
    /// A Log or Pass rule.
    Rule(OutcomeId),
    /// A tier that passes at its end.
    Tier(OutcomeId),
}

/// Steps 6 to 9 of E-20. `passed` receives what is on the way, in order.
pub fn run(program: &Program, chain: &Chain, tuple: &FiveTuple, passed: &mut impl FnMut(Passed)) -> End {
    'tiers: for tier in &chain.tiers {
        for &policy in &tier.policies {
            match run_list(program, policy, tuple, passed) {
                ListEnd::Final(end) => return end,
                ListEnd::Pass => continue 'tiers,
                ListEnd::Fall => {}
            }
        }
        match tier.end {
            TierEnd::Deny => return End::Deny(tier.outcome),
            TierEnd::Pass => passed(Passed::Tier(tier.outcome)),
            TierEnd::Fall => {}
        }
    }
    match &chain.end {
        ChainEnd::Profiles(profiles) => run_profiles(program, profiles, tuple, passed),
        ChainEnd::Accept => End::Accept(Reason::NoForwardPolicy.outcome()),
        ChainEnd::Unmarked(outcome) => End::Unmarked(*outcome),
    }
}

/// E-20.8: a profile's Pass is ignored (M-54); after the last profile: deny.
fn run_profiles(
    program: &Program,
    profiles: &[RuleListId],
    tuple: &FiveTuple,
    passed: &mut impl FnMut(Passed),
) -> End {
    for &profile in profiles {
        if let ListEnd::Final(end) = run_list(program, profile, tuple, passed) {
            return end;
        }
    }
    End::Deny(Reason::NoProfileAllows.outcome())
}

/// M-5: the first matching terminal rule ends the list; Log does not.
fn run_list(
    program: &Program,
    list: RuleListId,
    tuple: &FiveTuple,
    passed: &mut impl FnMut(Passed),
) -> ListEnd {
    for rule in &program.rule_lists[list.index()].rules {
        if !rule_matches(program, rule, tuple) {
            continue;
        }
        match rule.action {
            Action::Allow => return ListEnd::Final(End::Accept(rule.outcome)),
            Action::Deny => return ListEnd::Final(End::Deny(rule.outcome)),
            Action::Pass => {
                passed(Passed::Rule(rule.outcome));
                return ListEnd::Pass;
            }
            Action::Log => passed(Passed::Rule(rule.outcome)),
        }
    }
    ListEnd::Fall
}

/// M-1: all present criteria hold.
fn rule_matches(program: &Program, rule: &Rule, tuple: &FiveTuple) -> bool {
    let (source_port, destination_port) = match tuple.transport {
        Transport::Ports { source, destination } => (Some(source), Some(destination)),
        Transport::Opaque | Transport::Icmp { .. } => (None, None),
    };
    rule.families[tuple.family as usize]
        && rule.protocol.is_none_or(|protocol| protocol == tuple.protocol)
        && rule.not_protocol.is_none_or(|protocol| protocol != tuple.protocol)
        && rule.icmp.is_none_or(|icmp| icmp_matches(icmp, tuple) == Some(true))
        && rule.not_icmp.is_none_or(|icmp| icmp_matches(icmp, tuple) == Some(false))
        && side_matches(program, &rule.source, tuple, tuple.source, source_port)
        && side_matches(program, &rule.destination, tuple, tuple.destination, destination_port)
}

/// M-33; `None` where the packet has no readable ICMP type.
fn icmp_matches(wanted: Icmp, tuple: &FiveTuple) -> Option<bool> {
    match tuple.transport {
        Transport::Icmp { kind, code } => {
            Some(kind == wanted.kind && wanted.code.is_none_or(|wanted| wanted == code))
        }
        Transport::Opaque | Transport::Ports { .. } => None,
    }
}

fn side_matches(program: &Program, side: &Side, tuple: &FiveTuple, address: u128, port: Option<u16>) -> bool {
    let member = |set: &crate::program::AddressSetId| {
        program.address_sets[set.index()].contains(tuple.family, address)
    };
    side.in_sets.iter().all(member)
        && !side.not_in_sets.iter().any(member)
        && side.ports.as_ref().is_none_or(|ports| in_ports(program, ports, tuple, address, port))
        && side.not_ports.as_ref().is_none_or(|ports| {
            (port.is_some() || ports.ranges.is_empty()) && !in_ports(program, ports, tuple, address, port)
        })
}

/// M-17, M-18; a packet without a readable port is in no range and no set (M-19).
fn in_ports(
    program: &Program,
    ports: &PortMatch,
    tuple: &FiveTuple,
    address: u128,
    port: Option<u16>,
) -> bool {
    port.is_some_and(|port| {
        ports.ranges.iter().any(|&(first, last)| first <= port && port <= last)
            || ports.named.iter().any(|set| {
                program.port_sets[set.index()].contains(tuple.family, address, tuple.protocol, port)
            })
    })
}
