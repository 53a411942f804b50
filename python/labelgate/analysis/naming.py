"""Names for groups: endpoints by the labels that pick just them, addresses by who has them or by nets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nsmallest
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import combinations

import numpy as np

from labelgate.analysis.addresses import (
    IPV4,
    IPV6,
    Edges,
    Network,
    contains,
    edges_of_networks,
    everything,
    points,
)
from labelgate.analysis.regions import EVERYWHERE, Region
from labelgate.conversion import is_workload
from labelgate.snapshot import Snapshot

Trait = tuple[str, str]
"""A label, or (`NAMESPACE`, its name)."""
NAMESPACE = "\0namespace"
_LISTED = 3
_COMMON_TRAITS = 12
"""More labels that all of a group have are not tried together."""
_MOST_OPTIONS = 1000
"""Of what may be part of a cover the largest are tried."""


@dataclass(frozen=True)
class Named:
    """An endpoint as people tell it from others."""

    name: str
    """`Kind/namespace/name` or `Kind/name`."""
    traits: frozenset[Trait]
    addresses: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The first part of its name."""
        return self.name.partition("/")[0]


def endpoints_of(snapshot: Snapshot) -> Iterator[Named]:
    """Every endpoint of a snapshot."""
    for host in snapshot.host_endpoints:
        yield _named(host.key, host.metadata.labels, None, map(str, host.spec.expected_ips))
    for workload in snapshot.workload_endpoints:
        if workload.spec.ip_networks:
            addresses = [str(net.network_address) for net in workload.spec.ip_networks]
            yield _named(workload.key, workload.metadata.labels, workload.metadata.namespace, addresses)
    for pod in snapshot.pods:
        if is_workload(pod):
            ips = [str(found.ip) for found in pod.status.pod_ips] or [str(pod.status.pod_ip)]
            yield _named(pod.key, pod.metadata.labels, pod.metadata.namespace, ips)


def _named(name: str, labels: Mapping[str, str], namespace: str | None, addresses: Iterable[str]) -> Named:
    place = {(NAMESPACE, namespace)} if namespace else set()
    return Named(name, frozenset({*labels.items(), *place}), tuple(addresses))


