"""Random small worlds and packets: every engine and the reference answer alike, step for step.

`LABELGATE_WORLDS` says how many worlds, of 60 packets each; `make test-long` asks for 200,000 pairs and more.
A disagreement is shown as the smallest YAML and the plainest packet on which it is left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache

import pytest
from cases import ENGINES, Expected
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from labelgate.flow import Answer, Packet
from labelgate.reference import Reference
from labelgate.reference.labels import Endpoint, members
from labelgate.reference.reasons import Reason
from labelgate.resources import LoadError, load_text
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from minimal import Documents, minimal, shown
from random_world import HOST, Dice, aims

WORLDS, PACKETS = int(os.environ.get("LABELGATE_WORLDS", "300")), 60
STEP = 50


def interfaces_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Those that endpoints have, also those of pods."""
    endpoints = [member for member in members(snapshot, "cali") if isinstance(member, Endpoint)]
    return tuple(sorted({endpoint.interface for endpoint in endpoints} - {"", "*"}))


class World:
    """All engines and the reference on the same documents; `staged`: as if staged policies were in force."""

    def __init__(self, documents: Documents, settings: Settings, staged: bool) -> None:
        self.snapshot = Snapshot.of(load_text("\n---\n".join(map(json.dumps, documents))))
        self.tables = {
            engine: self.snapshot.compile(
                node="edge1", host=HOST, settings=settings, staged=staged, budgets=budgets
            )
            for engine, budgets in ENGINES.items()
        }
        self.reference = Reference(self.snapshot, "edge1", HOST, settings, staged=staged)

    def difference(self, packet: Packet, literal: Answer) -> str | None:
        """The first answer that is not the reference's."""
        for engine, table in self.tables.items():
            if (found := Expected.of_decision(table.decide_packet(packet))) != Expected.of(literal):
                return f"{engine}: {found}"
        # Steps are told by `linear`, whatever decides.
        traced = self.tables["linear"].answer(packet)
        return None if traced == literal else f"trace: {traced}"


def ask(dice: Dice) -> Iterator[tuple[Packet, Answer]]:
    """Random packets with their answer; fails, with the smallest example, where two judges differ."""
    documents, staged = dice.world(), dice.chance(33)
    world = World(documents.documents, documents.settings, staged)
    names, aimed = interfaces_of(world.snapshot), tuple(aims(documents.documents))
    for _ in range(PACKETS):
        packet = dice.packet(names, aimed)
        literal = world.reference.answer(packet)
        if world.difference(packet, literal):
            pytest.fail(smallest(documents.documents, documents.settings, staged, packet))
        yield packet, literal


def smallest(documents: Documents, settings: Settings, staged: bool, packet: Packet) -> str:
    def fails(documents: Documents, packet: Packet) -> bool:
        try:
            world = World(documents, settings, staged)
        except LoadError:
            return False
        return world.difference(packet, world.reference.answer(packet)) is not None

    documents, packet = minimal(documents, packet, fails)
    world = World(documents, settings, staged)
    literal = world.reference.answer(packet)
    found = world.difference(packet, literal)
    context = f"{settings}, staged={staged}\n{found}\nreference: {literal}"
    return f"table and reference disagree:\n{shown(documents, packet)}\n{context}"


@lru_cache(300)
def answers(seed: int) -> list[tuple[Packet, Answer]]:
    return list(ask(Dice(seed)))


@pytest.mark.parametrize("first", range(0, WORLDS, STEP))
def test_same_answer(first: int) -> None:
    for seed in range(first, first + STEP):
        answers(seed)


@settings(
    max_examples=max(20, WORLDS // 20),
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # `smallest` shrinks better: it knows what a document is
    suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False))
def test_same_answer_to_what_hypothesis_draws(random) -> None:
    assert len(list(ask(Dice(random)))) == PACKETS


def test_worlds_are_worth_asking() -> None:
    """The packets meet every reason that there is."""
    steps = (step for seed in range(300) for _, answer in answers(seed) for step in answer.trace)
    assert {reason.text for reason in Reason} - {step.reason for step in steps} == set()
