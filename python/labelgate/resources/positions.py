"""YAML and JSON text to nodes that know their line and column.

A node is PyYAML's (`ScalarNode`, `SequenceNode`, `MappingNode`); its tag is one of the short words below.
Scalars are read as Kubernetes tools read them: YAML 1.1 words and octal numbers, but no base 60 and no dates.
One exception: single letters `y` and `n` are text, since a label may well have such a value, and nobody means
more by them; where yes or no is asked for they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from yaml._yaml import CParser
from yaml.error import Mark, MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from labelgate.errors import Portable
from labelgate.resources.errors import Path, Wrong, quote

MAX_DEPTH = 100
"""Levels of nesting; the deepest resource that is read has about ten."""

TEXT, BOOL, INT, FLOAT, NULL, MERGE = "text", "bool", "int", "float", "null", "merge"
MAPPING, SEQUENCE = "map", "seq"
_CORE_TAGS = {
    "tag:yaml.org,2002:" + name: tag
    for name, tag in {
        "str": TEXT, "bool": BOOL, "int": INT, "float": FLOAT, "null": NULL, "map": MAPPING, "seq": SEQUENCE,
    }.items()
}  # fmt: skip


class Place(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


class SyntaxProblem(Portable):
    """The text is no document: what and where."""

    def __init__(self, wrong: Wrong, place: Place) -> None:
        super().__init__(wrong.message)
        self.wrong = wrong
        self.place = place


def too_deep() -> Wrong:
    """More levels than anybody writes."""
    return Wrong("nesting", f"level {MAX_DEPTH + 1}", limit=MAX_DEPTH)


def place_of(node: Node) -> Place:
    """Where a node begins."""
    assert node.start_mark is not None
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


# --- scalars ---------------------------------------------------------------------------------------------

BOOLS = {word: True for name in ("yes", "true", "on") for word in (name, name.title(), name.upper())}
BOOLS |= {word: False for name in ("no", "false", "off") for word in (name, name.title(), name.upper())}
WORDS = dict.fromkeys(BOOLS, BOOL) | dict.fromkeys(("", "~", "null", "Null", "NULL"), NULL) | {"<<": MERGE}
"""Unquoted scalars that are neither text nor numbers, with their tags."""
_FIRST = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*|0[0-7]+|0[oO][0-7]+|0[xX][0-9a-fA-F]+|0[bB][01]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)


def scalar_tag(text: str) -> str:
    """What an unquoted scalar is."""
    if (word := WORDS.get(text)) is not None:
        return word
    if text[0] not in _FIRST:
        return TEXT
    digits = text.replace("_", "")
    if _INT.match(digits):
        return INT
    return FLOAT if _FLOAT.match(digits) else TEXT


def scalar_value(tag: str, text: str) -> str | bool | int | float | None:
    """The value of a scalar with one of the short tags.

    Raises ValueError where an explicit tag does not fit the text.
    """
    match tag:
        case "text" | "merge":
            return text
        case "bool":
            if text not in BOOLS:
                raise ValueError(text)
            return BOOLS[text]
        case "int":
            return integer(text.replace("_", ""))
        case "float":
            number = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            # Kubernetes tools turn YAML into JSON, where 443.0 is the whole number 443.
            return int(number) if number.is_integer() and abs(number) < 1e21 else number
        case "null":
            return None
    raise ValueError(text)


MAX_DIGITS = 400
"""Longer numbers cost time that grows with the square of their length; no field takes one of 20 digits."""


def integer(digits: str) -> int:
    """A whole number as YAML and JSON write it; absurdly long ones count as 10^399."""
    if len(digits) > MAX_DIGITS:
        return int(10 ** (MAX_DIGITS - 1))
    if re.match(r"[-+]?0[0-7]+\Z", digits):
        return int(digits, 8)
    return int(digits, 0)


# --- YAML ------------------------------------------------------------------------------------------------


class _Composer(CParser):
    """PyYAML's C composer with our scalars and a bound on nesting (it recurses on the C stack)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def resolve(self, kind: type[Node], value: str, implicit: Any) -> str:
        if kind is ScalarNode:
            return scalar_tag(value) if implicit[0] else TEXT
        return MAPPING if kind is MappingNode else SEQUENCE

    def descend_resolver(self, parent: Node | None, _index: object) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH + 1:
            assert parent is not None
            raise SyntaxProblem(too_deep(), place_of(parent))

    def ascend_resolver(self) -> None:
        self._depth -= 1


BARE_SELECTOR = "put the selector in quotes: YAML takes what begins with `!` for a tag"
_BEFORE = re.compile(r"[sS]elector:[ \t]+!.*\Z")

_ALIAS = re.compile(r"\*([\w-]+)")
_TO_DEFINE = 'define it before, as `&{0}`, or put the text in quotes: `"*{0}"`'


