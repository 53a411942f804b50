"""Remarks on untracked policy whose two directions do not fit together (E-61)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.lint.coverage import ALLOW, FAMILIES, UNDECIDED, Budget, Walk, contents_of
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.lint.written import written_rules
from labelgate.analysis.partition import Mask, Partition
from labelgate.analysis.program import (
    Endpoint,
    Ports,
    ProgramContents,
    Rule,
    RuleList,
    Side,
    set_of,
)
from labelgate.flow import ICMP, ICMPV6, SCTP, TCP, UDP
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource

USUAL_SOURCE_PORT = 40000
"""For examples, where it is in the class."""


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG401; of each rule once, with the first host endpoint that it concerns."""
    if not any("untracked" in policy.lists for policy in selection.policies):
        return
    contents, budget = contents_of(selection.snapshot, selection.settings), Budget()
    told: set[tuple[str, Path]] = set()
    for endpoint in contents.endpoints:
        for family in FAMILIES if endpoint.untracked else ():
            for remark in _endpoint(selection, contents, endpoint, family, budget):
                if (remark.resource.key, remark.path) not in told:
                    told.add((remark.resource.key, remark.path))
                    yield remark


def _endpoint(
    selection: Selection, contents: ProgramContents, endpoint: Endpoint, family: int, budget: Budget
) -> Iterator[Remark]:
    """Egress rules are seen from the other end, so that a packet and the reply to it are one cell."""
    assert endpoint.untracked is not None
    ingress, egress = endpoint.untracked
    turned = [_turned_list(found) for found in contents.lists]
    own = _own(endpoint, family)
    failsafes = list(_failsafes(selection, family))
    rules = [*contents.chain_rules(ingress), *(_turned(rule) for rule in contents.chain_rules(egress))]
    partition = Partition.of([*rules, *failsafes, *([own] if own else [])], family)
    if not budget.takes(partition, len(rules)):
        return
    asked = ~np.isin(partition.services.samples["protocol"], (ICMP, ICMPV6))
    cells = np.broadcast_to(asked, partition.shape).copy()
    for failsafe in failsafes:
        cells &= ~partition.matches(failsafe)
    if own:
        cells &= partition.matches(own)
    there = Walk.of(partition, contents.lists, contents.chains[ingress])
    back = Walk.of(partition, turned, contents.chains[egress])
    for walk, other, direction in ((there, back, "egress"), (back, there, "ingress")):
        for resource, path, lost in _lost(selection, contents, walk, other, cells, own is None):
            example = _example(partition, lost, direction)
            text = (
                f"at {endpoint.name} untracked {direction} policy does not allow the replies, such as"
                f" {example}: they are tracked, look like new connections, and meet normal policy (E-61)"
            )
            yield Remark(
                "LG401", resource, path, text, f"allow the replies in {direction} of untracked policy"
            )


def _lost(
    selection: Selection, contents: ProgramContents, walk: Walk, other: Walk, cells: Mask, is_anywhere: bool
) -> Iterator[tuple[Resource, Path, Mask]]:
    """Rules that allow what is not allowed back.

    What a rule of the other direction denies is meant so, unless nothing is left then. Where the own address
    is not known, a rule counts only if nothing of it is allowed back.
    """
    allowed, open_ = other.decided == ALLOW, other.decided == UNDECIDED
    for passed in walk.passed:
        found = contents.lists[passed.name[0]]
        resource, place = selection.resources.get(found.policy), found.numbers[passed.name[1]]
        if passed.rule.action != "Allow" or resource is None or place is None:
            continue
        wanted = passed.reached & cells
        is_answered = bool((wanted & allowed).any())
        lost = wanted & open_ if is_answered else wanted
        if lost.any() and not (is_anywhere and is_answered):
            yield resource, written_rules(resource, found.direction)[place], lost


def _example(partition: Partition, lost: Mask, direction: str) -> str:
    """A reply to a packet of one cell, with a usual port if there is one in it."""
    cell = tuple(int(number) for number in np.argwhere(lost)[0])
    packets = partition.packets(*(np.array([number]) for number in cell))

    def address(column: NDArray[Any]) -> str:
        return str(ip_address(int(column[0]) if partition.family == 4 else bytes(column[0])))

    pieces = partition.services.pieces[cell[2]]
    usual = (
        one for one in pieces if not one.is_opaque and one.sports[0] <= USUAL_SOURCE_PORT <= one.sports[1]
    )
    piece = next(usual, pieces[0])
    protocol, remote, own = min(piece.protocols), address(packets.src), address(packets.dst)
    if not piece.is_opaque:
        first, last = piece.sports
        remote += f" port {USUAL_SOURCE_PORT if first <= USUAL_SOURCE_PORT <= last else first}"
        own += f" port {piece.dports[0]}"
    name = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}.get(protocol, f"protocol {protocol}")
    return f"{name} {own} to {remote}" if direction == "egress" else f"{name} {remote} to {own}"


def _turned(rule: Rule) -> Rule:
    return replace(rule, source=rule.destination, destination=rule.source)


def _turned_list(found: RuleList) -> RuleList:
    return replace(found, rules=tuple(map(_turned, found.rules)))


def _own(endpoint: Endpoint, family: int) -> Rule | None:
    """Packets to the endpoint's own addresses; None if it names none."""
    found = sorted({int(one) for one in map(ip_address, endpoint.addresses) if one.version == family})
    if not endpoint.addresses:
        return None
    merged: list[tuple[int, int]] = []
    for number in found:
        if merged and merged[-1][1] == number - 1:
            merged[-1] = merged[-1][0], number
        else:
            merged.append((number, number))
    return Rule("Allow", destination=Side((set_of(family, merged),)))


def _failsafes(selection: Selection, family: int) -> Iterator[Rule]:
    """E-43: what failsafes take in either direction, as packets to the endpoint."""
    settings = selection.settings
    listed = [(one, False) for one in settings.failsafe_inbound]
    listed += [(one, True) for one in settings.failsafe_outbound]
    for entry, is_outbound in listed:
        if entry.net is not None and entry.net.version != family:
            continue
        net = entry.net and set_of(
            family, [(int(entry.net.network_address), int(entry.net.broadcast_address))]
        )
        ports, remote = Ports(((entry.port, entry.port),)), (net,) if net else ()
        source = Side(remote, ports=ports) if is_outbound else Side(remote)
        destination = Side() if is_outbound else Side(ports=ports)
        yield Rule("Allow", entry.protocol, source=source, destination=destination)
