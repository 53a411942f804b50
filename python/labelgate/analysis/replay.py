"""Recorded flows judged by a policy: each in the direction of its first packet, as a node or a cluster would.

Replies and later packets belong to their flow: conntrack lets them pass where the first packet has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.recorded import BEGUN, DNATED, Recorded
from labelgate.flow import CT_STATES, ICMP, ICMPV6, VERDICTS, Hook, Packet
from labelgate.table import DecisionTable

ALLOWED, DENIED, NO_ENDPOINT, UNKNOWN_DIRECTION, NO_WAY, TRANSLATED, SPOOFED = range(7)
STATES = (
    "allowed", "denied", "no endpoint", "unknown direction", "not of this node", "DNATed", "spoofed source",
)  # fmt: skip
"""What becomes of a flow. The last five are not judged by any policy: no endpoint of ours has a say; who
began it is not in the capture; neither end is the node's, or no interface towards it is known; its
destination is another one behind DNAT, which is not known; it came from a workload that may not use the
source (E-30), and is dropped whatever policy says."""
DROPPED = (DENIED, SPOOFED)
_DENY, _CONTINUE = VERDICTS.index("deny"), VERDICTS.index("continue")
_RELATED, _INVALID = CT_STATES.index("related"), CT_STATES.index("invalid")


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
        """Both gates of each flow; RELATED passes and INVALID is denied by endpoints of ours (E-20.2).

        What workloads send is judged behind DNAT, as far as that is known, and what they get is, too.
        """
        block = block.behind_dnat()
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
        state[lost] = unjudged(block)[lost]
        decider[lost | related | ~ours] = -1
        visits = []
        for has_gate, side in zip((has_egress, has_ingress), numbers, strict=True):
            rows = np.flatnonzero(has_gate & ~(lost | invalid | related))
            visits.append((rows, side[rows]))
        return Judged(state, decider, visits)


def unjudged(block: Recorded) -> NDArray[np.uint8]:
    """The state of what has no known beginning, or no known end."""
    return np.where(block.begin == DNATED, TRANSLATED, UNKNOWN_DIRECTION).astype(np.uint8)


def _packet(block: Recorded, row: int, hook: Hook) -> Packet:
    protocol, sport, dport = (int(column[row]) for column in (block.protocol, block.sport, block.dport))
    src, dst = block.address(block.src, row), block.address(block.dst, row)
    if protocol in (ICMP, ICMPV6):
        return Packet(hook, src, dst, protocol, icmp_type=dport >> 8, icmp_code=dport & 0xFF)
    return Packet(hook, src, dst, protocol, sport, dport)


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
        rows = np.flatnonzero(np.isin(one.state, DROPPED) != np.isin(other.state, DROPPED))
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
    if block.translated[row]:
        flow["dnat"] = _destination(block, row)
    return flow | {
        "ct": CT_STATES[block.ct[row]],
        "packets": int(block.packets[row]),
        "replies": int(block.replies[row]),
        "answered": bool(block.answered[row]),
    }


def _destination(block: Recorded, row: int) -> str:
    """Where DNAT sends a flow, as `labelgate.path.read_destination` reads it."""
    address, port = block.address(block.target, row), int(block.target_port[row])
    if port == block.dport[row]:
        return str(address)
    return f"{address}:{port}" if block.version == 4 else f"[{address}]:{port}"
