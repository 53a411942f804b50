"""What is judged where: every place at which policy decides, in two states of the resources, side by side.

A place is a workload and a direction, or an interface of a host endpoint, a kind of policy and a direction.
Places whose rules are the same in both states are not asked about; those that go from the same rules to the
same rules, with the same settings, are asked about once, on whatever nodes they are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from ipaddress import ip_network
from typing import Any, Literal

from labelgate import _core
from labelgate.analysis.failsafes import failsafe_rule
from labelgate.analysis.program import (
    Direction,
    Endpoint,
    Ports,
    ProgramContents,
    Rule,
    Side,
    read_programs,
)
from labelgate.flow import UDP, Hook
from labelgate.model import Written, core_model
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable

IPIP = 4
_CARRIER = "the interface with "
"""Begins the name of an interface of which only an address is known."""
Kind = Literal["workload", "spoof", "normal", "forward", "untracked", "preDNAT"]
"""What judges: the policy of a workload, the check of its sources (E-30), or a policy of a host endpoint."""
Presence = Literal["both", "old", "new"]
"""In which state an endpoint exists."""
Chains = tuple[int | None, int | None]
"""By number, in either state; None: nobody is there."""
ANY_INTERFACE = "*"
"""Stands for every interface that no host endpoint but a `*` one governs; no interface has this name."""

_HOOKS: dict[tuple[Kind, Direction], tuple[Hook, ...]] = {
    ("workload", "ingress"): ("filter-forward",),
    ("workload", "egress"): ("filter-forward", "filter-input"),
    ("normal", "ingress"): ("filter-input",),
    ("normal", "egress"): ("filter-output", "mangle-postrouting"),
    ("forward", "ingress"): ("filter-forward",),
    ("forward", "egress"): ("filter-forward",),
    ("untracked", "ingress"): ("raw-prerouting",),
    ("untracked", "egress"): ("raw-output",),
    ("preDNAT", "ingress"): ("mangle-prerouting",),
}
"""Where a place is met; asked about is the first. What `normal` egress denies it denies at both hooks."""


@cache
def _beside() -> ThreadPoolExecutor:
    """Threads that compile and build both states while Python goes on: the core does so without the GIL."""
    return ThreadPoolExecutor(2, "labelgate-core")


# A child process has none of them, and would wait for them.
os.register_at_fork(after_in_child=_beside.cache_clear)


@dataclass(frozen=True)
class State:
    """One of the two states, compiled for a node, or for all workloads of a cluster."""

    snapshot: Snapshot
    settings: Settings
    program: _core.Program
    host: HostFacts
    contents: ProgramContents

    @property
    def table(self) -> DecisionTable:
        """Made when it is asked for: where nothing differs, none is."""
        return self._built.result()

    def begin(self) -> None:
        """Have the table made meanwhile."""
        _ = self._built

    @cached_property
    def _built(self) -> Future[DecisionTable]:
        return _beside().submit(DecisionTable, self.program, self.host, self.settings)


@dataclass(frozen=True)
class Subject:
    """Who judges at a place, in one state."""

    endpoint: Endpoint | None
    """None: nobody."""
    interface: str | None = None
    """Of a host endpoint."""


@dataclass(frozen=True)
class Member:
    """An endpoint at a place that it shares with others."""

    name: str
    nets: tuple[Any, ...]
    """Workloads: its addresses as nets, in either state; none: any."""
    presence: Presence
    numbers: tuple[int | None, int | None]
    """Its numbers in the programs."""


@dataclass(frozen=True)
class Comparison:
    """A place in both states, and everyone to whom the same rules, then and now, apply."""

    kind: Kind
    direction: Direction
    states: States
    subjects: tuple[Subject, Subject]
    """Of one of the members."""
    tables: _core.TablePair
    chains: Chains
    """Whose rules decide there."""
    members: tuple[Member, ...]

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Where it is met."""
        return _HOOKS[self.kind, self.direction]

    def changes(self) -> list[_core._Change]:
        """Every change there; of host endpoints members are number 0, whoever they are."""
        is_egress = self.direction == "egress"
        if self.kind == "workload":
            members = [member.numbers for member in self.members]
            return self.tables.workloads(is_egress, self.chains, members)
        interface = self.subjects[0].interface
        assert interface is not None
        return self.tables.interface(self.kind, is_egress, self.chains, (self.hooks[0], interface))


