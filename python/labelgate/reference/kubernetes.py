"""networking.k8s.io NetworkPolicy in Calico's terms: K-2 to K-14. All rules allow; the rest is denied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from labelgate import resources
from labelgate.reference.labels import ORCHESTRATOR
from labelgate.reference.rules import Entity, Port, Rule, all_of, combined
from labelgate.reference.selectors import All, And, Compare, Expression, Has, Not, equals

_PROTOCOLS = {"SCTP": 132, "TCP": 6, "UDP": 17}


def policy_types(spec: resources.KubernetesNetworkPolicySpec) -> list[str]:
    """As listed; else what the Kubernetes API would fill in (K-13)."""
    return spec.policy_types or ["Ingress", *(["Egress"] if spec.egress else [])]


def pods(selector: resources.LabelSelector) -> Expression:
    """Kubernetes pods with these labels: never network sets or host endpoints (K-2)."""
    return And((equals(ORCHESTRATOR, "k8s"), *_requirements(selector)))


def namespaces(selector: resources.LabelSelector | None) -> Expression | None:
    """K-4."""
    if selector is None:
        return None
    return all_of(*_requirements(selector)) or All()


def _requirements(selector: resources.LabelSelector) -> Iterator[Expression]:
    """K-2, K-3: the pairs by key, then the expressions as given."""
    for key, value in sorted(selector.match_labels.items()):
        yield equals(key, value)
    for expression in selector.match_expressions:
        match expression.operator:
            case "In":
                yield Compare(expression.key, "in", frozenset(expression.values))
            case "NotIn":
                yield Compare(expression.key, "not in", frozenset(expression.values))
            case "Exists":
                yield Has(expression.key)
            case "DoesNotExist":
                yield Not(Has(expression.key))


def ingress_rules(spec: resources.KubernetesNetworkPolicySpec, namespace: str) -> Iterator[Rule]:
    """The peers are sources, the ports destinations (K-10)."""
    for rule in spec.ingress:
        for protocol, ports in _port_groups(rule.ports):
            for peer in _peers(rule.from_, namespace):
                yield Rule("Allow", protocol=protocol, source=peer, destination=Entity(ports=ports))


def egress_rules(spec: resources.KubernetesNetworkPolicySpec, namespace: str) -> Iterator[Rule]:
    """Peers and ports are destinations (K-10)."""
    for rule in spec.egress:
        for protocol, ports in _port_groups(rule.ports):
            for peer in _peers(rule.to, namespace):
                yield Rule("Allow", protocol=protocol, destination=replace(peer, ports=ports))


def _port_groups(ports: list[resources.Port] | None) -> list[tuple[int | None, tuple[Port, ...]]]:
    """One group per protocol, by name; no ports in a group means all of them (K-6 to K-9)."""
    if not ports:
        return [(None, ())]  # K-7
    entries = [(port.protocol or "TCP", _ports(port)) for port in ports]  # K-8
    groups: list[tuple[int | None, tuple[Port, ...]]] = []
    for name in sorted({name for name, _ in entries}):
        listed = [found for protocol, found in entries if protocol == name]
        is_every_port = () in listed  # K-8: swallows the other entries of this protocol
        groups.append(
            (_PROTOCOLS[name], () if is_every_port else tuple(port for found in listed for port in found))
        )
    return groups


def _ports(port: resources.Port) -> tuple[Port, ...]:
    """The range or name that an entry lists; empty: every port (K-8, K-9)."""
    if port.port is None:
        return ()
    if isinstance(port.port, str):
        return (port.port,)
    return ((port.port, port.port if port.end_port is None else port.end_port),)


def _peers(peers: list[resources.Peer] | None, namespace: str) -> list[Entity]:
    """One entity per peer, in the given order (K-5, K-6); everyone where none is listed (K-7)."""
    return [_peer(peer, namespace) for peer in peers] if peers else [Entity()]


def _peer(peer: resources.Peer, namespace: str) -> Entity:
    """A row of K-5."""
    if peer.ip_block is not None:
        return Entity(nets=(peer.ip_block.cidr,), not_nets=tuple(peer.ip_block.except_))
    selector = pods(peer.pod_selector or resources.LabelSelector())
    positive, _ = combined(
        selector=selector, namespaces=namespaces(peer.namespace_selector), namespace=namespace
    )
    return Entity(positive=positive)
