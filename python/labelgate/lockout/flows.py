"""A connection, as it is told of and asked about."""

from __future__ import annotations

from dataclasses import dataclass, field

from labelgate.flow import PROTOCOLS, IPAddress

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
