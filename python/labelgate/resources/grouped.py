"""Resources by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Self, TypeAlias

# Through their package, which imports each model when it is first asked for, by `typing.get_type_hints` too.
from labelgate import resources as typed
from labelgate.arguments import check_type
from labelgate.resources.metadata import Resource
from labelgate.resources.policy import DELETE

CalicoPolicy: TypeAlias = (
    "typed.GlobalNetworkPolicy | typed.NetworkPolicy"
    " | typed.StagedGlobalNetworkPolicy | typed.StagedNetworkPolicy"
)


@dataclass(frozen=True)
class Grouped:
    """Resources, one tuple per kind."""

    global_network_policies: tuple[typed.GlobalNetworkPolicy, ...] = ()
    network_policies: tuple[typed.NetworkPolicy, ...] = ()
    kubernetes_network_policies: tuple[typed.KubernetesNetworkPolicy, ...] = ()
    kubernetes_cluster_network_policies: tuple[typed.KubernetesClusterNetworkPolicy, ...] = ()
    staged_global_network_policies: tuple[typed.StagedGlobalNetworkPolicy, ...] = ()
    staged_network_policies: tuple[typed.StagedNetworkPolicy, ...] = ()
    staged_kubernetes_network_policies: tuple[typed.StagedKubernetesNetworkPolicy, ...] = ()
    host_endpoints: tuple[typed.HostEndpoint, ...] = ()
    workload_endpoints: tuple[typed.WorkloadEndpoint, ...] = ()
    global_network_sets: tuple[typed.GlobalNetworkSet, ...] = ()
    network_sets: tuple[typed.NetworkSet, ...] = ()
    profiles: tuple[typed.Profile, ...] = ()
    tiers: tuple[typed.Tier, ...] = ()
    namespaces: tuple[typed.Namespace, ...] = ()
    pods: tuple[typed.Pod, ...] = ()
    service_accounts: tuple[typed.ServiceAccount, ...] = ()
    services: tuple[typed.Service, ...] = ()
    endpoint_slices: tuple[typed.EndpointSlice, ...] = ()
    felix_configurations: tuple[typed.FelixConfiguration, ...] = ()

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Self:
        """Groups resources by kind; their order does not matter.

        Raises:
            TypeError: something else is passed, or among them.
        """
        check_type("resources", resources, Iterable, "resources, in a list for example")
        given = list(resources)
        for resource in given:
            check_type("resources", resource, Resource, "resources only")
        groups: dict[str, list[Any]] = {}
        for resource in sorted(given, key=lambda resource: resource.key):
            groups.setdefault(FIELDS[type(resource).__name__], []).append(resource)
        return cls(**{field: tuple(group) for field, group in groups.items()})

    def resources(self) -> Iterator[Resource]:
        """All of them, by kind."""
        for field in fields(self):
            yield from getattr(self, field.name)

    def calico_policies(self) -> list[CalicoPolicy]:
        """The policies of Calico's own kinds; staged ones too, unless they are to be deleted (E-15)."""
        staged: list[typed.StagedGlobalNetworkPolicy | typed.StagedNetworkPolicy] = [
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

    def kubernetes_policies(
        self,
    ) -> list[typed.KubernetesNetworkPolicy | typed.StagedKubernetesNetworkPolicy]:
        """The policies in the form of Kubernetes' NetworkPolicy; staged ones as above."""
        staged = self.staged_kubernetes_network_policies
        loaded = [policy for policy in staged if policy.spec.staged_action != DELETE]
        return [*self.kubernetes_network_policies, *loaded]


FIELDS = {
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
"""By what keys of resources begin with the field that has them."""
