"""Rules that packets met, as status, top and metrics show them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Key = tuple[str | None, ...]
"""What a rule is known by: tier, policy, direction, reason, content, which of those with it, action."""
KEY_WORDS = 7


def hit_row(rule: Mapping[str, Any], key: Key) -> dict[str, Any]:
    """A row of `RuleCounts`, with a name to show as `policy` and an `id`, whatever its place is."""
    return {
        "policy": name_of(rule["policy"], rule["reason"], rule["tier"]),
        **{field: rule[field] for field in ("tier", "direction", "rule", "action", "packets")},
        "id": id_of(key),
    }


def id_of(key: Key) -> str:
    """Eight hexadecimal digits; the same after a restart.

    >>> id_of(("default", "GlobalNetworkPolicy/web", "Ingress"))
    'abb3b5c4'
    """
    return hashlib.blake2s(json.dumps(key).encode(), digest_size=4).hexdigest()


def name_of(policy: str | None, reason: str | None, tier: str | None) -> str:
    """The policy, or in parentheses what decided without one.

    >>> name_of(None, "end of tier (E-21)", "default")
    '(end of tier (E-21), tier default)'
    """
    return policy or f"({reason}{f', tier {tier}' if tier else ''})"
