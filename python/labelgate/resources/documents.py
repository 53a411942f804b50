"""Bytes of a file to documents: plain data, with the line and column of every value at hand when needed."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from labelgate.resources import positions
from labelgate.resources.errors import Path, Wrong, quote
from labelgate.resources.plain import plain_document
from labelgate.resources.positions import Place, SyntaxProblem, place_of

MAX_ALIASED = 100_000
"""Values that one document may reach through aliases: aliases of aliases grow without bound otherwise."""


@dataclass(slots=True)
class Document:
    """One document of a file."""

    data: Any
    """Mappings, lists, text, numbers, booleans and None."""
    start: Place
    problems: list[tuple[Wrong, Place, Path]] = field(default_factory=list)
    """What is wrong with its form: duplicate fields, unknown tags, runaway aliases."""
    offset: int = 0
    """Where it begins, in characters of the text."""
    _text: str = ""
    _node: Node | None = None
    _above: int | None = None
    """Of YAML: how many lines stand above the text that its nodes are of."""

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where the value at a path begins, or the nearest one around it; with `key` the field's name."""
        return _below(self._above or 0, place_of(positions.find(self.node, path, key=key)))

    def places(self, items: Sequence[Path]) -> Iterable[Place]:
        """The `place` of each item of a list of resources; of JSON without making nodes of it."""
        if items and self._node is None and self._above is None:
            return positions.json_items(self._text, self.offset)
        return map(self.place, items)

    def source(self, path: Path) -> str | None:
        """A scalar as it is written in the file."""
        node = positions.find(self.node, path)
        return str(node.value) if isinstance(node, ScalarNode) else None

    @property
    def node(self) -> Node:
        """The nodes of the document; where it was read without them they are made when first asked for."""
        if self._node is None:
            self._node = (
                next(positions.yaml_documents(self._text))
                if self._above is not None
                else positions.json_node(self._text, self.offset)
            )
        return self._node


def decode(content: bytes) -> str:
    """UTF-8 text, with or without a byte order mark.

    Raises `SyntaxProblem` where it is not.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_start = content.rfind(b"\n", 0, error.start) + 1
        column = len(content[line_start : error.start].decode(errors="replace")) + 1
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        hint = "convert it: `iconv -f UTF-16 -t UTF-8`" if is_utf16 else None
        wrong = Wrong("not-utf8", f"the byte 0x{content[error.start]:02x}", hint=hint)
        raise SyntaxProblem(wrong, Place(content.count(b"\n", 0, error.start) + 1, column)) from None


def documents(text: str, *, is_json: bool = False) -> Iterator[Document]:
    """The documents of YAML or JSON text, whichever it is; empty ones are left out.

    With `is_json` only JSON will do. Raises `SyntaxProblem` where the text stops being a document; those
    before it have been given then.
    """
    if is_json or text.lstrip(" \t\r\n").startswith("{"):
        try:
            yield from _json_documents(text)
            return
        except json.JSONDecodeError as error:
            # What is no JSON may still be YAML in braces.
            if is_json:
                found = (
                    quote(text[error.pos : error.pos + 20]) if text[error.pos :] else "the end of the text"
                )
                wrong = Wrong("syntax-json", f"{found}: {error.msg[:1].lower()}{error.msg[1:]}")
                raise SyntaxProblem(wrong, Place(error.lineno, error.colno)) from None
    yield from _yaml_documents(text)


# --- YAML ------------------------------------------------------------------------------------------------

_MARK = re.compile(r"\n---(?=[ \t\r\n]|\Z)")
"""Of a YAML document: at the start of a line nothing else reads like this, be it in quotes or in a block.

