"""What the daemon says of itself: the object that `labelgate status -o json` prints."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from labelgate import _core
from labelgate.agent.enforcement import Enforcement
from labelgate.agent.generation import Options
from labelgate.engines import summary
from labelgate.resources import LoadError, Problem


def now() -> str:
    """UTC, to the second.

    >>> len(now())
    20
    """
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Refusal:
    """A change that did not come into force."""

    message: str
    problems: tuple[Problem, ...] = ()
    since: str = field(default_factory=now)

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """Why; with the places in the files where these are wrong."""
        return cls(str(error), tuple(error.problems) if isinstance(error, LoadError) else ())

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        problems = [
            {"file": problem.file, "line": problem.line, "column": problem.column, "message": str(problem)}
            for problem in self.problems
        ]
        return {"since": self.since, "message": self.message, "problems": problems}


def status(
    enforcement: Enforcement, options: Options, refusal: Refusal | None, in_force_since: str
) -> dict[str, Any]:
    """Everything, as plain values."""
    current = enforcement.current
    facts = current.table.rule_facts()
    snapshot = current.snapshot
    return {
        "labelgate": _core.__version__,
        "pid": os.getpid(),
        "node": current.config.node,
        "generation": {
            "number": current.number,
            "since": in_force_since,
            "policies": len(snapshot.calico_policies()) + len(snapshot.kubernetes_policies()),
            "hostEndpoints": len(facts["hosts"]),
            "workloads": len(facts["workloads"]),
            "engines": summary(current.table.describe()),
        },
        "files": {"paths": list(options.paths)},
        "policy": {"applied": current.source.is_applied, "paths": list(current.source.paths)},
        "refused": refusal and refusal.to_json(),
        "rules": {"variant": enforcement.variant, "otherVariant": enforcement.other_variant},
        "counters": enforcement.counters(),
    }
