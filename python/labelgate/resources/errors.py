"""What is said about a document that is refused: `Problem`, and the exceptions that carry it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from labelgate.errors import Portable
from labelgate.printable import printable, printable_lines
from labelgate.resources.messages import MESSAGES

Path = tuple[str | int, ...]
"""Where a value stands in its document: field names and list indexes, from the top."""

_PLAIN_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def path_text(path: Path) -> str:
    """A path as people write it: `spec.ingress[0].destination.ports[1]`, `metadata.labels["a.b/c"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step and _PLAIN_KEY.issuperset(step):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text


@dataclass(frozen=True, slots=True)
class Location:
    """Where a resource begins."""

    file: str
    line: int
    """Counts from 1."""
    column: int
    """Counts from 1."""
    index: int
    """Number of the document over all input, from 0; the items of a `List` share that of their list."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a document is refused."""

    file: str
    line: int
    """Counts from 1; 0 where the whole file is meant."""
    column: int
    """Counts from 1; 0 where the whole file is meant."""
    index: int
    """Number of the document over all input, from 0; -1 where the whole file is meant."""
    kind: str | None
    namespace: str | None
    name: str | None
    path: str
    """The field, for example `spec.ingress[0].action`; empty where the document is meant."""
    message: str
    found: str
    expected: str
    hint: str
    rule: str | None
    """Id of the rule that refuses it, for example `V-10`; None where it is only a matter of form."""
    code: str
    """Stable name of the message (a key of `messages.MESSAGES`)."""

    def __str__(self) -> str:
        """Several short lines: where and what, found, expected, hint."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        what = f"{self.message} ({self.rule})" if self.rule else self.message
        lines = [printable(": ".join(part for part in (place, self._resource(), self.path, what) if part))]
        for label, text in (("found", self.found), ("expected", self.expected), ("hint", self.hint)):
            indent = "\n" + " " * (len(label) + 4)
            lines.append(f"  {label}: {printable_lines(text).replace(chr(10), indent)}")
        return "\n".join(lines)

    def _resource(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    def _order(self) -> tuple[str, int, int, str, str]:
        return (self.file, self.line, self.column, self.path, self.code)


class LoadError(Portable):
    """Some documents are refused; nothing of the load may be used.

    `problems` holds all of them, sorted by file, line and column; the text is all their texts.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sort_problems(problems)
        super().__init__("\n".join(map(str, self.problems)))


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """By file, line and column; then by path and code, so that the order never depends on chance."""
    return sorted(problems, key=Problem._order)


class Wrong(Portable, ValueError):
    """A value is refused: the code of a message, and what was found.

    Parsers of values raise it; who knows where the value stands makes a `Problem` of it.
    """

    def __init__(
        self,
        code: str,
        found: str,
        *,
        hint: str | None = None,
        **words: Any,
    ) -> None:
        message = MESSAGES[code]
        self.code = code
        self.rule = message.rule
        self.message = message.text.format(**words)
        self.found = found
        self.expected = message.expected.format(**words)
        self.hint = hint or message.hint.format(**words)
        super().__init__(self.message)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong between fields: where, what, and which fields the judgement rests on.

    If one of `needs` is itself refused, the finding says nothing new and is dropped.
    """

    path: Path
    wrong: Wrong
    needs: tuple[Path, ...] = ()

    def under(self, prefix: Path) -> Finding:
        """The same finding seen from further up."""
        if not prefix:
            return self
        return Finding(prefix + self.path, self.wrong, tuple(prefix + need for need in self.needs))


Findings = Iterator[Finding]


_LIKE_A_NUMBER = re.compile(r"(?:[-+]?[0-9]+(?:\.[0-9]+)?|true|false)\Z")


def describe(value: object) -> str:
    """A value as found, in words of the policy language."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`, a yes-or-no value"
    if isinstance(value, int | float):
        digits = str(value)
        return f"`{digits}`, a number" if len(digits) <= 40 else "an absurdly long number"
    if isinstance(value, str):
        if not value:
            return "empty text"
        return f'`"{value}"`, text' if _LIKE_A_NUMBER.match(value) else quote(value)
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "a mapping" if value else "an empty mapping"


def quote(text: str) -> str:
    """Text of the user in backticks; long text is cut."""
    text = printable(text)
    limit = 120
    return f"`{text}`" if len(text) <= limit else f"`{text[:limit]}...` ({len(text)} characters)"
