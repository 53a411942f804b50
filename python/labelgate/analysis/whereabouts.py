"""Which interfaces of a node recorded flows have passed, told by their addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

from labelgate.flow import IPAddress
from labelgate.path import Interfaces

Place = tuple[bool, str | None]
"""Whether it is the node itself, and the interface towards it if it is not, as far as that is known."""


@dataclass(frozen=True)
class Whereabouts:
    """Which interface of a node leads to an address, as it is known without asking its kernel."""

    local: frozenset[IPAddress] = frozenset()
    """Addresses of the node itself."""
    workloads: Mapping[IPAddress, str] = field(default_factory=dict)
    """Interfaces of the node's workloads by their addresses."""
    routes: tuple[tuple[IPv4Network | IPv6Network, str], ...] = ()
    """The longest prefix that fits leads to the interface; to link-local IPv6 only one of such."""

    def of(self, address: IPAddress) -> Place:
        """Whether it is the node's own, and the interface towards it if it is not."""
        if address in self.local or address.is_loopback:
            return True, None
        if address in self.workloads:
            return False, self.workloads[address]
        is_anywhere = is_of_any_interface(address)
        fitting = [
            (net.prefixlen, name)
            for net, name in self.routes
            if address in net and (net.is_link_local or not is_anywhere)
        ]
        if address.is_multicast or str(address) == "255.255.255.255":
            return True, None
        return False, max(fitting)[1] if fitting else None


def is_of_any_interface(address: IPAddress) -> bool:
    """Whether every interface has some behind it (link-local IPv6): no default route leads there."""
    return address.version == 6 and address.is_link_local


class Directory(Protocol):
    """Knows where addresses are."""

    def of(self, address: IPAddress) -> Place:
        """Whether it is the node's own, and the interface towards it if it is not."""


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


def way_between(source: Place, destination: Place) -> Interfaces | None:
    """In- and out-interface between two places; None if the node is on no way between them that is known."""
    (from_node, in_), (to_node, out) = source, destination
    if from_node and to_node:
        return None, "lo"
    if from_node:
        return (None, out) if out else None
    if to_node:
        return (in_, None) if in_ else None
    return (in_, out) if in_ and out and in_ != out else None
