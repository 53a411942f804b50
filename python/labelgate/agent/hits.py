"""Rules that packets met, as status, top and metrics show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def hit_rows(rules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the rows of `RuleCounts` those that were met, in order, each with a name to show as `policy`."""
    return [
        {
            "policy": name_of(rule["policy"], rule["reason"], rule["tier"]),
            **{field: rule[field] for field in ("tier", "direction", "rule", "action", "packets")},
        }
        for rule in rules
        if rule["packets"]
    ]


def name_of(policy: str | None, reason: str | None, tier: str | None) -> str:
    """The policy, or in parentheses what decided without one.

    >>> name_of(None, "end of tier (E-21)", "default")
    '(end of tier (E-21), tier default)'
    """
    return policy or f"({reason}{f', tier {tier}' if tier else ''})"
