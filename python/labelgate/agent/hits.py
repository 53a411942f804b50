"""How often each rule was met since the start: the tables of the packet loop, added up."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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


class Hits:
    """Adds up what `PacketLoop.rule_counts` gives, which gives the last words of a table once."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._over: Counter[Met] = Counter()
        """Of tables that no packet meets any more."""
        self._known: dict[Met, None] = {}
        """In the order in which they were met first."""

    def packets(self) -> dict[Met, int]:
        """Packets by rule; those that were met first come first, and the sums never go back."""
        with self._lock:
            sums = Counter(self._over)
            for table in json.loads(self._read()):
                found = Counter({self._row(row): 0 for row in table["rules"]})
                for row in table["rules"]:
                    found[self._row(row)] += row["packets"]
                sums.update(found)
                if table["isOver"]:
                    self._over.update(found)
            return {met: sums[met] for met in self._known if met in sums}

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
