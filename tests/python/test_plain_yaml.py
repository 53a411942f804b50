"""Documents that are read line by line, and those left to PyYAML, are what PyYAML makes of the whole text."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from labelgate.resources import documents as reading
from labelgate.resources import positions
from labelgate.resources.documents import Document, documents
from labelgate.resources.plain import plain_document
from labelgate.resources.positions import SyntaxProblem

Told = list[Any]

LINES = (
    "a:", "b:", "- c", "- d: 1", "- e:", "f: g", "-", "- - h", "# note", "", "---", "--- i", "...",
    "%YAML 1.1", "j: 'k'", "l: 'it''s'", 'm: "n"', 'o: "p\\n"', "q: [r, s]", "t: {u: v}", "w: []", "x: {}",
    "y: yes", "n: y", "on: 1", "1: 2", "null:", "a: 1 # note", "a: 1#note", "a: b: c", "a : b", "a:b",
    "a:\tb", "\ta: b", "? a", "a: |", "a: >-", "text", "\u00e9: 1", "a: \u00e9", "<<: *z", "a: &z 1",
    "a: *z", "a: !!str 1", "a: !x", "a: -", "a: - b", "a: -1", "a: 0x1F", "a: 0o17", "a: 017", "a: 1_000",
    "a: ~", "a: 1e3", "a: .5", "a: .inf", "a:  b", "a: b ", "a: b  c", "a: app == 'b' && c != 'd'",
    "a: 10.0.0.0/8", "a: 80:90", "a: b:", "a: 'b", 'a: "b', "a: has(b)", "a: (b)", "a: b'c\"d",
    "a.b/c-d: e", "-  a", "- a: b: c", "- 'b'", '- "b"', "- []", "- {}", "- .", "- ---", "a: ---", "a: ...",
    "a: %b", "a: b%", "a: @b", "a: b,c", "a: b]", "a: b, [c] {d}", "a: \x7f", "a: \x85", "=: a", "a: =",
    "_a: _1", "a: 1.", "a: 1.0", "a: 2001-01-01", "a: 1:30", "a: off", "a: Null", "'a': b",
)  # fmt: skip
"""Of every kind that matters, right and wrong."""


def told(found: Callable[[], Iterator[Document]]) -> tuple[Told, Any]:
    """Everything that is said of documents, and of where they stop."""
    told: Told = []
    try:
        for one in found():
            paths = [path for path, _ in leaves(one.data)]
            places = [(one.place(path), one.place(path, key=True)) for path in paths]
            problems = [(str(wrong), wrong.found, place, path) for wrong, place, path in one.problems]
            told.append((repr(one.data), one.start, one.offset, problems, places))
    except SyntaxProblem as problem:
        return told, (problem.wrong.message, problem.wrong.found, problem.place)
    return told, None


def leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value with its path."""
    yield path, data
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in inner:
        yield from leaves(value, (*path, step))


def by_nodes(text: str) -> tuple[Told, Any]:
    """The oracle: all of it by PyYAML."""
    return told(lambda: (reading._from_node(node, 0, 0) for node in positions.yaml_documents(text)))


def check(text: str) -> None:
    (found, wrong), (expected, as_expected) = told(lambda: documents(text)), by_nodes(text)
    assert wrong == as_expected
    # A character that YAML does not have hides documents ahead of it from PyYAML, as far as it reads at once.
    assert (found[: len(expected)] if wrong else found) == expected


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(LINES)), max_size=9), st.sampled_from(("\n", ""))
)
@settings(max_examples=800, deadline=None)
@example([(0, "a:"), (0, "- d: 1"), (1, "f: g"), (0, "---"), (0, "q: [r, s]"), (0, "---"), (0, "f: g")], "\n")
@example([(0, "f: g"), (0, "---"), (0, "q: [r"), (0, "---"), (0, "f: g")], "")
def test_any_lines(lines: list[tuple[int, str]], end: str) -> None:
    text = "\n".join(" " * (2 * indent) + line for indent, line in lines) + end
    if not text.lstrip(" \t\r\n").startswith("{"):
        check(text)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-70000, 70000),
    st.text("ab :#-'\"[]{},&*!|>%@`=~01.\n\u00e9", max_size=8),
    st.sampled_from(("yes", "0x10", "1:30", "", "a b", "true", "app == 'a' && has(b)", "80:90")),
)  # fmt: skip
KEYS = st.text("abn01./-_ :'", min_size=1, max_size=6)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(
    st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4), max_size=4), st.booleans(), st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_what_is_dumped(found: list[dict[str, Any]], is_c: bool, is_indented: bool) -> None:
    dumper = yaml.CSafeDumper if is_c else yaml.SafeDumper
    check(yaml.dump_all(found, Dumper=dumper, sort_keys=False, width=200, explicit_start=is_indented))


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: b\n", {"a": "b"}),
        ("a: b", {"a": "b"}),
        ("---\n# of it\n\na:\n- b\n-  \n", None),
        ("---\n# of it\n\na:\n- b: 1\n  c: [] \n", None),
        (
            "a:\n- b: 1\n  c: []\n  # of it\n  d:\n  - yes\n  - 'yes'\n",
            {"a": [{"b": 1, "c": [], "d": [True, "yes"]}]},
        ),
        ("a:\n  b:\n    c: {}\n  d:\ne: 0x10\n", {"a": {"b": {"c": {}}, "d": None}, "e": 16}),
        ("a: b\n  c\n", None),
        ("a: b\n  c: d\n", None),
        ("a:\n- b\n  - c\n", None),
        ("a: 1\na: 2\n", None),
        ("on: 1\n", None),
        ("- a\n", None),
        ("a: *b\n", None),
    ],
)
def test_what_is_plain(text: str, data: dict[str, Any] | None) -> None:
    found = plain_document(text)
    assert (found and found[0]) == data
    if data is not None:
        check(text)


def test_deep_nesting_is_left() -> None:
    """PyYAML says where it is too deep."""
    deep = "".join(f"{' ' * level}a:\n" for level in range(120))
    assert plain_document(deep) is None
    check("a: b\n---\n" + deep)


@pytest.mark.parametrize("text", ["a: {}\n", "a: '{}'\n", 'a: "{}"\n', "a:\n- {}\n"])
def test_long_values_are_left(text: str) -> None:
    """Looking for where they end takes memory with each character, and they would be remembered."""
    assert plain_document(text.format("b" * 1000)) is not None
    assert plain_document(text.format("b" * 1002)) is None
    check(text.format("b" * 1002))


def test_long_beginnings_are_left() -> None:
    for line in ("\n", "# b\n"):
        assert plain_document(line * 1000 + "a: b\n") is not None
        assert plain_document(line * 1001 + "a: b\n") is None
        check(line * 1001 + "a: b\n")


def test_empty_lines_take_no_memory() -> None:
    text = "a: b\n" + "\n" * 100_000 + "c: d" + "\n" * 100_000
    tracemalloc.start()
    found = plain_document(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == ({"a": "b", "c": "d"}, 0)
    assert peak < 4 * len(text)
    check(text)


def test_places_below_other_documents() -> None:
    """Of a document with a field twice, between plain ones."""
    text = "a: 1\n---\na:\n- b: 1\n  b: 2\n---\nc: 3\n"
    middle = list(documents(text))[1]
    ((wrong, place, _),) = middle.problems
    assert (middle.start, place) == ((3, 1), (5, 3))
    assert "line 4, column 3" in wrong.expected
