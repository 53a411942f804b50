"""The packets that the rules of a chain tell apart, in parts that each hold little.

The cells of a `Partition` are a product: sources times destinations times services. Few rules are one part.
Of many, most ask for other ports than most, so that each class of services is a part of its own, cut only by
the rules that can match it: thousands of rules with as many nets and ports are thousands of small parts,
where their product would be billions of cells. Both ways are exact, and no packet is in two parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.partition import AddressClasses, Mask, Partition, rule_sets
from labelgate.analysis.program import Rule
from labelgate.analysis.services import ServiceClasses, piece_count

MOST_CELLS = 20_000_000
"""Of one part: so many bytes are held a few times over."""
MOST_IN_ALL = 60_000_000
"""Of all parts of one chain and family."""
MOST_WORK = 6_000_000_000
"""Cells that rules match, of all chains: some seconds."""
MOST_BOUNDARIES = 150_000_000
"""Sets times the intervals that they cut addresses into, rules times pieces of services."""
MOST_PIECES = 200_000
"""Pieces that ports cut services into: those of the source times those of the destination."""

_USUAL = 64
"""Rules that are not asked what their boundaries would take."""
_FEW = 4_000_000
"""Cells times rules that are one part without asking further."""
_VISIT = 20_000
"""A rule in one more part takes as long as so many cells."""

Index = slice | NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Box:
    """The cells that a rule matches: in a box of some sources, destinations and services."""

    index: tuple[Any, Any, Any]
    """Into arrays in the partition's shape."""
    shape: tuple[int, int, int]
    _bits: NDArray[np.uint8] | None
    """Which cells of the box; None: all."""

    @classmethod
    def of(cls, partition: Partition, rule: Rule) -> Box:
        """That of a rule of the partition, or of one that matches none of its services."""
        if not partition.services_of(rule).any():
            return _NOTHING
        source = partition.side_matches(rule.source, partition.sources, "source")
        destination = partition.side_matches(rule.destination, partition.destinations, "destination")
        source &= partition.services.matches(rule)
        services = _any(source, 0) & _any(destination, 0)
        if not services.any():
            return _NOTHING
        sources = _any(source[:, services], 1)
        destinations = _any(destination[:, services], 1)
        source, destination = source[sources][:, services], destination[destinations][:, services]
        shape = (len(source), len(destination), source.shape[1])
        is_whole = bool(source.all() and destination.all())
        bits = None if is_whole else np.packbits(source[:, None, :] & destination[None, :, :])
        return cls(_index(sources, destinations, services), shape, bits)

    def __len__(self) -> int:
        return prod(self.shape)

    @property
    def inside(self) -> Mask:
        """Which cells of the box the rule matches, bool in the box's shape."""
        return np.ones(self.shape, np.bool_) if self._bits is None else self.unpacked(self._bits)

    def unpacked(self, bits: NDArray[np.uint8]) -> Mask:
        """A mask in the box's shape, from its bits."""
        return np.unpackbits(bits, count=len(self)).view(np.bool_).reshape(self.shape)

    def paint(self, array: NDArray[Any], where: Mask, value: object) -> None:
        """Sets some cells of the box in an array of the partition's shape."""
        here = array[self.index]
        here[where] = value
        array[self.index] = here


_NONE = slice(0, 0)
_NOTHING = Box((_NONE, _NONE, _NONE), (0, 0, 0), None)


def _any(mask: Mask, axis: int) -> Mask:
    found: Mask = np.any(mask, axis=axis)
    return found


def _index(*masks: Mask) -> tuple[Any, Any, Any]:
    """Slices where these will do: views cost nothing."""
    found = [np.flatnonzero(mask) for mask in masks]
    if all(len(one) and one[-1] - one[0] == len(one) - 1 for one in found):
        first, second, third = (slice(int(one[0]), int(one[-1]) + 1) for one in found)
        return first, second, third
    first_, second_, third_ = np.ix_(*found)
    return first_, second_, third_


@dataclass(frozen=True, slots=True)
class Part:
    """Some packets of one family, and the rules that can match any of them."""

    partition: Partition
    places: Sequence[int]
    """Which rules, by their place in what `parts` was given."""
    boxes: Sequence[Box]
    """Of each of these the cells that it matches."""


