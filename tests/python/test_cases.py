"""Every case is answered alike by the compiled engine and by the reference, and as its author says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import labelgate
import pytest
import yaml
from cases import (
    ENGINES,
    FOLDER,
    TWIN,
    Case,
    ConnectionCase,
    Expected,
    Rejected,
    load_cases,
    load_connection_cases,
    load_rejected,
)
from labelgate.flow import VERDICTS, Answer, Packet
from labelgate.reference import Reference
from labelgate.reference.reasons import Reason
from labelgate.resources import LoadError
from labelgate.settings import HostFacts, Settings
from labelgate.sources.files import load_documents
from labelgate.table import DecisionTable
from test_batch import columns, in_blocks

CASES = load_cases()
REJECTED = load_rejected()


@cache
def _table(name: str, engine: str) -> DecisionTable:
    case, budgets = _BY_NAME[name], ENGINES[engine]
    return case.snapshot().compile(
        node=case.node, host=case.host, settings=case.settings, staged=case.staged, budgets=budgets
    )


@cache
def _reference(name: str) -> Callable[[Packet], Answer]:
    case = _BY_NAME[name]
    return Reference(case.snapshot(), case.node, case.host, case.settings, staged=case.staged).answer


_BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("engine", [*ENGINES, "reference"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers(case: Case, engine: str) -> None:
    def judge(packet: Packet) -> Expected:
        if engine == "reference":
            return Expected.of(_reference(case.name)(packet))
        return Expected.of_decision(_table(case.name, engine).decide_packet(packet))

    found = {question.id: judge(question.packet) for question in case.questions}
    assert found == {question.id: question.expected for question in case.questions}


def test_services_have_numbers_in_most_cases() -> None:
    """What tells services apart takes 128 KiB; without it, these budgets would ask other trees again."""
    found = [_table(case.name, "services").describe()["tree"]["bytes"] > 128 << 10 for case in CASES]
    assert sum(found) > len(CASES) * 3 // 4
    assert all(_table(case.name, "tree").describe()["tree"]["bytes"] < 128 << 10 for case in CASES)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_in_blocks(case: Case, engine: str) -> None:
    """Engines answer packets together where there are many: here each as often as that takes."""
    table, found = _table(case.name, engine), {}
    for question in case.questions:
        asked = in_blocks(columns(table, [question.packet]))
        verdicts, outcomes = table.decide_batch(question.packet.hook, **asked)
        row = table.outcomes[outcomes[0]]
        assert (verdicts == verdicts[0]).all()
        assert (outcomes == outcomes[0]).all()
        found[question.id] = (VERDICTS[verdicts[0]], row["reason"], row["policy"], row["rule"])
    assert found == {
        question.id: (
            question.expected.verdict,
            step.reason,
            step.policy,
            -1 if step.rule is None else step.rule,
        )
        for question in case.questions
        for step in [question.expected.decided]
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_table_and_reference_go_the_same_way(case: Case) -> None:
    table, reference = _table(case.name, "classes"), _reference(case.name)
    for question in case.questions:
        assert table.answer(question.packet) == reference(question.packet), question.id


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_order_of_documents_and_files_does_not_matter(case: Case, tmp_path: Path) -> None:
    """State, not history: the text of the Program is the same, and so are warnings."""
    documents = list(yaml.safe_load_all(case.policy.read_text()))
    table = _table(case.name, "classes")
    for seed in range(3):
        Random(seed).shuffle(documents)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.yaml").write_text(yaml.safe_dump_all(documents[number::3]))
        shuffled = labelgate.load(folder).compile(node=case.node, staged=case.staged, settings=case.settings)
        assert str(shuffled.program) == str(table.program)
        assert shuffled.program.warnings == table.program.warnings


CONNECTIONS = load_connection_cases()


@pytest.mark.parametrize("case", CONNECTIONS, ids=lambda case: case.name)
def test_connections(case: ConnectionCase) -> None:
    snapshot = case.snapshot()
    expected = {asked.id: asked.expected for asked in case.connections}
    for budgets in ENGINES.values():
        table = snapshot.compile(node=None, budgets=budgets)
        assert {asked.id: table.connectivity(asked.packet) for asked in case.connections} == expected
    literal = Reference(snapshot, "", HostFacts({}), Settings())
    assert {asked.id: literal.connectivity(asked.packet) for asked in case.connections} == expected
    verdicts = {asked.id: asked.expected.verdict for asked in case.connections}
    assert verdicts == {asked.id: asked.verdict for asked in case.connections}


@pytest.mark.parametrize("rejected", REJECTED, ids=lambda rejected: rejected.name)
def test_rejected(rejected: Rejected, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(rejected.text)
    with pytest.raises(LoadError) as caught:
        load_documents([file])
    assert sorted((problem.rule, problem.path) for problem in caught.value.problems) == sorted(
        rejected.problems
    )


ROWS = {
    "8.1-workload-policy": [str(row) for row in range(1, 18)],
    "8.2-host-endpoint": [str(row) for row in range(1, 16)],
    "8.3-apply-on-forward": [str(row) for row in range(1, 13)],
    "8.4-pre-dnat": ["1", "1b", "2", "3", "4", "4b", *map(str, range(5, 12)), "11b", "12", "13"],
    "8.5-untracked": ["1", "1b", "1c", "2", "2b", "3", "4", "5", "6", "7", "7b", *map(str, range(8, 14))],
}
"""The rows of the five worked examples in semantics section 8."""


@pytest.mark.parametrize("twin", ["", TWIN])
@pytest.mark.parametrize("name", ROWS)
def test_worked_examples_are_whole(name: str, twin: str) -> None:
    ids = {question.id for question in _BY_NAME[name + twin].questions}
    assert {f"{name[:3]}/{row}" for row in ROWS[name]} <= ids


def test_ids_are_unique_within_a_case() -> None:
    ids = [(case.name, [question.id for question in case.questions]) for case in CASES]
    ids += [(case.name, [asked.id for asked in case.connections]) for case in CONNECTIONS]
    assert [name for name, found in ids if len(set(found)) != len(found)] == []


def test_folders_are_whole() -> None:
    others = {"rejected", "selector-texts"}
    folders = [folder for folder in FOLDER.iterdir() if folder.is_dir() and folder.name not in others]
    found = {folder.name: {file.name for file in folder.iterdir()} for folder in folders}
    always, questions = {"README.md", "policy.yaml"}, {"packets.yaml", "connections.yaml"}
    assert {name for name, files in found.items() if not always < files <= always | questions} == set()


NEVER_LAST = {Reason.RULE_PASS, Reason.RULE_LOG, Reason.END_OF_TIER_PASS, Reason.END_OF_TIER_STAGED}


def test_every_reason_decides_somewhere() -> None:
    seen = {question.expected.decided.reason for case in CASES for question in case.questions}
    assert seen == {reason.text for reason in Reason} - {reason.text for reason in NEVER_LAST}
