"""Budgets and descriptions of engines: as the core has them, and obeyed."""

from __future__ import annotations

import json
import subprocess
import sys
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


ASK = """
import json, resource, sys
import labelgate
import numpy

if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
table = labelgate.load(sys.argv[1]).compile(node="edge1")
ports = numpy.arange(1024, dtype=numpy.uint16)
flow = ("203.0.113.7", "10.65.0.2", "tcp", 40000, ports)
verdicts, outcomes = table.decide_batch("filter-forward", *flow, in_="eth0", out="cali111")
meant = [(int(verdict), str(table.outcomes[outcome])) for verdict, outcome in zip(verdicts, outcomes)]
json.dump([table.describe(), meant], sys.stdout)
"""


def test_without_address_space_linear_answers() -> None:
    """Where walks could not be given memory behind the image there is none; the answers are the same."""

    def asked(*limit: str) -> Any:
        command = [sys.executable, "-c", ASK, str(POLICY), *limit]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    (_, expected), (description, answers) = asked(), asked("limited")
    assert {other["engine"] for other in description["others"]} == {"linear"}
    assert all("no 16 GiB of address space" in other["why"] for other in description["others"])
    assert description["classes"]["tables"] == description["classes"]["bytes"] == 0
    assert answers == expected
    assert len({verdict for verdict, _ in answers}) > 1


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
