"""Kubernetes objects in Calico form (semantics 1.3 and 6.1), as the parts of the core's model.

Everything here returns plain dictionaries in the shape of `src/model.rs`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from labelgate.flow import SCTP, TCP, UDP

if TYPE_CHECKING:
    from labelgate.resources import (
        ClusterEgressPeer,
        ClusterEgressRule,
        ClusterIngressPeer,
        ClusterIngressRule,
        ClusterPort,
        ClusterProtocol,
        EndpointSlice,
        KubernetesClusterNetworkPolicy,
        KubernetesNetworkPolicy,
        LabelSelector,
        Metadata,
        Namespace,
        Peer,
        Pod,
        Port,
        ServiceAccount,
        StagedKubernetesNetworkPolicy,
    )
    from labelgate.resources.errors import Path
    from labelgate.resources.metadata import Resource

Direction = Literal["ingress", "egress"]

NAMESPACE_LABEL = "projectcalico.org/namespace"
ORCHESTRATOR_LABEL = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT_LABEL = "projectcalico.org/serviceaccount"
KUBERNETES_ORDER = 1000.0
"""K-1: the order of every Kubernetes policy in tier `default`."""

ALLOW_ALL = [{"action": "Allow"}]
"""The rules of a profile that allows everything."""

_INHERITED_PREFIXES = ("pcns.", "pcsa.")
_PORT_PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_FINISHED = ("Succeeded", "Failed")


def quoted(value: str) -> str:
    """A value as a string of the selector language: it may hold one kind of quote, never both (S-6).

    >>> print(quoted("web"), quoted("it's"))
    'web' "it's"
    """
    if "'" in value and '"' in value:
        raise ValueError(f"a selector cannot hold both kinds of quotes: {value}")
    return f'"{value}"' if "'" in value else f"'{value}'"


def workload_labels(
    own: Mapping[str, str], namespace: str, orchestrator: str, account: str
) -> dict[str, str]:
    """The labels of a workload as the engine sees them (R-21, R-22): forged inherited labels are left out."""
    labels = {key: value for key, value in own.items() if not key.startswith(_INHERITED_PREFIXES)}
    labels[NAMESPACE_LABEL] = namespace
    if orchestrator:
        labels[ORCHESTRATOR_LABEL] = orchestrator
    if account:
        labels[SERVICE_ACCOUNT_LABEL] = account
    return labels


def namespace_profile(namespace: Namespace) -> dict[str, Any]:
    """R-24: the profile `kns.NAMESPACE` allows everything and carries the namespace's labels."""
    name = namespace.metadata.name
    labels = _inherited("pcns.", namespace.metadata)
    return {"name": f"kns.{name}", "labels": labels, "ingress": ALLOW_ALL, "egress": ALLOW_ALL}


def service_account_profile(account: ServiceAccount) -> dict[str, Any]:
    """R-25: the profile `ksa.NAMESPACE.NAME` has no rules and carries the account's labels."""
    name = f"ksa.{account.metadata.namespace}.{account.metadata.name}"
    return {"name": name, "labels": _inherited("pcsa.", account.metadata)}


def _inherited(prefix: str, metadata: Metadata) -> dict[str, str]:
    labels = {f"{prefix}{key}": value for key, value in metadata.labels.items()}
    labels[f"{prefix}projectcalico.org/name"] = metadata.name
    return labels


def pod_interface(prefix: str, namespace: str, pod: str) -> str:
    """R-31: the host side of a pod's link.

    >>> pod_interface("cali", "shop", "web")
    'cali551b05c3e54'
    """
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


def is_workload(pod: Pod) -> bool:
    """R-30: not on the host's network, scheduled, not finished, with an address."""
    spec, status = pod.spec, pod.status
    has_address = bool(status.pod_ips) or status.pod_ip is not None
    return not spec.host_network and bool(spec.node_name) and status.phase not in _FINISHED and has_address


def pod_profiles(pod: Pod) -> list[str]:
    """R-23: that of its namespace, then that of its service account if it names one."""
    namespace, account = pod.metadata.namespace, pod.spec.service_account_name
    return [f"kns.{namespace}"] + ([f"ksa.{namespace}.{account}"] if account else [])


