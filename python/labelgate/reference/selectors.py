"""Selectors, section 2 of the semantics: parser, evaluator, and the rewriting that M-21, M-22, E-1 ask for.

The parser keeps one `_Group` per open parenthesis on an explicit stack, so the nesting of a selector is not
limited by Python's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

_BLANK = re.compile(r"[ \t]*")
_NAME = re.compile(r"[A-Za-z0-9_./-]+")
_FUNCTION = re.compile(r"(has|all|global)\(")
_OPERATOR = re.compile(
    r"==|!=|(?:contains|starts[ \t]*with|ends[ \t]*with|in|not[ \t]*in)(?![A-Za-z0-9_./-])",
)
_STRING = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_LONGEST_NAME = 512


class SelectorError(ValueError):
    """A text that is no selector (S-1..S-12); the message tells what was expected, and where."""


@dataclass(frozen=True, slots=True)
class All:
    """`all()`, always true (S-11)."""


@dataclass(frozen=True, slots=True)
class Global:
    """`global()`, true as an expression (S-11); M-22 gives it its meaning."""


@dataclass(frozen=True, slots=True)
class Has:
    """`has(key)`: the label is present, perhaps with an empty value (S-10)."""

    key: str


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison of one label with one value, or for `in` and `not in` with a set of them."""

    key: str
    operator: str
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Not:
    """`!operand`."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class And:
    """All of the operands hold."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the operands holds."""

    operands: tuple[Expression, ...]


Expression = All | Global | Has | Compare | Not | And | Or
Labels = Mapping[str, str]

_COMPARISONS: dict[str, Callable[[str, frozenset[str]], bool]] = {
    "==": lambda label, values: label in values,
    "!=": lambda label, values: label not in values,
    "in": lambda label, values: label in values,
    "not in": lambda label, values: label not in values,
    "contains": lambda label, values: any(value in label for value in values),
    "starts with": lambda label, values: any(label.startswith(value) for value in values),
    "ends with": lambda label, values: any(label.endswith(value) for value in values),
}
_TRUE_WITHOUT_LABEL = ("!=", "not in")


def matches(expression: Expression, labels: Labels) -> bool:
    """Whether labels satisfy an expression (S-8..S-11)."""
    match expression:
        case All() | Global():
            return True
        case Has(key):
            return key in labels
        case Compare(key, operator, values):
            if key not in labels:
                return operator in _TRUE_WITHOUT_LABEL  # S-9
            return _COMPARISONS[operator](labels[key], values)
        case Not(operand):
            return not matches(operand, labels)
        case And(operands):
            return all(matches(operand, labels) for operand in operands)
        case Or(operands):
            return any(matches(operand, labels) for operand in operands)


def equals(key: str, value: str) -> Expression:
    """`key == "value"`."""
    return Compare(key, "==", frozenset([value]))


def prefixed(expression: Expression, prefix: str) -> Expression:
    """The expression with every label name prefixed, as M-21 and E-1 ask with `pcns.` and `pcsa.`."""

    def leaf(node: Expression) -> Expression:
        match node:
            case Has(key):
                return Has(prefix + key)
            case Compare(key, operator, values):
                return Compare(prefix + key, operator, values)
        return node

    return _each_leaf(expression, leaf)


def replaced(expression: Expression, old: Expression, new: Expression) -> Expression:
    """The expression with every leaf that is `old` replaced by `new`: M-22 and E-1, done on the tree."""
    return _each_leaf(expression, lambda node: new if node == old else node)


def _each_leaf(expression: Expression, change: Callable[[Expression], Expression]) -> Expression:
    match expression:
        case Not(operand):
            return Not(_each_leaf(operand, change))
        case And(operands):
            return And(tuple(_each_leaf(operand, change) for operand in operands))
        case Or(operands):
            return Or(tuple(_each_leaf(operand, change) for operand in operands))
    return change(expression)


def canonical(expression: Expression) -> str:
    """The canonical text of an expression (S-13)."""
    match expression:
        case All():
            return "all()"
        case Global():
            return "global()"
        case Has(key):
            return f"has({key})"
        case Compare(key, "in" | "not in" as operator, values):
            return f"{key} {operator} {{{', '.join(_quoted(value) for value in sorted(values))}}}"
        case Compare(key, operator, values):
            return f"{key} {operator} {''.join(_quoted(value) for value in values)}"
        case Not(operand):
            return f"!{canonical(operand)}"
        case And(operands):
            return f"({' && '.join(canonical(operand) for operand in operands)})"
        case Or(operands):
            return f"({' || '.join(canonical(operand) for operand in operands)})"


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """The expression that a text stands for; raises `SelectorError` (S-1..S-7, S-12)."""
    reader = _Reader(text)
    if reader.at_end():
        return All()  # S-12
    group, enclosing = _Group(), list[_Group]()
    while True:
        while reader.take("!"):
            group.negated = not group.negated  # S-2
        if reader.take("("):
            enclosing.append(group)
            group = _Group()
            continue
        group.add(_primary(reader))
        while reader.take(")"):
            if not enclosing:
                raise reader.error("nothing to close")
            inner, group = group, enclosing.pop()
            group.add(inner.expression())
        if reader.take("||"):
            group.begin_alternative()
        elif not reader.take("&&"):
            break
    if enclosing:
        raise reader.error("')' expected")
    if not reader.at_end():
        raise reader.error("'&&', '||' or the end expected")
    return group.expression()


