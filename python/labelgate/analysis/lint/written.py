"""What the criteria of a written rule depend on."""

from __future__ import annotations

from typing import Any

from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource


def chooses_by_label(resource: Resource, path: Path) -> bool:
    """Whether what the rule there, or one of its peers, means depends on endpoints, sets or services."""
    rule = part = _part(resource, path[:3])
    if "Kubernetes" in type(resource).__name__:
        if len(path) > 3:
            part = _part(resource, path)
        peers = getattr(part, "from_", getattr(part, "to", [part])) or ()
        fields = ("pod_selector", "namespace_selector", "pods", "namespaces")
        return _has_named_port(rule) or any(
            getattr(peer, name, None) is not None for peer in peers for name in fields
        )
    return any(
        entity.selector
        or entity.not_selector
        or entity.namespace_selector
        or entity.services
        or entity.service_accounts
        or any(isinstance(port, str) for _, ports in entity.port_lists() for port in ports)
        for _, entity in part.sides()
    )


def _part(resource: Resource, path: Path) -> Any:
    part: Any = resource
    for step in path:
        part = part[step] if isinstance(step, int) else getattr(part, "from_" if step == "from" else step)
    return part


def _has_named_port(rule: Any) -> bool:
    """Of Kubernetes' rules: pods say which number a name is (K-9, K-25)."""
    ports, protocols = getattr(rule, "ports", None) or (), getattr(rule, "protocols", None) or ()
    return any(isinstance(entry.port, str) for entry in ports) or any(
        entry.destination_named_port for entry in protocols
    )
