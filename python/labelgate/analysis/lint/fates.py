"""What becomes of the rules of policies, and the remarks on those that nobody needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from labelgate.analysis.lint.coverage import SPLIT, Name
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.policies import drops_direction, types_field
from labelgate.analysis.lint.selection import Selection, some
from labelgate.analysis.lint.written import chooses_by_label
from labelgate.analysis.program import Direction, RuleList
from labelgate.conversion import written_rules
from labelgate.resources.errors import Path, path_text
from labelgate.resources.metadata import Resource


@dataclass(slots=True)
class Fate:
    """What became of a rule in all chains that have it."""

    is_log: bool = False
    is_matchable: bool = False
    is_reached: bool = False
    is_undecided: bool = False
    """A chain that has it was over budget."""
    is_needed: bool = False
    """Somewhere something else would be decided without it."""
    is_contradicted: bool = False
    """Some of its packets were decided otherwise before it; of a Log rule: decided at all."""
    is_denied_behind: bool = False
    """Of a Log rule: some of its packets are denied at the end of its tier."""
    by: dict[str, None] = field(default_factory=dict)
    """Who decides before it, as words."""

    def stands(self, *, is_log: bool) -> None:
        """It is met, and something else would be decided without it."""
        self.is_log |= is_log
        self.is_matchable = self.is_reached = self.is_needed = True


@dataclass(frozen=True, slots=True)
class Fates:
    """Those of all rules of some lists."""

    selection: Selection
    lists: Sequence[RuleList]
    is_by_endpoints: bool = True
    """False: what is found holds whatever endpoints there are."""
    _fates: dict[Name, Fate] = field(default_factory=dict)
    _written: dict[int, list[Path]] = field(default_factory=dict)

    def of(self, name: Name) -> Fate:
        """That of a rule, to be written on."""
        return self._fates.setdefault(name, Fate())

    def who(self, name: Name) -> str:
        """A rule in words."""
        index, place = name
        found = self.lists[index]
        resource = self.selection.resources.get(found.policy)
        number = found.numbers[place]
        if resource is None or number is None:
            return found.policy
        return f"{found.policy} {path_text(self.written(index)[number])}"

    def written(self, index: int) -> list[Path]:
        """Where each rule of a list stands in its policy."""
        if index not in self._written:
            found = self.lists[index]
            self._written[index] = written_rules(self.selection.resources[found.policy], found.direction)
        return self._written[index]

    def remarks(self) -> Iterator[Remark]:
        """LG101 to LG104, LG109. What profiles are for differs by endpoint: they are judged by themselves."""
        for index, found in enumerate(self.lists):
            resource = self.selection.resources.get(found.policy)
            if resource is None or (self.is_by_endpoints and found.policy.startswith("Profile/")):
                continue
            written = self.written(index)
            units: dict[Path, list[Fate]] = {}
            for place, number in enumerate(found.numbers):
                if number is not None and (index, place) in self._fates:
                    units.setdefault(written[number], []).append(self._fates[index, place])
            remarks = list(self._units(resource, units, ("spec", found.direction)))
            yield from _with_care(resource, found.direction, set(written), remarks)

    def _units(self, resource: Resource, units: dict[Path, list[Fate]], path: Path) -> Iterator[Remark]:
        undecided = 0
        for where, fates in units.items():
            if any(fate.is_undecided and not fate.is_reached for fate in fates):
                undecided += 1
            elif not any(fate.is_undecided for fate in fates):
                yield from self._unit(resource, where, fates)
        if any(fate.is_undecided for fates in units.values() for fate in fates):
            text = f"too many packet classes: LG101 to LG104 were not judged for {undecided} of these rules"
            if self.is_by_endpoints:
                text += ", nor what is only logged (LG203), order ties (LG204) and failsafe ports (LG406)"
                text += " in a chain with them"
            yield Remark("LG109", resource, path, text, SPLIT)

    def _unit(self, resource: Resource, path: Path, fates: list[Fate]) -> Iterator[Remark]:
        is_by_label = self.is_by_endpoints and chooses_by_label(resource, path)
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
                how = "and so it logs nothing" if any(fate.is_log for fate in fates) else "some otherwise"
                text = f"all its packets are decided before by {some(by)}, {how}{where}"
                yield Remark(
                    "LG101", resource, path, text, "move it up, narrow what goes before, or remove it"
                )
            else:
                text = f"all its packets are decided before by {some(by)}, and the same{where}"
                yield Remark("LG102", resource, path, text, "remove it")
        elif not any(fate.is_needed for fate in fates):
            text = f"without it the rules that follow would decide the same{where}"
            yield Remark("LG102", resource, path, text, "remove it")


def _with_care(
    resource: Resource, direction: Direction, written: set[Path], remarks: Sequence[Remark]
) -> Iterator[Remark]:
    """Removal must not open what it leaves: not the last rule of a direction, not the last peer of a rule."""
    gone = {remark.path for remark in remarks}
    is_last = written <= gone and drops_direction(resource, direction)
    for remark in remarks:
        remove = "remove it"
        peers = {path for path in written if path[:3] == remark.path[:3]}
        if len(remark.path) > 3 and peers <= gone:
            remove = "remove it (but with its last peer the whole rule, which would be for everyone: K-7)"
        if is_last:
            field = types_field(resource)
            types = [way for way in ("ingress", "egress") if getattr(resource.spec, way)]  # type: ignore[attr-defined]
            if field == "policyTypes" and "ingress" not in types:
                types.insert(0, "ingress")  # K-13
            listed = ", ".join(way.title() for way in types)
            remove = (
                f"write `{field}: [{listed}]` first, then {remove}: these are all rules of {direction}, and"
                f" without any the inferred `{field}` leave {direction.title()} out, and open it (E-12)"
            )
        yield replace(remark, mend=remark.mend.replace("remove it", remove))