@dataclass(slots=True)
class _Group:
    """What has been read of one parenthesised group (or of the whole text)."""

    alternatives: list[list[Expression]] = field(default_factory=lambda: [[]])
    negated: bool = False
    """Whether the next primary stands behind an odd number of `!`."""

    def add(self, primary: Expression) -> None:
        """A complete primary, in the conjunction that is being read."""
        self.alternatives[-1].append(_negation(primary) if self.negated else primary)
        self.negated = False

    def begin_alternative(self) -> None:
        """`||` was read; it binds less tightly than `&&` (S-1)."""
        self.alternatives.append([])

    def expression(self) -> Expression:
        """The whole group; a group of one operand is that operand."""
        conjunctions = [
            operands[0] if len(operands) == 1 else And(tuple(operands)) for operands in self.alternatives
        ]
        return conjunctions[0] if len(conjunctions) == 1 else Or(tuple(conjunctions))


def _negation(primary: Expression) -> Expression:
    """Pairs of `!` cancel out, also where only parentheses part them (S-2, S-13)."""
    return primary.operand if isinstance(primary, Not) else Not(primary)


@dataclass(slots=True)
class _Reader:
    """A place in a selector text."""

    text: str
    place: int = 0

    def skip_blanks(self) -> None:
        """Only spaces and tabs are blanks (S-3)."""
        if blanks := _BLANK.match(self.text, self.place):
            self.place = blanks.end()

    def at_end(self) -> bool:
        """Whether only blanks are left."""
        self.skip_blanks()
        return self.place == len(self.text)

    def take(self, token: str) -> bool:
        """Whether the token comes next, blanks aside; if so it is passed."""
        self.skip_blanks()
        found = self.text.startswith(token, self.place)
        self.place += len(token) if found else 0
        return found

    def expect(self, token: str) -> None:
        """The token must come next."""
        if not self.take(token):
            raise self.error(f"{token!r} expected")

    def take_pattern(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What the pattern finds next, blanks aside; if anything, it is passed."""
        self.skip_blanks()
        found = pattern.match(self.text, self.place)
        if found:
            self.place = found.end()
        return found

    def error(self, message: str) -> SelectorError:
        """The error to raise about this place."""
        return SelectorError(f"{message} at offset {self.place} of {self.text!r}")


def _primary(reader: _Reader) -> Expression:
    function = reader.take_pattern(_FUNCTION)  # S-4: only with "(" right behind the word
    if function is None:
        return _comparison(reader)
    expression: Expression = All() if function[1] == "all" else Global()
    if function[1] == "has":
        expression = Has(_name(reader))
    reader.expect(")")
    return expression


def _comparison(reader: _Reader) -> Expression:
    key = _name(reader)
    found = reader.take_pattern(_OPERATOR)
    if found is None:
        raise reader.error("an operator expected after the label")
    operator = _spelled(found[0])
    values = _set(reader) if operator in ("in", "not in") else frozenset([_string(reader)])
    return Compare(key, operator, values)


def _spelled(operator: str) -> str:
    """`startswith`, `endswith` and `notin` with their blank (S-5, S-13)."""
    word = re.sub(r"[ \t]", "", operator)
    return {"startswith": "starts with", "endswith": "ends with", "notin": "not in"}.get(word, word)


def _name(reader: _Reader) -> str:
    found = reader.take_pattern(_NAME)
    if found is None:
        raise reader.error("a label name expected")
    if len(found[0]) > _LONGEST_NAME:
        raise reader.error(f"a label name has at most {_LONGEST_NAME} characters")
    return found[0]


def _string(reader: _Reader) -> str:
    found = reader.take_pattern(_STRING)  # S-6
    if found is None:
        raise reader.error("a string in quotes expected")
    return found[1] if found[1] is not None else found[2]


def _set(reader: _Reader) -> frozenset[str]:
    """S-7: perhaps empty, perhaps with one trailing comma."""
    reader.expect("{")
    values = set[str]()
    while not reader.take("}"):
        values.add(_string(reader))
        if not reader.take(","):
            reader.expect("}")
            break
    return frozenset(values)
