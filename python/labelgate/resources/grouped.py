"""Resources by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from labelgate.resources.metadata import Resource
from labelgate.resources.policy import DELETE

if TYPE_CHECKING:
    from labelgate.resources.cluster_policy import KubernetesClusterNetworkPolicy
    from labelgate.resources.endpoint import HostEndpoint, WorkloadEndpoint
    from labelgate.resources.felix import FelixConfiguration
    from labelgate.resources.kubernetes import KubernetesNetworkPolicy, Namespace, Pod, ServiceAccount
    from labelgate.resources.policy import GlobalNetworkPolicy, NetworkPolicy, Profile, Tier
    from labelgate.resources.service import EndpointSlice, Service
    from labelgate.resources.sets import GlobalNetworkSet, NetworkSet
    from labelgate.resources.staged import (
        StagedGlobalNetworkPolicy,
        StagedKubernetesNetworkPolicy,
        StagedNetworkPolicy,
    )

    CalicoPolicy = GlobalNetworkPolicy | NetworkPolicy | StagedGlobalNetworkPolicy | StagedNetworkPolicy


@dataclass(frozen=True)
class Grouped:
    """Resources, one tuple per kind."""

    global_network_policies: tuple[GlobalNetworkPolicy, ...] = ()
    network_policies: tuple[NetworkPolicy, ...] = ()
    kubernetes_network_policies: tuple[KubernetesNetworkPolicy, ...] = ()
    kubernetes_cluster_network_policies: tuple[KubernetesClusterNetworkPolicy, ...] = ()
    staged_global_network_policies: tuple[StagedGlobalNetworkPolicy, ...] = ()
    staged_network_policies: tuple[StagedNetworkPolicy, ...] = ()
    staged_kubernetes_network_policies: tuple[StagedKubernetesNetworkPolicy, ...] = ()
    host_endpoints: tuple[HostEndpoint, ...] = ()
    workload_endpoints: tuple[WorkloadEndpoint, ...] = ()
    global_network_sets: tuple[GlobalNetworkSet, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    profiles: tuple[Profile, ...] = ()
    tiers: tuple[Tier, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    pods: tuple[Pod, ...] = ()
    service_accounts: tuple[ServiceAccount, ...] = ()
    services: tuple[Service, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    felix_configurations: tuple[FelixConfiguration, ...] = ()

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Self:
        """Groups resources by kind; their order does not matter."""
        groups: dict[str, list[Any]] = {}
        for resource in sorted(resources, key=lambda resource: resource.key):
            groups.setdefault(_FIELDS[type(resource).__name__], []).append(resource)
        return cls(**{field: tuple(group) for field, group in groups.items()})

    def resources(self) -> Iterator[Resource]:
        """All of them, by kind."""
        for field in fields(self):
            yield from getattr(self, field.name)

    def calico_policies(self) -> list[CalicoPolicy]:
        """The policies of Calico's own kinds; staged ones too, unless they are to be deleted (E-15)."""
        staged: list[StagedGlobalNetworkPolicy | StagedNetworkPolicy] = [
            *self.staged_global_network_policies,
            *self.staged_network_policies,
        ]
        loaded = [policy for policy in staged if policy.spec.staged_action != DELETE]
        return [*self.global_network_policies, *self.network_policies, *loaded]

    @property
    def has_staged_policies(self) -> bool:
        """Whether any policy is staged, those that are to be deleted apart (E-15)."""
        policies = (*self.calico_policies(), *self.kubernetes_policies())
        return any(policy.kind.startswith("Staged") for policy in policies)

    def kubernetes_policies(self) -> list[KubernetesNetworkPolicy | StagedKubernetesNetworkPolicy]:
        """The policies in the form of Kubernetes' NetworkPolicy; staged ones as above."""
        staged = self.staged_kubernetes_network_policies
        loaded = [policy for policy in staged if policy.spec.staged_action != DELETE]
        return [*self.kubernetes_network_policies, *loaded]


_FIELDS = {
    "GlobalNetworkPolicy": "global_network_policies",
    "NetworkPolicy": "network_policies",
    "KubernetesNetworkPolicy": "kubernetes_network_policies",
    "KubernetesClusterNetworkPolicy": "kubernetes_cluster_network_policies",
    "StagedGlobalNetworkPolicy": "staged_global_network_policies",
    "StagedNetworkPolicy": "staged_network_policies",
    "StagedKubernetesNetworkPolicy": "staged_kubernetes_network_policies",
    "HostEndpoint": "host_endpoints",
    "WorkloadEndpoint": "workload_endpoints",
    "GlobalNetworkSet": "global_network_sets",
    "NetworkSet": "network_sets",
    "Profile": "profiles",
    "Tier": "tiers",
    "Namespace": "namespaces",
    "Pod": "pods",
    "ServiceAccount": "service_accounts",
    "Service": "services",
    "EndpointSlice": "endpoint_slices",
    "FelixConfiguration": "felix_configurations",
}
