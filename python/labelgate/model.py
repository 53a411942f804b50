"""A snapshot as the core's model: the JSON object that `src/model.rs` reads.

Defaults are filled in here; nothing is inherited or resolved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from labelgate import conversion
from labelgate.resources import STORED
from labelgate.resources.policy import GlobalNetworkPolicySpec

if TYPE_CHECKING:
    from labelgate.resources import (
        EndpointPort,
        EntityRule,
        HostEndpoint,
        PortRange,
        Profile,
        Resource,
        Rule,
        WorkloadEndpoint,
        WorkloadEndpointPort,
    )
    from labelgate.resources.grouped import CalicoPolicy, Grouped
    from labelgate.settings import Failsafe, Settings

DEFAULT_TIER_ORDER = 1_000_000.0
"""E-2: what a Tier without order counts as."""

BUILT_IN_TIERS: Mapping[str, dict[str, Any]] = {
    "kube-admin": {"name": "kube-admin", "order": 1_000.0, "pass": True},
    "default": {"name": "default", "order": DEFAULT_TIER_ORDER, "pass": False},
    "kube-baseline": {"name": "kube-baseline", "order": 10_000_000.0, "pass": True},
}
"""E-3."""

BUILT_IN_PROFILE = "projectcalico-default-allow"
"""R-28: allows both ways, has no labels, always exists."""


class Written:
    """Parts of models as JSON text: what several snapshots share is written once."""

    def __init__(self) -> None:
        self._texts: dict[tuple[object, ...], tuple[Resource, str]] = {}

    def text(self, make: _Make, resource: Resource, *which: object) -> str:
        """Of what is made of a resource; `which` tells makers apart.

        One that was moved or copied has the same contents, not only equal ones, and is the same here.
        """
        key = (*which, *map(id, vars(resource).values()))
        if key not in self._texts:
            self._texts[key] = resource, _written(make(resource))
        return self._texts[key][1]


def node_name(node: object) -> str | None:
    """The node that a program is compiled for; None means all workloads of the cluster.

    Raises:
        TypeError: it is neither.
        ValueError: half a surrogate pair is in it.
    """
    if isinstance(node, str) and re.search("[\ud800-\udfff]", node):
        raise ValueError(f"node: found {node!r}, expected a name")
    if node is None or isinstance(node, str):
        return node
    raise TypeError(f"node: found {node!r}, expected a name, or None for all workloads of the cluster")


def core_model(
    snapshot: Grouped,
    settings: Settings,
    *,
    staged: bool = False,
    is_cluster: bool = False,
    written: Written | None = None,
) -> bytes:
    """The model of a snapshot, as JSON text for `labelgate._core.compile`.

    With `staged` the staged policies are in force. With `is_cluster` workloads are on no node: only without
    one they are enforced, all of them, and the program of a node is that of its host endpoints. Parts that
    were `written` before are not written again.
    """
    written = Written() if written is None else written
    prefix = settings.workload_prefixes[0]
    rest = {**_lists_of_all(snapshot), "settings": _settings(settings)}
    fields = [f'"{name}":{_written(value)}' for name, value in rest.items()]
    for kind, makers in _makers(snapshot, prefix, staged=staged, is_cluster=is_cluster).items():
        texts = (
            written.text(make, resource, kind, at, prefix, staged, is_cluster)
            for at, (make, resources) in enumerate(makers)
            for resource in resources
        )
        fields.append(f'"{kind}":[{",".join(texts)}]')
    return f"{{{','.join(fields)}}}".encode()


_written = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def core_parts(
    snapshot: Grouped, settings: Settings, *, staged: bool = False
) -> dict[str, dict[str, dict[str, Any]]]:
    """The same part by part, as `labelgate._core.Compiler` is told of them: `{key: {kind: part}}`.

    >>> from labelgate import Settings, Snapshot
    >>> sorted(core_parts(Snapshot(), Settings()))
    ['Profile/projectcalico-default-allow', 'Tier/default', 'Tier/kube-admin', 'Tier/kube-baseline']
    """
    makers = _makers(snapshot, settings.workload_prefixes[0], staged=staged, is_cluster=False)
    made = {kind: [make(one) for make, several in found for one in several] for kind, found in makers.items()}
    lists = {**made, **_lists_of_all(snapshot)}
    return {_key(kind, part): {_KINDS[kind]: part} for kind, parts in lists.items() for part in parts}


_KINDS = {
    "workloads": "workload",
    "hosts": "host",
    "network_sets": "network_set",
    "profiles": "profile",
    "tiers": "tier",
    "policies": "policy",
    "services": "service",
}
"""The word for one of a list."""


def _key(kind: str, part: Mapping[str, Any]) -> str:
    """`Kind/namespace/name` or `Kind/name`, as the core names the part."""
    name = str(part["name"])
    match kind:
        case "workloads" | "network_sets":
            return name
        case "hosts":
            return f"HostEndpoint/{name}"
        case "profiles":
            return f"Profile/{name}"
        case "tiers":
            return f"Tier/{name}"
        case "services":
            return f"Service/{part['namespace']}/{name}"
    return "/".join(filter(None, (part["kind"], part.get("namespace"), name)))


_Part = dict[str, Any]
_Make = Callable[[Any], _Part]


def _makers(
    snapshot: Grouped, prefix: str, *, staged: bool, is_cluster: bool
) -> dict[str, list[tuple[_Make, Iterable[Resource]]]]:
    """What is made resource by resource: how, and of which."""

    def placed(make: _Make) -> _Make:
        return (lambda resource: {**make(resource), "node": ""}) if is_cluster else make

    pods = [pod for pod in snapshot.pods if conversion.is_workload(pod)]
    return {
        "workloads": [
            (placed(_workload), snapshot.workload_endpoints),
            (placed(lambda pod: conversion.pod_workload(pod, prefix)), pods),
        ],
        "hosts": [(_host, snapshot.host_endpoints)],
        "policies": [
            (lambda policy: _policy(policy, in_force=staged), snapshot.calico_policies()),
            (
                lambda policy: conversion.kubernetes_policy(policy, in_force=staged),
                snapshot.kubernetes_policies(),
            ),
            (conversion.cluster_policy, snapshot.kubernetes_cluster_network_policies),
        ],
    }  # fmt: skip


def _lists_of_all(snapshot: Grouped) -> dict[str, list[_Part]]:
    """What is made of several resources together, or is there without any."""
    return {
        "network_sets": _network_sets(snapshot),
        "profiles": _profiles(snapshot),
        "tiers": _tiers(snapshot),
        "services": conversion.services(snapshot.endpoint_slices),
    }


def _workload(endpoint: WorkloadEndpoint) -> dict[str, Any]:
    """R-28a: a WorkloadEndpoint lists its own profiles."""
    spec, metadata = endpoint.spec, endpoint.metadata
    labels = conversion.workload_labels(
        metadata.labels, metadata.namespace or "", spec.orchestrator, spec.service_account_name
    )
    return {
        "name": endpoint.key,
        "node": spec.node,
        "interface": spec.interface_name,
        "networks": [str(net) for net in spec.ip_networks],
        "spoofed_prefixes": [str(net) for net in spec.allow_spoofed_source_prefixes],
        "labels": labels,
        "profiles": list(spec.profiles),
        "ports": [_named_port(port) for port in spec.ports if port.name],
    }


def _host(host: HostEndpoint) -> dict[str, Any]:
    spec = host.spec
    return {
        "name": host.metadata.name,
        "node": spec.node,
        "interface": spec.interface_name,
        "addresses": [str(address) for address in spec.expected_ips],
        "labels": dict(host.metadata.labels),
        "profiles": list(spec.profiles),
        "ports": [_named_port(port) for port in spec.ports],
    }


def _named_port(port: EndpointPort | WorkloadEndpointPort) -> dict[str, Any]:
    return {"name": port.name, "protocol": port.protocol, "port": port.port}


def _network_sets(snapshot: Grouped) -> list[dict[str, Any]]:
    """R-26."""
    sets = [
        {
            "name": item.key,
            "labels": {**item.metadata.labels, conversion.NAMESPACE_LABEL: item.metadata.namespace},
            "profiles": [f"kns.{item.metadata.namespace}"],
            "nets": [str(net) for net in item.spec.nets],
        }
        for item in snapshot.network_sets
    ]
    return sets + [
        {"name": item.key, "labels": dict(item.metadata.labels), "nets": [str(net) for net in item.spec.nets]}
        for item in snapshot.global_network_sets
    ]


def _profiles(snapshot: Grouped) -> list[dict[str, Any]]:
    """R-24, R-25: a Profile document replaces a made one of its name; R-28: nothing replaces the built-in."""
    profiles = [
        *map(conversion.namespace_profile, snapshot.namespaces),
        *map(conversion.service_account_profile, snapshot.service_accounts),
        *map(_profile, snapshot.profiles),
        {"name": BUILT_IN_PROFILE, "ingress": conversion.ALLOW_ALL, "egress": conversion.ALLOW_ALL},
    ]
    return list({profile["name"]: profile for profile in profiles}.values())


def _profile(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.metadata.name,
        "labels": dict(profile.spec.labels_to_apply),
        "ingress": _rules(profile.spec.ingress),
        "egress": _rules(profile.spec.egress),
    }


def _tiers(snapshot: Grouped) -> list[dict[str, Any]]:
    """E-2: filled-in defaults; E-3: the built-in tiers, unless a document says the same again (V-70)."""
    tiers = dict(BUILT_IN_TIERS)
    for tier in snapshot.tiers:
        name, order = tier.metadata.name, tier.spec.order
        tiers[name] = {
            "name": name,
            "order": DEFAULT_TIER_ORDER if order is None else order,
            "pass": tier.spec.default_action == "Pass",
        }
    return list(tiers.values())


def _policy(policy: CalicoPolicy, *, in_force: bool) -> dict[str, Any]:
    """E-15: a staged policy counts only at the end of its tier, unless it is to be in force."""
    spec = policy.spec
    ingress, egress = _applies(policy)
    result = {
        "kind": policy.kind,
        "namespace": policy.metadata.namespace or "",
        "name": policy.metadata.name,
        "tier": spec.tier,
        "order": spec.order,
        "selector": spec.selector,
        "service_account_selector": spec.service_account_selector,
        "applies_ingress": ingress,
        "applies_egress": egress,
        "ingress": _rules(spec.ingress, policy.metadata.namespace),
        "egress": _rules(spec.egress, policy.metadata.namespace),
    }
    if policy.kind.startswith("Staged"):
        result["staged"] = not in_force
    if isinstance(spec, GlobalNetworkPolicySpec):
        result |= {
            "namespace_selector": spec.namespace_selector,
            "do_not_track": spec.do_not_track,
            "pre_dnat": spec.pre_dnat,
            "apply_on_forward": spec.apply_on_forward,
        }
    return result


def _applies(policy: CalicoPolicy) -> tuple[bool, bool]:
    """E-12: the types as written, else inferred from the rules that are there.

    E-13: the stored form has been through no defaulting, and no types govern both directions.
    """
    spec = policy.spec
    if spec.types:
        return "Ingress" in spec.types, "Egress" in spec.types
    if policy.api_version == STORED:
        return True, True
    return bool(spec.ingress) or not spec.egress, bool(spec.egress)


def _rules(rules: Iterable[Rule], namespace: str | None = None) -> list[dict[str, Any]]:
    """The namespace is that of the policy; None outside of one."""
    return [_rule(rule, namespace) for rule in rules]


def _rule(rule: Rule, namespace: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "action": rule.action,
        "ip_version": rule.ip_version,
        "protocol": rule.protocol,
        "not_protocol": rule.not_protocol,
        "source": _entity(rule.source, namespace),
        "destination": _entity(rule.destination, namespace),
    }
    for field, icmp in (("icmp", rule.icmp), ("not_icmp", rule.not_icmp)):
        if icmp is not None:
            result[field] = {"type": icmp.type, "code": icmp.code}
    return result


def _entity(entity: EntityRule, namespace: str | None) -> dict[str, Any]:
    ports, named = _ports(entity.ports)
    not_ports, not_named = _ports(entity.not_ports)
    result: dict[str, Any] = {
        "nets": [str(net) for net in entity.nets],
        "not_nets": [str(net) for net in entity.not_nets],
        "selector": entity.selector,
        "not_selector": entity.not_selector,
        "namespace_selector": entity.namespace_selector,
        "ports": ports,
        "named_ports": named,
        "not_ports": not_ports,
        "not_named_ports": not_named,
    }
    if entity.service_accounts is not None:
        accounts = entity.service_accounts
        result["service_accounts"] = {"names": list(accounts.names), "selector": accounts.selector}
    if entity.services is not None:
        # V-55: without a namespace it is a service of the policy's own.
        where = entity.services.namespace or namespace
        result["service"] = {"namespace": where, "name": entity.services.name}
    return result


def _ports(ports: Iterable[PortRange | str]) -> tuple[list[tuple[int, int]], list[str]]:
    """Numeric ranges and names."""
    numbers, names = [], []
    for port in ports:
        if isinstance(port, str):
            names.append(port)
        else:
            numbers.append((port.first, port.last))
    return numbers, names


def _settings(settings: Settings) -> dict[str, Any]:
    return {
        "endpoint_to_host": settings.endpoint_to_host,
        "invalid_check": settings.invalid_check,
        "failsafe_inbound": [_failsafe(entry) for entry in settings.failsafe_inbound],
        "failsafe_outbound": [_failsafe(entry) for entry in settings.failsafe_outbound],
        "workload_vxlan_port": settings.workload_vxlan_port,
        "workload_ipip_denied": settings.workload_ipip_denied,
        "forward_unmarked": settings.forward_unmarked,
        "exempt_loopback": settings.exempt_loopback,
    }


def _failsafe(entry: Failsafe) -> dict[str, Any]:
    net = None if entry.net is None else str(entry.net)
    return {"protocol": entry.protocol, "net": net, "port": entry.port}
