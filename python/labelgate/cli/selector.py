"""`labelgate selector`: do labels satisfy a selector, and how is it written canonically?"""

from __future__ import annotations

import sys
from typing import Any

import click

from labelgate import _core
from labelgate.cli.lines import answer_lines
from labelgate.flow import FieldError, shown

_FIELDS = ("id", "selector", "labels")


@click.command()
@click.argument("lines", metavar="FILE|-")
def selector(lines: str) -> None:
    """Compare selectors with labels: JSON lines in, one answer a line out.

    \b
    echo '{"id": 1, "selector": "app in {\\"web\\"}", "labels": {"app": "web"}}' | labelgate selector -
    {"id":1,"match":true,"canonical":"app in {\\"web\\"}"}
    """
    sys.exit(answer_lines(lines, _answer))


def _answer(question: Any) -> dict[str, Any]:
    if not isinstance(question, dict):
        raise FieldError("", f"found `{question}`, expected an object")
    for name in question:
        if name not in _FIELDS and question[name] is not None:
            raise FieldError(name, f"unknown field, expected one of {', '.join(_FIELDS)}")
    text, labels = question.get("selector"), question.get("labels")
    if text is None:
        raise FieldError("selector", "missing")
    if not isinstance(text, str):
        raise FieldError("selector", f"found `{text}`, expected text")
    labels = {} if labels is None else labels
    if not isinstance(labels, dict):
        raise FieldError("labels", f"found {shown(labels)}, expected an object of texts")
    for key, value in labels.items():
        if not isinstance(value, str):
            raise FieldError("labels", f"found {shown(value)} as label `{key}`, expected text")
    try:
        match, canonical = _core.selector_answer(text, labels)
    except UnicodeEncodeError:
        raise FieldError("selector", "found half of a surrogate pair, expected text") from None
    except ValueError as error:
        raise FieldError("selector", str(error)) from None
    return {"match": match, "canonical": canonical}
