"""Rules and queue together answer what the hooks answer: the kernel only anticipates.

Random worlds of host endpoints and workloads, whose chains answer anything that chains can answer; the rules
run in an interpreter, queued packets are judged by the model and come back with the mark protocol's bits.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Protocol

import pytest
from hooks_model import Hooks
from labelgate.flow import HOOKS, Hook
from labelgate.netfilter.builder import REASONS
from labelgate.netfilter.facts import (
    FAMILIES,
    ByDirection,
    ByFamily,
    Family,
    HostChains,
    Marks,
    RulesetFacts,
    WorkloadChains,
)
from labelgate.netfilter.readback import EMPTY_TABLE
from labelgate.netfilter.render import transaction
from labelgate.netfilter.ruleset import ruleset
from labelgate.settings import Failsafe, Settings
from rules_interpreter import Interpreter, KernelPacket, Outcome

FOREIGN = 0x8000_A803  # Bits of others, some of them between ours.
PLACES: dict[Hook, tuple[str, str]] = {
    "raw-prerouting": ("raw", "PREROUTING"),
    "raw-output": ("raw", "OUTPUT"),
    "mangle-prerouting": ("mangle", "PREROUTING"),
    "filter-input": ("filter", "INPUT"),
    "filter-forward": ("filter", "FORWARD"),
    "filter-output": ("filter", "OUTPUT"),
    "mangle-postrouting": ("mangle", "POSTROUTING"),
}
INTERFACES = ("eth0", "eth1", "wg0", "lo", "cali111", "cali222", "cali333")


class Answers(Protocol):
    """Judges packets: the verdict word and bit A afterwards."""

    def answer(self, hook: Hook, packet: KernelPacket, accepted: bool) -> tuple[str, bool]: ...


class World:
    """Rules and model of the same facts, in one family."""

    def __init__(self, facts: RulesetFacts, family: Family, answers: Answers | None = None) -> None:
        self.facts, self.family, self.marks = facts, family, facts.marks
        tables = ruleset(facts).tables
        self.tables = {
            table: Interpreter(transaction(table, EMPTY_TABLE, rules))
            for (table, of_family), rules in tables.items()
            if of_family == family
        }
        self.hooks = answers or Hooks(facts, family)

    def run(self, hook: Hook, packet: KernelPacket) -> Outcome:
        table, base = PLACES[hook]
        return self.tables[table].enter(base, packet)

    def through_rules(self, hook: Hook, packet: KernelPacket) -> Outcome:
        """Rules, and where they queue: the engine and the rules again."""
        outcome = self.run(hook, packet)
        if outcome.word != "queue":
            return outcome
        assert [outcome.queue] == list(self.facts.queues(hook, self.family))
        seen = outcome.packet
        ours = self.marks.exempt if hook == "raw-output" else 0
        assert not seen.mark & (self.marks.decided | self.marks.reject) & ~ours
        verdict, accepted = self.hooks.answer(hook, seen, bool(seen.mark & self.marks.accept))
        is_filter, settings = hook.startswith("filter"), self.facts.settings
        bits = self.marks.accept if accepted else 0
        repeat = "repeat" if hook not in self.facts.without_repeat else "accept"
        word = repeat
        if verdict == "deny":
            word = "drop"
            if is_filter and settings.filter_deny == "Reject" and repeat == "repeat":
                word, bits = repeat, bits | self.marks.reject
        elif (
            verdict == "allow"
            and settings.filter_allow == "Accept"
            and (hook != "filter-forward" or not accepted)
        ):
            word = "accept"
        foreign = seen.mark & ~self.marks.mask
        if word != "repeat":
            return Outcome(word, replace(seen, mark=foreign | bits))
        again = self.run(hook, replace(seen, mark=foreign | bits | self.marks.decided))
        assert again.word != "queue", "a decided packet is queued for ever"
        is_undone_by_others = seen.ct == "untracked" or seen.protocol == 58
        if hook == "raw-output" and self.facts.keeps_mark and not is_undone_by_others:
            assert again.packet.mark == seen.mark, "it is looked up in the routes again"
        return again

    def is_accepted(self, hook: Hook, packet: KernelPacket, mark: int) -> bool:
        """E-48: bit A says so, and behind the queue of raw OUTPUT bit R, of what is untracked."""
        is_exempt = hook in ("raw-output", "filter-output") and packet.ct == "untracked"
        return bool(mark & self.marks.accept) or (is_exempt and bool(mark & self.marks.exempt))

    def seen(self, hook: Hook, outcome: Outcome) -> tuple[str, bool, bool]:
        """What became of it, bit A, and whether it is exempt from conntrack; a lost packet has neither."""
        if outcome.word in ("drop", "reject"):
            return outcome.word, False, False
        mark = outcome.packet.mark
        assert mark & ~self.marks.mask == FOREIGN, "bits of others were touched"
        accepted = self.is_accepted(hook, outcome.packet, mark)
        may_be_exempt = hook == "raw-output" or (hook == "filter-output" and accepted)
        ours = self.marks.exempt if may_be_exempt else 0
        assert not mark & (self.marks.decided | self.marks.reject) & ~ours, "our bits leave the table"
        word = outcome.word
        if (
            hook == "filter-forward"
            and word == "return"
            and accepted
            and self.facts.settings.filter_allow == "Accept"
        ):
            word = "accept"  # The rule that is kept last in FORWARD.
        return word, accepted, outcome.packet.notrack

    def expected(self, hook: Hook, packet: KernelPacket) -> tuple[str, bool, bool]:
        arrived = self.is_accepted(hook, packet, packet.mark)
        verdict, accepted = self.hooks.answer(hook, packet, arrived)
        settings = self.facts.settings
        if verdict == "deny":
            rejects = hook.startswith("filter") and settings.filter_deny == "Reject"
            return "reject" if rejects else "drop", False, False
        word = "accept" if verdict == "allow" and settings.filter_allow == "Accept" else "return"
        if settings.filter_allow == "Return" and hook == "filter-forward" and verdict == "allow":
            # Where the base chain judges accepted packets, A says so, also for ESTABLISHED.
            accepted = accepted or packet.ct in ("established", "related")
        return word, accepted, verdict == "allow-notrack"


def by_family(dice: random.Random, *answers: str) -> ByFamily:
    return ByFamily(dice.choice(answers), dice.choice(answers))  # type: ignore[arg-type]


def both(dice: random.Random, *answers: str) -> ByDirection:
    return ByDirection(by_family(dice, *answers), by_family(dice, *answers))


NORMAL, OTHER = ("queue", "allow", "deny"), ("queue", "allow", "deny", "unmarked")


def random_host(dice: random.Random, name: str, interfaces: tuple[str, ...]) -> HostChains:
    is_any = not interfaces
    return HostChains(
        name,
        interfaces,
        is_any,
        input=by_family(dice, *NORMAL),
        output=by_family(dice, *NORMAL),
        forward=both(dice, *OTHER),
        untracked=None if is_any or dice.random() < 0.4 else both(dice, *OTHER),
        prednat=None if dice.random() < 0.4 else by_family(dice, *OTHER),
    )


def random_facts(dice: random.Random) -> RulesetFacts:
    hosts = [
        random_host(dice, f"HostEndpoint/{name}", (name,))
        for name in ("eth0", "eth1", "lo")
        if dice.random() < 0.5
    ]
    if dice.random() < 0.5:
        hosts.append(random_host(dice, "HostEndpoint/any", ()))
    workloads = [
        WorkloadChains(
            f"Pod/shop/{name}",
            name,
            (ip_network(f"10.65.0.{last}/32"), ip_network(f"fd65::{last}/128")),
            by_family(dice, *NORMAL),
            by_family(dice, *NORMAL),
        )
        for name, last in (("cali111", 2), ("cali222", 3))
        if dice.random() < 0.8
    ]
    net = ip_network("198.51.100.0/24")
    settings = Settings(
        endpoint_to_host=dice.choice(("Drop", "Accept", "Return")),
        filter_allow=dice.choice(("Accept", "Accept", "Return")),
        filter_deny=dice.choice(("Drop", "Reject")),
        invalid_check=dice.random() < 0.7,
        failsafe_inbound=(Failsafe(6, 22), Failsafe(17, 68), Failsafe(6, 2222, net), Failsafe(47, 9)),
        failsafe_outbound=(Failsafe(17, 53), Failsafe(6, 7777, net)),
        workload_vxlan_port=dice.choice((4789, None)),
        workload_ipip_denied=dice.random() < 0.7,
        forward_unmarked=dice.choice(("return", "return", "accept", "deny")),
        exempt_loopback=dice.random() < 0.5,
    )
    return RulesetFacts(
        tuple(hosts),
        tuple(workloads),
        settings,
        fail_open=frozenset({"filter-input"}),
        keeps_mark=dice.random() < 0.5,
    )


def random_packet(
    dice: random.Random, family: Family, hook: Hook, *, may_be_accepted: bool = True
) -> KernelPacket:
    sources = {
        "v4": ("10.65.0.2", "10.65.0.3", "203.0.113.7", "198.51.100.9"),
        "v6": ("fd65::2", "fd65::3", "2001:db8::7", "fe80::1", "::"),
    }[family]
    protocol, sport, dport, kind = dice.choice(
        (
            (6, 40000, 443, None),
            (6, 40000, 22, None),
            (6, 40000, 2222, None),
            (6, 7777, 40000, None),
            (6, 40000, 7777, None),
            (17, 40000, 53, None),
            (17, 53, 40000, None),
            (17, 40000, 4789, None),
            (17, 68, 40000, None),
            (4, None, None, None),
            (47, None, None, None),
            (58, None, None, 135),
            (58, None, None, 128),
        )
    )
    in_ = None if hook in ("raw-output", "filter-output") else dice.choice(INTERFACES)
    out = None if hook in ("raw-prerouting", "mangle-prerouting", "filter-input") else dice.choice(INTERFACES)
    if hook == "mangle-postrouting" and dice.random() < 0.7:
        in_ = None
    # Only host endpoints accept before filter; at raw a mark may be forged.
    bits = dice.choice((0, 0x100 if may_be_accepted else 0))
    if hook.startswith("raw"):
        bits = dice.choice((0, 0x100, 0x1100))
    ct = dice.choice(("new", "established", "related", "invalid", "untracked"))
    dnatted = hook in ("filter-output", "mangle-postrouting") and ct not in ("invalid", "untracked")
    return KernelPacket(
        src=ip_address(dice.choice(sources)),
        dst=ip_address(dice.choice(sources)),
        protocol=protocol,
        in_=in_,
        out=out,
        ct=ct,
        mark=FOREIGN | bits,
        sport=sport,
        dport=dport,
        icmp_type=kind,
        dnatted=dnatted and dice.random() < 0.6,
    )


@pytest.mark.parametrize("seed", range(60))
def test_rules_and_queue_answer_what_the_hooks_answer(seed: int) -> None:
    dice = random.Random(seed)
    facts = random_facts(dice)
    if facts.is_empty:
        return
    for family in FAMILIES:
        world = World(facts, family)
        for hook in HOOKS:
            for _ in range(400 if hook == "filter-forward" else 150):
                packet = random_packet(dice, family, hook, may_be_accepted=bool(facts.hosts))
                if hook == "filter-output" and any(host.untracked for host in facts.hosts):
                    packet = replace(packet, mark=packet.mark | dice.choice((0, facts.marks.exempt)))
                seen = world.seen(hook, world.through_rules(hook, packet))
                assert seen == world.expected(hook, packet), (hook, packet, facts)


class Blind(Hooks):
    """As the packet loop, which sees no conntrack state: rules have settled all that matter."""

    def answer(self, hook: str, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        seen = replace(packet, ct="new", dnatted=hook == "mangle-postrouting")
        return super().answer(hook, seen, accepted)


def counted(facts: RulesetFacts, dice: random.Random) -> RulesetFacts:
    """The same, where each answer that may be counted has a counter, some of them the same one."""

    def one(answers: ByFamily) -> ByFamily:
        v4, v6 = ("" if answers.of(family) == "queue" else f"lg-{dice.randrange(5)}" for family in FAMILIES)
        return replace(answers, counters=(v4, v6))

    def two(sides: ByDirection) -> ByDirection:
        return ByDirection(one(sides.ingress), one(sides.egress))

    hosts = tuple(
        replace(
            host,
            input=one(host.input),
            output=one(host.output),
            forward=two(host.forward),
            untracked=host.untracked and two(host.untracked),
            prednat=host.prednat and one(host.prednat),
        )
        for host in facts.hosts
    )
    workloads = tuple(
        replace(workload, ingress=one(workload.ingress), egress=one(workload.egress))
        for workload in facts.workloads
    )
    reasons = {reason: f"lg-{reason[:3]}" for reason in REASONS}
    return replace(facts, hosts=hosts, workloads=workloads, reasons=reasons)


@pytest.mark.parametrize("seed", range(10))
def test_counting_decides_nothing(seed: int) -> None:
    """Whatever is counted, and whoever has set the bit that leads to counters in mangle POSTROUTING."""
    dice = random.Random(seed)
    facts = random_facts(dice)
    if facts.is_empty:
        return
    facts = replace(facts, open=dice.random() < 0.2)
    if dice.random() < 0.3:
        hooks = frozenset(hook for hook in HOOKS if dice.random() < 0.3)
        facts = replace(facts, without_repeat=hooks, settings=replace(facts.settings, filter_deny="Drop"))
    reject = facts.marks.reject
    for family in FAMILIES:
        judge = Blind(facts, family)
        plain, counting = (World(asked, family, judge) for asked in (facts, counted(facts, dice)))
        for hook in HOOKS:
            for _ in range(120 if hook == "filter-forward" else 60):
                packet = random_packet(dice, family, hook, may_be_accepted=bool(facts.hosts))
                expected, asked = plain.through_rules(hook, packet), packet
                if hook == "mangle-postrouting":
                    asked = replace(packet, mark=packet.mark | dice.choice((0, reject)))
                found = counting.through_rules(hook, asked)
                mark = found.packet.mark
                if (mark ^ expected.packet.mark) & reject:
                    is_turned = hook == "filter-output" and packet.dnatted and found.word == "return"
                    assert is_turned or asked != packet, packet
                seen = replace(found.packet, mark=mark & ~reject | expected.packet.mark & reject)
                assert (found.word, seen) == (expected.word, expected.packet), (hook, packet, facts)


def test_a_mark_of_others_in_place_of_d_is_no_verdict() -> None:
    facts = random_facts(random.Random(1))
    facts = replace(
        facts, without_repeat=frozenset(HOOKS), settings=replace(facts.settings, filter_deny="Drop")
    )
    world = World(facts, "v4")
    dice = random.Random(2)
    for hook in HOOKS:
        for _ in range(200):
            packet = random_packet(dice, "v4", hook)
            forged = replace(packet, mark=packet.mark | 0x1400)
            found, expected = world.run(hook, forged), world.run(hook, packet)
            assert replace(found, rules=0) == replace(expected, rules=0)


def test_an_open_ruleset_queues_nothing_and_keeps_what_the_kernel_settles() -> None:
    dice = random.Random(3)
    facts = random_facts(dice)
    closed, opened = World(facts, "v4"), World(replace(facts, open=True), "v4")
    for hook in HOOKS:
        for _ in range(300):
            packet = random_packet(dice, "v4", hook)
            outcome = opened.run(hook, packet)
            assert outcome.word != "queue"
            before = closed.run(hook, packet)
            if before.word != "queue":
                assert replace(outcome, rules=0) == replace(before, rules=0)


def test_other_bits_of_the_mask() -> None:
    facts = replace(random_facts(random.Random(5)), marks=Marks.from_mask(0x0007_0000))
    marks = facts.marks
    assert (marks.accept, marks.decided, marks.reject) == (0x1_0000, 0x2_0000, 0x4_0000)
    text = str(
        [str(rule) for t in ruleset(facts).tables.values() for rules in t.chains.values() for rule in rules]
    )
    assert "0x100/" not in text
    assert "0x400/" not in text
    assert "0x10000/0x10000" in text
