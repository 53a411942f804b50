"""Kubernetes objects in Calico form (semantics 1.3 and 6.1), as the parts of the core's model.

Everything here returns plain dictionaries in the shape of `src/model.rs`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from labelgate.flow import PROTOCOLS, SCTP, TCP, UDP

if TYPE_CHECKING:
    from labelgate.resources import (
        KubernetesNetworkPolicy,
        LabelSelector,
        Metadata,
        Namespace,
        Peer,
        Pod,
        Port,
        ServiceAccount,
    )

NAMESPACE_LABEL = "projectcalico.org/namespace"
ORCHESTRATOR_LABEL = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT_LABEL = "projectcalico.org/serviceaccount"
KUBERNETES_ORDER = 1000.0
"""K-1: the order of every Kubernetes policy in tier `default`."""

_INHERITED_PREFIXES = ("pcns.", "pcsa.")
_ALLOW_ALL = [{"action": "Allow"}]


def quoted(value: str) -> str:
    """A value as a string of the selector language, which has no escapes (S-6)."""
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
    return {"name": f"kns.{name}", "labels": labels, "ingress": _ALLOW_ALL, "egress": _ALLOW_ALL}


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
    'cali1a8e9d3ba4e'
    """
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


def pod_workload(pod: Pod, interface_prefix: str) -> dict[str, Any] | None:
    """A pod as a workload (R-21..R-23, R-31, R-32); None for one without an address of its own (R-30)."""
    spec, status, namespace = pod.spec, pod.status, pod.metadata.namespace or ""
    addresses = [str(entry.ip) for entry in status.pod_ips]
    if not addresses and status.pod_ip:
        addresses = [str(status.pod_ip)]
    finished = status.phase in ("Succeeded", "Failed")
    if spec.host_network or not spec.node_name or finished or not addresses:
        return None
    account = spec.service_account_name
    profiles = [f"kns.{namespace}"] + ([f"ksa.{namespace}.{account}"] if account else [])
    return {
        "name": pod.key,
        "node": spec.node_name,
        "interface": pod_interface(interface_prefix, namespace, pod.metadata.name),
        "networks": addresses,
        "labels": workload_labels(pod.metadata.labels, namespace, "k8s", account),
        "profiles": profiles,
        "ports": _container_ports(pod),
    }


def _container_ports(pod: Pod) -> list[dict[str, Any]]:
    """R-32: named ports only; TCP when unset; protocols that the engine has no ports for are skipped."""
    known = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
    ports = []
    for container in [*pod.spec.containers, *pod.spec.init_containers]:
        for port in container.ports:
            protocol = known.get(port.protocol or "TCP")
            if port.name and protocol is not None:
                ports.append({"name": port.name, "protocol": protocol, "port": port.container_port})
    return ports


def pod_selector(selector: LabelSelector) -> str:
    """K-2: the orchestrator term keeps network sets and host endpoints out."""
    return " && ".join([f"{ORCHESTRATOR_LABEL} == 'k8s'", *_terms(selector)])


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


def kubernetes_policy(policy: KubernetesNetworkPolicy) -> dict[str, Any]:
    """K-1: a namespaced policy in tier `default`, order 1000, whose rules all allow."""
    spec = policy.spec
    # K-13: the Kubernetes API's default; files have not been through an API server.
    types = spec.policy_types or (["Ingress", "Egress"] if spec.egress else ["Ingress"])
    return {
        "kind": "KubernetesNetworkPolicy",
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
    """K-6: one rule per protocol group and peer. K-11: a port that cannot be read drops the whole rule."""
    try:
        groups = _port_groups(ports or ())
    except ValueError:
        return []
    # K-7: no peers means everyone, pods or not.
    entities = [_peer(peer) for peer in peers] if peers else [{}]
    rules = []
    for (protocol, port_match), entity in product(groups, entities):
        rule: dict[str, Any] = {"action": "Allow", side: dict(entity)}
        if protocol is not None:
            rule["protocol"] = PROTOCOLS[protocol.lower()]
        # K-10: ports are those of the destination, in both directions.
        rule.setdefault("destination", {}).update(port_match)
        rules.append(rule)
    return rules


def _peer(peer: Peer) -> dict[str, Any]:
    """K-5."""
    if peer.ip_block is not None:
        block = peer.ip_block
        return {"nets": [str(block.cidr)], "not_nets": [str(net) for net in block.except_]}
    selector = pod_selector(peer.pod_selector) if peer.pod_selector else f"{ORCHESTRATOR_LABEL} == 'k8s'"
    return {"selector": selector, "namespace_selector": namespace_selector(peer.namespace_selector)}


def _port_groups(ports: Sequence[Port]) -> list[tuple[str | None, dict[str, Any]]]:
    """K-8, K-9: per protocol, sorted by name, either every port or minimal ranges and names."""
    if not ports:
        return [(None, {})]
    numbers: dict[str, list[tuple[int, int]]] = {}
    names: dict[str, list[str]] = {}
    whole: set[str] = set()
    for entry in ports:
        protocol = entry.protocol or "TCP"
        numbers.setdefault(protocol, [])
        names.setdefault(protocol, [])
        port = _port_number(entry.port)
        if port is None:
            if entry.end_port is not None:
                raise ValueError("endPort without port")
            whole.add(protocol)
        elif isinstance(port, str):
            if entry.end_port is not None:
                raise ValueError("endPort with a named port")
            names[protocol].append(port)
        else:
            numbers[protocol].append(_checked(port, port if entry.end_port is None else entry.end_port))
    return [
        (protocol, {} if protocol in whole else _port_match(numbers[protocol], names[protocol]))
        for protocol in sorted(numbers)
    ]


def _port_number(port: int | str | None) -> int | str | None:
    """K-9: digit text is a number."""
    return int(port) if isinstance(port, str) and port.isascii() and port.isdigit() else port


def _checked(first: int, last: int) -> tuple[int, int]:
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"bad port range {first}..{last}")
    return first, last


def _port_match(ranges: list[tuple[int, int]], names: list[str]) -> dict[str, Any]:
    merged: list[list[int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return {"ports": merged, "named_ports": names}
