"""The same packets through the kernel and through `labelgate replay`: what arrives is what replay says.

What comes in to the edge node is captured ahead of all hooks; ears behind the receivers' INPUT hear what got
through. Every flow has ports of its own, by which it is known wherever it is heard.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner
from kit import Ear, add_rules, echo_server, enforce, inject, ip, wait_until
from labelgate.cli import cli
from labelgate.demo.traffic import ready
from labelgate.demo.world import (
    BANNED,
    CLIENT,
    DB,
    DB_POD,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE,
    INSIDE_HOST,
    OUTSIDE,
    RESOLVER_CLIENT,
    STRANGER,
    WEB,
    WEB_POD,
    World,
    twin,
    twin_text,
)
from labelgate.path import read_destination
from policies import PODS, host, policy
from scapy.layers.inet import TCP, UDP, fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcapng

WEB_PORTS = '"8000:8099"'
POLICY = f"""{PODS}---{host()}---{host("edge1-in", "eth1")}---{
    policy(
        "management",
        '''
  ingress:
  - {action: Allow, protocol: UDP, source: {nets: [203.0.113.0/24]}, destination: {ports: ["9100:9199"]}}
''',
    )
}---{
    policy(
        "untracked",
        '''
  doNotTrack: true
  applyOnForward: true
  ingress:
  - {action: Deny, source: {nets: [10.9.66.0/24]}}
  - {action: Allow, protocol: UDP, source: {nets: [10.9.0.0/16]}, destination: {ports: ["5300:5399"]}}
''',
    )
}---{
    policy(
        "nodeport-guard",
        '''
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, source: {nets: [203.0.113.0/24]}, destination: {ports: ["30100:30199"]}}
  - {action: Deny, protocol: UDP, destination: {ports: ["30100:30199"]}}
  - {action: Allow, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: ["30100:30199"]}}
  - {action: Deny, protocol: TCP, destination: {ports: ["30100:30199"]}}
''',
    )
}---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: web, namespace: shop}}
spec:
  selector: app == 'web'
  types: [Ingress, Egress]
  ingress:
  - {{action: Allow, protocol: TCP, source: {{nets: [203.0.113.0/24]}}, destination: {{ports: [{
    WEB_PORTS
}]}}}}
  - {{action: Allow, protocol: UDP, source: {{nets: [203.0.113.0/24]}}, destination: {{ports: [{
    WEB_PORTS
}]}}}}
  egress:
  - {{action: Allow, protocol: UDP, destination: {{ports: ["7000:7099"]}}}}
