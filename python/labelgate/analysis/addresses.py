"""Sets of addresses as sorted edges: where membership changes, going up from address 0.

Address `x` is in the set if the number of edges at or below `x` is odd. Equal sets have equal edges. IPv4
edges are uint64, IPv6 edges are 16 bytes in network order (`S16`), which numpy sorts as numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
    summarize_address_range,
)
from typing import Any

import numpy as np
from numpy.typing import NDArray

IPV4, IPV6 = 4, 6
Edges = NDArray[Any]
Network = IPv4Network | IPv6Network

_DTYPE = {IPV4: np.dtype(np.uint64), IPV6: np.dtype("S16")}
_BITS = {IPV4: 32, IPV6: 128}


def points(family: int, numbers: Iterable[int]) -> Edges:
    """Addresses as an array of the family's dtype."""
    if family == IPV4:
        return np.array(list(numbers), np.uint64)
    return np.array([number.to_bytes(16, "big") for number in numbers], "S16")


def numbers(family: int, edges: Edges) -> list[int]:
    """What `points` was given."""
    if family == IPV4:
        return [int(edge) for edge in edges]
    # numpy strips zero bytes at the end.
    return [int.from_bytes(bytes(edge).ljust(16, b"\0"), "big") for edge in edges]


def from_bytes(family: int, edges: bytes) -> Edges:
    """Edges as the core writes them, one behind the other; read-only."""
    return np.frombuffer(edges, _DTYPE[family])


def edges_of_ranges(family: int, ranges: Sequence[Sequence[int]]) -> Edges:
    """Of sorted ranges with inclusive ends that neither overlap nor touch."""
    if family == IPV4:
        pairs = np.array(ranges, np.uint64).reshape(-1, 2)
        pairs[:, 1] += 1
        flat = pairs.reshape(-1)
        return flat[:-1] if flat.size and flat[-1] == 1 << 32 else flat
    flat_numbers = [number for first, last in ranges for number in (first, last + 1)]
    if flat_numbers and flat_numbers[-1] == 1 << 128:
        flat_numbers.pop()
    return points(IPV6, flat_numbers)


def edges_of_networks(family: int, networks: Iterable[Network]) -> Edges:
    """Of the nets of that family; they may overlap."""
    return edges_of_any(
        family,
        ((int(net.network_address), int(net.broadcast_address)) for net in networks if net.version == family),
    )


def edges_of_any(family: int, unsorted: Iterable[tuple[int, int]]) -> Edges:
    """Of ranges with inclusive ends, in any order; they may overlap."""
    found = sorted(unsorted)
    ranges: list[list[int]] = []
    for first, last in found:
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1][1] = max(ranges[-1][1], last)
        else:
            ranges.append([first, last])
    return edges_of_ranges(family, ranges)


def none(family: int) -> Edges:
    """The edges of no address."""
    return np.empty(0, _DTYPE[family])


def everything(family: int) -> Edges:
    """The edges of all addresses."""
    return np.zeros(1, _DTYPE[family])


def contains(edges: Edges, addresses: Edges) -> NDArray[np.bool_]:
    """Of each address whether it is in the set."""
    return (np.searchsorted(edges, addresses, side="right") & 1).astype(np.bool_)


def distinct_edges(several: Sequence[Edges]) -> Edges:
    """All of them, sorted; `np.unique` takes several times as long for few."""
    found = np.sort(np.concatenate(several))
    is_first = np.ones(len(found), np.bool_)
    np.not_equal(found[1:], found[:-1], out=is_first[1:])
    return found[is_first]


def edges_where(starts: Edges, members: NDArray[np.bool_]) -> Edges:
    """Of intervals that begin at `starts` (sorted, the first at 0) and end where the next begins."""
    before = np.concatenate(([False], members[:-1]))
    edges: Edges = starts[members != before]
    return edges


def complement(edges: Edges) -> Edges:
    """All addresses that are not in the set."""
    zero = np.zeros(1, edges.dtype)
    return edges[1:] if edges.size and edges[0] == zero[0] else np.concatenate((zero, edges))


def combine(one: Edges, other: Edges, operation: np.ufunc) -> Edges:
    """Of membership in both sets: `np.logical_or` makes the union, `np.logical_and` the intersection."""
    starts = distinct_edges((np.zeros(1, one.dtype), one, other))
    return edges_where(starts, operation(contains(one, starts), contains(other, starts)))


def ranges(family: int, edges: Edges) -> Iterator[tuple[int, int]]:
    """The ranges of a set, ends inclusive."""
    found = numbers(family, edges)
    if len(found) % 2:
        found.append(1 << _BITS[family])
    for first, end in zip(found[::2], found[1::2], strict=True):
        yield first, end - 1


def networks(family: int, edges: Edges) -> Iterator[Network]:
    """The fewest nets that make up the set, sorted."""
    make = IPv4Address if family == IPV4 else IPv6Address
    for first, last in ranges(family, edges):
        yield from summarize_address_range(make(first), make(last))


def whole(family: int) -> Network:
    """`0.0.0.0/0` or `::/0`."""
    return ip_network("0.0.0.0/0" if family == IPV4 else "::/0")
