"""Lines of fields: the files of findings are read once more, as nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from yaml.nodes import Node, SequenceNode

from labelgate.resources import positions
from labelgate.resources.documents import decode, documents
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource
from labelgate.resources.positions import Place, SyntaxProblem, place_of


class Places:
    """Where fields stand in their files; of what has changed since, only where the resource begins."""

    def __init__(self, texts: Mapping[str, bytes] | None = None) -> None:
        """`texts` are contents by file name, of what cannot be read again."""
        self._texts = dict(texts or {})
        self._nodes: dict[str, dict[Place, Node]] = {}

    def place(self, resource: Resource, path: Path) -> Place:
        """Line and column of the field, or of the nearest one around it that is written."""
        location = resource.location
        start = Place(location.line, location.column)
        node = self._node(resource.location.file, start)
        if node is None or not path:
            return start
        # The name of a field tells more than its value, which may begin in a line further down.
        return place_of(positions.find(node, path, key=isinstance(path[-1], str)))

    def _node(self, file: str, start: Place) -> Node | None:
        if file not in self._nodes:
            self._nodes[file] = dict(self._read(file))
        return self._nodes[file].get(start)

    def _read(self, file: str) -> Iterator[tuple[Place, Node]]:
        try:
            text = decode(self._texts[file] if file in self._texts else FilePath(file).read_bytes())
            is_json = file.endswith(".json") or text.lstrip().startswith("{")
            nodes = (found.node for found in documents(text)) if is_json else positions.yaml_documents(text)
            for node in nodes:
                items = positions.find(node, ("items",))
                is_list = isinstance(items, SequenceNode)
                yield from ((place_of(one), one) for one in (items.value if is_list else [node]))
        except (OSError, SyntaxProblem):
            return
