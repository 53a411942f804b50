"""Changes of verdicts: found cell by cell, told in as few rectangles as cover them exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv6Address, ip_network
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import (
    IPV4,
    IPV6,
    Edges,
    contains,
    edges_of_networks,
    numbers,
    points,
    ranges,
)
from labelgate.analysis.judged import Comparison, Kind, Member
from labelgate.analysis.partition import AddressClasses, Packets, Partition
from labelgate.analysis.program import Direction
from labelgate.analysis.regions import Region, Services, protocol_name
from labelgate.analysis.services import WITH_PORTS, WITH_TYPES
from labelgate.flow import VERDICTS, Hook, Verdict

MOST_CELLS = 1 << 21
"""Asked about at a time: bounds memory, not completeness."""
_WIDTH: dict[Verdict, int] = {
    "deny": 0, "continue": 1, "allow": 2, "allow-notrack": 2, "allow-skip-hep": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """What one state says of a packet."""

    verdict: Verdict
    tier: str | None
    policy: str | None
    rule: int | None
    reason: str


@dataclass(frozen=True)
class Example:
    """One packet of a change, and what decides it in either state."""

    hook: Hook
    packet: dict[str, Any]
    """The fields of a packet line (`labelgate explain --packets`)."""
    old: Judgement
    new: Judgement


@dataclass(frozen=True)
class Change:
    """Packets whose verdict changes alike: all of `peers` with all of `services`, at each endpoint."""

    endpoints: frozenset[str]
    presence: str
    """In which state they exist: both, old or new."""
    kind: Kind
    direction: Direction
    hooks: tuple[Hook, ...]
    own: Region | None
    """Addresses on the endpoints' own side, where rules tell them apart; None: any."""
    peers: Region
    services: Services
    old: Verdict
    new: Verdict
    sample: Callable[[], Example] = field(compare=False)
    """Finds `example`: many changes are joined, and one of their examples is shown."""

    @cached_property
    def example(self) -> Example:
        """One packet of it."""
        return self.sample()

    @property
    def widens(self) -> bool:
        """Whether more gets through: deny, then continue, then the allows."""
        return _WIDTH[self.new] > _WIDTH[self.old]

    def width(self) -> int:
        """More than 0: wider, less: narrower, 0: other, for example allow for allow-notrack."""
        return _WIDTH[self.new] - _WIDTH[self.old]


def changes_of(comparison: Comparison, known: dict[int, Edges]) -> Iterator[Change]:
    """All changes at a place; `known` are addresses by family, sorted, that make good examples."""
    for family in (IPV4, IPV6):
        if not any(_has_family(member, family) for member in comparison.members):
            continue
        partition = Partition.of(comparison.rules, family)
        own, peers = partition.destinations, partition.sources
        if comparison.direction == "egress":
            own, peers = peers, own
        for classes, members in _by_own_classes(comparison.members, own, family):
            for chosen, span in _chunks(classes, peers, partition):
                answers = _Answers.of(comparison, partition, chosen, span)
                yield from _rectangles(answers, members, known)


def _has_family(member: Member, family: int) -> bool:
    """Whether packets of this IP version can be its own."""
    return not member.nets or any(net.version == family for net in member.nets)


def _by_own_classes(
    members: Sequence[Member], own: Any, family: int
) -> Iterator[tuple[NDArray[np.intp], list[Member]]]:
    """Members by the classes that their own addresses lie in; nobody who has no address of the family."""
    groups: dict[tuple[int, ...], list[Member]] = {}
    every = tuple(range(len(own)))
    for member in members:
        if not _has_family(member, family):
            continue
        nets = [net for net in member.nets if net.version == family]
        found = every if not nets or len(own) == 1 else tuple(sorted(_classes_of(nets, own, family)))
        groups.setdefault(found, []).append(member)
    for classes, found_members in groups.items():
        yield np.array(classes, np.intp), found_members


def _classes_of(nets: Iterable[Any], own: Any, family: int) -> set[int]:
    found: set[int] = set()
    for net in nets:
        span = points(family, (int(net.network_address), int(net.broadcast_address)))
        first, last = np.searchsorted(own.starts, span, side="right")
        found.update(own.of_interval[first - 1 : last].tolist())
    return found


