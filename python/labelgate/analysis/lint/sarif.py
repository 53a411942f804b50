"""Findings as SARIF 2.1.0, which code hosts and editors show beside the lines."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labelgate._core import __version__
from labelgate.analysis.lint.catalogue import RULES, LintRule
from labelgate.analysis.lint.finding import Finding
from labelgate.analysis.lint.suppression import PREFIX

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HELP = "docs/lint.md of labelgate has an example, and says how it is decided."
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def sarif(findings: Iterable[Finding]) -> dict[str, Any]:
    """One run with all rules and a result for each finding."""
    ids = list(RULES)
    driver = {
        "name": "labelgate",
        "semanticVersion": __version__,
        "rules": [_descriptor(rule) for rule in RULES.values()],
    }
    results = [_result(one, ids.index(one.rule)) for one in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _descriptor(rule: LintRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word.title() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": f"{rule.summary} ({rule.laws})"},
        "help": {"text": f"{_HELP} Suppressed by the annotation `{PREFIX}{rule.id}: the reason`."},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    path = Path(finding.file)
    uri = path.as_uri() if path.is_absolute() else quote(os.fsencode(path))
    region = {"startLine": finding.line, "startColumn": finding.column}
    named = {"fullyQualifiedName": ": ".join(filter(None, (finding.resource, finding.path)))}
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.text}. {finding.mend}."},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": uri}, "region": region},
                "logicalLocations": [named],
            }
        ],
    }
