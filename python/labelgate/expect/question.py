"""What a table is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from labelgate.expect.scope import Service
from labelgate.expect.sides import Side
from labelgate.flow import CtState, Hook, Packet
from labelgate.path import Destination
from labelgate.resources import Expectation
from labelgate.table import DecisionTable


@dataclass(frozen=True, slots=True)
class Question:
    """One packet, and what it is asked of."""

    source: Side
    destination: Side
    packet: Packet
    table: DecisionTable | None
    """Of the node whose way is meant; None: whether workloads connect, wherever they live."""
    is_hook: bool = False
    """Only the packet's hook, not the whole way."""
    dnat: Destination | None = None
    out_before_dnat: str | None = None
    """The interface towards the destination, where DNAT changes that; as `labelgate.path.walk` has it."""
    is_way_known: bool = True
    """Also that ahead of DNAT."""
    count: int = 1
    """How many it stands for: they are answered alike, by the same rules."""
    is_denied: bool | None = None
    """What all of them were answered; None: not asked yet."""


def packet(expectation: Expectation, source: Side, destination: Side, port: int | None) -> Packet:
    """From the first address of one side to that of the other, without interfaces."""
    service = Service.of(expectation)
    return Packet(
        hook=cast("Hook", expectation.hook or "filter-forward"),
        src=source.address,
        dst=destination.address,
        protocol=service.protocol,
        sport=None if port is None else service.sport,
        dport=port,
        icmp_type=None if expectation.icmp is None else expectation.icmp.type,
        icmp_code=None if expectation.icmp is None else expectation.icmp.code,
        ct=cast("CtState", expectation.state),
    )
