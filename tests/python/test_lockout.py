"""What a host cannot do without is judged on every interface that the new policy governs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelgate.compiler import Compiler
from labelgate.config import load_config
from labelgate.links import Link, Links
from labelgate.lockout import Flow, Host, check, findings, host
from labelgate.lockout.judge import denial, denied_at
from labelgate.lockout.many import by_column, denials, distinct, flow_of
from labelgate.resources import Loading
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable

NO_FAILSAFES = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}
---
"""
ENDPOINT = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out}
spec: {node: edge1, interfaceName: eth9}
"""
LINKS = Links((Link(9, "eth9", ("2001:db8:9::10", "192.0.2.10")),))
PERMANENT, FOR_A_TIME = 0x80, 0x0


class Message(dict[str, Any]):
    """An address as netlink tells it."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


class Netlink:
    """An interface with addresses, all of the same kind."""

    flags = PERMANENT

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_addr(self, family: int = 0) -> Iterator[Message]:
        for address in LINKS.links[0].addresses:
            if not family or (family == 10) == (":" in address):
                yield Message(index=9, flags=self.flags, IFA_FLAGS=self.flags, IFA_ADDRESS=address)


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "IPRoute", Netlink)
    monkeypatch.setattr(host, "_routes", lambda addresses: [9 for _ in addresses])
    monkeypatch.setattr(check, "RESOLVER_FILES", ())


def table(text: str, links: Links = LINKS) -> DecisionTable:
    loading = Loading()
    loading.add(text.encode(), "policy.yaml")
    snapshot = Snapshot.of(loading.result())
    config = load_config(None, snapshot.felix_configurations, "edge1")
    return Compiler(snapshot, node="edge1", host=links.host_facts, settings=config.settings).table


def found(before: str, after: str) -> list[tuple[str, str]]:
    return [(one.what, one.subject) for one in findings(table(before), table(after), Host(LINKS), [])]


NEIGHBOURS = [
    ("IPv6 neighbour discovery", f"{what} {way} on eth9")
    for what in ("solicitations", "advertisements")
    for way in ("out", "in")
]


def test_the_first_endpoint_of_an_interface() -> None:
    """It governs what nothing governed: by default all is denied (E-53)."""
    assert found(NO_FAILSAFES, NO_FAILSAFES + ENDPOINT) == NEIGHBOURS


def test_the_first_endpoint_without_failsafe_ports() -> None:
    """The ports that were exempt are those that somebody may rely on."""
    said = found("", NO_FAILSAFES + ENDPOINT)
    assert ("failsafe port", "tcp 22 in on eth9") in said
    assert ("failsafe port", "udp 53 out on eth9") in said


def test_addresses_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Netlink, "flags", FOR_A_TIME)
    assert set(found(NO_FAILSAFES, NO_FAILSAFES + ENDPOINT)) - set(NEIGHBOURS) == {
        ("DHCP", "requests out on eth9"),
        ("DHCP", "answers in on eth9"),
        ("IPv6 router discovery", "solicitations out on eth9"),
        ("IPv6 router discovery", "advertisements in on eth9"),
    }


def test_name_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    resolvers = tmp_path / "resolv.conf"
    resolvers.write_text("search example.org\nnameserver 203.0.113.53\nnameserver nothing\n")
    monkeypatch.setattr(check, "RESOLVER_FILES", (str(resolvers), str(tmp_path / "gone")))
    assert set(found(NO_FAILSAFES, NO_FAILSAFES + ENDPOINT)) - set(NEIGHBOURS) == {
        ("DNS", "udp to 203.0.113.53")
    }


POLICIES = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec:
  failsafeInboundHostPorts: [{protocol: tcp, port: 22}]
  failsafeOutboundHostPorts: []
  defaultEndpointToHostAction: RETURN
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out, labels: {side: out}}
spec: {node: edge1, interfaceName: eth9}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: all, labels: {side: all}}
spec: {node: edge1, interfaceName: "*"}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: itself, labels: {side: itself}}
spec: {node: edge1, interfaceName: lo}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: to-itself}
spec: {selector: side == 'itself', order: 0, types: [Egress], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: untracked}
spec:
  selector: side in {'out', 'itself'}
  order: 1
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [53]}}
  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}
  - {action: Deny, protocol: TCP, destination: {ports: [81]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: ahead}
spec:
  selector: all()
  order: 2
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [82]}}
  - {action: Allow, protocol: TCP, destination: {ports: [83]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: forwarded}
spec:
  selector: all()
  order: 3
  applyOnForward: true
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, destination: {ports: [8081]}, protocol: TCP}
  - {action: Allow, protocol: ICMP, icmp: {type: 8}}
  - {action: Allow, protocol: ICMPv6, icmp: {type: 128, code: 0}}
  egress:
  - {action: Deny, protocol: TCP, destination: {ports: [8080]}}
  - {action: Allow, destination: {nets: [203.0.113.0/25]}}
  - {action: Allow, destination: {nets: ["2001:db8:3::/48"]}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: edge1-k8s-pod-eth0, namespace: shop, labels: {app: web}}
