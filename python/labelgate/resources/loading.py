"""Texts to resources: every document of every text, and all that is wrong with them at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from labelgate.arguments import check_type
from labelgate.errors import fault_place
from labelgate.printable import printable
from labelgate.resources import kinds
from labelgate.resources.documents import Document, decode, documents
from labelgate.resources.errors import (
    Finding,
    LoadError,
    Location,
    Path,
    Problem,
    Wrong,
    describe,
    path_text,
    quote,
)
from labelgate.resources.kinds import Header
from labelgate.resources.metadata import Resource
from labelgate.resources.positions import Place, SyntaxProblem
from labelgate.resources.versions import OURS

if TYPE_CHECKING:
    from labelgate.resources.expectations import PolicyTest

_NOTHING = Header(None, None, None, None)
_BEYOND = frozenset(map(describe, (math.inf, -math.inf, math.nan)))
"""Of numbers that read as no other is written, like `1e400`."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One document as it was met, refused or not."""

    index: int
    """From 0 over all input."""
    file: str
    line: int
    kind: str | None
    namespace: str | None
    name: str | None


@dataclass(slots=True)
class Loading:
    """Takes texts, keeps what they hold."""

    resources: list[Resource] = field(default_factory=list)
    """The valid ones, in the order met."""
    tests: list[PolicyTest] = field(default_factory=list)
    """Expectations, which are no resources: they never change a verdict."""
    problems: list[Problem] = field(default_factory=list)
    documents: list[Summary] = field(default_factory=list)
    """All documents, in the order met."""
    first: dict[str, Location] = field(default_factory=dict)
    """Where each resource was first met, refused or not, by key."""

    def add(
        self, content: bytes | str, file: str, progress: Callable[[int], None] = lambda characters: None
    ) -> None:
        """Read one text; what is wrong is noted, never raised.

        `progress` is told how many characters are read, as far as that is known.
        """
        try:
            text = content if isinstance(content, str) else decode(content)
            for document in documents(text, is_json=file.endswith(".json")):
                self._document(document, file)
                progress(document.offset)
        except SyntaxProblem as problem:
            self._note(problem.wrong, problem.place, file, -1)
        except Exception as fault:  # One of ours must not end a daemon: the file is refused as others are.
            self.add_unreadable(Wrong("fault", f"{fault_place(fault)}: {quote(str(fault))}"), file)

    def add_unreadable(self, wrong: Wrong, file: str) -> None:
        """Note a file that cannot be read."""
        self._note(wrong, Place(0, 0), file, -1)

    def result(self) -> list[Resource]:
        """The resources.

        Raises `LoadError` with all problems if there is any.
        """
        if self.problems:
            raise LoadError(self.problems)
        return self.resources

    @property
    def notices(self) -> tuple[str, ...]:
        """What is accepted but has no effect, of all resources."""
        return tuple(printable(notice) for resource in self.resources for notice in resource.notices)

    def _document(self, document: Document, file: str) -> None:
        index = len(self.documents)
        head = kinds.header(document.data)
        self.documents.append(Summary(index, file, document.start.line, head.kind, head.namespace, head.name))
        for wrong, place, path in document.problems:
            self._note(wrong, place, file, index, head, path)
        items = kinds.items_of(document.data)
        if items is None:
            self._resource(document, document.data, (), Location(file, *document.start, index), head)
            return
        for finding in kinds.list_findings(document.data):
            self._finding(document, finding, (), Location(file, *document.start, index), head)
        places = document.places([path for path, _ in items])
        for (path, item), place in zip(items, places, strict=True):
            self._resource(document, item, path, Location(file, *place, index), kinds.header(item))

    def _resource(
        self, document: Document, data: Any, prefix: Path, location: Location, head: Header
    ) -> None:
        first = self.first.setdefault(head.key, location) if head.key else location
        if first is not location:
            found = f"`{head.key}` again"
            wrong = Wrong("resource-duplicate", found, first=f"{first.file}:{first.line}:{first.column}")
            self._note(wrong, document.place(prefix), location.file, location.index, head, prefix)
        outcome = kinds.read(data, location)
        if isinstance(outcome, list):
            # What stands behind a tag that is refused is cut off: it would be told to be wrong for that.
            cut = {path for wrong, _, path in document.problems if wrong.code == "tag"}
            for finding in outcome:
                if prefix + finding.path not in cut:
                    self._finding(document, finding, prefix, location, head)
        elif first is location and not document.problems:
            self._keep(document, outcome, prefix)

    def _keep(self, document: Document, resource: Resource, prefix: Path) -> None:
        if resource.version != OURS:
            self.resources.append(resource)
            return
        test, path = cast("PolicyTest", resource), (*prefix, "spec", "expectations")
        test.put_places(tuple(map(document.place, [(*path, n) for n in range(test.count)])))
        self.tests.append(test)

    def _finding(
        self, document: Document, finding: Finding, prefix: Path, location: Location, head: Header
    ) -> None:
        path = prefix + tuple(step for step in finding.path if step != "[key]")
        place = document.place(path, key=finding.wrong.code == "field-unknown")
        wrong = finding.wrong
        hint = wrong.hint
        if "{source}" in hint:
            hint = hint.replace("{source}", document.source(path) or "...")
        found = wrong.found
        if found in _BEYOND and (source := document.source(path)):
            found = f"{quote(source)}, a number"
        self._note(wrong, place, location.file, location.index, head, path, hint, found)

    def _note(
        self,
        wrong: Wrong,
        place: Place,
        file: str,
        index: int,
        head: Header = _NOTHING,
        path: Path = (),
        hint: str | None = None,
        found: str | None = None,
    ) -> None:
        self.problems.append(
            Problem(
                file=file,
                line=place.line,
                column=place.column,
                index=index,
                kind=head.kind,
                namespace=head.namespace,
                name=head.name,
                path=path_text(path),
                message=wrong.message,
                found=found or wrong.found,
                expected=wrong.expected,
                hint=hint or wrong.hint,
                rule=wrong.rule,
                code=wrong.code,
            )
        )


def load_text(text: bytes | str, file: str = "<text>") -> list[Resource]:
    """The resources of YAML or JSON text.

    Raises `LoadError` with all problems, TypeError where it is none.
    """
    check_type("text", text, bytes | str, "text, or bytes of it")
    loading = Loading()
    loading.add(text, file)
    return loading.result()