That it begins with a letter of its own lets `re` look for that alone.
"""
_OTHER_BREAKS = "\x85\u2028\u2029"
"""Line breaks that YAML counts and few others do."""


def beginnings(text: str) -> list[int]:
    """Where parts of a YAML text begin that read alike whatever stands around them; 0 is the first."""
    has_directives = text.startswith("%") or "\n%" in text
    is_odd = has_directives or any(one in text for one in _OTHER_BREAKS)
    if is_odd or text.count("\r") != text.count("\r\n"):
        return [0]
    return [0, *(found.start() + 1 for found in _MARK.finditer(text))]


def _yaml_documents(text: str) -> Iterator[Document]:
    above = 0
    for start, end in pairwise((*beginnings(text), len(text))):
        part = text[start:end]
        if (plain := plain_document(part)) is not None:
            data, offset = plain
            place = Place(above + part.count("\n", 0, offset) + 1, 1)
            yield Document(data, place, [], start + offset, part, _above=above)
        else:
            try:
                nodes = list(positions.yaml_documents(part))
            except SyntaxProblem:  # It may lie in what stands behind.
                yield from _rest(text, start, above)
                return
            yield from (_from_node(node, start, above) for node in nodes)
        above += part.count("\n")


def _rest(text: str, start: int, above: int) -> Iterator[Document]:
    """The documents from some beginning on, as far as they can be read."""
    try:
        for node in positions.yaml_documents(text[start:]):
            yield _from_node(node, start, above)
    except SyntaxProblem as problem:
        raise SyntaxProblem(problem.wrong, _below(above, problem.place)) from None


def _below(above: int, place: Place) -> Place:
    """A place in a text that has lines above it."""
    return Place(place.line + above, place.column)


# --- JSON ------------------------------------------------------------------------------------------------

_BLANK = re.compile(r"[ \t\r\n]*")


def _json_documents(text: str) -> list[Document]:
    """JSON values one after the other. Raises JSONDecodeError where the text is not that."""
    seen_twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) != len(items):
            seen_twice.append("")
        return value

    def constant(word: str) -> None:
        raise json.JSONDecodeError(f"`{word}` is not JSON", text, max(text.find(word), 0))

    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant, parse_int=positions.integer)
    found: list[Document] = []
    at, line, counted = _blank_end(text, 0), 1, 0
    while at < len(text):
        offset = at
        seen_twice.clear()
        try:
            data, at = decoder.raw_decode(text, at)
            _check_pairs(text, offset, at, data)
        except RecursionError:
            positions.json_node(text, at)  # says where it is too deep
            raise
        line, counted = line + text.count("\n", counted, offset), offset
        start = Place(line, offset - text.rfind("\n", 0, offset))
        if seen_twice:
            found.append(_from_node(positions.json_node(text, offset)))
        else:
            found.append(Document(data, start, [], offset, text))
        at = _blank_end(text, at)
    return found


_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Of a character that JSON escapes as two."""


def _check_pairs(text: str, start: int, end: int, data: Any) -> None:
    """Half of one is no character: JSONDecodeError. In YAML it is refused as well."""
    if found := _HALF.search(text, start, end):
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise json.JSONDecodeError("Half of a surrogate pair", text, found.start()) from None


