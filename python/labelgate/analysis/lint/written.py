"""Compiled rules back to where they are written: rules of Kubernetes' policies are several compiled ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labelgate.resources import KubernetesClusterNetworkPolicy
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource


def written_rules(resource: Resource, direction: str) -> list[Path]:
    """Of each compiled rule of a direction the path of the rule or of the peer that it was made of."""
    spec: Any = resource.spec  # type: ignore[attr-defined]
    rules = getattr(spec, direction)
    if "Kubernetes" not in type(resource).__name__:
        return [("spec", direction, index) for index in range(len(rules))]
    field = "from" if direction == "ingress" else "to"
    found: list[Path] = []
    for index, rule in enumerate(rules):
        path = ("spec", direction, index)
        peers = (rule.from_ if direction == "ingress" else rule.to) or ()
        if isinstance(resource, KubernetesClusterNetworkPolicy):
            found += _cluster_rule(path, field, rule, peers)
        else:
            groups = len({port.protocol or "TCP" for port in rule.ports or ()}) or 1  # K-6
            found += [*_peers(path, field, len(peers))] * groups
    return found


def _cluster_rule(path: Path, field: str, rule: Any, peers: Any) -> list[Path]:
    """K-25, K-26."""
    if not all(peer.is_understood for peer in peers):
        return [] if rule.action == "Accept" else [path]
    groups = sum(
        any(getattr(entry, name) for entry in rule.protocols)
        for name in ("destination_named_port", "sctp", "tcp", "udp")
    )
    return [*_peers(path, field, len(peers))] * (groups or 1)


def _peers(path: Path, field: str, count: int) -> Iterator[Path]:
    if count < 2:
        yield path
    else:
        yield from ((*path, field, number) for number in range(count))


def chooses_by_label(resource: Resource, path: Path) -> bool:
    """Whether what the rule there means depends on endpoints, sets or services."""
    part: Any = resource
    for step in path:
        part = part[step] if isinstance(step, int) else getattr(part, "from_" if step == "from" else step)
    if "Kubernetes" in type(resource).__name__:
        peers = getattr(part, "from_", getattr(part, "to", [part])) or ()
        fields = ("pod_selector", "namespace_selector", "pods", "namespaces")
        return any(getattr(peer, name, None) is not None for peer in peers for name in fields)
    return any(
        entity.selector
        or entity.not_selector
        or entity.namespace_selector
        or entity.services
        or entity.service_accounts
        or any(isinstance(port, str) for _, ports in entity.port_lists() for port in ports)
        for _, entity in part.sides()
    )
