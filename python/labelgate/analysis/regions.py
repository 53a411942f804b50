"""Sets of peers and of services in one canonical form: equal sets are equal values, and they can be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from labelgate.analysis.addresses import (
    IPV4,
    IPV6,
    Edges,
    Network,
    combine,
    complement,
    everything,
    networks,
    none,
)
from labelgate.analysis.services import WITH_PORTS, WITH_TYPES, Piece
from labelgate.flow import PROTOCOLS

_LAST = 65535
Spans = tuple[tuple[int, int], ...]
"""Sorted inclusive ranges that do not touch."""
Rows = tuple[tuple[int, int, Spans], ...]
"""(first source port, last one, destination ports): sorted, disjoint, neighbours differ."""
ALL_ROWS: Rows = ((0, _LAST, ((0, _LAST),)),)


class Region:
    """Addresses of both families."""

    def __init__(self, v4: Edges | None = None, v6: Edges | None = None) -> None:
        self.edges: dict[int, Edges] = {
            IPV4: none(IPV4) if v4 is None else v4,
            IPV6: none(IPV6) if v6 is None else v6,
        }
        self._key = (self.edges[IPV4].tobytes(), self.edges[IPV6].tobytes())

    @classmethod
    def of(cls, family: int, edges: Edges) -> Region:
        """Addresses of one family."""
        return cls(edges, None) if family == IPV4 else cls(None, edges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __or__(self, other: Region) -> Region:
        return Region(*(combine(self.edges[one], other.edges[one], np.logical_or) for one in (IPV4, IPV6)))

    def __and__(self, other: Region) -> Region:
        return Region(*(combine(self.edges[one], other.edges[one], np.logical_and) for one in (IPV4, IPV6)))

    @property
    def families(self) -> tuple[int, ...]:
        """Those of which it has an address."""
        return tuple(family for family, edges in self.edges.items() if edges.size)

    def rest(self) -> Region:
        """What is not in it, of the families that it has."""
        return Region(
            *(complement(self.edges[one]) if one in self.families else none(one) for one in (IPV4, IPV6))
        )

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The fewest nets that make it up, IPv4 first."""
        return tuple(net for family, edges in self.edges.items() for net in networks(family, edges))


EVERYWHERE = Region(everything(IPV4), everything(IPV6))


@dataclass(frozen=True, slots=True)
class ServiceGroup:
    """Protocols with the same packets of each in a set of services."""

    protocols: Spans
    opaque: bool
    """Later fragments, and what has neither ports nor types."""
    rows: Rows
    """Of protocols with ports; of ICMP `type << 8 | code` are destination ports. Empty for all others."""


@dataclass(frozen=True, slots=True)
class Services:
    """A set of services."""

    groups: tuple[ServiceGroup, ...]

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Services:
        """The union; pieces may overlap."""
        opaque: set[int] = set()
        boxes: dict[int, list[tuple[int, int, Spans]]] = {}
        for piece in pieces:
            if piece.is_opaque:
                opaque |= piece.protocols
            else:
                for protocol in piece.protocols:
                    boxes.setdefault(protocol, []).append((*piece.sports, (piece.dports,)))
        return cls._grouped(
            opaque, {protocol: _joined_rows(tuple(found)) for protocol, found in boxes.items()}
        )

    @classmethod
    def _grouped(cls, opaque: set[int], rows: dict[int, Rows]) -> Services:
        same: dict[tuple[bool, Rows], list[int]] = {}
        for protocol, found in sorted(rows.items()):
            if found:
                same.setdefault((protocol in opaque, found), []).append(protocol)
        groups = [ServiceGroup(_of_numbers(frozenset(numbers)), *key) for key, numbers in same.items()]
        if rest := frozenset(opaque.difference(*same.values())):
            groups.append(ServiceGroup(_of_numbers(rest), True, ()))
        return cls(tuple(sorted(groups, key=lambda group: group.protocols)))

    def _by_protocol(self) -> tuple[set[int], dict[int, Rows]]:
        opaque: set[int] = set()
        rows: dict[int, Rows] = {}
        for group in self.groups:
            for first, last in group.protocols:
                for protocol in range(first, last + 1):
                    rows[protocol] = group.rows
                    if group.opaque:
                        opaque.add(protocol)
        return opaque, rows

    def __or__(self, other: Services) -> Services:
        opaque, rows = self._by_protocol()
        others, other_rows = other._by_protocol()
        for protocol, found in other_rows.items():
            mine = rows.get(protocol, ())
            rows[protocol] = _rows([*mine, *found]) if mine and found else mine or found
        return self._grouped(opaque | others, rows)

    def rest(self) -> Services:
        """All other services."""
        opaque, rows = self._by_protocol()
        return self._grouped(
            set(range(256)) - opaque,
            {protocol: _rest(rows.get(protocol, ())) for protocol in WITH_PORTS + WITH_TYPES},
        )

    def text(self, most: int | None = 8) -> str:
        """In few words, for example `tcp 80,443` or `every protocol but udp 53 and sctp`.

        Of a list of ports `most` are named, and how many more there are; None: all.
        """
        rest = self.rest()
        if not rest.groups:
            return "every protocol"
        plain, other = self._text("; ", most), rest._text(" and ", most)
        return plain if len(plain) <= len(other) + 20 else f"every protocol but {other}"

    def _text(self, between: str, most: int | None) -> str:
        return between.join(_group_text(group, most) for group in self.groups)


