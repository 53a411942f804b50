"""Connections: one, to be told of, or many by column, to be asked about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.columns import address_column
from labelgate.flow import ICMP, ICMPV6, PROTOCOLS, IPAddress
from labelgate.ways import Flows

_PROTOCOLS = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection, in the direction of its first packet."""

    protocol: int
    src: IPAddress
    dst: IPAddress
    """As the first packet had it, before DNAT."""
    sport: int = 0
    dport: int = 0
    target: IPAddress | None = None
    """Where DNAT sent it; None: to `dst`."""
    target_port: int = 0
    icmp: tuple[int, int, int] | None = None
    """Type, code and id."""
    answered: bool = field(default=True, compare=False)
    """Whether the other side has sent anything: it may do so at any time, and the flow is the same."""

    def __str__(self) -> str:
        name = _PROTOCOLS.get(self.protocol, str(self.protocol))
        if self.icmp:
            return f"{name} {self.src} > {self.dst} type {self.icmp[0]}"
        return f"{name} {_with_port(self.src, self.sport)} > {_with_port(self.dst, self.dport)}"


def _with_port(address: IPAddress, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


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
