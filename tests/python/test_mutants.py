"""The seeded faults of `tests/mutants` fit the tree as it is, and the result that is kept is theirs."""

from __future__ import annotations

import ast
import re

from faults import RESULT, ROOT, Fault, load_faults
from semantics import ids

FAULTS = load_faults()


def test_each_fault_can_be_seeded() -> None:
    assert {fault.id: problem for fault in FAULTS if (problem := _problem(fault))} == {}


def _problem(fault: Fault) -> str | None:
    sound = (ROOT / fault.file).read_text()
    try:
        faulty = fault.in_text(sound)
        if not fault.is_compiled:
            ast.parse(faulty)
    except (ValueError, SyntaxError) as error:
        return str(error)
    return "changes nothing" if faulty == sound else None


def test_each_fault_has_its_own_id() -> None:
    names = [fault.id for fault in FAULTS]
    assert [name for name in names if names.count(name) > 1] == []


def test_no_fault_is_listed_twice() -> None:
    changes = [(fault.file, fault.find, fault.replace) for fault in FAULTS]
    assert [change for change in changes if changes.count(change) > 1] == []


def test_faults_break_rules_that_exist() -> None:
    assert {fault.id: fault.rules for fault in FAULTS if not fault.rules or set(fault.rules) - ids()} == {}


def test_each_part_has_faults() -> None:
    parts = [re.sub(r"/[^/]+$", "", fault.file) for fault in FAULTS]
    wanted = ("python/labelgate", "src/selector", "src/compile", "src/table", "python/labelgate/reference")
    assert min(parts.count(part) for part in wanted) >= 10
    assert len(FAULTS) >= 60


def test_the_result_is_that_of_these_faults() -> None:
    rows = re.findall(
        r"^\| ([\w-]+) \| (.+?) \| (.+?) \| (.+) \| [\w.-]+ \|$", RESULT.read_text(), re.MULTILINE
    )
    assert rows == [(fault.id, ", ".join(fault.rules), fault.file, fault.breaks) for fault in FAULTS]
