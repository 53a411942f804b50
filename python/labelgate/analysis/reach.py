"""Who reaches whom: workloads, host endpoints, and addresses outside of both, by the policy of both ends.

New connections from a usual source port (40000). Between the two ends nothing else is asked: no DNAT, no
routes, and no applyOnForward policy of nodes on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from ipaddress import ip_address
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from labelgate import _core
from labelgate.analysis.addresses import IPV4, IPV6, complement, networks, points
from labelgate.analysis.judged import Kind, State, interface_facts, settled
from labelgate.analysis.naming import Names
from labelgate.analysis.partition import AddressClasses, column, rule_sets
from labelgate.analysis.program import Direction, Rule, read_programs
from labelgate.analysis.regions import Region, Services
from labelgate.analysis.services import USUAL_SOURCE_PORT, Piece, ServiceClasses, check_port
from labelgate.arguments import check_type
from labelgate.columns import Flows
from labelgate.flow import ICMPV6, VERDICTS
from labelgate.model import core_model
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot
from labelgate.tabular import Tabular

Mask = NDArray[np.bool_]
MOST_QUESTIONS = 50_000_000
_SETTLED: tuple[tuple[Kind, Direction], ...] = (
    ("workload", "egress"), ("untracked", "ingress"), ("untracked", "egress"),
)  # fmt: skip
_NEIGHBOUR_DISCOVERY = [Rule("Allow", ICMPV6, icmp=(kind, None)) for kind in (*range(130, 134), 135, 136)]
"""What E-50 accepts ahead of policy, as rules: boundaries, of which only the criteria count."""
_FIELDS = ("protocol", "sport", "dport", "fragment")
_DENY, _NOTRACK = VERDICTS.index("deny"), VERDICTS.index("allow-notrack")
_SKIP_HEP, _UNTRACKED = VERDICTS.index("allow-skip-hep"), 4


HOSTS, OUTSIDE = "(hosts)", "(outside)"
"""Groups of peers that are in no namespace; none can be called so."""


class TooMany(ValueError):
    """More questions than anybody waits for."""


@dataclass(frozen=True)
class Peer:
    """One end of connections."""

    name: str
    """`Kind/namespace/name`, or nets in words."""
    kind: Literal["workload", "host", "outside"]
    addresses: dict[int, int]
    """One by IP version."""
    region: Region
    """All addresses that it stands for."""
    group: str
    """Its namespace; `HOSTS`; `OUTSIDE`."""
    node: str | None = None
    number: int = 0
    interface: str = ""
    """Of hosts, and of workloads on nodes that have host endpoints."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called: endpoints without their kind, too."""
        return (self.name,) if self.kind == "outside" else (self.name, self.name.partition("/")[2])


