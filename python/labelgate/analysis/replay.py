"""Recorded flows judged by a policy: each in the direction of its first packet, as a node or a cluster would.

Replies and later packets belong to their flow: conntrack lets them pass where the first packet has passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.recorded import BEGUN, DNATED, Recorded
from labelgate.flow import CT_STATES, ICMP, ICMPV6, VERDICTS, Hook, IPAddress, Packet
from labelgate.path import hooks_of
from labelgate.settings import HostFacts
from labelgate.table import DecisionTable

ALLOWED, DENIED, NO_ENDPOINT, UNKNOWN_DIRECTION, NO_WAY, TRANSLATED = range(6)
STATES = ("allowed", "denied", "no endpoint", "unknown direction", "not of this node", "DNATed")
"""What becomes of a flow. The last four are not judged: no endpoint of ours has a say; who began it is not
in the capture; neither end is the node's, or no interface towards it is known; its destination is
another one behind DNAT, which is not known."""
_DENY, _CONTINUE = VERDICTS.index("deny"), VERDICTS.index("continue")
_NEW, _ESTABLISHED, _UNTRACKED = map(CT_STATES.index, ("new", "established", "untracked"))
_RELATED, _INVALID = CT_STATES.index("related"), CT_STATES.index("invalid")
_MARKS = tuple(VERDICTS.index(word) for word in ("allow-notrack", "allow-skip-hep"))
_NOBODY = "no endpoint"


class Why(NamedTuple):
    """What decides at one place."""

    place: str
    """A hook, or `egress` and `ingress` of workloads."""
    verdict: str
    tier: str | None
    policy: str | None
    rule: int | None
    reason: str

    def __str__(self) -> str:
        where = [f"tier {self.tier}"] if self.tier else []
        if self.policy:
            where.append(self.policy + ("" if self.rule is None else f" rule {self.rule}"))
        return f"{self.verdict} at {self.place}: " + (", ".join(where) or self.reason)


_INVALID_WHY = Why("conntrack", "deny", None, None, None, "invalid (E-20.2)")


class Reasons:
    """Every `Why` of a table that has come up, numbered."""

    def __init__(self, table: DecisionTable) -> None:
        self.all: list[Why] = []
        self._table = table
        self._numbers: dict[Why, int] = {}
        self._answers: dict[tuple[str, int], int] = {}

    def number(self, why: Why) -> int:
        """Its number; a new one if it is new."""
        found = self._numbers.setdefault(why, len(self.all))
        if found == len(self.all):
            self.all.append(why)
        return found

    def numbers(
        self, place: str, verdicts: NDArray[np.uint8], outcomes: NDArray[np.uint32]
    ) -> NDArray[np.int64]:
        """The number of what decided each, (n,)."""
        keys = outcomes.astype(np.uint64) << np.uint64(8) | verdicts
        found, inverse = np.unique(keys, return_inverse=True)
        numbers = [self._number_of(place, int(key)) for key in found]
        numbered: NDArray[np.int64] = np.array(numbers, np.int64)[inverse.reshape(-1)]
        return numbered

    def _number_of(self, place: str, answer: int) -> int:
        """Of an outcome id and, in the lowest byte, a verdict."""
        key = (place, answer)
        if key not in self._answers:
            row = self._table.outcomes[answer >> 8]
            verdict, rule = VERDICTS[answer & 0xFF], int(row["rule"])
            said = (row["tier"], row["policy"], None if rule < 0 else rule, row["reason"])
            self._answers[key] = self.number(Why(place, verdict, *said))
        return self._answers[key]


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of the flows of a block."""

    state: NDArray[np.uint8]
    """(n,), of `STATES`."""
    decider: NDArray[np.int64]
    """(n,), the number of what decided; -1 where nothing was asked."""
    visits: Sequence[tuple[NDArray[np.intp], NDArray[np.int64]]]
    """For each place: the rows that came there, and the number of what decided each."""


class Judge(Protocol):
    """Answers for a block of flows."""

    reasons: Reasons

    def judge(self, block: Recorded) -> Judged:
        """What becomes of them."""


