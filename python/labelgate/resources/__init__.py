"""Typed Calico and Kubernetes resources, read from YAML and JSON, and everything that is wrong with them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from labelgate.resources.documents import Document
from labelgate.resources.endpoint import (
    EndpointPort,
    HostEndpoint,
    HostEndpointSpec,
    WorkloadEndpoint,
    WorkloadEndpointPort,
    WorkloadEndpointSpec,
)
from labelgate.resources.errors import LoadError, Location, Problem
from labelgate.resources.loading import Loading, Summary, load_text
from labelgate.resources.metadata import Metadata, Resource
from labelgate.resources.models import resource_types
from labelgate.resources.policy import (
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    NetworkPolicy,
    NetworkPolicySpec,
    PolicySpec,
    Profile,
    ProfileSpec,
    Tier,
    TierSpec,
)
from labelgate.resources.rule import EntityRule, Icmp, Rule, ServiceAccounts, Services
from labelgate.resources.values import IPAddress, IPNetwork, PortRange
from labelgate.resources.versions import STORED

if TYPE_CHECKING:
    from labelgate.resources.cluster_policy import (
        ClusterEgressPeer,
        ClusterEgressRule,
        ClusterIngressPeer,
        ClusterIngressRule,
        ClusterPort,
        ClusterPortRange,
        ClusterProtocol,
        ClusterSubject,
        ClusterTransport,
        KubernetesClusterNetworkPolicy,
        KubernetesClusterNetworkPolicySpec,
        NamespacedPods,
    )
    from labelgate.resources.expectations import AskedPeer, DecidedBy, Expectation, PolicyTest
    from labelgate.resources.felix import FelixConfiguration, FelixConfigurationSpec, ProtoPort
    from labelgate.resources.kubernetes import (
        Container,
        ContainerPort,
        EgressRule,
        IngressRule,
        IpBlock,
        KubernetesNetworkPolicy,
        KubernetesNetworkPolicySpec,
        LabelSelector,
        LabelSelectorRequirement,
        Namespace,
        Peer,
        Pod,
        PodIp,
        PodSpec,
        PodStatus,
        Port,
        ServiceAccount,
    )
    from labelgate.resources.service import EndpointSlice, Service, SliceEndpoint, SlicePort
    from labelgate.resources.sets import GlobalNetworkSet, NetworkSet, NetworkSetSpec
    from labelgate.resources.staged import (
        StagedGlobalNetworkPolicy,
        StagedGlobalNetworkPolicySpec,
        StagedKubernetesNetworkPolicy,
        StagedKubernetesNetworkPolicySpec,
        StagedNetworkPolicy,
        StagedNetworkPolicySpec,
    )

__all__ = [
    "STORED",
    "AskedPeer",
    "ClusterEgressPeer",
    "ClusterEgressRule",
    "ClusterIngressPeer",
    "ClusterIngressRule",
    "ClusterPort",
    "ClusterPortRange",
    "ClusterProtocol",
    "ClusterSubject",
    "ClusterTransport",
    "Container",
    "ContainerPort",
    "DecidedBy",
    "Document",
    "EgressRule",
    "EndpointPort",
    "EndpointSlice",
    "EntityRule",
    "Expectation",
    "FelixConfiguration",
    "FelixConfigurationSpec",
    "GlobalNetworkPolicy",
    "GlobalNetworkPolicySpec",
    "GlobalNetworkSet",
    "HostEndpoint",
    "HostEndpointSpec",
    "IPAddress",
    "IPNetwork",
    "Icmp",
    "IngressRule",
    "IpBlock",
    "KubernetesClusterNetworkPolicy",
    "KubernetesClusterNetworkPolicySpec",
    "KubernetesNetworkPolicy",
    "KubernetesNetworkPolicySpec",
    "LabelSelector",
    "LabelSelectorRequirement",
    "LoadError",
    "Loading",
    "Location",
    "Metadata",
    "Namespace",
    "NamespacedPods",
    "NetworkPolicy",
    "NetworkPolicySpec",
    "NetworkSet",
    "NetworkSetSpec",
    "Peer",
    "Pod",
    "PodIp",
    "PodSpec",
    "PodStatus",
    "PolicySpec",
    "PolicyTest",
    "Port",
    "PortRange",
    "Problem",
    "Profile",
    "ProfileSpec",
    "ProtoPort",
    "Resource",
    "Rule",
    "Service",
    "ServiceAccount",
    "ServiceAccounts",
    "Services",
    "SliceEndpoint",
    "SlicePort",
    "StagedGlobalNetworkPolicy",
    "StagedGlobalNetworkPolicySpec",
    "StagedKubernetesNetworkPolicy",
    "StagedKubernetesNetworkPolicySpec",
    "StagedNetworkPolicy",
    "StagedNetworkPolicySpec",
    "Summary",
    "Tier",
    "TierSpec",
    "WorkloadEndpoint",
    "WorkloadEndpointPort",
    "WorkloadEndpointSpec",
    "load_text",
    "resource_types",
]

_HOME = {
    **dict.fromkeys(
        (
            "ClusterEgressPeer",
            "ClusterEgressRule",
            "ClusterIngressPeer",
            "ClusterIngressRule",
            "ClusterPort",
            "ClusterPortRange",
            "ClusterProtocol",
            "ClusterSubject",
            "ClusterTransport",
            "KubernetesClusterNetworkPolicy",
            "KubernetesClusterNetworkPolicySpec",
            "NamespacedPods",
        ),
        "cluster_policy",
    ),
    **dict.fromkeys(
        ("AskedPeer", "DecidedBy", "Expectation", "PolicyTest"),
        "expectations",
    ),
    **dict.fromkeys(
        ("FelixConfiguration", "FelixConfigurationSpec", "ProtoPort"),
        "felix",
    ),
    **dict.fromkeys(
        (
            "Container",
            "ContainerPort",
            "EgressRule",
            "IngressRule",
            "IpBlock",
            "KubernetesNetworkPolicy",
            "KubernetesNetworkPolicySpec",
            "LabelSelector",
            "LabelSelectorRequirement",
            "Namespace",
            "Peer",
            "Pod",
            "PodIp",
            "PodSpec",
            "PodStatus",
            "Port",
            "ServiceAccount",
        ),
        "kubernetes",
    ),
    **dict.fromkeys(
        ("EndpointSlice", "Service", "SliceEndpoint", "SlicePort"),
        "service",
    ),
    **dict.fromkeys(
        ("GlobalNetworkSet", "NetworkSet", "NetworkSetSpec"),
        "sets",
    ),
    **dict.fromkeys(
        (
            "StagedGlobalNetworkPolicy",
            "StagedGlobalNetworkPolicySpec",
            "StagedKubernetesNetworkPolicy",
            "StagedKubernetesNetworkPolicySpec",
            "StagedNetworkPolicy",
            "StagedNetworkPolicySpec",
        ),
        "staged",
    ),
}
"""Imported when first asked for: few clusters have all kinds, and models take a while to make."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
