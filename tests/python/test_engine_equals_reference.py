"""Random small worlds and packets: the compiled engine and the reference answer alike, step for step."""

from __future__ import annotations

from functools import cache

import pytest
from labelgate.flow import Answer, Packet
from labelgate.reference import Reference
from labelgate.reference.labels import Endpoint, members
from labelgate.reference.reasons import Reason
from labelgate.snapshot import Snapshot
from random_world import HOST, Dice

WORLDS, PACKETS = 300, 60


def interfaces_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Those that endpoints have, also those of pods."""
    endpoints = [member for member in members(snapshot, "cali") if isinstance(member, Endpoint)]
    return tuple(sorted({endpoint.interface for endpoint in endpoints} - {"", "*"}))


@cache
def answers(seed: int) -> list[tuple[Packet, Answer, Answer]]:
    """Each packet of a seed with the engine's and the reference's answer."""
    dice = Dice(seed)
    world = dice.world()
    snapshot = world.snapshot()
    staged = bool(seed % 3 == 0)
    table = snapshot.compile(node="edge1", host=HOST, settings=world.settings, staged=staged)
    reference = Reference(snapshot, "edge1", HOST, world.settings, staged=staged)
    names = interfaces_of(snapshot)
    packets = [dice.packet(names) for _ in range(PACKETS)]
    return [(packet, table.answer(packet), reference.answer(packet)) for packet in packets]


@pytest.mark.parametrize("first", range(0, WORLDS, 50))
def test_same_answer(first: int) -> None:
    for seed in range(first, first + 50):
        for packet, compiled, literal in answers(seed):
            assert compiled == literal, f"{packet}\n{Dice(seed).world()}"


def test_worlds_are_worth_asking() -> None:
    """The packets meet every reason that there is."""
    steps = (step for seed in range(WORLDS) for *_, answer in answers(seed) for step in answer.trace)
    missing = {reason.text for reason in Reason} - {step.reason for step in steps}
    assert missing == set()
