"""Classes of services: protocols with ports, ICMP types and codes, and packets that show neither."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import IPV4
from labelgate.analysis.program import Ports, Rule
from labelgate.arguments import shown
from labelgate.flow import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE

Mask = NDArray[np.bool_]

WITH_PORTS = (TCP, UDP, SCTP, UDPLITE)
WITH_TYPES = (ICMP, ICMPV6)
_IS_WITH_PORTS, _IS_WITH_TYPES = (np.isin(np.arange(256), numbers) for numbers in (WITH_PORTS, WITH_TYPES))
"""By protocol: a lookup is many times faster than `isin`."""
_LAST = 65535
_ECHO_REQUEST = {ICMP: 8 << 8, ICMPV6: 128 << 8}
USUAL_SOURCE_PORT = 40000
_EXPERIMENTAL = 253
"""A protocol number that nothing real has (RFC 3692), where any will do."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Packets of some protocols, with ports, or types and codes, in a rectangle; or with none to be read."""

    protocols: frozenset[int]
    is_opaque: bool
    """Later fragments (M-19), or protocols that have neither ports nor types."""
    sports: tuple[int, int] = (0, _LAST)
    """Inclusive; without meaning where opaque, and for ICMP."""
    dports: tuple[int, int] = (0, _LAST)
    """Inclusive; of ICMP `type << 8 | code`; without meaning where opaque."""


_SAMPLE = np.dtype(
    [("protocol", np.uint8), ("sport", np.uint16), ("dport", np.uint16), ("fragment", np.bool_)]
)


@dataclass(frozen=True)
class ServiceClasses:
    """What rules tell apart beside addresses."""

    pieces: tuple[tuple[Piece, ...], ...]
    """Of each class what it is made of, disjoint."""
    samples: NDArray[Any]
    """One of each class: `protocol`, `sport`, `dport`, `fragment`, as `decide_batch` takes them."""

    def __len__(self) -> int:
        return len(self.pieces)

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> ServiceClasses:
        """The coarsest that every criterion on protocol, ports and ICMP of these rules answers constantly."""
        return _classes(_Criteria.of(rules))

    def shown_in(self, family: int) -> ServiceClasses:
        """By packets that the family has, where a class has any: rules may leave ICMP in a class of IPv6."""
        stray = ICMPV6 if family == IPV4 else ICMP
        samples = self.samples.copy()
        for at in np.flatnonzero(self.is_protocol(stray)):
            real = (piece for piece in self.pieces[at] if stray not in piece.protocols)
            samples[at] = next(map(_sample, real), samples[at])
        return ServiceClasses(self.pieces, samples)

    @classmethod
    def one(cls, protocol: int, dport: int | None) -> ServiceClasses:
        """Of a packet without ports; `dport` of ICMP is `type << 8 | code`, None where it is not shown."""
        is_opaque = dport is None
        piece = Piece(frozenset((protocol,)), is_opaque, dports=(dport or 0, dport or 0))
        sample = (protocol, 0, dport or 0, is_opaque and protocol in WITH_PORTS + WITH_TYPES)
        return cls(((piece,),), np.array([sample], _SAMPLE))

    def where(self, chosen: Mask) -> ServiceClasses:
        """Some of the classes, in their order."""
        pieces = tuple(found for found, is_chosen in zip(self.pieces, chosen, strict=True) if is_chosen)
        return ServiceClasses(pieces, self.samples[chosen])

    @cached_property
    def has_ports(self) -> Mask:
        """Which classes show ports."""
        found: Mask = _IS_WITH_PORTS[self.samples["protocol"]] & ~self.samples["fragment"]
        return found

    def is_protocol(self, number: int) -> Mask:
        """Which classes are of this protocol."""
        found: Mask = self.samples["protocol"] == number
        return found

    def in_ranges(self, side: str, ranges: Iterable[tuple[int, int]]) -> Mask:
        """Which classes have the port of this side, source or destination, in one of the ranges."""
        ports = self.samples["sport" if side == "source" else "dport"]
        inside = np.zeros(len(self), np.bool_)
        for first, last in ranges:
            inside |= (first <= ports) & (ports <= last)
        return inside & self.has_ports

    def has_port(self, side: str, protocol: int, port: int) -> Mask:
        """Which classes are of this protocol and port."""
        return self.in_ranges(side, [(port, port)]) & self.is_protocol(protocol)

    def has_type(self, icmp: tuple[int, int | None]) -> Mask:
        """Which classes show this ICMP type, and code if one is given (M-33)."""
        first, last = type_range(icmp)
        numbers = self.samples["dport"]
        found: Mask = self.has_types & (first <= numbers) & (numbers <= last)
        return found

    @cached_property
    def has_types(self) -> Mask:
        """Which classes show an ICMP type."""
        found: Mask = _IS_WITH_TYPES[self.samples["protocol"]] & ~self.samples["fragment"]
        return found

    def matches(self, rule: Rule) -> Mask:
        """Which classes satisfy a rule's protocol and ICMP criteria; ports stand in `Partition.matches`."""
        found = np.ones(len(self), np.bool_)
        if rule.protocol is not None:
            found &= self.is_protocol(rule.protocol)
        if rule.not_protocol is not None:
            found &= ~self.is_protocol(rule.not_protocol)
        if rule.icmp is not None:
            found &= self.has_type(rule.icmp)
        if rule.not_icmp is not None:
            found &= self.has_types & ~self.has_type(rule.not_icmp)
        return found


