"""What expectations are asked of: the tables of a snapshot, its endpoints, and where its rules tell apart."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from labelgate.config import load_config
from labelgate.flow import IPAddress
from labelgate.model import core_model
from labelgate.reference.labels import Host, IPNetwork, Member, Workload, members
from labelgate.resources.values import PortRange
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable

_EXEMPT_SOURCES = ("fe80::/10", "::")
"""Which a workload may send from although they are not its own (E-30)."""


@dataclass(frozen=True, slots=True)
class Boundaries:
    """The first addresses and ports of the ranges that no rule, set or endpoint tells apart.

    Every criterion on an address is a union of networks of the model, every one on a port a union of its
    ranges: what begins at no boundary is answered as its predecessor. So one address, or port, for each range
    answers for all of it.
    """

    addresses: Mapping[int, tuple[int, ...]]
    """By IP version, sorted."""
    ports: tuple[int, ...]
    """Sorted."""

    @classmethod
    def of(cls, model: Any) -> Boundaries:
        """Of a core model: every network and every small number in it, whatever it stands for."""
        addresses: dict[int, set[int]] = {4: set(), 6: set()}
        ports: set[int] = set()
        for value in _scalars(model):
            if isinstance(value, str):
                if (net := _network(value)) is not None:
                    first, last = int(net.network_address), int(net.broadcast_address)
                    addresses[net.version] |= {first, last + 1}
            elif isinstance(value, int) and 0 <= value <= 65535:
                ports |= {value, value + 1}
        return cls(
            {version: tuple(sorted(found)) for version, found in addresses.items()}, tuple(sorted(ports))
        )

    def of_net(self, net: IPNetwork) -> list[IPAddress]:
        """One address for each range inside a network."""
        first, last = int(net.network_address), int(net.broadcast_address)
        build = IPv4Address if net.version == 4 else IPv6Address
        return [build(number) for number in _within(self.addresses[net.version], first, last)]

    def of_ports(self, ports: PortRange) -> list[int]:
        """One port for each range inside a range."""
        return _within(self.ports, ports.first, ports.last)


def _within(boundaries: tuple[int, ...], first: int, last: int) -> list[int]:
    low, high = bisect_left(boundaries, first + 1), bisect_left(boundaries, last + 1)
    return [first, *boundaries[low:high]]


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _scalars(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _scalars(inner)
    else:
        yield value


def _network(text: str) -> IPNetwork | None:
    if not text or not (text[0].isdigit() or ":" in text):
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


class World:
    """A snapshot with all that is worked out once for many expectations."""

    def __init__(self, snapshot: Snapshot, config_file: str | None = None) -> None:
        """Settings come from FelixConfiguration documents, the environment and the file, as everywhere.

        Raises:
            ConfigError: they cannot be read.
        """
        self.snapshot = snapshot
        self._config_file = config_file
        self._tables: dict[tuple[str, str], DecisionTable] = {}
        self.settings = self._settings(None)

    def _settings(self, node: str | None) -> Settings:
        return load_config(self._config_file, self.snapshot.felix_configurations, node).settings

    @cached_property
    def cluster(self) -> DecisionTable:
        """The table of all workloads, wherever they live."""
        return self.snapshot.compile(node=None, settings=self.settings)

    def table(self, node: str, host: HostFacts) -> DecisionTable:
        """The table of a node with these interfaces."""
        key = node, repr(sorted(host.interfaces.items()))
        if key not in self._tables:
            settings = self._settings(node)
            self._tables[key] = self.snapshot.compile(node=node, host=host, settings=settings)
        return self._tables[key]

    @cached_property
    def members(self) -> dict[str, Member]:
        """Everything that has addresses and labels, by `Kind/namespace/name` or `Kind/name`."""
        return {item.name: item for item in members(self.snapshot, self.settings.workload_prefixes[0])}

    @cached_property
    def workloads(self) -> dict[str, Workload]:
        """Those that are workloads."""
        return {name: item for name, item in self.members.items() if isinstance(item, Workload)}

    @cached_property
    def hosts(self) -> dict[str, Host]:
        """Those that are host endpoints."""
        return {name: item for name, item in self.members.items() if isinstance(item, Host)}

    @cached_property
    def owners(self) -> dict[str, str]:
        """Which workload has an address, as the table has it."""
        return {address: name for name, found in self.cluster.workloads().items() for address in found}

    @cached_property
    def nodes(self) -> list[str]:
        """The nodes that endpoints name."""
        return self.snapshot.nodes()

    @cached_property
    def boundaries(self) -> Boundaries:
        """Where rules, sets and endpoints tell addresses and ports apart."""
        named = {felix.metadata.name for felix in self.snapshot.felix_configurations}
        nodes = [name.removeprefix("node.") for name in sorted(named) if name.startswith("node.")]
        settings = [json.loads(core_model(Snapshot(), self._settings(node))) for node in nodes]
        model = json.loads(core_model(self.snapshot, self.settings))
        return Boundaries.of([model, settings, _EXEMPT_SOURCES])