States = tuple[State, State]
"""The old one and the new one."""


@dataclass(frozen=True)
class Compiled:
    """Both states of the resources, and what compiling them for one node leaves for the next."""

    snapshots: tuple[Snapshot, Snapshot]
    host: HostFacts | None
    """None: every host endpoint has its interface."""
    node: str | None
    """None: of each node the host endpoints, and all workloads at once."""
    numbers: _core.ChainNumbers = field(default_factory=_core.ChainNumbers)
    _compilers: dict[tuple[int, Settings], Future[_core.Compiler]] = field(default_factory=dict)
    _begun: dict[tuple[str | None, tuple[Settings, Settings]], list[Future[_core.Program]]] = field(
        default_factory=dict
    )
    _written: Written = field(default_factory=Written)

    def begin(self, node: str | None, settings: tuple[Settings, Settings]) -> None:
        """Have both compiled meanwhile."""
        compilers = [self._compiler(side, one) for side, one in enumerate(settings)]
        # Behind both of them: who waits for a compiler is in nobody's way.
        self._begun[node, settings] = [_beside().submit(_enforced, one, node) for one in compilers]

    def states(self, node: str | None, settings: tuple[Settings, Settings]) -> States:
        """Both compiled for a node; None: all workloads."""
        if (node, settings) not in self._begun:
            self.begin(node, settings)
        facts = self.host or interface_facts(self.snapshots, node)
        programs = [found.result() for found in self._begun.pop((node, settings))]
        contents = read_programs(*programs)
        first, second = (
            State(snapshot, one, program, facts, read)
            for snapshot, one, program, read in zip(self.snapshots, settings, programs, contents, strict=True)
        )
        return first, second

    def _compiler(self, side: int, settings: Settings) -> Future[_core.Compiler]:
        if (side, settings) not in self._compilers:
            model = core_model(
                self.snapshots[side], settings, is_cluster=self.node is None, written=self._written
            )
            self._compilers[side, settings] = _beside().submit(_core.Compiler, model, self.node)
        return self._compilers[side, settings]


def _enforced(compiler: Future[_core.Compiler], node: str | None) -> _core.Program:
    return compiler.result().enforce(node)


def interface_facts(snapshots: Iterable[Snapshot], node: str | None) -> HostFacts:
    """Interfaces as host endpoints would have them: each with its expected addresses.

    One that names no interface has the same one in all snapshots, which carries what it expects in any,
    unless others expect some of these addresses.
    """
    hosts = [found for one in snapshots for found in one.host_endpoints if found.spec.node == node]
    named: dict[str, set[str]] = {}
    unnamed: dict[str, set[str]] = {}
    for host in hosts:
        wanted = set(map(str, host.spec.expected_ips))
        if not host.spec.interface_name:
            unnamed.setdefault(host.key, set()).update(wanted)
        elif host.spec.interface_name != "*":
            named.setdefault(host.spec.interface_name, set()).update(wanted)
    claims = Counter(one for found in (*named.values(), *unnamed.values()) for one in found)
    for host in hosts:
        if host.spec.interface_name:
            continue
        wanted = unnamed[host.key]
        if any(claims[one] > 1 for one in wanted):
            wanted = set(map(str, host.spec.expected_ips))
        if not any(wanted & carried for carried in named.values()):
            named[_CARRIER + min(wanted)] = wanted
    return HostFacts({name: tuple(sorted(addresses)) for name, addresses in named.items()})


@dataclass(frozen=True)
class Place:
    """Of one workload, or of one interface that a host endpoint governs."""

    kind: Kind
    direction: Direction
    subjects: tuple[Subject, Subject]
    chains: Chains
    presence: Presence
    """Of the endpoint that it is told of: the one in the new state, if there is one there."""
    where: str = ""
    """What is added to the name of a host endpoint."""

    def member(self) -> Member:
        """Whose place it is, as one of several."""
        old, new = (subject.endpoint for subject in self.subjects)
        told = new or old
        assert told is not None
        nets = _nets((one for one in (old, new) if one is not None), self.direction)
        return Member(
            told.name + self.where, nets if self.kind == "workload" else (), self.presence,
            (None if old is None else old.number, None if new is None else new.number),
        )  # fmt: skip


