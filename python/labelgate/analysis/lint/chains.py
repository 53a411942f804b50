"""Remarks on rules by what chains decide: shadowed, redundant, never met; order ties; what hosts lose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from labelgate.analysis.failsafes import failsafe_rule
from labelgate.analysis.lint.apart import are_apart
from labelgate.analysis.lint.coverage import (
    ALLOW,
    END_OF_TIER,
    NO_PROFILE,
    PASS,
    UNDECIDED,
    Name,
    Steps,
    Walk,
    code_of,
    denied_behind,
    ends_from,
    walks,
    without,
)
from labelgate.analysis.lint.fates import Fates
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.parts import Box, Budget
from labelgate.analysis.lint.selection import Selection, some
from labelgate.analysis.program import Chain, Direction, Endpoint, ProgramContents, Rule
from labelgate.model import BUILT_IN_PROFILE
from labelgate.resources.errors import Path, path_text
from labelgate.resources.metadata import Resource
from labelgate.settings import Failsafe


@dataclass(frozen=True, slots=True)
class _Use:
    """A host endpoint that has a chain."""

    endpoint: Endpoint
    direction: Direction
    is_untracked: bool


@dataclass(frozen=True, slots=True)
class _Failsafes:
    """Failsafe ports that go before a chain; in raw also replies to those of the other direction (E-43)."""

    direction: Direction
    entries: tuple[Failsafe, ...]
    is_return: bool = False

    def rules(self) -> list[Rule]:
        """What each of them lets through."""
        return [failsafe_rule(entry, self.direction, is_return=self.is_return) for entry in self.entries]

    def names(self, rule: Rule) -> bool:
        """Whether a rule names ports on the side where these have theirs."""
        return (rule.source if self.is_return else rule.destination).ports is not None


@dataclass(frozen=True, slots=True)
class Chains:
    """All chains of a snapshot, and what they do to each rule."""

    selection: Selection
    contents: ProgramContents
    fates: Fates

    def remarks(self) -> Iterator[Remark]:
        """LG101 to LG104, LG109, LG203, LG204, LG301, LG406."""
        budget, ties, hosts = Budget(), dict[tuple[str, str], Remark](), dict[object, Remark]()
        uses = self._uses()
        for chain in dict.fromkeys(self.contents.chains):
            here, steps = uses.get(chain, []), Steps.of(chain, self.contents.lists)
            if not here and (needed := _are_needed(steps, chain)) is not None:
                for place in needed:
                    fate, is_log = self.fates.of(steps.names[place]), code_of(steps.rules[place]) == UNDECIDED
                    fate.stands(is_log=is_log)
                    fate.is_denied_behind |= is_log and _is_end_denying(steps, place)
                continue
            walked = walks(steps, budget, self._boundaries(here))
            self._note(steps, walked)
            for walk in walked or ():
                for remark in self._ties(walk, steps):
                    ties.setdefault((remark.resource.key, path_text(remark.path)), remark)
            for remark in self._failsafes_denied(walked or (), here):
                hosts.setdefault((remark.rule, remark.resource.key, remark.path), remark)
            yield from self._passed_to_nobody(walked or (), here)
        yield from self.fates.remarks()
        yield from self._log_only()
        yield from ties.values()
        yield from hosts.values()

    def _uses(self) -> dict[Chain, list[_Use]]:
        """Of each chain the host endpoints that have it where failsafes go before it (E-42)."""
        found: dict[Chain, list[_Use]] = {}
        directions: tuple[Direction, Direction] = ("ingress", "egress")
        for endpoint in self.contents.endpoints:
            if endpoint.kind != "host":
                continue
            numbers = [(number, way, False) for number, way in zip(endpoint.normal, directions, strict=True)]
            if endpoint.untracked is not None:
                pairs = zip(endpoint.untracked, directions, strict=True)
                numbers += [(number, way, True) for number, way in pairs]
            if endpoint.prednat is not None:
                numbers.append((endpoint.prednat, "ingress", False))
            for number, way, is_untracked in numbers:
                found.setdefault(self.contents.chains[number], []).append(_Use(endpoint, way, is_untracked))
        return found

    def _boundaries(self, uses: Sequence[_Use]) -> list[Rule]:
        return list(dict.fromkeys(rule for found in self._failsafes(uses) for rule in found.rules()))

    def _failsafes(self, uses: Sequence[_Use]) -> dict[_Failsafes, Endpoint]:
        """All failsafe ports that go before a chain, with the first endpoint that has them."""
        found: dict[_Failsafes, Endpoint] = {}
        for use in uses:
            settings = self.selection.settings_at(use.endpoint.name)
            inbound, outbound = settings.failsafe_inbound, settings.failsafe_outbound
            own, other = (inbound, outbound) if use.direction == "ingress" else (outbound, inbound)
            found.setdefault(_Failsafes(use.direction, own), use.endpoint)
            if use.is_untracked:
                found.setdefault(_Failsafes(use.direction, other, is_return=True), use.endpoint)
        return found

    # --- rules that nobody needs -------------------------------------------------------------------------

    def _note(self, steps: Steps, walked: list[Walk] | None) -> None:
        here = dict.fromkeys(steps.names, False)
        if walked is None:
            for name in here:
                self.fates.of(name).is_undecided = True
            return
        for walk in walked:
            for name in denied_behind(walk, steps):
                self.fates.of(name).is_denied_behind = True
        by: dict[Name, set[int]] = {}
        for passed in (passed for walk in walked for passed in walk.passed):
            fate = self.fates.of(passed.name)
            fate.is_matchable = True
            here[passed.name] |= passed.is_reached
            fate.is_log |= passed.rule.action == "Log"
            fate.is_contradicted |= not passed.before <= {code_of(passed.rule)}
            by.setdefault(passed.name, set()).update(passed.by)
        dead = frozenset(name for name, is_reached in here.items() if not is_reached)
        unneeded = frozenset(without(walked, dead))
        for name, is_reached in here.items():
            fate = self.fates.of(name)
            fate.by |= dict.fromkeys(self._who(steps, one) for one in sorted(by.get(name, ())))
            fate.is_reached |= is_reached
            fate.is_needed |= is_reached and name not in unneeded

    def _who(self, steps: Steps, by: int) -> str:
        return "the end of an earlier tier" if by == END_OF_TIER else self.fates.who(steps.names[by])

    # --- policies that only log (LG203) --------------------------------------------------------------------

    def _log_only(self) -> Iterator[Remark]:
        """Where no endpoint is selected, nothing else of the tier is known to decide what is logged."""
        lists = {(found.policy, found.direction): index for index, found in enumerate(self.contents.lists)}
        for policy in self.selection.policies:
            if "normal" not in policy.lists or policy.tier in self.selection.passing_tiers:
                continue
            for direction, rules in policy.rules.items():
                index = lists.get((policy.full_name, direction))
                is_log_only = rules and all(rule.action == "Log" for rule in rules)
                if is_log_only and (index is None or self._is_denied_behind(index)):
                    text = (
                        f"all {direction} rules are Log (M-53): what no other policy of tier `{policy.tier}`"
                        " allows is denied at the end of the tier (E-21)"
                    )
                    mend = "add a rule that allows or passes what is logged"
                    yield Remark("LG203", self.selection.resource(policy), ("spec", direction), text, mend)

    def _is_denied_behind(self, index: int) -> bool:
        places = range(len(self.contents.lists[index].rules))
        return any(self.fates.of((index, place)).is_denied_behind for place in places)

    # --- order ties (LG204) ------------------------------------------------------------------------------

    def _ties(self, walk: Walk, steps: Steps) -> Iterator[Remark]:
        orders = self.selection.orders
        for tier, (first, end) in enumerate(walk.tiers):
            groups: dict[float, list[int]] = {}
            for place in range(first, end):
                policy = self.contents.lists[walk.passed[place].name[0]].policy
                if policy in orders and code_of(walk.passed[place].rule) != UNDECIDED:
                    groups.setdefault(orders[policy], []).append(place)
            for places in groups.values():
                if len({code_of(walk.passed[place].rule) for place in places}) > 1:
                    yield from self._tied(walk, steps, tier, places)

    def _tied(self, walk: Walk, steps: Steps, tier: int, places: list[int]) -> Iterator[Remark]:
        """A policy that, before one of the same order, would decide some of its packets otherwise.

        What one passes to the next tier may end there as the other decides it.
        """
        lists: dict[int, list[int]] = {}
        for place in places:
            lists.setdefault(walk.passed[place].name[0], []).append(place)
        settled = np.full(walk.partition.shape, UNDECIDED, np.int8)
        owner = np.full(walk.partition.shape, -1, np.int32)
        is_passing = len(lists) > 1 and any(code_of(walk.passed[place].rule) == PASS for place in places)
        ends = ends_from(walk, steps, tier + 1) if is_passing else None
        for index, own in lists.items():
            mine = np.full(walk.partition.shape, UNDECIDED, np.int8)
            for passed in (walk.passed[place] for place in reversed(own)):
                passed.box.paint(mine, passed.box.inside, code_of(passed.rule))
            differs = (settled != UNDECIDED) & (mine != UNDECIDED) & (mine != settled)
            if ends is not None:
                differs &= np.where(mine == PASS, ends, mine) != np.where(settled == PASS, ends, settled)
            if differs.any():
                yield self._tie(index, int(owner[differs][0]))
            for passed in (walk.passed[place] for place in own):
                reached = passed.reached
                passed.box.paint(settled, reached, code_of(passed.rule))
                passed.box.paint(owner, reached, index)

    def _tie(self, index: int, first: int) -> Remark:
        text = (
            f"it has the order of {self.contents.lists[first].policy}, and decides some of the same packets"
            " otherwise: that one goes first because of its name (E-5)"
        )
        resource = self.selection.resources[self.contents.lists[index].policy]
        field, mend = "order", "give each an `order` of its own"
        if resource.key.startswith("KubernetesCluster"):
            field, mend = "priority", "give each a `priority` of its own"
        elif resource.key.startswith("Kubernetes"):
            mend = "give the other one another `order` than 1000, which this kind has (K-1)"
        return Remark("LG204", resource, ("spec", field), text, mend)

    # --- hosts without profiles (LG301) ---------------------------------------------------------------------

    def _passed_to_nobody(self, walked: Sequence[Walk], uses: Sequence[_Use]) -> Iterator[Remark]:
        """Policy that allows nothing, and passes on what no profile decides; without policy `hosts` tells."""
        if any((walk.decided == ALLOW).any() for walk in walked):
            return
        if any((walk.by == NO_PROFILE).any() for walk in walked):
            governed = self.selection.governed
            for use in (use for use in uses if (use.endpoint.name, use.direction) in governed):
                text = (
                    f"its {use.direction} policy allows nothing, and what it passes on no profile decides:"
                    f" everything is denied there but {self.selection.spared(use.endpoint.name)} (E-25)"
                )
                mend = f"allow in {use.direction} what is meant, or list the profile `{BUILT_IN_PROFILE}`"
                yield Remark("LG301", self.selection.resources[use.endpoint.name], (), text, mend)

    # --- failsafe ports (LG406) -----------------------------------------------------------------------------

    def _failsafes_denied(self, walked: Sequence[Walk], uses: Sequence[_Use]) -> Iterator[Remark]:
        """LG406; of endpoints with the same failsafe ports the first one is told of."""
        for failsafes, endpoint in self._failsafes(uses).items():
            hit: dict[tuple[Resource, Path], list[str]] = {}
            for walk in walked:
                for rule, words in self._hit(walk, failsafes):
                    known = hit.setdefault(rule, [])
                    known += (word for word in words if word not in known)
            for (resource, path), words in hit.items():
                listed = [word for word in map(str, failsafes.entries) if word in words]
                yield _denied(resource, path, listed, endpoint, is_return=failsafes.is_return)

    def _hit(self, walk: Walk, failsafes: _Failsafes) -> Iterator[tuple[tuple[Resource, Path], list[str]]]:
        """The rules that deny failsafe ports, and which."""
        denying = [one for one in walk.passed if one.rule.action == "Deny" and failsafes.names(one.rule)]
        if not denying:
            return
        rules = zip(map(str, failsafes.entries), failsafes.rules(), strict=True)
        boxes = [(word, Box.of(walk.partition, rule)) for word, rule in rules]
        for passed in denying:
            found = self.contents.lists[passed.name[0]]
            resource, place = self.selection.resources.get(found.policy), found.numbers[passed.name[1]]
            if resource is None or place is None or not passed.is_reached:
                continue
            reached = np.zeros(walk.partition.shape, np.bool_)
            passed.box.paint(reached, passed.reached, True)
            if words := [word for word, box in boxes if (reached[box.index] & box.inside).any()]:
                yield (resource, self.fates.written(passed.name[0])[place]), words


def _are_needed(steps: Steps, chain: Chain) -> range | None:
    """The rules of its only tier, if no two of them meet the same packets; None where that is not seen.

    A tier without rules that denies is one: ahead of others it leaves them nothing (E-14, E-21). Profiles are
    no concern here if nothing is left for them: they are judged by themselves.
    """
    tiers = [tier for tier in steps.tiers[: len(chain.tiers)] if tier[0] < tier[1] or tier[2]]
    if len(tiers) != 1:
        return None
    first, end, is_denying = tiers[0]
    rules = steps.rules[first:end]
    is_last = is_denying and all(rule.action != "Pass" for rule in rules)
    if not is_last and end < len(steps.rules):
        return None
    return range(first, end) if are_apart(rules, [frozenset()] * len(rules)) else None


def _is_end_denying(steps: Steps, place: int) -> bool:
    """Whether what the tier of a rule leaves undecided is denied."""
    return any(is_denying for first, end, is_denying in steps.tiers if first <= place < end)


def _denied(resource: Resource, path: Path, hit: list[str], endpoint: Endpoint, *, is_return: bool) -> Remark:
    what, law = ("replies of ", "E-43") if is_return else ("", "E-42")
    text = (
        f"it denies {what}{some(hit, 5)}, which {endpoint.name} lets through as failsafe before any"
        f" policy ({law}); only forwarded packets, by `applyOnForward`, can be denied there (E-44)"
    )
    mend = "leave these ports out, or take them off the failsafe ports"
    return Remark("LG406", resource, path, text, mend)


def remarks(selection: Selection) -> Iterable[Remark]:
    """See `Chains.remarks`."""
    return Chains(selection, selection.contents, Fates(selection, selection.contents.lists)).remarks()