class Names:
    """Words for sets of endpoints and of addresses, unambiguous among the endpoints that are known here."""

    def __init__(self, *snapshots: Snapshot) -> None:
        """Of several snapshots the last that has an endpoint says how it is named."""
        self.endpoints = {found.name: found for one in snapshots for found in endpoints_of(one)}
        self._with: dict[Trait, set[str]] = {}
        self._of_kind: dict[str, set[str]] = {}
        for found in self.endpoints.values():
            self._of_kind.setdefault(found.kind, set()).add(found.name)
            for trait in found.traits:
                self._with.setdefault(trait, set()).add(found.name)
        self._told: dict[frozenset[str], str] = {}
        self._owners: dict[int, dict[int, list[str]]] = {IPV4: {}, IPV6: {}}
        self._addresses: dict[str, set[tuple[int, int]]] = {}
        for found in (one for snapshot in snapshots for one in endpoints_of(snapshot)):
            for address in map(ip_address, found.addresses):
                self._addresses.setdefault(found.name, set()).add((address.version, int(address)))
                owners = self._owners[address.version].setdefault(int(address), [])
                if found.name not in owners:
                    owners.append(found.name)

    @cached_property
    def owned(self) -> Region:
        """Every address that an endpoint has."""
        v4, v6 = (
            edges_of_networks(family, [ip_network(_address(family, one)) for one in self._owners[family]])
            for family in (IPV4, IPV6)
        )
        return Region(v4, v6)

    def group(self, names: Iterable[str]) -> str:
        """For example `pods app=web in namespace shop`; one endpoint alone by its own name."""
        wanted = frozenset(names)
        if len(wanted) == 1:
            return next(iter(wanted))
        if wanted not in self._told:
            self._told[wanted] = self._group(wanted)
        return self._told[wanted]

    def _group(self, wanted: frozenset[str]) -> str:
        kinds = {name.partition("/")[0] for name in wanted}
        pool = set().union(*(self._of_kind.get(kind, set()) for kind in kinds))
        noun = _noun(kinds)
        if wanted == pool:
            return f"all {noun}"
        if traits := self._picks(wanted, pool):
            return f"{noun} {_words(traits)}"
        if cover := self._cover(wanted, pool):
            return f"{noun} " + " or ".join(map(_words, cover))
        listed = sorted(wanted)
        more = len(listed) - _LISTED
        return ", ".join(listed[:_LISTED]) + (f" and {more} more" if more > 0 else "")

    def _having(self, traits: Iterable[Trait], pool: set[str]) -> set[str]:
        """Works through as few as the rarest trait has."""
        return set.intersection(*sorted((pool, *(self._with[trait] for trait in traits)), key=len))

    def _picks(self, wanted: frozenset[str], pool: set[str]) -> tuple[Trait, ...] | None:
        """The fewest traits that just these have."""
        known = [self.endpoints[name].traits for name in wanted if name in self.endpoints]
        if len(known) < len(wanted):
            return None
        common = sorted(frozenset.intersection(*known))[:_COMMON_TRAITS]
        if self._having(common, pool) != wanted:
            return None
        for count in range(1, 4):
            for traits in combinations(common, count):
                if self._having(traits, pool) == wanted:
                    return traits
        return None

    def _cover(self, wanted: frozenset[str], pool: set[str]) -> list[tuple[Trait, ...]] | None:
        """At most three groups, each with one or two traits, that make up the set."""
        rest, cover = set(wanted), list[tuple[Trait, ...]]()
        options = self._options(wanted, pool)
        while rest and len(cover) < _LISTED and options:
            traits, found = max(options, key=lambda option: (len(option[1] & rest), -len(option[0])))
            if len(found & rest) < 2:
                return None
            cover.append(traits)
            rest -= found
        return cover if not rest else None

    def _options(self, wanted: frozenset[str], pool: set[str]) -> list[tuple[tuple[Trait, ...], set[str]]]:
        """Traits that nobody else has, with all who have them, largest first."""
        counts = Counter(found for name in wanted for found in self._trait_sets(name))
        options = [
            (traits, found)
            for traits, count in counts.items()
            if count > 1 and len(found := self._having(traits, pool)) == count
        ]
        return nsmallest(_MOST_OPTIONS, options, key=lambda option: (-len(option[1]), option[0]))

    def _trait_sets(self, name: str) -> Iterator[tuple[Trait, ...]]:
        """Single traits of one, and its labels within its namespace."""
        traits = self.endpoints[name].traits if name in self.endpoints else frozenset()
        spaces = [trait for trait in traits if trait[0] == NAMESPACE]
        shared = (trait for trait in traits if trait[0] != NAMESPACE and len(self._with[trait]) > 1)
        yield from ((trait,) for trait in traits)
        yield from ((label, space) for label in sorted(shared)[:_COMMON_TRAITS] for space in spaces)

    def owners_in(self, region: Region) -> list[str]:
        """The endpoints that have an address there, sorted."""
        found = set[str]()
        for family in region.families:
            addresses, edges = self._sorted[family]
            inside = contains(region.edges[family], edges)
            owners = self._owners[family]
            found.update(name for at in np.flatnonzero(inside) for name in owners[addresses[at]])
        return sorted(found)

    @cached_property
    def _sorted(self) -> dict[int, tuple[list[int], Edges]]:
        """Every address that an endpoint has, by family."""
        found = {family: sorted(owners) for family, owners in self._owners.items()}
        return {family: (addresses, points(family, addresses)) for family, addresses in found.items()}

    def peers(self, region: Region) -> str:
        """For example `pods app=web`, `10.9.0.0/16`, or `everywhere but pods app=db`."""
        if region == EVERYWHERE:
            return "everywhere"
        whole = _whole(region)
        rest = region.rest()
        if not rest.families:
            return _whole_text(whole)
        plain = self._parts(region)
        other = self._parts(rest, rest.families)
        if len(plain) <= _LISTED and len(plain) <= len(other):
            return _join(plain)
        if len(other) <= _LISTED and len(rest.networks) < len(region.networks):
            return f"{_whole_text(whole)} but {_join(other)}"
        return self._within_one_net(region) or _join(plain)

    def _within_one_net(self, region: Region) -> str | None:
        """For example `10.9.0.0/16 but 10.9.66.0/24`, where little is left out."""
        first, last = region.networks[0], region.networks[-1]
        if first.version != last.version:
            return None
        whole = first
        while int(last.broadcast_address) > int(whole.broadcast_address):
            whole = whole.supernet()
        inside = Region.of(whole.version, edges_of_networks(whole.version, [whole]))
        missing = self._parts(inside & region.rest(), (whole.version,))
        return f"{whole} but {_join(missing)}" if len(missing) <= _LISTED else None

    def _parts(self, region: Region, families: Sequence[int] = (IPV4, IPV6)) -> list[str]:
        """Nets, then the endpoints whose addresses are the rest; of other families nothing is meant."""
        nets: list[str] = []
        names: dict[str, set[tuple[int, int]]] = {}
        for net in region.networks:
            family, owners = net.version, self._owners[net.version]
            addresses, edges = self._sorted[family]
            first, last = points(family, (int(net.network_address), int(net.broadcast_address)))
            low = int(edges.searchsorted(first, side="left"))
            high = int(edges.searchsorted(last, side="right"))
            if high - low == net.num_addresses:
                for address in addresses[low:high]:
                    for name in owners[address]:
                        names.setdefault(name, set()).add((family, address))
            else:
                nets.append(_net_text(net))
        return [*nets, *self._owners_told(names, families)]

    def _owners_told(self, found: dict[str, set[tuple[int, int]]], families: Sequence[int]) -> Iterator[str]:
        """By name alone where all addresses of the families are meant, else with those that are."""
        alone: dict[tuple[int, ...], list[str]] = {}
        for name, here in sorted(found.items()):
            meant = tuple(sorted({family for family, _ in here}))
            if here == {one for one in self._addresses[name] if one[0] in meant}:
                lacks = any(one[0] in families and one[0] not in meant for one in self._addresses[name])
                alone.setdefault(meant if lacks else (), []).append(name)
            else:
                yield self._with_addresses(name, here)
        for meant, names in sorted(alone.items()):
            if meant and len(names) == 1:
                yield self._with_addresses(names[0], found[names[0]])
            else:
                yield self.group(names) + "".join(f" (IPv{family} addresses)" for family in meant)

    def _with_addresses(self, name: str, addresses: Iterable[tuple[int, int]]) -> str:
        return f"{name} ({', '.join(str(_address(*one)) for one in sorted(addresses))})"


