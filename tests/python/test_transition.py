"""Rules between two policies: with the table of either one they do what that policy says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from random import Random

import pytest
from enforced_world import EnforcedWorld, Loop, as_seen
from labelgate.flow import Hook
from labelgate.netfilter.facts import (
    FAMILIES,
    ByDirection,
    ByFamily,
    HostChains,
    RulesetFacts,
    WorkloadChains,
)
from labelgate.netfilter.transition import between
from labelgate.settings import DEFAULT_FAILSAFE_INBOUND, Settings
from rules_interpreter import KernelPacket
from test_ruleset_simulation import World, random_facts

PACKETS = 100


class Side:
    """One of the two policies: its own rules, and those between, with its table."""

    def __init__(self, seed: int) -> None:
        self.world = EnforcedWorld.of(seed)
        self.facts = RulesetFacts.read(self.world.table.rule_facts(), settings=self.world.settings)

    def worlds(self, facts: RulesetFacts) -> dict[str, World]:
        """The interpreter of rules, by family."""
        return {family: World(facts, family, Loop(self.world.table.decide_packet)) for family in FAMILIES}


def outcome(worlds: dict[str, World], hook: Hook, packet: KernelPacket) -> tuple[bool, bool, bool]:
    """Is it lost, has it bit A, is it untracked?"""
    world = worlds["v4" if packet.src.version == 4 else "v6"]
    word, accepted, notrack = world.seen(hook, world.through_rules(hook, packet))
    return word in ("drop", "reject"), accepted, notrack


@pytest.mark.parametrize("first", range(0, 400, 80))
def test_either_table_is_enforced_by_the_rules_between(first: int) -> None:
    """What both lose is lost; what neither loses is not, but where the interfaces of workloads differ."""
    lost = passed = 0
    for seed in range(first, first + 80, 2):
        sides = (old := Side(seed)), (new := Side(seed + 1))
        if old.facts.is_empty or new.facts.is_empty:
            continue
        both = between(old.facts, new.facts)
        is_alike = old.world.settings.workload_prefixes == new.world.settings.workload_prefixes
        own, transitional = (
            [side.worlds(side.facts) for side in sides],
            [side.worlds(both) for side in sides],
        )
        for packet in [packet for side in sides for packet in side.world.packets(PACKETS, both)]:
            seen = as_seen(packet)
            alone = [outcome(worlds, packet.hook, seen) for worlds in own]
            for index in (0, 1):
                found = outcome(transitional[index], packet.hook, seen)
                where = f"{seed} {index}: {packet}: {alone} became {found}"
                assert found[0] or not (alone[0][0] and alone[1][0]), where
                if is_alike and packet.ct != "invalid":
                    assert not found[0] or alone[0][0] or alone[1][0], where
                if is_alike and packet.ct in ("new", "untracked") and not (found[0] or alone[index][0]):
                    assert found == alone[index], where
                lost, passed = lost + found[0], passed + (not found[0])
    assert min(lost, passed) > 10


@pytest.mark.parametrize("seed", range(40))
def test_nothing_between_a_policy_and_itself(seed: int) -> None:
    facts = random_facts(Random(seed))
    assert between(facts, facts) == facts


ALLOW, DENY, ASKED = (ByFamily(word, word, ("c4", "c6")) for word in ("allow", "deny", "queue"))  # type: ignore[arg-type]


def host(**changes: object) -> HostChains:
    chains = HostChains("HostEndpoint/h", ("eth0",), False, ALLOW, ALLOW, ByDirection(ALLOW, ALLOW))
    return replace(chains, **changes)  # type: ignore[arg-type]


def of(*hosts: HostChains, **rest: object) -> RulesetFacts:
    return RulesetFacts(hosts, **{"workloads": (), **rest})  # type: ignore[arg-type]


def test_what_both_settle_alike_is_settled() -> None:
    untracked = ByDirection(ASKED, ASKED)
    (found,) = between(of(host(input=DENY, untracked=untracked)), of(host(input=ALLOW))).hosts
    asked = ByFamily("queue", "queue")
    assert found.input == asked
    assert found.untracked == ByDirection(asked, asked)
    assert (found.output, found.forward) == (ALLOW, ByDirection(ALLOW, ALLOW))
    other = ByFamily("allow", "allow", ("c4", "other"))
    (found,) = between(of(host(output=other)), of(host())).hosts
    assert found.output == ByFamily("allow", "queue", ("c4", "")), "counted for other rules"


def test_who_governs_by_one_policy_only_is_asked_about() -> None:
    other = host(endpoint="HostEndpoint/x", interfaces=("eth1",), prednat=DENY)
    every = host(endpoint="HostEndpoint/any", interfaces=(), any_interface=True)
    found = between(of(host(), other), of(host(), every)).hosts
    asked = ByFamily("queue", "queue")
    assert {one.interfaces: (one.any_interface, one.input, one.prednat) for one in found} == {
        ("eth0",): (False, ALLOW, None),
        ("eth1",): (False, asked, asked),
        (): (True, asked, None),
    }


def test_workloads_send_from_what_both_know() -> None:
    def workload(name: str, *sources: str) -> WorkloadChains:
        return WorkloadChains(f"Pod/{name}", name, tuple(map(ip_network, sources)), ALLOW, ALLOW)

    old = of(workloads=(workload("cali1", "10.0.0.0/24", "fd00::1/128"), workload("cali2", "10.0.1.1/32")))
    new = of(workloads=(workload("cali1", "10.0.0.5/32", "10.0.9.0/24", "fd00::1/128"), workload("cali3")))
    assert between(old, new).workloads == (workload("cali1", "10.0.0.5/32", "fd00::1/128"),)


def test_a_workload_more_or_less_needs_no_rules_between() -> None:
    def of_pods(*names: str) -> RulesetFacts:
        pods = (
            WorkloadChains(f"Pod/{name}", name, (ip_network("10.0.0.1/32"),), ALLOW, ASKED) for name in names
        )
        return of(host(), workloads=tuple(pods))

    few, many = of_pods("cali1", "cali3"), of_pods("cali1", "cali2", "cali3")
    assert (between(few, many), between(many, few)) == (few, few)


def test_one_workload_in_the_place_of_all_is_denied_not_open() -> None:
    old, new = (
        of(workloads=(WorkloadChains("Pod/p", name, (), ALLOW, ALLOW),)) for name in ("cali1", "cali2")
    )
    (found,) = between(old, new).workloads
    asked = ByFamily("queue", "queue")
    assert (found.interface, found.sources, found.ingress, found.egress) == ("cali1", (), asked, asked)


def test_spared_is_what_both_spare() -> None:
    old, new = Settings(failsafe_inbound=()), Settings(workload_prefixes=("tap",), exempt_loopback=True)
    found = between(of(host(), settings=old), of(host(), settings=new)).settings
    assert (found.failsafe_inbound, found.exempt_loopback) == ((), False)
    assert found.workload_prefixes == ("tap", "cali")
    assert new.failsafe_inbound == DEFAULT_FAILSAFE_INBOUND
