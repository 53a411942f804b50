"""Rules that are seen at a glance to have nothing to do with each other: most short lists are of such.

A short cut of `chains` and `within`: what it says is certain, what it does not see is decided by cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from labelgate.analysis.addresses import combine
from labelgate.analysis.lint.coverage import FAMILIES, UNDECIDED, code_of
from labelgate.analysis.program import Ports, Rule, Side
from labelgate.analysis.services import WITH_PORTS, WITH_TYPES

MOST_RULES = 32
"""Each is compared with each."""


def are_apart(rules: Sequence[Rule], unknown: Sequence[frozenset[str]]) -> bool:
    """Whether each rule surely matches something, and no other one decides any of it before, or alike after.

    `unknown` is what each asks for that depends on endpoints; see `within`.
    """
    if len(rules) > MOST_RULES or not all(map(_surely_matches, rules)):
        return False
    pairs = combinations(zip(rules, unknown, strict=True), 2)
    return all(_is_unrelated(*one, *other) or _are_disjoint(one[0], other[0]) for one, other in pairs)


def _is_unrelated(rule: Rule, asked: frozenset[str], later: Rule, asked_later: frozenset[str]) -> bool:
    """Whether neither the rule surely decides what is the later one's, nor that one alike its own."""
    code = code_of(rule)
    if code == UNDECIDED:
        return True
    return not asked <= asked_later and not (asked_later <= asked and code == code_of(later))


def _surely_matches(rule: Rule) -> bool:
    """Plain criteria only, of which none can contradict another."""
    if rule.not_protocol is not None or rule.not_icmp is not None:
        return False
    if rule.icmp is not None and rule.protocol not in WITH_TYPES:
        return False
    sides = (rule.source, rule.destination)
    return all(_is_plain(side, rule.protocol) for side in sides) and any(
        rule.exists_for(family) and all(len(one.edges(family)) for side in sides for one in side.in_sets)
        for family in FAMILIES
    )


def _is_plain(side: Side, protocol: int | None) -> bool:
    if side.not_in_sets or side.not_ports is not None or len(side.in_sets) > 1:
        return False
    ports = side.ports
    return ports is None or (protocol in WITH_PORTS and bool(ports.ranges))


def _are_disjoint(one: Rule, other: Rule) -> bool:
    """Whether no packet matches both, by one criterion."""
    if None not in (one.protocol, other.protocol) and one.protocol != other.protocol:
        return True
    sides = ((one.source, other.source), (one.destination, other.destination))
    return any(_are_ports_apart(*pair) for pair in ((own.ports, its.ports) for own, its in sides)) or all(
        not (one.exists_for(family) and other.exists_for(family))
        or any(_are_sets_apart(own, its, family) for own, its in sides)
        for family in FAMILIES
    )


def _are_ports_apart(own: Ports | None, its: Ports | None) -> bool:
    if own is None or its is None or own.named or its.named:
        return False
    return all(last < low or high < first for first, last in own.ranges for low, high in its.ranges)


def _are_sets_apart(own: Side, its: Side, family: int) -> bool:
    return any(
        not len(combine(one.edges(family), other.edges(family), np.logical_and))
        for one in own.in_sets
        for other in its.in_sets
    )
