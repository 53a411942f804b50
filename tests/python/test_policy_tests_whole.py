"""Expectations about whole networks, sets and ranges of ports hold for every packet: by brute force."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml
from labelgate.expect.judge import Answered, Result, answer, judge
from labelgate.expect.question import Question, packet
from labelgate.expect.sides import Side, is_pair, sides
from labelgate.expect.world import World
from labelgate.flow import VERDICTS
from labelgate.path import read_destination, walk
from labelgate.reference import Reference
from labelgate.resources import Loading, PolicyTest, load_text
from labelgate.settings import HostFacts
from labelgate.snapshot import Snapshot

CALICO = "projectcalico.org/v3"
PODS = {f"10.0.0.{number}": "abc"[number % 3] for number in (1, 2, 3, 5, 6, 9)}
PORTS = "1:9"
Document = dict[str, Any]


@dataclass
class Policies:
    """Random policies over sixteen addresses and ten ports."""

    dice: Random
    is_ipv6: bool = False

    def text(self, documents: Any) -> str:
        """In one of the families."""
        text = yaml.safe_dump(documents)
        return re.sub(r"10\.0\.0\.(\d+)(?:/(\d+))?(?::(\d+))?", ipv6, text) if self.is_ipv6 else text

    def net(self) -> str:
        return self.dice.choice(["10.0.0.0/30", "10.0.0.4/31", "10.0.0.2/32", "10.0.0.8/29", "10.0.0.6/32"])

    def side(self, *, ports: bool) -> Document:
        found: Document = {}
        choice = self.dice.random()
        if choice < 0.3:
            found["nets"] = [self.net()]
        elif choice < 0.4:
            found["notNets"] = [self.net()]
        elif choice < 0.7:
            found["selector"] = self.dice.choice(
                ["app == 'a'", "app != 'b'", "has(net)", "app in {'b', 'c'}"]
            )
        if ports and self.dice.random() < 0.6:
            first = self.dice.randint(1, 9)
            found[self.dice.choice(["ports", "ports", "notPorts"])] = self.dice.choice(
                [[first], [f"{first}:{first + 2}"], ["http"], [1, "http"]]
            )
        return found

    def rule(self) -> Document:
        protocol = self.dice.choice([None, "TCP", "TCP", "UDP"])
        found: Document = {
            "action": self.dice.choice(["Allow", "Allow", "Deny", "Deny", "Pass", "Log"]),
            "source": self.side(ports=False),
            "destination": self.side(ports=protocol is not None),
        }
        return found if protocol is None else {**found, "protocol": protocol}

    def rules(self) -> list[Document]:
        return [self.rule() for _ in range(self.dice.randint(0, 3))]

    def policy(self, name: str, **more: Any) -> Document:
        types = self.dice.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]])
        if more.get("preDNAT"):
            types = ["Ingress"]
        spec = {
            "tier": "default" if more else self.dice.choice(["default", "first"]),
            "order": self.dice.randint(1, 9),
            "selector": self.dice.choice(["all()", "app == 'a'", "app == 'b'", "has(host)"]),
            "types": types,
            **{direction.lower(): self.rules() for direction in types},
            **more,
        }
        return document("GlobalNetworkPolicy", name, spec)

    def world(self) -> World:
        kinds = [{}] * 5 + [
            {"applyOnForward": True},
            {"preDNAT": True, "applyOnForward": True},
            {"doNotTrack": True, "applyOnForward": True},
        ]
        policies = [self.policy(f"p{number}", **more) for number, more in enumerate(kinds)]
        documents = self.text({"apiVersion": "v1", "kind": "List", "items": [*endpoints(), *policies]})
        return World(Snapshot.of(load_text(documents)))

    def asked(self, **expectation: Any) -> PolicyTest:
        """A test with one expectation."""
        spec = {"expectations": [{"expect": "allow", **expectation}]}
        head = {"apiVersion": "labelgate/v1", "kind": "PolicyTest", "metadata": {"name": "t"}}
        loading = Loading()
        loading.add(self.text({**head, "spec": spec}), "<text>")
        assert not loading.problems, loading.problems
        return loading.tests[0]


def ipv6(found: re.Match[str]) -> str:
    address, length, port = f"fd00::{int(found[1]):x}", found[2], found[3]
    if port:
        return f"'[{address}]:{port}'"
    return f"{address}/{int(length) + 96}" if length else address


def document(kind: str, name: str, spec: Document, **metadata: Any) -> Document:
    return {"apiVersion": CALICO, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def endpoints() -> Iterator[Document]:
    yield document("Tier", "first", {"order": 1})
    for number, (address, app) in enumerate(PODS.items()):
        spec = {
            "orchestrator": "k8s", "workload": f"w{number}", "node": "n", "endpoint": "eth0",
            "interfaceName": f"cali{number}", "ipNetworks": [address + "/32"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 4 + number % 2}],
            "profiles": ["projectcalico-default-allow"],
        }  # fmt: skip
        yield document("WorkloadEndpoint", f"w{number}", spec, namespace="s", labels={"app": app})
    host = {"node": "n", "interfaceName": "eth0", "expectedIPs": ["10.0.0.14"]}
    yield document("HostEndpoint", "h", host, labels={"host": "n", "app": "a"})
    yield document(
        "GlobalNetworkSet", "set", {"nets": ["10.0.0.7/32", "10.0.0.12/31"]}, labels={"net": "yes"}
    )
    felix = {
        "failsafeInboundHostPorts": [{"protocol": "TCP", "port": 7, "net": "10.0.0.0/30"}],
        "failsafeOutboundHostPorts": [{"protocol": "TCP", "port": 8}],
    }
    yield document("FelixConfiguration", "default", felix)


def kind(found: Answered) -> tuple[Any, ...]:
    """All of an answer but whose it is."""
    steps = [
        (one.direction, one.step.stage, one.step.policy, one.step.rule, one.step.reason)
        for one in found.steps
    ]
    return found.verdict, found.hook, *steps


def each(world: World, test: PolicyTest, end: str) -> list[Side]:
    """Every single address of one end."""
    peers = getattr(test.spec.expectations[0], end)
    return [
        side if side.owner else Side.at(address)
        for peer in peers
        for side in sides(world, test, peer)
        for address in side.net
    ]


def by_force(world: World, test: PolicyTest) -> list[Answered]:
    """Every packet by itself, of the table of the cluster, or of the node's way."""
    expectation = test.spec.expectations[0]
    ends = each(world, test, "from_"), each(world, test, "to")
    pairs = [pair for pair in product(*ends) if is_pair(*pair)]
    ports = [port for found in expectation.port for port in range(found.first, found.last + 1)] or [None]
    table = world.table("n", HostFacts({})) if expectation.node else None
    dnat = read_destination(expectation.dnat) if expectation.dnat else None
    found = []
    for pair, port in product(pairs, ports):
        one = replace(packet(expectation, *pair, port), in_=expectation.in_, out=expectation.out)
        found.append(answer(world, Question(*pair, one, table, expectation.hook is not None, dnat)))
    return found