"""
ECHO = 8050
ECHO_NODE_PORT = 30150
UNTRACKED = 5303
DNAT = {
    (EDGE_OUTSIDE, "udp", 30101): (WEB_POD, 8011),
    (EDGE_OUTSIDE, "udp", 30102): (WEB_POD, 8111),  # Let through by preDNAT policy, denied by the pod's.
    (EDGE_OUTSIDE, "udp", 30103): (WEB_POD, 8012),  # From a stranger.
    (EDGE_OUTSIDE, "udp", 30201): (WEB_POD, 8013),  # Of which preDNAT policy says nothing.
    (EDGE_OUTSIDE, "udp", 30202): (DB_POD, 8504),
    (EDGE_OUTSIDE, "udp", 30203): (INSIDE_HOST, 8601),  # Through the node: nobody has forward policy.
    (EDGE_OUTSIDE, "udp", 9202): (EDGE_OUTSIDE, 9103),  # To another port of the node itself.
    (EDGE_OUTSIDE, "udp", 9104): (EDGE_OUTSIDE, 9203),
    (EDGE_OUTSIDE, "udp", ECHO_NODE_PORT): (WEB_POD, ECHO),
    (EDGE_OUTSIDE, "tcp", 30104): (WEB_POD, 8014),
    (EDGE_OUTSIDE, "tcp", 30105): (WEB_POD, 8112),
    (EDGE_INSIDE, "udp", UNTRACKED): (WEB_POD, 8015),  # Untracked by policy, so it is not translated (E-62).
    (EDGE_INSIDE, "udp", 5403): (WEB_POD, 8016),  # Tracked and translated; the pod is for the client only.
}  # fmt: skip
"""Where nat PREROUTING of the edge node sends what; IPv6: the twins."""

FLOWS = {
    OUTSIDE: [
        (CLIENT, EDGE_OUTSIDE, "udp", 9101), (CLIENT, EDGE_OUTSIDE, "udp", 9201),
        (STRANGER, EDGE_OUTSIDE, "udp", 9102),
        (CLIENT, WEB_POD, "udp", 8001), (STRANGER, WEB_POD, "udp", 8002), (CLIENT, WEB_POD, "udp", 8101),
        (CLIENT, WEB_POD, "udp", ECHO),
        (CLIENT, WEB_POD, "S", 8003), (STRANGER, WEB_POD, "S", 8004), (CLIENT, WEB_POD, "S", 8102),
        # Picked up by an ACK; INVALID to conntrack; denied, however often.
        (CLIENT, WEB_POD, "A", 8005), (CLIENT, WEB_POD, "R", 8006), (CLIENT, WEB_POD, "SA", 8007),
        (CLIENT, WEB_POD, "S", 8103), (CLIENT, WEB_POD, "S", 8103),
        (CLIENT, DB_POD, "udp", 8501), (CLIENT, DB_POD, "S", 8502),
        *((CLIENT, EDGE_OUTSIDE, "udp", port) for port in (30101, 30102, 30201, 30202, 30203, 9202, 9104)),
        (CLIENT, EDGE_OUTSIDE, "udp", ECHO_NODE_PORT), (STRANGER, EDGE_OUTSIDE, "udp", 30103),
        (CLIENT, EDGE_OUTSIDE, "S", 30104), (CLIENT, EDGE_OUTSIDE, "S", 30105),
    ],
    INSIDE: [
        (RESOLVER_CLIENT, EDGE_INSIDE, "udp", 5301), (BANNED, EDGE_INSIDE, "udp", 5302),
        (RESOLVER_CLIENT, EDGE_INSIDE, "udp", 5401), (BANNED, WEB_POD, "udp", 8008),
        (RESOLVER_CLIENT, EDGE_INSIDE, "udp", UNTRACKED), (RESOLVER_CLIENT, EDGE_INSIDE, "udp", 5403),
        (INSIDE_HOST, DB_POD, "udp", 8503),
    ],
    WEB: [
        (WEB_POD, DB_POD, "udp", 7001), (WEB_POD, DB_POD, "udp", 7101), (WEB_POD, CLIENT, "udp", 7002),
        (WEB_POD, EDGE_OUTSIDE, "udp", 7003),
        (CLIENT, DB_POD, "udp", 7004), (DB_POD, CLIENT, "udp", 7005), (WEB_POD, DB_POD, "udp", 7006),
    ],
}  # fmt: skip
"""By sender: source, destination, UDP or TCP flags, port."""


INBOUND = 1
"""In the flags of a packet in pcapng."""


def packet(src: str, dst: str, kind: str, dport: int) -> Packet:
    header = UDP if kind == "udp" else TCP
    fields = {} if kind == "udp" else {"flags": kind}
    return ip(src, dst) / header(sport=dport + 20000, dport=dport, **fields) / Raw(b"x")


def big(src: str, dst: str, dport: int) -> list[Packet]:
    """A datagram in fragments."""
    data = UDP(sport=dport + 20000, dport=dport) / Raw(bytes(1600))
    if ":" in src:
        return list(fragment6(ip(src, dst) / IPv6ExtHdrFragment(id=7) / data, 1000))
    return list(fragment(ip(src, dst, id=7) / data, 1000))


def sent(sender: str) -> list[Packet]:
    packets = []
    for src, dst, kind, dport in FLOWS[sender]:
        packets += [packet(src, dst, kind, dport), packet(twin(src), twin(dst), kind, dport)]
    if sender == OUTSIDE:
        packets += [*big(CLIENT, WEB_POD, 8009), *big(twin(CLIENT), twin(WEB_POD), 8009)]
        packets += [*big(CLIENT, WEB_POD, 8104), *big(twin(CLIENT), twin(WEB_POD), 8104)]
    return packets


class Capture:
    """What comes in to the edge node, ahead of all hooks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._socket: socket.socket = world.call(
            EDGE, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)
        )

    def write(self, path: Path) -> int:
        """As a pcapng file that names the interfaces; how many packets."""
        packets = []
        while ready(self._world, self._socket):
            data, (name, protocol, way, *_) = self._socket.recvfrom(65535)
            if way != socket.PACKET_OUTGOING and protocol in (0x0800, 0x86DD) and name != "lo":
                packet = Ether(data)
                packet.sniffed_on, packet.direction, packet.time = name, INBOUND, len(packets)
                packets.append(packet)
        self._socket.close()
        wrpcapng(str(path), packets)
        return len(packets)


