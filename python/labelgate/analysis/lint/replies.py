"""Remarks on untracked policy whose two directions do not fit together (E-61)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.addresses import points
from labelgate.analysis.failsafes import failsafe_rule
from labelgate.analysis.lint.coverage import ALLOW, FAMILIES, SPLIT, UNDECIDED, Budget, Walk
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.partition import Mask, Partition
from labelgate.analysis.program import Chain, Endpoint, ProgramContents, Rule, RuleList
from labelgate.conversion import written_rules
from labelgate.flow import ICMP, ICMPV6, SCTP, TCP, UDP
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource
from labelgate.settings import Settings

USUAL_SOURCE_PORT = 40000
"""For examples, where it is in the class."""


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG401; of each rule once, with the first host endpoint that it concerns; LG109 over budget."""
    if not any("untracked" in policy.lists for policy in selection.policies):
        return
    contents, budget = selection.contents, Budget()
    turned = [_turned_list(found) for found in contents.lists]
    told: set[tuple[str, str, Path]] = set()
    for (*chains, failsafes), endpoints in _alike(selection, contents).items():
        for family in FAMILIES:
            judged = _Judged.of(contents, turned, endpoints[0], failsafes, family, budget)
            found = (
                _endpoints(selection, judged, endpoints) if judged else _unjudged(selection, contents, chains)
            )
            for remark in found:
                key = (remark.rule, remark.resource.key, remark.path)
                if key not in told:
                    told.add(key)
                    yield remark


def _unjudged(selection: Selection, contents: ProgramContents, chains: Iterable[Chain]) -> Iterator[Remark]:
    """Of every policy of chains that were over budget."""
    numbers = dict.fromkeys(number for chain in chains for tier in chain.tiers for number in tier.lists)
    for policy in dict.fromkeys(contents.lists[number].policy for number in numbers):
        text = (
            "whether it allows the replies to what it allows (LG401) was not judged: too many packet classes"
        )
        yield Remark("LG109", selection.resources[policy], ("spec", "doNotTrack"), text, SPLIT)


def _alike(
    selection: Selection, contents: ProgramContents
) -> dict[tuple[Chain, Chain, tuple[Rule, ...]], list[Endpoint]]:
    """Host endpoints by their untracked chains and failsafe ports."""
    found: dict[tuple[Chain, Chain, tuple[Rule, ...]], list[Endpoint]] = {}
    for endpoint in contents.endpoints:
        if endpoint.untracked is not None:
            ingress, egress = (contents.chains[number] for number in endpoint.untracked)
            failsafes = tuple(_failsafes(selection.settings_at(endpoint.name)))
            found.setdefault((ingress, egress, failsafes), []).append(endpoint)
    return found


@dataclass(frozen=True, slots=True)
class _Judged:
    """Both untracked chains of some endpoints; a packet to one of them, and the reply to it, are one cell."""

    contents: ProgramContents
    there: Walk
    back: Walk
    """Egress rules, seen from the other end."""
    cells: Mask
    """What is asked about."""

    @classmethod
    def of(
        cls,
        contents: ProgramContents,
        turned: Sequence[RuleList],
        endpoint: Endpoint,
        failsafes: Sequence[Rule],
        family: int,
        budget: Budget,
    ) -> _Judged | None:
        """None: over budget."""
        assert endpoint.untracked is not None
        ingress, egress = endpoint.untracked
        rules = [*contents.chain_rules(ingress), *(_turned(rule) for rule in contents.chain_rules(egress))]
        partition = Partition.of([*rules, *failsafes], family)
        if not budget.takes(partition, len(rules)):
            return None
        asked = ~np.isin(partition.services.samples["protocol"], (ICMP, ICMPV6))
        cells = np.broadcast_to(asked, partition.shape).copy()
        for failsafe in failsafes:
            cells &= ~partition.matches(failsafe)
        there = Walk.of(partition, contents.lists, contents.chains[ingress])
        return cls(contents, there, Walk.of(partition, turned, contents.chains[egress]), cells)


def _endpoints(selection: Selection, judged: _Judged, endpoints: Sequence[Endpoint]) -> Iterator[Remark]:
    """Endpoints whose addresses lie in the same classes are answered alike: the first one is told of."""
    seen: set[frozenset[int] | None] = set()
    for endpoint in endpoints:
        own = _own(endpoint, judged.there.partition)
        classes = None if own is None else frozenset(own)
        if classes not in seen:
            seen.add(classes)
            yield from _endpoint(selection, judged, endpoint, own)


def _endpoint(
    selection: Selection, judged: _Judged, endpoint: Endpoint, own: dict[int, int] | None
) -> Iterator[Remark]:
    there, back, cells = judged.there, judged.back, judged.cells
    partition = there.partition
    if own is not None:
        cells = cells & np.isin(np.arange(partition.shape[1]), list(own))[None, :, None]
    for walk, other, direction in ((there, back, "egress"), (back, there, "ingress")):
        for resource, path, lost in _lost(selection, judged.contents, walk, other, cells, own is None):
            example = _example(partition, lost, direction, own)
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


def _example(partition: Partition, lost: Mask, direction: str, owned: dict[int, int] | None) -> str:
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
    if owned is not None:
        address_of = IPv4Address if partition.family == 4 else IPv6Address
        own = str(address_of(owned[cell[1]]))
    if not piece.is_opaque:
        remote += f" port {_usual(*piece.sports)}"
        own += f" port {_usual(*piece.dports)}"
    name = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}.get(protocol, f"protocol {protocol}")
    return f"{name} {own} to {remote}" if direction == "egress" else f"{name} {remote} to {own}"


def _usual(first: int, last: int) -> int:
    return USUAL_SOURCE_PORT if first <= USUAL_SOURCE_PORT <= last else max(first, min(1, last))


def _turned(rule: Rule) -> Rule:
    return replace(rule, source=rule.destination, destination=rule.source)


def _turned_list(found: RuleList) -> RuleList:
    return replace(found, rules=tuple(map(_turned, found.rules)))


def _own(endpoint: Endpoint, partition: Partition) -> dict[int, int] | None:
    """Of each class that own addresses of the endpoint lie in the smallest of them; None if it names none."""
    if not endpoint.addresses:
        return None
    family = partition.family
    own = sorted(
        (int(one) for one in map(ip_address, endpoint.addresses) if one.version == family), reverse=True
    )
    classes = partition.destinations.class_of(points(family, own))
    return dict(zip(classes.tolist(), own, strict=True))


def _failsafes(settings: Settings) -> Iterator[Rule]:
    """E-43: what failsafes take in either direction, as packets to the endpoint."""
    for entry in settings.failsafe_inbound:
        yield failsafe_rule(entry, "ingress")
    for entry in settings.failsafe_outbound:
        yield failsafe_rule(entry, "ingress", is_return=True)
