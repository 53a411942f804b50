"""Remarks on rules of lists that no chain here has: judged within their list, whatever endpoints there are.

These are policies that select no endpoint in the files, staged ones, and profiles. What depends on
endpoints (selectors, service accounts, services, named ports) is not known: a rule before counts as deciding
only if it asks for nothing of the kind that the rule in question does not ask for in the same words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labelgate.analysis.lint.coverage import FAMILIES, UNDECIDED, Budget, code_of, contents_of
from labelgate.analysis.lint.fates import Fates
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.partition import Mask, Partition
from labelgate.analysis.program import Direction, Rule, RuleList

_WHO = ("selector", "not_selector", "namespace_selector", "service_accounts")
Unknown = frozenset[str]
"""What a rule asks for that depends on endpoints, as texts."""


@dataclass(frozen=True, slots=True)
class _List:
    """The rules of one policy or profile in one direction, without what depends on endpoints."""

    owner: str
    """`Kind/namespace/name` or `Kind/name`."""
    direction: Direction
    rules: tuple[dict[str, Any], ...]
    unknown: tuple[Unknown, ...]


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG101 to LG103, LG109."""
    lists = list(_lists(selection))
    compiled = _compiled(selection, lists)
    fates, budget = Fates(selection, compiled, is_by_endpoints=False), Budget()
    for index, found in enumerate(lists):
        for name in ((index, place) for place in range(len(found.rules))):
            fates.of(name).is_undecided = True
        rules = compiled[index].rules
        partitions = [Partition.of(rules, family) for family in FAMILIES]
        if all(budget.takes(partition, len(rules) ** 2) for partition in partitions):
            _judge(fates, index, [_Judged(rules, found.unknown, partition) for partition in partitions])
    yield from fates.remarks()


def _lists(selection: Selection) -> Iterator[_List]:
    in_chains = {found.policy for found in selection.contents.lists}
    profiles = ({**one, "kind": "Profile"} for one in selection.model["profiles"])
    for part in (*selection.model["policies"], *profiles):
        key = "/".join(filter(None, (part["kind"], part.get("namespace"), part["name"])))
        resource = selection.resources.get(key)
        is_profile = part["kind"] == "Profile"
        if resource is None or (key in in_chains and not is_profile):
            continue
        directions: tuple[Direction, Direction] = ("ingress", "egress")
        for direction in directions:
            if part.get(f"applies_{direction}", True) and part.get(direction):
                made = [_without_unknown(rule) for rule in part[direction]]
                rules, unknown = zip(*made, strict=True)
                yield _List(key, direction, rules, unknown)


def _without_unknown(rule: Mapping[str, Any]) -> tuple[dict[str, Any], Unknown]:
    """The rule without what depends on endpoints, which matches no less; and what that was."""
    made, unknown = dict(rule), set[str]()
    for side in ("source", "destination"):
        entity = dict(rule.get(side) or {})
        who = [entity.pop(field, None) or None for field in _WHO]
        if any(who):
            unknown.add(json.dumps([side, who]))
        if entity.get("named_ports"):  # Or one of the numbers: the whole list is unknown.
            ports = [entity.pop("named_ports"), entity.pop("ports", [])]
            unknown.add(json.dumps([side, who, rule.get("protocol"), "ports", ports]))
        if names := entity.pop("not_named_ports", None):
            unknown.add(json.dumps([side, who, rule.get("protocol"), "notPorts", names]))
        if service := entity.pop("service", None):
            unknown.add(json.dumps([side, "service", service]))
        made[side] = entity
    return made, frozenset(unknown)


def _compiled(selection: Selection, lists: Sequence[_List]) -> list[RuleList]:
    """The same, compiled: each as a profile of its own, which one endpoint has."""
    profiles = [{"name": str(index), found.direction: found.rules} for index, found in enumerate(lists)]
    host = {"name": "all", "node": "all", "labels": {}, "profiles": [one["name"] for one in profiles]}
    nothing = dict.fromkeys(("workloads", "network_sets", "policies", "services"), ())
    contents = contents_of({**selection.model, **nothing, "profiles": profiles, "hosts": [host]})
    by_name = {(one.policy, one.direction): one for one in contents.lists}
    return [
        replace(by_name[f"Profile/{index}", found.direction], policy=found.owner)
        for index, found in enumerate(lists)
    ]


class _Judged:
    """One list by one family: what each rule matches at most, and what reaches it at most."""

    def __init__(self, rules: Sequence[Rule], unknown: Sequence[Unknown], partition: Partition) -> None:
        self.codes = [code_of(rule) for rule in rules]
        self.unknown = unknown
        self.matched = [partition.matches(rule) for rule in rules]
        self.before = [self._before(place) for place in range(len(rules))]
        self.reached = [self._reached(place) for place in range(len(rules))]

    def decides(self, place: int, other: int) -> bool:
        """Whether a rule surely decides what it and another rule match at most."""
        return self.codes[place] != UNDECIDED and self.unknown[place] <= self.unknown[other]

    def _before(self, place: int) -> list[int]:
        """The rules before it that surely decide some of its packets."""
        left, found = self.matched[place].copy(), []
        for first in range(place):
            if self.decides(first, place) and (left & self.matched[first]).any():
                left &= ~self.matched[first]
                found.append(first)
        return found

    def _reached(self, place: int) -> Mask:
        left = self.matched[place].copy()
        for first in self.before[place]:
            left &= ~self.matched[first]
        return left

    def is_replaced(self, place: int, followers: Sequence[int]) -> bool:
        """Whether the followers (in order) decide alike whatever reaches the rule."""
        left = self.reached[place].copy()
        for other in followers:
            overlap = left & self.matched[other]
            if self.codes[other] == UNDECIDED or not overlap.any():
                continue
            if self.codes[other] != self.codes[place]:
                return False  # Surely or perhaps otherwise.
            if self.decides(other, place):
                left &= ~overlap
        return not left.any()


def _judge(fates: Fates, index: int, judged: Sequence[_Judged]) -> None:
    codes = judged[0].codes
    alive: list[int] = []
    for place in range(len(codes) - 1, -1, -1):
        fate = fates.of((index, place))
        fate.is_undecided = False
        fate.is_log = codes[place] == UNDECIDED
        fate.is_matchable = any(one.matched[place].any() for one in judged)
        fate.is_reached = any(one.reached[place].any() for one in judged)
        before = sorted({first for one in judged for first in one.before[place]})
        fate.by = dict.fromkeys(fates.who((index, first)) for first in before)
        fate.is_contradicted = any(codes[first] != codes[place] for first in before)
        is_replaced = codes[place] != UNDECIDED and all(one.is_replaced(place, alive) for one in judged)
        fate.is_needed = fate.is_reached and not is_replaced
        if fate.is_needed:
            alive.insert(0, place)
