"""What rules of the kernel count is what the packets that they answer have met; what is queued they leave to
the loop, which counts it. Over random worlds and the worked examples, with the reference as the judge.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from enforced_world import EnforcedWorld, Loop, as_seen
from fake_nfacct import FakeNfacct
from labelgate import DecisionTable, Settings, Snapshot
from labelgate.agent import kernel_counts
from labelgate.agent.generation import Generation
from labelgate.agent.kernel_counts import KernelCounts
from labelgate.flow import HOOKS, Answer, Hook, Packet, Step
from labelgate.netfilter.builder import ENCAPSULATED, FAILSAFE, INVALID_PACKET, TO_HOST
from labelgate.netfilter.facts import FAMILIES, Family, RulesetFacts
from labelgate.netfilter.ruleset import ruleset
from labelgate.reference import Reference
from labelgate.resources import load_text
from rules_interpreter import KernelPacket
from ruleset_policies import POLICIES
from test_ruleset_examples import HOST as EXAMPLE_HOST
from test_ruleset_examples import Judge, packets
from test_ruleset_simulation import World

Met = tuple[str | None, ...]
"""Tier, policy, number of the rule, reason, action."""
WORLDS, PACKETS = 40, 120
TIER_ENDS = ("end of tier, action Pass (E-21)", "end of tier, all staged (E-23)")
"""Are no rule, and are not counted."""


@pytest.fixture(autouse=True)
def counters(monkeypatch: pytest.MonkeyPatch) -> FakeNfacct:
    """Of no kernel."""
    fake = FakeNfacct()
    monkeypatch.setattr(kernel_counts, "nfacct", fake)
    return fake


class Counting:
    """The rules of a table, with the names of counters as they count."""

    def __init__(
        self, snapshot: Snapshot, table: DecisionTable, answer: Callable[[Packet], Answer], **rest: Any
    ) -> None:
        kernel = KernelCounts(lambda text: pytest.fail(text))
        fields: Any = SimpleNamespace(table=table, snapshot=snapshot)
        named = kernel.named(cast(Generation, fields))
        self.facts = RulesetFacts.read(table.rule_facts(), named.chains, reasons=named.reasons, **rest)
        self.answer = answer
        self.meanings: dict[str, list[Met]] = {}
        rows = {id_of(row): row for row in table.settled()["names"].values()}
        for meaning, name in kernel._names.items():
            # A key has what the rule says in the place of its number.
            found = [
                row for key in meaning for row in rows.values() if kernel_key(kernel, row, snapshot) == key
            ]
            self.meanings[name] = [met_of(row) for row in found]
        uncounted = ruleset(self.facts).uncounted
        self.uncounted = {met for name in uncounted for met in self.meanings[name]}
        self.counted = {met for met_of_one in self.meanings.values() for met in met_of_one} - self.uncounted
        self.rules = {family: World(self.facts, family, Judge(answer)) for family in FAMILIES}

    def found(self, hook: Hook, family: Family, packet: KernelPacket) -> Counter[Met] | None:
        """What the rules count of it; None: they queue it."""
        outcome = self.rules[family].run(hook, packet)
        assert outcome.word != "queue" or not self.met(outcome.counted), "what is queued is counted twice"
        return None if outcome.word == "queue" else self.met(outcome.counted)

    def met(self, names: tuple[str, ...]) -> Counter[Met]:
        return Counter(met for name in names for met in self.meanings[name] if met in self.counted)

    def expected(self, hook: Hook, family: Family, packet: KernelPacket) -> Counter[Met]:
        accepted = bool(packet.mark & self.facts.marks.accept)
        steps = self.answer(asked(hook, packet, accepted)).trace
        found = [
            (
                step.tier,
                step.policy,
                str(step.rule),
                step.reason,
                step.action,
            )
            for step in steps
            if step.reason not in TIER_ENDS and not self.decides_nothing(hook, family, step)
        ]
        return Counter(met for met in found if met in self.counted)

    def decides_nothing(self, hook: Hook, family: Family, step: Step) -> bool:
        """A failsafe where raw lets all pass has no rule."""
        is_in = hook == "raw-prerouting"
        untracked = next(
            (host.untracked for host in self.facts.hosts if host.endpoint == step.endpoint), None
        )
        return (
            step.stage == "failsafe" and hook.startswith("raw") and untracked is not None
            and (untracked.ingress if is_in else untracked.egress).of(family) == "unmarked"
        )  # fmt: skip

    def wrong(self, hook: Hook, family: Family, packet: KernelPacket) -> str | None:
        """In words; None: it is right, or queued."""
        if hook == "mangle-postrouting" and is_turned(packet):
            if packet.mark & self.facts.marks.accept:
                return None  # Only untracked packets of this host have it, which nobody turns.
            packet = replace(packet, mark=packet.mark | self.facts.marks.reject)
        found = self.found(hook, family, packet)
        packet = replace(packet, mark=packet.mark & ~self.facts.marks.reject)
        if found is None or found == (expected := self.expected(hook, family, packet)):
            return None
        return f"{hook} {packet}: counted {found}, expected {expected}"


def is_turned(packet: KernelPacket) -> bool:
    """filter OUTPUT says so of it."""
    return packet.dnatted and packet.in_ is None and packet.ct not in ("established", "related")


def kernel_key(kernel: KernelCounts, row: dict[str, Any], snapshot: Snapshot) -> Any:
    resource = next((found for found in snapshot.resources() if found.key == row["policy"]), None)
    if resource is not None:
        kernel._contents.see([resource], 0)
    return kernel._contents.key(row, resource)


def id_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("tier", "policy", "direction", "rule", "reason", "action"))


def met_of(row: dict[str, Any]) -> Met:
    return (row["tier"], row["policy"], str(row["rule"]), row["reason"], row["action"])


def asked(hook: Hook, packet: KernelPacket, accepted: bool) -> Packet:
    """As the judge of the other tests asks."""
    seen: list[Packet] = []

    def note(question: Packet) -> Any:
        seen.append(question)
        return SimpleNamespace(verdict="", accepted=False)

    Judge(note).answer(hook, packet, accepted)
    return seen[0]


@pytest.mark.parametrize("name", POLICIES)
def test_the_examples_are_counted(name: str) -> None:
    snapshot = Snapshot.of(load_text(POLICIES[name]))
    reference = Reference(snapshot, "edge1", EXAMPLE_HOST, Settings())
    table = snapshot.compile(node="edge1", host=EXAMPLE_HOST)
    counting = Counting(snapshot, table, reference.answer)
    dice = Random(name)
    for hook in HOOKS:
        for family in FAMILIES:
            asked_of = packets(hook, family)
            for packet in dice.sample(asked_of, min(len(asked_of), 300)):
                assert counting.wrong(hook, family, packet) is None


@pytest.mark.parametrize("first", range(0, WORLDS, 20))
def test_random_worlds_are_counted(first: int) -> None:
    counted: Counter[Met] = Counter()
    for seed in range(first, first + 20):
        counted += ask(seed)
    reasons, policies = ({met for met in counted if (met[1] is None) is is_none} for is_none in (True, False))
    assert len(policies) > 5
    assert {met[3] for met in reasons} >= {FAILSAFE, INVALID_PACKET, TO_HOST, ENCAPSULATED}


def assert_forging_is_in_vain(world: World, hook: Hook, packet: KernelPacket) -> None:
    """Who sets the bit that leads to counters gets no other verdict."""
    if hook == "mangle-postrouting":
        forged = replace(packet, mark=packet.mark | world.marks.reject)
        found, expected = (world.through_rules(hook, asked) for asked in (forged, packet))
        assert found.word == expected.word, packet


def ask(seed: int) -> Counter[Met]:
    """Compares a world's packets; what was counted."""
    enforced = EnforcedWorld.of(seed)
    table = enforced.table
    counting = Counting(enforced.snapshot, table, enforced.answer, settings=enforced.settings)
    counted: Counter[Met] = Counter()
    if counting.facts.is_empty:
        return counted
    loops = {family: World(counting.facts, family, Loop(table.decide_packet)) for family in FAMILIES}
    # What is said not to be counted by the loop is what the kernel counts, under the same names.
    listed = {id_of(row): row["uncounted"] for row in json.loads(table.core.rules())}
    settled = {id_of(row) for row in table.settled()["names"].values() if row["policy"]}
    assert {row for row, why in listed.items() if why == "kernel"} <= settled
    assert {listed[row] for row in settled} <= {"kernel", "pass"}
    for packet in enforced.packets(PACKETS, counting.facts):
        family, seen = ("v4" if packet.src.version == 4 else "v6"), as_seen(packet)
        assert counting.wrong(packet.hook, family, seen) is None, seed
        assert_forging_is_in_vain(loops[family], packet.hook, seen)
        counted += counting.expected(packet.hook, family, seen)
    return counted
