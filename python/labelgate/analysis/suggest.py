"""Recorded flows to the least that policy must allow, for each group of endpoints with the same labels."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any, Literal

import numpy as np

from labelgate.analysis.recorded import BEGUN, DNATED, Recorded
from labelgate.analysis.selection import Group, group_of, has_own_label, selectors
from labelgate.conversion import quoted
from labelgate.flow import CT_STATES, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, IPAddress
from labelgate.reference.labels import NAMESPACE, ORCHESTRATOR, Endpoint, Host, Member, Workload, members
from labelgate.reference.selectors import matches, parse
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot

Direction = Literal["ingress", "egress"]
Peers = Literal["seen", "namespace"]
"""Whom a rule finds: those seen only, or every workload of the namespaces that one was seen in."""
_NEW = CT_STATES.index("new")
_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP", ICMP: "ICMP", ICMPV6: "ICMPv6", UDPLITE: "UDPLite"}
_PORTS = (TCP, UDP, SCTP)
_IPIP = 4
MOST_PORTS, MOST_NETS = 50, 256
"""Of a list in a rule (semantics 1.2)."""
MOST_RULES, MOST_CHARACTERS = 1024, 1024
"""Of a direction of a policy, and of a selector (V-48)."""

Net = IPv4Network | IPv6Network
Service = tuple[int, int]
"""Protocol, and port or `type << 8 | code`."""
Peer = Group | IPAddress
"""A group of endpoints, by their labels, or an address that nobody has or that no label finds alone."""


@dataclass
class Evidence:
    """The flows that something is there for."""

    flows: int = 0
    packets: int = 0
    example: str = ""

    def add(self, flows: int, packets: int, example: str) -> None:
        """Counts flows in."""
        self.flows, self.packets = self.flows + flows, self.packets + packets
        self.example = self.example or example


@dataclass(frozen=True)
class Rule:
    """One rule, in the fields of Calico, and why it is there."""

    fields: dict[str, Any]
    evidence: Evidence
    note: str = ""


@dataclass(frozen=True)
class Suggestion:
    """One staged policy."""

    kind: str
    name: str
    namespace: str | None
    selector: str
    endpoints: tuple[str, ...]
    rules: Mapping[Direction, Sequence[Rule]]
    beside: str | None = None
    """The policy that is loaded already, and has the name that this one would have."""


@dataclass(frozen=True, order=True)
class Subject:
    """A group of endpoints that one policy is for."""

    namespace: str
    """Empty: host endpoints."""
    labels: tuple[tuple[str, str], ...]

    @property
    def group(self) -> Group:
        """Its labels as a group."""
        return frozenset(self.labels)


@dataclass
class Observed:
    """What endpoints were seen doing."""

    snapshot: Snapshot
    workload_prefix: str = "cali"
    settings: Settings = field(default_factory=Settings)
    counters: Counter[str] = field(default_factory=Counter)
    """Flows by what became of them."""
    needs: dict[Subject, dict[Direction, dict[Service, dict[Peer, Evidence]]]] = field(default_factory=dict)
    has_ipv6: set[Subject] = field(default_factory=set)
    unnamed: set[str] = field(default_factory=set)
    """Those whom no selector finds that is short enough for a policy, as far as `suggest` has met them."""

    def __post_init__(self) -> None:
        self.members = members(self.snapshot, self.workload_prefix)
        self.endpoints = [one for one in self.members if isinstance(one, Endpoint)]
        self.sets = network_sets(self.members)
        self.services = {address for one in self.snapshot.services for address in one.spec.addresses}
        self.owners: dict[Any, Endpoint] = {}
        for endpoint in self.endpoints:
            for net in endpoint.nets:
                if net.prefixlen == net.max_prefixlen:
                    self.owners.setdefault(net.network_address, endpoint)

    def add(self, block: Recorded, *, unanswered: bool = False) -> None:
        """Takes a block in; `unanswered`: TCP that nobody has answered, too."""
        block = block.behind_dnat()
        dnated = block.begin == DNATED
        lost = (block.begin != BEGUN) | (block.ct != _NEW)
        silent = (block.protocol == TCP) & ~block.answered & (not unanswered)
        denied = block.denied
        self.counters["no connection, or who began it is not known"] += int((lost & ~dnated).sum())
        self.counters["DNATed: their destination is another one"] += int(dnated.sum())
        self.counters["denied where they were recorded"] += int((denied & ~lost).sum())
        self.counters["TCP that nobody has answered"] += int((silent & ~denied & ~lost).sum())
        for row in np.flatnonzero(~(lost | silent | denied)):
            self._see(block, int(row))

    def _see(self, block: Recorded, row: int) -> None:
        src, dst = block.address(block.src, row), block.address(block.dst, row)
        service = int(block.protocol[row]), int(block.dport[row])
        source, destination = self.owners.get(src), self.owners.get(dst)
        if source is None and destination is None:
            self.counters["between addresses that no endpoint has"] += 1
            return
        problem = _unspeakable(service)
        if destination is None and dst in self.services:
            problem = "to the address of a Service, before DNAT: their destination is a pod (M-34)"
        if problem is None and isinstance(source, Workload) and self._is_encapsulated(service):
            problem = "encapsulated by a workload, which no policy can allow (E-20.5)"
        if problem is not None:
            self.counters[problem] += 1
            return
        self.counters["taken"] += 1
        packets = int(block.packets[row]) + int(block.replies[row])
        example = f"{src} > {dst} {spoken(service)}"
        if source is not None:
            peer = dst if destination is None else self._peer(destination, dst)
            self._need(source, "egress", service, peer).add(1, packets, example)
        if destination is not None:
            peer = src if source is None else self._peer(source, src)
            self._need(destination, "ingress", service, peer).add(1, packets, example)
        for endpoint in (source, destination):
            if endpoint is not None and block.version == 6:
                self.has_ipv6.add(subject_of(endpoint))

    def _is_encapsulated(self, service: Service) -> bool:
        protocol, number = service
        if protocol == _IPIP:
            return self.settings.workload_ipip_denied
        return protocol == UDP and number == self.settings.workload_vxlan_port

    def _peer(self, endpoint: Endpoint, address: IPAddress) -> Peer:
        """By its labels, unless a network set has just the same, or a host endpoint has none of its own."""
        group = group_of(endpoint.labels)
        is_found = isinstance(endpoint, Workload) or _has_host_labels(group)
        return group if is_found and group not in self.sets else address

    def _need(self, endpoint: Endpoint, direction: Direction, service: Service, peer: Peer) -> Evidence:
        needs = self.needs.setdefault(subject_of(endpoint), {"ingress": {}, "egress": {}})
        return needs[direction].setdefault(service, {}).setdefault(peer, Evidence())


def network_sets(members: Iterable[Member]) -> dict[Group, tuple[Net, ...]]:
    """Addresses by the labels of network sets; those that have the same labels count as one."""
    nets: dict[Group, list[Net]] = {}
    for one in members:
        if not isinstance(one, Endpoint):
            nets.setdefault(group_of(one.labels), []).extend(one.nets)
    return {group: tuple(_collapsed(found)) for group, found in nets.items()}


def subject_of(endpoint: Endpoint) -> Subject:
    """The group that its policy is for."""
    namespace = endpoint.labels.get(NAMESPACE, "") if isinstance(endpoint, Workload) else ""
    return Subject(namespace, tuple(sorted(group_of(endpoint.labels))))


def _has_host_labels(group: Group) -> bool:
    """Whether labels tell a host endpoint from workloads, which have a namespace, and from other things."""
    return has_own_label(group) and NAMESPACE not in dict(group)


def unselectable(observed: Observed) -> list[str]:
    """Host endpoints that were seen, but that a policy could select only with whatever else has no labels."""
    seen = {subject for subject in observed.needs if not _selectable(subject)}
    return sorted(one.name for one in observed.endpoints if subject_of(one) in seen)


def _selectable(subject: Subject) -> bool:
    return bool(subject.namespace) or _has_host_labels(subject.group)


def _unspeakable(service: Service) -> str | None:
    """What no rule can say (V-12, V-23)."""
    protocol, number = service
    if protocol == 0:
        return "IP protocol 0, which no rule can name"
    if protocol in (ICMP, ICMPV6) and number >> 8 == 255:
        return "ICMP type 255, which no rule can name"
    if protocol in _PORTS and number == 0:
        return "port 0, which no rule can name"
    return None


def spoken(service: Service) -> str:
    """A service in words.

    >>> spoken((6, 80)), spoken((1, 2048)), spoken((47, 0))
    ('TCP 80', 'ICMP type 8 code 0', 'protocol 47')
    """
    protocol, number = service
    name = _NAMES.get(protocol, f"protocol {protocol}")
    if protocol in (ICMP, ICMPV6):
        return f"{name} type {number >> 8} code {number & 0xFF}"
    return f"{name} {number}" if protocol in _PORTS else name


def suggest(observed: Observed, *, peers: Peers = "seen", prefix: Mapping[int, int]) -> list[Suggestion]:
    """Staged policies for each group of endpoints that was seen, both directions, but the `unselectable`.

    One for each group, and more only where it would have too many rules. Whom no selector finds that is
    short enough gets no policy, and as a peer no rule: `observed.unnamed` has them then.

    `prefix` is the length, by IP version, that addresses of nobody are widened to: 32 and 128 leave them.
    """
    names = dict.fromkeys(loaded := _loaded(observed.snapshot), 1)
    found = []
    for subject in filter(_selectable, sorted(observed.needs)):
        needs = observed.needs[subject]
        owned = [one for one in observed.endpoints if subject_of(one) == subject]
        selector = _subject_selector(observed, subject)
        if len(selector) > MOST_CHARACTERS:
            observed.unnamed.update(one.name for one in owned)
            continue
        writer = _Writer(observed, subject, peers, prefix)
        rules: dict[Direction, list[Rule]] = {
            direction: list(writer.rules(direction, needs[direction])) for direction in ("ingress", "egress")
        }
        if not subject.namespace and subject in observed.has_ipv6:
            for direction in rules:
                rules[direction] += _neighbour_discovery()
        wanted = _name(subject, owned)
        found += [
            Suggestion(
                "StagedNetworkPolicy" if subject.namespace else "StagedGlobalNetworkPolicy",
                _unused(names, subject.namespace, wanted),
                subject.namespace or None,
                selector,
                tuple(sorted(one.name for one in owned)),
                part,
                wanted if (subject.namespace, wanted) in loaded else None,
            )
            for part in _parts(rules)
        ]
    return found


def _loaded(snapshot: Snapshot) -> set[tuple[str, str]]:
    """Namespace and name of Calico policies, staged or not: in force they have a name but once."""
    staged = (*snapshot.staged_network_policies, *snapshot.staged_global_network_policies)
    policies = (*snapshot.calico_policies(), *staged)
    return {(one.metadata.namespace or "", one.metadata.name) for one in policies}


def _parts(rules: Mapping[Direction, Sequence[Rule]]) -> Iterator[dict[Direction, Sequence[Rule]]]:
    """As many as a policy may have each: all of them allow, so together they mean the same.

    >>> rule = Rule({}, Evidence())
    >>> parts = _parts({"ingress": [rule], "egress": [rule] * 1025})
    >>> [[len(found) for found in part.values()] for part in parts]
    [[1, 1024], [0, 1]]
    """
    most = max(len(found) for found in rules.values())
    for start in range(0, max(most, 1), MOST_RULES):
        yield {direction: found[start : start + MOST_RULES] for direction, found in rules.items()}


def _subject_selector(observed: Observed, subject: Subject) -> str:
    """Of the policy: a namespaced one selects within its namespace, a global one everything but workloads."""
    among = [
        group_of(one.labels)
        for one in observed.endpoints
        if (one.labels.get(NAMESPACE) == subject.namespace if subject.namespace else isinstance(one, Host))
    ]
    (selector,) = selectors([subject.group], among)
    # Workloads of other clusters and of tomorrow may have the same labels; a namespace they all have.
    return selector if subject.namespace else f"{selector} && !has({NAMESPACE})"


def _unused(names: dict[tuple[str, str], int], namespace: str, name: str) -> str:
    """The name, with a number if the namespace has it; `names` has those that are used, and counts up.

    >>> names = {}
    >>> [_unused(names, "shop", name) for name in ("web", "web", "web-2")]
    ['web', 'web-2', 'web-2-2']
    """
    number, found = names.get((namespace, name), 1), name
    while (namespace, found) in names:
        number += 1
        found = f"{name}-{number}"
    names[namespace, name] = number
    names.setdefault((namespace, found), 1)
    return found


def _name(subject: Subject, owned: Sequence[Endpoint]) -> str:
    labels = dict(subject.labels)
    keys = ("app.kubernetes.io/name", "app", "k8s-app", "role")
    text = next((labels[key] for key in keys if key in labels), owned[0].short_name)
    slug = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in text.lower())
    return f"suggested-{slug.strip('-')[:40].strip('-') or 'endpoint'}"


def _neighbour_discovery() -> list[Rule]:
    """E-53: a host endpoint denies it like anything else, and then the host has no IPv6."""
    note = "neighbour discovery, without which there is no IPv6 (E-53)"
    return [
        Rule({"action": "Allow", "protocol": "ICMPv6", "icmp": {"type": kind}}, Evidence(), note)
        for kind in (133, 134, 135, 136)
    ]


@dataclass(frozen=True)
class _Writer:
    """Rules of one policy."""

    observed: Observed
    subject: Subject
    peers: Peers
    prefix: Mapping[int, int]

    def rules(self, direction: Direction, needs: Mapping[Service, Mapping[Peer, Evidence]]) -> Iterator[Rule]:
        """Services that the same peers use are one rule."""
        together: dict[tuple[int, int, frozenset[Peer]], list[Service]] = {}
        for protocol, number in sorted(needs):
            peers = frozenset(needs[protocol, number])
            alone = -1 if protocol in _PORTS else number
            together.setdefault((protocol, alone, peers), []).append((protocol, number))
        for (_, _, peers), services in together.items():
            for side, chosen in self._sides(peers):
                evidence = Evidence()
                for service in services:
                    for peer in chosen:
                        one = needs[service][peer]
                        evidence.add(one.flows, one.packets, one.example)
                if len(side.get("selector", "")) > MOST_CHARACTERS:
                    self._leave_out(chosen, evidence)
                    continue
                yield from _rules(direction, services, side, evidence)

    def _leave_out(self, peers: Sequence[Peer], evidence: Evidence) -> None:
        observed = self.observed
        observed.counters["without a rule at one end: the selector of the other would be too long"] += (
            evidence.flows
        )
        observed.unnamed |= {one.name for one in observed.endpoints if group_of(one.labels) in peers}

    def _sides(self, peers: frozenset[Peer]) -> Iterator[tuple[dict[str, Any], list[Peer]]]:
        """The peers as what a rule says of its other side, with those that each finds."""
        addresses = [peer for peer in peers if not isinstance(peer, frozenset)]
        sets = self._fitting_sets(addresses)
        groups = [*(peer for peer in peers if isinstance(peer, frozenset)), *sets]
        for scope, namespace_selector in self._scopes():
            found = self._by_label([one for one in groups if scope(dict(one))], scope, namespace_selector)
            for side, by_label in found:
                yield side, [peer for one in by_label for peer in sets.get(one, [one])]
        in_sets = {address for found in sets.values() for address in found}
        for version in (4, 6):
            of_version = [
                address for address in addresses if address.version == version and address not in in_sets
            ]
            nets = _nets(of_version, self.prefix[version])
            for start in range(0, len(nets), MOST_NETS):
                part = nets[start : start + MOST_NETS]
                chosen: list[Peer] = [one for one in of_version if any(one in net for net in part)]
                yield {"nets": [str(net) for net in part]}, chosen

    def _fitting_sets(self, addresses: Sequence[IPAddress]) -> dict[Group, list[Peer]]:
        """Network sets that hold nothing but what would be let in by address, with those that each is for.

        Those that labels find no better than others are not among them.
        """
        seen = {
            version: _nets([one for one in addresses if one.version == version], self.prefix[version])
            for version in (4, 6)
        }
        endpoints = {group_of(one.labels) for one in self.observed.endpoints}
        left, found = list(addresses), dict[Group, list[Peer]]()
        sets = self.observed.sets
        for group in sorted(sets, key=lambda group: (-_size(sets[group]), sorted(group))):
            nets = sets[group]
            if not has_own_label(group) or group in endpoints:
                continue
            if all(_holds(seen[net.version], net) for net in nets):
                inside = [one for one in left if _holds(nets, ip_network(one))]
                left = [one for one in left if one not in inside]
                if inside:
                    found[group] = list(inside)
        return found

    def _scopes(self) -> list[tuple[Any, str | None]]:
        """Whom a selector can find at all, by the namespaceSelector beside it (M-21..M-23)."""
        own = self.subject.namespace
        if not own:
            return [(lambda labels: True, None)]
        return [
            (lambda labels: labels.get(NAMESPACE) == own, None),
            (lambda labels: labels.get(NAMESPACE, own) != own, "all()"),
            (lambda labels: NAMESPACE not in labels, "global()"),
        ]

    def _by_label(
        self, groups: list[Group], scope: Any, namespace_selector: str | None
    ) -> Iterator[tuple[dict[str, Any], list[Group]]]:
        if not groups:
            return
        among = [group_of(one.labels) for one in _reachable(self.observed.members)]
        # Beside `all()` those of the own namespace would be found, too.
        found_by = [
            one
            for one in among
            if scope(dict(one)) or (namespace_selector == "all()" and NAMESPACE in dict(one))
        ]
        whole = list(self._whole(groups)) if self.peers == "namespace" else []
        rest = [one for one in groups if not any(one in chosen for _, chosen in whole)]
        for selector, chosen in [*whole, *_covering(rest, found_by)]:
            side = {"selector": selector}
            if namespace_selector:
                side["namespaceSelector"] = namespace_selector
            yield side, [one for one in groups if one in chosen]

    def _whole(self, groups: Sequence[Group]) -> Iterator[tuple[str, set[Group]]]:
        """All workloads of namespaces. A NetworkSet has the namespace, too, but no orchestrator (R-21, R-26).

        Left out are host endpoints, workloads that name no orchestrator, and namespaces where a set does.
        """
        not_workloads = [one.labels for one in self.observed.members if not isinstance(one, Workload)]
        mixed = {labels.get(NAMESPACE) for labels in not_workloads if ORCHESTRATOR in labels}
        whole: dict[str, set[Group]] = {}
        for group in groups:
            labels = dict(group)
            namespace = labels.get(NAMESPACE)
            if namespace and ORCHESTRATOR in labels and namespace not in mixed:
                whole.setdefault(namespace, set()).add(group)
        for namespace, found in sorted(whole.items()):
            yield f"{NAMESPACE} == {quoted(namespace)} && has({ORCHESTRATOR})", found


def _reachable(members: Iterable[Member]) -> Iterator[Member]:
    return (one for one in members if one.nets)


def _covering(wanted: Sequence[Group], among: Sequence[Group]) -> Iterator[tuple[str, set[Group]]]:
    """Selectors, and the groups that each is there for, none twice."""
    left = list(dict.fromkeys(wanted))
    for selector in selectors(wanted, among):
        found = {group for group in left if matches(parse(selector), dict(group))}
        left = [group for group in left if group not in found]
        yield selector, found


def _nets(addresses: Sequence[IPAddress], prefix: int) -> list[Net]:
    """The addresses widened to a prefix; neighbours are put together where nothing is added by it."""
    return _collapsed({ip_network((address, prefix), strict=False) for address in addresses})


def _collapsed(nets: Iterable[Net]) -> list[Net]:
    """The fewest nets with the same addresses: IPv4, then IPv6, in order."""
    every: list[Any] = sorted(set(nets), key=_order)
    v4, v6 = ([net for net in every if net.version == version] for version in (4, 6))
    return [*collapse_addresses(v4), *collapse_addresses(v6)]


def _order(net: Net) -> tuple[int, int]:
    return net.version, int(net.network_address)


def _holds(nets: Sequence[Net], one: Net) -> bool:
    """Whether nets that `_collapsed` gave hold all of another."""
    at = bisect_right(nets, _order(one), key=_order)
    other: Any = nets[at - 1] if at else None
    return other is not None and other.version == one.version and bool(one.subnet_of(other))


def _size(nets: Sequence[Net]) -> int:
    return sum(net.num_addresses for net in nets)


def _rules(
    direction: Direction, services: Sequence[Service], side: Mapping[str, Any], evidence: Evidence
) -> Iterator[Rule]:
    protocol, number = services[0]
    peer, own = ("source", "destination") if direction == "ingress" else ("destination", "source")
    fields: dict[str, Any] = {"action": "Allow", "protocol": _NAMES.get(protocol, protocol)}
    if protocol in (ICMP, ICMPV6):
        yield Rule(
            {**fields, "icmp": {"type": number >> 8, "code": number & 0xFF}, peer: dict(side)}, evidence
        )
        return
    if protocol not in _PORTS:
        yield Rule({**fields, peer: dict(side)}, evidence)
        return
    ports = _ranges(sorted({port for _, port in services}))
    for start in range(0, len(ports), MOST_PORTS):
        part = ports[start : start + MOST_PORTS]
        if direction == "egress":
            yield Rule({**fields, peer: {**side, "ports": part}}, evidence)
        else:
            yield Rule({**fields, peer: dict(side), own: {"ports": part}}, evidence)


def _ranges(ports: Sequence[int]) -> list[int | str]:
    """Ports as a rule lists them: neighbours as ranges.

    >>> _ranges([80, 8000, 8001, 8002])
    [80, '8000:8002']
    """
    found: list[list[int]] = []
    for port in ports:
        if found and found[-1][1] == port - 1:
            found[-1][1] = port
        else:
            found.append([port, port])
    return [first if first == last else f"{first}:{last}" for first, last in found]
