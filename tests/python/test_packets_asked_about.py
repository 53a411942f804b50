"""Untracked and preDNAT policy are asked only about packets that their rules can match (E-22)."""

from __future__ import annotations

from typing import Any

import pytest
from labelgate import HostFacts
from labelgate.netfilter.facts import RulesetFacts, Service
from labelgate.resources import load_text
from labelgate.settings import Failsafe, Settings
from labelgate.snapshot import Snapshot

TCP, UDP, SCTP, ICMP = 6, 17, 132, 1
HOSTS = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {role: edge}}
spec:
  node: edge1
  interfaceName: eth0
  expectedIPs: [10.0.0.1, "fd00::1"]
  ports: [{name: dns, protocol: UDP, port: 53}, {name: dns, protocol: TCP, port: 5300}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: p}
spec:
  selector: role == 'edge'
  applyOnForward: true
  %s: true
  types: [Ingress]
  ingress:
"""


def asked(rules: list[str], kind: str = "doNotTrack", version: int = 4) -> tuple[Service, ...] | str | None:
    """The services that ingress asks about; None: all packets; a word: the answer to all."""
    text = HOSTS % kind + "".join(f"  - {{{rule}}}\n" for rule in rules)
    table = Snapshot.of(load_text(text)).compile(node="edge1", host=HostFacts({"eth0": ()}))
    (host,) = RulesetFacts.read(table.rule_facts()).hosts
    answers = host.prednat if kind == "preDNAT" else host.untracked and host.untracked.ingress
    assert answers is not None
    family: Any = f"v{version}"
    return answers.services_of(family) if answers.of(family) == "queue" else answers.of(family)


def to(protocol: int, *ports: tuple[int, int]) -> Service:
    return Service(protocol, "destination", ports)


MANY = ", ".join(str(port) for port in range(1, 33, 2))
CASES: dict[str, tuple[list[str], tuple[Service, ...] | str | None]] = {
    "ports": (
        ["action: Allow, protocol: UDP, destination: {ports: [53, '100:200']}"],
        (to(UDP, (53, 53), (100, 200)),),
    ),
    "ports of several rules are one list": (
        [
            "action: Allow, protocol: UDP, destination: {ports: ['50:60', 90]}",
            "action: Deny, protocol: UDP, destination: {ports: ['61:70']}",
        ],
        (to(UDP, (50, 70), (90, 90)),),
    ),
    "a protocol": (["action: Allow, protocol: TCP"], (Service(TCP),)),
    "a protocol holds its ports": (
        [
            "action: Allow, protocol: UDP, destination: {ports: [53]}",
            "action: Allow, protocol: SCTP, source: {ports: [53]}",
            "action: Deny, protocol: UDP",
        ],
        (Service(UDP), Service(SCTP, "source", ((53, 53),))),
    ),
    "both sides": (
        [
            "action: Allow, protocol: UDP, destination: {ports: [53]}",
            "action: Allow, protocol: UDP, source: {ports: [53]}",
        ],
        (Service(UDP, "source", ((53, 53),)), to(UDP, (53, 53))),
    ),
    "the side with fewer ports": (
        ["action: Allow, protocol: UDP, source: {ports: [123]}, destination: {ports: ['1024:65535']}"],
        (Service(UDP, "source", ((123, 123),)),),
    ),
    "Log rules": (
        ["action: Log, protocol: TCP, destination: {ports: [1]}", "action: Allow, protocol: ICMP"],
        (Service(ICMP), to(TCP, (1, 1))),
    ),
    "Pass rules": (["action: Pass, protocol: TCP, destination: {ports: [1]}"], (to(TCP, (1, 1)),)),
    "names": (["action: Allow, protocol: UDP, destination: {ports: [dns]}"], (to(UDP, (53, 53)),)),
    "a name of another protocol": (["action: Allow, protocol: SCTP, destination: {ports: [dns]}"], ()),
    "ports that are not": (
        ["action: Allow, protocol: UDP, destination: {notPorts: [53]}"],
        (Service(UDP),),
    ),
    "types of ICMP": (["action: Allow, protocol: ICMP, icmp: {type: 8}"], (Service(ICMP),)),
    "no protocol": (["action: Deny, source: {nets: [10.0.0.0/8]}", "action: Allow, protocol: UDP"], None),
    "another protocol": (["action: Deny, notProtocol: TCP"], None),
    "all": (["action: Allow"], "allow"),
    "fifteen ports": (
        [f"action: Allow, protocol: UDP, destination: {{ports: [{MANY.removesuffix(', 31')}]}}"],
        (to(UDP, *((port, port) for port in range(1, 31, 2))),),
    ),
    "sixteen ports": (
        [f"action: Allow, protocol: UDP, destination: {{ports: [{MANY}]}}"],
        (Service(UDP),),
    ),
    "eight protocols": (
        [f"action: Allow, protocol: {number}" for number in range(90, 98)],
        tuple(Service(number) for number in range(90, 98)),
    ),
    "nine protocols": ([f"action: Allow, protocol: {number}" for number in range(90, 99)], None),
    "what is an extension header": (["action: Allow, protocol: 51"], None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["doNotTrack", "preDNAT"])
def test_what_is_asked_about(name: str, kind: str) -> None:
    rules, services = CASES[name]
    assert asked(rules, kind) == services


def test_each_version_is_asked_for_itself() -> None:
    """M-12: rules with networks of one version are none in the other."""
    rules = [
        "action: Allow, protocol: UDP, source: {nets: [10.0.0.0/8]}, destination: {ports: [53]}",
        "action: Deny, source: {nets: ['fd00::/8']}",
    ]
    assert asked(rules) == (to(UDP, (53, 53)),)
    assert asked(rules, version=6) is None


def test_normal_policy_is_asked_about_every_packet() -> None:
    """E-21: at the end of its tier it denies what no rule matches."""
    text = (HOSTS % "doNotTrack").replace("  doNotTrack: true\n", "")
    text += "  - {action: Allow, protocol: UDP, destination: {ports: [53]}}\n"
    table = Snapshot.of(load_text(text)).compile(node="edge1", host=HostFacts({"eth0": ()}))
    (host,) = RulesetFacts.read(
        table.rule_facts(), settings=Settings(failsafe_inbound=(Failsafe(TCP, 22),))
    ).hosts
    for answers in (host.input, host.forward.ingress):
        assert (answers.of("v4"), answers.services_of("v4")) == ("queue", None)
