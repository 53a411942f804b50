"""Findings that somebody has looked at: suppressed by an annotation that says why.

`lint.labelgate.io/LG101: the reason` on a resource suppresses findings of that rule in all of the resource;
among the `metadata.annotations` of a rule of a Calico policy, only those of that rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labelgate.analysis.lint.catalogue import BY_NAME, RULES
from labelgate.analysis.lint.finding import Remark
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource
from labelgate.resources.values import did_you_mean

PREFIX = "lint.labelgate.io/"


@dataclass(frozen=True, slots=True)
class Suppression:
    """One annotation."""

    resource: Resource
    within: Path
    """The part of the resource that it is for."""
    path: Path
    """Where it stands."""
    rule: str
    reason: str

    def covers(self, remark: Remark) -> bool:
        """Whether this finding is meant."""
        is_within = remark.path[: len(self.within)] == self.within
        return remark.resource is self.resource and remark.rule == self.rule and is_within


def suppressions(resource: Resource) -> Iterator[Suppression]:
    """Those of a resource and of its rules."""
    yield from _read(resource, (), resource.metadata.annotations)
    spec: Any = getattr(resource, "spec", None)
    for direction in ("ingress", "egress"):
        for index, rule in enumerate(getattr(spec, direction, ())):
            metadata = getattr(rule, "metadata", None)
            if metadata is not None:
                yield from _read(resource, ("spec", direction, index), metadata.annotations)


def _read(resource: Resource, within: Path, annotations: Mapping[str, str]) -> Iterator[Suppression]:
    for key, reason in annotations.items():
        if key.startswith(PREFIX):
            path = (*within, "metadata", "annotations", key)
            yield Suppression(resource, within, path, key.removeprefix(PREFIX), reason.strip())


def without_suppressed(
    remarks: Iterable[Remark], resources: Iterable[Resource], wanted: frozenset[str]
) -> Iterator[Remark]:
    """The remarks that nobody has suppressed, and those about suppressions themselves.

    A suppression is unused only if its rule is among those `wanted`, for others were not looked for.
    """
    found = [one for resource in resources for one in suppressions(resource)]
    by_key: dict[tuple[int, str], list[Suppression]] = {}
    for one in found:
        if one.reason:
            by_key.setdefault((id(one.resource), one.rule), []).append(one)
    used: set[Path | tuple[int, Path]] = set()
    for remark in remarks:
        covering = [one for one in by_key.get((id(remark.resource), remark.rule), ()) if one.covers(remark)]
        used |= {(id(one.resource), one.path) for one in covering}
        if not covering:
            yield remark
    for one in found:
        yield from _about(one, is_used=(id(one.resource), one.path) in used or one.rule not in wanted)


def _about(one: Suppression, *, is_used: bool) -> Iterator[Remark]:
    def remark(rule: str, text: str, mend: str) -> Remark:
        return Remark(rule, one.resource, one.path, text, mend)

    if one.rule not in RULES:
        hint = did_you_mean(one.rule, RULES) or "`labelgate lint --rules` lists the ids"
        if one.rule in BY_NAME:
            hint = f"write its id: `{PREFIX}{BY_NAME[one.rule].id}`"
        yield remark("LG903", f"no rule has the id `{one.rule}`: nothing is suppressed", hint)
    elif not one.reason:
        text = f"{one.rule} is not suppressed, because no reason is given"
        yield remark("LG901", text, "write as its value why the finding is all right here")
    elif not is_used:
        yield remark("LG902", f"there is no {one.rule} here to suppress", "remove the annotation")
