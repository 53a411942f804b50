"""What stands in policies, and since when: by resource object, for as long as anybody else holds that.

A reload keeps the objects of documents that were not edited, so that only the others are read again.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labelgate.agent.hits import Key
from labelgate.model import core_parts
from labelgate.resources import Resource
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot

Content = tuple[str, str]
"""What a rule says, and which of those that say the same."""
_ANY = Settings()
"""What rules say depends on no setting."""


@dataclass
class _Entry:
    resource: weakref.ref[Resource]
    since: int
    rules: Mapping[str, list[Content]] | None = None
    digest: str = ""


class Contents:
    """Not for several threads at once; objects may go at any time, on any thread."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def see(self, resources: Iterable[Resource], now: int) -> None:
        """They are in force; those that were seen before are since then."""
        for resource in resources:
            self._entry(resource, now)

    def since(self, resource: Resource) -> int:
        """Milliseconds since 1970; of one that was seen."""
        return self._entries[id(resource)].since

    def set_since(self, resource: Resource, since: int) -> None:
        """It was in force before, as it is."""
        entry = self._entries[id(resource)]
        entry.since = min(entry.since, since)

    def digest(self, resource: Resource) -> str:
        """Of all that it says."""
        entry = self._entries[id(resource)]
        if not entry.digest:
            text = f"{resource.key} {resource.model_dump_json()}"
            entry.digest = hashlib.blake2s(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        return entry.digest

    def rule(self, resource: Resource | None, direction: str | None, rule: int) -> Content:
        """What a rule of a resource that was seen says.

        A profile that nobody has written (of a namespace, built in) has no other name than its place.
        """
        rules = [] if resource is None else self._rules(resource).get(str(direction), [])
        return rules[rule] if rule < len(rules) else (f"rule {rule}", "")

    def key(self, row: Mapping[str, Any], resource: Resource | None) -> Key:
        """What a rule, or what stands in the place of one, is known by; its resource was seen."""
        content: tuple[str | None, str | None] = (None, None)
        if row["rule"] is not None:
            content = self.rule(resource, row["direction"], row["rule"])
        return (row["tier"], row["policy"], row["direction"], row["reason"], *content, row["action"])

    def _entry(self, resource: Resource, now: int) -> _Entry:
        key = id(resource)
        if key not in self._entries:
            gone = weakref.ref(resource, lambda _: self._entries.pop(key, None))
            self._entries[key] = _Entry(gone, now)
        return self._entries[key]

    def _rules(self, resource: Resource) -> Mapping[str, list[Content]]:
        entry = self._entries[id(resource)]
        if entry.rules is None:
            entry.rules = _read(resource)
        return entry.rules


def _read(resource: Resource) -> Mapping[str, list[Content]]:
    part = core_parts(Snapshot.of([resource]), _ANY).get(resource.key, {})
    return {
        direction: list(_numbered(rules.get(direction.lower()) or ()))
        for rules in part.values()
        for direction in ("Ingress", "Egress")
    }


def _numbered(rules: Iterable[Any]) -> Iterator[Content]:
    """Equal rules of one policy are told apart by their order."""
    seen: Counter[str] = Counter()
    for rule in rules:
        content = json.dumps(rule, sort_keys=True)
        seen[content] += 1
        yield content, str(seen[content])
