"""One end of connections between workloads: the addresses that rules there tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import (
    IPV4,
    Edges,
    contains,
    edges_of_any,
    edges_of_networks,
    numbers,
    points,
)
from labelgate.analysis.judged import settled
from labelgate.analysis.partition import AddressClasses, Mask, rule_sets
from labelgate.analysis.program import AddressSet, Direction, Rule, set_of_edges
from labelgate.expect.scope import Scope, Service
from labelgate.expect.sides import Side
from labelgate.expect.world import World

Numbers = NDArray[np.intp]
Met = dict[Rule, set[int]]
"""Rules, each with the chains that it stands in."""


@dataclass(frozen=True)
class End:
    """The sources, or the destinations, of one family."""

    classes: AddressClasses
    asked: AddressSet
    unnamed: AddressSet
    """Those that are meant as addresses or networks, not as endpoints."""
    chains: dict[int, AddressSet]
    """The chains that some of `asked` meet, each with those."""
    named: dict[int, list[Side]]
    """Of each class endpoints that are meant, two at most."""
    rules: Met
    """Of `chains`, as far as they can match what is asked."""

    @cached_property
    def numbers(self) -> Numbers:
        """The classes that are asked about."""
        return np.flatnonzero(self.classes.members[self.asked])

    def meets(self, chains: Iterable[int]) -> Mask:
        """Which classes meet one of some chains."""
        found = np.zeros(len(self.classes), np.bool_)
        for chain in chains:
            found |= self.classes.members[self.chains[chain]]
        return found

    def sides(self, number: int) -> list[Side]:
        """Who stands for a class: endpoints that are meant, two at most, or its first address."""
        found = list(self.named.get(number, ()))
        if self.classes.members[self.unnamed][number]:
            (address,) = numbers(self.classes.family, self.classes.firsts[number : number + 1])
            found.append(Side.at((IPv4Address if self.classes.family == IPV4 else IPv6Address)(address)))
        return found


def both_ends(
    world: World, family: int, sources: Sequence[Side], destinations: Sequence[Side], service: Service
) -> tuple[End, End]:
    """Of sides of one family, one at least at each end."""
    edges = [edges_of_networks(family, (side.net for side in end)) for end in (sources, destinations)]
    scope = Scope(family, edges[0], edges[1], service)
    chains = [_chains(world, family, edges[0], "egress"), _chains(world, family, edges[1], "ingress")]
    rules = [_rules(world, scope, chains[0], "egress"), _rules(world, scope, chains[1], "ingress")]
    every = dict.fromkeys((*rules[0], *rules[1]))
    ends = []
    for at, sides in enumerate((sources, destinations)):
        unnamed = edges_of_networks(family, (side.net for side in sides if side.owner is None))
        asked = set_of_edges(family, edges[at]), set_of_edges(family, unnamed)
        told_apart = (found for rule in every for found in rule_sets((rule.source, rule.destination)[at]))
        classes = AddressClasses.of((*asked, *chains[at].values(), *told_apart), family)
        ends.append(End(classes, *asked, chains[at], _named(classes, sides), rules[at]))
    return ends[0], ends[1]


def _chains(world: World, family: int, asked: Edges, direction: Direction) -> dict[int, AddressSet]:
    """The chains that packets from, or to, some addresses meet, each with those addresses."""
    owned = world.owned(family)
    inside = contains(asked, owned.addresses)
    chains = (owned.egress if direction == "egress" else owned.ingress)[inside]
    found: dict[int, list[int]] = {}
    for chain, address in zip(chains.tolist(), numbers(family, owned.addresses[inside]), strict=True):
        found.setdefault(chain, []).append(address)
    return {
        chain: set_of_edges(family, edges_of_any(family, ((one, one) for one in addresses)))
        for chain, addresses in found.items()
    }


def _rules(world: World, scope: Scope, chains: Iterable[int], direction: Direction) -> Met:
    """The rules of some chains, and what is settled ahead of them, as far as they can match."""
    contents = world.contents(world.cluster)
    ahead = list(filter(scope.can_match, settled(world.settings, "workload", direction)))
    known: dict[int, list[Rule]] = {}
    found: Met = {}
    for chain in chains:
        at = contents.chains[chain]
        for number in (*(one for tier in at.tiers for one in tier.lists), *at.profiles):
            if number not in known:
                known[number] = list(filter(scope.can_match, contents.lists[number].rules))
            for rule in known[number]:
                found.setdefault(rule, set()).add(chain)
        for rule in ahead:
            found.setdefault(rule, set()).add(chain)
    return found


def _named(classes: AddressClasses, sides: Iterable[Side]) -> dict[int, list[Side]]:
    named = [side for side in sides if side.owner is not None]
    at = classes.class_of(points(classes.family, (int(side.address) for side in named)))
    found: dict[int, list[Side]] = {}
    for side, number in zip(named, at.tolist(), strict=True):
        known = found.setdefault(number, [])
        if len(known) < 2 and all(side.owner is not one.owner for one in known):
            known.append(side)
    return found
