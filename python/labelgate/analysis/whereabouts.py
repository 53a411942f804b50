"""Which interfaces of a node recorded flows have passed, told by their addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

from labelgate.flow import IPAddress
from labelgate.path import Interfaces

Place = tuple[bool, str | None]
"""Whether the node itself gets it, and the interface that the node sends to it by, as far as it is known."""


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
        """Whether the node itself gets it, and the interface that the node sends to it by."""
        if address in self.local or address.is_loopback:
            return True, "lo"
        if address in self.workloads:
            return False, self.workloads[address]
        is_anywhere = is_of_any_interface(address)
        fitting = [
            (net.prefixlen, name)
            for net, name in self.routes
            if address in net and (net.is_link_local or net.is_multicast or not is_anywhere)
        ]
        is_to_all = address.is_multicast or str(address) == "255.255.255.255"
        return is_to_all, max(fitting)[1] if fitting else None


def is_of_any_interface(address: IPAddress) -> bool:
    """Whether every interface has some behind it (IPv6: link-local, multicast); no default route leads."""
    return address.version == 6 and (address.is_link_local or address.is_multicast)


class Directory(Protocol):
    """Knows where addresses are."""

    def of(self, address: IPAddress) -> Place:
        """Whether the node itself gets it, and the interface that the node sends to it by."""


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


def way_between(source: Place, destination: Place, *, is_translated: bool) -> Interfaces | None:
    """In- and out-interface between two places; None if the node is on no way between them that is known.

    What stays behind one interface is seen there by everybody and passes no node, unless the node translates
    it (E-72).
    """
    (from_node, in_), (to_node, out) = source, destination
    if from_node:
        return (None, out) if out else None
    if to_node:
        return (in_, None) if in_ else None
    return (in_, out) if in_ and out and (in_ != out or is_translated) else None
