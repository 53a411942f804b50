"""How often rules were met since the daemon started, over all tables that it has put in force.

The packet loop counts by table; here counts of tables that are over are added up. A rule is the same one as
long as its policy, direction and content are: rules that come or go above it do not matter.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelgate.agent.generation import Generation
from labelgate.agent.hits import name_of
from labelgate.handlers import PacketLoop
from labelgate.model import core_parts
from labelgate.resources import Resource
from labelgate.snapshot import Snapshot

MOST_KEPT = 100_000
"""Rules whose counts are kept; of more, those that were met last."""
MOST_TABLES = 8
"""So many tables may be over before their counts are read."""

Key = tuple[str | None, ...]
"""What a rule is known by: tier, policy, direction, reason, content, and which of those with that content."""


@dataclass
class _Count:
    packets: int = 0
    last_hit: int = 0
    """Milliseconds since 1970."""

    def add(self, packets: int, last_hit: int) -> None:
        self.packets += packets
        self.last_hit = max(self.last_hit, last_hit)


@dataclass(eq=False)
class _Contents:
    """The rules of one policy in force, as keys tell them apart."""

    resources: Mapping[str, Resource]
    generation: Generation
    known: dict[str, Mapping[str, list[tuple[str, str]]]] = field(default_factory=dict)

    def of(self, policy: str, direction: str, rule: int) -> tuple[str, str]:
        if policy not in self.known:
            self.known[policy] = self._read(policy)
        rules = self.known[policy].get(direction, [])
        # A profile that nobody has written (of a namespace, built in) has no other name than its place.
        return rules[rule] if rule < len(rules) else (f"rule {rule}", "")

    def _read(self, policy: str) -> Mapping[str, list[tuple[str, str]]]:
        resource = self.resources.get(policy)
        if resource is None:
            return {}
        parts = core_parts(Snapshot.of([resource]), self.generation.config.settings)
        part = parts.get(policy, {})
        return {
            direction: list(_numbered(rules.get(direction.lower()) or ()))
            for rules in part.values()
            for direction in ("Ingress", "Egress")
        }


def _numbered(rules: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Equal rules of one policy are told apart by their order."""
    seen: Counter[str] = Counter()
    for rule in rules:
        content = json.dumps(rule, sort_keys=True)
        seen[content] += 1
        yield content, str(seen[content])


class RuleCounts:
    """Adds up what the packet loop counts. It gives the last words of a table once: there is one of these."""

    def __init__(self, loop: PacketLoop, first: Generation) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._denied: dict[str, None] = {}
        """Who denied, in the order in which that was seen first."""
        self._sums: defaultdict[Key, _Count] = defaultdict(_Count)
        """Of tables that are over."""
        self._contents = {1: _Contents(_resources(first), first)}
        """By the loop's number of a table, until its counts are over."""
        self._latest = 1
        now = _now()
        self._since = dict.fromkeys(self._contents[1].resources, now)
        """When each policy came into force as it is."""
        self._started = now

    def swapped(self, number: int, generation: Generation) -> None:
        """The packet loop answers by this generation; `number` is the loop's own."""
        with self._lock:
            self._swapped(number, generation)

    def _swapped(self, number: int, generation: Generation) -> None:
        before = self._contents[self._latest]
        if generation.snapshot is not before.generation.snapshot:
            resources, now = _resources(generation), _now()
            self._since = {
                key: self._since.get(key, now) if resource is before.resources.get(key) else now
                for key, resource in resources.items()
            }
            self._contents[number] = _Contents(resources, generation)
        else:
            self._contents[number] = before
        self._latest = number
        if len(self._contents) > MOST_TABLES:
            self._read()

    def rows(self) -> dict[str, Any]:
        """The rules in force, and what else packets met, as `labelgate rules -o json` prints it."""
        with self._lock:
            return self._rows()

    def denied(self) -> dict[str, int]:
        """Packets that were denied, by policy or by what denied without one, also by rules that are gone.

        The sums never go back, and who denied first stays first.
        """
        with self._lock:
            sums: Counter[str] = Counter()
            for (tier, policy, _, reason, _, _, action), count in self._read()[0].items():
                if action == "Deny":
                    sums[name_of(policy, reason, tier)] += count.packets
            self._denied.update(dict.fromkeys(sums))
            return {name: sums[name] for name in self._denied}

    def _rows(self) -> dict[str, Any]:
        contents = self._contents[self._latest]
        counted, names = self._read()
        rows, seen = [], set()
        for rule in json.loads(contents.generation.table.core.rules()):
            key = _key(rule, contents)
            seen.add(key)
            rows.append(self._row(rule, counted.get(key)))
        rows += [
            self._row({**names[key], "uncounted": None}, count)
            for key, count in counted.items()
            if key not in seen and key in names and names[key]["rule"] is None
        ]
        return {"since": self._started, "rules": rows}

    def _row(self, rule: dict[str, Any], count: _Count | None) -> dict[str, Any]:
        """One rule; `packets` is null where nothing is counted, `lastHit` where nothing has been met."""
        packets = count.packets if count else None if rule["uncounted"] else 0
        fields = ("tier", "policy", "direction", "rule", "action", "reason", "uncounted")
        return {
            **{name: rule[name] for name in fields},
            "packets": packets,
            "lastHit": count.last_hit if count else None,
            "since": self._since.get(rule["policy"], self._started),
        }

    def _read(self) -> tuple[dict[Key, _Count], dict[Key, dict[str, Any]]]:
        """All counts now, and the names of what was met in tables that are not over."""
        now: defaultdict[Key, _Count] = defaultdict(_Count)
        names: dict[Key, dict[str, Any]] = {}
        alive = {self._latest}
        for table in json.loads(self._loop.rule_counts()):
            contents = self._contents[table["generation"]]
            into = self._sums if table["isOver"] else now
            if not table["isOver"]:
                alive.add(table["generation"])
            for rule in table["rules"]:
                key = _key(rule, contents)
                names[key] = rule
                into[key].add(rule["packets"], rule["lastHit"])
        # The one in force may be counted under the number of one that had the same program.
        self._contents = {number: contents for number, contents in self._contents.items() if number in alive}
        if len(self._sums) > MOST_KEPT:
            latest = sorted(self._sums, key=lambda key: self._sums[key].last_hit)[-MOST_KEPT:]
            self._sums = defaultdict(_Count, {key: self._sums[key] for key in latest})
        for key, count in self._sums.items():
            now[key].add(count.packets, count.last_hit)
        for key in now:
            if key[4] is None:
                names.setdefault(key, _reason(key))
        return dict(now), names


def _resources(generation: Generation) -> dict[str, Resource]:
    return {resource.key: resource for resource in generation.snapshot.resources()}


def _key(rule: Mapping[str, Any], contents: _Contents) -> Key:
    content: tuple[str | None, str | None] = (None, None)
    if rule["rule"] is not None:
        content = contents.of(rule["policy"], rule["direction"], rule["rule"])
    return (rule["tier"], rule["policy"], rule["direction"], rule["reason"], *content, rule["action"])


def _reason(key: Key) -> dict[str, Any]:
    """What stands in the place of a rule, from its key."""
    tier, policy, direction, reason, _, _, action = key
    return {
        "tier": tier, "policy": policy, "direction": direction, "rule": None, "action": action,
        "reason": reason,
    }  # fmt: skip


def _now() -> int:
    return int(time.time() * 1000)