class ClusterJudge:
    """New connections between workloads, wherever they live: a table of `Snapshot.compile(node=None)`."""

    def __init__(self, table: DecisionTable) -> None:
        self.reasons = Reasons(table)
        self._table = table

    def judge(self, block: Recorded) -> Judged:
        """Both gates of each flow; RELATED passes and INVALID is denied by endpoints of ours (E-20.2)."""
        sides = self._table.connectivity_batch(block.src, block.dst, block.protocol, block.sport, block.dport)
        has_egress, has_ingress = (verdicts != _CONTINUE for verdicts, _ in sides)
        no_egress, no_ingress = (verdicts == _DENY for verdicts, _ in sides)
        numbers = [
            self.reasons.numbers(place, *answers)
            for place, answers in zip(("egress", "ingress"), sides, strict=True)
        ]
        ours = has_egress | has_ingress
        state = np.where(ours, np.where(no_egress | no_ingress, DENIED, ALLOWED), NO_ENDPOINT).astype(
            np.uint8
        )
        decider = np.where(no_egress | ~has_ingress, numbers[0], numbers[1])
        lost, invalid, related = block.begin != BEGUN, block.ct == _INVALID, block.ct == _RELATED
        state[related & ours] = ALLOWED
        state[invalid & ours], decider[invalid & ours] = DENIED, self.reasons.number(_INVALID_WHY)
        state[lost] = _unjudged(block)[lost]
        decider[lost | related | ~ours] = -1
        visits = []
        for has_gate, side in zip((has_egress, has_ingress), numbers, strict=True):
            rows = np.flatnonzero(has_gate & ~(lost | invalid | related))
            visits.append((rows, side[rows]))
        return Judged(state, decider, visits)


def _unjudged(block: Recorded) -> NDArray[np.uint8]:
    """The state of what has no known beginning, or no known end."""
    return np.where(block.begin == DNATED, TRANSLATED, UNKNOWN_DIRECTION).astype(np.uint8)


def _packet(block: Recorded, row: int, hook: Hook) -> Packet:
    protocol, sport, dport = (int(column[row]) for column in (block.protocol, block.sport, block.dport))
    src, dst = block.address(block.src, row), block.address(block.dst, row)
    if protocol in (ICMP, ICMPV6):
        return Packet(hook, src, dst, protocol, icmp_type=dport >> 8, icmp_code=dport & 0xFF)
    return Packet(hook, src, dst, protocol, sport, dport)


@dataclass(frozen=True)
class Whereabouts:
    """Which interface of a node leads to an address, as it is known without asking its kernel."""

    local: frozenset[IPAddress] = frozenset()
    """Addresses of the node itself."""
    workloads: Mapping[IPAddress, str] = field(default_factory=dict)
    """Interfaces of the node's workloads by their addresses."""
    routes: tuple[tuple[IPv4Network | IPv6Network, str], ...] = ()
    """The longest prefix that fits leads to the interface."""

    def of(self, address: IPAddress) -> tuple[bool, str | None]:
        """Whether it is the node's own, and the interface towards it if it is not."""
        if address in self.local or address.is_loopback:
            return True, None
        if address in self.workloads:
            return False, self.workloads[address]
        fitting = [(net.prefixlen, name) for net, name in self.routes if address in net]
        if address.is_multicast or str(address) == "255.255.255.255":
            return True, None
        return False, max(fitting)[1] if fitting else None


class Directory(Protocol):
    """Knows where addresses are."""

    def of(self, address: IPAddress) -> tuple[bool, str | None]:
        """Whether it is the node's own, and the interface towards it if it is not."""