def check_port(protocol: int, port: int) -> None:
    """Of questions about one port.

    Raises:
        TypeError: one of them is no number.
        ValueError: the protocol has no ports, or no port has the number.
    """
    protocols = f"expected one that has ports: {', '.join(map(str, WITH_PORTS))}"
    for name, value, expected in (("protocol", protocol, protocols), ("port", port, "expected 1..65535")):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}: found {shown(value)}, {expected}")
        if value not in (WITH_PORTS if name == "protocol" else range(1, _LAST + 1)):
            raise ValueError(f"{name}: found {value}, {expected}")


def unique_columns(rows: Mask, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Equal columns of bool (n, count) as one: where each is first seen, in order, and which each one is."""
    if not len(rows):
        return np.zeros(1, np.intp), np.zeros(count, np.intp)
    packed = np.ascontiguousarray(np.packbits(rows, axis=0).T)
    # As texts of one length, whose zero bytes at the end numpy leaves out. A dictionary is faster than
    # sorting: columns are few mostly, and of many most are equal.
    columns = packed.view(f"S{packed.shape[1]}").reshape(-1).tolist()
    numbers = {column: number for number, column in enumerate(dict.fromkeys(columns))}
    of_column = np.array(list(map(numbers.__getitem__, columns)), np.intp)
    first = np.empty(len(numbers), np.intp)
    first[of_column[::-1]] = np.arange(count - 1, -1, -1)  # Of several to one place the last one stays.
    return first, of_column


def type_range(icmp: tuple[int, int | None]) -> tuple[int, int]:
    """The numbers `type << 8 | code` of a type, or of one code of it."""
    kind, code = icmp
    return (kind << 8, kind << 8 | 255) if code is None else (kind << 8 | code, kind << 8 | code)


def _sample(piece: Piece) -> tuple[int, int, int, bool]:
    """A packet of the piece, a usual one if there is one."""
    protocol = _EXPERIMENTAL if _EXPERIMENTAL in piece.protocols else min(piece.protocols)
    if piece.is_opaque:
        return protocol, 0, 0, protocol in WITH_PORTS + WITH_TYPES
    (first, last), wanted = piece.dports, _ECHO_REQUEST.get(protocol, 1)
    dport = wanted if first <= wanted <= last else first
    if protocol in WITH_TYPES:
        return protocol, 0, dport, False
    low, high = piece.sports
    return protocol, USUAL_SOURCE_PORT if low <= USUAL_SOURCE_PORT <= high else low, dport, False


@dataclass(frozen=True)
class _Criteria:
    """All that rules ask of a packet beside its addresses, each thing once."""

    protocols: frozenset[int]
    types: frozenset[tuple[int, int | None]]
    ranges: frozenset[tuple[int | None, str, tuple[tuple[int, int], ...]]]
    """(protocol of the rule, side, ranges)."""
    named: frozenset[tuple[str, int, int]]
    """(side, protocol, port)."""
    visible: tuple[bool, bool]
    """Whether anybody asks if ports, or if types, can be read at all: only negated criteria do (M-19)."""

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> _Criteria:
        protocols: set[int] = set()
        types: set[tuple[int, int | None]] = set()
        ranges: set[tuple[int | None, str, tuple[tuple[int, int], ...]]] = set()
        named: set[tuple[str, int, int]] = set()
        for rule in rules:
            for number in (rule.protocol, rule.not_protocol):
                if number is not None:
                    protocols.add(number)
            for icmp in (rule.icmp, rule.not_icmp):
                if icmp is not None:
                    types.add(icmp)
            for side, ports in _port_criteria(rule):
                if ports.ranges:
                    ranges.add((rule.protocol, side, ports.ranges))
                for one in ports.named:
                    named.update((side, protocol, port) for protocol, port, _ in one.members)
        negated = [ports for rule in rules for ports in (rule.source.not_ports, rule.destination.not_ports)]
        visible = (
            any(ports is not None and bool(ports.ranges) for ports in negated),
            any(rule.not_icmp is not None for rule in rules),
        )
        return cls(frozenset(protocols), frozenset(types), frozenset(ranges), frozenset(named), visible)

    def pieces(self) -> Iterator[Piece]:
        """The packet space, cut wherever one of the criteria changes."""
        known = self.protocols | {protocol for _, protocol, _ in self.named} | {*WITH_PORTS, *WITH_TYPES}
        rest = frozenset(range(256)) - known
        types = intervals(type_range(icmp) for icmp in self.types)
        for protocol in sorted(known):
            one = frozenset((protocol,))
            if protocol in WITH_PORTS:
                sports, dports = self._ports("source", protocol), self._ports("destination", protocol)
                yield from (Piece(one, False, sport, dport) for sport in sports for dport in dports)
            elif protocol in WITH_TYPES:
                yield from (Piece(one, False, dports=found) for found in types)
            yield Piece(one, True)
        if rest:
            yield Piece(rest, True)

    def count(self) -> int:
        """How many `pieces` there are at most, without making them."""
        ports = (
            len(self._ports("source", protocol)) * len(self._ports("destination", protocol))
            for protocol in WITH_PORTS
        )
        return sum(ports) + 2 * (2 * len(self.types) + 1) + 257

    def _ports(self, side: str, protocol: int) -> list[tuple[int, int]]:
        ranges = [
            found
            for number, where, several in self.ranges
            if where == side and number in (None, protocol)
            for found in several
        ]
        named = [(port, port) for where, number, port in self.named if (where, number) == (side, protocol)]
        return intervals(ranges + named)

    def answers(self, services: ServiceClasses) -> Iterator[Mask]:
        """Of each criterion which classes satisfy it."""
        yield from map(services.is_protocol, sorted(self.protocols))
        yield from (services.has_type(icmp) for icmp in self.types)
        if self.visible[1]:
            yield services.has_types
        for protocol, side, ranges in self.ranges:
            inside = services.in_ranges(side, ranges)
            yield inside if protocol is None else inside & services.is_protocol(protocol)
        if self.visible[0]:
            yield services.has_ports
        yield from (services.has_port(*named) for named in self.named)


def piece_count(rules: Sequence[Rule]) -> int:
    """How many pieces the classes of these rules would be made of, about: what they cost to make."""
    return _Criteria.of(rules).count()


@lru_cache(maxsize=64)
def _classes(criteria: _Criteria) -> ServiceClasses:
    """Both families of a chain mostly ask the same."""
    pieces = list(criteria.pieces())
    samples = np.array([_sample(piece) for piece in pieces], _SAMPLE)
    every = ServiceClasses(tuple((piece,) for piece in pieces), samples)
    signature = np.array(list(criteria.answers(every)), np.bool_).reshape(-1, len(pieces))
    first, classes = unique_columns(signature, len(pieces))
    grouped: list[list[Piece]] = [[] for _ in first]
    for piece, number in zip(pieces, classes, strict=True):
        grouped[number].append(piece)
    return ServiceClasses(tuple(map(tuple, grouped)), samples[first])


def _port_criteria(rule: Rule) -> Iterator[tuple[str, Ports]]:
    for name, side in (("source", rule.source), ("destination", rule.destination)):
        if side.ports is not None:
            yield name, side.ports
        if side.not_ports is not None:
            yield name, side.not_ports


def intervals(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """0..65535, cut at the ends of inclusive ranges.

    >>> intervals([(80, 89), (85, 100)])
    [(0, 79), (80, 84), (85, 89), (90, 100), (101, 65535)]
    """
    found = list(ranges)
    edges = sorted({0, *(first for first, _ in found), *(last + 1 for _, last in found)} - {_LAST + 1})
    return list(zip(edges, [*(edge - 1 for edge in edges[1:]), _LAST], strict=True))
