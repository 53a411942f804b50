"""Remarks on rules by what chains decide: shadowed, redundant, never met; order ties; what hosts lose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network

import numpy as np

from labelgate.analysis.addresses import IPV6
from labelgate.analysis.lint.coverage import (
    ALLOW,
    END_OF_TIER,
    UNDECIDED,
    Budget,
    Name,
    Walk,
    code_of,
    contents_of,
    walks,
    without,
)
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.selection import Selection, some
from labelgate.analysis.lint.written import chooses_by_label, written_rules
from labelgate.analysis.program import Endpoint, Ports, ProgramContents, Rule, Side, set_of
from labelgate.resources.errors import Path, path_text
from labelgate.resources.metadata import Resource
from labelgate.settings import Failsafe

SOLICITATION, ADVERTISEMENT = (
    Rule("Allow", protocol=58, icmp=(kind, None), families=(False, True)) for kind in (135, 136)
)


@dataclass(slots=True)
class _Fate:
    """What became of a rule in all chains that have it."""

    is_matchable: bool = False
    is_reached: bool = False
    is_undecided: bool = False
    """A chain that has it was over budget."""
    is_needed: bool = False
    """Somewhere something else would be decided without it."""
    is_contradicted: bool = False
    """Some of its packets were decided otherwise before it."""
    by: dict[str, None] = field(default_factory=dict)
    """Who decides before it, as words."""


@dataclass(frozen=True, slots=True)
class Chains:
    """All chains of a snapshot, and what they do to each rule."""

    selection: Selection
    contents: ProgramContents
    fates: dict[Name, _Fate] = field(default_factory=dict)

    def remarks(self) -> Iterator[Remark]:
        """LG101 to LG104, LG109, LG204, LG302, LG406."""
        budget, ties, hosts = Budget(), dict[tuple[str, str], Remark](), dict[object, Remark]()
        uses = self._uses()
        for number in range(len(self.contents.chains)):
            boundaries = [SOLICITATION, ADVERTISEMENT] if uses.get(number) else []
            for _, direction, has_failsafes in uses.get(number, ()):
                if has_failsafes:
                    boundaries += [rule for _, rule in self._failsafes(direction)]
            walked = walks(self.contents, number, budget, boundaries)
            self._note(number, walked)
            for walk in walked or ():
                for remark in self._ties(walk):
                    ties.setdefault((remark.resource.key, path_text(remark.path)), remark)
                for endpoint, direction, has_failsafes in uses.get(number, ()):
                    for remark in self._host(endpoint, direction, number, walk, has_failsafes):
                        hosts.setdefault((remark.rule, remark.resource.key, remark.path), remark)
        yield from self._rules()
        yield from ties.values()
        yield from hosts.values()

    def _uses(self) -> dict[int, list[tuple[Endpoint, str, bool]]]:
        """Of each chain the host endpoints that have it, and whether failsafes go before it (E-42)."""
        found: dict[int, list[tuple[Endpoint, str, bool]]] = {}
        for endpoint in self.contents.endpoints:
            if endpoint.kind != "host":
                continue
            for pair in (endpoint.normal, endpoint.untracked):
                for number, direction in zip(pair or (), ("ingress", "egress"), strict=False):
                    found.setdefault(number, []).append((endpoint, direction, True))
            if endpoint.prednat is not None:
                found.setdefault(endpoint.prednat, []).append((endpoint, "ingress", True))
        return found

    # --- rules that nobody needs -------------------------------------------------------------------------

    def _fate(self, name: Name) -> _Fate:
        return self.fates.setdefault(name, _Fate())

    def _note(self, number: int, walked: list[Walk] | None) -> None:
        if walked is None:
            chain = self.contents.chains[number]
            for index in (*(found for tier in chain.tiers for found in tier.lists), *chain.profiles):
                for place in range(len(self.contents.lists[index].rules)):
                    self._fate((index, place)).is_undecided = True
            return
        here: dict[Name, bool] = {}
        for walk in walked:
            for passed in walk.passed:
                fate = self._fate(passed.name)
                fate.is_matchable |= bool(passed.matched.any())
                here[passed.name] = here.get(passed.name, False) or bool(passed.reached.any())
                code = code_of(passed.rule)
                fate.is_contradicted |= code != UNDECIDED and not passed.before <= {code}
                fate.by |= dict.fromkeys(self._who(walk, by) for by in sorted(passed.by))
        dead = frozenset(name for name, is_reached in here.items() if not is_reached)
        needless = [{passed.name for passed in without(walk, dead)} for walk in walked]
        for walk, unneeded in zip(walked, needless, strict=True):
            for passed in walk.passed:
                fate = self._fate(passed.name)
                is_reached = bool(passed.reached.any())
                fate.is_reached |= is_reached
                fate.is_needed |= is_reached and passed.name not in unneeded

    def _who(self, walk: Walk, by: int) -> str:
        if by == END_OF_TIER:
            return "the end of an earlier tier"
        index, place = walk.passed[by].name
        found = self.contents.lists[index]
        resource = self.selection.resources.get(found.policy)
        number = found.numbers[place]
        if resource is None or number is None:
            return found.policy
        return f"{found.policy} {path_text(written_rules(resource, found.direction)[number])}"

    def _rules(self) -> Iterator[Remark]:
        for index, found in enumerate(self.contents.lists):
            resource = self.selection.resources.get(found.policy)
            if resource is None or found.policy.startswith("Profile/"):
                continue
            written = written_rules(resource, found.direction)
            units: dict[Path, list[_Fate]] = {}
            for place, number in enumerate(found.numbers):
                if number is not None and (index, place) in self.fates:
                    units.setdefault(written[number], []).append(self.fates[index, place])
            yield from self._units(resource, units, ("spec", found.direction))

    def _units(self, resource: Resource, units: dict[Path, list[_Fate]], path: Path) -> Iterator[Remark]:
        undecided = 0
        for where, fates in units.items():
            if any(fate.is_undecided and not fate.is_reached for fate in fates):
                undecided += 1
            elif not any(fate.is_undecided for fate in fates):
                yield from self._unit(resource, where, fates)
        if undecided:
            text = f"whether {undecided} of these rules are shadowed was not decided: too many packet classes"
            mend = (
                "split the policies of this chain by what they select; `labelgate diff` can tell what changes"
            )
            yield Remark("LG109", resource, path, text, mend)

    def _unit(self, resource: Resource, path: Path, fates: list[_Fate]) -> Iterator[Remark]:
        is_by_label = chooses_by_label(resource, path)
        where = " (with the endpoints in these files)" if is_by_label else ""
        by = list(dict.fromkeys(word for fate in fates for word in fate.by))
        if not any(fate.is_matchable for fate in fates):
            if is_by_label and not self.selection.members:
                return
            rule, text = (
                "LG104",
                "no packet can match it with the endpoints, sets and services in these files",
            )
            if not is_by_label:
                rule, text = "LG103", "its criteria contradict each other: no packet can match it (M-1)"
            yield Remark(
                rule, resource, path, text, "correct its criteria, load what they mean, or remove it"
            )
        elif not any(fate.is_reached for fate in fates):
            if any(fate.is_contradicted for fate in fates):
                text = f"all its packets are decided before by {some(by)}, some otherwise{where}"
                yield Remark(
                    "LG101", resource, path, text, "move it up, narrow what goes before, or remove it"
                )
            else:
                text = f"all its packets are decided before by {some(by)}, and the same{where}"
                yield Remark("LG102", resource, path, text, "remove it")
        elif not any(fate.is_needed for fate in fates):
            text = f"without it the rules that follow would decide the same{where}"
            yield Remark("LG102", resource, path, text, "remove it")

    # --- order ties (LG204) ------------------------------------------------------------------------------

    def _ties(self, walk: Walk) -> Iterator[Remark]:
        orders = self.selection.orders
        for first, end in walk.tiers:
            groups: dict[float, list[int]] = {}
            for place in range(first, end):
                policy = self.contents.lists[walk.passed[place].name[0]].policy
                if policy in orders and code_of(walk.passed[place].rule) != UNDECIDED:
                    groups.setdefault(orders[policy], []).append(place)
            for places in groups.values():
                if len({walk.passed[place].name[0] for place in places}) > 1:
                    yield from self._tied(walk, places)

    def _tied(self, walk: Walk, places: list[int]) -> Iterator[Remark]:
        """A policy that, before one of the same order, would decide some of its packets otherwise."""
        if len({code_of(walk.passed[place].rule) for place in places}) < 2:
            return
        lists: dict[int, list[int]] = {}
        for place in places:
            lists.setdefault(walk.passed[place].name[0], []).append(place)
        settled = np.full(walk.partition.shape, UNDECIDED, np.int8)
        owner = np.full(walk.partition.shape, -1, np.int32)
        for index, own in lists.items():
            mine = np.full(walk.partition.shape, UNDECIDED, np.int8)
            for place in reversed(own):
                mine[walk.passed[place].matched] = code_of(walk.passed[place].rule)
            differs = (settled != UNDECIDED) & (mine != UNDECIDED) & (mine != settled)
            if differs.any():
                other = self.contents.lists[int(owner[differs][0])].policy
                policy = self.contents.lists[index].policy
                text = (
                    f"it has the order of {other}, and decides some of the same packets otherwise: that"
                    " one goes first because of its name (E-5)"
                )
                resource = self.selection.resources[policy]
                yield Remark("LG204", resource, ("spec", "order"), text, "give each an `order` of its own")
            for place in own:
                reached = walk.passed[place].reached
                settled[reached] = code_of(walk.passed[place].rule)
                owner[reached] = index

    # --- hosts (LG302, LG406) ----------------------------------------------------------------------------

    def _failsafes(self, direction: str) -> Iterator[tuple[Failsafe, Rule]]:
        """The boundaries of E-41; the remote side is the source of ingress."""
        settings = self.selection.settings
        for entry in settings.failsafe_inbound if direction == "ingress" else settings.failsafe_outbound:
            ports = Ports(((entry.port, entry.port),))
            net = entry.net and set_of(
                entry.net.version, [(int(entry.net.network_address), int(entry.net.broadcast_address))]
            )
            families = (
                entry.net is None or entry.net.version == 4,
                entry.net is None or entry.net.version == 6,
            )
            inside = (net,) if net else ()
            remote = Side(inside), Side((), (), ports)
            if direction == "egress":
                remote = Side(), Side(inside, (), ports)
            yield entry, Rule("Allow", entry.protocol, None, None, None, *remote, families)

    def _host(
        self, endpoint: Endpoint, direction: str, number: int, walk: Walk, has_failsafes: bool
    ) -> Iterator[Remark]:
        if number in endpoint.normal and walk.partition.family == IPV6:
            yield from self._discovery(endpoint, direction, number, walk)
        for passed in walk.passed if has_failsafes else ():
            found = self.contents.lists[passed.name[0]]
            resource = self.selection.resources.get(found.policy)
            if passed.rule.action != "Deny" or resource is None or passed.rule.destination.ports is None:
                continue
            hit = [
                str(entry)
                for entry, rule in self._failsafes(direction)
                if (walk.partition.matches(rule) & passed.reached).any()
            ]
            place = found.numbers[passed.name[1]]
            if hit and place is not None:
                text = (
                    f"it denies {some(hit, 5)}, which {endpoint.name} lets through as failsafe before any"
                    " policy (E-42); only forwarded packets, by `applyOnForward`, can be denied there (E-44)"
                )
                mend = "leave these ports out, or take them off the failsafe ports"
                yield Remark("LG406", resource, written_rules(resource, found.direction)[place], text, mend)

    def _discovery(self, endpoint: Endpoint, direction: str, number: int, walk: Walk) -> Iterator[Remark]:
        """E-53, where there is policy; LG301 tells where there is none."""
        is_ipv4_only = endpoint.addresses and all(ip_network(one).version == 4 for one in endpoint.addresses)
        if is_ipv4_only or not self.contents.chains[number].tiers:
            return
        allowed = walk.decided == ALLOW
        cut = [
            word
            for word, rule in (("solicitations", SOLICITATION), ("advertisements", ADVERTISEMENT))
            if not (allowed & walk.partition.matches(rule)).any()
        ]
        if cut:
            text = (
                f"its {direction} policy denies all neighbour {' and '.join(cut)} (ICMPv6 135, 136):"
                " nobody reaches it by IPv6 (E-53)"
            )
            mend = f"allow protocol ICMPv6 in {direction}"
            yield Remark("LG302", self.selection.resources[endpoint.name], (), text, mend)


def remarks(selection: Selection) -> Iterable[Remark]:
    """See `Chains.remarks`."""
    return Chains(selection, contents_of(selection.snapshot, selection.settings)).remarks()
