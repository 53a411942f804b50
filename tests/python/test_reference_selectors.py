"""The reference's own selectors against the tables of semantics 2.2 to 2.4, and the corners of 2.1."""

from __future__ import annotations

import json

import pytest
from cases import SELECTORS
from labelgate.reference.selectors import (
    All,
    Global,
    Has,
    Not,
    SelectorError,
    canonical,
    equals,
    matches,
    parse,
    prefixed,
    replaced,
)

TABLES = json.loads(SELECTORS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", TABLES["truth"], ids=lambda row: str(row["row"]))
def test_truth_table(row: dict[str, object]) -> None:
    assert matches(parse(row["selector"]), row["labels"]) is row["match"]


@pytest.mark.parametrize("row", TABLES["canonical"], ids=lambda row: row["selector"])
def test_canonical_forms(row: dict[str, str]) -> None:
    assert canonical(parse(row["selector"])) == row["canonical"]


@pytest.mark.parametrize("row", TABLES["canonical"], ids=lambda row: row["canonical"])
def test_canonical_forms_are_stable(row: dict[str, str]) -> None:
    assert canonical(parse(row["canonical"])) == row["canonical"]


@pytest.mark.parametrize("row", TABLES["rejected"], ids=lambda row: row["selector"][:40])
def test_rejected(row: dict[str, str]) -> None:
    with pytest.raises(SelectorError):
        parse(row["selector"])


@pytest.mark.parametrize(
    "text",
    [
        "a == 'b' ||",
        "a == 'b' && || c == 'd'",
        "! && has(a)",
        "has(a)\r",
        "\nhas(a)",
        "has(a)\u00a0",
        "a starts",
        "a starts withx 'y'",
        "a not\nin {'b'}",
        "a in {'b',,'c'}",
        "a in {,}",
        "a === 'b'",
        "(a == 'b'))",
        "has(a b)",
        "has(all())",
    ],
)
def test_more_rejected(text: str) -> None:
    with pytest.raises(SelectorError):
        parse(text)


def test_error_tells_place() -> None:
    with pytest.raises(SelectorError, match=r"^a string in quotes expected at offset 5 of 'a == b'$"):
        parse("a == b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tstarts\twith\t'x'", 'a starts with "x"'),
        ("a startswith'x'", 'a starts with "x"'),
        ("a not\t in{'x',}", 'a not in {"x"}'),
        ("! ! !has(a)", "!has(a)"),
        ("!(!has(a))", "has(a)"),
        ("!(!(!has(a) || !(!has(b))))", "(!has(a) || has(b))"),
        ("!(a == 'x' || !has(b))", '!(a == "x" || !has(b))'),
        ("has(a) || (has(b) || has(c))", "(has(a) || (has(b) || has(c)))"),
        ("all == 'x' && has == 'y' && in in {'z'}", '(all == "x" && has == "y" && in in {"z"})'),
        ("a == 'line\nbreak'", 'a == "line\nbreak"'),
        ("!all() && global( )", "(!all() && global())"),
    ],
)
def test_spellings(text: str, expected: str) -> None:
    assert canonical(parse(text)) == expected


def test_deep_nesting_needs_no_stack() -> None:
    assert parse("(" * 500 + "has(a)" + ")" * 500) == Has("a")


@pytest.mark.parametrize("text", ["!a == 'b'", "a != 'b'", "a not in {'b'}", "!a contains 'b'", "!has(a)"])
def test_missing_label_satisfies_negations(text: str) -> None:
    """S-9."""
    assert matches(parse(text), {})


def test_prefixed_renames_labels_only() -> None:
    renamed = prefixed(parse("!(has(a) && b == 'a') || c in {'x'} && all()"), "pcns.")
    assert canonical(renamed) == '(!(has(pcns.a) && pcns.b == "a") || (pcns.c in {"x"} && all()))'


def test_replaced_works_on_the_tree() -> None:
    """M-22: the text `all()` inside a value is no function."""
    expression = replaced(parse("!all() || a == 'all()'"), All(), Has("n"))
    assert canonical(expression) == '(!has(n) || a == "all()")'
    assert replaced(Global(), Global(), Not(Has("n"))) == Not(Has("n"))
    assert replaced(equals("a", "b"), All(), Has("n")) == equals("a", "b")
