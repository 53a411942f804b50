"""The worked examples of semantics section 8: rules and queue answer what an engine answers alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from labelgate import Answer, Decision, DecisionTable, HostFacts, Packet, Settings, Snapshot, load
from labelgate.flow import HOOKS, Hook
from labelgate.netfilter.facts import FAMILIES, Family, RulesetFacts
from labelgate.reference import Reference
from rules_interpreter import KernelPacket
from ruleset_examples import EXAMPLES
from ruleset_policies import POLICIES
from test_ruleset_simulation import FOREIGN, INTERFACES, World

HOST = HostFacts({"lo": ("127.0.0.1",), "eth0": ("198.51.100.10",), "eth1": ("10.9.0.10",)})
SOURCES: dict[Family, tuple[str, ...]] = {
    "v4": ("203.0.113.7", "192.0.2.5", "10.9.1.1", "10.9.66.4", "10.65.0.2", "10.65.0.3"),
    "v6": ("2001:db8::7", "fd00:65::2", "fe80::1"),
}
DESTINATION: dict[Family, str] = {"v4": "10.65.0.3", "v6": "fd00:65::3"}
CONTENTS = (  # Protocol, source port, destination port, ICMP type.
    (6, 40000, 443, None),
    (6, 40000, 22, None),
    (6, 40000, 5432, None),
    (6, 40000, 30443, None),
    (6, 40000, 445, None),
    (17, 5353, 53, None),
    (17, 53, 5353, None),
    (17, 42000, 4789, None),
    (4, None, None, None),
    (58, None, None, 135),
)


class Judge:
    """An engine, asked as the queue would ask it."""

    def __init__(self, answer: Callable[[Packet], Answer | Decision]) -> None:
        self._answer = answer

    def answer(self, hook: Hook, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        answer = self._answer(
            Packet(
                hook=hook,
                src=packet.src,
                dst=packet.dst,
                protocol=packet.protocol,
                sport=packet.sport,
                dport=packet.dport,
                icmp_type=packet.icmp_type,
                icmp_code=None if packet.icmp_type is None else 0,
                in_=packet.in_,
                out=packet.out,
                ct=packet.ct,  # type: ignore[arg-type]
                accepted=accepted,
                dnatted=packet.dnatted,
            )
        )
        return answer.verdict, answer.accepted


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    folder: Path = tmp_path_factory.mktemp("policies")
    for name, policy in POLICIES.items():
        (folder / f"{name}.yaml").write_text(policy)
    return {name: load(folder / f"{name}.yaml") for name in POLICIES}


@pytest.fixture(scope="module")
def tables(snapshots: dict[str, Snapshot]) -> dict[str, DecisionTable]:
    return {name: snapshot.compile(node="edge1", host=HOST) for name, snapshot in snapshots.items()}


@pytest.mark.parametrize("name", POLICIES)
def test_the_facts_of_the_golden_texts_are_the_engines(name: str, tables: dict[str, DecisionTable]) -> None:
    def in_order(facts: dict[str, list[dict[str, object]]]) -> RulesetFacts:
        workloads = sorted(facts["workloads"], key=lambda w: str(w["interface"]))
        return RulesetFacts.read({"hosts": facts["hosts"], "workloads": workloads})

    assert in_order(tables[name].rule_facts()) == in_order(EXAMPLES[name])


@cache
def packets(hook: Hook, family: Family) -> list[KernelPacket]:
    """All combinations that a kernel can show at this hook."""
    return list(combinations(hook, family))


def combinations(hook: Hook, family: Family) -> Iterator[KernelPacket]:
    inward = (None,) if hook in ("raw-output", "filter-output") else INTERFACES
    outward = (None,) if hook in ("raw-prerouting", "mangle-prerouting", "filter-input") else INTERFACES
    if hook == "mangle-postrouting":
        inward = (None, "eth0", "cali111")
    states = ("new",) if hook.startswith("raw") else ("new", "established", "related", "invalid", "untracked")
    for in_, out, ct, mark, source, content in itertools.product(
        inward, outward, states, (0, 0x100), SOURCES[family], CONTENTS
    ):
        may_be_dnatted = hook in ("filter-output", "mangle-postrouting") and ct not in (
            "invalid",
            "untracked",
        )
        protocol, sport, dport, kind = content
        for dnatted in (False, True) if may_be_dnatted else (False,):
            yield KernelPacket(
                src=ip_address(source),
                dst=ip_address(DESTINATION[family]),
                protocol=protocol,
                in_=in_,
                out=out,
                ct=ct,
                mark=FOREIGN | mark,
                sport=sport,
                dport=dport,
                icmp_type=kind,
                dnatted=dnatted,
            )


def disagreements(world: World, hook: Hook, asked: Iterable[KernelPacket]) -> list[KernelPacket]:
    """Packets of which rules and queue together make something else than the judge alone."""
    can_be_accepted = bool(world.facts.hosts) or hook.startswith("raw")  # Only host endpoints set the mark.
    return [
        packet
        for packet in asked
        if (can_be_accepted or not packet.mark & world.marks.accept)
        and world.seen(hook, world.through_rules(hook, packet)) != world.expected(hook, packet)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", POLICIES)
def test_rules_only_anticipate_the_engine(
    name: str, family: Family, tables: dict[str, DecisionTable]
) -> None:
    world = World(RulesetFacts.read(tables[name].rule_facts()), family, Judge(tables[name].decide_packet))
    for hook in HOOKS:
        assert disagreements(world, hook, packets(hook, family)) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", POLICIES)
def test_rules_only_anticipate_the_reference(
    name: str, family: Family, snapshots: dict[str, Snapshot], tables: dict[str, DecisionTable]
) -> None:
    reference = Reference(snapshots[name], "edge1", HOST, Settings())
    world = World(RulesetFacts.read(tables[name].rule_facts()), family, Judge(reference.answer))
    dice = Random(name)
    for hook in HOOKS:
        asked = packets(hook, family)
        assert disagreements(world, hook, dice.sample(asked, min(len(asked), 1500))) == []