@dataclass(slots=True)
class Budget:
    """Work that is left to be done."""

    left: int = MOST_WORK

    def takes(self, work: int) -> bool:
        """Whether so many cells that rules match can be walked; if so they count."""
        if work > self.left:
            return False
        self.left -= work
        return True


def parts(
    rules: Sequence[Rule], family: int, budget: Budget, boundaries: Sequence[Rule] = ()
) -> list[Part] | None:
    """All packets of a family, by what rules and boundaries ask of them; None: over budget.

    Boundaries cut, and are in no part's `places`.
    """
    everyone = [*rules, *boundaries]
    if len(everyone) > _USUAL and not _can_be_cut(everyone, family):
        return None
    whole = Partition.of(everyone, family)
    found: list[Part] = []
    cells = 0
    for part in _cut(whole, rules, boundaries):
        cells += prod(part.shape)
        if prod(part.shape) > MOST_CELLS or cells > MOST_IN_ALL:
            return None
        made = part.part(rules)
        if not budget.takes(sum(map(len, made.boxes))):
            return None
        found.append(made)
    return found


def _can_be_cut(rules: Sequence[Rule], family: int) -> bool:
    """Whether the classes can be found at all."""
    existing = [rule for rule in rules if rule.exists_for(family)]
    pieces = piece_count(existing)
    if pieces > MOST_PIECES or pieces * len(existing) > MOST_BOUNDARIES:
        return False
    for side in ("source", "destination"):
        sets = dict.fromkeys(one for rule in existing for one in rule_sets(getattr(rule, side)))
        if len(sets) * sum(len(one.edges(family)) for one in sets) > MOST_BOUNDARIES:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Cut:
    """A part in the making."""

    partition: Partition
    places: Sequence[int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.partition.shape

    def part(self, rules: Sequence[Rule]) -> Part:
        boxes = [Box.of(self.partition, rules[place]) for place in self.places]
        return Part(self.partition, self.places, boxes)


def _cut(whole: Partition, rules: Sequence[Rule], boundaries: Sequence[Rule]) -> Iterator[_Cut]:
    work = prod(whole.shape) * len(rules)
    everyone = [*rules, *boundaries]
    if work <= _FEW:
        yield _Cut(whole, range(len(rules)))
        return
    concerned: list[list[int]] = [[] for _ in range(len(whole.services))]
    for place, rule in enumerate(everyone):
        for service in np.flatnonzero(whole.services_of(rule)).tolist():
            concerned[service].append(place)
    if work <= _VISIT * sum(map(len, concerned)) and prod(whole.shape) <= MOST_CELLS:
        yield _Cut(whole, range(len(rules)))
        return
    named = {place for place, rule in enumerate(everyone) if _names_ports(rule)}
    alike: dict[tuple[int | None, ...], int] = {}
    for service, places in enumerate(concerned):
        # What a named port matches differs by service; other rules do not tell these services apart.
        alike.setdefault((*places, service if named.intersection(places) else None), service)
    for service in alike.values():
        places = concerned[service]
        part = _of_service(whole, service, [everyone[place] for place in places])
        yield _Cut(part, [place for place in places if place < len(rules)])


def _names_ports(rule: Rule) -> bool:
    sides = (rule.source.ports, rule.source.not_ports, rule.destination.ports, rule.destination.not_ports)
    return any(ports is not None and ports.named for ports in sides)


def _of_service(whole: Partition, service: int, rules: Sequence[Rule]) -> Partition:
    """The packets of one class of services, cut by the rules that can match any of them.

    It stands for those that these rules do not tell apart from it, too.
    """
    only = np.zeros(len(whole.services), np.bool_)
    only[service] = True

    def classes(side: str, of: AddressClasses) -> AddressClasses:
        return of.of_sets(one for rule in rules for one in rule_sets(getattr(rule, side)))

    services: ServiceClasses = whole.services.where(only)
    sources, destinations = classes("source", whole.sources), classes("destination", whole.destinations)
    return Partition(whole.family, sources, destinations, services)
