"""Which events somebody wants to see: terms such as `policy=*/web`, with `and`, `or` and `not`.

```text
expression = term { ("and" | "or") term }      left to right, `and` binds closer than `or`
term       = "not" term | "(" expression ")" | field ("=" | "!=") value
```

A value is text without spaces and brackets, or in quotes. `src` and `dst` take an address or a CIDR,
`protocol` a name or a number, ports and `rule` a number; all other fields are compared as text, with `*` for
any part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any

Event = Mapping[str, Any]
Predicate = Callable[[Event], bool]

TEXTS = (
    "kind", "hook", "verdict", "in", "out", "endpoint", "stage", "tier", "policy", "direction", "action",
    "reason",
)  # fmt: skip
ADDRESSES = ("src", "dst")
NUMBERS = ("sport", "dport", "rule", "generation")
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
FIELDS = sorted((*TEXTS, *ADDRESSES, *NUMBERS, "protocol"))
MOST_CHARACTERS, MOST_DEPTH = 4096, 50

_TOKEN = re.compile(r"\s*(?:(?P<mark>\(|\)|!=|=)|\"(?P<quoted>[^\"]*)\"|(?P<word>[^\s()=!\"]+))")


class ExpressionError(ValueError):
    """The text is no expression: says where, what was found and what was expected."""


def parse(text: str) -> Predicate:
    """Reads an expression.

    Raises:
        ExpressionError: it cannot be read.

    >>> wanted = parse("policy=*/web and not (dport=80 or dport=443)")
    >>> wanted({"policy": "GlobalNetworkPolicy/web", "dport": 22})
    True
    """
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"the expression is too long: expected {MOST_CHARACTERS} characters at most")
    return _Reader(text).whole()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        """Kind, text, column."""
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:
                column = position + len(text[position:]) - len(text[position:].lstrip())
                raise self._error(column, f"found `{text[column]}`")
            kind = found.lastgroup or ""
            self._tokens.append((kind, found[kind], found.start(kind)))
            position = found.end()
        self._next = 0
        self._depth = 0

    def whole(self) -> Predicate:
        predicate = self._either()
        if (token := self._peek()) is not None:
            raise self._error(token[2], f"found `{token[1]}`, expected `and`, `or` or the end")
        return predicate

    def _either(self) -> Predicate:
        terms = [self._both()]
        while self._takes("word", "or"):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else lambda event: any(term(event) for term in terms)

    def _both(self) -> Predicate:
        terms = [self._term()]
        while self._takes("word", "and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else lambda event: all(term(event) for term in terms)

    def _term(self) -> Predicate:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise self._error(len(self._text), f"more than {MOST_DEPTH} brackets and `not`")
        try:
            if self._takes("word", "not"):
                inner = self._term()
                return lambda event: not inner(event)
            if self._takes("mark", "("):
                inner = self._either()
                if not self._takes("mark", ")"):
                    raise self._expected("`)`")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Predicate:
        token = self._peek()
        if token is None or token[0] != "word":
            raise self._expected("a field")
        field, column = token[1], token[2]
        if field not in FIELDS:
            raise self._error(column, f"found `{field}`, expected a field: {', '.join(FIELDS)}")
        self._next += 1
        is_not = self._takes("mark", "!=")
        if not is_not and not self._takes("mark", "="):
            raise self._expected("`=` or `!=`")
        value = self._peek()
        if value is None or value[0] == "mark":
            raise self._expected("a value")
        self._next += 1
        try:
            equals = _equals(field, value[1])
        except ValueError as error:
            raise self._error(value[2], f"found `{value[1]}`, expected {error}") from None
        return (lambda event: not equals(event)) if is_not else equals

    def _peek(self) -> tuple[str, str, int] | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _takes(self, kind: str, text: str) -> bool:
        token = self._peek()
        if token is None or token[:2] != (kind, text):
            return False
        self._next += 1
        return True

    def _expected(self, what: str) -> ExpressionError:
        token = self._peek()
        if token is None:
            return self._error(len(self._text), f"found the end, expected {what}")
        return self._error(token[2], f"found `{token[1]}`, expected {what}")

    def _error(self, column: int, words: str) -> ExpressionError:
        return ExpressionError(f"{words}\n  {self._text}\n  {' ' * column}^")


def _equals(field: str, value: str) -> Predicate:
    """ValueError says what was expected."""
    if field in ADDRESSES:
        try:
            network = ip_network(value, strict=False)
        except ValueError:
            raise ValueError("an address or a CIDR") from None
        return lambda event: event[field] is not None and ip_address(event[field]) in network
    if field == "protocol":
        if value.lower() not in PROTOCOLS and not _is_number(value):
            raise ValueError(f"a number or one of {', '.join(PROTOCOLS)}")
        number = PROTOCOLS.get(value.lower()) or int(value)
        return lambda event: bool(event["protocol"] == number)
    if field in NUMBERS:
        if not _is_number(value):
            raise ValueError("a number")
        return lambda event: bool(event[field] == int(value))
    return lambda event: event[field] is not None and fnmatchcase(str(event[field]), _pattern(value))


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 10


def _pattern(value: str) -> str:
    """`*` alone has a meaning."""
    return value.replace("[", "[[]").replace("?", "[?]")
