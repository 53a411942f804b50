"""Why not: the rules that would have decided as expected, and the criteria that the packet does not meet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from labelgate.expect.judge import Answered, Direction
from labelgate.expect.world import World
from labelgate.flow import Packet
from labelgate.reference.cluster import Cluster
from labelgate.reference.labels import Endpoint
from labelgate.reference.matching import (
    Side,
    exists_for,
    icmp_matches,
    nets_match,
    ports_match,
    protocol_matches,
    readable_ports,
    selectors_match,
    services_match,
)
from labelgate.reference.policies import Kind
from labelgate.reference.rules import Rule

MOST = 3
"""So many near misses are told of."""
_KINDS: dict[str, Kind] = {
    "untracked": "untracked",
    "prednat": "prednat",
    "from-hep": "forward",
    "to-hep": "forward",
}


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule with the action that was expected, and what it asks that the packet has not."""

    policy: str
    direction: Direction
    rule: int
    action: str
    unmet: tuple[str, ...]


def near_misses(world: World, answer: Answered, action: str) -> list[NearMiss]:
    """The rules of the deciding endpoint's policies with this action that miss by least, in their order."""
    passed = answer.deciding[-1] if answer.deciding else None
    endpoint = world.members.get((passed.step.endpoint if passed else None) or "")
    if passed is None or not isinstance(endpoint, Endpoint):
        return []
    cluster = _cluster(world)
    kind = _KINDS.get(passed.step.stage, "normal")
    found = [
        NearMiss(policy.full_name, passed.direction, number, action, unmet)
        for _, policies in cluster.tiers_of(endpoint, kind, passed.direction)
        for policy in policies
        if policy.in_force
        for number, rule in enumerate(policy.rules[passed.direction])
        if rule.action == action and (unmet := _unmet(cluster, rule, answer.question.packet))
    ]
    least = min((len(miss.unmet) for miss in found), default=0)
    return [miss for miss in found if len(miss.unmet) == least][:MOST]


@lru_cache(maxsize=4)
def _cluster(world: World) -> Cluster:
    return Cluster.of(world.snapshot, world.settings.workload_prefixes[0])


def _unmet(cluster: Cluster, rule: Rule, packet: Packet) -> tuple[str, ...]:
    source_port, destination_port = readable_ports(packet) or (None, None)
    source = Side(rule.source, packet.src, source_port)
    destination = Side(rule.destination, packet.dst, destination_port)
    criteria = [
        ("IP version", exists_for(rule, packet.src.version)),
        ("protocol", protocol_matches(rule, packet.protocol)),
        ("ICMP type", icmp_matches(rule, packet)),
        ("source net", nets_match(source)),
        ("source selector", selectors_match(source, cluster.members)),
        ("source port", ports_match(source, packet.protocol, cluster.members)),
        ("destination net", nets_match(destination)),
        ("destination selector", selectors_match(destination, cluster.members)),
        ("destination port", ports_match(destination, packet.protocol, cluster.members)),
        ("service", services_match((source, destination), packet.protocol, cluster.slices)),
    ]
    return tuple(name for name, holds in criteria if not holds)
