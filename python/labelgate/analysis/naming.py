"""Names for groups: endpoints by the labels that pick just them, addresses by who has them or by nets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import nlargest, nsmallest
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import (
    IPV4,
    IPV6,
    Edges,
    Network,
    contains,
    edges_of_any,
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
Mask = NDArray[np.bool_]
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


read_address = lru_cache(1 << 16)(ip_address)
"""Most addresses are read several times: two states have them."""


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
        every = [found for one in snapshots for found in endpoints_of(one)]
        self.endpoints = {found.name: found for found in every}
        self._with: dict[Trait, set[str]] = {}
        self._of_kind: dict[str, set[str]] = {}
        for found in self.endpoints.values():
            self._of_kind.setdefault(found.kind, set()).add(found.name)
            for trait in found.traits:
                self._with.setdefault(trait, set()).add(found.name)
        self._most_covered = sum(nlargest(_LISTED, map(len, self._with.values())))
        self._told: dict[tuple[frozenset[str], str], str] = {}
        self._peers: dict[Region, str] = {}
        self._sets: dict[str, tuple[tuple[Trait, ...], ...]] = {}
        self._sorted_names = sorted(self.endpoints)
        self._owners = _owners(every, {name: at for at, name in enumerate(self._sorted_names)})

    @cached_property
    def owned(self) -> Region:
        """Every address that an endpoint has."""
        v4, v6 = (
            edges_of_any(family, ((one, one) for one in self._owners[family].addresses))
            for family in (IPV4, IPV6)
        )
        return Region(v4, v6)

    def addresses(self) -> dict[int, Edges]:
        """By IP version the addresses of all endpoints, as the last snapshot that has them says, sorted."""
        found: dict[int, set[int]] = {IPV4: set(), IPV6: set()}
        for endpoint in self.endpoints.values():
            for one in map(read_address, endpoint.addresses):
                found[one.version].add(int(one))
        return {family: points(family, sorted(some)) for family, some in found.items()}

    def group(self, names: Iterable[str], suffix: str = "") -> str:
        """For example `pods app=web in namespace shop`; one endpoint alone by its own name.

        Where several groups or names are listed each has the suffix.
        """
        wanted = frozenset(names)
        if len(wanted) == 1:
            return next(iter(wanted)) + suffix
        if (wanted, suffix) not in self._told:
            self._told[wanted, suffix] = self._group(wanted, suffix)
        return self._told[wanted, suffix]

    def _group(self, wanted: frozenset[str], suffix: str) -> str:
        kinds = {name.partition("/")[0] for name in wanted}
        pool = set().union(*(self._of_kind.get(kind, set()) for kind in kinds))
        noun = _noun(kinds)
        if wanted == pool:
            return f"all {noun}{suffix}"
        if traits := self._picks(wanted, pool):
            return f"{noun} {_words(traits)}{suffix}"
        if cover := self._cover(wanted, pool):
            return f"{noun} " + " or ".join(_words(traits) + suffix for traits in cover)
        listed = sorted(wanted)
        more = len(listed) - _LISTED
        named = ", ".join(name + suffix for name in listed[:_LISTED])
        return named + (f" and {more} more{suffix}" if more > 0 else "")

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
            traits, found = _most_of(rest, options)
            if len(found & rest) < 2:
                return None
            cover.append(traits)
            rest -= found
        return cover if not rest else None

    def _options(self, wanted: frozenset[str], pool: set[str]) -> list[_Option]:
        """Traits that nobody else has, with all who have them, largest first; none if too small."""
        if len(wanted) > self._most_covered:
            return []
        counts = Counter(chain.from_iterable(map(self._trait_sets, wanted)))
        if sum(nlargest(_LISTED, counts.values())) < len(wanted):
            return []
        options = [
            (traits, found)
            for traits, count in counts.items()
            if count > 1 and len(found := self._having(traits, pool)) == count
        ]
        return nsmallest(_MOST_OPTIONS, options, key=lambda option: (-len(option[1]), option[0]))

    def _trait_sets(self, name: str) -> tuple[tuple[Trait, ...], ...]:
        """Single traits of one, and its labels within its namespace."""
        if name not in self._sets:
            traits = self.endpoints[name].traits if name in self.endpoints else frozenset()
            spaces = [trait for trait in traits if trait[0] == NAMESPACE]
            shared = (trait for trait in traits if trait[0] != NAMESPACE and len(self._with[trait]) > 1)
            within = ((label, space) for label in sorted(shared)[:_COMMON_TRAITS] for space in spaces)
            self._sets[name] = (*((trait,) for trait in traits), *within)
        return self._sets[name]

    def owners_in(self, region: Region) -> list[str]:
        """The endpoints that have an address there, sorted."""
        found = np.zeros(len(self._sorted_names), np.bool_)
        for family in region.families:
            owned = self._owners[family]
            found |= owned.counts(contains(region.edges[family], owned.edges)) > 0
        return [self._sorted_names[at] for at in np.flatnonzero(found)]

    def peers(self, region: Region) -> str:
        """For example `pods app=web`, `10.9.0.0/16`, or `everywhere but pods app=db`."""
        if region not in self._peers:
            self._peers[region] = self._peers_told(region)
        return self._peers[region]

    def _peers_told(self, region: Region) -> str:
        if region == EVERYWHERE:
            return "everywhere"
        whole = _whole(region)
        rest = region.rest()
        if not rest.families:
            return _whole_text(whole)
        plain = self._parts(region)
        other = self._parts(rest, whole.families)
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
        nets, meant = list[str](), dict[int, Mask]()
        for family in region.families:
            texts, meant[family] = self._owners[family].split(family, region)
            nets += texts
        return [*nets, *self._owners_told(meant, families)]

    def _owners_told(self, meant: dict[int, Mask], families: Sequence[int]) -> Iterator[str]:
        """By name alone where all addresses of the families are meant, else with those that are.

        `meant` says of each address that somebody has whether it is.
        """
        here = {family: self._owners[family].counts(mask) for family, mask in meant.items()}
        count = len(self._sorted_names)
        is_told, is_whole = np.zeros(count, np.bool_), np.ones(count, np.bool_)
        for family, counts in here.items():
            is_told |= counts > 0
            is_whole &= (counts == 0) | (counts == self._owners[family].held)
        alone: dict[tuple[int, ...], list[int]] = {}
        for at in np.flatnonzero(is_told & ~is_whole).tolist():
            yield self._with_addresses(at, meant)
        for at in np.flatnonzero(is_told & is_whole).tolist():
            mine = tuple(family for family, counts in here.items() if counts[at])
            lacks = any(one not in mine and self._owners[one].held[at] for one in families)
            alone.setdefault(mine if lacks else (), []).append(at)
        for mine, owners in sorted(alone.items()):
            if mine and len(owners) == 1:
                yield self._with_addresses(owners[0], meant)
            else:
                suffix = "".join(f" (IPv{family} addresses)" for family in mine)
                yield self.group((self._sorted_names[at] for at in owners), suffix)

    def _with_addresses(self, owner: int, meant: dict[int, Mask]) -> str:
        found = (
            str(_address(family, number))
            for family, mask in sorted(meant.items())
            for number in self._owners[family].those_of(owner, mask)
        )
        return f"{self._sorted_names[owner]} ({', '.join(found)})"


_Option = tuple[tuple[Trait, ...], set[str]]


def _most_of(rest: set[str], options: Sequence[_Option]) -> _Option:
    """The option, of some sorted by size, that has most of the rest; of such one with the fewest traits."""
    best, most = options[0], (-1, 0)
    for option in options:
        if len(option[1]) < most[0]:
            break
        has = len(option[1] & rest), -len(option[0])
        if has > most:
            best, most = option, has
    return best


@dataclass(frozen=True)
class _Owners:
    """Every address of one family that an endpoint has, and who has it; endpoints are numbered by name."""

    addresses: list[int]
    """Sorted."""
    edges: Edges
    """The same as an array."""
    address_of: NDArray[np.intp]
    """Of each pair of an address and one who has it the place of the address; ascending."""
    owner_of: NDArray[np.intp]
    held: NDArray[np.intp]
    """By endpoint how many addresses it has."""

    def counts(self, chosen: Mask) -> NDArray[np.intp]:
        """By endpoint how many of the chosen addresses it has."""
        return np.bincount(self.owner_of[chosen[self.address_of]], minlength=len(self.held))

    def those_of(self, owner: int, chosen: Mask) -> list[int]:
        """Its chosen addresses."""
        places = self.address_of[self.owner_of == owner]
        return [self.addresses[at] for at in places if chosen[at]]

    def split(self, family: int, region: Region) -> tuple[list[str], Mask]:
        """The nets that are not all somebody's, and of each address whether it is in another one."""
        nets = [net for net in region.networks if net.version == family]
        first, last = (
            points(family, [int(getattr(net, end)) for net in nets])
            for end in ("network_address", "broadcast_address")
        )
        low, high = self.edges.searchsorted(first, side="left"), self.edges.searchsorted(last, side="right")
        steps, texts = np.zeros(len(self.addresses) + 1, np.intp), list[str]()
        for net, begin, end in zip(nets, low.tolist(), high.tolist(), strict=True):
            if end - begin == net.num_addresses:
                steps[begin] += 1
                steps[end] -= 1
            else:
                texts.append(_net_text(net))
        return texts, np.cumsum(steps[:-1]) > 0


def _owners(endpoints: Iterable[Named], numbers: Mapping[str, int]) -> dict[int, _Owners]:
    pairs: dict[int, set[tuple[int, int]]] = {IPV4: set(), IPV6: set()}
    for found in endpoints:
        for address in map(read_address, found.addresses):
            pairs[address.version].add((int(address), numbers[found.name]))
    owners: dict[int, _Owners] = {}
    for family, some in pairs.items():
        addresses = sorted({address for address, _ in some})
        place = {address: at for at, address in enumerate(addresses)}
        table = np.array(sorted((place[address], owner) for address, owner in some), np.intp).reshape(-1, 2)
        held = np.bincount(table[:, 1], minlength=len(numbers))
        owners[family] = _Owners(addresses, points(family, addresses), table[:, 0], table[:, 1], held)
    return owners


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
    labels = [f"{key}={value}" for key, value in traits if key != NAMESPACE]
    spaces = [f"in namespace {value}" for key, value in traits if key == NAMESPACE]
    return " ".join([*labels, *spaces])
