//! The short ways: packets that meet one chain alone, as most of a busy host do, or one for each interface, as those between
//! workloads do, without the bookkeeping of the walk through the hooks, which takes as long as the chain. Their answers are
//! those of the walk.

use std::hint::select_unpredictable;

use super::answer::{Answer, EndKind};
use super::classes::{Address, Ready};
use super::hooks::{self, is_new, walk};
use super::lead::Lead;
use super::packed::Packed;
use super::stops::Before;
use super::{Decision, DecisionTable, Trace};
use crate::flow::{Family, FiveTuple, FlowKey, Hook};
use crate::program::ChainId;

/// The answer to one packet at one hook; `tree` is that of a chain in `tree` which has been asked before. Where one chain
/// decides there is no step to trace, but rules may be.
///
/// What most packets of a busy node are comes first: new and forwarded ones that meet one chain, which is ready for their
/// interface. Whatever else there is ends in a call of its own: none of it may make this save registers. The answer is that
/// of the walk.
#[allow(clippy::inline_always)] // Each caller knows what it passes; one call more takes a tenth of all.
#[inline(always)]
pub fn decide<T: Trace>(
    table: &DecisionTable,
    key: &FlowKey,
    tree: Option<(ChainId, Answer)>,
    trace: &mut T,
) -> Decision {
    decide_packed(table, key, tree, trace).decision()
}

#[allow(clippy::inline_always)] // As above.
#[inline(always)]
fn decide_packed<T: Trace>(
    table: &DecisionTable,
    key: &FlowKey,
    tree: Option<(ChainId, Answer)>,
    trace: &mut T,
) -> Packed {
    if key.hook == Hook::FilterForward && !key.accepted && is_new(key.ct) {
        let forward = table.stops.forward();
        let (input, output) = (key.input.0, key.output.0);
        let decision = match key.tuple.family {
            Family::V4 => forward
                .ready_v4(input, output)
                .and_then(|(lead, ready)| decide_ready(table, key, lead, ready)),
            Family::V6 => forward
                .ready_v6(input, output)
                .and_then(|(lead, ready)| decide_ready(table, key, lead, ready)),
        };
        if let Some(decision) = decision {
            return decision;
        }
    }
    match tree {
        None => decide_elsewhere(table, key, trace),
        Some(tree) => decide_asked_ahead(table, key, tree, trace),
    }
}

/// Of a new packet in FORWARD whose only chain is ready for its interface; none where it is not for this packet, or something
/// else decides. A call of its own: packets that do not come here need not save registers for it.
#[inline(never)]
fn decide_ready<A: Address>(
    table: &DecisionTable,
    key: &FlowKey,
    lead: Lead,
    ready: &Ready<A>,
) -> Option<Packed> {
    if is_encapsulated(table, lead, &key.tuple) {
        return None;
    }
    let asked = table.stops.forward().asked(lead, ready);
    let answer = table.engines.classes()?.find_ready(&asked, &key.tuple)?;
    table.stops.lone_decision(Hook::FilterForward, answer)
}

/// By whatever way; nothing has been asked before.
#[inline(never)]
fn decide_elsewhere<T: Trace>(table: &DecisionTable, key: &FlowKey, trace: &mut T) -> Packed {
    decide_any_way(table, key, None, trace)
}

/// By whatever way; this has been asked before.
#[inline(never)]
fn decide_asked_ahead<T: Trace>(
    table: &DecisionTable,
    key: &FlowKey,
    tree: (ChainId, Answer),
    trace: &mut T,
) -> Packed {
    decide_any_way(table, key, Some(tree), trace)
}

#[inline]
fn decide_any_way<T: Trace>(
    table: &DecisionTable,
    key: &FlowKey,
    tree: Option<(ChainId, Answer)>,
    trace: &mut T,
) -> Packed {
    if !key.accepted && !key.dnatted && is_new(key.ct) {
        let lone = table.stops.lone(key.hook, key.input, key.output);
        let lone = lone.map(|lead| decide_lone(table, key, lead, tree, trace));
        if let Some(decision) = lone.unwrap_or_else(|| decide_pair(table, key, trace)) {
            return decision;
        }
    }
    trace.anew();
    Packed::of(walk(table, key, tree, trace).0)
}

/// Of a new packet that meets one chain; none where something is settled ahead of it, or behind.
fn decide_lone<T: Trace>(
    table: &DecisionTable,
    key: &FlowKey,
    lead: Lead,
    tree: Option<(ChainId, Answer)>,
    trace: &mut T,
) -> Option<Packed> {
    if is_settled(table, Before::at(key.hook), &key.tuple) || is_encapsulated(table, lead, &key.tuple) {
        return None;
    }
    let answer = if lead.is_in_tree(key.tuple.family) {
        table.engines.find_lone_in_tree(lead.chain(), &key.tuple, tree, trace)
    } else {
        table.engines.find_lone(lead.chain(), &key.tuple, trace)
    };
    table.stops.lone_decision(key.hook, answer)
}

/// Of a new packet in FORWARD that meets two chains, that of the interface it comes in by and that of the one it leaves by
/// (E-38): the second decides what the first does not deny.
fn decide_pair<T: Trace>(table: &DecisionTable, key: &FlowKey, trace: &mut T) -> Option<Packed> {
    if key.hook != Hook::FilterForward {
        return None;
    }
    let [from, to] = table.stops.forward().pair(key.input, key.output)?;
    if is_encapsulated(table, from, &key.tuple) {
        return None;
    }
    let ask = |lead: Lead| table.engines.find_lone_in_classes(lead.chain(), &key.tuple);
    let (first, last) = (ask(from)?, ask(to)?);
    let is_denied = first.end() == EndKind::Deny;
    // Not a branch: which one denies cannot be predicted.
    let decision = table.stops.lone_decision(key.hook, select_unpredictable(is_denied, first, last))?;
    if !is_denied {
        trace.let_through(first.outcome());
    }
    Some(decision)
}

/// Whether an encapsulated packet is settled ahead of the chain (E-20.5).
#[inline]
fn is_encapsulated(table: &DecisionTable, lead: Lead, tuple: &FiveTuple) -> bool {
    lead.is_from_workload() && hooks::is_encapsulated(&table.program().settings, tuple)
}

/// Whether a failsafe port settles a packet ahead of the only chain that it meets.
#[inline]
pub fn is_settled(table: &DecisionTable, before: Before, tuple: &FiveTuple) -> bool {
    table.failsafes.reason(&table.program().settings, tuple, before).is_some()
}
