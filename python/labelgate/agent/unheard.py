"""Of which packets the daemon cannot tell what staged policies would do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labelgate.table import DecisionTable

_CHAINS = ("untracked", "prednat", "input", "output", "forward", "ingress", "egress")
_NAMED = 3
_NO_CHAIN = {"ingress": ["unmarked"] * 2, "egress": ["unmarked"] * 2}


def unheard(table: DecisionTable, staged: DecisionTable) -> Iterator[str]:
    """A warning, if kernel rules let packets by that `staged` may deny: those come to no queue."""
    own, others = _by_endpoint(table), _by_endpoint(staged)
    found = sorted(
        name
        for name in own.keys() & others.keys()
        if any(_is_unheard(own[name].get(chain), others[name].get(chain)) for chain in _CHAINS)
    )
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        yield (
            f"staged policies are not asked about all packets of {', '.join(found[:_NAMED])}{more}: kernel "
            "rules let some by that they may deny; `labelgate replay --staged` asks about all of a capture"
        )


def _by_endpoint(table: DecisionTable) -> dict[str, dict[str, Any]]:
    facts = table.rule_facts()
    return {endpoint["endpoint"]: endpoint for kind in ("hosts", "workloads") for endpoint in facts[kind]}


def _is_unheard(own: Any, staged: Any) -> bool:
    """Whether what passes by `own` without a question may be denied by `staged`."""
    if isinstance(staged, dict) and "egress" in staged:
        return any(_is_unheard((own or _NO_CHAIN)[side], staged[side]) for side in staged)
    if isinstance(staged, list):
        return any(map(_is_unheard, own or _NO_CHAIN["ingress"], staged))
    return own not in ("queue", "deny", staged) and staged not in (None, "allow", "unmarked")