def pod_workload(pod: Pod, interface_prefix: str) -> dict[str, Any]:
    """A pod as a workload (R-21..R-23, R-31, R-32)."""
    spec, namespace = pod.spec, pod.metadata.namespace or ""
    return {
        "name": pod.key,
        "node": spec.node_name,
        "interface": pod_interface(interface_prefix, namespace, pod.metadata.name),
        "networks": _networks(pod),
        "labels": workload_labels(pod.metadata.labels, namespace, "k8s", spec.service_account_name),
        "profiles": pod_profiles(pod),
        "ports": _container_ports(pod),
    }


def _networks(pod: Pod) -> list[str]:
    """`podIPs`, or `podIP` of a status that has only that."""
    addresses = [entry.ip for entry in pod.status.pod_ips]
    if not addresses and pod.status.pod_ip is not None:
        addresses = [pod.status.pod_ip]
    return [str(ip_network(address)) for address in dict.fromkeys(addresses)]


def _container_ports(pod: Pod) -> list[dict[str, Any]]:
    """R-32: named ports only; TCP when unset; protocols that the engine has no ports for are skipped."""
    return [
        {"name": port.name, "protocol": protocol, "port": port.container_port}
        for container in (*pod.spec.containers, *pod.spec.init_containers)
        for port in container.ports
        if port.name and (protocol := _PORT_PROTOCOLS.get(port.protocol or "TCP")) is not None
    ]


def services(slices: Iterable[EndpointSlice]) -> list[dict[str, Any]]:
    """M-31, M-32: the backends of each service, from all its slices in its namespace, ready or not."""
    found: dict[tuple[str, str], tuple[set[str], set[tuple[str, int, int]]]] = {}
    for item in slices:
        if not item.service:
            continue
        key = (item.metadata.namespace or "", item.service)
        addresses, ports = found.setdefault(key, (set(), set()))
        own = [str(address) for address in _backends(item)]
        addresses.update(own)
        numbers = [
            (_PORT_PROTOCOLS[port.protocol], port.port) for port in item.ports if port.port is not None
        ]
        ports.update((address, *number) for address, number in product(own, numbers))
    return [
        {"namespace": namespace, "name": name, "addresses": sorted(addresses), "ports": sorted(ports)}
        for (namespace, name), (addresses, ports) in sorted(found.items())
    ]


def _backends(item: EndpointSlice) -> Iterable[IPv4Address | IPv6Address]:
    """M-31: what is no address is skipped (a slice can also hold names)."""
    for text in (address for endpoint in item.endpoints for address in endpoint.addresses):
        with suppress(ValueError):
            if "%" not in text:  # a zone is known on one host only
                yield ip_address(text)


def pod_selector(selector: LabelSelector | None) -> str:
    """K-2: the orchestrator term keeps network sets and host endpoints out; absent is every pod."""
    terms = () if selector is None else _terms(selector)
    return " && ".join([f"{ORCHESTRATOR_LABEL} == 'k8s'", *terms])


def namespace_selector(selector: LabelSelector | None) -> str:
    """K-4: absent is the own namespace, empty is every namespace."""
    if selector is None:
        return ""
    return " && ".join(_terms(selector)) or "all()"


def _terms(selector: LabelSelector) -> Iterable[str]:
    """K-2, K-3."""
    for key, value in sorted(selector.match_labels.items()):
        yield f"{key} == {quoted(value)}"
    for expression in selector.match_expressions:
        values = ", ".join(quoted(value) for value in expression.values)
        match expression.operator:
            case "In":
                yield f"{expression.key} in {{ {values} }}"
            case "NotIn":
                yield f"{expression.key} not in {{ {values} }}"
            case "Exists":
                yield f"has({expression.key})"
            case "DoesNotExist":
                yield f"! has({expression.key})"


