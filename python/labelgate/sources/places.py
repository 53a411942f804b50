"""Where fields stand in their files, which are read once more for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labelgate.resources import Location
from labelgate.resources.documents import Document, decode, documents
from labelgate.resources.errors import Path
from labelgate.resources.kinds import items_of
from labelgate.resources.positions import Place, SyntaxProblem
from labelgate.sources.files import STDIN, read_file

_NO_FILES = (STDIN, "<stdin>", "<text>", "<data>")


class Places:
    """Of what has changed since, only where the resource begins."""

    def __init__(self, texts: Mapping[str, bytes] | None = None) -> None:
        """`texts` are contents by file name, of what cannot be read again."""
        self._texts = dict(texts or {})
        self._resources: dict[str, dict[Place, tuple[Document, Path]]] = {}

    def place(self, location: Location, path: Path) -> Place:
        """Line and column of a field of a resource, or of the nearest one around it that is written."""
        start = Place(location.line, location.column)
        document, above = self._of(location.file).get(start, (None, ()))
        if document is None or not path:
            return start
        # The name of a field tells more than its value, which may begin in a line further down.
        return document.place((*above, *path), key=isinstance(path[-1], str))

    def _of(self, file: str) -> Mapping[Place, tuple[Document, Path]]:
        """Resources of a file, by where they begin: their document, and their path in it."""
        if file not in self._resources:
            content = self._texts.get(file)
            if content is None and file not in _NO_FILES:
                read = read_file(file)
                content = read if isinstance(read, bytes) else None
            self._resources[file] = {} if content is None else dict(_resources(content, file))
        return self._resources[file]


def _resources(content: bytes, file: str) -> Iterator[tuple[Place, tuple[Document, Path]]]:
    try:
        for document in documents(decode(content), is_json=file.endswith(".json")):
            paths: list[Path] = [path for path, _ in items_of(document.data) or ()]
            yield document.start, (document, ())
            yield from zip(document.places(paths), ((document, path) for path in paths), strict=True)
    except SyntaxProblem:
        return
