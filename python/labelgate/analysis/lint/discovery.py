"""Remarks on host endpoints that nobody finds: what becomes of IPv6 neighbour discovery there (E-53).

A packet passes untracked policy, then preDNAT policy, then normal policy or profiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network

from labelgate.analysis.addresses import IPV6
from labelgate.analysis.lint.coverage import SPLIT
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.hosts import default_denied
from labelgate.analysis.lint.messages import Message, cut
from labelgate.analysis.lint.parts import Budget
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.program import (
    AddressSet,
    Chain,
    Endpoint,
    ProgramContents,
    Rule,
    Side,
    set_of,
)
from labelgate.flow import ICMPV6
from labelgate.reference.policies import Direction

_GROUPS = IPv6Network("ff02::1:ff00:0/104")
"""Solicited-node multicast: whoever does not know a neighbour's link address yet asks there."""


def _set(net: IPv6Network) -> AddressSet:
    return set_of(IPV6, [(int(net.network_address), int(net.broadcast_address))])


_FROM_SOMEBODY = Side(not_in_sets=(_set(IPv6Network("ff00::/8")),))
_TO_GROUPS = Side((_set(_GROUPS),))
SOLICITATION = Rule("Allow", ICMPV6, None, (135, None), None, _FROM_SOMEBODY, _TO_GROUPS, (False, True))
ADVERTISEMENT = Rule("Allow", ICMPV6, None, (136, None), None, _FROM_SOMEBODY, families=(False, True))
_MESSAGES = (Message("solicitations", SOLICITATION), Message("advertisements", ADVERTISEMENT))


@dataclass(frozen=True, slots=True)
class _Way:
    """The chains that discovery passes at a host endpoint in one direction, in order."""

    direction: Direction
    chains: tuple[Chain, ...]


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG302; LG109 where it was too much to decide."""
    contents, budget = selection.contents, Budget()
    hosts = (host for host in selection.hosts if host.name not in selection.judged_apart)
    denied = {(host.name, way) for host in hosts for way in default_denied(selection, host)}
    known: dict[tuple[Chain, ...], list[Message] | None] = {}
    for endpoint in contents.endpoints:
        if endpoint.kind != "host" or _is_ipv4_only(endpoint):
            continue
        for way in _ways(contents, endpoint):
            if (endpoint.name, way.direction) in denied:
                continue  # LG301 tells of it.
            if way.chains not in known:
                known[way.chains] = cut(contents, way.chains, _MESSAGES, IPV6, budget)
            yield from _remark(selection, endpoint, way.direction, known[way.chains])


def _ways(contents: ProgramContents, endpoint: Endpoint) -> Iterator[_Way]:
    untracked = endpoint.untracked or (None, None)
    numbers: tuple[tuple[Direction, tuple[int | None, ...]], ...] = (
        ("ingress", (untracked[0], endpoint.prednat, endpoint.normal[0])),
        ("egress", (untracked[1], endpoint.normal[1])),
    )
    for direction, found in numbers:
        yield _Way(direction, tuple(contents.chains[number] for number in found if number is not None))


def _remark(
    selection: Selection, endpoint: Endpoint, direction: Direction, lost: list[Message] | None
) -> Iterator[Remark]:
    resource = selection.resources[endpoint.name]
    if lost is None:
        what = f"whether its {direction} policy lets neighbour discovery through (LG302)"
        text = f"{what} was not judged: too many packet classes"
        yield Remark("LG109", resource, (), text, SPLIT)
    elif lost:
        kinds = {"solicitations": f"135, to {_GROUPS}", "advertisements": "136"}
        listed = " and ".join(f"{one.word} ({kinds[one.word]})" for one in lost)
        text = (
            f"its {direction} policy lets no ICMPv6 neighbour {listed} through: by IPv6 it and its"
            " neighbours do not find each other (E-53)"
        )
        mend = f"allow protocol ICMPv6 in {direction}, types 135 and 136 at least"
        yield Remark("LG302", resource, (), text, mend)


def _is_ipv4_only(endpoint: Endpoint) -> bool:
    return bool(endpoint.addresses) and all(ip_network(one).version == 4 for one in endpoint.addresses)
