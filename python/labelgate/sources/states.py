"""Two states of the same resources: a document that stands in both is read once.

What comes of it is what reading each state by itself gives, places and errors too: where anything in the
second state is wrong, or cannot be cut into documents beyond doubt, it is read as if there was no first one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from labelgate.resources import Loading, Location, Resource
from labelgate.resources.documents import beginnings, decode
from labelgate.resources.errors import Wrong
from labelgate.resources.positions import SyntaxProblem
from labelgate.sources.files import Progress, all_files, file_name, in_turn, read_file


def load_states(
    old: str, new: str, progress: Progress = lambda done, whole: None
) -> tuple[list[Resource], list[Resource]]:
    """The resources of two paths, each as `load_documents` gives them.

    `progress` is told of one after the other.

    Raises `LoadError` with the problems of all files of the first path that has any.
    """
    contents, loading = _contents(old), Loading()
    _read(contents, loading, progress)
    resources = loading.result()
    again = _Again(_known(loading, contents))
    contents = _contents(new)
    if again.read(contents, progress):
        return resources, again.resources
    loading = Loading()
    _read(contents, loading, progress)
    return resources, loading.result()


_Contents = dict[str, bytes | Wrong]
"""By file; why one cannot be read."""


def _contents(path: str) -> _Contents:
    return {file: read_file(file) for file in all_files([path])}


def _read(contents: _Contents, loading: Loading, progress: Progress) -> None:
    """Document by document."""
    for file, done in in_turn(contents, progress):
        content = contents[file]
        if isinstance(content, bytes):
            loading.add(content, file_name(file), done)
        else:
            loading.add_unreadable(content, file_name(file))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a text that begins where a document does, and reads alike whatever stands around it."""

    text: str
    line: int
    """Where it begins, from 0."""
    how: str
    """`part` of a YAML text, else a whole text, by whether only JSON will do: these are not read alike."""

    @property
    def key(self) -> tuple[str, str]:
        """Of pieces that hold the same."""
        return self.how, self.text


def _pieces(text: str, file: str) -> list[_Piece]:
    edges = (*beginnings(text), len(text))
    if len(edges) == 2 or file.endswith(".json"):
        return [_Piece(text, 0, "json" if file.endswith(".json") else "whole")]
    found, line = list[_Piece](), 0
    for start, end in pairwise(edges):
        piece = text[start:end]
        found.append(_Piece(piece, line, "part"))
        line += piece.count("\n")
    return found


@dataclass(slots=True)
class _Held:
    """What a piece holds; nothing in it is refused."""

    line: int
    """Of the piece, from 0."""
    index: int = -1
    """Of its first document over all input."""
    documents: int = 0
    resources: list[Resource] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Also of expectations, which are no resources."""


_Known = dict[tuple[str, str], _Held]


def _known(loading: Loading, contents: _Contents) -> _Known:
    """What each piece of texts holds in which nothing is wrong."""
    places: dict[str, tuple[list[int], list[_Held]]] = {}
    known: _Known = {}
    for file, content in contents.items():
        assert isinstance(content, bytes)
        pieces = _pieces(decode(content), file)
        held = [_Held(piece.line) for piece in pieces]
        places[file_name(file)] = [piece.line for piece in pieces], held
        known.update((piece.key, one) for piece, one in zip(pieces, held, strict=True))

    def at(file: str, line: int) -> _Held:
        lines, held = places[file]
        return held[bisect_right(lines, line - 1) - 1]

    for document in loading.documents:
        one = at(document.file, document.line)
        one.index = document.index if one.index < 0 else one.index
        one.documents += 1
    for key, where in loading.first.items():
        at(where.file, where.line).keys.append(key)
    for resource in loading.resources:
        where = resource.location
        at(where.file, where.line).resources.append(resource)
    return known


class _Again:
    """A state of which most is known."""

    def __init__(self, known: _Known) -> None:
        self._known = known
        self._keys: set[str] = set()
        self._documents = 0
        self.resources: list[Resource] = []

    def read(self, contents: _Contents, progress: Progress) -> bool:
        """Whether nothing is wrong in any of it."""
        for file, done in in_turn(contents, progress):
            content = contents[file]
            try:
                text = decode(content) if isinstance(content, bytes) else None
            except SyntaxProblem:
                return False
            if text is None or not all(self._add(run, file_name(file)) for run in self._runs(text, file)):
                return False
            done(len(text))
        return True

    def _runs(self, text: str, file: str) -> Iterator[list[_Piece]]:
        """Pieces in turn: each known one by itself, others as far as they are neighbours."""
        for is_known, found in groupby(_pieces(text, file), lambda piece: piece.key in self._known):
            if is_known:
                yield from ([piece] for piece in found)
            else:
                yield list(found)

    def _add(self, run: list[_Piece], file: str) -> bool:
        held = self._known.get(run[0].key) or _parsed(run, file)
        if held is None:
            return False
        for key in held.keys:
            if key in self._keys:
                return False
            self._keys.add(key)
        lines, documents = run[0].line - held.line, self._documents - held.index
        for resource in held.resources:
            moved, where = copy(resource), resource.location
            moved.put_location(Location(file, where.line + lines, where.column, where.index + documents))
            self.resources.append(moved)
        self._documents += held.documents
        return True


def _parsed(run: list[_Piece], file: str) -> _Held | None:
    """None where something is wrong, which is told better with all that stands around it."""
    loading, text = Loading(), "".join(piece.text for piece in run)
    # What comes before the first mark may look like JSON by itself: with a mark it is read as YAML.
    is_odd = run[0].how == "part" and text.lstrip().startswith("{")
    loading.add("---\n" + text if is_odd else text, file)
    if loading.problems:
        return None
    return _Held(int(is_odd), 0, len(loading.documents), loading.resources, list(loading.first))
