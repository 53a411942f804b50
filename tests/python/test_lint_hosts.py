"""Order ties, neighbour discovery, replies and failsafe ports, against brute force on small universes.

The brute force asks the reference, packet by packet, and shares no code with the compiler and the partition.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from labelgate.analysis.lint import Finding
from labelgate.flow import Answer, Hook, Packet
from labelgate.reference import Reference
from labelgate.resources import load_text
from labelgate.settings import Failsafe, HostFacts, Settings
from labelgate.snapshot import Snapshot
from lint_both_ways import lint_both_ways

Document = dict[str, Any]
FACTS = HostFacts({"eth0": ("192.0.2.1", "2001:db8::1"), "eth1": (), "lo": ()})
BARE = Settings(failsafe_inbound=(), failsafe_outbound=())
FAILSAFES = Settings(
    failsafe_inbound=(Failsafe(6, 22), Failsafe(17, 22, ip_network("10.0.0.0/9"))),
    failsafe_outbound=(Failsafe(17, 53), Failsafe(6, 53, ip_network("2001:db8::/32"))),
)
QUICK = settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
LISTS = ({}, {}, {"applyOnForward": True}, {"doNotTrack": True, "applyOnForward": True},
         {"preDNAT": True, "applyOnForward": True})  # fmt: skip
OWN = ("192.0.2.1", "2001:db8::1")
NETS = {4: ["10.0.0.0/8", "10.0.0.0/9", "192.0.2.0/24"], 6: ["2001:db8::/32", "fe80::/10"]}
SAMPLES = {4: ["10.0.0.1", "10.128.0.1", "192.0.2.1", "11.0.0.1"], 6: ["2001:db8::1", "fe80::1", "2002::1"]}
PORTS: list[Any] = [22, 53, "20:60"]
PORT_SAMPLES = (1, 22, 40, 53)
"""One of each class that the nets and ports above make."""


def host(addresses: Sequence[str] = OWN, profiles: Sequence[str] = ()) -> Document:
    spec = {"node": "n1", "interfaceName": "eth0", "profiles": list(profiles), "expectedIPs": list(addresses)}
    return {"kind": "HostEndpoint", "metadata": {"name": "edge", "labels": {"role": "edge"}}, "spec": spec}


def policy(
    name: str, ingress: Sequence[Document] = (), egress: Sequence[Document] = (), **spec: Any
) -> Document:
    types = ["Ingress"] if spec.get("preDNAT") else ["Ingress", "Egress"]
    rules = {"ingress": list(ingress)} | ({} if spec.get("preDNAT") else {"egress": list(egress)})
    return {
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"selector": "all()", "types": types, **rules, **spec},
    }


TIERS = [
    {"kind": "Tier", "metadata": {"name": "first"}, "spec": {"order": 1}},
    {"kind": "Tier", "metadata": {"name": "second"}, "spec": {"order": 2, "defaultAction": "Pass"}},
    {"kind": "Profile", "metadata": {"name": "some"},
     "spec": {"ingress": [{"action": "Allow", "protocol": "TCP"}, {"action": "Pass"}],
              "egress": [{"action": "Allow"}]}},
]  # fmt: skip


def snapshot_of(*documents: Document) -> Snapshot:
    items = [{"apiVersion": "projectcalico.org/v3", **one} for one in (*TIERS, *documents)]
    return Snapshot.of(load_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items})))


@st.composite
def rules(draw: st.DrawFn, *, with_source_ports: bool) -> Document:
    family = draw(st.sampled_from([4, 4, 6]))
    action = draw(st.sampled_from(["Allow", "Allow", "Deny", "Pass", "Log"]))
    rule: Document = {"action": action, "source": {}, "destination": {}}
    if protocol := draw(st.sampled_from([None, "TCP", "UDP", "UDP", "ICMP" if family == 4 else "ICMPv6"])):
        rule["protocol"] = protocol
    for side in ("source", "destination"):
        if draw(st.integers(0, 3)) == 0:
            rule[side]["nets"] = [draw(st.sampled_from(NETS[family]))]
        may_have_ports = protocol in ("TCP", "UDP") and (with_source_ports or side == "destination")
        if may_have_ports and draw(st.booleans()):
            rule[side]["ports"] = [draw(st.sampled_from(PORTS))]
    return rule


@st.composite
def worlds(
    draw: st.DrawFn, lists: Sequence[Document] = LISTS, *, with_source_ports: bool = True
) -> list[Document]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        spec = deepcopy(draw(st.sampled_from(lists)))
        spec["tier"] = draw(st.sampled_from(["first", "second", "default", "default"]))
        if (order := draw(st.sampled_from([None, 5, 5, 7]))) is not None:
            spec["order"] = order
        parts = [draw(st.lists(rules(with_source_ports=with_source_ports), max_size=3)) for _ in range(2)]
        found.append(policy(f"p{number}", *parts, **spec))
    return found


def packets(hook: Hook, **where: str) -> list[Packet]:
    """One of each class."""
    found = []
    for family in (4, 6):
        for src, dst in product(map(ip_address, SAMPLES[family]), repeat=2):
            for protocol, sport, dport in product((6, 17), PORT_SAMPLES, PORT_SAMPLES):
                found.append(Packet(hook, src, dst, protocol, sport=sport, dport=dport, **where))
            found += [Packet(hook, src, dst, protocol, fragment=True, **where) for protocol in (6, 17)]
            found.append(Packet(hook, src, dst, 47, **where))
            icmp = 1 if family == 4 else 58
            found.append(Packet(hook, src, dst, icmp, icmp_type=8, icmp_code=0, **where))
    return found


IN = {
    hook: packets(hook, in_="eth0") for hook in ("raw-prerouting", "mangle-prerouting", "filter-input")
}  # fmt: skip
OUT = {hook: packets(hook, out="eth0") for hook in ("raw-output", "filter-output")}
THROUGH = [replace(packet, hook="filter-forward", out="eth1") for packet in IN["filter-input"]]
BACK = [replace(packet, in_="eth1", out="eth0") for packet in THROUGH]


def reference(snapshot: Snapshot, chosen: Settings = BARE) -> Reference:
    return Reference(snapshot, "n1", FACTS, chosen)


def found_of(snapshot: Snapshot, rule: str, chosen: Settings = BARE) -> list[Finding]:
    return lint_both_ways(snapshot, [rule], chosen)


# --- order ties (LG204) ----------------------------------------------------------------------------------


def ends(snapshot: Snapshot) -> list[tuple[str, bool]]:
    """What becomes of every packet in every chain."""
    judge = reference(snapshot)
    every = (packet for found in (*IN.values(), *OUT.values(), THROUGH, BACK) for packet in found)
    asked = (packet for packet in every if packet.sport in (None, PORT_SAMPLES[0]))
    return [(answer.verdict, answer.accepted) for answer in map(judge.answer, asked)]


def tied(documents: Sequence[Document]) -> set[str]:
    """The policies that change verdicts when they go before all others of their order and tier."""
    now, found = ends(snapshot_of(host(profiles=["some"]), *documents)), set()
    for number, document in enumerate(documents):
        moved = deepcopy(list(documents))
        moved[number]["spec"]["order"] = {None: 100, 5: 4, 7: 6}[document["spec"].get("order")]
        if ends(snapshot_of(host(profiles=["some"]), *moved)) != now:
            found.add(document["metadata"]["name"])
    return found


PASSED_ALIKE = [
    policy("p0", [{"action": "Allow", "protocol": "TCP"}]),
    policy("p1", [{"action": "Pass"}]),
]
"""What the second passes the profile allows: no tie."""
FORWARDED = [
    policy("p0", [], [{"action": "Pass", "source": {"nets": ["10.0.0.0/8"]}}], applyOnForward=True),
    policy("p1", [], [{"action": "Allow"}], applyOnForward=True),
]
"""Profiles are not asked about what is forwarded (E-28)."""
PASSED_OTHERWISE = [
    policy("p0", [{"action": "Allow", "protocol": "UDP"}]),
    policy("p1", [{"action": "Pass"}]),
]


@settings(QUICK, max_examples=10)
@given(worlds(with_source_ports=False))
@example(PASSED_ALIKE)
@example(PASSED_OTHERWISE)
@example(FORWARDED)
def test_no_tie_that_changes_a_verdict_is_missed_and_none_is_invented(documents: list[Document]) -> None:
    found = found_of(snapshot_of(host(profiles=["some"]), *documents), "LG204")
    assert {one.resource.split("/")[1] for one in found} == tied(documents)


# --- neighbour discovery (LG302) -------------------------------------------------------------------------

GROUP_NETS = ["ff02::/16", "ff02::1:ff00:0/105", "fe80::/10", "2001:db8::/32"]
ASKERS = ["fe80::1", "2001:db8::2", "::", "2002::1"]
GROUPS = ["ff02::1:ff00:1", "ff02::1:ff80:1"]
TELLERS = [*GROUPS, "ff02::1", "fe80::2", "2001:db8::1", "2002::2"]


@st.composite
def discovery_rules(draw: st.DrawFn) -> Document:
    rule: Document = {
        "action": draw(st.sampled_from(["Allow", "Allow", "Deny", "Pass"])),
        "source": {},
        "destination": {},
    }
    protocol = draw(st.sampled_from([None, "TCP", "ICMPv6", "ICMPv6", 58]))
    if protocol is not None:
        rule["protocol"] = protocol
    else:
        rule["ipVersion"] = 6
    if protocol in ("ICMPv6", 58) and draw(st.booleans()):
        code = draw(st.sampled_from([{}, {}, {"code": 0}]))
        kind = draw(st.sampled_from([1, 135, 136]))
        rule[draw(st.sampled_from(["icmp", "icmp", "notICMP"]))] = {"type": kind, **code}
    for side in ("source", "destination"):
        if draw(st.integers(0, 2)) == 0:
            rule[side][draw(st.sampled_from(["nets", "nets", "notNets"]))] = [
                draw(st.sampled_from(GROUP_NETS))
            ]
    return rule


@st.composite
def discovery_worlds(draw: st.DrawFn) -> tuple[Document, list[Document]]:
    found = []
    for number in range(draw(st.integers(0, 3))):
        spec = {
            **draw(st.sampled_from(LISTS)),
            "order": number,
            "tier": draw(st.sampled_from(["first", "default"])),
        }
        parts = [draw(st.lists(discovery_rules(), max_size=3)) for _ in range(2)]
        types = [["Ingress"]] if spec.get("preDNAT") else [["Ingress"], ["Egress"], ["Ingress", "Egress"]]
        made = policy(f"p{number}", *parts, **spec)
        made["spec"]["types"] = draw(st.sampled_from(types))
        found.append(made)
    profiles = draw(st.sampled_from([[], ["some"], ["projectcalico-default-allow"]]))
    return host(profiles=profiles), found


def passes(judge: Reference, hooks: Iterable[Hook], packet: Packet) -> bool:
    accepted = False
    for hook in hooks:
        answer = judge.answer(replace(packet, hook=hook, accepted=accepted))
        if answer.verdict == "deny":
            return False
        accepted = answer.accepted
    return True


INBOUND: tuple[Hook, ...] = ("raw-prerouting", "mangle-prerouting", "filter-input")
OUTBOUND: tuple[Hook, ...] = ("raw-output", "filter-output")


def cut(snapshot: Snapshot) -> set[tuple[str, str]]:
    """Directions and messages of which nothing passes."""
    judge, found = reference(snapshot), set()
    ways = (("ingress", INBOUND, {"in_": "eth0"}), ("egress", OUTBOUND, {"out": "eth0"}))
    for direction, hooks, where in ways:
        for word, kind, targets in (("solicitations", 135, GROUPS), ("advertisements", 136, TELLERS)):
            asked = (
                Packet(
                    hooks[0], ip_address(src), ip_address(dst), 58, icmp_type=kind, icmp_code=code, **where
                )
                for src, dst, code in product(ASKERS, targets, (0, 1))
            )
            if not any(passes(judge, hooks, packet) for packet in asked):
                found.add((direction, word))
    return found


ALLOWED_UNTRACKED = policy("p0", [{"action": "Allow"}], [{"action": "Allow"}], **LISTS[3])
DENIED_UNTRACKED = policy("p0", [{"action": "Deny"}], [{"action": "Deny", "protocol": "ICMPv6"}], **LISTS[3])


@QUICK
@given(discovery_worlds())
@example((host(), [ALLOWED_UNTRACKED, policy("p1", [{"action": "Allow", "protocol": "TCP"}])]))
@example((host(profiles=["projectcalico-default-allow"]), [DENIED_UNTRACKED]))
def test_discovery_that_is_cut_is_found_and_no_other(world: tuple[Document, list[Document]]) -> None:
    snapshot = snapshot_of(world[0], *world[1])
    told = {
        (direction, word)
        for one in found_of(snapshot, "LG302")
        for direction in ("ingress", "egress")
        for word in ("solicitations", "advertisements")
        if f"its {direction} policy" in one.text and word in one.text
    }
    by_default = {
        (direction, word)
        for one in found_of(snapshot, "LG301")
        for direction in ("ingress", "egress")
        for word in ("solicitations", "advertisements")
        if "neighbour discovery" in one.text and direction in one.text
    }
    assert not told & by_default
    assert told | by_default == cut(snapshot)


# --- everything denied (LG301) ----------------------------------------------------------------------------

PASSING = policy("p1", [{"action": "Pass"}], [{"action": "Pass"}])


@pytest.mark.parametrize("normal", [[PASSING], []])
def test_who_is_said_to_deny_everything_may_allow_untracked(normal: list[Document]) -> None:
    spared = "failsafe ports, what its untracked and preDNAT policy allows, and what is established (E-25)"
    found = found_of(snapshot_of(host(), ALLOWED_UNTRACKED, *normal), "LG301")
    assert found
    assert all(spared in one.text for one in found)


# --- failsafe ports (LG406) ------------------------------------------------------------------------------


def is_failsafe(entry: Failsafe, packet: Packet, *, is_incoming: bool, by_source: bool) -> bool:
    remote = packet.src if is_incoming else packet.dst
    port = packet.sport if by_source else packet.dport
    return (
        not packet.fragment
        and (packet.protocol, port) == (entry.protocol, entry.port)
        and (entry.net is None or remote in entry.net)
    )


def denied_failsafes(documents: Sequence[Document], snapshot: Snapshot) -> set[tuple[str, str, int]]:
    """Rules with ports that would deny a failsafe packet, if there were no failsafes."""
    judge, found = reference(snapshot), set()
    specs = {one["metadata"]["name"]: one["spec"] for one in documents}
    for hook, asked in {**IN, **OUT}.items():
        is_incoming = hook in IN
        own, other = FAILSAFES.failsafe_inbound, FAILSAFES.failsafe_outbound
        own, other = (own, other) if is_incoming else (other, own)
        for packet in asked:
            sides = [("destination", own, False)] + ([("source", other, True)] if "raw" in hook else [])
            hit = {
                side
                for side, entries, by_source in sides
                for entry in entries
                if is_failsafe(entry, packet, is_incoming=is_incoming, by_source=by_source)
            }
            decided = denied_by(judge.answer(packet)) if hit else None
            if decided is not None:
                name, rule = decided
                direction = "ingress" if is_incoming else "egress"
                if any("ports" in specs[name][direction][rule][side] for side in hit):
                    found.add((name, direction, rule))
    return found


def denied_by(answer: Answer) -> tuple[str, int] | None:
    last = answer.trace[-1] if answer.trace else None
    if answer.verdict != "deny" or last is None or last.policy is None or last.rule is None:
        return None
    return last.policy.split("/")[1], last.rule


def place(found: Finding) -> tuple[str, str, int]:
    direction, _, rest = found.path.removeprefix("spec.").partition("[")
    return found.resource.split("/")[1], direction, int(rest.rstrip("]"))


@QUICK
@given(worlds())
@example(
    [
        policy(
            "p0",
            [{"action": "Deny", "protocol": "UDP", "source": {"ports": [53]}, "destination": {}}],
            **LISTS[3],
        )
    ]
)
def test_failsafe_ports_that_a_rule_denies_are_found_and_no_other(documents: list[Document]) -> None:
    snapshot = snapshot_of(host(profiles=["some"]), *documents)
    found = found_of(snapshot, "LG406", FAILSAFES)
    assert {place(one) for one in found} == denied_failsafes(documents, snapshot)


# --- replies (LG401) -------------------------------------------------------------------------------------


def reply(packet: Packet) -> Packet:
    """Seen from the other end."""
    is_incoming = packet.in_ is not None
    return replace(
        packet, hook="raw-output" if is_incoming else "raw-prerouting",
        src=packet.dst, dst=packet.src, sport=packet.dport, dport=packet.sport,
        in_=None if is_incoming else "eth0", out="eth0" if is_incoming else None,
    )  # fmt: skip


def is_asked(packet: Packet, own: Sequence[str]) -> bool:
    """Not ICMP, no failsafe in either half, and of an own address where any is known."""
    if packet.protocol in (1, 58) or (own and str(packet.dst) not in own):
        return False
    inbound = (
        is_failsafe(one, packet, is_incoming=True, by_source=False) for one in FAILSAFES.failsafe_inbound
    )
    outbound = (
        is_failsafe(one, packet, is_incoming=True, by_source=True) for one in FAILSAFES.failsafe_outbound
    )
    return not any(inbound) and not any(outbound)


def unanswered(snapshot: Snapshot, own: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    judge = reference(snapshot)
    for family in (4, 6):
        answers: dict[tuple[str, str, int], list[str]] = {}
        for packet in IN["raw-prerouting"]:
            if packet.src.version != family or not is_asked(packet, own):
                continue
            for direction, asked in (("ingress", packet), ("egress", reply(packet))):
                there = judge.answer(asked)
                if there.verdict == "allow-notrack":
                    name, rule = there.trace[-1].policy.split("/")[1], there.trace[-1].rule  # type: ignore[union-attr]
                    answers.setdefault((name, direction, rule), []).append(judge.answer(reply(asked)).verdict)
        for rule, verdicts in answers.items():
            is_answered = "allow-notrack" in verdicts
            lost = "continue" in verdicts if is_answered else True
            if lost and not (is_answered and not own):
                yield rule


UNTRACKED = ({"doNotTrack": True, "applyOnForward": True},)
UDP = {"action": "Allow", "protocol": "UDP"}
ANSWERED_HALF = policy(
    "p0",
    [{**UDP, "source": {"nets": ["10.0.0.0/8"]}, "destination": {"ports": [40]}}],
    [{**UDP, "source": {"ports": [40]}, "destination": {"nets": ["10.0.0.0/9"]}}],
    **UNTRACKED[0],
)
ANY_PROTOCOL = policy("p0", [{"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}}], **UNTRACKED[0])


@QUICK
@given(worlds(UNTRACKED), st.sampled_from([(), OWN, OWN[:1], OWN[1:]]))
@example([ANSWERED_HALF], OWN)
@example([ANSWERED_HALF], ())
@example([ANY_PROTOCOL], OWN)
def test_no_unanswered_rule_is_missed_and_none_is_invented(
    documents: list[Document], own: tuple[str, ...]
) -> None:
    snapshot = snapshot_of(host(own, ["some"]), *documents)
    found = found_of(snapshot, "LG401", FAILSAFES)
    assert {place(one) for one in found} == set(unanswered(snapshot, own))


def test_replies_are_asked_for_where_neither_rules_nor_failsafes_name_a_protocol() -> None:
    """ICMP is left out, and must not take the others with it."""
    snapshot = snapshot_of(host(OWN, ["some"]), ANY_PROTOCOL)
    found = found_of(snapshot, "LG401", replace(BARE, failsafe_inbound=(), failsafe_outbound=()))
    assert [one.path for one in found] == ["spec.ingress[0]"]


@pytest.mark.parametrize("rule", ["LG204", "LG302", "LG401", "LG406"])
def test_each_finding_occurs_in_these_universes(rule: str) -> None:
    """A comparison of nothing with nothing proves nothing."""
    documents = [
        policy("p0", [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [22]}}], order=5),
        policy("p1", [{"action": "Allow", "protocol": "TCP"}], order=5),
        policy("p2", [{"action": "Allow", "protocol": "UDP"}], **UNTRACKED[0]),
    ]
    assert found_of(snapshot_of(host(profiles=["some"]), *documents), rule, FAILSAFES)