class NodeJudge:
    """The whole way through one node, by the interfaces that lead to the two ends of a flow.

    `in_` and `out`, if either is given, are those of every flow.
    """

    def __init__(
        self,
        table: DecisionTable,
        whereabouts: Directory,
        *,
        in_: str | None = None,
        out: str | None = None,
        hook: Hook | None = None,
    ) -> None:
        self.reasons = Reasons(table)
        self._table = table
        self._whereabouts = whereabouts
        self._forced = (in_, out) if in_ or out else None
        self._hook = hook
        self._judges_replies = table.has_untracked_policy and hook is None

    def on_host(self, host: HostFacts, whereabouts: Directory) -> NodeJudge:
        """The same on the interfaces of a host that knows where addresses are."""
        in_, out = self._forced or (None, None)
        return NodeJudge(self._table.on_host(host), whereabouts, in_=in_, out=out, hook=self._hook)

    def judge(self, block: Recorded) -> Judged:
        """Hook after hook, each asked about those that came so far."""
        n = len(block)
        state, decider = np.full(n, NO_WAY, np.uint8), np.full(n, -1, np.int64)
        visits: list[tuple[NDArray[np.intp], NDArray[np.int64]]] = []
        lost = block.begin != BEGUN
        state[lost] = _unjudged(block)[lost]
        for (in_, out), rows in self._ways(block).items():
            rows = rows[~lost[rows]]
            if not len(rows):
                continue
            state[rows] = ALLOWED
            untracked = self._walk(block.pick(rows), rows, (in_, out), (state, decider), visits)
            if self._judges_replies:
                self._walk_back(block, rows, (in_, out), untracked, (state, decider), visits)
        return Judged(state, decider, visits)

    def _walk_back(
        self,
        block: Recorded,
        rows: NDArray[np.intp],
        way: tuple[str | None, str | None],
        untracked: NDArray[np.bool_],
        into: tuple[NDArray[np.uint8], NDArray[np.int64]],
        visits: list[tuple[NDArray[np.intp], NDArray[np.int64]]],
    ) -> None:
        """Replies, where untracked policy judges each packet: to conntrack they may be new (E-61)."""
        replied = (into[0][rows] == ALLOWED) & (block.replies[rows] > 0)
        rows, untracked = rows[replied], untracked[replied]
        if not len(rows):
            return
        ct = np.where(untracked, _NEW, _ESTABLISHED).astype(np.uint8)
        back = replace(_reversed(block.pick(rows)), ct=ct)
        state, decider = into[0].copy(), into[1].copy()
        self._walk(back, rows, (way[1], way[0]), (state, decider), visits, "replies at ")
        denied = rows[state[rows] == DENIED]
        into[0][denied], into[1][denied] = DENIED, decider[denied]

    def _ways(self, block: Recorded) -> dict[tuple[str | None, str | None], NDArray[np.intp]]:
        """Rows by in- and out-interface; those that are not of this node are in none."""
        n = len(block)
        if self._forced:
            return {self._forced: np.arange(n)}
        sources, destinations = (self._places(block, side) for side in (block.src, block.dst))
        found: dict[tuple[str | None, str | None], NDArray[np.intp]] = {}
        for source, from_rows in sources.items():
            for destination, to_rows in destinations.items():
                way = _way(source, destination)
                rows = np.flatnonzero(from_rows & to_rows)
                if way is not None and len(rows):
                    found[way] = np.concatenate([found[way], rows]) if way in found else rows
        return found

    def _places(
        self, block: Recorded, side: NDArray[Any]
    ) -> dict[tuple[bool, str | None], NDArray[np.bool_]]:
        """For each place that an address can be at, which rows are there."""
        keys = side if side.ndim == 1 else side.view("V16")[:, 0]
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        at = [self._whereabouts.of(block.address(side, int(row))) for row in first]
        kinds = list(dict.fromkeys(at))
        number = np.array([kinds.index(place) for place in at], np.intp)[inverse.reshape(-1)]
        return {kind: number == index for index, kind in enumerate(kinds)}

    def _walk(
        self,
        flows: Recorded,
        rows: NDArray[np.intp],
        way: tuple[str | None, str | None],
        into: tuple[NDArray[np.uint8], NDArray[np.int64]],
        visits: list[tuple[NDArray[np.intp], NDArray[np.int64]]],
        prefix: str = "",
    ) -> NDArray[np.bool_]:
        """Writes state and decider of these rows; which of the flows are untracked."""
        (in_, out), (state, decider) = way, into
        ct, accepted = flows.ct.copy(), np.zeros(len(rows), np.bool_)
        going, decisive = np.arange(len(rows)), np.zeros(len(rows), np.bool_)
        for hook in (self._hook,) if self._hook else hooks_of(in_, out):
            asked = flows.pick(going)
            verdicts, outcomes = self._table.decide_batch(
                hook, asked.src, asked.dst, asked.protocol, asked.sport, asked.dport,
                in_=in_, out=None if hook.endswith("prerouting") else out,
                ct=np.ascontiguousarray(ct[going]), accepted=np.ascontiguousarray(accepted[going]),
            )  # fmt: skip
            numbers = self.reasons.numbers(prefix + hook, verdicts, outcomes)
            visits.append((rows[going], numbers))
            # The last one that says more than `continue` decides; where none does, filter.
            says = (verdicts != _CONTINUE) | (
                ~decisive[going] & (hook.startswith("filter") or bool(self._hook))
            )
            decider[rows[going[says]]] = numbers[says]
            decisive[going[verdicts != _CONTINUE]] = True
            state[rows[going[verdicts == _DENY]]] = DENIED
            accepted[going] |= np.isin(verdicts, _MARKS)
            ct[going[verdicts == _MARKS[0]]] = _UNTRACKED
            going = going[verdicts != _DENY]
            if not len(going):
                break
        nobody = np.array([why.reason.startswith(_NOBODY) for why in self.reasons.all] + [False])
        state[rows[nobody[decider[rows]]]] = NO_ENDPOINT
        untracked: NDArray[np.bool_] = ct == _UNTRACKED
        return untracked