_Groups = dict[Any, tuple[States, Place, list[Member]]]


def comparisons(
    scopes: Iterable[tuple[States, Iterable[Place]]], numbers: _core.ChainNumbers
) -> Iterator[Comparison]:
    """What to ask so that every place whose rules differ is asked about; scopes are read one at a time."""
    settings: dict[tuple[Settings, Settings], int] = {}
    groups: _Groups = {}
    for pair, places in scopes:
        both = settings.setdefault((pair[0].settings, pair[1].settings), len(settings))
        of_chain = [numbers.of(state.program) for state in pair]
        ahead = {
            (kind, direction): [settled(state.settings, kind, direction) for state in pair]
            for kind, direction in _HOOKS
        }
        for place in places:
            chains = tuple(
                None if one is None else known[one] for one, known in zip(place.chains, of_chain, strict=True)
            )
            before, after = ahead[place.kind, place.direction]
            if chains[0] == chains[1] and before == after:
                continue
            member = place.member()
            key = (place.kind, place.direction, _like_first(place), chains, both)
            groups.setdefault(key, (pair, place, []))[2].append(member)
    for pair, _, _ in groups.values():
        for state in pair:
            state.begin()
    tables: dict[int, _core.TablePair] = {}
    for pair, place, members in groups.values():
        if id(pair) not in tables:
            tables[id(pair)] = _core.TablePair(*(state.table.core for state in pair))
        yield Comparison(
            place.kind, place.direction, pair, place.subjects, tables[id(pair)], place.chains, tuple(members)
        )


def _like_first(place: Place) -> tuple[object, ...]:
    """What is as at the first place of a group: its examples are of that one, of hosts at its interface."""
    if place.kind == "workload":
        return ()
    return place.presence, *(subject.endpoint is None for subject in place.subjects)


def settled(settings: Settings, kind: Kind, direction: Direction) -> tuple[Rule, ...]:
    """What is settled ahead of a place's rules, as rules: boundaries, of which only the criteria count."""
    found: list[Rule] = []
    if kind == "workload":
        if direction == "egress" and settings.workload_vxlan_port is not None:
            port = settings.workload_vxlan_port
            found.append(Rule("Deny", UDP, destination=Side(ports=Ports(((port, port),)))))
        if direction == "egress" and settings.workload_ipip_denied:
            found.append(Rule("Deny", IPIP))
        return tuple(found)
    if kind == "forward":
        # E-27: no boundary, but it decides what no rule does.
        return (Rule(f"unmarked: {settings.forward_unmarked}"),)
    inbound, outbound = settings.failsafe_inbound, settings.failsafe_outbound
    own, other = (inbound, outbound) if direction == "ingress" else (outbound, inbound)
    found += [failsafe_rule(entry, direction) for entry in own]
    if kind == "untracked":
        found += [failsafe_rule(entry, direction, is_return=True) for entry in other]
    return tuple(found)


def workloads_of(state: State) -> dict[str, Endpoint]:
    """By name."""
    return {one.name: one for one in state.contents.endpoints if one.kind == "workload"}


def workload_places(pair: States, names: Container[str] | None = None) -> Iterator[Place]:
    """Of every workload in either state, or of those with these names."""
    found = [workloads_of(state) for state in pair]
    for name in sorted(found[0].keys() | found[1].keys()):
        if names is not None and name not in names:
            continue
        old, new = found[0].get(name), found[1].get(name)
        directions: tuple[Direction, Direction] = ("ingress", "egress")
        for index, direction in enumerate(directions):
            chains = [None if one is None else one.normal[index] for one in (old, new)]
            subjects = (Subject(old), Subject(new))
            presence = _presence(old is not None, new is not None)
            yield Place("workload", direction, subjects, (chains[0], chains[1]), presence)


def _presence(is_in_old: bool, is_in_new: bool) -> Presence:
    return "both" if is_in_old and is_in_new else "new" if is_in_new else "old"


def _nets(endpoints: Iterable[Endpoint], direction: Direction) -> tuple[Any, ...]:
    """The addresses that packets to them, or from them, have on their side."""
    found = {text for one in endpoints for text in (one.sources if direction == "egress" else one.addresses)}
    return tuple(sorted(set(map(_net, found)), key=str)) if len(found) > 1 else tuple(map(_net, found))


