"""A random world in force on a node: who answers its packets, and which of them a kernel can show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Self

from labelgate import DecisionTable, Settings, Snapshot
from labelgate.flow import Answer, Hook, Packet
from labelgate.netfilter.facts import RulesetFacts
from labelgate.reference import Reference
from random_world import HOST, Dice
from rules_interpreter import KernelPacket
from test_engine_equals_reference import interfaces_of
from test_ruleset_examples import Judge
from test_ruleset_simulation import FOREIGN


@dataclass(frozen=True)
class EnforcedWorld:
    """A random world on its node."""

    dice: Dice
    settings: Settings
    snapshot: Snapshot
    table: DecisionTable
    answer: Callable[[Packet], Answer]
    """The reference's."""

    @classmethod
    def of(cls, seed: int) -> Self:
        """The same for the same seed."""
        dice, more = Dice(seed), Random(seed)
        world = dice.world()
        settings = replace(
            world.settings,
            filter_allow=more.choice(("Accept", "Accept", "Return")),
            filter_deny=more.choice(("Drop", "Reject")),
        )
        snapshot = world.snapshot()
        table = snapshot.compile(node="edge1", host=HOST, settings=settings)
        return cls(dice, settings, snapshot, table, Reference(snapshot, "edge1", HOST, settings).answer)

    def packets(self, number: int, facts: RulesetFacts) -> list[Packet]:
        """Of so many random ones those that its rules can meet."""
        names = interfaces_of(self.snapshot)
        return [packet for _ in range(number) if can_be(packet := self.dice.packet(names), facts)]


class Loop(Judge):
    """What `src/enforce/worker.rs` asks about a queued packet."""

    def answer(self, hook: Hook, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        seen = replace(packet, ct="new", dnatted=hook == "mangle-postrouting")
        return super().answer(hook, seen, accepted)


def can_be(packet: Packet, facts: RulesetFacts) -> bool:
    """A kernel can show it: interfaces fit, defragmentation is on, only host endpoints set A."""
    comes_in = packet.hook in ("raw-prerouting", "mangle-prerouting", "filter-input")
    goes_out = packet.hook in ("raw-output", "filter-output")
    is_placed = (
        (packet.in_ is not None or not (comes_in or packet.hook == "filter-forward"))
        and (packet.out is None) == comes_in
        and not (goes_out and packet.in_)
    )
    return is_placed and not packet.fragment and (bool(facts.hosts) or not packet.accepted)


def as_seen(packet: Packet) -> KernelPacket:
    """In raw there is no conntrack state yet, and only OUTPUT and POSTROUTING ask for DNAT."""
    ct = "new" if packet.hook.startswith("raw") else packet.ct
    may_be_dnatted = packet.hook in ("filter-output", "mangle-postrouting") and ct not in (
        "invalid",
        "untracked",
    )
    return KernelPacket(
        src=packet.src,
        dst=packet.dst,
        protocol=packet.protocol,
        in_=packet.in_,
        out=packet.out,
        ct=ct,
        mark=FOREIGN | (0x100 if packet.accepted else 0),
        sport=packet.sport,
        dport=packet.dport,
        icmp_type=packet.icmp_type,
        dnatted=packet.dnatted and may_be_dnatted,
    )
