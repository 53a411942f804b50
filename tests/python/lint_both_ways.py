"""The linter as it is, and without short cuts: each class of services as a part of its own."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

from labelgate.analysis.lint import Finding, apart, lint, parts
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot


def lint_both_ways(
    snapshot: Snapshot, rules: Sequence[str], settings: Settings | None = None
) -> list[Finding]:
    """What both ways find alike; only the words of examples may differ."""
    chosen = settings or Settings()
    found = []
    for few, at_a_glance in ((parts._FEW, apart.MOST_RULES), (-1, -1)):
        with (
            patch.object(parts, "_FEW", few),
            patch.object(parts, "_VISIT", few),
            patch.object(apart, "MOST_RULES", at_a_glance),
        ):
            found.append(lint(snapshot, select=rules, settings_of=lambda node: chosen))
    named = [sorted((one.rule, one.resource, one.path) for one in several) for several in found]
    assert named[0] == named[1]
    return found[0]