spec:
  {node: edge1, orchestrator: k8s, pod: pod, endpoint: eth0, interfaceName: cali1,
   ipNetworks: [10.65.0.2/32, "fd00::2/128"]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: all()
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080, 8081]}}]
  egress: [{action: Allow, protocol: UDP}]
"""
NODE = Links((
    Link(1, "lo", ("127.0.0.1", "::1")),
    Link(8, "cali1", ()),
    Link(9, "eth9", ("192.0.2.10", "2001:db8:9::10")),
    Link(10, "eth10", ("192.0.2.130",)),
))  # fmt: skip
PLACES: dict[int, list[tuple[str, int]]] = {
    4: [("127.0.0.1", 1), ("192.0.2.10", 1), ("10.65.0.2", 8), ("203.0.113.5", 9), ("203.0.113.200", 9),
        ("192.0.2.140", 10), ("198.51.100.1", 0)],
    6: [("::1", 1), ("2001:db8:9::10", 1), ("fd00::2", 8), ("2001:db8:3::5", 9), ("2001:db8:4::5", 10),
        ("2001:db8:5::5", 0)],
}  # fmt: skip
"""Addresses, and the interface towards each."""


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Between any of the places; of some, DNAT changes the destination, the port, or both."""
    version = draw(st.sampled_from([4, 6]))
    src, dst, target = (ip_address(draw(st.sampled_from(PLACES[version]))[0]) for _ in range(3))
    ports = st.sampled_from([22, 53, 80, 81, 82, 83, 8080, 8081])
    protocol = draw(st.sampled_from([6, 6, 17, 132, 47, 1 if version == 4 else 58]))
    is_translated = draw(st.booleans())
    if protocol in (1, 58):
        kind = draw(st.sampled_from([8, 13, 128]))
        return Flow(protocol, src, dst, target=target if is_translated else None, icmp=(kind, 0, 7))
    if protocol == 47:
        return Flow(protocol, src, dst)
    sport, dport, target_port = draw(ports), draw(ports), draw(ports)
    if not is_translated:
        return Flow(protocol, src, dst, sport, dport)
    return Flow(protocol, src, dst, sport, dport, target, target_port)


def one_by_one(judged: DecisionTable, flow: Flow) -> str | None:
    """Where and why the first packet is denied, asked hook by hook."""
    index = {text: number for places in PLACES.values() for text, number in places}
    names = {link.index: link.name for link in NODE.links}
    source, target = index[str(flow.src)], index[str(flow.target or flow.dst)]
    if source == 1:
        ways = [(None, names[target])] if target else []
    elif source and target:
        ways = [(names[source], None if target == 1 else names[target])]
    else:
        ways = []
    destination = index[str(flow.dst)]
    out = None if source != 1 and destination == 1 else names.get(destination)
    reasons = (denied_at(judged, flow, *way, out) for way in ways)
    return next(filter(None, reasons), None)


def known(flow: Flow) -> tuple[object, ...]:
    """What columns can tell of it: what goes to where it went anyway is not translated."""
    target = (flow.target or flow.dst, flow.target_port or flow.dport)
    return flow.protocol, flow.src, flow.dst, flow.sport, flow.dport, target, flow.icmp


@pytest.fixture(scope="module")
def judged() -> DecisionTable:
    return table(POLICIES, NODE)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(flows(), min_size=1, max_size=60))
