"""Where rules of policies stand in their files."""

from __future__ import annotations

from dataclasses import dataclass

from labelgate.conversion import written_rules
from labelgate.model import core_parts
from labelgate.resources import Location
from labelgate.resources.documents import Document, decode, documents
from labelgate.resources.errors import Path
from labelgate.resources.kinds import items_of
from labelgate.resources.positions import Place, SyntaxProblem
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from labelgate.sources.files import STDIN, read_file


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule of a policy in force."""

    policy: str
    direction: str
    number: int
    """From 0, as traces count: a Kubernetes entry may be several rules."""
    action: str
    place: str
    """`file:line` of the rule, or of its policy where that cannot be said."""

    def __str__(self) -> str:
        """Policy, direction and number."""
        return f"{self.policy} {self.direction} rule {self.number}"


def placed_rules(snapshot: Snapshot, settings: Settings) -> list[PlacedRule]:
    """Every rule of every policy in force, by policy, direction and number; profiles have none here."""
    files = Files()
    found = []
    by_key = {resource.key: resource for resource in snapshot.resources()}
    for key, parts in sorted(core_parts(snapshot, settings).items()):
        policy = parts.get("policy")
        if policy is None or policy.get("staged"):
            continue
        resource = by_key[key]
        for direction in ("ingress", "egress"):
            if not policy[f"applies_{direction}"]:
                continue
            written = written_rules(resource, direction)
            for number, rule in enumerate(policy[direction]):
                place = files.place(resource.location, written[number][:3])
                found.append(PlacedRule(key, direction, number, rule["action"], place))
    return found


class Files:
    """Documents of files, read anew when a place in one is asked for."""

    def __init__(self) -> None:
        self._documents: dict[str, list[Document]] = {}

    def place(self, location: Location, path: Path) -> str:
        """`file:line` of a value of a resource."""
        return f"{location.file}:{self.find(location, path).line}"

    def find(self, location: Location, path: Path) -> Place:
        """Where a value of a resource stands; where the resource does, if that cannot be said."""
        start = Place(location.line, location.column)
        for document in self._of(location.file):
            if document.start == start:
                return document.place(path)
            for above, _ in items_of(document.data) or ():
                if document.place(above) == start:
                    return document.place((*above, *path))
        return start

    def _of(self, file: str) -> list[Document]:
        if file not in self._documents:
            content = None if file in (STDIN, "<stdin>", "<text>", "<data>") else read_file(file)
            found: list[Document] = []
            if isinstance(content, bytes):
                try:
                    found = list(documents(decode(content), is_json=file.endswith(".json")))
                except SyntaxProblem:
                    found = []  # It has changed since it was loaded.
            self._documents[file] = found
        return self._documents[file]
