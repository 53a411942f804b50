"""Changes of verdicts: found cell by cell by the core, told in as few rectangles as cover them exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial, reduce
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import chain
from operator import attrgetter, or_
from typing import Any

import numpy as np

from labelgate import _core
from labelgate.analysis.addresses import (
    IPV4,
    IPV6,
    Edges,
    contains,
    edges_of_networks,
    from_bytes,
    numbers,
    points,
    ranges,
)
from labelgate.analysis.judged import Comparison, Kind, Member
from labelgate.analysis.program import Direction
from labelgate.analysis.regions import Region, Services, protocol_name
from labelgate.analysis.services import WITH_PORTS, WITH_TYPES, Piece
from labelgate.flow import VERDICTS, Hook, Verdict

_WIDTH: dict[Verdict, int] = {
    "deny": 0, "continue": 1, "allow": 2, "allow-notrack": 2, "allow-skip-hep": 2,
}  # fmt: skip

_USUAL: dict[int, Edges] = {
    family: points(family, [int(ip_address(one)) for one in texts])
    for family, texts in (
        (IPV4, ("192.0.2.1", "198.51.100.1", "10.0.0.1")),
        (IPV6, ("2001:db8::1", "2001:db8::2", "fd00::1")),
    )
}
"""Of examples, where nobody has an address: for documentation, then private."""


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
    """All changes at a place; `known` are addresses by family, sorted, that make good examples.

    The core finds them: one packet of each class that the rules tell apart is asked of both states.
    """
    for family, places, (before, after), own, peers, pieces, cell in comparison.changes():
        old, new = VERDICTS[before], VERDICTS[after]
        by_presence: dict[str, list[Member]] = {}
        is_workload = comparison.kind == "workload"
        for member in map(comparison.members.__getitem__, places) if is_workload else comparison.members:
            by_presence.setdefault(member.presence, []).append(member)
        for presence, several in by_presence.items():
            mine = None if own is None else _region(family, own)
            if mine is not None and several[0].nets:
                mine &= _nets_region(family, several)
            yield Change(
                frozenset(member.name for member in several), presence, comparison.kind, comparison.direction,
                hooks(comparison, old, new), mine, _region(family, peers), _services(pieces), old, new,
                partial(_example, comparison, (family, cell), several[0], known, (old, new)),
            )  # fmt: skip


@lru_cache(1 << 12)
def _region(family: int, edges: bytes) -> Region:
    """Most are those of many changes."""
    return Region.of(family, from_bytes(family, edges))


def _nets_region(family: int, members: Sequence[Member]) -> Region:
    return Region.of(family, edges_of_networks(family, [net for one in members for net in one.nets]))


@lru_cache(1 << 12)
def _services(pieces: tuple[_core._Piece, ...]) -> Services:
    """Likewise."""
    return Services.of(map(_piece, pieces))


@lru_cache(1 << 16)
def _piece(piece: _core._Piece) -> Piece:
    protocols, is_opaque, sports, dports = piece
    return Piece(frozenset(protocols), is_opaque, sports, dports)


def forget() -> None:
    """Gives back what changes were made with: there may be much of it."""
    for kept in (_region, _services, _piece):
        kept.cache_clear()


def hooks(comparison: Comparison, old: Verdict, new: Verdict) -> tuple[Hook, ...]:
    """Where a change shows: POSTROUTING only denies (E-37), in INPUT a setting comes behind (E-50)."""
    found = comparison.hooks
    if found == ("filter-output", "mangle-postrouting") and "deny" not in (old, new):
        return found[:1]
    if comparison.kind == "workload" and comparison.direction == "egress":
        denied = all(state.settings.endpoint_to_host == "Drop" for state in comparison.states)
        return found[:1] if denied else found
    return found


def _example(
    comparison: Comparison, cell_of: tuple[int, _core.Cell], member: Member, known: dict[int, Edges],
    verdicts: tuple[Verdict, Verdict],
) -> Example:  # fmt: skip
    """A packet of a cell of a family, with addresses that somebody has if there are any."""
    family, cell = cell_of
    is_egress = comparison.direction == "egress"
    subject = comparison.subjects[1]
    endpoint = subject.endpoint or comparison.subjects[0].endpoint
    carried = comparison.states[1].host.interfaces.get(subject.interface or "", ())
    nets = member.nets or [ip_network(one) for one in carried or (endpoint.addresses if endpoint else ())]
    theirs = [int(net[0]) for net in nets if net.version == family and net.num_addresses == 1]
    own = _region(family, cell.own())
    if member.nets:  # The cell has addresses of others too.
        own &= _nets_region(family, [member])
    mine = example_address(family, own.edges[family], points(family, sorted(theirs)))
    other = example_address(family, from_bytes(family, cell.peers()), known[family], apart=mine)
    src, dst = (mine, other) if is_egress else (other, mine)
    service = _service_fields(*cell.service)
    packet = {"src": address_text(family, src), "dst": address_text(family, dst), **service}
    if subject.interface is not None:
        packet["in" if comparison.direction == "ingress" else "out"] = subject.interface
    judged = (_judgement(comparison, side, verdicts[side], cell.outcomes[side]) for side in (0, 1))
    return Example(comparison.hooks[0], packet, *judged)


def example_address(family: int, edges: Edges, wanted: Edges, *, apart: int | None = None) -> int:
    """One of the addresses, one that is wanted if there is any, else one that a host could have.

    It is `apart`, the other end of the packet, only where there is no other like that.
    """
    likely = np.concatenate((wanted, _USUAL[family]))
    inside = numbers(family, likely[contains(edges, likely)][:3])
    spans = ranges(family, edges)
    others = (one for first, last in spans for one in (min(first + 1, last), first, last) if _is_usable(one))
    for number in chain(inside, others):
        if number != apart:
            return number
    return numbers(family, edges[:1])[0]


def _is_usable(number: int) -> bool:
    """Neither of 0.0.0.0/8, nor likely to be the address of a network or of all in it."""
    return number >> 24 > 0 and number % 256 not in (0, 255)


def address_text(family: int, number: int) -> str:
    """Of an address of family 4 or 6."""
    return str(IPv4Address(number) if family == IPV4 else IPv6Address(number))


def _service_fields(protocol: int, sport: int, dport: int, is_fragment: bool) -> dict[str, Any]:
    name: str | int = protocol_name(protocol) if protocol in (*WITH_PORTS, *WITH_TYPES) else protocol
    if is_fragment:
        return {"protocol": name, "fragment": True}
    if protocol in WITH_PORTS:
        return {"protocol": name, "sport": sport, "dport": dport}
    if protocol in WITH_TYPES:
        kind, code = divmod(dport, 256)
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
    count = -1
    while count != len(found):
        count = len(found)
        for name in ("peers", "services", "endpoints"):
            found = _joined(found, name)
    return found


def _joined(changes: list[Change], field: str) -> list[Change]:
    fields = ("endpoints", "presence", "kind", "direction", "hooks", "own", "peers", "services", "old", "new")
    others = attrgetter(*(name for name in fields if name != field))
    groups: dict[Any, list[Change]] = {}
    for change in changes:
        groups.setdefault(others(change), []).append(change)
    values = attrgetter(field)
    return [
        one if not more else replace(one, **{field: reduce(or_, map(values, (one, *more)))})
        for one, *more in groups.values()
    ]
