"""Selectors read twice: the core and the reference, which share no code, accept, print and match the same."""

from __future__ import annotations

import re

from labelgate import _core
from labelgate.reference import selectors

MOST_WORDS = 5
"""Keys and values that label sets are made of; more would cost speed and show nothing else."""


def check(content: bytes) -> None:
    """The bytes are the selector."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return
    expression = by_reference(text)
    assert core_accepts(text) == (expression is not None), "only one of them accepts it"
    if expression is not None:
        for labels in label_sets(text):
            expected = (selectors.matches(expression, labels), selectors.canonical(expression))
            assert _core.selector_answer(text, labels) == expected, labels


def by_reference(text: str) -> selectors.Expression | None:
    """As the reference reads it; None where it refuses it."""
    try:
        return selectors.parse(text)
    except selectors.SelectorError:
        return None


def core_accepts(text: str) -> bool:
    """Whether the core reads it as a selector."""
    try:
        _core.check_selector(text)
    except ValueError:
        return False
    return True


def label_sets(text: str) -> list[dict[str, str]]:
    """Over what stands in the text: none, each key with each value, and all keys with each value."""
    keys = sorted(set(re.findall(r"[A-Za-z0-9_./-]+", text)))[:MOST_WORDS]
    values = sorted({"", "other", *re.split("[\"']", text)})[:MOST_WORDS]
    pairs = [{key: value} for key in keys for value in values]
    return [{}, *pairs, *(dict.fromkeys(keys, value) for value in values)]
