"""Recorded flows on their whole way through one node, hook by hook, DNAT on it where it is known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.recorded import BEGUN, CAME_IN, Recorded
from labelgate.analysis.replay import (
    ALLOWED,
    DENIED,
    NO_ENDPOINT,
    NO_WAY,
    SPOOFED,
    Judged,
    Reasons,
    unjudged,
)
from labelgate.analysis.whereabouts import Directory, Place, Whereabouts, way_between
from labelgate.flow import CT_STATES, ICMP, ICMPV6, VERDICTS, Hook, IPAddress
from labelgate.path import BACK, LOOP, Interfaces, hooks_of
from labelgate.settings import HostFacts
from labelgate.table import DecisionTable
from labelgate.ways import Rows, Walk, groups

_DENY, _CONTINUE = VERDICTS.index("deny"), VERDICTS.index("continue")
_NEW, _ESTABLISHED, _UNTRACKED = map(CT_STATES.index, ("new", "established", "untracked"))
_NOBODY = "no endpoint"
_SPOOFED = "source is not the workload's (E-30)"


class NodeJudge:
    """The whole way through one node, by the interfaces that lead to the two ends of a flow.

    `in_` and `out`, if either is given, are those of every flow. `workloads` are the interfaces of the node's
    workloads: what a recording says was captured on one of them has come from there, whatever its source.
    """

    def __init__(
        self,
        table: DecisionTable,
        whereabouts: Directory,
        *,
        in_: str | None = None,
        out: str | None = None,
        hook: Hook | None = None,
        workloads: Collection[str] = (),
    ) -> None:
        self.reasons = Reasons(table)
        self._table = table
        self._whereabouts = whereabouts
        self._forced = (in_, out) if in_ or out else None
        self._hook = hook
        self._workloads = workloads
        self._judges_replies = table.has_untracked_policy and hook is None

    @property
    def local(self) -> frozenset[IPAddress]:
        """Addresses of the node itself, as far as they are known without asking it."""
        where = self._whereabouts
        return where.local if isinstance(where, Whereabouts) else frozenset()

    def on_host(self, host: HostFacts, whereabouts: Directory) -> NodeJudge:
        """The same on the interfaces of a host that knows where addresses are."""
        in_, out = self._forced or (None, None)
        return NodeJudge(self._table.on_host(host), whereabouts, in_=in_, out=out, hook=self._hook)

    def judge(self, block: Recorded) -> Judged:
        """Hook after hook, each asked about those that came so far."""
        walk = _Walk(self._table, self.reasons, block)
        walk.state[:] = NO_WAY
        lost = block.begin != BEGUN
        walk.state[lost] = unjudged(block)[lost]
        for (before, after, is_routed), rows in self._ways(block).items():
            rows = rows[~lost[rows]]
            if not len(rows):
                continue
            walk.state[rows] = ALLOWED
            if self._hook:
                walk.ask(self._hook, rows, after)
            elif is_routed:
                self._pass(walk, rows, before, after)
            else:
                left = walk.ask(hooks_of(*after)[0], rows, after)
                walk.state[left], walk.decider[left] = NO_WAY, -1
            walk.settle(rows)
        return Judged(walk.state, walk.decider, walk.visits)

    def _pass(self, walk: _Walk, rows: Rows, before: Interfaces | None, after: Interfaces) -> None:
        """From the raw hook on; `before` and `after` are the ways to it ahead of and behind DNAT."""
        block = walk.block
        raw, *_ = hooks_of(*after)
        rows = walk.ask(raw, rows, before or after)
        # Untracked packets pass no NAT (E-62).
        stays = block.translated[rows] & (walk.ct[rows] == _UNTRACKED)
        self._go_on(walk, rows[~stays], after, block.behind_dnat())
        if before is None:
            walk.state[rows[stays]] = NO_WAY
        else:
            self._go_on(walk, rows[stays], before, block)

    def _go_on(self, walk: _Walk, rows: Rows, way: Interfaces, sent: Recorded) -> None:
        """Behind the raw hook, and the replies; `sent` has the destinations that the flows come to have."""
        walk.go(hooks_of(*way)[1:], rows, way)
        if self._judges_replies:
            self._pass_back(walk, rows, way, sent)

    def _pass_back(self, walk: _Walk, rows: Rows, way: Interfaces, sent: Recorded) -> None:
        """Replies, where untracked policy judges each packet: to conntrack they may be new (E-61)."""
        rows = rows[(walk.state[rows] == ALLOWED) & (walk.block.replies[rows] > 0)]
        if not len(rows):
            return
        ct = np.where(walk.ct == _UNTRACKED, _NEW, _ESTABLISHED).astype(np.uint8)
        flows = replace(_reversed(sent), ct=ct)
        back = _Walk(self._table, self.reasons, flows, "replies at ")
        way = LOOP if way == LOOP else (way[1], way[0])
        back.go(hooks_of(*way), rows, way)
        back.settle(rows)
        walk.visits += back.visits
        denied = rows[back.state[rows] == DENIED]
        walk.state[denied], walk.decider[denied] = DENIED, back.decider[denied]

    def _ways(self, block: Recorded) -> dict[tuple[Interfaces | None, Interfaces, bool], Rows]:
        """Rows by the ways to both destinations, the second one as far as it is known; is it known whole?

        Of what came in from a workload enough is known for the raw hook; what else is not of this node is in
        none.
        """
        if self._forced:
            return {(self._forced, self._forced, True): np.arange(len(block))}
        kinds: list[Place] = []
        ends = [self._places(block, side, kinds) for side in (block.src, block.dst, block.target)]
        ends[0] = self._as_captured(block, ends[0], ends[2], kinds)
        keys = ((ends[0] * len(kinds) + ends[1]) * len(kinds) + ends[2]) * 2 + block.translated
        found: dict[tuple[Interfaces | None, Interfaces, bool], Rows] = {}
        for rows in groups(keys):
            rest, is_translated = divmod(int(keys[rows[0]]), 2)
            rest, target = divmod(rest, len(kinds))
            source, destination = divmod(rest, len(kinds))
            before, after = (
                way_between(kinds[source], kinds[to], is_translated=bool(is_translated))
                for to in (destination, target)
            )
            is_routed, in_ = after is not None, kinds[source][1]
            if after is None and in_ in self._workloads:
                after = in_, None
            if after is not None:
                known = found.get((before, after, is_routed))
                found[before, after, is_routed] = rows if known is None else np.concatenate([known, rows])
        return found

    def _places(self, block: Recorded, side: NDArray[Any], kinds: list[Place]) -> Rows:
        """For each row the index in `kinds` of the place that its address is at."""
        keys = side if side.ndim == 1 else side.view("V16")[:, 0]
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        numbers = [_number(kinds, self._whereabouts.of(block.address(side, int(row)))) for row in first]
        return np.array(numbers, np.intp)[inverse.reshape(-1)]

    def _as_captured(self, block: Recorded, sources: Rows, targets: Rows, kinds: list[Place]) -> Rows:
        """Where flows came from: the workload on whose interface they came in, else where the source is.

        Where the recording does not say which way they passed it, they came from there unless they go there,
        or the node itself may have sent them.
        """
        sources = sources.copy()
        for index, name in enumerate(block.names):
            if name not in self._workloads:
                continue
            place = _number(kinds, (False, name))
            is_node = np.array([local or interface is None for local, interface in kinds])[sources]
            came = (block.way == CAME_IN) | ((block.way == 0) & (targets != place) & ~is_node)
            sources[(block.interface == index) & came] = place
        return sources


def _number(kinds: list[Place], place: Place) -> int:
    """Its index, at the end if it is new."""
    if place not in kinds:
        kinds.append(place)
    return kinds.index(place)


class _Walk:
    """Flows of a block on their way: what has become of each so far."""

    def __init__(self, table: DecisionTable, reasons: Reasons, block: Recorded, prefix: str = "") -> None:
        n = len(block)
        self.block = block
        self.state = np.full(n, ALLOWED, np.uint8)
        self.decider = np.full(n, -1, np.int64)
        self.visits: list[tuple[Rows, NDArray[np.int64]]] = []
        self._walk = Walk(table, block, block.ct)
        self._reasons, self._prefix = reasons, prefix
        self._decisive = np.zeros(n, np.bool_)

    @property
    def ct(self) -> NDArray[np.uint8]:
        """As hooks before have left it."""
        return self._walk.ct

    def go(self, hooks: Sequence[Hook], rows: Rows, way: Interfaces) -> None:
        """Asks these hooks, which end a way; then those that what stays on the host comes in by."""
        for hook in hooks:
            rows = self.ask(hook, rows, way)
        if way == LOOP:
            self._walk.come_back(rows)
            self.go(hooks_of(*BACK), rows, BACK)

    def ask(self, hook: Hook, rows: Rows, way: Interfaces) -> Rows:
        """Asks a hook about these rows; those that it lets go on."""
        if not len(rows):
            return rows
        # Filter asks a policy, or mangle POSTROUTING of what the node sends and DNAT sends elsewhere (E-37).
        is_last = hook == "mangle-postrouting"
        asks = hook.startswith("filter") | (is_last & self._walk.is_translated(hook, rows))
        verdicts, outcomes = self._walk.ask(hook, rows, way)
        numbers = self._reasons.numbers(self._prefix + hook, verdicts, outcomes)
        self.visits.append((rows, numbers))
        # The last one that says more than `continue` decides; where none does, the one that asks a policy.
        asks |= self.decider[rows] == -1
        says = (verdicts != _CONTINUE) | (~self._decisive[rows] & asks)
        self.decider[rows[says]] = numbers[says]
        self._decisive[rows[verdicts != _CONTINUE]] = True
        self.state[rows[verdicts == _DENY]] = DENIED
        going: Rows = rows[verdicts != _DENY]
        return going

    def settle(self, rows: Rows) -> None:
        """Tells those apart that no policy has decided."""
        nobody = np.array([why.reason.startswith(_NOBODY) for why in self._reasons.all] + [False])
        spoofed = np.array([why.reason == _SPOOFED for why in self._reasons.all] + [False])
        self.state[rows[nobody[self.decider[rows]]]] = NO_ENDPOINT
        self.state[rows[spoofed[self.decider[rows]]]] = SPOOFED


_REPLY_TYPES = {(4, 8): 0, (4, 13): 14, (4, 15): 16, (4, 17): 18, (6, 128): 129, (6, 139): 140}


def _reversed(block: Recorded) -> Recorded:
    """The flows as the other side's packets have them; no reply is sent elsewhere."""
    is_icmp = np.isin(block.protocol, (ICMP, ICMPV6))
    sport, dport = np.where(is_icmp, block.sport, block.dport), np.where(is_icmp, block.dport, block.sport)
    for (version, request), reply in _REPLY_TYPES.items():
        if version == block.version:
            is_request = is_icmp & (block.dport >> 8 == request)
            dport = np.where(is_request, reply << 8 | block.dport & 0xFF, dport)
    sport, dport = sport.astype(np.uint16), dport.astype(np.uint16)
    return replace(
        block, src=block.dst, dst=block.src, target=block.src, sport=sport, dport=dport, target_port=dport
    )
