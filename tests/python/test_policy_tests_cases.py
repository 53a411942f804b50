"""Every packet of the cases of the semantics that an expectation can ask, asked as one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from cases import Case, Question, load_cases
from labelgate.expect.judge import judge
from labelgate.expect.world import World
from labelgate.flow import ICMP, ICMPV6
from labelgate.resources import Loading, PolicyTest
from labelgate.settings import Settings

CASES = [case for case in load_cases() if case.settings == Settings() and not case.staged]


def expressible(question: Question) -> bool:
    """Marks of earlier hooks, fragments and packets without ports cannot be said of an expectation."""
    packet = question.packet
    if packet.accepted or packet.dnatted or packet.fragment:
        return False
    if packet.protocol in (6, 17, 132):
        return bool(packet.sport and packet.dport)
    return packet.protocol not in (ICMP, ICMPV6) or packet.icmp_type is not None


def expectation(question: Question) -> dict[str, Any]:
    """The same packet, and what decides it."""
    packet, decided = question.packet, question.expected.decided
    found: dict[str, Any] = {
        "from": str(packet.src), "to": str(packet.dst), "protocol": packet.protocol, "port": packet.dport,
        "sourcePort": packet.sport, "in": packet.in_, "out": packet.out, "hook": packet.hook,
        "state": packet.ct, "expect": question.expected.verdict,
    }  # fmt: skip
    if decided.policy is not None:
        found["decidedBy"] = {"policy": decided.policy, "rule": decided.rule, "tier": decided.tier}
    if packet.icmp_type is not None:
        found["icmp"] = {"type": packet.icmp_type, "code": packet.icmp_code or 0}
    return {name: value for name, value in found.items() if value is not None}


def asked(case: Case, questions: list[Question]) -> PolicyTest:
    """All of a case in one document."""
    packets = [question.packet for question in questions]
    names = {name for packet in packets for name in (packet.in_, packet.out) if name}
    interfaces = {name: list(case.host.interfaces.get(name, ())) for name in {*names, *case.host.interfaces}}
    spec = {"node": case.node, "interfaces": interfaces, "expectations": list(map(expectation, questions))}
    head = {"apiVersion": "labelgate/v1", "kind": "PolicyTest", "metadata": {"name": "t"}}
    loading = Loading()
    loading.add(yaml.safe_dump({**head, "spec": spec}), "<text>")
    assert not loading.problems, loading.problems
    return loading.tests[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_holds_as_expectations(case: Case) -> None:
    questions = list(filter(expressible, case.questions))
    if not questions:
        return
    world, test = World(case.snapshot()), asked(case, questions)
    for index, question in enumerate(questions):
        result = judge(world, test, index)
        assert result.is_as_expected, (question.id, result, result.failures)


def test_the_cases_are_of_every_kind() -> None:
    """So that no kind of policy is lost from what is shown here."""
    stages = {one.expected.decided.stage for case in CASES for one in filter(expressible, case.questions)}
    assert stages >= {
        "untracked", "prednat", "normal", "from-hep", "to-hep", "workload-egress", "workload-ingress",
    }  # fmt: skip
