"""Networks and ranges of ports on their way through a node, cut where something there tells them apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import product

from labelgate.analysis.addresses import IPV4, edges_of_networks, numbers
from labelgate.analysis.judged import Kind, settled
from labelgate.analysis.partition import AddressClasses, rule_sets
from labelgate.analysis.program import AddressSet, Direction, Endpoint, Rule, set_of_edges
from labelgate.expect.scope import Scope, Service
from labelgate.expect.sides import Side
from labelgate.expect.world import World
from labelgate.path import Destination
from labelgate.reference.labels import IPNetwork
from labelgate.resources import Expectation, PolicyTest
from labelgate.table import DecisionTable

_EXEMPT = tuple(map(ip_network, ("fe80::/10", "::/128")))
"""What a workload may send from although it is not its own (E-30)."""
_LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
_KINDS: tuple[Kind, ...] = ("workload", "normal", "forward", "untracked", "preDNAT")
_DIRECTIONS: tuple[Direction, Direction] = ("ingress", "egress")
Pairs = Sequence[tuple[Side, Side]]


@dataclass(frozen=True)
class NodeCuts:
    """Of one family, for all ways through one node that an expectation asks about."""

    ports: Sequence[int | None]
    """One for each range that is told apart; None where the protocol has none."""
    _nets: Sequence[dict[IPNetwork, AddressSet]] = ()
    """Of sources, of destinations."""
    _classes: Sequence[AddressClasses] = ()

    @classmethod
    def of(
        cls,
        world: World,
        test: PolicyTest,
        expectation: Expectation,
        at: tuple[DecisionTable, str],
        pairs: Pairs,
        dnat: Destination | None,
    ) -> NodeCuts:
        """`pairs` are of this family."""
        points = Service.of(expectation).points
        if points is not None and all(side.is_single for pair in pairs for side in pair):
            return cls(points)
        table, node = at
        family, service = pairs[0][0].family, Service.of(expectation).translated(dnat)
        nets = [list(dict.fromkeys(pair[end].net for pair in pairs)) for end in (0, 1)]
        to = nets[1] if dnat is None else [*nets[1], ip_network(dnat.address)]
        scope = Scope(family, edges_of_networks(family, nets[0]), edges_of_networks(family, to), service)
        endpoints = list(_endpoints(world, table, expectation, pairs, dnat))
        rules = list(dict.fromkeys(filter(scope.can_match, _rules(world, table, endpoints))))
        services = Service.of(expectation).classes(
            (rule.destination.ports, rule.destination.not_ports) for rule in rules
        )
        own = _set(family, (*_own(world, test, node), *_LOOPBACK))
        sent_from = [_set(family, (*map(ip_network, one.sources), *_EXEMPT)) for one in endpoints]
        known = [{net: _set(family, [net]) for net in found} for found in nets]
        sources = [found for rule in rules for found in rule_sets(rule.source)]
        destinations = [found for rule in rules for found in rule_sets(rule.destination)]
        source = AddressClasses.of((own, *sent_from, *known[0].values(), *sources), family)
        destination = AddressClasses.of((own, *known[1].values(), *destinations), family)
        ports = services.samples["dport"].tolist() if service.dports else [None]
        return cls(ports, known, (source, destination))

    def pairs(self, source: Side, destination: Side) -> Iterator[tuple[Side, Side]]:
        """Single addresses of both, one for each that is told apart."""
        yield from product(self._cut(source, 0), self._cut(destination, 1))

    def _cut(self, side: Side, end: int) -> Iterator[Side]:
        if side.is_single:
            yield side
            return
        classes = self._classes[end]
        inside = classes.members[self._nets[end][side.net]]
        make = IPv4Address if classes.family == IPV4 else IPv6Address
        for number in numbers(classes.family, classes.firsts[inside]):
            yield Side.at(make(number))


def _set(family: int, nets: Iterable[IPNetwork]) -> AddressSet:
    return set_of_edges(family, edges_of_networks(family, nets))


def _own(world: World, test: PolicyTest, node: str) -> Iterator[IPNetwork]:
    """The addresses that are known to be a node's."""
    yield from (ip_network(found) for several in test.spec.interfaces.values() for found in several)
    yield from (net for host in world.hosts.values() if host.node == node for net in host.nets)


def _endpoints(
    world: World, table: DecisionTable, expectation: Expectation, pairs: Pairs, dnat: Destination | None
) -> Iterator[Endpoint]:
    """Whose policy may be met: host endpoints of the node, and workloads at the interfaces in question."""
    names = {side.owner.name for pair in pairs for side in pair if side.owner is not None}
    if dnat is not None:
        names.add(world.owners.get(str(dnat.address), ""))
    for one in world.contents(table).endpoints:
        is_asked = one.name in names or one.interface in (expectation.in_, expectation.out)
        if one.kind == "host" or is_asked:
            yield one


def _rules(world: World, table: DecisionTable, endpoints: Iterable[Endpoint]) -> Iterator[Rule]:
    """All that they may match, and what is settled ahead of it."""
    contents = world.contents(table)
    for kind, direction in product(_KINDS, _DIRECTIONS):
        yield from settled(table.settings, kind, direction)
    for one in endpoints:
        several = (one.normal, one.forward, one.untracked, (one.prednat,))
        for chain in dict.fromkeys(found for chains in several for found in chains or ()):
            if chain is not None:
                yield from contents.chain_rules(chain)
