"""The worked examples of semantics section 8: rules and queue answer what the engine answers alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest
from labelgate import DecisionTable, HostFacts, Packet, load
from labelgate.flow import HOOKS, Hook
from labelgate.netfilter.facts import FAMILIES, Family, RulesetFacts
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


class Engine:
    """The compiled policy, asked as the queue would ask it."""

    def __init__(self, table: DecisionTable) -> None:
        self.table = table

    def answer(self, hook: Hook, packet: KernelPacket, accepted: bool) -> tuple[str, bool]:
        decision = self.table.decide_packet(
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
        return decision.verdict, decision.accepted


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DecisionTable]:
    folder: Path = tmp_path_factory.mktemp("policies")
    made = {}
    for name, policy in POLICIES.items():
        file = folder / f"{name}.yaml"
        file.write_text(policy)
        made[name] = load(file).compile(node="edge1", host=HOST)
    return made


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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", POLICIES)
def test_rules_only_anticipate_the_engine(
    name: str, family: Family, tables: dict[str, DecisionTable]
) -> None:
    facts = RulesetFacts.read(tables[name].rule_facts())
    world = World(facts, family, Engine(tables[name]))
    for hook in HOOKS:
        for packet in packets(hook, family):
            accepted = bool(packet.mark & facts.marks.accept)
            if accepted and not facts.hosts and not hook.startswith("raw"):
                continue  # Nobody can have set it.
            assert world.seen(hook, world.through_rules(hook, packet)) == world.expected(hook, packet), packet
