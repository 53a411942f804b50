"""Which endpoint governs an interface: E-45 to E-47, and the workloads of this node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

from labelgate.reference.cluster import Cluster
from labelgate.reference.labels import Endpoint, Host, Workload
from labelgate.reference.policies import Direction, Kind
from labelgate.settings import HostFacts, Settings

_ANY = "*"
_LOOPBACK = "lo"
_DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
_E = TypeVar("_E", bound=Endpoint)


@dataclass(frozen=True, slots=True)
class Interfaces:
    """The interfaces of one node, and its endpoints; names that the host does not list have no addresses."""

    cluster: Cluster
    node: str | None
    """None: no endpoint is here."""
    host: HostFacts
    settings: Settings

    def is_workload(self, name: str | None) -> bool:
        """Told by the prefix alone (`InterfacePrefix`)."""
        return name is not None and name.startswith(self.settings.workload_prefixes)

    def workload(self, name: str | None) -> Workload | None:
        """The workload whose interface this is, if any."""
        if name is None or not self.is_workload(name):
            return None
        return smallest(workload for workload in self._local(Workload) if workload.interface == name)

    def governing(self, name: str | None, kind: Kind) -> Host | None:
        """The host endpoint whose policy of this kind judges the packets of an interface (E-47)."""
        if name is None:
            return None
        own, any_ = self._own(name), self._any(name)
        if kind == "untracked":
            return own if self._has(own, kind) else None
        if kind == "prednat":
            return own if self._has(own, kind) else any_ if self._has(any_, kind) else None
        if kind == "normal" and self.is_workload(name):
            return None
        return own or any_

    def _own(self, name: str) -> Host | None:
        """The host endpoint of this very interface: the smallest name, however it matched (E-45)."""
        if self.is_workload(name):
            return None
        addresses = {ip_address(address) for address in self.host.interfaces.get(name, ())}
        return smallest(
            host
            for host in self._local(Host)
            if host.interface == name
            or (not host.interface and any(net.network_address in addresses for net in host.nets))
        )

    def _any(self, name: str) -> Host | None:
        """The `*` host endpoint, for interfaces that have none of their own (E-46, E-47)."""
        if name == _LOOPBACK and self.settings.exempt_loopback:
            return None
        return smallest(host for host in self._local(Host) if host.interface == _ANY)

    def _has(self, host: Host | None, kind: Kind) -> bool:
        """Whether a policy of this kind applies to it in either direction; staged do not count (E-15)."""
        return host is not None and any(
            policy.in_force
            for direction in _DIRECTIONS
            for _, policies in self.cluster.tiers_of(host, kind, direction)
            for policy in policies
        )

    def _local(self, kind: type[_E]) -> Iterable[_E]:
        return (
            member for member in self.cluster.members if isinstance(member, kind) and member.node == self.node
        )


def smallest(endpoints: Iterable[_E]) -> _E | None:
    """The endpoint of the smallest name bytewise, by which ties are decided (E-45, E-46)."""
    return min(endpoints, key=lambda endpoint: (endpoint.short_name.encode(), endpoint.name), default=None)