_NAMES = {number: name for name, number in PROTOCOLS.items()}


def protocol_name(number: int) -> str:
    """`tcp`, or the number of a protocol that policy has no name for."""
    return _NAMES.get(number, f"protocol {number}")


@lru_cache(1 << 10)
def _of_numbers(numbers: frozenset[int]) -> Spans:
    return _spans((number, number) for number in numbers)


def _spans(ranges: Iterable[tuple[int, int]]) -> Spans:
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


@lru_cache(1 << 10)
def _joined_rows(boxes: tuple[tuple[int, int, Spans], ...]) -> Rows:
    """Protocols with ports mostly have the same ones."""
    return _rows(boxes)


def _rows(boxes: Sequence[tuple[int, int, Spans]]) -> Rows:
    """The union of boxes, cut by source ports."""
    starts = sorted({first for first, _, _ in boxes} | {last + 1 for _, last, _ in boxes})
    rows: list[tuple[int, int, Spans]] = []
    for first, end in pairwise(starts):
        dports = _spans(
            span for low, high, spans in boxes if low <= first and end - 1 <= high for span in spans
        )
        if rows and rows[-1][1] == first - 1 and rows[-1][2] == dports:
            rows[-1] = (rows[-1][0], end - 1, dports)
        elif dports:
            rows.append((first, end - 1, dports))
    return tuple(rows)


def _rest(rows: Rows) -> Rows:
    """The ports that are not there."""
    found: list[tuple[int, int, Spans]] = []
    next_sport = 0
    for first, last, dports in rows:
        if next_sport < first:
            found.append((next_sport, first - 1, ((0, _LAST),)))
        edges = [0, *(edge for low, high in dports for edge in (low, high + 1)), _LAST + 1]
        gaps = tuple((low, end - 1) for low, end in zip(edges[::2], edges[1::2], strict=True) if low < end)
        if gaps:
            found.append((first, last, gaps))
        next_sport = last + 1
    if next_sport <= _LAST:
        found.append((next_sport, _LAST, ((0, _LAST),)))
    return _rows(found)


def _group_text(group: ServiceGroup, most: int | None) -> str:
    numbers = [number for first, last in group.protocols for number in range(first, last + 1)]
    names = ", ".join(map(protocol_name, numbers)) if len(numbers) <= 6 else _protocol_spans(group.protocols)
    if not group.rows or (group.opaque and group.rows == ALL_ROWS):
        unread = group.opaque and not group.rows and any(one in WITH_PORTS + WITH_TYPES for one in numbers)
        return f"{names} fragments" if unread else names
    are_types = all(number in WITH_TYPES for number in numbers)
    sports: dict[Spans, list[tuple[int, int]]] = {}
    for first, last, dports in group.rows:
        sports.setdefault(dports, []).append((first, last))
    rows = " or ".join(_row_text(dports, found, are_types, most) for dports, found in sports.items())
    return f"{names} {rows}" + (" and fragments" if group.opaque else "")


def _protocol_spans(spans: Spans) -> str:
    return "protocols " + ",".join(_span(span) for span in spans)


def _row_text(dports: Spans, sports: list[tuple[int, int]], are_types: bool, most: int | None) -> str:
    if are_types:
        return ",".join(map(_type_text, dports))
    text = _some([_span(span) for span in dports], most)
    if sports == [(0, _LAST)]:
        return text
    ports = "any port" if dports == ((0, _LAST),) else text
    return f"{ports} from ports {_some([_span(span) for span in sports], most)}"


def _type_text(span: tuple[int, int]) -> str:
    """Of ICMP types and codes."""
    (kind, code), (last_kind, last_code) = divmod(span[0], 256), divmod(span[1], 256)
    if (code, last_code) == (0, 255):
        return f"type {_span((kind, last_kind))}"
    if kind == last_kind:
        return f"type {kind} code {_span((code, last_code))}"
    return f"type {kind} code {code} to type {last_kind} code {last_code}"


def _span(span: tuple[int, int]) -> str:
    first, last = span
    return str(first) if first == last else f"{first}-{last}"


def _some(texts: list[str], most: int | None) -> str:
    more = 0 if most is None else len(texts) - most
    return ",".join(texts) if more <= 0 else ",".join(texts[:most]) + f" and {more} more"
