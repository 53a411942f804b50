"""Random small worlds in full: kernel rules and the packet loop together do what the reference says.

The table is asked as the loop asks it: it sees no conntrack state, because the rules have settled every one
that matters before they queue.
"""

from __future__ import annotations

import pytest
from enforced_world import EnforcedWorld, Loop, as_seen
from labelgate.netfilter.facts import FAMILIES, RulesetFacts
from test_ruleset_examples import Judge
from test_ruleset_simulation import World

WORLDS, PACKETS = 100, 150


@pytest.mark.parametrize("first", range(0, WORLDS, 20))
def test_rules_and_loop_do_what_the_reference_says(first: int) -> None:
    asked = sum(ask(seed) for seed in range(first, first + 20))
    assert asked > 1000


def ask(seed: int) -> int:
    """Compares a world's packets; how many the rules could meet."""
    enforced = EnforcedWorld.of(seed)
    facts = RulesetFacts.read(enforced.table.rule_facts(), settings=enforced.settings)
    if facts.is_empty:
        return 0
    rules = {family: World(facts, family, Loop(enforced.table.decide_packet)) for family in FAMILIES}
    literal = {family: World(facts, family, Judge(enforced.answer)) for family in FAMILIES}
    packets = enforced.packets(PACKETS, facts)
    for packet in packets:
        family, seen = ("v4" if packet.src.version == 4 else "v6"), as_seen(packet)
        made = rules[family].seen(packet.hook, rules[family].through_rules(packet.hook, seen))
        assert made == literal[family].expected(packet.hook, seen), f"{seed}: {packet}"
    return len(packets)
