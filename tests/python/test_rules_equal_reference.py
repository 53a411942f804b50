"""Random small worlds in full: kernel rules and the packet loop together do what the reference says.

The table is asked as the loop asks it: it sees no conntrack state, because the rules have settled every one
that matters before they queue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from labelgate.flow import Answer, Hook, Packet
from labelgate.netfilter.facts import FAMILIES, RulesetFacts
from labelgate.reference import Reference
from random_world import HOST, Dice
from rules_interpreter import KernelPacket
from test_engine_equals_reference import interfaces_of
from test_ruleset_examples import Judge
from test_ruleset_simulation import FOREIGN, World

WORLDS, PACKETS = 100, 150


class Loop(Judge):
    """What `src/enforce/worker.rs` asks about a queued packet."""

    def answer(self, hook: Hook, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        seen = replace(packet, ct="new", dnatted=hook == "mangle-postrouting")
        return super().answer(hook, seen, accepted)


@pytest.mark.parametrize("first", range(0, WORLDS, 20))
def test_rules_and_loop_do_what_the_reference_says(first: int) -> None:
    asked = sum(ask(seed) for seed in range(first, first + 20))
    assert asked > 1000


def ask(seed: int) -> int:
    """Compares a world's packets; how many the rules could meet."""
    dice, more = Dice(seed), Random(seed)
    world = dice.world()
    settings = replace(
        world.settings,
        filter_allow=more.choice(("Accept", "Accept", "Return")),
        filter_deny=more.choice(("Drop", "Reject")),
    )
    snapshot = world.snapshot()
    table = snapshot.compile(node="edge1", host=HOST, settings=settings)
    facts = RulesetFacts.read(table.rule_facts(), settings=settings)
    if facts.is_empty:
        return 0
    answer: Callable[[Packet], Answer] = Reference(snapshot, "edge1", HOST, settings).answer
    rules = {family: World(facts, family, Loop(table.decide_packet)) for family in FAMILIES}
    literal = {family: World(facts, family, Judge(answer)) for family in FAMILIES}
    names = interfaces_of(snapshot)
    packets = [packet for _ in range(PACKETS) if can_be(packet := dice.packet(names), facts)]
    for packet in packets:
        family, seen = ("v4" if packet.src.version == 4 else "v6"), as_seen(packet)
        made = rules[family].seen(packet.hook, rules[family].through_rules(packet.hook, seen))
        assert made == literal[family].expected(packet.hook, seen), f"{seed}: {packet}"
    return len(packets)


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