def _address(family: int, number: int) -> IPv4Address | IPv6Address:
    return IPv4Address(number) if family == IPV4 else IPv6Address(number)


def _net_text(net: Network) -> str:
    return str(net.network_address) if net.num_addresses == 1 else str(net)


def _join(parts: Sequence[str]) -> str:
    more = len(parts) - _LISTED - 1
    if more <= 0:
        return ", ".join(parts)
    return ", ".join([*parts[:_LISTED], *parts[-1:]]) + f" and {more} more"


def _whole(region: Region) -> Region:
    """All addresses of the families that a region has some of."""
    return Region(*(everything(one) if one in region.families else None for one in (IPV4, IPV6)))


def _whole_text(whole: Region) -> str:
    if len(whole.families) == 2:
        return "everywhere"
    return "every IPv4 address" if IPV4 in whole.families else "every IPv6 address"


def _noun(kinds: set[str]) -> str:
    if kinds == {"Pod"}:
        return "pods"
    if kinds == {"HostEndpoint"}:
        return "host endpoints"
    return "endpoints" if "HostEndpoint" in kinds else "workloads"


def _words(traits: tuple[Trait, ...]) -> str:
    labels = [f"{key}={value}" if value else key for key, value in traits if key != NAMESPACE]
    spaces = [f"in namespace {value}" for key, value in traits if key == NAMESPACE]
    return " ".join([*labels, *spaces])
