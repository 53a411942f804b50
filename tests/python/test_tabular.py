"""Results as structured arrays, frames and HTML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import labelgate
import numpy as np
import pytest
from labelgate.analysis.matrix import matrix
from labelgate.flow import VERDICTS
from labelgate.tabular import MOST_CHARACTERS, MOST_COLUMNS, MOST_ROWS, Tabular, html_table
from numpy.typing import NDArray

POLICY = str(files("labelgate") / "examples" / "02-host-endpoint.yaml")
VOID = ("br", "img", "meta")


class Strict(HTMLParser):
    """Every element is closed in order; what is text is kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.rows = 0
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in VOID
        self.rows += tag == "tr"
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


class Rows(Tabular):
    def __init__(self, count: int) -> None:
        self.count = count

    def columns(self) -> Mapping[str, NDArray[Any]]:
        return {
            "port": np.arange(self.count, dtype=np.uint16),
            "policy": np.array(["<b>&\"'"] * self.count, object),
            "rule": np.array([None] * self.count, object),
        }


def table() -> labelgate.DecisionTable:
    return labelgate.load(POLICY).compile(node="edge1")


def test_html_is_escaped_and_closed() -> None:
    html = Rows(1)._repr_html_()
    assert "<b>" not in html
    assert Strict(html).text == ["Rows", "port", "policy", "rule", "0", "<b>&\"'", "-"]


def test_html_is_bounded_and_says_what_is_left_out() -> None:
    html = Rows(60_000)._repr_html_()
    parsed = Strict(html)
    assert parsed.rows == MOST_ROWS + 1
    assert parsed.text[-1] == f"… {60_000 - MOST_ROWS:,} more rows"
    assert len(html) < 10_000
    wide = html_table("x" * 9_999, [str(number) for number in range(100)], [["y" * 9_999] * 100])
    assert f"{100 - MOST_COLUMNS} more columns" in wide
    assert len(wide) < (MOST_COLUMNS + 10) * (MOST_CHARACTERS + 100)


def test_a_table_without_rows_is_shown() -> None:
    assert Strict(Rows(0)._repr_html_()).rows == 1
    assert Rows(0).to_numpy().dtype.names == ("port", "policy", "rule")


def test_half_of_a_surrogate_pair_is_shown_in_words() -> None:
    html = html_table("name", ["name"], [["\ud800"]])
    assert html.encode()
    assert "\\ud800" in html


def test_a_structured_array_has_all_rows() -> None:
    rows = Rows(300).to_numpy()
    assert rows.shape == (300,)
    assert rows.dtype["port"] == np.uint16
    assert rows["port"].tolist() == list(range(300))


def test_a_frame_has_the_same() -> None:
    pandas = pytest.importorskip("pandas")
    frame = Rows(3).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["port"].tolist() == [0, 1, 2]


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'labelgate\[pandas\]'.*to_numpy"):
        Rows(1).to_pandas()


def test_a_decision_is_a_row() -> None:
    decision = table().decide(
        hook="filter-input", in_="eth0", src="192.0.2.5", dst="198.51.100.10", protocol="tcp", dport=80
    )
    assert repr(decision) == "Decision(deny: end of tier (E-21) (tier default, HostEndpoint/edge1-out))"
    (row,) = decision.to_numpy()
    assert (row["verdict"], row["rule"], row["policy"], row["failsafe"]) == ("deny", -1, None, False)
    assert table().outcomes[row["outcome"]]["reason"] == row["reason"] == decision.reason
    assert '<span class="bad">deny</span>' in decision._repr_html_()


def test_a_table_shows_what_its_outcomes_mean() -> None:
    found = table()
    assert repr(found).startswith("<DecisionTable: 1 endpoint, ")
    rows = found.to_numpy()
    assert sorted(rows["outcome"].tolist()) == list(range(len(found.outcomes)))
    assert rows["policy"].tolist() == found.outcomes["policy"][rows["outcome"]].tolist()
    policies = [policy for policy in found.outcomes["policy"] if policy is not None]
    assert rows["policy"].tolist()[: len(policies)] == policies
    assert policies
    assert '<td class="number none">-</td>' in found._repr_html_()
    assert "-1" not in found._repr_html_()


def test_a_matrix_is_shown_as_a_grid_and_handed_over_by_cell() -> None:
    policy = POLICY.replace("02-host-endpoint", "01-workload")
    found = matrix(labelgate.load(policy).compile(node=None), port=5432, protocol=6)
    assert Strict(found._repr_html_()).rows == 3
    rows = found.to_numpy()
    assert [tuple(row) for row in rows] == [
        ("shop/db", "shop/db", "-"),
        ("shop/db", "shop/web", "no"),
        ("shop/web", "shop/db", "yes"),
        ("shop/web", "shop/web", "-"),
    ]


def test_a_tally_counts_batches() -> None:
    found = table()
    tally = found.tally()
    dports = np.arange(65536, dtype=np.uint16)
    verdicts, outcomes = found.decide_batch(
        "filter-input", "203.0.113.7", "198.51.100.10", "tcp", 40000, dports, in_="eth0"
    )
    for _ in range(2):
        tally.add(verdicts, outcomes)
    assert tally.flows == 2 * 65536
    rows = tally.to_numpy()
    assert rows["flows"].sum() == 2 * 65536
    assert (np.diff(rows["flows"]) <= 0).all()
    (monitoring,) = rows[rows["policy"] == "GlobalNetworkPolicy/edge-host"]
    assert (monitoring["flows"], monitoring["verdict"], monitoring["rule"]) == (2, "allow", 0)
    assert f"{2 * 65536:,} flows" in tally._repr_html_()


def test_a_tally_refuses_answers_that_are_not_its_tables() -> None:
    tally = table().tally()
    with pytest.raises(ValueError, match="ids of another table"):
        tally.add(np.zeros(1, np.uint8), np.array([1 << 20], np.uint32))
    denies = table().outcomes["action"] == "Deny"
    for verdict, outcome in (("allow", np.flatnonzero(denies)[0]), ("deny", np.flatnonzero(~denies)[0])):
        with pytest.raises(ValueError, match="answers of another table"):
            tally.add(np.array([VERDICTS.index(verdict)], np.uint8), np.array([outcome], np.uint32))
    with pytest.raises(ValueError, match="expected"):
        tally.add(np.zeros(2, np.uint8), np.zeros(1, np.uint32))
    with pytest.raises(TypeError, match="verdicts: found a list, expected what `decide_batch` returns"):
        tally.add([0], [0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="outcomes: found a column of int32"):
        tally.add(np.zeros(1, np.uint8), np.array([-1], np.int32))  # type: ignore[arg-type]
    assert repr(tally) == "Tally(no flows)"
