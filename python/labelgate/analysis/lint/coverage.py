"""What the rules of a chain decide, cell by cell of the packet space, and who decides before whom.

Exact: a cell holds packets that no rule of the chain tells apart. All packets are walked in `parts`, or, if
that would take more than the budget, none.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate import _core
from labelgate.analysis.addresses import IPV4, IPV6
from labelgate.analysis.lint.parts import Box, Budget, Part, parts
from labelgate.analysis.partition import Mask, Partition
from labelgate.analysis.program import Chain, ProgramContents, Rule, RuleList, read_programs

UNDECIDED, ALLOW, DENY, PASS = range(4)
_CODES = {"Allow": ALLOW, "Deny": DENY, "Pass": PASS}
NOBODY, END_OF_TIER, NO_PROFILE = -1, -2, -3
FAMILIES = (IPV4, IPV6)

SPLIT = "split the policies of this chain by what they select; `labelgate diff` can tell what changes"
"""The mend of what was over budget (LG109)."""

Name = tuple[int, int]
"""A rule: the number of its list, and its place there."""

Codes = NDArray[np.int8]
"""How each cell is decided."""

Lists = Sequence[RuleList] | Mapping[int, RuleList]
"""Lists of rules, by number."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps 6 to 9 of E-20: the rules of a chain, one after the other."""

    names: tuple[Name, ...]
    rules: tuple[Rule, ...]
    tiers: tuple[tuple[int, int, bool], ...]
    """Where the rules of each begin and end, and whether it ends in deny.

    Each profile is one: what it passes the next one judges (M-54).
    """
    end: int
    """How what is left ends."""
    end_by: int

    @classmethod
    def of(cls, chain: Chain, lists: Lists) -> Steps:
        """Those of a chain."""
        names: list[Name] = []
        rules: list[Rule] = []
        tiers = []
        parts = [(tier.lists, tier.end == "deny") for tier in chain.tiers]
        for numbers, is_denying in (*parts, *(((profile,), False) for profile in chain.profiles)):
            first = len(names)
            for number in numbers:
                rules += lists[number].rules
                names += ((number, place) for place in range(len(lists[number].rules)))
            tiers.append((first, len(names), is_denying))
        end = {"deny": DENY, "accept": ALLOW, "unmarked": UNDECIDED}[chain.end]
        return cls(tuple(names), tuple(rules), tuple(tiers), end, NO_PROFILE if end == DENY else NOBODY)


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of one rule in one part of the packets of a chain."""

    place: int
    """In the chain."""
    name: Name
    rule: Rule
    box: Box
    """The cells that it matches."""
    reached_bits: NDArray[np.uint8]
    """See `reached`: a long chain has many rules of many cells each."""
    is_reached: bool
    """Whether any of these is undecided before it."""
    before: frozenset[int]
    """If none is: how they were decided: codes."""
    by: frozenset[int]
    """By whom: places in the chain, or `END_OF_TIER`."""

    @property
    def reached(self) -> Mask:
        """The cells of its box that it matches, and that no rule before it has decided."""
        return self.box.unpacked(self.reached_bits)


@dataclass(slots=True)
class Walk:
    """A chain, walked by all packets of a part."""

    partition: Partition
    decided: Codes
    """How each cell ends: `UNDECIDED` where the chain leaves it unmarked."""
    by: NDArray[np.int32]
    passed: list[Passed] = field(default_factory=list)
    """Of each rule that matches any packet here, in order."""
    tiers: list[tuple[int, int]] = field(default_factory=list)
    """Of each tier where its rules begin and end in `passed`."""

    @classmethod
    def begun(cls, partition: Partition) -> Walk:
        """With no rule yet."""
        decided = np.full(partition.shape, UNDECIDED, np.int8)
        return cls(partition, decided, np.full(partition.shape, NOBODY, np.int32))

    @classmethod
    def of(cls, part: Part, steps: Steps, offset: int = 0) -> Walk:
        """Steps 6 to 9 of E-20; the rules of the chain are those of the part from a place on."""
        walk = cls.begun(part.partition)
        for first, end, is_denying in steps.tiers:
            begin = len(walk.passed)
            low, high = bisect_left(part.places, first + offset), bisect_left(part.places, end + offset)
            for at in range(low, high):
                place = part.places[at] - offset
                walk.take(place, steps.names[place], steps.rules[place], part.boxes[at])
            if is_denying:
                walk._end(walk.decided == UNDECIDED, DENY, END_OF_TIER)
            walk._end(walk.decided == PASS, UNDECIDED, NOBODY)
            walk.tiers.append((begin, len(walk.passed)))
        if steps.end != UNDECIDED:
            walk._end(walk.decided == UNDECIDED, steps.end, steps.end_by)
        return walk

    def _end(self, where: Mask, code: int, by: int) -> None:
        self.decided[where] = code
        self.by[where] = by

    def take(self, place: int, name: Name, rule: Rule, box: Box) -> None:
        """The next rule."""
        if not len(box):
            return
        matched, decided = box.inside, self.decided[box.index]
        reached = matched & (decided == UNDECIDED)
        is_reached = bool(reached.any())
        before = by = frozenset[int]()
        if not is_reached:
            before = frozenset(np.unique(decided[matched]).tolist())
            by = frozenset(np.unique(self.by[box.index][matched]).tolist())
        self.passed.append(Passed(place, name, rule, box, np.packbits(reached), is_reached, before, by))
        if is_reached and rule.action in _CODES:
            box.paint(self.decided, reached, _CODES[rule.action])
            box.paint(self.by, reached, place)


def code_of(rule: Rule) -> int:
    """Of its action; of Log `UNDECIDED`."""
    return _CODES.get(rule.action, UNDECIDED)


def ends_from(walk: Walk, steps: Steps, first: int) -> Codes:
    """How each cell would end if the tier of this place in `walk.tiers` were the first that it meets."""
    ends = np.full(walk.partition.shape, steps.end, np.int8)
    for place in range(len(walk.tiers) - 1, first - 1, -1):
        begin, end = walk.tiers[place]
        here = np.full_like(ends, DENY) if steps.tiers[place][2] else ends.copy()
        for passed in reversed(walk.passed[begin:end]):
            code = code_of(passed.rule)
            if code != UNDECIDED:
                matched = passed.box.inside
                value = ends[passed.box.index][matched] if code == PASS else code
                passed.box.paint(here, matched, value)
        ends = here
    return ends


def denied_behind(walk: Walk, steps: Steps) -> Iterator[Name]:
    """The Log rules of which some packet is denied at the end of their tier (E-21)."""
    for (first, end), (_, _, is_denying) in zip(walk.tiers, steps.tiers, strict=True):
        reached = [passed for passed in walk.passed[first:end] if passed.is_reached]
        logs = [passed for passed in reached if code_of(passed.rule) == UNDECIDED]
        if not is_denying or not logs:
            continue
        left = walk.by == END_OF_TIER
        for passed in reached:
            if code_of(passed.rule) == PASS:  # Then it is the end of a later tier.
                passed.box.paint(left, passed.reached, False)
        yield from (one.name for one in logs if (one.reached & left[one.box.index]).any())


def contents_of(model: Mapping[str, Any]) -> ProgramContents:
    """The chains of all endpoints of a core's model, as if one node had them all: that changes no chain."""
    numbers = count()

    def moved(endpoint: dict[str, Any]) -> dict[str, Any]:
        interface = "*" if endpoint.get("interface") == "*" else f"if{next(numbers)}"
        return {**endpoint, "node": "all", "interface": interface}

    there = {kind: list(map(moved, model[kind])) for kind in ("hosts", "workloads")}
    return read_programs(_core.compile(json.dumps({**model, **there}).encode(), "all"))[0]


