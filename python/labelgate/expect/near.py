"""Why not: the rules that would have decided as expected, and the criteria that the packet does not meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from labelgate.expect.judge import Answered, Direction, Passed
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
from labelgate.resources import DecidedBy

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
    """A rule that was expected to decide, and what it asks that the packet has not."""

    policy: str
    direction: Direction
    rule: int
    unmet: tuple[str, ...]
    """Empty: it matches, but another decides."""


def near_misses(world: World, answer: Answered, action: str) -> list[NearMiss]:
    """The rules with this action that miss by least, of the endpoint that decided, in their order."""
    found = [
        miss for miss, done in _rules(world, answer, answer.deciding[-1:]) if done == action and miss.unmet
    ]
    least = min((len(miss.unmet) for miss in found), default=0)
    return [miss for miss in found if len(miss.unmet) == least][:MOST]


def of_policy(world: World, answer: Answered, wanted: DecidedBy) -> list[NearMiss]:
    """The rules of one policy, or one of them, wherever on the way it applies."""
    found = (
        miss
        for miss, _ in _rules(world, answer, answer.steps)
        if miss.policy == wanted.policy
        and wanted.rule in (None, miss.rule)
        and wanted.direction in (None, miss.direction)
    )
    return list(dict.fromkeys(found))[:MOST]


def _rules(world: World, answer: Answered, asked: Iterable[Passed]) -> Iterator[tuple[NearMiss, str]]:
    """Every rule of the policies in force at the endpoints and stages of some steps, with its action."""
    cluster = _cluster(world)
    stages = dict.fromkeys((passed.step.endpoint, passed.step.stage, passed.direction) for passed in asked)
    for name, stage, direction in stages:
        endpoint = world.members.get(name or "")
        if not isinstance(endpoint, Endpoint):
            continue
        for _, policies in cluster.tiers_of(endpoint, _KINDS.get(stage, "normal"), direction):
            for policy in policies:
                for number, rule in enumerate(policy.rules[direction] if policy.in_force else ()):
                    unmet = _unmet(cluster, rule, answer.question.packet)
                    yield NearMiss(policy.full_name, direction, number, unmet), rule.action


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