def test_by_column_as_one_by_one(
    asked: list[Flow], judged: DecisionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All hooks, both IP versions, DNAT, untracked flows that pass none (E-62), both passes of `lo`."""
    index = {ip_address(text).packed: number for places in PLACES.values() for text, number in places}
    monkeypatch.setattr(host, "_routes", lambda addresses: [index[one] for one in addresses])
    here = Host(NODE)
    told: dict[Flow, str | None] = {}
    for part in by_column(asked):
        denied = denials(judged, part, here)
        told |= {flow_of(part, row): denied.get(row) for row in range(len(part))}
    assert {known(flow) for flow in told} == {known(flow) for flow in asked}
    assert told == {flow: one_by_one(judged, flow) for flow in told}


def test_all_hooks_have_a_say_in_that(judged: DecisionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    index = {ip_address(text).packed: number for places in PLACES.values() for text, number in places}
    monkeypatch.setattr(host, "_routes", lambda addresses: [index[one] for one in addresses])
    pod, outside, node = map(ip_address, ("10.65.0.2", "203.0.113.5", "192.0.2.10"))
    asked = [
        Flow(6, outside, pod, 40000, 81),
        Flow(6, outside, pod, 40000, 82),
        Flow(6, outside, node, 40000, 80),
        Flow(6, outside, pod, 40000, 80),
        Flow(6, node, outside, 40000, 8080),
        Flow(6, node, ip_address("192.0.2.140"), 40000, 8081, outside, 8080),
        Flow(6, ip_address("127.0.0.1"), node, 40000, 80),
        Flow(6, outside, node, 40000, 8080, pod, 8081),
    ]
    (part,) = by_column(asked)
    said = denials(judged, part, Host(NODE))
    hooks = {row: reason.partition(", ")[2].partition(":")[0] for row, reason in said.items()}
    # The last one is untracked, so it goes to the node (E-62).
    assert hooks == {
        0: "raw-prerouting", 1: "mangle-prerouting", 2: "filter-input", 3: "filter-forward",
        4: "filter-output", 5: "mangle-postrouting", 6: "filter-input",
    }  # fmt: skip


def test_what_comes_back_is_as_dnat_has_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over `lo`, ahead of the hooks for what comes in."""
    index = {ip_address(text).packed: number for places in PLACES.values() for text, number in places}
    monkeypatch.setattr(host, "_routes", lambda addresses: [index[one] for one in addresses])
    node, here = ip_address("192.0.2.10"), Host(NODE)
    rule = "{action: Deny, protocol: TCP, destination: {ports: [81]}}"
    endpoint = ENDPOINT.replace("eth9", "lo, profiles: [projectcalico-default-allow]")
    policy = (
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: before}\n"
        f"spec: {{selector: all(), preDNAT: true, applyOnForward: true, ingress: [{rule}]}}\n"
    )
    after = table(f"{endpoint}---\n{policy}", NODE)
    for dport, target_port, hook in ((81, 8080, None), (8080, 81, "in lo, mangle-prerouting")):
        flow = Flow(6, node, node, 40000, dport, node, target_port)
        (part,) = by_column([flow])
        reason = denial(after, flow, here)
        assert (reason and reason.partition(":")[0]) == hook
        assert denials(after, part, here) == ({} if reason is None else {0: reason})


def test_sessions_that_are_denied_alike_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that asks comes first, though it is among them, and is told once."""
    client, server = ip_address("203.0.113.5"), ip_address("192.0.2.10")
    mine = Flow(6, client, server, 40500, 80)
    sessions = [Flow(6, client, server, 40000 + number, 80) for number in range(1000)]
    sessions += [Flow(6, client, server, 50000 + number, 22) for number in range(12)]
    after = table(NO_FAILSAFES + ENDPOINT)
    found = findings(None, after, Host(LINKS), sessions, by_column(sessions[::2]), mine=mine)
    told = [one for one in found if "session" in one.what]
    assert [(one.what, one.is_lockout) for one in told] == [
        ("the session that asks", True),
        *[("session", False)] * 11,
        *[("ssh session", True)] * 11,
    ]
    assert [one.subject for one in told if "more" in one.subject] == ["989 more", "2 more"]
    assert told[0].subject == str(mine)
    few = sessions[490:510]
    by_one, by_many = (
        findings(None, after, Host(LINKS), few, tracked, mine=mine) for tracked in ([], by_column(few[:1]))
    )
    assert by_one == by_many


def test_connections_are_told_apart_by_all_but_their_answer() -> None:
    first = Flow(6, ip_address("192.0.2.1"), ip_address("192.0.2.2"), 40000, 80)
    others = [
        replace(first, answered=False), replace(first, protocol=17), replace(first, sport=1),
        replace(first, dport=1), replace(first, target=ip_address("192.0.2.3"), target_port=80),
        replace(first, target=first.dst, target_port=81), replace(first, src=first.dst),
        Flow(6, ip_address("2001:db8::1"), ip_address("2001:db8::2"), 40000, 80),
    ]  # fmt: skip
    parts = distinct([*by_column([first, *others]), *by_column([first, *others])])
    assert [len(part) for part in parts] == [7, 1]
