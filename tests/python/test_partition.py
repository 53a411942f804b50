"""The partition of the packet space: every rule is constant on every cell, and no two cells could be one.

Packets of a small universe are enumerated and judged one by one, by a matcher that knows nothing of classes.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelgate.analysis.addresses import (
    combine,
    complement,
    contains,
    edges_of_ranges,
    numbers,
    points,
    ranges,
)
from labelgate.analysis.partition import Partition
from labelgate.analysis.program import Ports, PortSet, Rule, Side, set_of
from labelgate.analysis.services import WITH_PORTS, WITH_TYPES

FAMILY = st.sampled_from([4, 6])
ADDRESSES = range(8)
PORTS = (0, 1, 2, 3, 65535)
PROTOCOLS = (6, 17, 1, 47)
SERVICES = [
    *((protocol, sport, dport, False) for protocol in (6, 17) for sport in PORTS for dport in PORTS),
    *((1, 0, kind << 8 | code, False) for kind in (0, 8) for code in (0, 1)),
    *((protocol, 0, 0, True) for protocol in PROTOCOLS),
]


def sets(draw, family):
    chosen = draw(st.lists(st.sampled_from(ADDRESSES), max_size=4, unique=True))
    return tuple(sorted(chosen)), set_of(family, merged(sorted(chosen)))


def merged(addresses):
    found = []
    for address in addresses:
        if found and found[-1][1] == address - 1:
            found[-1] = (found[-1][0], address)
        else:
            found.append((address, address))
    return found


@st.composite
def sides(draw, family):
    """A side as the partition reads it, and as the matcher does: sets as tuples of addresses."""
    literal, criteria = {}, {}
    for name in ("in_sets", "not_in_sets"):
        found = [sets(draw, family) for _ in range(draw(st.integers(0, 2)))]
        literal[name], criteria[name] = [one for one, _ in found], tuple(one for _, one in found)
    for name in ("ports", "not_ports"):
        if draw(st.booleans()):
            low = draw(st.sampled_from([0, 1, 2]))
            spans = draw(st.sampled_from([(), ((low, low + 1),), ((low, low), (3, 3)), ((3, 65535),)]))
            addresses, one = sets(draw, family)
            protocol, port = draw(st.sampled_from([6, 17])), draw(st.sampled_from([1, 3]))
            named = (PortSet(((protocol, port, one),)),) if draw(st.booleans()) else ()
            criteria[name] = Ports(spans, named)
            literal[name] = (spans, [(protocol, port, addresses)] if named else [])
    return literal, Side(**criteria)


@st.composite
def rules(draw, family):
    maybe = lambda values: draw(st.sampled_from([None, None, *values]))  # noqa: E731
    source, destination = draw(sides(family)), draw(sides(family))
    fields = {
        "protocol": maybe(PROTOCOLS),
        "not_protocol": maybe(PROTOCOLS),
        "icmp": maybe([(8, None), (8, 1)]),
        "not_icmp": maybe([(8, None), (0, 0)]),
    }
    return (fields, source[0], destination[0]), Rule(
        draw(st.sampled_from(["Allow", "Deny"])), **fields, source=source[1], destination=destination[1]
    )


def matches(literal, packet):
    """M-1..M-33, of one packet."""
    fields, source, destination = literal
    src, dst, protocol, sport, dport, fragment = packet
    ports = (sport, dport) if protocol in WITH_PORTS and not fragment else (None, None)
    kind = (dport >> 8, dport & 255) if protocol in WITH_TYPES and not fragment else None
    of = lambda icmp: kind[0] == icmp[0] and icmp[1] in (None, kind[1])  # noqa: E731
    return (
        fields["protocol"] in (None, protocol)
        and fields["not_protocol"] != protocol
        and (fields["icmp"] is None or (kind is not None and of(fields["icmp"])))
        and (fields["not_icmp"] is None or (kind is not None and not of(fields["not_icmp"])))
        and side_matches(source, src, protocol, ports[0])
        and side_matches(destination, dst, protocol, ports[1])
    )


def side_matches(side, address, protocol, port):
    def holds(match):
        spans, named = match
        return port is not None and (
            any(first <= port <= last for first, last in spans)
            or any((protocol, port) == one[:2] and address in one[2] for one in named)
        )

    if not all(address in one for one in side["in_sets"]) or any(
        address in one for one in side["not_in_sets"]
    ):
        return False
    if "ports" in side and not holds(side["ports"]):
        return False
    if "not_ports" not in side:
        return True
    return not (side["not_ports"][0] and port is None) and not holds(side["not_ports"])


def cell_of(partition, packet):
    src, dst, *service = packet
    return (
        int(partition.sources.class_of(points(partition.family, [src]))[0]),
        int(partition.destinations.class_of(points(partition.family, [dst]))[0]),
        service_of(partition, *service),
    )


def service_of(partition, protocol, sport, dport, fragment):
    opaque = fragment or protocol not in WITH_PORTS + WITH_TYPES
    found = [
        number
        for number, pieces in enumerate(partition.services.pieces)
        for piece in pieces
        if protocol in piece.protocols
        and piece.is_opaque == opaque
        and (opaque or protocol in WITH_TYPES or piece.sports[0] <= sport <= piece.sports[1])
        and (opaque or piece.dports[0] <= dport <= piece.dports[1])
    ]
    assert len(found) == 1, "pieces are disjoint and leave nothing out"
    return found[0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_rule_matches_all_packets_of_a_cell_or_none(data):
    family = data.draw(FAMILY)
    drawn = data.draw(st.lists(rules(family), min_size=1, max_size=4))
    partition = Partition.of([rule for _, rule in drawn], family)
    known = [partition.matches(rule) for _, rule in drawn]
    cells = {service: service_of(partition, *service) for service in SERVICES}
    of = [int(found) for found in partition.sources.class_of(points(family, ADDRESSES))]
    to = [int(found) for found in partition.destinations.class_of(points(family, ADDRESSES))]
    for src, dst, service in product(ADDRESSES[::2], ADDRESSES, SERVICES):
        for (literal, _), found in zip(drawn, known, strict=True):
            assert found[of[src], to[dst], cells[service]] == matches(literal, (src, dst, *service))
    # Representatives lie in their own cells.
    packets = partition.packets()
    for place in np.linspace(0, len(packets) - 1, 5).astype(int):
        raw = [packets.src[place], packets.dst[place]]
        src, dst = (int(one) if family == 4 else int.from_bytes(one.tobytes(), "big") for one in raw)
        packet = (
            src, dst, int(packets.protocol[place]), int(packets.sport[place]), int(packets.dport[place]),
            bool(packets.fragment[place]),
        )  # fmt: skip
        assert cell_of(partition, packet) == np.unravel_index(place, partition.shape)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_two_classes_of_addresses_could_be_one(data):
    drawn = data.draw(st.lists(rules(4), min_size=1, max_size=3))
    partition = Partition.of([rule for _, rule in drawn], 4)
    for classes in (partition.sources, partition.destinations):
        rows = np.array(list(classes.members.values()), np.bool_).reshape(-1, len(classes)).T
        assert len({row.tobytes() for row in rows}) == len(classes)


def test_rules_of_the_other_family_cut_nothing():
    inner = Side((set_of(6, [(0, 5)]),))
    rule = Rule("Allow", source=inner, families=(False, True))
    assert Partition.of([rule], 4).shape == (1, 1, 1)
    assert Partition.of([rule], 6).shape == (2, 1, 1)


@pytest.mark.parametrize("family", [4, 6])
def test_edges_are_sets_of_addresses(family):
    top = (1 << (32 if family == 4 else 128)) - 1
    some = edges_of_ranges(family, [(0, 3), (256, 511), (top - 1, top)])
    assert list(ranges(family, some)) == [(0, 3), (256, 511), (top - 1, top)]
    assert list(ranges(family, complement(some))) == [(4, 255), (512, top - 2)]
    assert complement(complement(some)).tolist() == some.tolist()
    asked = [0, 3, 4, 255, 256, 511, 512, top]
    assert contains(some, points(family, asked)).tolist() == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    other = edges_of_ranges(family, [(2, 300)])
    assert list(ranges(family, combine(some, other, np.logical_and))) == [(2, 3), (256, 300)]
    assert numbers(family, combine(some, complement(some), np.logical_or)) == [0]
