"""What expectations are asked of: the tables of a snapshot, their rules, and its endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import Edges, points
from labelgate.analysis.program import ProgramContents, read_programs
from labelgate.config import load_config
from labelgate.reference.labels import Host, Member, Workload, members
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable


@dataclass(frozen=True)
class Owned:
    """The addresses of workloads, of one family, sorted; of each the chains that it meets, by number."""

    addresses: Edges
    ingress: NDArray[np.intp]
    egress: NDArray[np.intp]


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
        self._contents: dict[DecisionTable, ProgramContents] = {}
        self._owned: dict[int, Owned] = {}
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

    def contents(self, table: DecisionTable) -> ProgramContents:
        """The rules of one of these tables."""
        if table not in self._contents:
            (self._contents[table],) = read_programs(table.program)
        return self._contents[table]

    def owned(self, family: int) -> Owned:
        """Of the table of the cluster, for family 4 or 6."""
        if family not in self._owned:
            chains = {one.name: one.normal for one in self.contents(self.cluster).endpoints}
            parsed = ((ip_address(address), name) for address, name in self.owners.items())
            found = sorted(
                (int(address), chains[name]) for address, name in parsed if address.version == family
            )
            numbers = np.array([of for _, of in found], np.intp).reshape(-1, 2)
            addresses = points(family, (address for address, _ in found))
            self._owned[family] = Owned(addresses, numbers[:, 0], numbers[:, 1])
        return self._owned[family]

    @cached_property
    def policies(self) -> frozenset[str]:
        """The policies and profiles that may decide, by `Kind/namespace/name` or `Kind/name`."""
        endpoints = (*self.workloads.values(), *self.hosts.values())
        profiles = (f"Profile/{name}" for endpoint in endpoints for name in endpoint.profiles)
        written = (one.key for one in self.snapshot.resources())
        return frozenset((*profiles, *(key for key in written if "Policy/" in key)))

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
