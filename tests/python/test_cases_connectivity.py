"""Engine and reference say alike whether workloads reach each other, for the packets of every case."""

from __future__ import annotations

import pytest
from cases import Case, load_cases
from labelgate.flow import Gate, Step
from labelgate.reference import Reference
from labelgate.settings import HostFacts


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.name)
def test_engine_and_reference_connect_alike(case: Case) -> None:
    snapshot = case.snapshot()
    table = snapshot.compile(node=None, settings=case.settings, staged=case.staged)
    reference = Reference(snapshot, None, HostFacts({}), case.settings, staged=case.staged)
    for question in case.questions:
        packet = question.packet
        found = table.connectivity(packet)
        assert found == reference.connectivity(packet), question.id
        traced = [steps and _gate(steps[-1]) for steps in table.connectivity_trace(packet)]
        assert traced == [found.egress, found.ingress], question.id


def _gate(last: Step) -> Gate:
    """What a trace ends in, as the gate says it."""
    return Gate("allow" if last.action == "Allow" else "deny", last.tier, last.policy, last.rule)


def test_cases_have_gates_of_both_directions() -> None:
    gates = {(side, gate.verdict) for case in load_cases() for side, gate in _gates(case)}
    assert gates == {(side, verdict) for side in ("egress", "ingress") for verdict in ("allow", "deny")}


def _gates(case: Case) -> list[tuple[str, object]]:
    table = case.snapshot().compile(node=None, settings=case.settings, staged=case.staged)
    found = (table.connectivity(question.packet) for question in case.questions)
    return [
        (side, gate)
        for connection in found
        for side, gate in (("egress", connection.egress), ("ingress", connection.ingress))
        if gate is not None
    ]
