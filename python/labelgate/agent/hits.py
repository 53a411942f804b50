"""How often each rule was met since the start: the tables of the packet loop, added up."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

MOST_ROWS = 10_000
"""Rules that are told apart; what comes later is counted in one row for all."""


@dataclass(frozen=True, slots=True)
class Met:
    """A rule, or what stands in its place (end of a tier, failsafe port, no endpoint)."""

    tier: str | None
    policy: str | None
    direction: str | None
    rule: int | None
    action: str | None
    reason: str

    @property
    def name(self) -> str:
        """The policy, or in parentheses what decided without one.

        >>> Met("default", None, None, None, "Deny", "end of tier (E-21)").name
        '(end of tier (E-21), tier default)'
        """
        return self.policy or f"({self.reason}{f', tier {self.tier}' if self.tier else ''})"


OTHERS = Met(None, None, None, None, None, "others")


class CountsRules(Protocol):
    """Who counts what rules meet: the packet loop."""

    def rule_counts(self) -> str:
        """The counts of all tables, as JSON; of a table that is over once."""


class Hits:
    """Adds up what the packet loop counts; any thread may ask.

    It is the loop's one reader: what is told once it hands on to the next who asks for `rule_counts`.
    """

    def __init__(self, loop: CountsRules) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._over: Counter[Met] = Counter()
        """Of tables that no packet meets any more."""
        self._untold: list[dict[str, Any]] = []
        """The last words of tables, for the other reader."""
        self._known: dict[Met, None] = {}
        """In the order in which they were met first."""

    def packets(self) -> dict[Met, int]:
        """Packets by rule; those that were met first come first, and the sums never go back."""
        with self._lock:
            tables = self._read()
            self._untold += [table for table in tables if table["isOver"]]
            sums = Counter(self._over)
            for table in tables:
                if not table["isOver"]:
                    sums.update(self._sums(table))
            return {met: sums[met] for met in self._known if met in sums}

    def rule_counts(self) -> str:
        """As the packet loop gives them."""
        with self._lock:
            tables, self._untold = [*self._untold, *self._read()], []
            return json.dumps(tables)

    def _read(self) -> list[dict[str, Any]]:
        tables: list[dict[str, Any]] = json.loads(self._loop.rule_counts())
        for table in tables:
            if table["isOver"]:
                self._over.update(self._sums(table))
        return tables

    def _sums(self, table: Mapping[str, Any]) -> Counter[Met]:
        sums: Counter[Met] = Counter()
        for row in table["rules"]:
            sums[self._row(row)] += row["packets"]
        return sums

    def _row(self, row: Mapping[str, Any]) -> Met:
        met = Met(*(row[key] for key in ("tier", "policy", "direction", "rule", "action", "reason")))
        if met not in self._known:
            met = met if len(self._known) < MOST_ROWS else OTHERS
            self._known.setdefault(met)
        return met


def denied(packets: Mapping[Met, int]) -> dict[str, int]:
    """Packets that were denied, by policy or by what denied without one.

    >>> end = Met("default", None, None, None, "Deny", "end of tier (E-21)")
    >>> denied({end: 3, Met("default", "GlobalNetworkPolicy/a", "Ingress", 0, "Allow", "rule (M-51)"): 4})
    {'(end of tier (E-21), tier default)': 3}
    """
    sums: Counter[str] = Counter()
    for met, count in packets.items():
        if met.action == "Deny":
            sums[met.name] += count
    return dict(sums)


def rows(packets: Mapping[Met, int], most: int | None = None) -> list[dict[str, Any]]:
    """The rules most met, for the control socket; all in the order first met where `most` is None."""
    found: Iterable[tuple[Met, int]] = packets.items()
    if most is not None:
        found = sorted(found, key=lambda item: -item[1])[:most]
    return [
        {
            "policy": met.name,
            "tier": met.tier,
            "direction": met.direction,
            "rule": met.rule,
            "action": met.action,
            "packets": count,
        }
        for met, count in found
    ]