def walks(steps: Steps, budget: Budget, boundaries: Sequence[Rule] = ()) -> list[Walk] | None:
    """A chain, walked by both families; cells lie inside or outside of each boundary. None: over budget."""
    found: list[Walk] = []
    for family in FAMILIES:
        several = parts(steps.rules, family, budget, boundaries)
        if several is None:
            return None
        found += (Walk.of(part, steps) for part in several)
    return found


def without(walks: Sequence[Walk], dead: frozenset[Name]) -> Iterator[Name]:
    """The rules after which, without them, the same would be decided by those that follow in their tier.

    Those given as dead, and those found here, do not count as followers: all can go together. The walks are
    those of one chain by all packets, for a rule goes from all.
    """
    for tier in range(len(walks[0].tiers)):
        after = [np.zeros(0, np.int8)] * len(walks)
        rules: dict[int, list[tuple[int, Passed]]] = {}
        for number, walk in enumerate(walks):
            begin, end = walk.tiers[tier]
            if begin < end:
                after[number] = np.full(walk.partition.shape, UNDECIDED, np.int8)
            for passed in walk.passed[begin:end]:
                rules.setdefault(passed.place, []).append((number, passed))
        for place in sorted(rules, reverse=True):
            here = [(after[number], passed) for number, passed in rules[place]]
            name, code = here[0][1].name, code_of(here[0][1].rule)
            if code == UNDECIDED or name in dead:
                continue
            if all(bool((then[one.box.index][one.reached] == code).all()) for then, one in here):
                yield name
                continue
            for then, one in here:
                one.box.paint(then, one.box.inside, code)
