"""What the rules of a chain decide, cell by cell of the packet space, and who decides before whom.

Exact: a cell holds packets that no rule of the chain tells apart. A chain that would take more than the
budget is not walked at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate import _core
from labelgate.analysis.addresses import IPV4, IPV6
from labelgate.analysis.partition import Mask, Partition
from labelgate.analysis.program import Chain, ProgramContents, Rule, RuleList, read_programs

UNDECIDED, ALLOW, DENY, PASS = range(4)
_CODES = {"Allow": ALLOW, "Deny": DENY, "Pass": PASS}
NOBODY, END_OF_TIER, NO_PROFILE = -1, -2, -3
FAMILIES = (IPV4, IPV6)

MOST_CELLS = 20_000_000
"""Of one chain and family: so many bytes are held a few times over."""
MOST_WORK = 6_000_000_000
"""Cells times rules of all chains: some seconds."""

SPLIT = "split the policies of this chain by what they select; `labelgate diff` can tell what changes"
"""The mend of what was over budget (LG109)."""

Name = tuple[int, int]
"""A rule: the number of its list, and its place there."""

Codes = NDArray[np.int8]
"""How each cell is decided."""

Lists = Sequence[RuleList] | Mapping[int, RuleList]
"""Lists of rules, by number."""


@dataclass(slots=True)
class Budget:
    """Work that is left to be done."""

    left: int = MOST_WORK

    def takes(self, partition: Partition, rules: int) -> bool:
        """Whether the cells of a partition can be walked; if so they count."""
        cells = int(np.prod(partition.shape, dtype=object))
        if cells > MOST_CELLS or cells * rules > self.left:
            return False
        self.left -= cells * rules
        return True


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of one rule in one chain and family."""

    name: Name
    rule: Rule
    partition: Partition
    reached_bits: NDArray[np.uint8]
    """See `reached`: a long chain has many rules of many cells each."""
    is_matchable: bool
    """Whether it matches any cell."""
    is_reached: bool
    """Whether any of these is undecided before it."""
    before: frozenset[int]
    """How the others were decided: codes."""
    by: frozenset[int]
    """By whom: places in `Walk.passed`, or `END_OF_TIER`."""

    @property
    def matched(self) -> Mask:
        """The cells that it matches, bool in the partition's shape."""
        return self.partition.matches(self.rule)

    @property
    def reached(self) -> Mask:
        """Those of them that no rule before it has decided."""
        shape = self.partition.shape
        bits = np.unpackbits(self.reached_bits, count=shape[0] * shape[1] * shape[2])
        return bits.view(np.bool_).reshape(shape)


@dataclass(slots=True)
class Walk:
    """A chain, walked by all packets of one family."""

    partition: Partition
    passed: list[Passed] = field(default_factory=list)
    tiers: list[tuple[int, int]] = field(default_factory=list)
    """Of each tier where its rules begin and end in `passed`."""
    decided: Codes = field(default_factory=lambda: np.zeros(0, np.int8))
    """How each cell ends: `UNDECIDED` where the chain leaves it unmarked."""
    by: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    @classmethod
    def of(cls, partition: Partition, lists: Lists, chain: Chain) -> Walk:
        """Steps 6 to 9 of E-20."""
        walk = cls(partition)
        walk.decided = np.full(partition.shape, UNDECIDED, np.int8)
        walk.by = np.full(partition.shape, NOBODY, np.int32)
        for tier in chain.tiers:
            walk._tier(lists, tier.lists, END_OF_TIER if tier.end == "deny" else NOBODY)
        for profile in chain.profiles:  # M-54: what one passes the next one judges.
            walk._tier(lists, (profile,), NOBODY)
        if chain.end == "deny":
            walk._end(walk.decided == UNDECIDED, DENY, NO_PROFILE)
        elif chain.end == "accept":
            walk._end(walk.decided == UNDECIDED, ALLOW, NOBODY)
        return walk

    def _tier(self, lists: Lists, numbers: Iterable[int], end: int) -> None:
        first = len(self.passed)
        for number in numbers:
            for place, rule in enumerate(lists[number].rules):
                self._rule((number, place), rule)
        if end == END_OF_TIER:
            self._end(self.decided == UNDECIDED, DENY, END_OF_TIER)
        self._end(self.decided == PASS, UNDECIDED, NOBODY)
        self.tiers.append((first, len(self.passed)))

    def _end(self, where: Mask, code: int, by: int) -> None:
        self.decided[where] = code
        self.by[where] = by

    def _rule(self, name: Name, rule: Rule) -> None:
        matched = self.partition.matches(rule)
        reached = matched & (self.decided == UNDECIDED)
        others = matched & ~reached
        before = frozenset(np.unique(self.decided[others]).tolist())
        by = frozenset(np.unique(self.by[others]).tolist())
        is_matchable, is_reached = bool(matched.any()), bool(reached.any())
        bits = np.packbits(reached)
        self.passed.append(Passed(name, rule, self.partition, bits, is_matchable, is_reached, before, by))
        if rule.action in _CODES:
            self._end(reached, _CODES[rule.action], len(self.passed) - 1)