def with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def add_dnat(world: World) -> None:
    for (dst, protocol, dport), (to, port) in DNAT.items():
        for family, side in (("v4", str), ("v6", twin)):
            add_rules(
                world, "nft", "nat",
                f"-A PREROUTING -d {side(dst)} -p {protocol} -m {protocol} --dport {dport} "
                f"-j DNAT --to-destination {with_port(side(to), port)}",
                families=[family],
            )  # fmt: skip


def dnat_options() -> list[str]:
    return [
        option
        for (dst, protocol, dport), (to, port) in DNAT.items() for side in (str, twin)
        for option in ("--dnat", f"{with_port(side(dst), dport)}/{protocol}={with_port(side(to), port)}")
    ]  # fmt: skip


def arrives_at(flow: dict[str, Any]) -> tuple[str, int]:
    """Where the receiver is, by what the rules have made of the flow."""
    if "dnat" not in flow or flow["dport"] == UNTRACKED:
        return flow["dst"], flow["dport"]
    to = read_destination(flow["dnat"])
    return str(to.address), flow["dport"] if to.port is None else to.port


def replayed(folder: Path) -> list[dict[str, Any]]:
    """The fate of each flow."""
    facts = {
        "node": "edge1",
        "interfaces": {
            "eth0": [EDGE_OUTSIDE, twin(EDGE_OUTSIDE)], "eth1": [EDGE_INSIDE, twin(EDGE_INSIDE)],
            "cali111": [], "cali222": [],
        },
    }  # fmt: skip
    (folder / "host.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    routes = []
    for net, name in (("203.0.113.0/24", "eth0"), ("192.0.2.0/24", "eth0"), ("10.9.0.0/16", "eth1")):
        routes += ["--route", f"{net}={name}", "--route", f"{twin_text(net)}={name}"]
    result = CliRunner().invoke(cli, [
        "replay", str(folder / "policy.yaml"), str(folder / "edge.pcapng"),
        "--host", str(folder / "host.yaml"), *routes, *dnat_options(),
        "--from-start", "--flows", "-o", "json",
    ])  # fmt: skip
    assert result.exit_code == 1, result.output
    *flows, _ = map(json.loads, result.stdout.splitlines())
    # The rest is what hosts say of themselves: multicast listening, by link-local addresses.
    return [flow for flow in flows if flow["protocol"] in (6, 17)]


def test_replay_says_what_the_kernel_does(world: World, tmp_path: Path) -> None:
    owners = {CLIENT: OUTSIDE, STRANGER: OUTSIDE, WEB_POD: WEB, DB_POD: DB, EDGE_OUTSIDE: EDGE,
              EDGE_INSIDE: EDGE, RESOLVER_CLIENT: INSIDE, INSIDE_HOST: INSIDE, BANNED: INSIDE}  # fmt: skip
    owners |= {twin(address): owner for address, owner in owners.items()}
    places = [
        (where, version, number) for where in (EDGE, OUTSIDE, INSIDE, WEB, DB) for version in (4, 6)
        for number in (6, 17) if (where, number) != (EDGE, 6)
    ]  # fmt: skip
    with enforce(world, tmp_path, "nft", POLICY), ExitStack() as stack:
        add_dnat(world)
        for address in (WEB_POD, twin(WEB_POD)):
            stack.enter_context(echo_server(world, WEB, address, ECHO))
        ears = {place: stack.enter_context(Ear(world, *place)) for place in places}
        capture = Capture(world)
        for sender in FLOWS:
            inject(world, sender, *sent(sender))
        heard = {place: Counter(ear.ports()) for place, ear in ears.items()}
        captured = capture.write(tmp_path / "edge.pcapng")
    flows = replayed(tmp_path)
    expected: defaultdict[tuple[str, int, int], Counter[int]] = defaultdict(Counter)
    for flow in flows:
        version = 6 if ":" in flow["src"] else 4
        if flow["fate"] in ("allowed", "no endpoint"):
            address, port = arrives_at(flow)
            expected[owners[address], version, flow["protocol"]][port] += flow["packets"]
            expected[owners[flow["src"]], version, flow["protocol"]][flow["sport"]] += flow["replies"]
    differing = {
        place: (expected[place] - heard[place], heard[place] - expected[place])
        for place in places
        if +expected[place] != heard[place]
    }
    assert differing == {}
    fates = Counter(flow["fate"] for flow in flows)
    assert set(fates) == {"allowed", "denied", "spoofed source"}
    assert fates["spoofed source"] == 4
    deciders = {flow["dport"]: flow["by"]["policy"] for flow in flows if flow["fate"] == "denied"}
    assert deciders[30103] == "GlobalNetworkPolicy/nodeport-guard", "denied ahead of DNAT"
    assert min(fates["allowed"], fates["denied"]) >= 10, fates
    assert captured >= sum(len(sent(sender)) for sender in FLOWS)
    assert sum(flow["replies"] for flow in flows) >= 4, "the echo, in both families, straight and DNATed"


LOGGED = f"""{host()}---{
    policy(
        "logged",
        '''
  ingress:
  - {action: Log, protocol: UDP, destination: {ports: ["7000:7009"]}}
  - {action: Deny, protocol: UDP, destination: {ports: [7000]}}
  - {action: Allow, protocol: UDP, destination: {ports: ["7001:7009"]}}
''',
    )
}---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {{name: tight}}
spec:
  order: 5
  selector: role == 'edge'
  ingress:
  - {{action: Deny, protocol: UDP, destination: {{ports: [7002]}}}}
"""


def test_events_of_the_daemon_are_a_recording(world: World, tmp_path: Path) -> None:
    """What was denied is denied, what was logged or is denied by a staged policy only has passed."""
    with enforce(world, tmp_path, "nft", LOGGED) as daemon:
        inject(world, OUTSIDE, *(packet(CLIENT, EDGE_OUTSIDE, "udp", port) for port in (7000, 7001, 7002)))

        def events() -> list[str]:
            command = [sys.executable, "-m", "labelgate", "events", "-o", "json", "--filter", "protocol=udp"]
            command += ["--socket", daemon.socket]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

        assert wait_until(lambda: len(events()) == 5), events()
        lines = events()
    assert sorted((json.loads(line)["dport"], json.loads(line)["kind"]) for line in lines) == [
        (7000, "deny"), (7000, "log"), (7001, "log"), (7002, "log"), (7002, "staged-deny"),
    ]  # fmt: skip
    recorded, policies = tmp_path / "events.jsonl", str(tmp_path / "policy.yaml")
    recorded.write_text("\n".join(lines), encoding="utf-8")
    place = ["--node", "edge1", "--in", "eth0", "--flows", "-o", "json"]
    result = CliRunner().invoke(cli, ["replay", policies, str(recorded), *place])
    *flows, _ = map(json.loads, result.stdout.splitlines())
    assert {(flow["dport"], flow["fate"]) for flow in flows} == {
        (7000, "denied"), (7001, "allowed"), (7002, "allowed"),
    }  # fmt: skip
    known = policies.replace("policy.yaml", "known.yaml")
    Path(known).write_text(host(more=f", expectedIPs: [{EDGE_OUTSIDE}]"), encoding="utf-8")
    suggested = CliRunner().invoke(cli, ["suggest", "-f", known, str(recorded)])
    (document,) = (one for one in yaml.safe_load_all(suggested.stdout) if one)
    ports = [rule["destination"]["ports"] for rule in document["spec"]["ingress"]]
    assert ports == [["7001:7002"]], suggested.output
