"""Each rule of the linter fires at the marked lines of its case, and on nothing in its silent one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from labelgate.analysis.lint import RULES, lint, parts

CASES = Path(__file__).parents[1] / "lint"
DOCUMENT = Path(__file__).parents[2] / "docs" / "lint.md"
_MARK = re.compile(r"# <- (LG\d+)$")


def marked(file: Path) -> list[tuple[str, int]]:
    """Rule and line of every mark."""
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
    return [(mark[1], number) for number, line in lines if (mark := _MARK.search(line))]


@pytest.mark.parametrize("rule", RULES)
def test_fires_where_it_is_marked(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if rule == "LG109":
        monkeypatch.setattr(parts, "MOST_CELLS", 1)
    file = CASES / rule / "firing.yaml"
    expected = marked(file)
    assert expected
    found = lint(file, select=[rule]) if not rule.startswith("LG9") else lint(file)
    assert [(one.rule, one.line) for one in found if one.rule == rule] == expected
    for one in found:
        assert one.text
        assert one.mend
        assert one.name == RULES[one.rule].name


@pytest.mark.parametrize("rule", RULES)
def test_is_silent(rule: str) -> None:
    found = lint(CASES / rule / "silent.yaml")
    assert [one for one in found if one.rule == rule] == []


def test_the_document_has_every_rule_as_the_code_has_it() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| LG")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert [row[:5] for row in cells] == [
        [rule.id, f"`{rule.name}`", rule.severity, rule.summary, rule.laws] for rule in RULES.values()
    ]
    assert all(len(row) == 6 and row[5].startswith("`") for row in cells)
    assert [row for row in rows if row.count("`") % 2] == []
