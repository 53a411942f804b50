"""A node with a host endpoint and a workload, packets for them, and what `labelgate replay` says of both."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner
from labelgate.cli import cli
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as Bytes

POLICY = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0, expectedIPs: [198.51.100.10, "2001:db8::10"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec:
  selector: role == 'edge'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
  - {action: Allow, protocol: ICMP}
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: [5353]}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  {node: edge1, orchestrator: k8s, workload: web, endpoint: eth0, interfaceName: cali1,
   ipNetworks: [10.65.0.2/32]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: app == 'web'
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080]}}]
"""
HOST, OTHER, POD = "198.51.100.10", "192.0.2.5", "10.65.0.2"

FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
"""With addresses: scapy would ask the network for them."""


def tcp(src: str, dst: str, dport: int, flags: str = "S", sport: int = 40000) -> Bytes:
    return FRAME / IP(src=src, dst=dst) / TCP(sport=sport, dport=dport, flags=flags)


PACKETS = [
    tcp(OTHER, HOST, 80), tcp(HOST, OTHER, 40000, "SA", sport=80),  # allowed, with its reply
    tcp(OTHER, HOST, 81), tcp(OTHER, HOST, 81),  # denied, sent again
    tcp(OTHER, HOST, 22),  # failsafe
    FRAME / IP(src=OTHER, dst=HOST) / ICMP(type=8, id=7),
    FRAME / IP(src=HOST, dst=OTHER) / ICMP(type=0, id=7),
    FRAME / IP(src=HOST, dst=OTHER) / UDP(sport=40000, dport=5353),
    FRAME / IP(src=HOST, dst=OTHER) / UDP(sport=40000, dport=5354),  # denied
    FRAME / IPv6(src="2001:db8::5", dst="2001:db8::10") / TCP(sport=40000, dport=80, flags="S"),
    tcp(OTHER, POD, 8080), tcp(OTHER, POD, 8081),
    tcp(OTHER, "203.0.113.1", 80),  # not of this node
    tcp(OTHER, HOST, 9999, "A"),  # under way
    FRAME / ARP(),
]  # fmt: skip
LINES = [
    {"src": OTHER, "dst": POD, "protocol": "tcp", "sport": 40000, "dport": 8080, "packets": 3, "replies": 2},
    {"source_ip": OTHER, "dest_ip": POD, "proto": "tcp", "source_port": 40000, "dest_port": 8081,
     "packets_out": 4, "action": "allow", "dest_name": "web-*"},
    {"src": OTHER, "dst": POD, "protocol": "icmp", "icmpType": 8},
]  # fmt: skip
"""Of flow logs: allowed, denied, denied."""


def replay(*arguments: str, code: int, text: bytes | None = None) -> Any:
    result = CliRunner().invoke(cli, ["replay", *arguments, "-o", "json"], input=text)
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def fates(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    found = report["fates"].items()
    return {fate: (counts["flows"], counts["packets"]) for fate, counts in found if counts["flows"]}