def kubernetes_policy(
    policy: KubernetesNetworkPolicy | StagedKubernetesNetworkPolicy, *, in_force: bool = False
) -> dict[str, Any]:
    """K-1: a namespaced policy in tier `default`, order 1000, whose rules all allow."""
    spec = policy.spec
    # K-13: the Kubernetes API's default; files have not been through an API server.
    types = spec.policy_types or (["Ingress", "Egress"] if spec.egress else ["Ingress"])
    is_staged = policy.kind.startswith("Staged")
    staged = {"staged": not in_force} if is_staged else {}
    return staged | {
        "kind": type(policy).__name__,
        "namespace": policy.metadata.namespace,
        "name": policy.metadata.name,
        "tier": "default",
        "order": KUBERNETES_ORDER,
        "selector": pod_selector(spec.pod_selector),
        "applies_ingress": "Ingress" in types,
        "applies_egress": "Egress" in types,
        "ingress": [rule for entry in spec.ingress for rule in _rules("source", entry.from_, entry.ports)],
        "egress": [rule for entry in spec.egress for rule in _rules("destination", entry.to, entry.ports)],
    }


def _rules(side: str, peers: Sequence[Peer] | None, ports: Sequence[Port] | None) -> list[dict[str, Any]]:
    """K-6: one rule per protocol group and peer. K-11 has no case here: a bad port is refused at load."""
    # K-7: no peers means everyone, pods or not.
    entities = [_peer(peer) for peer in peers] if peers else [{}]
    rules = []
    for (protocol, port_match), entity in product(_port_groups(ports), entities):
        rule: dict[str, Any] = {"action": "Allow", "protocol": protocol, side: dict(entity)}
        # K-10: ports are those of the destination, in both directions.
        rule.setdefault("destination", {}).update(port_match)
        rules.append(rule)
    return rules


def _peer(peer: Peer) -> dict[str, Any]:
    """K-5."""
    if peer.ip_block is not None:
        block = peer.ip_block
        return {"nets": [str(block.cidr)], "not_nets": [str(net) for net in block.except_]}
    return {
        "selector": pod_selector(peer.pod_selector),
        "namespace_selector": namespace_selector(peer.namespace_selector),
    }


def _port_groups(ports: Sequence[Port] | None) -> list[tuple[int | None, dict[str, Any]]]:
    """K-7..K-9: protocols, sorted by name, each with every port or with minimal ranges and names."""
    if not ports:
        return [(None, {})]
    entries: dict[str, list[Port]] = {}
    for port in ports:
        entries.setdefault(port.protocol or "TCP", []).append(port)
    return [(_PORT_PROTOCOLS[name], _port_match(group)) for name, group in sorted(entries.items())]


def _port_match(entries: Sequence[Port]) -> dict[str, Any]:
    """The ports of one protocol; an entry without a port stands for all of them (K-8)."""
    ranges, names = [], []
    for entry in entries:
        match entry.port:
            case None:
                return {}
            case str(name):
                names.append(name)
            case int(first):
                ranges.append((first, first if entry.end_port is None else entry.end_port))
    return {"ports": _merged(ranges), "named_ports": list(dict.fromkeys(names))}


