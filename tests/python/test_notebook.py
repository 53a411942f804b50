"""The worked example of docs/notebook.md: every cell runs, and prints what it says."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from labelgate.tally import Tally
from test_tabular import Strict

TEXT = (Path(__file__).parents[2] / "docs" / "notebook.md").read_text()
CELLS = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", TEXT, re.DOTALL)


def executed(cell: str, names: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and the value of its last line, as a notebook has it."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), value


def test_every_cell_runs_and_prints_what_it_says() -> None:
    pytest.importorskip("pandas")
    names: dict[str, Any] = {}
    shown = []
    for cell, output in CELLS:
        printed, value = executed(cell, names)
        if output:
            assert printed == output
        if value is not None:
            shown.append(type(value).__name__)
            assert Strict(value._repr_html_()).rows > 1
    assert shown == ["DecisionTable", "Tally", "Results", "Coverage"]
    tally = names["tally"]
    assert isinstance(tally, Tally)
    assert tally.flows == 10_000_000
    # What is expected of dice: every rule is met by its share, to a thousandth.
    by_reason = {row["reason"]: row["flows"] / tally.flows for row in tally.to_numpy()}
    assert by_reason["rule (M-50)"] == pytest.approx(1 / 16, abs=0.001)
    assert by_reason["end of tier (E-21)"] == pytest.approx(11 / 16, abs=0.001)
