"""Remarks on rules of lists that no chain here has: judged within their list, whatever endpoints there are.

These are policies that select no endpoint in the files, staged ones, and profiles. What depends on
endpoints (selectors, service accounts, services, named ports) is not known: a rule before counts as deciding
only if it asks for nothing of the kind that the rule in question does not ask for in the same words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from labelgate.analysis.lint.apart import are_apart
from labelgate.analysis.lint.coverage import FAMILIES, UNDECIDED, Passed, Walk, code_of, contents_of
from labelgate.analysis.lint.fates import Fates
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.parts import Box, Budget, Part, parts
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.partition import Mask
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
        rules = compiled[index].rules
        if are_apart(rules, found.unknown):
            for place, rule in enumerate(rules):
                is_log = code_of(rule) == UNDECIDED
                fates.of((index, place)).stands(is_log=is_log)
            continue
        several = [parts(rules, family, budget) for family in FAMILIES]
        judged = [_Judged(part, rules, found.unknown) for one in several if one is not None for part in one]
        if None in several or not all(budget.takes(walk.work) for walk in judged):
            for place in range(len(rules)):
                fates.of((index, place)).is_undecided = True
        else:
            _judge(fates, index, rules, judged)
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
    """One list by some packets: what each rule matches at most, and what reaches it at most."""

    def __init__(self, part: Part, rules: Sequence[Rule], unknown: Sequence[Unknown]) -> None:
        self._partition, self._rules, self._unknown = part.partition, rules, unknown
        self._boxes = {place: box for place, box in zip(part.places, part.boxes, strict=True) if len(box)}
        self._shadows = {place: _shadow(box, part.partition.shape) for place, box in self._boxes.items()}
        self._needed: list[int] = []
        """The rules after those that are judged that are not to go, the last one first."""
        self.passed: dict[int, Passed] = {}
        """By place."""

    def decides(self, place: int, other: int) -> bool:
        """Whether a rule surely decides what it and another rule match at most."""
        return code_of(self._rules[place]) != UNDECIDED and self._unknown[place] <= self._unknown[other]

    def _deciding(self) -> dict[Unknown, list[int]]:
        """Of rules that ask for the same unknown things what surely decides their packets, and they."""
        asked = dict.fromkeys(self._unknown[place] for place in self._boxes)
        return {one: [place for place in self._boxes if self._unknown[place] <= one] for one in asked}

    @property
    def work(self) -> int:
        """What `walk` takes, in cells."""
        several, cells = self._deciding().values(), prod(self._partition.shape)
        return sum(cells + sum(len(self._boxes[place]) for place in places) for places in several)

    def walk(self) -> None:
        """Finds what reaches each rule."""
        for asked, places in self._deciding().items():
            walk = Walk.begun(self._partition)
            for place in places:
                walk.take(place, (0, place), self._rules[place], self._boxes[place])
            self.passed |= {one.place: one for one in walk.passed if self._unknown[one.place] == asked}
        self._left = np.zeros(self._partition.shape, np.bool_)

    def keep(self, place: int) -> None:
        """A rule is not to go; it goes before those that were kept so far."""
        if place in self._boxes:
            self._needed.append(place)

    def is_replaced(self, place: int) -> bool:
        """Whether the rules after it that are kept decide alike whatever reaches the rule."""
        if place not in self.passed:
            return True
        box, left = self._boxes[place], self._left
        box.paint(left, self.passed[place].reached, True)
        is_same = self._leaves_alike(place, left)
        result = is_same and not left[box.index].any()
        box.paint(left, box.inside, False)
        return result

    def _leaves_alike(self, place: int, left: Mask) -> bool:
        """Whether no kept rule decides otherwise; takes what they decide from what is left."""
        code, (sources, destinations) = code_of(self._rules[place]), self._shadows[place]
        for other in reversed(self._needed):
            shadow = self._shadows[other]
            if not (sources & shadow[0] and destinations & shadow[1]):
                continue
            box, other_code = self._boxes[other], code_of(self._rules[other])
            overlap = left[box.index] & box.inside
            if other_code == UNDECIDED or not overlap.any():
                continue
            if other_code != code:
                return False  # Surely or perhaps otherwise.
            if self.decides(other, place):
                box.paint(left, overlap, False)
        return True


def _shadow(box: Box, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Sources and destinations of a box as sets of bits: most boxes are seen to be apart by these."""
    found = []
    for axis in (0, 1):
        inside = np.zeros(shape[axis], np.bool_)
        chosen = box.index[axis]
        inside[chosen if isinstance(chosen, slice) else chosen.reshape(-1)] = True
        found.append(int.from_bytes(np.packbits(inside).tobytes(), "big"))
    return found[0], found[1]


def _judge(fates: Fates, index: int, rules: Sequence[Rule], judged: Sequence[_Judged]) -> None:
    for one in judged:
        one.walk()
    for place in range(len(rules) - 1, -1, -1):
        fate, code = fates.of((index, place)), code_of(rules[place])
        here = [one.passed[place] for one in judged if place in one.passed]
        fate.is_log = code == UNDECIDED
        fate.is_matchable = bool(here)
        fate.is_reached = any(passed.is_reached for passed in here)
        if not fate.is_reached:
            before = sorted({first for passed in here for first in passed.by})
            fate.by = dict.fromkeys(fates.who((index, first)) for first in before)
            fate.is_contradicted = any(code_of(rules[first]) != code for first in before)
        if fate.is_reached and (code == UNDECIDED or not all(one.is_replaced(place) for one in judged)):
            fate.is_needed = True
            for one in judged:
                one.keep(place)
