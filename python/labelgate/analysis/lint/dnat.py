"""Remarks on preDNAT rules that name a port which packets have only after DNAT (E-70)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.selection import Selection
from labelgate.flow import SCTP, TCP, UDP
from labelgate.reference.labels import NAMESPACE, Host, Workload
from labelgate.resources import EndpointSlice, GlobalNetworkPolicy, PortRange, Service
from labelgate.resources.rule import Rule, protocol_text
from labelgate.resources.service import ServicePort

_PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_Key = tuple[int, int]
"""Protocol and port."""


@dataclass(slots=True)
class _Translations:
    """What nodes translate: node ports, ports of load balancers and external addresses, host ports."""

    after: dict[_Key, str] = field(default_factory=dict)
    """Ports of backends, and what to name instead."""
    before: set[_Key] = field(default_factory=set)
    """Ports that clients send to from outside."""

    def add(self, protocol: int, outer: int, inner: Iterable[int], what: str) -> None:
        """A port of the node, and those of the pods behind it."""
        self.before.add((protocol, outer))
        for number in inner:
            self.after.setdefault((protocol, number), f"{outer}, {what}")

    def only_after(self, protocols: Iterable[int], first: int, last: int) -> list[_Key]:
        """The backends' ports in a range in which no client sends to any."""
        if any(protocol in protocols and first <= port <= last for protocol, port in self.before):
            return []
        return [key for key in self.after if key[0] in protocols and first <= key[1] <= last]


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG404."""
    translations = _translations(selection)
    for policy in selection.policies:
        resource = selection.resource(policy)
        if "prednat" in policy.lists and isinstance(resource, GlobalNetworkPolicy) and translations.after:
            for index, rule in enumerate(resource.spec.ingress):
                if not _is_of_pods(selection, rule):
                    yield from _rule(selection, translations, resource, index, rule)


def _is_of_pods(selection: Selection, rule: Rule) -> bool:
    """Whether its nets leave all hosts out: then it means those who send to pods directly."""
    nets = rule.destination.nets
    addresses = [net for host in selection.hosts for net in host.nets]
    return bool(nets) and not any(
        one.version == net.version and net.overlaps(one) for one in addresses for net in nets
    )


def _rule(
    selection: Selection, translations: _Translations, resource: GlobalNetworkPolicy, index: int, rule: Rule
) -> Iterator[Remark]:
    protocols = (rule.protocol,) if rule.protocol is not None else tuple(_PROTOCOLS.values())
    for number, port in enumerate(rule.destination.ports):
        if isinstance(port, PortRange):
            found = translations.only_after(protocols, port.first, port.last)
            what = f"port {found[0][1]} of {protocol_text(found[0][0])}" if found else ""
        else:
            found, what = _named(selection, translations, protocols, port), f"the named port `{port}`"
        if found:
            text = (
                f"{what} is that of the pods: preDNAT policy sees packets before DNAT, when they have"
                f" the port of the node (E-70)"
            )
            path = ("spec", "ingress", index, "destination", "ports", number)
            yield Remark("LG404", resource, path, text, f"name {translations.after[found[0]]}")


def _named(
    selection: Selection, translations: _Translations, protocols: Iterable[int], name: str
) -> list[_Key]:
    """The backends' ports of that name, if no host endpoint has one of that name."""
    having = [
        (endpoint, own)
        for endpoint in selection.endpoints
        for own in endpoint.ports
        if own.name == name and own.protocol in protocols
    ]
    if any(isinstance(endpoint, Host) for endpoint, _ in having):
        return []
    keys = dict.fromkeys((own.protocol, own.port) for _, own in having)
    return [key for key in keys if key in translations.after]


def _translations(selection: Selection) -> _Translations:
    found = _Translations()
    backends = _Backends.of(selection)
    for service in selection.snapshot.services:
        spec, name = service.spec, f"Service `{service.metadata.namespace}/{service.metadata.name}`"
        for port in spec.ports:
            protocol = _PROTOCOLS.get(port.protocol)
            if protocol is None:
                continue
            inner = backends.ports(service, port, protocol)
            if port.node_port is not None:
                found.add(protocol, port.node_port, inner, f"the node port of {name}")
            if port.port is not None and (spec.type == "LoadBalancer" or spec.external_ips):
                found.add(protocol, port.port, inner, f"the port of {name}")
    _add_host_ports(selection, found)
    return found


def _add_host_ports(selection: Selection, found: _Translations) -> None:
    for pod in selection.snapshot.pods:
        containers = () if pod.spec.host_network else (*pod.spec.init_containers, *pod.spec.containers)
        for port in (port for container in containers for port in container.ports if port.host_port):
            protocol = _PROTOCOLS.get(port.protocol or "TCP")
            if protocol is not None:
                what = f"the host port of {pod.key}"
                found.add(protocol, port.host_port, [port.container_port], what)
    for endpoint in selection.snapshot.workload_endpoints:
        for own in endpoint.spec.ports:
            if own.host_port:
                found.add(own.protocol, own.host_port, [own.port], f"the host port of {endpoint.key}")


@dataclass(frozen=True, slots=True)
class _Backends:
    """Who may stand behind a service."""

    workloads: dict[str, list[Workload]]
    """By namespace."""
    slices: dict[tuple[str | None, str | None], list[EndpointSlice]]
    """By namespace and name of their service."""

    @classmethod
    def of(cls, selection: Selection) -> _Backends:
        found = cls({}, {})
        for endpoint in selection.endpoints:
            if isinstance(endpoint, Workload):
                found.workloads.setdefault(endpoint.labels.get(NAMESPACE, ""), []).append(endpoint)
        for one in selection.snapshot.endpoint_slices:
            found.slices.setdefault((one.metadata.namespace, one.service), []).append(one)
        return found

    def ports(self, service: Service, port: ServicePort, protocol: int) -> set[int]:
        """The numbers that backends have for a port: those of its slices, of its target, of pods by name."""
        target = port.port if port.target_port is None else port.target_port
        found = {target} if isinstance(target, int) else set[int]()
        key = (service.metadata.namespace, service.metadata.name)
        for one in self.slices.get(key, ()):
            listed = (own for own in one.ports if own.name == port.name and own.protocol == port.protocol)
            found |= {own.port for own in listed if own.port is not None}
        if isinstance(target, str):
            own_ports = (own for endpoint in self._selected(service) for own in endpoint.ports)
            found |= {own.port for own in own_ports if (own.name, own.protocol) == (target, protocol)}
        return found

    def _selected(self, service: Service) -> Iterator[Workload]:
        """A service without a selector selects nobody: its slices are written by hand."""
        selector = service.spec.selector.items()
        for endpoint in self.workloads.get(service.metadata.namespace or "", ()) if selector else ():
            if selector <= dict(endpoint.labels).items():
                yield endpoint
