"""As many rules as a policy may have, each with nets and ports of its own, are judged all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from labelgate.analysis.lint import lint
from test_lint_coverage import ENDPOINTS, policy, snapshot_of

MOST = 1024
"""Rules of one policy and direction (V-48)."""


def rule(number: int, action: str = "Allow", **more: Any) -> dict[str, Any]:
    """One that no other number overlaps."""
    source = {"nets": [f"10.{number >> 8}.{number & 255}.0/24"], **more}
    destination = {"nets": [f"172.16.{number & 255}.{number >> 8}/32"], "ports": [1000 + number]}
    return {"action": action, "protocol": "TCP", "source": source, "destination": destination}


def half(number: int, bit: int) -> dict[str, Any]:
    made = rule(number)
    made["source"]["nets"] = [f"10.{number >> 8}.{number & 255}.{bit * 128}/25"]
    return made


def longest() -> list[dict[str, Any]]:
    """Rule 1020 comes behind both halves of its net; 1021 is 7 again; the last allows all from 1000 on."""
    return [*map(rule, range(1018)), half(1018, 0), half(1018, 1), rule(1018, "Deny"), rule(7), rule(1022),
            {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["2000:2100"]}}]  # fmt: skip


def found(resources: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    remarks: dict[str, list[int]] = {}
    for one in lint(snapshot_of(resources), select=["LG101", "LG102", "LG103", "LG104", "LG109"]):
        remarks.setdefault(one.rule, []).append(int(one.path.removesuffix("]").split("[")[1]))
    return {name: sorted(places) for name, places in remarks.items()}


@pytest.mark.parametrize("endpoints", [[], ENDPOINTS], ids=["without endpoints", "with endpoints"])
def test_the_longest_policy_is_judged(endpoints: list[dict[str, Any]]) -> None:
    rules = longest()
    assert len(rules) == MOST
    followed = [number for number in range(MOST) if 1000 <= number <= 1018 or number in (1019, 1022)]
    expected = {"LG101": [1020], "LG102": sorted([*followed, 1021])}
    assert found([*endpoints, policy("p0", "default", *rules)]) == expected


def test_each_rule_with_a_selector_of_its_own() -> None:
    rules = [rule(number, selector=f"app == 'a{number}'") for number in range(MOST - 2)]
    rules += [rule(5, "Deny", selector="app == 'a5'"), rule(6, "Deny", selector="app == 'other'")]
    assert found([policy("p0", "default", *rules)]) == {"LG101": [1022]}


def test_what_would_take_too_much_is_said() -> None:
    """Ports of both sides, each of its own: a million of combinations."""
    rules = [rule(number, ports=[number + 1]) for number in range(MOST)]
    (one,) = lint(snapshot_of([policy("p0", "default", *rules)]), select=["LG1"])
    assert one.rule == "LG109"
    assert "too many packet classes: LG101 to LG104 were not judged for 1024 of these rules" in one.text
