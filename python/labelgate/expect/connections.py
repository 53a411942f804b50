"""New connections between workloads, wherever they live: all that an expectation asks about, exactly.

Connections that policy cannot tell apart are one cell: they meet the same chains, and each rule of these
matches all of them or none. Every cell is asked about, by column; of those that are answered alike, by the
same rules, one becomes a `Question`, with the number of those that it stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import IPV4, IPV6
from labelgate.analysis.partition import AddressClasses, Mask, Partition
from labelgate.analysis.program import Rule
from labelgate.analysis.services import ServiceClasses, unique_columns
from labelgate.expect.ends import End, Numbers, both_ends
from labelgate.expect.question import Question, packet
from labelgate.expect.scope import PortCriteria, Service
from labelgate.expect.sides import Side, Unanswerable, is_pair
from labelgate.expect.world import World
from labelgate.flow import VERDICTS
from labelgate.resources import Expectation

MOST_CELLS = 50_000_000
"""Of one expectation: half a minute."""
_FEW = 256
"""So many questions are asked one by one."""
_AT_ONCE = 1 << 20
"""Cells of one batch, about."""
_DENY = VERDICTS.index("deny")
_PASSING = ("Pass", "Log")


def connections(
    world: World, expectation: Expectation, sources: Sequence[Side], destinations: Sequence[Side]
) -> Iterator[Question]:
    """One question for each kind of answer.

    Raises:
        Unanswerable: there are too many cells, or neither end of one is a workload.
    """
    service = Service.of(expectation)
    ports = service.points
    is_single = all(side.is_single for side in (*sources, *destinations))
    if is_single and ports is not None and len(sources) * len(destinations) * len(ports) <= _FEW:
        yield from _each(world, expectation, product(sources, destinations), ports)
        return
    for family in (IPV4, IPV6):
        sides = [[side for side in end if side.family == family] for end in (sources, destinations)]
        if all(sides):
            ends = both_ends(world, family, sides[0], sides[1], service)
            yield from _Grid(world, expectation, service, *ends).questions()


def _each(
    world: World,
    expectation: Expectation,
    pairs: Iterable[tuple[Side, Side]],
    ports: Sequence[int | None],
) -> Iterator[Question]:
    """Every pair of single addresses, by itself: there is nothing to tell apart."""
    for pair in filter(lambda pair: is_pair(*pair), pairs):
        if not any(str(side.address) in world.owners for side in pair):
            raise _nobody(*pair)
        for port in ports:
            yield Question(*pair, packet(expectation, *pair, port), None)


def _nobody(source: Side, destination: Side) -> Unanswerable:
    """Where neither end is a workload nobody's policy is asked: all would be allowed."""
    return Unanswerable(
        f"neither {source} nor {destination} is a workload, so no policy is asked; for what a node makes of "
        "them give `node`, and `in` or `out`"
    )


@dataclass(frozen=True)
class _Grid:
    """The cells of one family."""

    world: World
    expectation: Expectation
    service: Service
    source: End
    destination: End

    def questions(self) -> Iterator[Question]:
        """Part by part."""
        self._check_owners()
        parts = list(self._parts())
        sources, destinations = len(self.source.numbers), len(self.destination.numbers)
        cells = sum(sources * len(part.numbers) * len(part.services) for part in parts)
        if cells > MOST_CELLS:
            raise Unanswerable(
                f"too many questions: policy tells {sources} kinds of sources and {destinations} of "
                f"destinations apart, {cells} combinations with their ports, expected at most {MOST_CELLS}; "
                "split it"
            )
        for part in parts:
            yield from part.questions()

    def _check_owners(self) -> None:
        """Of no cell both ends are nobody's."""
        strangers = []
        for end in (self.source, self.destination):
            found = end.numbers[~end.meets(end.chains)[end.numbers]]
            if not found.size:
                return
            strangers.append(end.sides(int(found[0]))[0])
        raise _nobody(*strangers)

    def _parts(self) -> Iterator[_Part]:
        """The destinations, grouped by the rules that tell ports apart there."""
        asked = self.destination.numbers
        found = self._port_criteria()
        rows = np.array(list(found.values()), np.bool_).reshape(len(found), len(self.destination.classes))
        rows = rows[:, asked]
        first, groups = unique_columns(rows, len(asked))
        for number, example in enumerate(first):
            cuts = [cut for cut, is_met in zip(found, rows[:, example], strict=True) if is_met]
            yield _Part(self, asked[groups == number], self.service.classes(cuts))

    def _port_criteria(self) -> dict[PortCriteria, Mask]:
        """What rules ask of the destination's port, and at which of the destinations."""
        classes = self.destination.classes
        found: dict[PortCriteria, Mask] = {}
        for rules in (self.source.rules, self.destination.rules):
            for rule, chains in rules.items():
                criteria = rule.destination.ports, rule.destination.not_ports
                if criteria == (None, None):
                    continue
                met = _is_inside(classes, rule)
                if rules is self.destination.rules:
                    met &= self.destination.meets(chains)
                found[criteria] = found[criteria] | met if criteria in found else met
        return found

    @cached_property
    def lone(self) -> list[tuple[int, int]]:
        """Pairs of classes that are nobody but one endpoint at both ends: it is not asked about itself."""
        alone: list[dict[str, list[int]]] = []
        for end in (self.source, self.destination):
            of_owner: dict[str, list[int]] = {}
            for number in end.named:
                (first, *others) = end.sides(number)
                if first.owner is not None and not others:
                    of_owner.setdefault(first.owner.name, []).append(number)
            alone.append(of_owner)
        both = alone[0].keys() & alone[1].keys()
        return [pair for owner in both for pair in product(alone[0][owner], alone[1][owner])]