def check(world: World, test: PolicyTest) -> Result:
    """Each kind of answer that any packet gets is found, and nothing else."""
    every, result = by_force(world, test), judge(world, test, 0)
    assert result.error is None
    assert {kind(found) for found in result.answers} == {kind(found) for found in every}
    assert result.is_as_expected == all(found.verdict != "deny" for found in every)
    rules = [{rule for one in several for rule in one.rules} for several in (result.answers, every)]
    assert rules[0] == rules[1]
    return result


PEERS = [
    "10.0.0.0/28", "10.0.0.1/32", "10.0.0.4/30", "s/w0", "s/w3", {"selector": "app == 'a'"},
    {"selector": "all()"}, "GlobalNetworkSet/set",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_connections_are_judged_as_each_of_them_is(seed: int) -> None:
    dice = Random(seed)
    policies = Policies(dice, is_ipv6=seed % 4 == 3)
    world = policies.world()
    for _ in range(3):
        ends = [dice.sample(PEERS[:7] if end else PEERS, dice.choice([1, 1, 2])) for end in (0, 1)]
        workloads = [one for one in PEERS if isinstance(one, dict) or str(one).startswith("s/")]
        ends[dice.randint(0, 1)] = [dice.choice(workloads)]
        icmp = {"protocol": "ICMPv6" if policies.is_ipv6 else "ICMP", "icmp": {"type": 8}}
        udp = {"protocol": "UDP", "port": PORTS}
        service = dice.choice(
            [{"port": PORTS}, {"port": ["2:3", 5, 9]}, {"port": [4, 5, 7]}, udp, icmp, {"protocol": 47}]
        )
        test = policies.asked(**{"from": ends[0], "to": ends[1]}, **service)
        result = judge(world, test, 0)
        if result.error is None:
            assert check(world, test).asked >= len(result.answers)
        else:
            assert result.error.startswith("nothing to ask of `s/w")


WAYS = [
    {"from": "10.0.0.0/28", "to": "HostEndpoint/h", "in": "eth0"},
    {"from": "10.0.0.0/28", "to": "10.0.0.0/30", "in": "eth0", "out": "cali0"},
    {"from": "HostEndpoint/h", "to": "10.0.0.0/28", "out": "eth0"},
    {"from": "10.0.0.0/29", "to": "10.0.0.8/29", "in": "cali1", "out": "eth0"},
    {"from": "10.0.0.0/29", "to": "10.0.0.8/29", "in": "cali1", "out": "cali2"},
    {"from": "10.0.0.0/28", "to": "HostEndpoint/h", "in": "eth0", "out": "cali2", "dnat": "10.0.0.3:5"},
    {"from": "10.0.0.0/28", "to": "HostEndpoint/h", "in": "eth0", "out": "cali1", "dnat": "10.0.0.2"},
    {"from": "10.0.0.0/28", "to": "10.0.0.14/31", "in": "eth0", "hook": "raw-prerouting"},
    {"from": "10.0.0.14/31", "to": "10.0.0.0/28", "out": "eth0", "hook": "raw-output"},
    {"from": "10.0.0.0/28", "to": "10.0.0.14/31", "in": "eth0", "hook": "mangle-prerouting"},
    {"from": "GlobalNetworkSet/set", "to": "s/w1", "in": "eth0", "out": "cali1"},
]


@pytest.mark.parametrize("seed", range(12))
def test_ways_through_a_node_are_judged_as_each_packet_is(seed: int) -> None:
    dice = Random(seed)
    policies = Policies(dice, is_ipv6=seed % 4 == 3)
    world = policies.world()
    reference = Reference(world.snapshot, "n", HostFacts({}), world.settings)
    for way in dice.sample(WAYS, 4):
        test = policies.asked(**way, node="n", port=dice.choice([PORTS, ["1:4", 7, "8:9"]]))
        for found in check(world, test).answers:
            assert found.verdict == by_the_letter(reference, found)


def by_the_letter(reference: Reference, found: Answered) -> str:
    """What the reference makes of the same packet."""
    asked = found.question
    if asked.is_hook:
        return reference.answer(asked.packet).verdict
    *_, last = walk(reference.answer, asked.packet, asked.dnat)
    return "deny" if last.answer.verdict == "deny" else "allow"


def test_rules_of_the_port_behind_dnat_cut_networks_too() -> None:
    """Nobody asks for port 5, and a rule of port 5 alone knows the partner."""
    rule = {"action": "Allow", "protocol": "TCP", "source": {"nets": ["10.0.0.7/32"]}}
    spec = {"selector": "app == 'a'", "ingress": [{**rule, "destination": {"ports": [5]}}]}
    world = World(
        Snapshot.of(load_text(yaml.safe_dump_all([*endpoints(), document("GlobalNetworkPolicy", "p", spec)])))
    )
    way = {"from": "10.0.0.0/28", "to": "HostEndpoint/h", "in": "eth0", "out": "cali2", "node": "n"}
    for dnat, allowed in (("10.0.0.3:5", {"10.0.0.7"}), ("10.0.0.3:6", set())):
        result = check(world, Policies(Random(1)).asked(**way, dnat=dnat, port="8:9"))
        through = (found.question.source for found in result.answers if found.verdict == "allow")
        assert set(map(str, through)) == allowed


@pytest.mark.parametrize("seed", range(4))
def test_without_a_port_every_port_is_meant(seed: int) -> None:
    policies = Policies(Random(seed))
    world = policies.world()
    result = judge(world, policies.asked(**{"from": "s/w0", "to": "s/w1", "protocol": "TCP"}), 0)
    ports = np.arange(1, 65536, dtype=np.uint16)
    both = world.cluster.connectivity_batch("10.0.0.1", "10.0.0.2", "tcp", 49152, ports)
    deny = VERDICTS.index("deny")
    assert result.is_as_expected == (not any((verdicts == deny).any() for verdicts, _ in both))
    every = set(zip(*(outcomes.tolist() for _, outcomes in both), strict=True))
    asked_of = [one.question.packet.dport or 0 for one in result.answers]
    assert every == {(both[0][1][port - 1], both[1][1][port - 1]) for port in asked_of}