@dataclass(frozen=True)
class Reach(Tabular):
    """Answers for every pair of peers and every class of services.

    As a table it has one row for each pair of which one reaches the other.
    """

    peers: tuple[Peer, ...]
    """Workloads, then host endpoints, then what is outside."""
    services: ServiceClasses
    answers: Mapping[int, tuple[Mask, Mask]]
    """By IP version the pairs that are asked about, bool (from, to), and what is let through, bool (from, to,
    services)."""
    names: Names

    @cached_property
    def asked(self) -> Mask:
        """bool (from, to): pairs that have an IP version in common, not one peer twice, nor both outside."""
        found: Mask = reduce(np.logical_or, (asked for asked, _ in self.answers.values()))
        return found

    @cached_property
    def allowed(self) -> Mask:
        """bool (from, to, services): in one IP version at least."""
        found: Mask = reduce(np.logical_or, (through for _, through in self.answers.values()))
        return found

    @cached_property
    def partial(self) -> Mask:
        """The same: in one IP version, and not in the other that both have."""
        asked, through = (reduce(np.logical_and, masks) for masks in zip(*self.answers.values(), strict=True))
        found: Mask = self.allowed & ~through & asked[:, :, None]
        return found

    def in_version(self, version: int) -> Reach:
        """The answers of one IP version alone, 4 or 6."""
        return replace(self, answers={version: self.answers[version]})

    def between(self, sources: Sequence[int] | None, destinations: Sequence[int] | None) -> Reach:
        """The answers for pairs from these peers to those, by number (None: all), without the other peers."""
        every = range(len(self.peers))
        from_, to = every if sources is None else sources, every if destinations is None else destinations
        kept = sorted({*from_, *to})
        pairs = np.isin(kept, from_)[:, None] & np.isin(kept, to)
        chosen = np.ix_(kept, kept)
        answers = {
            version: (asked[chosen] & pairs, through[chosen] & pairs[:, :, None])
            for version, (asked, through) in self.answers.items()
        }
        return replace(self, peers=tuple(self.peers[at] for at in kept), answers=answers)

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Who reaches whom, with which services; `one_family`: some in one IP version only."""
        sources, destinations = np.nonzero(self.allowed.any(axis=2))
        names = np.array([one.name for one in self.peers], object)
        texts = [self.services_text(*map(int, pair)) for pair in zip(sources, destinations, strict=True)]
        one_family: Any = self.partial[sources, destinations].any(axis=1)
        return {
            "from": names[sources],
            "to": names[destinations],
            "services": np.array(texts, object),
            "one_family": one_family,
        }

    def caption(self) -> str:
        """How many pairs there are, and how many are asked about."""
        reached, asked = int(self.allowed.any(axis=2).sum()), int(self.asked.sum())
        return f"{reached} of {asked} pairs of {len(self.peers)} peers reach each other"

    def __repr__(self) -> str:
        """One line."""
        return f"Reach({self.caption()})"

    def services_text(self, source: int, destination: int) -> str:
        """The services of one pair, in words, whole lists of ports; empty if there are none."""
        found = np.flatnonzero(self.allowed[source, destination])
        return self.services_of(found).text(most=None) if len(found) else ""

    def services_of(self, classes: Iterable[int]) -> Services:
        """Some classes as one set."""
        return Services.of(piece for one in classes for piece in self.services.pieces[one])

    def matching(self, text: str) -> list[int]:
        """Peers by name (endpoints without kind, too), label (`key=value`), namespace (`shop/`) or address.

        All host endpoints are `(hosts)/`, all that is outside `(outside)/`, without parentheses where no
        namespace is called so.

        Raises:
            TypeError: this is no text.
        """
        check_type("text", text, str, "the name, label, namespace or address of a peer")
        found = [at for at, one in enumerate(self.peers) if text in one.names]
        if not found and text.endswith("/"):
            found = self._of_group(text[:-1]) or self._of_group(f"({text[:-1]})")
        if not found and "=" in text:
            key, _, value = text.partition("=")
            found = [
                at
                for at, one in enumerate(self.peers)
                if one.name in self.names.endpoints and (key, value) in self.names.endpoints[one.name].traits
            ]
        return found or self._with_address(text)

    def _of_group(self, group: str) -> list[int]:
        return [at for at, one in enumerate(self.peers) if one.group == group]

    def _with_address(self, text: str) -> list[int]:
        try:
            address = ip_address(text)
        except ValueError:
            return []
        wanted = Region.of(address.version, _single(address.version, int(address)))
        found = [at for at, one in enumerate(self.peers) if (one.region & wanted).families]
        owned = [at for at in found if self.peers[at].kind != "outside"]
        return owned or found


def _single(family: int, number: int) -> Any:
    last = (1 << (32 if family == IPV4 else 128)) - 1
    return points(family, [number, number + 1] if number < last else [number])


def port_service(protocol: int, port: int) -> ServiceClasses:
    """The one service that a port is.

    Raises:
        TypeError, ValueError: a number is none of a protocol that has ports, or of a port.
    """
    check_port(protocol, port)
    sample = np.array(
        [(protocol, USUAL_SOURCE_PORT, port, False)],
        [("protocol", np.uint8), ("sport", np.uint16), ("dport", np.uint16), ("fragment", np.bool_)],
    )
    return ServiceClasses(((Piece(frozenset((protocol,)), False, dports=(port, port)),),), sample)


def reach(
    snapshot: Snapshot,
    *,
    services: ServiceClasses | None = None,
    settings_of: Callable[[str | None], Settings] | None = None,
) -> Reach:
    """Asks about every pair; without `services` about every class of services that a rule tells apart.

    `settings_of` a node are else `snapshot.settings`.

    Raises:
        TooMany: these would be more than `MOST_QUESTIONS`.
        TypeError: an argument is not what it is to be.
    """
    check_type("snapshot", snapshot, Snapshot, "a Snapshot")
    if services is not None:
        check_type("services", services, ServiceClasses, "ServiceClasses, or None")
    names = Names(snapshot)
    states = _states(snapshot, settings_of or snapshot.settings)
    rules = [rule for state in states.values() for rules in state.contents.lists for rule in rules.rules]
    for state in states.values():
        rules += (rule for place in _SETTLED for rule in settled(state.settings, *place))
    endpoints = _endpoints(snapshot, states)
    if _has_neighbours(endpoints):
        rules += _NEIGHBOUR_DISCOVERY
    peers = [*endpoints, *_outside(rules, names)]
    if services is None:
        services = _without_source_ports(ServiceClasses.of(list(dict.fromkeys(rules))))
    pairs = len(peers) ** 2
    if pairs * len(services) > MOST_QUESTIONS:
        helps = "name a port (--port)"
        if pairs > MOST_QUESTIONS:
            helps = "load fewer endpoints, or ask `labelgate connectivity --matrix --by namespace`"
        raise TooMany(
            f"{len(peers)} peers and {len(services)} class{'es' * (len(services) != 1)} of services are"
            f" {pairs * len(services):,} questions, and at most {MOST_QUESTIONS:,} are asked: {helps}"
        )
    answers = {family: _ask(peers, services, states, family) for family in (IPV4, IPV6)}
    return Reach(tuple(peers), services, answers, names)


def _without_source_ports(services: ServiceClasses) -> ServiceClasses:
    """Those that connections from the usual source port have, told without it."""
    kept = [
        (at, tuple(replace(piece, sports=(0, 65535)) for piece in pieces if _has_usual_port(piece)))
        for at, pieces in enumerate(services.pieces)
    ]
    kept = [(at, pieces) for at, pieces in kept if pieces]
    samples = services.samples[[at for at, _ in kept]]
    return ServiceClasses(tuple(pieces for _, pieces in kept), samples)


def _has_usual_port(piece: Piece) -> bool:
    return piece.is_opaque or piece.sports[0] <= USUAL_SOURCE_PORT <= piece.sports[1]


def _states(snapshot: Snapshot, settings_of: Callable[[str | None], Settings]) -> dict[str | None, State]:
    """That of all workloads (None), and one for each node with host endpoints."""
    nodes: list[str | None] = [None, *sorted({one.spec.node for one in snapshot.host_endpoints})]
    models: dict[Settings, bytes] = {}
    compiled: list[tuple[_core.Program, HostFacts, Settings]] = []
    for node in nodes:
        settings = settings_of(node)
        if settings not in models:
            models[settings] = core_model(snapshot, settings)
        facts = interface_facts((snapshot,), node)
        compiled.append((_core.compile(models[settings], node), facts, settings))
    contents = read_programs(*(program for program, _, _ in compiled))
    return {
        node: State(snapshot, one, program, facts, found)
        for node, (program, facts, one), found in zip(nodes, compiled, contents, strict=True)
    }


def _endpoints(snapshot: Snapshot, states: dict[str | None, State]) -> list[Peer]:
    node_of = {one.key: one.spec.node for one in snapshot.workload_endpoints}
    node_of |= {one.key: one.spec.node_name for one in snapshot.pods}
    # The program of all workloads knows no interfaces.
    interfaces = {
        one.name: one.interface or "" for state in states.values() for one in state.contents.endpoints
    }
    found = [
        _peer(
            one.name, "workload", one.addresses, one.name.split("/")[1], node_of[one.name], one.number,
            interfaces[one.name],
        )
        for one in states[None].contents.endpoints
    ]  # fmt: skip
    for node, state in states.items():
        for one in state.contents.endpoints if node is not None else ():
            if one.kind == "host" and one.addresses:
                interface = one.interface or _carrier(state, one.addresses)
                found.append(_peer(one.name, "host", one.addresses, HOSTS, node, one.number, interface))
    return found


def _has_neighbours(peers: Sequence[Peer]) -> bool:
    """Whether workloads and host endpoints of one node have IPv6 addresses."""
    nodes = {
        kind: {one.node for one in peers if one.kind == kind and IPV6 in one.addresses}
        for kind in ("workload", "host")
    }
    return not nodes["workload"].isdisjoint(nodes["host"] - {None})


def _carrier(state: State, addresses: Sequence[str]) -> str:
    """The interface of a host endpoint that names none; that of a `*` one has no name."""
    carried = state.table.host.interfaces.items()
    return next((name for name, own in carried if set(own) & set(addresses)), "*")


def _peer(
    name: str,
    kind: Any,
    addresses: Sequence[str],
    group: str,
    node: str | None,
    number: int,
    interface: str,
) -> Peer:
    by_family: dict[int, int] = {}
    region = Region()
    for address in map(ip_address, addresses):
        by_family.setdefault(address.version, int(address))
        region |= Region.of(address.version, _single(address.version, int(address)))
    return Peer(name, kind, by_family, region, group, node, number, interface)


def _outside(rules: Sequence[Rule], names: Names) -> list[Peer]:
    """Classes of addresses that nobody has, each as one peer; IPv4 and IPv6 apart."""
    found: list[Peer] = []
    for family in names.owned.families:
        sets = [one for rule in rules for side in (rule.source, rule.destination) for one in rule_sets(side)]
        classes = AddressClasses.of(sets, family)
        free, rest = complement(names.owned.edges[family]), _rest(classes)
        for number in range(len(classes)):
            mask = np.zeros(len(classes), np.bool_)
            mask[number] = True
            region = Region.of(family, classes.edges(mask)) & Region.of(family, free)
            if not region.families:
                continue
            first = next(networks(family, region.edges[family]))
            address = int(first.network_address) + (first.num_addresses > 2)
            text = f"rest of the world (IPv{family})" if rest[number] else names.peers(region)
            found.append(Peer(text, "outside", {family: address}, region, OUTSIDE))
    return found


def _rest(classes: AddressClasses) -> Mask:
    """Which class no set holds: one, or none. Sets of all addresses tell nobody apart, and do not count."""
    held = np.zeros(len(classes), np.bool_)
    for members in classes.members.values():
        held |= members & (not members.all())
    return ~held


def _ask(
    peers: Sequence[Peer], services: ServiceClasses, states: dict[str | None, State], family: int
) -> tuple[Mask, Mask]:
    """Pairs that have the family, bool (from, to), and the answers, bool (from, to, services)."""
    count = len(peers)
    has = np.array([family in one.addresses for one in peers], np.bool_)
    outside = np.array([one.kind == "outside" for one in peers], np.bool_)
    asked = has[:, None] & has[None, :] & ~np.eye(count, dtype=bool)
    asked &= ~(outside[:, None] & outside[None, :])
    allowed = np.zeros((count, count, len(services)), np.bool_)
    addresses = column(family, points(family, [one.addresses.get(family, 0) for one in peers]))
    for is_egress in (True, False):
        for at, peer in enumerate(peers):
            others = np.flatnonzero(asked[at] if is_egress else asked[:, at])
            if not len(others):
                continue
            answers = _gate(peer, peers, others, is_egress, (addresses, at), services, states)
            if is_egress:
                allowed[at, others] = answers
            else:
                allowed[others, at] &= answers
    return asked, allowed


def _gate(
    peer: Peer,
    peers: Sequence[Peer],
    others: NDArray[np.intp],
    is_egress: bool,
    place: tuple[Any, int],
    services: ServiceClasses,
    states: dict[str | None, State],
) -> Mask:
    """What one end says of connections with others, bool (others, services)."""
    shape = (len(others), len(services))
    if peer.kind == "outside":
        return np.ones(shape, np.bool_)
    addresses, at = place
    theirs = np.repeat(addresses[others], len(services), axis=0)
    own = np.repeat(addresses[[at]], len(theirs), axis=0)
    fields = {name: np.tile(services.samples[name], len(others)) for name in _FIELDS}
    src, dst = (own, theirs) if is_egress else (theirs, own)
    ends = [peers[other] for other in others]
    if peer.kind == "host":
        interfaces = [_way(peer, other) for other in ends]
        answers = _host_gate(states[peer.node], interfaces, is_egress, src, dst, fields)
        return answers.reshape(shape)
    answers = _workload_gate(states[None], peer, is_egress, src, dst, fields).reshape(shape)
    # E-36: no policy judges what a host sends to its own workloads. E-50: what they send to it its hooks
    # judge, the workload's policy among the rest.
    answers[[_is_same_node(peer, other) and other.kind == "host" for other in ends]] = True
    return answers


def _is_same_node(one: Peer, other: Peer) -> bool:
    return one.node is not None and one.node == other.node


def _way(host: Peer, other: Peer) -> str:
    """The interface of the host that packets to and from the other end pass."""
    if not _is_same_node(host, other):
        return host.interface
    return "lo" if other.kind == "host" else other.interface


def _workload_gate(
    state: State, peer: Peer, is_egress: bool, src: Any, dst: Any, fields: dict[str, Any]
) -> Mask:
    verdicts, outcomes = np.zeros(len(src), np.uint8), np.zeros(len(src), np.uint32)
    flows = Flows.read(
        state.table.core, hook="filter-forward", src=src, dst=dst, in_=None, out=None, ct="new",
        accepted=False, dnatted=False, **fields,
    )  # fmt: skip
    numbers = np.full(len(src), peer.number, np.uint32)
    state.table.core.gate_batch(is_egress, numbers, flows, verdicts, outcomes)
    found: Mask = verdicts != _DENY
    return found


def _host_gate(
    state: State, interfaces: Sequence[str], is_egress: bool, src: Any, dst: Any, fields: dict[str, Any]
) -> Mask:
    """Every hook on the way into a host, or out of it, with the accept mark that each leaves (E-48).

    `interfaces` has one for each other end.
    """
    hooks: tuple[Any, ...] = ("raw-prerouting", "mangle-prerouting", "filter-input")
    if is_egress:
        hooks = ("raw-output", "filter-output")
    ids = np.repeat(state.table.interface_ids(interfaces), len(src) // len(interfaces))
    into, out = (None, ids) if is_egress else (ids, None)
    accepted, passed = np.zeros(len(src), np.bool_), np.ones(len(src), np.bool_)
    ct = np.zeros(len(src), np.uint8)
    for hook in hooks:
        verdicts, _ = state.table.decide_batch(
            hook, src, dst, **fields, in_=into, out=out, ct=ct, accepted=accepted
        )
        passed &= verdicts != _DENY
        accepted = accepted | (verdicts == _NOTRACK) | (verdicts == _SKIP_HEP)
        ct = np.where(verdicts == _NOTRACK, np.uint8(_UNTRACKED), ct)
    return passed