def _blank_end(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


# --- nodes to data ---------------------------------------------------------------------------------------


def _from_node(node: Node, start: int = 0, above: int | None = None) -> Document:
    """The document of a node; where its text begins, and, of YAML, how many lines stand above that."""
    assert node.start_mark is not None
    place, offset = _below(above or 0, place_of(node)), start + node.start_mark.index
    try:
        return Document(_plain(node, set()), place, [], offset, _node=node, _above=above)
    except (_NotPlain, ValueError):  # An explicit tag does not fit.
        reader = _Reader(above or 0)
    data = reader.read(node, ())
    return Document(data, place, reader.problems, offset, _node=node, _above=above)


class _NotPlain(Exception):
    """There are aliases, tags, merges or fields twice."""


def _plain(node: Node, seen: set[int]) -> Any:
    """What `_Reader` makes of nodes of the common kind, in half the time: it follows no paths.

    Raises `_NotPlain` for all others.
    """
    if isinstance(node, ScalarNode):
        tag = node.tag
        if tag == positions.TEXT:
            return node.value
        if tag not in _PLAIN_TAGS:
            raise _NotPlain
        return positions.scalar_value(node.tag, node.value)
    if id(node) in seen:
        raise _NotPlain
    seen.add(id(node))
    if node.tag == positions.MAPPING:
        data = {
            key.value: _plain(value, seen)
            for key, value in node.value
            if key.tag == positions.TEXT and isinstance(key, ScalarNode)
        }
        if len(data) != len(node.value):
            raise _NotPlain
        return data
    if node.tag == positions.SEQUENCE:
        return [_plain(item, seen) for item in node.value]
    raise _NotPlain


_PLAIN_TAGS = frozenset((positions.BOOL, positions.INT, positions.FLOAT, positions.NULL))


class _Reader:
    """Nodes to plain data; what is wrong is collected, and reading goes on."""

    def __init__(self, above: int) -> None:
        self.problems: list[tuple[Wrong, Place, Path]] = []
        self._above = above
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._aliased = 0
        self._within_alias = 0
        self._is_too_deep = False

    def read(self, node: Node, path: Path) -> Any:
        if self._within_alias:
            self._aliased += 1
            if self._aliased > MAX_ALIASED:
                if self._aliased == MAX_ALIASED + 1:
                    self._add(Wrong("alias-count", f"more than {MAX_ALIASED}", limit=MAX_ALIASED), node, path)
                return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        identity = id(node)
        if identity in self._open:
            self._add(Wrong("alias-loop", "an alias of a value that is not finished here"), node, path)
            return None
        if len(self._open) > positions.MAX_DEPTH:  # By aliases: what is written is counted before.
            if not self._is_too_deep:
                self._add(positions.too_deep(), node, path)
            self._is_too_deep = True
            return None
        again = identity in self._seen
        self._seen.add(identity)
        self._open.add(identity)
        self._within_alias += again
        if isinstance(node, MappingNode):
            value: Any = self._mapping(node, path)
        else:
            assert isinstance(node, SequenceNode)
            value = self._list(node, path)
        self._within_alias -= again
        self._open.discard(identity)
        return value

    def _list(self, node: SequenceNode, path: Path) -> list[Any]:
        self._check_tag(node, path, positions.SEQUENCE)
        return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        self._check_tag(node, path, positions.MAPPING)
        data: dict[str, Any] = {}
        first: dict[str, Node] = {}
        merges: list[Node] = []
        for name, value in node.value:
            if name.tag == positions.MERGE:
                merges.append(value)
                continue
            key = self._key(name, path)
            if key is None:
                continue
            if key in first:
                place = _below(self._above, place_of(first[key]))
                wrong = Wrong("key-duplicate", quote(key), line=place.line, column=place.column)
                self._add(wrong, name, (*path, key))
                continue
            first[key] = name
            data[key] = self.read(value, (*path, key))
        for source in merges:
            for key, value in self._merged(source, path).items():
                data.setdefault(key, value)
        return data

    def _merged(self, node: Node, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            if isinstance(source, MappingNode):
                data = (self.read(source, path) or {}) | data  # None: it is refused.
            else:
                self._add(
                    Wrong("merge-value", "text" if isinstance(source, ScalarNode) else "a list"), source, path
                )
        return data

    def _key(self, node: Node, path: Path) -> str | None:
        if isinstance(node, ScalarNode) and (node.tag == positions.TEXT or node.tag.endswith(":str")):
            return str(node.value)
        if isinstance(node, ScalarNode):
            self._add(Wrong("key-not-text", quote(node.value), source=node.value), node, path)
        else:
            kind = "a mapping" if isinstance(node, MappingNode) else "a list"
            self._add(Wrong("key-not-text", kind, hint="a field name is plain text", source=""), node, path)
        return None

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        if node.tag.startswith(("tag:", "!")):
            self._check_tag(node, path, None)
        try:
            return positions.scalar_value(node.tag, node.value)
        except ValueError:
            self._add(Wrong("tag", f"{quote(node.value)} under an explicit tag"), node, path)
            return None

    def _check_tag(self, node: Node, path: Path, fit: str | None) -> None:
        if node.tag == fit:
            return
        core = positions.core_tag(node.tag)
        if core is None or (fit is not None and core != fit):
            hint = positions.BARE_SELECTOR if "(" in node.tag else None
            self._add(Wrong("tag", quote(node.tag), hint=hint), node, path)
            core = fit or positions.TEXT
        node.tag = core

    def _add(self, wrong: Wrong, node: Node, path: Path) -> None:
        self.problems.append((wrong, _below(self._above, place_of(node)), path))
