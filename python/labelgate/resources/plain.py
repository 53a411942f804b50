"""Documents of plain block YAML, as tools write it, read line by line: several times faster than as nodes.

Only lines that can be read in one way are read here: a field, an item, or both, with at most one scalar that
stands on the line, in plain text or in quotes without escapes. Anything else (flow collections, block
scalars, anchors, tags, comments behind values, fields twice, letters beyond ASCII, long lines) is left to
PyYAML, which also has the word on everything that is wrong.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, TypeVar

from labelgate.resources.positions import WORDS, scalar_tag, scalar_value

_KEY = r"[A-Za-z_][A-Za-z0-9_./-]{0,250}"
# Repetitions are bounded: `re` remembers every turn of a group, in hundreds of bytes.
_MOST = "{0,1000}"
# Neither `: ` nor `#` is inside, and nothing that means something at the beginning.
_PLAIN = rf"[A-Za-z0-9_./(](?:[!\"$-9;-~]|[: ](?! |\Z)){_MOST}"
_VALUE = rf"{_PLAIN}|'[ -&(-~]{_MOST}'|\"[ !#-\[\]-~]{_MOST}\"|\[\]|\{{\}}"
_LINE = re.compile(rf"( *)(?:(- )?({_KEY}):(?: ({_VALUE}))?|- ({_VALUE})|(?:#[ -~]*)?)")
_MANY_LINES = 1000
_ENDS = re.compile(r"\n+")
_BEGINNING = re.compile(rf"(?:---\n)?(?: *(?:#[ -~]*)?\n){_MOST}(?=[A-Za-z_])")
_MOST_OPEN = 90
"""Collections within each other; PyYAML says of more whether it is too many."""

_Begun = TypeVar("_Begun", list[Any], dict[str, Any])
_Scalar = str | bool | int | float | None
_Value = _Scalar | type[list[Any]] | type[dict[str, Any]]
"""A type stands for an empty one."""
_Line = tuple[int, bool, str | None, bool, _Value]
"""Column, whether it begins an item, name of the field if it is one, whether a value stands there, and it."""
_Open = list[tuple[int, Any]]
"""The collections that are not finished, outermost first, with the column of their fields or dashes."""


class _NotPlain(Exception):
    """Not to be read here."""


def plain_document(text: str) -> tuple[dict[str, Any], int] | None:
    """The data of a document, and where in the text it begins; None where it is not plain.

    `text` is that document and no other.

    >>> plain_document("---\\nkind: Pod\\nports:\\n- name: http\\n  port: 80\\n")
    ({'kind': 'Pod', 'ports': [{'name': 'http', 'port': 80}]}, 4)
    """
    begins = _BEGINNING.match(text)
    if begins is None:
        return None
    offset = begins.end()
    body = text[offset:]
    # Runs of empty lines would be as many texts.
    lines = _ENDS.split(body) if "\n\n" in body else body.split("\n")
    try:
        return _mapping(lines), offset
    except _NotPlain:
        return None


@lru_cache(1 << 14)
def _line(text: str) -> _Line | tuple[()] | None:
    """A line without its end; empty where it says nothing, None where it is not plain. Most come again."""
    found = _LINE.fullmatch(text)
    if found is None:
        return None
    spaces, dash, key, value, item = found.groups()
    if key is None and item is None:  # Nothing but a comment, if that.
        return ()
    if key in WORDS:
        return None
    written = value or item
    return len(spaces), bool(dash or item), key, written is not None, _value(written)


def _value(text: str | None) -> _Value:
    if text is None:
        return None
    if text in ("[]", "{}"):
        return list if text == "[]" else dict
    return text[1:-1] if text[0] in "'\"" else scalar_value(scalar_tag(text), text)


def _mapping(lines: list[str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    still_open: _Open = [(0, root)]
    awaiting: str | None = None
    """The last field, if it has no value on its line: what it is the lines below say."""
    # Long documents are lists of different things, which would drive out what comes again.
    line = _line if len(lines) < _MANY_LINES else _line.__wrapped__
    for read in map(line, lines):
        if not read:
            if read is None:
                raise _NotPlain
            continue
        column, begins_item, key, has_value, written = read
        value = written() if isinstance(written, type) else written
        if begins_item:
            several = _list_at(column, still_open, awaiting)
            awaiting = None
            if key is None:
                several.append(value)
                continue
            fields: dict[str, Any] = {}
            several.append(fields)
            still_open.append((column + 2, fields))
        elif awaiting is None and (last := still_open[-1])[0] == column and type(last[1]) is dict:
            fields = last[1]  # Most lines: the field behind another one.
        else:
            fields = _fields_at(column, still_open, awaiting)
        assert key is not None
        if key in fields:
            raise _NotPlain
        fields[key] = value
        awaiting = None if has_value else key
    return root


def _list_at(column: int, still_open: _Open, awaiting: str | None) -> list[Any]:
    """The list that a dash at this column belongs to; it may begin here, as the value of the last field."""
    if awaiting is not None and column >= still_open[-1][0]:
        begun: list[Any] = []
        return _begin(begun, column, still_open, awaiting)
    while still_open and (still_open[-1][0] > column or type(still_open[-1][1]) is dict):
        still_open.pop()
    if not still_open or still_open[-1][0] != column:
        raise _NotPlain
    found: list[Any] = still_open[-1][1]
    return found


def _fields_at(column: int, still_open: _Open, awaiting: str | None) -> dict[str, Any]:
    """The mapping that a field at this column belongs to; likewise."""
    if awaiting is not None and column > still_open[-1][0]:
        begun: dict[str, Any] = {}
        return _begin(begun, column, still_open, awaiting)
    while still_open and (still_open[-1][0] > column or type(still_open[-1][1]) is list):
        still_open.pop()
    if not still_open or still_open[-1][0] != column:
        raise _NotPlain
    found: dict[str, Any] = still_open[-1][1]
    return found


def _begin(begun: _Begun, column: int, still_open: _Open, awaiting: str) -> _Begun:
    still_open[-1][1][awaiting] = begun
    still_open.append((column, begun))
    if len(still_open) > _MOST_OPEN:
        raise _NotPlain
    return begun
