"""Shadowed, redundant and never-matching rules, against brute force over every packet of small universes.

The brute force asks the reference's matcher, which shares no code with the compiler and the partition.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import product
from typing import Any

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from labelgate.flow import Packet
from labelgate.reference.labels import members
from labelgate.reference.matching import rule_matches
from labelgate.reference.rules import Rule, rules_of
from labelgate.resources import load_text
from labelgate.snapshot import Snapshot
from lint_both_ways import lint_both_ways

V4 = ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16"]
V6 = ["2001:db8::/32", "2001:db8:8000::/33", "2001:db8::/33"]
V4_SAMPLES = ["10.0.0.1", "10.1.0.1", "10.128.0.1", "10.65.0.2", "11.0.0.1", "192.0.2.1"]
V6_SAMPLES = ["2001:db8::1", "2001:db8:8000::1", "2001:dead::1"]
PORTS: list[Any] = [80, "80:90", "81:90", "1:65535", "1:80"]
PORT_SAMPLES = [0, 1, 80, 81, 91]
SOURCE_PORTS: list[Any] = [80, "1:80"]
SOURCE_PORT_SAMPLES = [1, 80, 81]
"""One of each class that the ports, nets and sets above make; so are the others."""

SELECTORS = ["app == 'web'", "app == 'none'", "!has(app)", "all()", "role == 'set'"]
ENDPOINTS: list[dict[str, Any]] = [
    {"kind": "HostEndpoint", "metadata": {"name": "edge", "labels": {"role": "edge"}},
     "spec": {"node": "n1", "interfaceName": "eth0", "expectedIPs": ["192.0.2.1"]}},
    {"kind": "WorkloadEndpoint", "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
     "spec": {"node": "n1", "interfaceName": "cali1", "ipNetworks": ["10.65.0.2/32"],
              "ports": [{"name": "http", "protocol": "TCP", "port": 80}]}},
    {"kind": "GlobalNetworkSet", "metadata": {"name": "set", "labels": {"role": "set"}},
     "spec": {"nets": ["10.0.0.0/9"]}},
    {"kind": "Tier", "metadata": {"name": "first"}, "spec": {"order": 1}},
    {"kind": "Tier", "metadata": {"name": "second"}, "spec": {"order": 2, "defaultAction": "Pass"}},
]  # fmt: skip


@st.composite
def sides(draw: st.DrawFn, family: list[str], has_ports: bool, is_destination: bool) -> dict[str, Any]:
    side: dict[str, Any] = {}
    if draw(st.integers(0, 2)) == 0:
        side["nets"] = draw(st.lists(st.sampled_from(family), min_size=1, max_size=2))
    if draw(st.integers(0, 6)) == 0:
        side["notNets"] = [draw(st.sampled_from(family))]
    if draw(st.integers(0, 5)) == 0:
        side[draw(st.sampled_from(["selector", "notSelector"]))] = draw(st.sampled_from(SELECTORS))
    ports = [*(PORTS if is_destination else SOURCE_PORTS), "http"]
    if has_ports and draw(st.integers(0, 1 if is_destination else 4)) == 0:
        side["ports"] = draw(st.lists(st.sampled_from(ports), min_size=1, max_size=2))
    if has_ports and draw(st.integers(0, 5)) == 0:
        side["notPorts"] = [draw(st.sampled_from(ports))]
    return side


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from([V4, V4, V6]))
    protocols = [None, "TCP", "TCP", "UDP"] + (["ICMP"] if family is V4 else ["ICMPv6"])
    protocol = draw(st.sampled_from(protocols))
    rule: dict[str, Any] = {
        "action": draw(st.sampled_from(["Allow", "Allow", "Deny", "Deny", "Pass", "Pass", "Log"]))
    }
    if protocol is not None:
        rule["protocol"] = protocol
    if draw(st.integers(0, 6)) == 0:
        rule["notProtocol"] = "UDP"
    if protocol in ("ICMP", "ICMPv6") and draw(st.booleans()):
        rule[draw(st.sampled_from(["icmp", "notICMP"]))] = {"type": draw(st.sampled_from([3, 8]))}
    has_ports = protocol in ("TCP", "UDP")
    rule["source"] = draw(sides(family, has_ports, False))
    rule["destination"] = draw(sides(family, has_ports, True))
    return rule


@st.composite
def policies(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(1, 3))):
        spec = {
            "tier": draw(st.sampled_from(["first", "second", "default"])),
            "order": number,
            "selector": draw(st.sampled_from(["role == 'edge'", "all()", "app == 'web'"])),
            "types": ["Ingress"],
            "ingress": draw(st.lists(rules(), max_size=5)),
        }
        found.append({"kind": "GlobalNetworkPolicy", "metadata": {"name": f"p{number}"}, "spec": spec})
    return found


def packets() -> list[Packet]:
    found = []
    for samples in (V4_SAMPLES, V6_SAMPLES):
        for src, dst in product(map(ip_address, samples), repeat=2):
            for protocol, sport, dport in product((6, 17), SOURCE_PORT_SAMPLES, PORT_SAMPLES):
                found.append(Packet("filter-input", src, dst, protocol, sport=sport, dport=dport))
            found += [
                Packet("filter-input", src, dst, protocol, fragment=True) for protocol in (6, 17, 1, 58)
            ]
            for protocol, kind in product((1, 58), (3, 8, 9)):
                found.append(Packet("filter-input", src, dst, protocol, icmp_type=kind, icmp_code=0))
            found.append(Packet("filter-input", src, dst, 47))
    return found


PACKETS = packets()
CODES = {"Allow": 1, "Deny": 2, "Pass": 3}


class Brute:
    """What brute force says of every rule, in all chains of all endpoints."""

    def __init__(self, snapshot: Snapshot) -> None:
        who = members(snapshot, "cali")
        self.matched: dict[tuple[str, int], set[int]] = {}
        self.reached: set[tuple[str, int]] = set()
        self.otherwise: set[tuple[str, int]] = set()
        self.actions: dict[tuple[str, int], str] = {}
        ordered = sorted(snapshot.global_network_policies, key=lambda one: one.spec.order or 0)
        for policy in ordered:
            for index, rule in enumerate(rules_of(policy.spec.ingress, None)):
                name = (policy.metadata.name, index)
                self.actions[name] = rule.action
                self.matched[name] = {
                    number for number, packet in enumerate(PACKETS) if rule_matches(rule, packet, who)
                }
        for endpoint in ("edge", "web"):
            applied = [one for one in ordered if endpoint in _selected(one.spec.selector)]
            self._chain(applied)

    def _chain(self, applied: Sequence[Any]) -> None:
        decided: dict[int, int] = {}
        for tier in ("first", "second", "default"):
            here = [one for one in applied if one.spec.tier == tier]
            passed: set[int] = set()
            for policy in here:
                for index in range(len(policy.spec.ingress)):
                    name = (policy.metadata.name, index)
                    self._rule(name, decided, passed)
            if here and tier != "second":
                for number in range(len(PACKETS)):
                    if number not in passed:
                        decided.setdefault(number, CODES["Deny"])

    def _rule(self, name: tuple[str, int], decided: dict[int, int], passed: set[int]) -> None:
        code = CODES.get(self.actions[name])
        for number in self.matched[name]:
            before = CODES["Pass"] if number in passed else decided.get(number)
            if before is not None:
                if before != code:  # A Log rule decides nothing, and logs nothing then.
                    self.otherwise.add(name)
                continue
            self.reached.add(name)
            if code == CODES["Pass"]:
                passed.add(number)
            elif code is not None:
                decided[number] = code


def _selected(selector: str) -> set[str]:
    return {"role == 'edge'": {"edge"}, "all()": {"edge", "web"}, "app == 'web'": {"web"}}[selector]


def snapshot_of(resources: Sequence[dict[str, Any]]) -> Snapshot:
    items = [{"apiVersion": "projectcalico.org/v3", **one} for one in resources]
    return Snapshot.of(load_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items})))


def named(snapshot: Snapshot, *ids: str) -> list[set[tuple[str, int]]]:
    """The rules that each of these is found of."""
    findings = lint_both_ways(snapshot, ids)
    return [
        {
            (one.resource.split("/")[1], int(one.path.removesuffix("]").split("[")[1]))
            for one in findings
            if one.rule == rule
        }
        for rule in ids
    ]


def policy(name: str, tier: str, *rules: dict[str, Any], selector: str = "all()") -> dict[str, Any]:
    spec = {"tier": tier, "order": int(name[1:]), "selector": selector, "types": ["Ingress"]}
    return {
        "kind": "GlobalNetworkPolicy", "metadata": {"name": name}, "spec": {**spec, "ingress": list(rules)}
    }  # fmt: skip


PASSED = [
    policy("p0", "first", {"action": "Pass", "protocol": "TCP"}),
    policy("p1", "second", {"action": "Allow", "protocol": "TCP"}, {"action": "Deny", "protocol": "UDP"}),
]
"""Only what the first tier passes is met by the second: its second rule is shadowed."""
IN_A_ROW = [
    policy(
        "p0",
        "default",
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}},
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["80:90"]}},
        {"action": "Deny", "protocol": "TCP", "destination": {"ports": ["81:90"]}},
        {"action": "Allow", "protocol": "TCP"},
    )
]
"""The third is shadowed; without any of the others but the last nothing changes, and without both nothing."""
TWO_HALVES = [
    policy(
        "p0",
        "default",
        {"action": "Allow", "source": {"nets": ["10.0.0.0/9"]}},
        {"action": "Allow", "source": {"nets": ["10.128.0.0/9"]}},
        {"action": "Deny", "source": {"nets": ["10.0.0.0/8"]}},
    )
]

TWICE = [policy("p0", "default", *[{"action": "Allow", "protocol": "TCP"}] * 2)]
"""Only the second may go: the first is not redundant because of one that is never reached."""

BY_FAMILY = [
    policy(
        "p0",
        "default",
        {"action": "Allow", "protocol": "TCP", "ipVersion": 4},
        {"action": "Allow", "protocol": "TCP"},
        {"action": "Allow", "ipVersion": 6},
        {"action": "Deny"},
    )
]
"""Either of the first two may go, each because of the other in one family."""

LOGGED_LATE = [
    policy("p0", "default", {"action": "Allow", "protocol": "TCP"}, {"action": "Log", "protocol": "TCP"})
]
"""A Log rule without packets is missed by who reads the log: it is not redundant."""

CLOSED_BEFORE = [
    policy("p0", "first", selector="app == 'web'"),
    policy("p1", "default", {"action": "Allow", "protocol": "TCP"}, selector="app == 'web'"),
]
"""A tier without a rule denies everything at its end; workloads alone, without the boundaries of hosts."""

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Examples are small; shrinking them would take minutes."""