def code_of(rule: Rule) -> int:
    """Of its action; of Log `UNDECIDED`."""
    return _CODES.get(rule.action, UNDECIDED)


def ends_from(walk: Walk, chain: Chain, first: int) -> Codes:
    """How each cell would end if the tier of this place in `walk.tiers` were the first that it meets."""
    last = {"deny": DENY, "accept": ALLOW, "unmarked": UNDECIDED}[chain.end]
    ends = np.full(walk.partition.shape, last, np.int8)
    for place in range(len(walk.tiers) - 1, first - 1, -1):
        begin, end = walk.tiers[place]
        is_denying = place < len(chain.tiers) and chain.tiers[place].end == "deny"
        here = np.full_like(ends, DENY) if is_denying else ends.copy()
        for passed in reversed(walk.passed[begin:end]):
            code = code_of(passed.rule)
            if code != UNDECIDED:
                matched = passed.matched
                here[matched] = ends[matched] if code == PASS else code
        ends = here
    return ends


def contents_of(model: Mapping[str, Any]) -> ProgramContents:
    """The chains of all endpoints of a core's model, as if one node had them all: that changes no chain."""
    numbers = count()

    def moved(endpoint: dict[str, Any]) -> dict[str, Any]:
        interface = "*" if endpoint.get("interface") == "*" else f"if{next(numbers)}"
        return {**endpoint, "node": "all", "interface": interface}

    there = {kind: list(map(moved, model[kind])) for kind in ("hosts", "workloads")}
    return read_programs(_core.compile(json.dumps({**model, **there}).encode(), "all"))[0]


def walks(
    contents: ProgramContents, number: int, budget: Budget, boundaries: Iterable[Rule] = ()
) -> list[Walk] | None:
    """A chain walked by both families; cells lie inside or outside of each boundary. None: over budget."""
    chain, rules = contents.chains[number], list(contents.chain_rules(number))
    found = []
    for family in FAMILIES:
        partition = Partition.of([*rules, *boundaries], family)
        if not budget.takes(partition, len(rules) + 1):
            return None
        found.append(Walk.of(partition, contents.lists, chain))
    return found


def without(walks: Sequence[Walk], dead: frozenset[Name]) -> Iterator[Name]:
    """The rules after which, without them, the same would be decided by those that follow in their tier.

    Those given as dead, and those found here, do not count as followers: all can go together. The walks are
    those of one chain by both families, for a rule goes from both.
    """
    for first, end in walks[0].tiers:
        after = [np.full(walk.partition.shape, UNDECIDED, np.int8) for walk in walks]
        for place in range(end - 1, first - 1, -1):
            here = [walk.passed[place] for walk in walks]
            name, code = here[0].name, code_of(here[0].rule)
            if code == UNDECIDED or name in dead:
                continue
            if all(bool((then[one.reached] == code).all()) for then, one in zip(after, here, strict=True)):
                yield name
                continue
            for then, one in zip(after, here, strict=True):
                then[one.matched] = code
