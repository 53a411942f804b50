"""What the linter says: a `Remark` about a place in a resource, and the `Finding` with its file and line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from labelgate.analysis.lint.catalogue import RULES, Severity
from labelgate.printable import printable
from labelgate.resources.errors import Path, path_text
from labelgate.resources.metadata import Resource


@dataclass(frozen=True, slots=True)
class Remark:
    """A finding before its line is known."""

    rule: str
    """An id of the catalogue."""
    resource: Resource
    path: Path
    """Into the resource as it is written."""
    text: str
    mend: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in policy that is valid, but hardly what was meant."""

    rule: str
    """A stable id, for example `LG101`."""
    name: str
    """The rule's name, for example `shadowed-rule`."""
    severity: Severity
    file: str
    line: int
    """Counts from 1."""
    column: int
    """Counts from 1."""
    resource: str
    """`Kind/namespace/name` or `Kind/name`."""
    path: str
    """The field, for example `spec.ingress[0]`; empty where the resource is meant."""
    text: str
    """What is the matter, with ids of `docs/semantics.md`."""
    mend: str
    """What to do about it."""

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.resource, self.path) if part)
        place = f"{self.file}:{self.line}:{self.column}"
        return printable(f"{place}: {self.severity} {self.rule} {where}: {self.text}")

    def __repr__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        text = f"<Finding {self.rule} {self.name} {self.severity} at {where}: {self.resource} {self.path}>"
        return printable(text)

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        """By place, then by rule."""
        return (self.file, self.line, self.column, self.rule, self.text)


def finding(remark: Remark, file: str, line: int, column: int) -> Finding:
    """The finding of a remark whose place is known."""
    rule = RULES[remark.rule]
    return Finding(
        rule.id, rule.name, rule.severity, file, line, column,
        remark.resource.key, path_text(remark.path), remark.text, remark.mend,
    )  # fmt: skip
