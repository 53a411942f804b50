"""Who has which addresses, labels and named ports: R-20 to R-32, straight from the resources.

A `Member` is anything whose addresses a rule selector can choose (M-20): a workload, a host endpoint or a
network set. Its labels are the effective ones, inheritance done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from labelgate.reference.selectors import Labels
from labelgate.resources import HostEndpoint, Pod, WorkloadEndpoint
from labelgate.snapshot import Snapshot

IPNetwork = IPv4Network | IPv6Network

NAMESPACE = "projectcalico.org/namespace"
ORCHESTRATOR = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX = "pcns."
SERVICE_ACCOUNT_PREFIX = "pcsa."
DEFAULT_ALLOW = "projectcalico-default-allow"

_PORT_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A named port of an endpoint."""

    name: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Member:
    """Addresses that rule selectors choose by labels (M-20)."""

    name: str
    """`Kind/namespace/name` or `Kind/name`."""
    labels: Labels
    """The effective ones (R-20)."""
    nets: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class Endpoint(Member):
    """A member that policy can also be applied to."""

    short_name: str
    """`metadata.name`, by which E-45 and E-46 decide ties."""
    node: str
    interface: str
    """A name; for a host endpoint perhaps `*` or empty (E-45, E-46)."""
    profiles: tuple[str, ...]
    ports: tuple[NamedPort, ...]


@dataclass(frozen=True, slots=True)
class Workload(Endpoint):
    """A WorkloadEndpoint or a Pod."""

    sources: tuple[IPNetwork, ...]
    """What its packets may have as source (E-30)."""


@dataclass(frozen=True, slots=True)
class Host(Endpoint):
    """A HostEndpoint."""


def effective(own: Labels, profiles: Iterable[str], profile_labels: Mapping[str, Labels]) -> Labels:
    """Own labels, then those of each listed profile in list order; the first that has the key wins (R-20)."""
    labels = dict(own)
    for profile in profiles:
        for key, value in profile_labels.get(profile, {}).items():
            labels.setdefault(key, value)
    return labels


def profile_labels(snapshot: Snapshot) -> dict[str, Labels]:
    """The labels that each profile gives to its endpoints; a written profile goes before a made one."""
    labels: dict[str, Labels] = {}
    for namespace in snapshot.namespaces:
        metadata = namespace.metadata
        labels[f"kns.{metadata.name}"] = _inherited(metadata.labels, NAMESPACE_PREFIX, metadata.name)
    for account in snapshot.service_accounts:
        metadata = account.metadata
        labels[f"ksa.{metadata.namespace}.{metadata.name}"] = _inherited(
            metadata.labels, SERVICE_ACCOUNT_PREFIX, metadata.name
        )
    for profile in snapshot.profiles:
        labels[profile.metadata.name] = profile.spec.labels_to_apply
    labels[DEFAULT_ALLOW] = {}
    return labels


def _inherited(labels: Labels, prefix: str, name: str) -> Labels:
    """Every label under the prefix; the name is written last (R-24, R-25)."""
    return {prefix + key: value for key, value in labels.items()} | {f"{prefix}projectcalico.org/name": name}


def members(snapshot: Snapshot, workload_prefix: str) -> list[Member]:
    """Every workload, host endpoint and network set of the cluster."""
    inherited = profile_labels(snapshot)
    return [
        *_workloads(snapshot, inherited, workload_prefix),
        *_hosts(snapshot, inherited),
        *_sets(snapshot, inherited),
    ]


def _workloads(
    snapshot: Snapshot, inherited: Mapping[str, Labels], workload_prefix: str
) -> Iterator[Workload]:
    for endpoint in snapshot.workload_endpoints:
        if endpoint.spec.ip_networks:
            yield _written_workload(endpoint, inherited)
    for pod in snapshot.pods:
        if _is_workload(pod):
            yield _pod(pod, inherited, workload_prefix)


def _written_workload(endpoint: WorkloadEndpoint, inherited: Mapping[str, Labels]) -> Workload:
    """A WorkloadEndpoint lists its own profiles (R-28a); its labels are completed as a Pod's are (R-21)."""
    metadata, spec = endpoint.metadata, endpoint.spec
    own = _workload_labels(
        metadata.labels, metadata.namespace or "", spec.orchestrator, spec.service_account_name
    )
    return Workload(
        name=f"WorkloadEndpoint/{metadata.namespace}/{metadata.name}",
        labels=effective(own, spec.profiles, inherited),
        nets=tuple(spec.ip_networks),
        short_name=metadata.name,
        node=spec.node,
        interface=spec.interface_name,
        profiles=tuple(spec.profiles),
        ports=tuple(NamedPort(port.name, port.protocol, port.port) for port in spec.ports if port.name),
        sources=(*spec.ip_networks, *spec.allow_spoofed_source_prefixes),
    )


