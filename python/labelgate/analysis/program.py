"""Compiled rules, for who asks about rules and not about packets: what a `_core.Program` holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np

from labelgate import _core
from labelgate.analysis.addresses import IPV4, IPV6, Edges, edges_of_ranges

Direction = Literal["ingress", "egress"]


@dataclass(frozen=True, slots=True, eq=False)
class AddressSet:
    """Addresses of both families. `read_programs` makes one object of equal sets: compare by identity."""

    v4: Edges
    v6: Edges

    def edges(self, family: int) -> Edges:
        """Of family 4 or 6."""
        return self.v4 if family == IPV4 else self.v6


@dataclass(frozen=True, slots=True, eq=False)
class PortSet:
    """What a named port or a Service stands for (M-25, M-31). Equal ones are one object."""

    members: tuple[tuple[int, int, AddressSet], ...]
    """(protocol, port, the addresses that have it)."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Numeric ranges, ends inclusive, or any of the named sets (M-17, M-18)."""

    ranges: tuple[tuple[int, int], ...]
    named: tuple[PortSet, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """Criteria on one side of a packet; all must hold, empty ones impose nothing (M-1, M-2)."""

    in_sets: tuple[AddressSet, ...] = ()
    not_in_sets: tuple[AddressSet, ...] = ()
    ports: Ports | None = None
    not_ports: Ports | None = None


ANYWHERE = Side()


@dataclass(frozen=True, slots=True)
class Rule:
    """One flat rule. Equality is that of meaning and action; `number` plays no part."""

    action: str
    """Allow, Deny, Pass or Log."""
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: tuple[int, int | None] | None = None
    """Type, and code if given (M-33)."""
    not_icmp: tuple[int, int | None] | None = None
    source: Side = ANYWHERE
    destination: Side = ANYWHERE
    families: tuple[bool, bool] = (True, True)
    """Whether the rule exists for IPv4, for IPv6 (M-10..M-14)."""

    def exists_for(self, family: int) -> bool:
        """Whether it can match packets of family 4 or 6."""
        return self.families[family == IPV6]


@dataclass(frozen=True, slots=True)
class RuleList:
    """The rules of one policy or profile in one direction, in order."""

    policy: str
    """`Kind/namespace/name` or `Kind/name`."""
    tier: str
    """Empty for a profile."""
    direction: Direction
    rules: tuple[Rule, ...]
    numbers: tuple[int | None, ...]
    """Of each rule its place in the policy, from 0; None where no rule stands behind it (R-29)."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of a chain: the lists of its policies, in order."""

    name: str
    lists: tuple[int, ...]
    """Indexes of `ProgramContents.lists`."""
    end: Literal["deny", "pass", "fall"]
    """E-21, E-23, E-22."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps 6 to 9 of E-20 for one endpoint, kind of policy and direction."""

    tiers: tuple[Tier, ...]
    profiles: tuple[int, ...]
    """Indexes of `ProgramContents.lists`, in order."""
    end: Literal["deny", "accept", "unmarked"]
    """What follows: no profile allows (E-25), no forward policy (E-52), or no mark (E-22, E-27, E-28)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint and the chains that packets to it (ingress) and from it (egress) meet, by number."""

    number: int
    """Its place in the program, as `_core.Table.gate_batch` wants it."""
    name: str
    """`Kind/namespace/name` or `Kind/name`."""
    short_name: str
    kind: Literal["host", "workload"]
    interface: str | None
    """None where it is not known by name."""
    is_any: bool
    """A host endpoint with `interfaceName: "*"` (E-46)."""
    addresses: tuple[str, ...]
    sources: tuple[str, ...]
    """Workloads: the nets that its packets may come from (E-30)."""
    normal: tuple[int, int]
    """Ingress, egress: indexes of `ProgramContents.chains`."""
    forward: tuple[int, int] | None
    untracked: tuple[int, int] | None
    prednat: int | None


@dataclass(frozen=True)
class ProgramContents:
    """One program."""

    endpoints: tuple[Endpoint, ...]
    chains: tuple[Chain, ...]
    lists: Lists

    def chain_lists(self, chain: int) -> Iterator[RuleList]:
        """The lists of a chain in the order in which packets meet them, profiles last."""
        found = self.chains[chain]
        for tier in found.tiers:
            yield from (self.lists[index] for index in tier.lists)
        yield from (self.lists[index] for index in found.profiles)

    def chain_rules(self, chain: int) -> Iterator[Rule]:
        """All rules of a chain, in order."""
        for rules in self.chain_lists(chain):
            yield from rules.rules


def read_programs(*programs: _core.Program) -> list[ProgramContents]:
    """The contents of each; equal address and port sets are the same object in all of them.

    Rule lists are read when one is asked for.
    """
    shared = SharedSets()
    return [_read(program, shared) for program in programs]


@dataclass(frozen=True, slots=True)
class SharedSets:
    """One object of each set that was read."""

    addresses: dict[tuple[bytes, bytes], AddressSet] = field(default_factory=dict)
    ports: dict[frozenset[tuple[int, int, AddressSet]], PortSet] = field(default_factory=dict)

    def address_set(self, v4: bytes, v6: bytes) -> AddressSet:
        """Of ranges as `_core.Program.address_sets` has them."""
        found = self.addresses.get((v4, v6))
        if found is None:
            numbers = np.frombuffer(v4, "<u4").astype(np.uint64).reshape(-1, 2)
            words = [int.from_bytes(v6[at : at + 16], "big") for at in range(0, len(v6), 16)]
            found = AddressSet(
                edges_of_ranges(IPV4, numbers.tolist()),
                edges_of_ranges(IPV6, list(zip(words[::2], words[1::2], strict=True))),
            )
            self.addresses[v4, v6] = found
        return found

    def port_set(self, members: Sequence[tuple[int, int, int, int]]) -> PortSet:
        """Of members as `_core.Program.port_sets` has them."""
        groups: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        for version, address, protocol, port in members:
            groups.setdefault((protocol, port), ([], []))[version == IPV6].append(address)
        key = frozenset(
            (protocol, port, self.address_set(_bytes(v4, 4, "little"), _bytes(v6, 16, "big")))
            for (protocol, port), (v4, v6) in groups.items()
        )
        return self.ports.setdefault(key, PortSet(tuple(sorted(key, key=lambda member: member[:2]))))


def _bytes(addresses: Sequence[int], size: int, order: Literal["little", "big"]) -> bytes:
    """Sorted addresses as the core writes ranges."""
    ranges: list[list[int]] = []
    for address in addresses:
        if ranges and ranges[-1][1] == address - 1:
            ranges[-1][1] = address
        else:
            ranges.append([address, address])
    return b"".join(number.to_bytes(size, order) for pair in ranges for number in pair)


def _read(program: _core.Program, shared: SharedSets) -> ProgramContents:
    raw = json.loads(program.contents())
    return ProgramContents(
        tuple(_endpoint(number, found) for number, found in enumerate(raw["endpoints"])),
        tuple(
            Chain(
                tuple(Tier(tier["name"], tuple(tier["lists"]), tier["end"]) for tier in chain["tiers"]),
                tuple(chain["profiles"]),
                chain["end"],
            )
            for chain in raw["chains"]
        ),
        Lists(program, raw["lists"], shared),
    )


class Lists(Sequence[RuleList]):
    """Rule lists, each read when it is first asked for: most are nobody's who asks."""

    def __init__(self, program: _core.Program, count: int, shared: SharedSets) -> None:
        self._program, self._count, self._shared = program, count, shared
        self._read: dict[int, RuleList] = {}

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _raw(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._program.rule_lists())
        return found

    @overload
    def __getitem__(self, index: int) -> RuleList: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RuleList]: ...

    def __getitem__(self, index: int | slice) -> RuleList | Sequence[RuleList]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        if at not in self._read:
            found = self._raw[at]
            self._read[at] = RuleList(
                found["policy"],
                found["tier"],
                found["direction"].lower(),
                tuple(map(self._rule, found["rules"])),
                tuple(one["number"] for one in found["rules"]),
            )
        return self._read[at]

    def _rule(self, found: dict[str, Any]) -> Rule:
        return Rule(
            found["action"], found["protocol"], found["not_protocol"],
            found["icmp"] and tuple(found["icmp"]), found["not_icmp"] and tuple(found["not_icmp"]),
            self._side(found["source"]), self._side(found["destination"]), tuple(found["families"]),
        )  # fmt: skip

    def _side(self, found: dict[str, Any] | None) -> Side:
        if found is None:
            return ANYWHERE
        inside, outside = found["in"], found["not_in"]
        return Side(
            tuple(map(self._address_set, inside)) if inside else (),
            tuple(map(self._address_set, outside)) if outside else (),
            self._ports(found["ports"]),
            self._ports(found["not_ports"]),
        )

    def _ports(self, found: dict[str, Any] | None) -> Ports | None:
        if found is None:
            return None
        return Ports(tuple(map(tuple, found["ranges"])), tuple(map(self._port_set, found["named"])))

    def _address_set(self, number: int) -> AddressSet:
        if number not in self._address_sets_read:
            self._address_sets_read[number] = self._shared.address_set(*self._address_sets[number])
        return self._address_sets_read[number]

    def _port_set(self, number: int) -> PortSet:
        if number not in self._port_sets_read:
            self._port_sets_read[number] = self._shared.port_set(self._port_sets[number])
        return self._port_sets_read[number]

    @cached_property
    def _address_sets(self) -> list[tuple[bytes, bytes]]:
        return self._program.address_sets()

    @cached_property
    def _port_sets(self) -> list[list[tuple[int, int, int, int]]]:
        return self._program.port_sets()

    @cached_property
    def _address_sets_read(self) -> dict[int, AddressSet]:
        return {}

    @cached_property
    def _port_sets_read(self) -> dict[int, PortSet]:
        return {}


def _endpoint(number: int, found: dict[str, Any]) -> Endpoint:
    attachment = found["attachment"]
    return Endpoint(
        number, found["name"], found["short_name"], found["kind"],
        attachment["interface"] if isinstance(attachment, dict) else None, attachment == "any",
        tuple(found["addresses"]), tuple(found["sources"]), tuple(found["normal"]),
        found["forward"] and tuple(found["forward"]), found["untracked"] and tuple(found["untracked"]),
        found["prednat"],
    )  # fmt: skip


def set_of(family: int, ranges: Sequence[tuple[int, int]]) -> AddressSet:
    """A set of one family, of sorted, disjoint ranges with inclusive ends: for boundaries of one's own."""
    return set_of_edges(family, edges_of_ranges(family, ranges))


def set_of_edges(family: int, edges: Edges) -> AddressSet:
    """The same, of edges."""
    none = edges_of_ranges(10 - family, [])
    return AddressSet(edges, none) if family == IPV4 else AddressSet(none, edges)
