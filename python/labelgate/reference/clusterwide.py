"""policy.networking.k8s.io ClusterNetworkPolicy in Calico's terms: K-20 to K-27."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from labelgate import resources
from labelgate.flow import Action
from labelgate.reference.kubernetes import namespaces, pods
from labelgate.reference.rules import Entity, Port, Rule, combined
from labelgate.reference.selectors import Expression

TIERS = {"Admin": "kube-admin", "Baseline": "kube-baseline"}
"""K-20."""
_ACTIONS: dict[str, Action] = {"Accept": "Allow", "Deny": "Deny", "Pass": "Pass"}
_NOT_CONVERTED = ("nodes", "domain_names")
_PROTOCOLS = (("sctp", 132), ("tcp", 6), ("udp", 17))


def subject(spec: Any) -> tuple[Expression, Expression | None]:
    """The expressions over labels of pods and of their namespaces (K-21)."""
    if spec.subject.pods is not None:
        chosen = spec.subject.pods
        return pods(chosen.pod_selector), namespaces(chosen.namespace_selector)
    return pods(resources.LabelSelector()), namespaces(spec.subject.namespaces)


def ingress_rules(spec: Any) -> Iterator[Rule]:
    """The peers are sources, the ports destinations."""
    for rule in spec.ingress:
        for action, protocol, ports, peer in _parts(rule, rule.from_):
            yield Rule(action, protocol=protocol, source=peer, destination=Entity(ports=ports))


def egress_rules(spec: Any) -> Iterator[Rule]:
    """Peers and ports are destinations."""
    for rule in spec.egress:
        for action, protocol, ports, peer in _parts(rule, rule.to):
            yield Rule(action, protocol=protocol, destination=replace(peer, ports=ports))


_Part = tuple[Action, int | None, tuple[Port, ...], Entity]


def _parts(rule: Any, peers: Sequence[Any]) -> Iterator[_Part]:
    """One rule for each protocol and peer (K-22); what cannot be converted fails closed (K-26)."""
    if any(getattr(peer, field, None) is not None for peer in peers for field in _NOT_CONVERTED):
        if rule.action != "Accept":
            yield "Deny", None, (), Entity()
        return
    for protocol, ports in _groups(rule.protocols):
        for peer in peers:
            yield _ACTIONS[rule.action], protocol, ports, _peer(peer)


def _peer(peer: Any) -> Entity:
    """K-23: `namespaces` alone has no orchestrator term, so that network sets there match too."""
    if getattr(peer, "networks", None) is not None:
        return Entity(nets=tuple(peer.networks))
    if peer.pods is not None:
        selector, where = pods(peer.pods.pod_selector), namespaces(peer.pods.namespace_selector)
        return Entity(positive=combined(selector=selector, namespaces=where, namespace=None)[0])
    where = namespaces(peer.namespaces)
    return Entity(positive=combined(selector=None, namespaces=where, namespace=None)[0])


def _groups(protocols: Iterable[Any]) -> Iterator[tuple[int | None, tuple[Port, ...]]]:
    """K-25: named ports of any protocol first, then one group a protocol; no ports in it means all."""
    listed = list(protocols)
    if not listed:
        yield None, ()
    if names := tuple(entry.destination_named_port for entry in listed if entry.destination_named_port):
        yield None, names
    for field, number in _PROTOCOLS:
        entries = [getattr(entry, field) for entry in listed if getattr(entry, field) is not None]
        if any(entry.destination_port is None for entry in entries):
            yield number, ()
        elif entries:
            yield number, tuple(_range(entry.destination_port) for entry in entries)


def _range(port: Any) -> tuple[int, int]:
    return (port.range.start, port.range.end) if port.range is not None else (port.number, port.number)
