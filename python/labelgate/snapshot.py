"""All resources of one instant: grouped by kind, references checked, nothing inherited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelgate import _core
from labelgate.model import BUILT_IN_PROFILE, BUILT_IN_TIERS, core_model
from labelgate.resources import (
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    KubernetesNetworkPolicy,
    Namespace,
    NetworkPolicy,
    NetworkSet,
    Pod,
    Profile,
    Resource,
    ServiceAccount,
    Tier,
    WorkloadEndpoint,
)
from labelgate.settings import HostFacts, Settings
from labelgate.sources.files import load_documents
from labelgate.table import DecisionTable


@dataclass(frozen=True)
class Snapshot:
    """The resources of one instant, one tuple per kind."""

    global_network_policies: tuple[GlobalNetworkPolicy, ...] = ()
    network_policies: tuple[NetworkPolicy, ...] = ()
    kubernetes_network_policies: tuple[KubernetesNetworkPolicy, ...] = ()
    host_endpoints: tuple[HostEndpoint, ...] = ()
    workload_endpoints: tuple[WorkloadEndpoint, ...] = ()
    global_network_sets: tuple[GlobalNetworkSet, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    profiles: tuple[Profile, ...] = ()
    tiers: tuple[Tier, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    pods: tuple[Pod, ...] = ()
    service_accounts: tuple[ServiceAccount, ...] = ()
    felix_configurations: tuple[FelixConfiguration, ...] = ()

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Snapshot:
        """Groups resources by kind; their order does not matter."""
        groups: dict[str, list[Any]] = {}
        for resource in sorted(resources, key=lambda resource: resource.key):
            groups.setdefault(_FIELDS[type(resource)], []).append(resource)
        return cls(**{field: tuple(group) for field, group in groups.items()})

    def _endpoints(self) -> list[HostEndpoint | WorkloadEndpoint]:
        return [*self.host_endpoints, *self.workload_endpoints]

    def nodes(self) -> list[str]:
        """The nodes that endpoints name, sorted."""
        named = [endpoint.spec.node for endpoint in self._endpoints()]
        return sorted({node for node in named + [pod.spec.node_name for pod in self.pods] if node})

    @property
    def warnings(self) -> list[str]:
        """References to things that do not exist (R-29, E-4) and fields without effect, sorted."""
        notices = [notice for document in self.felix_configurations for notice in document.notices]
        return sorted({*notices, *self._missing_profiles(), *self._missing_tiers()})

    def _missing_profiles(self) -> Iterator[str]:
        known = {BUILT_IN_PROFILE, *(profile.metadata.name for profile in self.profiles)}
        known |= {f"kns.{namespace.metadata.name}" for namespace in self.namespaces}
        known |= {f"ksa.{item.metadata.namespace}.{item.metadata.name}" for item in self.service_accounts}
        listed = [(endpoint.key, name) for endpoint in self._endpoints() for name in endpoint.spec.profiles]
        for pod in self.pods:
            namespace = pod.metadata.namespace
            if not pod.spec.host_network:
                listed.append((pod.key, f"kns.{namespace}"))
        for key, name in listed:
            if name not in known:
                yield f"{key}: profile `{name}` does not exist: it denies (R-29)"

    def _missing_tiers(self) -> Iterator[str]:
        known = {*BUILT_IN_TIERS, *(tier.metadata.name for tier in self.tiers)}
        policies: list[GlobalNetworkPolicy | NetworkPolicy] = [
            *self.global_network_policies,
            *self.network_policies,
        ]
        for policy in policies:
            tier = policy.spec.tier
            if tier not in known:
                yield f"{policy.key}: tier `{tier}` does not exist: it comes last and denies (E-4)"

    def compile(
        self, *, node: str | None, host: HostFacts | None = None, settings: Settings | None = None
    ) -> DecisionTable:
        """The decision table of one node; `node=None` compiles all workloads of the cluster.

        Without `host` no interface has an address: host endpoints govern by name only.

        Raises:
            ValueError: the core refuses what validation let pass.
        """
        settings = settings or Settings()
        program = _core.compile(core_model(self, settings), node)
        return DecisionTable(program, host or HostFacts({}), settings)


_FIELDS: dict[type[Any], str] = {
    GlobalNetworkPolicy: "global_network_policies",
    NetworkPolicy: "network_policies",
    KubernetesNetworkPolicy: "kubernetes_network_policies",
    HostEndpoint: "host_endpoints",
    WorkloadEndpoint: "workload_endpoints",
    GlobalNetworkSet: "global_network_sets",
    NetworkSet: "network_sets",
    Profile: "profiles",
    Tier: "tiers",
    Namespace: "namespaces",
    Pod: "pods",
    ServiceAccount: "service_accounts",
    FelixConfiguration: "felix_configurations",
}


def load(*paths: str | Path) -> Snapshot:
    """Loads files, folders (recursive) and `-` (standard input).

    Raises:
        LoadError: with every problem of every document; nothing is loaded.
    """
    return Snapshot.of(load_documents([str(path) for path in paths]))
