"""Connections by column, judged as `judge` does with one. Imported where it is needed: so is numpy."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.columns import address_column
from labelgate.flow import CT_STATES, ICMP, ICMPV6, VERDICTS, Hook
from labelgate.lockout.flows import Flow
from labelgate.lockout.host import Host
from labelgate.lockout.judge import denied_at
from labelgate.path import BACK, LOOP, STEPS, Interfaces, ahead_of_dnat, hooks_of
from labelgate.table import DecisionTable
from labelgate.ways import Flows, Rows, Walk, groups

_NEW, _UNTRACKED, _DENY = CT_STATES.index("new"), CT_STATES.index("untracked"), VERDICTS.index("deny")


def flow_of(flows: Flows, row: int) -> Flow:
    """One of them."""
    protocol, sport, dport = (int(column[row]) for column in (flows.protocol, flows.sport, flows.dport))
    src, dst, target = (flows.address(side, row) for side in (flows.src, flows.dst, flows.target))
    target_port = int(flows.target_port[row])
    is_icmp = protocol in (ICMP, ICMPV6)
    is_translated = target != dst or target_port != dport
    return Flow(
        protocol, src, dst, 0 if is_icmp else sport, 0 if is_icmp else dport,
        target if is_translated else None, target_port if is_translated and not is_icmp else 0,
        (*divmod(dport, 256), sport) if is_icmp else None, bool(flows.answered[row]),
    )  # fmt: skip


def by_column(flows: Iterable[Flow]) -> list[Flows]:
    """Those of IPv4, and those of IPv6."""
    versions: dict[int, list[Flow]] = {}
    for flow in flows:
        versions.setdefault(flow.src.version, []).append(flow)
    return [_columns(group) for _, group in sorted(versions.items())]


def distinct(parts: Iterable[Flows]) -> list[Flows]:
    """All of them once, those of IPv4 and those of IPv6, in the order in which they come first."""
    versions: dict[int, list[Flows]] = {}
    for part in parts:
        if len(part):
            versions.setdefault(part.version, []).append(part)
    return [_distinct(group) for _, group in sorted(versions.items())]


def newly_denied(
    before: DecisionTable | None, after: DecisionTable, flows: Flows, host: Host
) -> dict[int, str]:
    """Rows that `after` denies and `before` does not, and why."""
    denied = denials(after, flows, host)
    if before is None or not denied:
        return denied
    rows = list(denied)
    known = denials(before, flows.pick(np.array(rows)), host)
    return {row: denied[row] for index, row in enumerate(rows) if index not in known}


def denials(table: DecisionTable, flows: Flows, host: Host) -> dict[int, str]:
    """Rows whose first packet would be denied, where and why; none where no route is known."""
    found: dict[int, str] = {}
    for before, way, rows in ways(host, flows):
        for index, reason in _denied(table, flows.pick(rows), before, way):
            found[int(rows[index])] = reason
    return dict(sorted(found.items()))


def _denied(
    table: DecisionTable, flows: Flows, before: str | None, way: Interfaces
) -> Iterator[tuple[int, str]]:
    """The same of flows that all take one way, and one ahead of DNAT, as `labelgate.path.walk` has them."""
    walk = Walk(table, flows, np.full(len(flows), _NEW, np.uint8))

    def ask(hook: Hook, asked: Rows, interfaces: Interfaces) -> Generator[tuple[int, str], None, Rows]:
        verdicts, outcomes = walk.ask(hook, asked, interfaces)
        is_denied = verdicts == _DENY
        for same in groups(outcomes[is_denied]):
            alike = asked[is_denied][same].tolist()
            # An outcome has one reason.
            reason = denied_at(table, flow_of(flows, alike[0]), *way, before)
            assert reason is not None
            yield from ((row, reason) for row in alike)
        left: Rows = asked[~is_denied]
        return left

    is_translated, ahead = flows.translated, ahead_of_dnat(way, before)
    rows = np.arange(len(flows))
    for step in range(STEPS):
        is_ahead = is_translated[rows] & ((walk.ct[rows] == _UNTRACKED) | (step == 0))
        left = []
        for asked, interfaces in ((rows[is_ahead], ahead), (rows[~is_ahead], way)):
            left.append((yield from ask(hooks_of(*interfaces)[step], asked, interfaces)))
        rows = np.concatenate(left)
    for asked, interfaces in zip(left, (ahead, way), strict=True):
        if interfaces == LOOP:
            walk.come_back(asked)
            for hook in hooks_of(*BACK):
                asked = yield from ask(hook, asked, BACK)


def ways(host: Host, flows: Flows) -> Iterator[tuple[str | None, Interfaces, Rows]]:
    """As `Host.both_ways`, and the rows that they are of.

    Raises:
        OSError: the kernel cannot be asked.
    """
    sources, destinations, targets = (_places(host, side) for side in (flows.src, flows.dst, flows.target))
    for ends in groups((sources + 1) << 32 | (targets + 1)):
        for rows in (ends[same] for same in groups(destinations[ends])):
            places = (int(side[rows[0]]) for side in (sources, destinations, targets))
            for before, way in host.both_between(*places):
                yield before, way, rows


def _places(host: Host, side: NDArray[Any]) -> NDArray[np.int64]:
    """For each address the index of the interface towards it, or what stands in its place."""
    keys = side if side.ndim == 1 else side.view("V16")[:, 0]
    found, inverse = np.unique(keys, return_inverse=True)
    packed = (found.astype(">u4") if side.ndim == 1 else found).tobytes()
    size = 4 if side.ndim == 1 else 16
    places = host.places([packed[at : at + size] for at in range(0, len(packed), size)])
    return np.array(places, np.int64)[inverse.reshape(-1)]


def _distinct(parts: list[Flows]) -> Flows:
    whole = Flows(*(np.concatenate(columns) for columns in zip(*map(_arrays, parts), strict=True)))
    *keys, _ = _arrays(whole)  # `answered` may change at any time, and the flow is the same.
    rows = np.hstack([np.ascontiguousarray(key).view(np.uint8).reshape(len(whole), -1) for key in keys])
    _, first = np.unique(rows.view(f"V{rows.shape[1]}")[:, 0], return_index=True)
    return whole.pick(np.sort(first))


def _arrays(flows: Flows) -> list[NDArray[Any]]:
    return [getattr(flows, one.name) for one in fields(Flows)]


def _columns(flows: list[Flow]) -> Flows:
    ports = [_ports(flow) for flow in flows]
    sport, dport, target_port = (np.array(column, np.uint16) for column in zip(*ports, strict=True))
    return Flows(
        src=address_column([flow.src for flow in flows]),
        dst=address_column([flow.dst for flow in flows]),
        target=address_column([flow.target or flow.dst for flow in flows]),
        protocol=np.array([flow.protocol for flow in flows], np.uint8),
        sport=sport, dport=dport, target_port=target_port,
        answered=np.array([flow.answered for flow in flows], np.bool_),
    )  # fmt: skip


def _ports(flow: Flow) -> tuple[int, int, int]:
    """As columns have them, with that of the target."""
    if flow.icmp:
        kind, code, number = flow.icmp
        return number, kind << 8 | code, kind << 8 | code
    return flow.sport, flow.dport, flow.target_port or flow.dport
