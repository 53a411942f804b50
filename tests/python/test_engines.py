"""Budgets and descriptions of engines: as the core has them, and obeyed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.resources import files
from typing import Any, get_type_hints

import labelgate
import pytest
from labelgate import _core
from labelgate.engines import Budgets, ClassesBudget, Description, Other, summary
from labelgate.snapshot import Snapshot

POLICY = files("labelgate") / "examples" / "01-workload.yaml"


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return labelgate.load(str(POLICY))


def fields(described: type, hints: Any) -> None:
    """A typed dictionary has the fields of a decoded one, and no others."""
    types = get_type_hints(described)
    assert types.keys() == hints.keys()
    for name, kind in types.items():
        if isinstance(hints[name], dict):
            fields(kind, hints[name])


def test_budgets_are_those_of_the_core() -> None:
    assert asdict(Budgets()) == json.loads(_core.default_budgets())


def test_by_default_the_classes_answer(snapshot: Snapshot) -> None:
    description = snapshot.compile(node="edge1").describe()
    fields(Description, description)
    assert description["others"] == []
    assert description["classes"]["tables"] == 2 * description["chains"] > 0
    assert description["bytes"] == description["classes"]["bytes"] > 0


def test_without_memory_linear_answers(snapshot: Snapshot) -> None:
    description = snapshot.compile(node="edge1", budgets=Budgets.LINEAR).describe()
    fields(Other, description["others"][0])
    assert len(description["others"]) == 2 * description["chains"]
    assert {other["engine"] for other in description["others"]} == {"linear"}
    assert summary(description).startswith(f"engines: linear for {2 * description['chains']} of")


def test_why_tells_the_budget(snapshot: Snapshot) -> None:
    budgets = Budgets(classes=ClassesBudget(cells=1))
    whys = {other["why"] for other in snapshot.compile(node="edge1", budgets=budgets).describe()["others"]}
    assert whys
    assert all("cells, above the budget" in why for why in whys)


def test_other_interfaces_keep_the_engines(snapshot: Snapshot) -> None:
    table = snapshot.compile(node="edge1", budgets=Budgets.LINEAR)
    assert table.on_host(labelgate.HostFacts({"eth9": ()})).describe() == table.describe()


def test_what_is_no_size_is_refused(snapshot: Snapshot) -> None:
    budgets = replace(Budgets(), classes=ClassesBudget(cells=-1))
    with pytest.raises(ValueError, match="budgets: invalid value: integer `-1`"):
        snapshot.compile(node="edge1", budgets=budgets)
    with pytest.raises(ValueError, match="budgets: unknown field `trees`"):
        _core.compile(b"{}", None, b'{"trees": 1}')


def test_outcomes_are_not_to_be_written(snapshot: Snapshot) -> None:
    outcomes = snapshot.compile(node="edge1").outcomes
    assert not outcomes.flags.writeable
    assert outcomes.dtype.names == ("action", "tier", "policy", "rule", "reason", "logs")
