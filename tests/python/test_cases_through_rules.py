"""Every case through the kernel rules: what they answer ahead of the queue, and the loop behind it.

The rules run in an interpreter, so that each packet of each case can be asked; `tests/kernel` sends some.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
from cases import Case, Expected, Question, load_cases
from enforced_world import Loop, as_seen, can_be
from labelgate.flow import Hook
from labelgate.netfilter.facts import Family, RulesetFacts
from rules_interpreter import KernelPacket
from test_ruleset_simulation import World


@dataclass(frozen=True, slots=True)
class Given:
    """Answers what the author of a case expects."""

    expected: Expected

    def answer(self, hook: Hook, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        return self.expected.verdict, self.expected.accepted


CASES = load_cases()
_BY_NAME = {case.name: case for case in CASES}


@cache
def _facts_and_loop(name: str) -> tuple[RulesetFacts, Loop]:
    case = _BY_NAME[name]
    table = case.snapshot().compile(
        node=case.node, host=case.host, settings=case.settings, staged=case.staged
    )
    return RulesetFacts.read(table.rule_facts(), settings=case.settings), Loop(table.decide_packet)


def _askable(case: Case, facts: RulesetFacts) -> list[Question]:
    """Those whose packet means the same to a kernel; the interpreter knows no ICMP codes but 0."""
    return [
        question
        for question in case.questions
        if not facts.is_empty
        and can_be(question.packet, facts)
        and as_seen(question.packet).dnatted == question.packet.dnatted
        and not question.packet.icmp_code
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rules_and_loop_answer_as_the_case_says(case: Case) -> None:
    facts, loop = _facts_and_loop(case.name)
    worlds: dict[Family, World] = {}
    for question in _askable(case, facts):
        hook, seen = question.packet.hook, as_seen(question.packet)
        family: Family = "v4" if seen.src.version == 4 else "v6"
        if family not in worlds:
            worlds[family] = World(facts, family, loop)
        world = worlds[family]
        world.hooks = loop
        made = world.seen(hook, world.through_rules(hook, seen))
        world.hooks = Given(question.expected)
        assert made == world.expected(hook, seen), question.id


def test_most_packets_can_be_asked() -> None:
    asked = sum(len(_askable(case, _facts_and_loop(case.name)[0])) for case in CASES)
    assert asked > 0.8 * sum(len(case.questions) for case in CASES)