@settings(max_examples=25, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(policies())
@example(PASSED)
@example(IN_A_ROW)
@example(TWO_HALVES)
@example(TWICE)
@example(LOGGED_LATE)
@example(CLOSED_BEFORE)
def test_no_rule_that_is_never_met_is_missed_and_none_is_invented(written: list[dict[str, Any]]) -> None:
    snapshot = snapshot_of([*ENDPOINTS, *written])
    brute = Brute(snapshot)
    matchable = {name for name, found in brute.matched.items() if found}
    dead = matchable - brute.reached
    shadowed, redundant, contradictory, meeting_nobody = named(snapshot, "LG101", "LG102", "LG103", "LG104")
    assert contradictory | meeting_nobody == set(brute.matched) - matchable
    assert shadowed == dead & brute.otherwise
    assert redundant & dead == dead - brute.otherwise


def other_endpoints() -> list[list[dict[str, Any]]]:
    """The same labels at other addresses and ports, and nothing at all."""
    moved = json.loads(json.dumps(ENDPOINTS))
    moved[1]["spec"]["ipNetworks"] = ["10.1.0.1/32", "2001:db8:8000::1/128"]
    moved[1]["spec"]["ports"] = [{"name": "http", "protocol": "UDP", "port": 81}]
    moved[1]["metadata"]["labels"] = {"role": "set"}
    moved[2]["metadata"]["labels"] = {"app": "none"}
    return [ENDPOINTS, moved, []]


def first_matches(written: Sequence[Rule], snapshot: Snapshot, gone: set[int]) -> list[str | None]:
    """What the rules of one list decide of each packet, without some of them."""
    who = members(snapshot, "cali")
    kept = [rule for place, rule in enumerate(written) if place not in gone and rule.action != "Log"]
    return [
        next((rule.action for rule in kept if rule_matches(rule, packet, who)), None) for packet in PACKETS
    ]


def never_met(written: Sequence[Rule], snapshot: Snapshot) -> set[int]:
    who, met = members(snapshot, "cali"), set[int]()
    for packet in PACKETS:
        for place, rule in enumerate(written):
            if rule_matches(rule, packet, who):
                met.add(place)
                if rule.action != "Log":
                    break
    return set(range(len(written))) - met


def depends_on_endpoints(rule: dict[str, Any]) -> bool:
    return any(word in json.dumps(rule) for word in ("elector", "http"))


SAME_WORDS = [
    {"action": "Allow", "source": {"selector": "app == 'web'"}},
    {"action": "Deny", "source": {"selector": "app == 'web'", "nets": ["10.0.0.0/8"]}},
    {"action": "Deny", "source": {"selector": "role == 'set'"}},
]


@settings(max_examples=8, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(st.lists(rules(), min_size=2, max_size=5))
@example(SAME_WORDS)
@example(BY_FAMILY[0]["spec"]["ingress"])
def test_what_is_said_without_endpoints_holds_with_any(made: list[dict[str, Any]]) -> None:
    """Nothing is invented, and nothing missed where no rule needs endpoints."""
    alone = policy("p0", "default", *made)
    library = snapshot_of([alone])
    written = rules_of(library.global_network_policies[0].spec.ingress, None)
    shadowed, redundant, contradictory, meeting_nobody = (
        {place for _, place in found} for found in named(library, "LG101", "LG102", "LG103", "LG104")
    )
    assert not meeting_nobody
    for world in other_endpoints():
        snapshot = snapshot_of([*world, alone])
        idle = never_met(written, snapshot)
        assert shadowed | contradictory <= idle
        gone = shadowed | redundant | contradictory
        assert first_matches(written, snapshot, gone) == first_matches(written, snapshot, set())
        if not any(map(depends_on_endpoints, made)):
            assert idle <= gone


def test_rules_that_ask_for_the_same_endpoints_are_compared() -> None:
    (shadowed,) = named(snapshot_of([policy("p0", "default", *SAME_WORDS)]), "LG101")
    assert shadowed == {("p0", 1)}


def ends(snapshot: Snapshot) -> list[list[int | None]]:
    """How every packet ends at each endpoint: what is decided, by brute force."""
    return [list(map(found.get, range(len(PACKETS)))) for found in _ends(snapshot)]


def _ends(snapshot: Snapshot) -> list[dict[int, int]]:
    brute, found = Brute(snapshot), []
    ordered = sorted(snapshot.global_network_policies, key=lambda one: one.spec.order or 0)
    for endpoint in ("edge", "web"):
        decided: dict[int, int] = {}
        for tier in ("first", "second", "default"):
            passed: set[int] = set()
            here = [p for p in ordered if p.spec.tier == tier and endpoint in _selected(p.spec.selector)]
            for policy in here:
                for index in range(len(policy.spec.ingress)):
                    brute._rule((policy.metadata.name, index), decided, passed)
            if here and tier != "second":
                for number in set(range(len(PACKETS))) - passed:
                    decided.setdefault(number, CODES["Deny"])
        found.append(decided)
    return found


@settings(max_examples=10, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(policies())
@example(PASSED)
@example(IN_A_ROW)
@example(TWO_HALVES)
@example(TWICE)
@example(BY_FAMILY)
def test_all_redundant_rules_can_go_together(written: list[dict[str, Any]]) -> None:
    before = snapshot_of([*ENDPOINTS, *written])
    redundant = set().union(*named(before, "LG101", "LG102", "LG103", "LG104"))
    for policy in written:
        name = policy["metadata"]["name"]
        kept = [
            rule for index, rule in enumerate(policy["spec"]["ingress"]) if (name, index) not in redundant
        ]
        policy["spec"]["ingress"] = kept
    assert ends(snapshot_of([*ENDPOINTS, *written])) == ends(before)