def _way(
    source: tuple[bool, str | None], destination: tuple[bool, str | None]
) -> tuple[str | None, str | None] | None:
    """In- and out-interface between two places; None if the node is on no way between them that is known."""
    (from_node, in_), (to_node, out) = source, destination
    if from_node and to_node:
        return None, "lo"
    if from_node:
        return (None, out) if out else None
    if to_node:
        return (in_, None) if in_ else None
    return (in_, out) if in_ and out and in_ != out else None


_REPLY_TYPES = {(4, 8): 0, (4, 13): 14, (4, 15): 16, (4, 17): 18, (6, 128): 129}


def _reversed(block: Recorded) -> Recorded:
    """The flows as the other side's packets have them."""
    is_icmp = np.isin(block.protocol, (ICMP, ICMPV6))
    sport, dport = np.where(is_icmp, block.sport, block.dport), np.where(is_icmp, block.dport, block.sport)
    for (version, request), reply in _REPLY_TYPES.items():
        if version == block.version:
            is_request = is_icmp & (block.dport >> 8 == request)
            dport = np.where(is_request, reply << 8 | block.dport & 0xFF, dport)
    return replace(
        block, src=block.dst, dst=block.src, sport=sport.astype(np.uint16), dport=dport.astype(np.uint16)
    )


def whereabouts(
    host: Mapping[str, Sequence[str]],
    endpoints: Iterable[tuple[str, Sequence[str]]],
    addresses: Iterable[str],
    routes: Iterable[tuple[IPv4Network | IPv6Network, str]],
) -> Whereabouts:
    """From host facts, workloads (interface, addresses), addresses of host endpoints, and routes."""
    local = {ip_address(text) for texts in host.values() for text in texts}
    workloads = {ip_address(text): name for name, texts in endpoints for text in texts}
    return Whereabouts(frozenset(local | set(map(ip_address, addresses))), workloads, tuple(routes))


@dataclass
class Tally:
    """Counts over all blocks: flows, packets (replies among them) and bytes."""

    states: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((len(STATES), 3), np.uint64))
    """By `STATES`."""
    rules: dict[int, NDArray[np.uint64]] = field(default_factory=dict)
    """By the number of what decided, at each place passed."""

    def add(self, block: Recorded, judged: Judged) -> None:
        """Counts a block in."""
        weights = _weights(block)
        for state in range(len(STATES)):
            self.states[state] += weights[judged.state == state].sum(0)
        for rows, numbers in judged.visits:
            found, inverse = np.unique(numbers, return_inverse=True)
            for index, number in enumerate(found):
                counted = weights[rows[inverse.reshape(-1) == index]].sum(0)
                self.rules[int(number)] = self.rules.get(int(number), np.zeros(3, np.uint64)) + counted


def _weights(block: Recorded) -> NDArray[np.uint64]:
    ones = np.ones(len(block), np.uint64)
    return np.stack([ones, block.packets + block.replies, block.bytes + block.reply_bytes], 1)


@dataclass
class Differences:
    """Flows whose fate differs between two policies, by what decides on both sides."""

    examples: int = 5
    groups: dict[tuple[int, int, int, int], tuple[NDArray[np.uint64], list[dict[str, Any]]]] = field(
        default_factory=dict
    )
    """(state, decider) of the one and of the other: counts, and the first flows."""

    def add(self, block: Recorded, one: Judged, other: Judged) -> None:
        """Compares a block."""
        rows = np.flatnonzero((one.state == DENIED) != (other.state == DENIED))
        if not len(rows):
            return
        weights = _weights(block)
        keys = np.stack([one.state, one.decider, other.state, other.decider], 1)[rows]
        found, inverse = np.unique(keys, axis=0, return_inverse=True)
        for index, key in enumerate(found):
            of_key = rows[inverse.reshape(-1) == index]
            counts, shown = self.groups.setdefault(
                (int(key[0]), int(key[1]), int(key[2]), int(key[3])), (np.zeros(3, np.uint64), [])
            )
            counts += weights[of_key].sum(0)
            room = self.examples - len(shown)
            shown.extend(flow_to_json(block, int(row)) for row in of_key[: max(room, 0)])


def flow_to_json(block: Recorded, row: int) -> dict[str, Any]:
    """A flow as the object of a JSON line, in the words of `labelgate explain --packets`."""
    packet = _packet(block, row, "filter-forward")
    flow: dict[str, Any] = {"src": str(packet.src), "dst": str(packet.dst), "protocol": packet.protocol}
    if packet.icmp_type is not None:
        flow |= {"icmpType": packet.icmp_type, "icmpCode": packet.icmp_code}
    else:
        flow |= {"sport": packet.sport, "dport": packet.dport}
    return flow | {
        "ct": CT_STATES[block.ct[row]],
        "packets": int(block.packets[row]),
        "replies": int(block.replies[row]),
    }