def _merged(ranges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Minimal ranges: those that overlap or touch become one (K-9)."""
    merged: list[list[int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return merged


# --- ClusterNetworkPolicy (semantics 6.2) ----------------------------------------------------------------

_CLUSTER_TIERS = {"Admin": "kube-admin", "Baseline": "kube-baseline"}
_CLUSTER_ACTIONS = {"Accept": "Allow", "Deny": "Deny", "Pass": "Pass"}


def written_rules(policy: Resource, direction: Direction) -> list[Path]:
    """Of each rule that a policy becomes the path of the rule, or of one of its peers, that it is made of.

    One of Calico's rules stays one; one of Kubernetes' becomes one for each protocol group and peer (K-6).
    """
    found: list[Path] = []
    kind, spec = type(policy).__name__, policy.spec  # type: ignore[attr-defined]
    for index, entry in enumerate(getattr(spec, direction)):
        path = ("spec", direction, index)
        found += _written(path, entry, "Cluster" in kind) if "Kubernetes" in kind else [path]
    return found


def _written(path: Path, entry: Any, is_cluster: bool) -> list[Path]:
    """Rules are made by group, and in each by peer."""
    side, field, peers = "source", "from", getattr(entry, "from_", None) or ()
    if "egress" in path:
        side, field, peers = "destination", "to", entry.to or ()
    made = len(_cluster_rules(entry, side, peers) if is_cluster else _rules(side, peers, entry.ports))
    if len(peers) < 2 or made % len(peers):  # K-26: one rule, however many peers.
        return [path] * made
    return [(*path, field, number) for number in range(len(peers))] * (made // len(peers))


def cluster_policy(policy: KubernetesClusterNetworkPolicy) -> dict[str, Any]:
    """K-20..K-22: a global policy in the tier of its own kind, ordered by its priority."""
    spec, subject = policy.spec, policy.spec.subject
    ingress = [made for rule in spec.ingress for made in _cluster_rules(rule, "source", rule.from_)]
    egress = [made for rule in spec.egress for made in _cluster_rules(rule, "destination", rule.to)]
    pods = None if subject.pods is None else subject.pods.pod_selector
    namespaces = subject.namespaces if subject.pods is None else subject.pods.namespace_selector
    return {
        "kind": "KubernetesClusterNetworkPolicy",
        "name": policy.metadata.name,
        "tier": _CLUSTER_TIERS[spec.tier],
        "order": float(spec.priority),
        "selector": pod_selector(pods),
        "namespace_selector": namespace_selector(namespaces),
        "applies_ingress": bool(ingress),
        "applies_egress": bool(egress),
        "ingress": ingress,
        "egress": egress,
    }


def _cluster_rules(
    rule: ClusterIngressRule | ClusterEgressRule,
    side: str,
    peers: Sequence[ClusterIngressPeer | ClusterEgressPeer],
) -> list[dict[str, Any]]:
    """One rule per protocol group and peer, as K-6; K-26 for those that cannot be converted."""
    if not all(peer.is_understood for peer in peers):
        return [] if rule.action == "Accept" else [{"action": "Deny"}]
    action = _CLUSTER_ACTIONS[rule.action]
    rules = []
    for (protocol, port_match), peer in product(_cluster_groups(rule.protocols), peers):
        made: dict[str, Any] = {"action": action, "protocol": protocol, side: _cluster_peer(peer)}
        made.setdefault("destination", {}).update(port_match)
        rules.append(made)
    return rules


def _cluster_peer(peer: ClusterIngressPeer | ClusterEgressPeer) -> dict[str, Any]:
    """K-23: without the orchestrator term `namespaces` also means the network sets there."""
    if peer.pods is not None:
        return {
            "selector": pod_selector(peer.pods.pod_selector),
            "namespace_selector": namespace_selector(peer.pods.namespace_selector),
        }
    if peer.namespaces is not None:
        return {"namespace_selector": namespace_selector(peer.namespaces)}
    return {"nets": [str(net) for net in getattr(peer, "networks", None) or []]}


def _cluster_groups(protocols: Sequence[ClusterProtocol]) -> list[tuple[int | None, dict[str, Any]]]:
    """K-25: named ports first, of any protocol; then the protocols by name, each with its ports or all."""
    if not protocols:
        return [(None, {})]
    names = [entry.destination_named_port for entry in protocols if entry.destination_named_port]
    named = {"ports": [], "named_ports": list(dict.fromkeys(names))}
    groups: list[tuple[int | None, dict[str, Any]]] = [(None, named)] if names else []
    for number, field in ((SCTP, "sctp"), (TCP, "tcp"), (UDP, "udp")):
        entries = [entry for entry in (getattr(protocol, field) for protocol in protocols) if entry]
        if entries:
            groups.append((number, _cluster_ports([entry.destination_port for entry in entries])))
    return groups


def _cluster_ports(ports: Sequence[ClusterPort | None]) -> dict[str, Any]:
    """The ports of one protocol; an entry without a port stands for all of them."""
    ranges = []
    for port in ports:
        if port is None:
            return {}
        span = port.range
        ranges.append((span.start, span.end) if span is not None else (port.number or 0, port.number or 0))
    return {"ports": _merged(ranges), "named_ports": []}
