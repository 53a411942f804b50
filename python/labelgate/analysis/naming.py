"""Names for groups: endpoints by the labels that pick just them, addresses by who has them or by nets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import combinations

from labelgate.analysis.addresses import (
    IPV4,
    IPV6,
    Network,
    contains,
    edges_of_networks,
    everything,
    numbers,
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
        self._owners: dict[int, dict[int, list[str]]] = {IPV4: {}, IPV6: {}}
        for found in (one for snapshot in snapshots for one in endpoints_of(snapshot)):
            for address in map(ip_address, found.addresses):
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
        found = set(pool)
        for trait in traits:
            found &= self._with[trait]
        return found

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
        options = [
            (traits, found)
            for traits in self._trait_sets(wanted)
            if (found := self._having(traits, pool)) and found <= wanted
        ]
        while rest and len(cover) < _LISTED and options:
            traits, found = max(options, key=lambda option: (len(option[1] & rest), -len(option[0])))
            if len(found & rest) < 2:
                return None
            cover.append(traits)
            rest -= found
        return cover if not rest else None

    def _trait_sets(self, wanted: frozenset[str]) -> Iterator[tuple[Trait, ...]]:
        """Single traits, and a label within a namespace, that some of them have."""
        known = {self.endpoints[name].traits for name in wanted if name in self.endpoints}
        seen = set[tuple[Trait, ...]]()
        for traits in known:
            spaces = [trait for trait in traits if trait[0] == NAMESPACE]
            labels = sorted(trait for trait in traits if trait[0] != NAMESPACE)[:_COMMON_TRAITS]
            for found in [*((trait,) for trait in traits), *((a, b) for a in labels for b in spaces)]:
                if found not in seen:
                    seen.add(found)
                    yield found

    def owners_in(self, region: Region) -> list[str]:
        """The endpoints that have an address there, sorted."""
        found = set[str]()
        for family in region.families:
            owners = self._owners[family]
            addresses = sorted(owners)
            inside = contains(region.edges[family], points(family, addresses))
            found.update(
                name
                for address, has in zip(addresses, inside, strict=True)
                if has
                for name in owners[address]
            )
        return sorted(found)

    def peers(self, region: Region) -> str:
        """For example `pods app=web`, `10.9.0.0/16`, or `everywhere but pods app=db`."""
        if region == EVERYWHERE:
            return "everywhere"
        whole = _whole(region)
        rest = region.rest()
        if not rest.families:
            return _whole_text(whole)
        plain = self._parts(region)
        other = self._parts(rest)
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
        missing = self._parts(inside & region.rest())
        return f"{whole} but {_join(missing)}" if len(missing) <= _LISTED else None

    def _parts(self, region: Region) -> list[str]:
        """Nets, then the endpoints whose addresses are the rest."""
        owned = {family: points(family, sorted(self._owners[family])) for family in region.families}
        nets: list[str] = []
        names: set[str] = set()
        for net in region.networks:
            first, last = int(net.network_address), int(net.broadcast_address)
            span = points(net.version, (first, last))
            low = int(owned[net.version].searchsorted(span[0], side="left"))
            high = int(owned[net.version].searchsorted(span[1], side="right"))
            if high - low == net.num_addresses:
                for address in numbers(net.version, owned[net.version][low:high]):
                    names.update(self._owners[net.version][address])
            else:
                nets.append(_net_text(net))
        return [*nets, *([self.group(names)] if names else [])]


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
