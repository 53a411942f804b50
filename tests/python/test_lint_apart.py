"""Rules that are said to be apart at a glance are so by cells."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelgate.analysis.lint import within
from labelgate.analysis.lint.apart import are_apart
from lint_both_ways import lint_both_ways
from test_lint_coverage import policy, snapshot_of

NETS = ["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "2001:db8::/33", "2001:db8:8000::/33"]
PORTS: list[Any] = [80, "80:90", "90:100", "91:95", 101]


@st.composite
def plain_rules(draw: st.DrawFn) -> dict[str, Any]:
    """Such as most policies have."""
    rule: dict[str, Any] = {"action": draw(st.sampled_from(["Allow", "Allow", "Deny", "Log"]))}
    if protocol := draw(st.sampled_from(["TCP", "TCP", "UDP", None])):
        rule["protocol"] = protocol
        rule["destination"] = {"ports": draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=2))}
    if draw(st.booleans()):
        rule["source"] = {"nets": [draw(st.sampled_from(NETS))]}
    if draw(st.integers(0, 3)) == 0:
        rule.setdefault("source", {})["selector"] = draw(st.sampled_from(["app == 'a'", "app == 'b'"]))
    return rule


def test_cells_say_the_same() -> None:
    seen: list[bool] = []

    def noted(*asked: Any) -> bool:
        seen.append(are_apart(*asked))
        return seen[-1]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(plain_rules(), min_size=2, max_size=4))
    def compared(made: list[dict[str, Any]]) -> None:
        lint_both_ways(snapshot_of([policy("p0", "default", *made)]), ["LG1"])

    with patch.object(within, "are_apart", noted):
        compared()
    assert set(seen) == {False, True}