def _chunks(
    own: NDArray[np.intp], peers: Any, partition: Partition
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    size = max(1, MOST_CELLS // max(1, len(own) * len(partition.services)))
    for first in range(0, len(peers), size):
        yield own, np.arange(first, min(first + size, len(peers)))


@dataclass(frozen=True)
class _Answers:
    """What both states say about cells, in the order (own, peer, service)."""

    comparison: Comparison
    partition: Partition
    own: NDArray[np.intp]
    """Classes of the endpoints' own side."""
    peers: NDArray[np.intp]
    verdicts: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    outcomes: tuple[NDArray[np.uint32], NDArray[np.uint32]]
    packets: Packets

    @classmethod
    def of(
        cls, comparison: Comparison, partition: Partition, own: NDArray[np.intp], peers: NDArray[np.intp]
    ) -> _Answers:
        is_egress = comparison.direction == "egress"
        packets = partition.packets(own, peers) if is_egress else partition.packets(peers, own)
        shape = (len(own), len(peers)) if is_egress else (len(peers), len(own))
        found: list[tuple[Any, Any]] = []
        for answers in comparison.ask(packets):
            cubes = (answer.reshape(*shape, -1) for answer in answers)
            verdicts, outcomes = (cube if is_egress else cube.swapaxes(0, 1) for cube in cubes)
            found.append((verdicts, outcomes))
        (old, before), (new, after) = found
        return cls(comparison, partition, own, peers, (old, new), (before, after), packets)

    @property
    def peer_classes(self) -> Any:
        is_egress = self.comparison.direction == "egress"
        return self.partition.destinations if is_egress else self.partition.sources

    @property
    def own_classes(self) -> Any:
        is_egress = self.comparison.direction == "egress"
        return self.partition.sources if is_egress else self.partition.destinations


def _rectangles(answers: _Answers, members: list[Member], known: dict[int, Edges]) -> Iterator[Change]:
    old, new = answers.verdicts
    pairs = old * np.uint8(len(VERDICTS)) + new
    for pair in np.flatnonzero(np.bincount(pairs[old != new].reshape(-1))):
        for own, peers, services in _boxes(pairs == pair):
            verdicts = divmod(int(pair), len(VERDICTS))
            yield from _changes(answers, members, known, (own, peers, services), verdicts)


def _boxes(cells: NDArray[np.bool_]) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Disjoint products of indexes (own, peers, services) that make up the cells."""
    slices: dict[bytes, list[int]] = {}
    for own in range(len(cells)):
        slices.setdefault(np.packbits(cells[own]).tobytes(), []).append(own)
    for owns in slices.values():
        plane = cells[owns[0]]
        if not plane.any():
            continue
        by_peer, by_service = _equal_rows(plane), _equal_rows(plane.T)
        if len(by_peer) <= len(by_service):
            yield from ((np.array(owns), peers, services) for peers, services in by_peer)
        else:
            yield from ((np.array(owns), peers, services) for services, peers in by_service)


def _equal_rows(plane: NDArray[np.bool_]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Rows that are the same, and which columns they have; empty ones are left out."""
    rows: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(plane.any(axis=1)):
        rows.setdefault(np.packbits(plane[row]).tobytes(), []).append(int(row))
    return [(np.array(found), np.flatnonzero(plane[found[0]])) for found in rows.values()]


def _changes(
    answers: _Answers,
    members: list[Member],
    known: dict[int, Edges],
    box: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    verdicts: tuple[int, int],
) -> Iterator[Change]:
    """One change for all members, or for those who are in one state only apart."""
    own, peers, services = box
    comparison, family = answers.comparison, answers.partition.family
    peer_edges = _edges(answers.peer_classes, answers.peers[peers])
    pieces = [piece for one in services for piece in answers.partition.services.pieces[one]]
    is_whole = len(own) == len(answers.own)
    own_region = None if is_whole else Region.of(family, _edges(answers.own_classes, answers.own[own]))
    cell = (int(own[0]), int(peers[0]), int(services[0]))
    old, new = (VERDICTS[found] for found in verdicts)
    by_presence: dict[str, list[Member]] = {}
    for member in members:
        by_presence.setdefault(member.presence, []).append(member)
    for presence, several in by_presence.items():
        mine = own_region
        if mine is not None and several[0].nets:
            mine &= Region.of(family, edges_of_networks(family, [net for one in several for net in one.nets]))
        yield Change(
            frozenset(member.name for member in several), presence, comparison.kind, comparison.direction,
            hooks(comparison, old, new), mine, Region.of(family, peer_edges), Services.of(pieces), old, new,
            partial(_example, _Cell.of(answers, cell), several[0], known, (old, new)),
        )  # fmt: skip


def hooks(comparison: Comparison, old: Verdict, new: Verdict) -> tuple[Hook, ...]:
    """Where a change shows: POSTROUTING only denies (E-37), in INPUT a setting comes behind (E-50)."""
    found = comparison.hooks
    if found == ("filter-output", "mangle-postrouting") and "deny" not in (old, new):
        return found[:1]
    if comparison.kind == "workload" and comparison.direction == "egress":
        denied = all(state.settings.endpoint_to_host == "Drop" for state in comparison.states)
        return found[:1] if denied else found
    return found


def _edges(classes: AddressClasses, chosen: NDArray[np.intp] | list[int]) -> Edges:
    mask = np.zeros(len(classes), np.bool_)
    mask[chosen] = True
    return classes.edges(mask)


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell of a partition, and what decides it."""

    comparison: Comparison
    partition: Partition
    own: int
    """Class of the endpoints' own side."""
    peer: int
    service: int
    outcomes: tuple[int, int]

    @classmethod
    def of(cls, answers: _Answers, cell: tuple[int, int, int]) -> _Cell:
        """Keeps nothing of the other answers."""
        own, peer, service = cell
        before, after = (int(found[cell]) for found in answers.outcomes)
        return cls(
            answers.comparison, answers.partition, int(answers.own[own]), int(answers.peers[peer]), service,
            (before, after),
        )  # fmt: skip


def _example(
    cell: _Cell, member: Member, known: dict[int, Edges], verdicts: tuple[Verdict, Verdict]
) -> Example:
    """A packet of the cell, with addresses that somebody has if there are any."""
    comparison, family = cell.comparison, cell.partition.family
    is_egress = comparison.direction == "egress"
    sides = (cell.partition.sources, cell.partition.destinations)
    own, peers = sides if is_egress else sides[::-1]
    subject = comparison.subjects[1]
    endpoint = subject.endpoint or comparison.subjects[0].endpoint
    nets = member.nets or [ip_network(address) for address in endpoint.addresses] if endpoint else []
    theirs = [int(net.network_address) for net in nets if net.version == family]
    mine = example_address(family, _edges(own, [cell.own]), points(family, sorted(theirs)))
    other = example_address(family, _edges(peers, [cell.peer]), known[family])
    src, dst = (mine, other) if is_egress else (other, mine)
    service = _service_fields(cell.partition.services.samples[cell.service])
    packet = {"src": address_text(family, src), "dst": address_text(family, dst), **service}
    if subject.interface is not None:
        packet["in" if comparison.direction == "ingress" else "out"] = subject.interface
    judged = (_judgement(comparison, side, verdicts[side], cell.outcomes[side]) for side in (0, 1))
    return Example(comparison.hooks[0], packet, *judged)


def example_address(family: int, edges: Edges, wanted: Edges) -> int:
    """One of the addresses, one that is wanted if there is any, else the first that is not the very first."""
    inside = wanted[contains(edges, wanted)]
    if len(inside):
        return numbers(family, inside[:1])[0]
    for first, last in ranges(family, edges):
        return min(first + 1, last) if first == 0 or last - first > 1 else first
    raise AssertionError("a class has an address")


def address_text(family: int, number: int) -> str:
    """Of an address of family 4 or 6."""
    return str(IPv4Address(number) if family == IPV4 else IPv6Address(number))


def _service_fields(sample: Any) -> dict[str, Any]:
    protocol = int(sample["protocol"])
    name: str | int = protocol_name(protocol) if protocol in (*WITH_PORTS, *WITH_TYPES) else protocol
    if sample["fragment"]:
        return {"protocol": name, "fragment": True}
    if protocol in WITH_PORTS:
        return {"protocol": name, "sport": int(sample["sport"]), "dport": int(sample["dport"])}
    if protocol in WITH_TYPES:
        kind, code = divmod(int(sample["dport"]), 256)
        return {"protocol": name, "icmpType": kind, "icmpCode": code}
    return {"protocol": name}


def _judgement(comparison: Comparison, side: int, verdict: Verdict, outcome: int) -> Judgement:
    if comparison.kind == "workload" and comparison.subjects[side].endpoint is None:
        return Judgement(verdict, None, None, None, "no such workload (E-38)")
    row = comparison.states[side].table.outcomes[outcome]
    rule = int(row["rule"])
    return Judgement(verdict, row["tier"], row["policy"], None if rule < 0 else rule, row["reason"])


def merged(changes: Iterable[Change]) -> list[Change]:
    """The same changes in fewer: those that differ in one thing only are joined, again and again."""
    found = list(changes)
    joins: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
        ("peers", lambda one, other: one | other),
        ("services", lambda one, other: one | other),
        ("endpoints", lambda one, other: one | other),
    )
    count = -1
    while count != len(found):
        count = len(found)
        for name, join in joins:
            found = _joined(found, name, join)
    return found


def _joined(changes: list[Change], field: str, join: Callable[[Any, Any], Any]) -> list[Change]:
    fields = ("endpoints", "presence", "kind", "direction", "hooks", "own", "peers", "services", "old", "new")
    others = attrgetter(*(name for name in fields if name != field))
    groups: dict[Any, Change] = {}
    for change in changes:
        key = others(change)
        if key in groups:
            other = groups[key]
            change = replace(other, **{field: join(getattr(other, field), getattr(change, field))})
        groups[key] = change
    return list(groups.values())
