"""`docs/semantics.md`: ids are there once, citations lead to one, tables are what engines are tested with."""

from __future__ import annotations

import json
import re
from functools import cache

import cases
import yaml
from cases import FOLDER, load_cases, load_connection_cases, load_rejected
from semantics import DOCUMENT, citations, defined, ids

SELECTORS = json.loads(cases.SELECTORS.read_text())


def test_each_rule_is_defined_once() -> None:
    rules = [rule for _, rule in defined()]
    assert [rule for rule in rules if rules.count(rule) > 1] == []
    assert [(anchor, rule) for anchor, rule in defined() if anchor != rule] == []


def test_every_citation_leads_somewhere() -> None:
    assert {rule: files for rule, files in citations().items() if rule not in ids()} == {}


def test_links_within_the_page_lead_somewhere() -> None:
    text = DOCUMENT.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - anchors - ids() == set()


def test_truth_table_is_the_one_that_engines_are_tested_with() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (.+) \| (\{.*\}) \| (true|false) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert [(int(row), selector, labels, match) for row, selector, labels, match in rows] == [
        (row["row"], _selector(row["selector"]), _labels(row["labels"]), str(row["match"]).lower())
        for row in SELECTORS["truth"]
    ]


def test_canonical_forms_are_those_that_engines_are_tested_with() -> None:
    section = DOCUMENT.read_text().split("### Canonical forms")[1].split("###")[0]
    rows = re.findall(r"^\| (`.+?`|\(empty\)) \| `(.+)` \|$", section, re.MULTILINE)
    short = [row for row in SELECTORS["canonical"] if len(row["selector"]) < 100]
    assert rows == [(_selector(row["selector"]), row["canonical"].replace("|", "\\|")) for row in short]


def test_refused_selectors_are_those_that_engines_are_tested_with() -> None:
    section = DOCUMENT.read_text().split("### Refused selectors")[1].split("## ")[0]
    shown = {text.replace("\\|", "|") for text in re.findall(r"`([^`]+)`", section)}
    plain = {row["selector"] for row in SELECTORS["rejected"]}
    assert {text for text in plain if text.isascii() and "\n" not in text and len(text) < 100} == shown - {
        "has(a)"
    }


def _selector(text: str) -> str:
    blank = "(blanks, tabs)" if text else "(empty)"
    return "`" + text.replace("|", "\\|") + "`" if text.strip() else blank


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{key}:{value or chr(34) * 2}" for key, value in labels.items()) + "}"


def test_every_rule_has_a_case() -> None:
    excused = _excused()
    assert sorted(ids() - _shown() - excused.keys()) == []


def test_every_excuse_is_needed() -> None:
    excused = _excused()
    assert {rule: why for rule, why in excused.items() if rule in _shown() or rule not in ids()} == {}


def test_cases_show_rules_that_exist() -> None:
    assert _shown() - ids() == set()


@cache
def _shown() -> set[str]:
    accepted = {rule for case in [*load_cases(), *load_connection_cases()] for rule in case.rules}
    refused = {rule for rejected in load_rejected() for rule, _ in rejected.problems}
    beside = {rule for rejected in load_rejected() for rule in rejected.shows}
    return accepted | refused | beside | set(SELECTORS["rules"])


def _excused() -> dict[str, str]:
    entries = yaml.safe_load((FOLDER / "without-case.yaml").read_text())
    return {rule: entry["why"] for entry in entries for rule in entry["rules"]}