def _is_workload(pod: Pod) -> bool:
    """Not one on the host's network, not yet scheduled, finished, or without an address (R-30)."""
    return (
        not pod.spec.host_network
        and bool(pod.spec.node_name)
        and pod.status.phase not in _FINISHED
        and bool(_addresses(pod))
    )


def _pod(pod: Pod, inherited: Mapping[str, Labels], workload_prefix: str) -> Workload:
    """A Pod as the workload that it becomes: R-21 to R-23, R-31, R-32."""
    name, namespace, account = pod.metadata.name, pod.metadata.namespace or "", pod.spec.service_account_name
    profiles = [f"kns.{namespace}", *([f"ksa.{namespace}.{account}"] if account else [])]
    own = _workload_labels(pod.metadata.labels, namespace, "k8s", account)
    addresses = _addresses(pod)
    return Workload(
        name=f"Pod/{namespace}/{name}",
        labels=effective(own, profiles, inherited),
        nets=addresses,
        short_name=name,
        node=pod.spec.node_name,
        interface=pod_interface(namespace, name, workload_prefix),
        profiles=tuple(profiles),
        ports=tuple(_pod_ports(pod)),
        sources=addresses,
    )


def _addresses(pod: Pod) -> tuple[IPNetwork, ...]:
    addresses = [address.ip for address in pod.status.pod_ips]
    if not addresses and pod.status.pod_ip is not None:
        addresses = [pod.status.pod_ip]
    return tuple(ip_network(address) for address in addresses)


def _workload_labels(written: Labels, namespace: str, orchestrator: str, service_account: str) -> Labels:
    """R-21, and without labels that only a namespace or a service account can give (R-22)."""
    labels = {
        key: value
        for key, value in written.items()
        if not key.startswith((NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX))
    }
    labels[NAMESPACE] = namespace
    if orchestrator:
        labels[ORCHESTRATOR] = orchestrator
    if service_account:
        labels[SERVICE_ACCOUNT] = service_account
    return labels


def pod_interface(namespace: str, name: str, workload_prefix: str) -> str:
    """The interface of a Pod on its node (R-31)."""
    digest = hashlib.sha1(f"{namespace}.{name}".encode(), usedforsecurity=False).hexdigest()
    return workload_prefix + digest[:11]


def _pod_ports(pod: Pod) -> Iterator[NamedPort]:
    """R-32: ports without a name, and those of unknown protocols, are not seen."""
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        for port in container.ports:
            protocol = _PORT_PROTOCOLS.get(port.protocol or "TCP")
            if port.name and protocol is not None:
                yield NamedPort(port.name, protocol, port.container_port)


def _hosts(snapshot: Snapshot, inherited: Mapping[str, Labels]) -> Iterator[Host]:
    """R-27: own labels and those of listed profiles; its addresses are the expected ones only (M-20)."""
    for endpoint in snapshot.host_endpoints:
        yield _host(endpoint, inherited)


def _host(endpoint: HostEndpoint, inherited: Mapping[str, Labels]) -> Host:
    metadata, spec = endpoint.metadata, endpoint.spec
    return Host(
        name=f"HostEndpoint/{metadata.name}",
        labels=effective(metadata.labels, spec.profiles, inherited),
        nets=tuple(ip_network(address) for address in spec.expected_ips),
        short_name=metadata.name,
        node=spec.node,
        interface=spec.interface_name,
        profiles=tuple(spec.profiles),
        ports=tuple(NamedPort(port.name, port.protocol, port.port) for port in spec.ports),
    )


def _sets(snapshot: Snapshot, inherited: Mapping[str, Labels]) -> Iterator[Member]:
    """R-26."""
    for network_set in snapshot.network_sets:
        metadata = network_set.metadata
        own = dict(metadata.labels) | {NAMESPACE: metadata.namespace or ""}
        yield Member(
            name=f"NetworkSet/{metadata.namespace}/{metadata.name}",
            labels=effective(own, [f"kns.{metadata.namespace}"], inherited),
            nets=tuple(network_set.spec.nets),
        )
    for global_set in snapshot.global_network_sets:
        metadata = global_set.metadata
        yield Member(
            name=f"GlobalNetworkSet/{metadata.name}",
            labels=dict(metadata.labels),
            nets=tuple(global_set.spec.nets),
        )