def yaml_documents(text: str) -> Iterator[Node]:
    """The documents of YAML text, as nodes; empty ones are left out.

    Raises `SyntaxProblem` where the text stops being YAML.
    """
    try:
        composer = _Composer(text)
        while composer.check_node():
            node = composer.get_node()
            assert node is not None
            if node.tag != NULL:
                yield node
    except ReaderError as error:
        # Its position counts bytes.
        before = text.encode()[: error.position].decode(errors="ignore")
        wrong = Wrong("syntax", f"the character 0x{error.character:02x}", hint="remove control characters")
        raise SyntaxProblem(wrong, _place_in(before, len(before))) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        said = (part.removeprefix("found ") for part in (error.problem, error.context) if part)
        found = ", ".join(part.replace("did not find expected ", "no ") for part in said)
        # Behind a last line without a line break libyaml counts one line more.
        is_end = mark.index >= len(text)
        line_start, hint = text.rfind("\n", 0, mark.index) + 1, None
        if alias := _ALIAS.match(text, mark.index) if found == "undefined alias" else None:
            found, hint = f"the alias {quote(alias[0])}, which is not defined", _TO_DEFINE.format(alias[1])
        elif text.startswith("::", mark.index):
            hint = "put IPv6 addresses and networks that begin with `::` in quotes"
        elif _BEFORE.search(text[line_start : mark.index]):
            hint = BARE_SELECTOR
        place = _place_in(text, len(text)) if is_end else Place(mark.line + 1, mark.column + 1)
        raise SyntaxProblem(Wrong("syntax", found, hint=hint), place) from None
    except YAMLError as error:
        raise SyntaxProblem(Wrong("syntax", quote(str(error))), Place(1, 1)) from None


def core_tag(tag: str) -> str | None:
    """The short word of an explicit tag; None where it is not one of YAML's own."""
    return _CORE_TAGS.get(tag, TEXT if tag == "!" else None)


# --- JSON ------------------------------------------------------------------------------------------------


_JSON_TOKEN = re.compile(r'[ \t\n\r]*(?:([{}\[\]:,"])|([^\s{}\[\]:,"]+)|\Z)')


class _JsonComposer:
    """JSON text to nodes. Only used where a position is asked for: `json` reads values much faster."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._at = start
        self._line = text.count("\n", 0, start)
        self._line_start = text.rfind("\n", 0, start) + 1
        self._counted = start

    def value(self, depth: int) -> Node:
        token, start = self._token()
        mark = self._mark(start)
        if token == "{" or token == "[":
            if depth >= MAX_DEPTH:
                raise SyntaxProblem(too_deep(), Place(mark.line + 1, mark.column + 1))
            items = self._items(token, depth)
            return MappingNode(MAPPING, items, mark) if token == "{" else SequenceNode(SEQUENCE, items, mark)
        if token == '"':
            text, self._at = scanstring(self._text, self._at, False)
            return ScalarNode(TEXT, text, mark)
        return ScalarNode(scalar_tag(token), token, mark)

    def _items(self, opening: str, depth: int) -> list[Any]:
        items: list[Any] = []
        closing = "}" if opening == "{" else "]"
        while True:
            token, start = self._token()
            if token == closing:
                return items
            if token == ",":
                continue
            self._at = start
            item = self.value(depth + 1)
            if opening == "{":
                self._token()  # the colon
                items.append((item, self.value(depth + 1)))
            else:
                items.append(item)

    def _token(self) -> tuple[str, int]:
        match = _JSON_TOKEN.match(self._text, self._at)
        if match is None or match.lastindex is None:
            raise SyntaxProblem(Wrong("syntax-json", "the end of the text"), _place_in(self._text, self._at))
        self._at = match.end()
        return match[match.lastindex], match.start(match.lastindex)

    def _mark(self, at: int) -> Mark:
        self._line += self._text.count("\n", self._counted, at)
        self._line_start = max(self._line_start, self._text.rfind("\n", self._counted, at) + 1)
        self._counted = at
        return Mark("", at, self._line, at - self._line_start, None, 0)


def json_node(text: str, start: int) -> Node:
    """The node of the JSON value at an offset; the text is known to be JSON, or to be nested too deeply."""
    return _JsonComposer(text, start).value(0)


_BETWEEN = re.compile(r"[ \t\n\r,:]*")


def json_items(text: str, start: int) -> Iterator[Place]:
    """Where the items of a list of resources begin: of JSON that is known to be one, at an offset.

    Values are stepped over by `json`, which takes a small part of the time that their nodes take.
    """
    step = JSONDecoder(parse_int=str).raw_decode

    def behind(at: int) -> int:
        match = _BETWEEN.match(text, at)
        return match.end() if match else at

    at, name = start, None
    if text[start] == "{":
        at = behind(start + 1)
        while name != "items":
            at = behind(at if name is None else step(text, at)[1])
            name, at = step(text, at)
            at = behind(at)
    at = behind(at + 1)
    line, counted = 1, 0
    while text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        yield Place(line, at - text.rfind("\n", 0, at))
        at = behind(step(text, at)[1])


def _place_in(text: str, offset: int) -> Place:
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


# --- finding a value -------------------------------------------------------------------------------------


def find(root: Node, path: Path, *, key: bool = False) -> Node:
    """The node at a path, or the deepest one on the way that exists; with `key` the last field's name."""
    node = root
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, MappingNode):
            pair = _pair(node, str(step))
            if pair is None:
                return node
            node = pair[0] if key and last else pair[1]
        elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            return node
    return node


def _pair(node: MappingNode, name: str) -> tuple[Node, Node] | None:
    merged = None
    for name_node, value in node.value:
        if name_node.tag == MERGE:
            sources = value.value if isinstance(value, SequenceNode) else [value]
            for source in sources:
                merged = merged or (_pair(source, name) if isinstance(source, MappingNode) else None)
        elif name_node.value == name:
            return name_node, value
    return merged