def _is_inside(classes: AddressClasses, rule: Rule) -> Mask:
    """The classes that satisfy what a rule says of the destination's address, ports aside."""
    found = np.ones(len(classes), np.bool_)
    for inside in rule.destination.in_sets:
        found &= classes.members[inside]
    for outside in rule.destination.not_in_sets:
        found &= ~classes.members[outside]
    return found


@dataclass(frozen=True)
class _Part:
    """All sources, some destinations, and the ports that the rules tell apart there."""

    grid: _Grid
    numbers: Numbers
    services: ServiceClasses

    @cached_property
    def _partition(self) -> Partition:
        source, destination = self.grid.source.classes, self.grid.destination.classes
        return Partition(source.family, source, destination, self.services)

    def questions(self) -> Iterator[Question]:
        """In bounded memory."""
        rows = max(1, _AT_ONCE // (len(self.grid.source.numbers) * len(self.services)))
        for start in range(0, len(self.numbers), rows):
            yield from self._questions(self.numbers[start : start + rows])

    def _questions(self, destinations: Numbers) -> Iterator[Question]:
        sources = self.grid.source.numbers
        asked = self._partition.packets(sources, destinations)
        egress, ingress = self.grid.world.cluster.connectivity_batch(
            asked.src, asked.dst, asked.protocol, asked.sport, asked.dport, fragment=asked.fragment
        )
        denied = (egress[0] == _DENY) | (ingress[0] == _DENY)
        shape = len(sources), len(destinations), len(self.services)
        cells = np.flatnonzero(self._is_asked(destinations, shape))
        columns: Iterator[NDArray[Any]] = chain(egress, ingress, self._passed(destinations))
        for first, count in _kinds(len(cells), (column[cells] for column in columns)):
            row, service = divmod(int(cells[first]), shape[2])
            source, destination = divmod(row, shape[1])
            pair = self._pair(int(sources[source]), int(destinations[destination]))
            port = int(self.services.samples["dport"][service]) if self.grid.service.dports else None
            is_denied = bool(denied[cells[first]])
            asks = packet(self.grid.expectation, *pair, port)
            yield Question(*pair, asks, None, count=count, is_denied=is_denied)

    def _is_asked(self, destinations: Numbers, shape: tuple[int, int, int]) -> Mask:
        """Of each cell whether it is more than one endpoint and itself."""
        found = np.ones(shape, np.bool_)
        at = {int(number): place for place, number in enumerate(destinations)}
        for source, destination in self.grid.lone:
            if destination in at:
                found[np.searchsorted(self.grid.source.numbers, source), at[destination]] = False
        return found.reshape(-1)

    def _pair(self, source: int, destination: int) -> tuple[Side, Side]:
        """Two that stand for a pair of classes."""
        found = product(self.grid.source.sides(source), self.grid.destination.sides(destination))
        return next(pair for pair in found if is_pair(*pair))

    def _passed(self, destinations: Numbers) -> Iterator[NDArray[np.bool_]]:
        """Of each rule that may match without deciding, which cells it matches: outcomes do not tell."""
        for end in (self.grid.source, self.grid.destination):
            for rule, chains in end.rules.items():
                if rule.action not in _PASSING:
                    continue
                source, destination = self._rows(rule, destinations)
                if end is self.grid.source:
                    source &= end.meets(chains)[end.numbers, None]
                else:
                    destination &= end.meets(chains)[destinations, None]
                if source.any() and destination.any():
                    yield (source[:, None, :] & destination[None, :, :]).reshape(-1)

    def _rows(self, rule: Rule, destinations: Numbers) -> tuple[Mask, Mask]:
        """What a rule says of source and destination, bool (classes, services)."""
        grid, matches = self.grid, self._partition.side_matches
        source = matches(rule.source, grid.source.classes, "source")[grid.source.numbers]
        destination = matches(rule.destination, grid.destination.classes, "destination")[destinations]
        return source & self.services.matches(rule), destination


def _kinds(count: int, columns: Iterable[NDArray[np.integer | np.bool_]]) -> Iterator[tuple[int, int]]:
    """Of rows that are equal in all columns the first one, and how many there are; in order."""
    key, size = np.zeros(count, np.int64), 1
    for column in columns:
        values = int(column.max(initial=0)) + 1
        if size * values >= 1 << 62:
            _, key = np.unique(key, return_inverse=True)
            size = int(key.max(initial=0)) + 1
        key = key * values + column
        size *= values
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    order = np.argsort(first)
    yield from zip(first[order].tolist(), counts[order].tolist(), strict=True)
