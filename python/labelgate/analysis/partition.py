"""An exact partition of the packet space: the classes of packets that a set of rules cannot tell apart.

A `Partition` is made of all rules that a question is about, of one chain, of many, or of two programs:

>>> from labelgate.analysis.partition import Partition
>>> from labelgate.analysis.program import Ports, Rule, Side, set_of
>>> inner = Side((set_of(4, [(0x0A000000, 0x0AFFFFFF)]),))
>>> web = Side(ports=Ports(((80, 89),)))
>>> rules = [Rule("Deny", protocol=6, source=inner), Rule("Allow", protocol=6, destination=web)]
>>> partition = Partition.of(rules, family=4)
>>> partition.shape        # classes of sources, of destinations, of services
(2, 1, 3)
>>> [int(partition.matches(rule).sum()) for rule in rules]
[2, 2]

A cell is a class of sources, one of destinations and one of services. Each rule of the partition matches all
packets of a cell or none of them, so that whatever is decided by these rules is decided by one packet of each
cell: `packets` has one for every cell, as columns for `DecisionTable.decide_batch`, and `matches` says which
cells a rule matches, without a table. Nothing is sampled; the partition is as coarse as the rules let it be.

Boundaries that are no rule's (failsafe ports, encapsulation) are given as rules of their own. State is no
part of it: what conntrack, marks and interfaces settle is the business of who asks.

The core has the same for `labelgate diff` (`src/compare`): it keeps no rule apart once the cells are known,
while here each is asked which cells it matches. A test holds both to the same cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import IPV4, Edges, contains, distinct_edges, edges_where, everything
from labelgate.analysis.program import AddressSet, Ports, Rule, Side
from labelgate.analysis.services import ServiceClasses, unique_columns

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class AddressClasses:
    """The addresses of one family, cut into classes that lie in the same sets."""

    family: int
    starts: Edges
    """First address of every interval, sorted; the first one is 0."""
    of_interval: NDArray[np.intp]
    """The class of each interval."""
    firsts: Edges
    """The smallest address of each class."""
    members: dict[AddressSet, Mask]
    """Of each set which classes lie in it, bool (classes,)."""

    def __len__(self) -> int:
        return len(self.firsts)

    @classmethod
    def of(cls, sets: Iterable[AddressSet], family: int) -> AddressClasses:
        """The coarsest classes on which membership in each of the sets is constant."""
        distinct = list(dict.fromkeys(sets))
        edges = [found.edges(family) for found in distinct]
        starts = distinct_edges([everything(family), *edges])
        inside = np.array([contains(found, starts) for found in edges], np.bool_).reshape(
            len(edges), len(starts)
        )
        first, of_interval = unique_columns(inside, len(starts))
        members = {found: inside[row, first] for row, found in enumerate(distinct)}
        return cls(family, starts, of_interval, starts[first], members)

    def of_sets(self, sets: Iterable[AddressSet]) -> AddressClasses:
        """The coarsest for some of the sets."""
        distinct = list(dict.fromkeys(sets))
        rows = np.array([self.members[found] for found in distinct], np.bool_).reshape(-1, len(self))
        somewhere = np.flatnonzero(rows.any(axis=0))  # Few mostly: the others are one class.
        signature = np.zeros(len(self), np.intp)
        if len(somewhere):
            signature[somewhere] = unique_columns(rows[:, somewhere], len(somewhere))[1] + 1
        _, first, inverse = np.unique(signature, return_index=True, return_inverse=True)
        members = {found: rows[row, first] for row, found in enumerate(distinct)}
        return AddressClasses(
            self.family, self.starts, inverse[self.of_interval], self.firsts[first], members
        )

    def edges(self, classes: Mask) -> Edges:
        """The addresses of some classes."""
        return edges_where(self.starts, classes[self.of_interval])

    def class_of(self, addresses: Edges) -> NDArray[np.intp]:
        """The class of each address (`labelgate.analysis.addresses.points`)."""
        return self.of_interval[np.searchsorted(self.starts, addresses, side="right") - 1]


@dataclass(frozen=True)
class Packets:
    """Columns with one packet for each of some cells, as `DecisionTable.decide_batch` takes them."""

    src: NDArray[Any]
    """uint32 (n,) for IPv4, uint8 (n, 16) for IPv6."""
    dst: NDArray[Any]
    protocol: NDArray[np.uint8]
    sport: NDArray[np.uint16]
    dport: NDArray[np.uint16]
    """For ICMP and ICMPv6 `type << 8 | code`."""
    fragment: Mask
    """Ports, ICMP type and code cannot be read (M-19)."""

    def __len__(self) -> int:
        return len(self.protocol)


@dataclass(frozen=True)
class Partition:
    """Classes of sources, destinations and services of one family (4 or 6); see the head of this module."""

    family: int
    sources: AddressClasses
    destinations: AddressClasses
    services: ServiceClasses

    @classmethod
    def of(cls, rules: Iterable[Rule], family: int) -> Partition:
        """The coarsest partition by products that each of the rules answers constantly.

        Rules that do not exist for the family are left out: they match nothing.
        """
        existing = [rule for rule in rules if rule.exists_for(family)]
        return cls(
            family,
            AddressClasses.of((found for rule in existing for found in rule_sets(rule.source)), family),
            AddressClasses.of((found for rule in existing for found in rule_sets(rule.destination)), family),
            ServiceClasses.of(existing).shown_in(family),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many classes of sources, destinations and services there are."""
        return len(self.sources), len(self.destinations), len(self.services)

    def matches(self, rule: Rule) -> Mask:
        """Which cells a rule of this partition matches, bool in `shape`."""
        if not rule.exists_for(self.family):
            return np.zeros(self.shape, np.bool_)
        source = self.side_matches(rule.source, self.sources, "source")
        destination = self.side_matches(rule.destination, self.destinations, "destination")
        found: Mask = source[:, None, :] & destination[None, :, :] & self.services.matches(rule)
        return found

    def side_matches(self, side: Side, classes: AddressClasses, name: str) -> Mask:
        """Whether a side's criteria hold, bool (classes of addresses, of services)."""
        found = np.ones((len(classes), len(self.services)), np.bool_)
        for inside in side.in_sets:
            found &= classes.members[inside][:, None]
        for outside in side.not_in_sets:
            found &= ~classes.members[outside][:, None]
        if side.ports is not None:
            found &= self._ports(side.ports, classes, name)
        if side.not_ports is not None:
            found &= ~self._ports(side.not_ports, classes, name)
            if side.not_ports.ranges:
                found &= self.services.has_ports
        return found

    def _ports(self, ports: Ports, classes: AddressClasses, side: str) -> Mask:
        """M-17, M-25: bool (classes of addresses, of services)."""
        found = np.repeat(self.services.in_ranges(side, ports.ranges)[None, :], len(classes), axis=0)
        for named in ports.named:
            for protocol, port, addresses in named.members:
                found |= classes.members[addresses][:, None] & self.services.has_port(side, protocol, port)
        return found

    def services_of(self, rule: Rule) -> Mask:
        """Which classes of services packets that a rule matches can be of; no others are."""
        if not rule.exists_for(self.family):
            return np.zeros(len(self.services), np.bool_)
        services = self.services
        found = services.matches(rule)
        for name, side in (("source", rule.source), ("destination", rule.destination)):
            if side.ports is not None:
                inside = services.in_ranges(name, side.ports.ranges)
                for named in side.ports.named:
                    for protocol, port, _ in named.members:
                        inside |= services.has_port(name, protocol, port)
                found &= inside
            if side.not_ports is not None and side.not_ports.ranges:
                found &= services.has_ports & ~services.in_ranges(name, side.not_ports.ranges)
        return found

    def packets(
        self,
        sources: NDArray[np.intp] | None = None,
        destinations: NDArray[np.intp] | None = None,
        services: NDArray[np.intp] | None = None,
    ) -> Packets:
        """One packet for each cell of some classes (by number; None: all).

        In the order of the cells: `answers.reshape(sources, destinations, services)`.
        """
        sources, destinations, services = (
            np.arange(count) if numbers is None else numbers
            for count, numbers in zip(self.shape, (sources, destinations, services), strict=True)
        )
        shape = len(sources), len(destinations), len(services)
        src = column(self.family, self.sources.firsts[sources])
        dst = column(self.family, self.destinations.firsts[destinations])
        samples = self.services.samples[services]
        return Packets(
            np.repeat(src, shape[1] * shape[2], axis=0),
            _again(np.repeat(dst, shape[2], axis=0), shape[0]),
            *(
                _again(samples[name], shape[0] * shape[1])
                for name in ("protocol", "sport", "dport", "fragment")
            ),
        )


def _again(rows: NDArray[Any], times: int) -> NDArray[Any]:
    """All rows, so many times over."""
    return np.tile(rows, (times, *(1 for _ in rows.shape[1:])))


def column(family: int, addresses: Edges) -> NDArray[Any]:
    """Addresses as a column of `DecisionTable.decide_batch`."""
    if family == IPV4:
        return addresses.astype(np.uint32)
    return np.frombuffer(addresses.tobytes(), np.uint8).reshape(-1, 16).copy()


def rule_sets(side: Side) -> Iterator[AddressSet]:
    """Every set that a side of a rule asks about."""
    yield from side.in_sets
    yield from side.not_in_sets
    for ports in (side.ports, side.not_ports):
        for named in () if ports is None else ports.named:
            yield from (addresses for _, _, addresses in named.members)