@lru_cache(1 << 16)
def _net(text: str) -> Any:
    """Both states have most of them, and a workload has them in both directions."""
    return ip_network(text)


def host_places(pair: States) -> Iterator[Place]:
    """Of every interface that a host endpoint governs in one of the states."""
    names = sorted({name for state in pair for name in _interfaces(state)} - _like_any(pair))
    kinds: tuple[tuple[Kind, Direction], ...] = tuple(
        (kind, direction) for kind, direction in _HOOKS if kind != "workload"
    )
    homes = [_homes(state) for state in pair]
    for name in names:
        for kind, direction in kinds:
            found = [_governor(state, name, kind) for state in pair]
            if found[0] is None and found[1] is None:
                continue
            chains = tuple(None if one is None else _chain(one, kind, direction) for one in found)
            told = found[1] or found[0]
            assert told is not None
            own = [known[told.name] for known in homes if told.name in known]
            where = "" if set().union(*own) == {name} else f" on {name}"
            presence = _presence(*(told.name in known for known in homes))
            subjects = (Subject(found[0], name), Subject(found[1], name))
            yield Place(kind, direction, subjects, (chains[0], chains[1]), presence, where)


def _homes(state: State) -> dict[str, set[str]]:
    """By host endpoint the interfaces that its name alone stands for."""
    return {one.name: _home(state, one) for one in state.contents.endpoints if one.kind == "host"}


def _home(state: State, endpoint: Endpoint) -> set[str]:
    """Of one without interface: that which is known by its addresses. One with a name of its own is told."""
    if endpoint.is_any:
        return {ANY_INTERFACE}
    if endpoint.interface is not None:
        return {endpoint.interface}
    carried = state.host.interfaces
    carriers = (name for name in carried if name.startswith(_CARRIER))
    return {name for name in carriers if not set(carried[name]).isdisjoint(endpoint.addresses)}


def _interfaces(state: State) -> Iterator[str]:
    hosts = [one for one in state.contents.endpoints if one.kind == "host"]
    prefixes = state.settings.workload_prefixes
    yield from (name for name in state.host.interfaces if not name.startswith(prefixes))
    yield from (one.interface for one in hosts if one.interface and not one.interface.startswith(prefixes))
    if any(one.is_any for one in hosts):
        # E-47: `lo` may be exempt.
        yield from (ANY_INTERFACE, "lo")


def _like_any(pair: States) -> set[str]:
    """Interfaces without a host endpoint of their own in either state: as `ANY_INTERFACE`."""
    names = {name for state in pair for name in _interfaces(state)} - {ANY_INTERFACE}
    if pair[0].settings.exempt_loopback != pair[1].settings.exempt_loopback:
        names.discard("lo")
    return {name for name in names if all(_own(state, name) is None for state in pair)}


def _own(state: State, interface: str) -> Endpoint | None:
    """E-45: the smallest name of those that name the interface, or have an address that it carries."""
    carried = set(state.host.interfaces.get(interface, ()))
    found = (
        one
        for one in state.contents.endpoints
        if one.kind == "host"
        and (
            one.interface == interface
            or (one.interface is None and not one.is_any and carried & set(one.addresses))
        )
    )
    return min(found, key=_smallest, default=None)


def _smallest(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.short_name, endpoint.name


def _governor(state: State, interface: str, kind: Kind) -> Endpoint | None:
    """E-45..E-47."""
    own = _own(state, interface)
    hosts = (one for one in state.contents.endpoints if one.is_any)
    anybody = min(hosts, key=_smallest, default=None)
    if interface == "lo" and state.settings.exempt_loopback:
        anybody = None
    if kind == "untracked":
        return own
    if kind == "preDNAT" and (own is None or own.prednat is None):
        return anybody if anybody is not None and anybody.prednat is not None else own
    return own or anybody


def _chain(endpoint: Endpoint, kind: Kind, direction: Direction) -> int | None:
    index = direction == "egress"
    if kind == "preDNAT":
        return endpoint.prednat
    chains = {"normal": endpoint.normal, "forward": endpoint.forward, "untracked": endpoint.untracked}[kind]
    return None if chains is None else chains[index]
