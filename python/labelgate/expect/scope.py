"""The packets that an expectation asks about, and the rules that can match one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from labelgate.analysis.addresses import Edges, combine
from labelgate.analysis.program import AddressSet, Ports, Rule, Side
from labelgate.analysis.services import ServiceClasses
from labelgate.flow import TCP, UDPLITE
from labelgate.path import Destination
from labelgate.resources import Expectation
from labelgate.resources.values import WITH_PORTS

CLIENT_PORT = 49152
"""The source port where none is given: the first of those that clients use for a connection."""
_EVERY_PORT = ((1, 65535),)
PortCriteria = tuple[Ports | None, Ports | None]
"""`ports` and `not_ports` of a rule's destination."""


@dataclass(frozen=True, slots=True)
class Service:
    """What is asked beside addresses."""

    protocol: int
    sport: int
    dports: tuple[tuple[int, int], ...]
    """Ends inclusive; empty where the protocol has no ports."""
    icmp: int | None
    """`type << 8 | code`."""

    @classmethod
    def of(cls, expectation: Expectation) -> Service:
        """Where a protocol has ports and none is named, all are meant."""
        protocol = TCP if expectation.protocol is None else expectation.protocol
        named = tuple((ports.first, ports.last) for ports in expectation.port)
        ports = (named or _EVERY_PORT) if protocol in (*WITH_PORTS, UDPLITE) else ()
        icmp = expectation.icmp
        number = None if icmp is None or icmp.type is None else icmp.type << 8 | (icmp.code or 0)
        return cls(protocol, expectation.source_port or CLIENT_PORT, ports, number)

    @property
    def points(self) -> list[int | None] | None:
        """The ports, if each is named, or the one question where there are none; None: there are ranges."""
        if not self.dports:
            return [None]
        is_named = all(first == last for first, last in self.dports)
        return [*sorted({first for first, _ in self.dports})] if is_named else None

    def translated(self, dnat: Destination | None) -> Service:
        """With the port that DNAT gives it as well."""
        if dnat is None or dnat.port is None or not self.dports:
            return self
        return replace(self, dports=(*self.dports, (dnat.port, dnat.port)))

    def classes(self, criteria: Iterable[PortCriteria]) -> ServiceClasses:
        """The packets asked about, as far as these criteria tell them apart."""
        if not self.dports:
            return ServiceClasses.one(self.protocol, self.icmp)
        own = Ports(((self.sport, self.sport),)), Ports(self.dports)
        cuts = [Side(ports=ports, not_ports=not_ports) for ports, not_ports in criteria]
        found = ServiceClasses.of(
            [
                Rule("", self.protocol, source=Side(ports=own[0]), destination=Side(ports=own[1])),
                *(Rule("", self.protocol, destination=cut) for cut in cuts),
            ]
        )
        is_asked = found.in_ranges("source", own[0].ranges) & found.in_ranges("destination", own[1].ranges)
        return found.where(is_asked & found.is_protocol(self.protocol))

    def can_match(self, rule: Rule) -> bool:
        """Whether a rule may match one of these packets, by protocol and the destination's port."""
        if rule.protocol not in (None, self.protocol) or rule.not_protocol == self.protocol:
            return False
        ports = rule.destination.ports
        if ports is None:
            return True
        named = [(port, port) for one in ports.named for _, port, _ in one.members]
        ranges = [*ports.ranges, *named]
        return any(first <= high and low <= last for first, last in self.dports for low, high in ranges)


@dataclass(frozen=True)
class Scope:
    """Packets of one family from some addresses to some."""

    family: int
    sources: Edges
    destinations: Edges
    service: Service
    _known: dict[tuple[AddressSet, bool], bool] = field(default_factory=dict)

    def can_match(self, rule: Rule) -> bool:
        """Whether a rule may match one of these packets: rules that cannot tell none of them apart."""
        return (
            rule.exists_for(self.family)
            and self.service.can_match(rule)
            and all(self._meets(found, is_source=True) for found in rule.source.in_sets)
            and all(self._meets(found, is_source=False) for found in rule.destination.in_sets)
        )

    def _meets(self, found: AddressSet, *, is_source: bool) -> bool:
        key = found, is_source
        if key not in self._known:
            asked = self.sources if is_source else self.destinations
            edges = combine(found.edges(self.family), asked, cast("np.ufunc", np.logical_and))
            self._known[key] = bool(edges.size)
        return self._known[key]
