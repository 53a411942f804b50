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
from labelgate.analysis.lint.coverage import ALLOW, FAMILIES, SPLIT, UNDECIDED, Passed, Steps, Walk
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.parts import Box, Budget, Part, parts
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.partition import Mask, Partition
from labelgate.analysis.program import Chain, Endpoint, ProgramContents, Rule, RuleList
from labelgate.conversion import written_rules
from labelgate.flow import ICMP, ICMPV6, SCTP, TCP, UDP
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource
from labelgate.settings import Settings

_LEFT_OUT = (Rule("Allow", protocol=ICMP), Rule("Allow", protocol=ICMPV6))
"""Told apart from all others, whatever rules ask."""
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
            judged = _judged(contents, turned, endpoints[0], failsafes, family, budget)
            if judged is None:
                found = _unjudged(selection, contents, chains)
            else:
                found = _endpoints(selection, contents, judged, endpoints)
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

    there: Walk
    back: Walk
    """Egress rules, seen from the other end."""
    cells: Mask
    """What is asked about."""

    @classmethod
    def of(cls, part: Part, there: Steps, back: Steps, failsafes: Sequence[Rule]) -> _Judged:
        """Of packets that are cut by the rules of both, and by failsafes."""
        partition = part.partition
        asked = ~np.isin(partition.services.samples["protocol"], (ICMP, ICMPV6))
        cells = np.broadcast_to(asked, partition.shape).copy()
        for failsafe in failsafes:
            box = Box.of(partition, failsafe)
            box.paint(cells, box.inside, False)
        return cls(Walk.of(part, there), Walk.of(part, back, len(there.rules)), cells)

    def of_endpoint(self, own: dict[int, int] | None) -> _Judged:
        """About packets to some classes of addresses."""
        if own is None:
            return self
        is_own = np.isin(np.arange(self.cells.shape[1]), list(own))
        return replace(self, cells=self.cells & is_own[None, :, None])


def _judged(
    contents: ProgramContents,
    turned: Sequence[RuleList],
    endpoint: Endpoint,
    failsafes: Sequence[Rule],
    family: int,
    budget: Budget,
) -> list[_Judged] | None:
    """Those of all packets of a family; None: over budget."""
    assert endpoint.untracked is not None
    ingress, egress = (contents.chains[number] for number in endpoint.untracked)
    there, back = Steps.of(ingress, contents.lists), Steps.of(egress, turned)
    found = parts([*there.rules, *back.rules], family, budget, [*failsafes, *_LEFT_OUT])
    return None if found is None else [_Judged.of(part, there, back, failsafes) for part in found]


def _endpoints(
    selection: Selection, contents: ProgramContents, judged: Sequence[_Judged], endpoints: Sequence[Endpoint]
) -> Iterator[Remark]:
    """Endpoints whose addresses lie in the same classes are answered alike: the first one is told of."""
    seen: set[tuple[frozenset[int], ...] | None] = set()
    for endpoint in endpoints:
        own = [_own(endpoint, one.there.partition) for one in judged]
        classes = tuple(frozenset(one) for one in own if one is not None) or None
        if classes not in seen:
            seen.add(classes)
            yield from _endpoint(selection, contents, judged, endpoint, own)


def _endpoint(
    selection: Selection,
    contents: ProgramContents,
    judged: Sequence[_Judged],
    endpoint: Endpoint,
    own: Sequence[dict[int, int] | None],
) -> Iterator[Remark]:
    asked = [one.of_endpoint(classes) for one, classes in zip(judged, own, strict=True)]
    for direction in ("egress", "ingress"):
        for resource, path, at, lost in _lost(selection, contents, asked, direction, not endpoint.addresses):
            example = _example(asked[at].there.partition, lost, direction, own[at])
            text = (
                f"at {endpoint.name} untracked {direction} policy does not allow the replies, such as"
                f" {example}: they are tracked, look like new connections, and meet normal policy (E-61)"
            )
            yield Remark(
                "LG401", resource, path, text, f"allow the replies in {direction} of untracked policy"
            )


def _lost(
    selection: Selection,
    contents: ProgramContents,
    asked: Sequence[_Judged],
    direction: str,
    is_anywhere: bool,
) -> Iterator[tuple[Resource, Path, int, Mask]]:
    """Rules that allow what the other direction does not allow back; where some of it is, and what.

    What a rule of the other direction denies is meant so, unless nothing is left then. Where the own address
    is not known, a rule counts only if nothing of it is allowed back.
    """
    allowing: dict[int, list[tuple[int, Passed, Walk]]] = {}
    for at, one in enumerate(asked):
        walk, other = (one.there, one.back) if direction == "egress" else (one.back, one.there)
        for passed in walk.passed:
            if passed.rule.action == "Allow":
                allowing.setdefault(passed.place, []).append((at, passed, other))
    for _, several in sorted(allowing.items()):
        index, at_rule = several[0][1].name
        found = contents.lists[index]
        resource, place = selection.resources.get(found.policy), found.numbers[at_rule]
        if resource is None or place is None:
            continue
        wanted = [
            (at, one.box, one.reached & asked[at].cells[one.box.index], other) for at, one, other in several
        ]
        is_answered = any(
            (cells & (other.decided[box.index] == ALLOW)).any() for _, box, cells, other in wanted
        )
        if is_answered and is_anywhere:
            continue
        for at, box, cells, other in wanted:
            lost = cells & (other.decided[box.index] == UNDECIDED) if is_answered else cells
            if lost.any():
                where = np.zeros(asked[at].cells.shape, np.bool_)
                box.paint(where, lost, True)
                yield resource, written_rules(resource, found.direction)[place], at, where
                break


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
