"""Small policies for the tests of the daemon, in the addresses of the world."""

from __future__ import annotations

from labelgate.demo.traffic import Probe
from labelgate.demo.world import CLIENT, EDGE_OUTSIDE, STRANGER

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"""


def pod(name: str, interface: str, address: str) -> str:
    """A workload of namespace `shop`."""
    return f"""
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec: {{node: edge1, interfaceName: {interface}, ipNetworks: [{address}/32], profiles: [kns.shop]}}
"""


WEB = pod("web", "cali111", "10.65.0.2")
DB = pod("db", "cali222", "10.65.0.3")
PODS = f"{NAMESPACE}---{WEB}---{DB}"


def host(name: str = "edge1-out", interface: str = "eth0", more: str = "") -> str:
    """A host endpoint with label `role: edge`."""
    return f"""
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: {name}, labels: {{role: edge}}}}
spec: {{node: edge1, interfaceName: "{interface}"{more}}}
"""


def policy(name: str, rules: str, more: str = "", order: int = 10) -> str:
    """A global policy for `role: edge`."""
    return f"""
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: {name}}}
spec:
  order: {order}
  selector: role == 'edge'
{more}{rules}
"""


ALLOW_9100 = """
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: [9100]}}
  - {action: Allow, protocol: UDP, source: {nets: [203.0.113.0/24]}, destination: {ports: [9100]}}
"""

MANAGEMENT = f"{host()}---{policy('management', ALLOW_9100)}"
"""eth0 is default-deny; the client reaches port 9100."""
ALLOWED, REFUSED = (Probe("tcp", src, EDGE_OUTSIDE, 9100) for src in (CLIENT, STRANGER))
"""What it says of connections."""
ALLOWED_DATAGRAM, REFUSED_DATAGRAM = (Probe("udp", src, EDGE_OUTSIDE, 9100) for src in (CLIENT, STRANGER))
"""And of datagrams, each of them a flow of its own."""

RESOLVER = f"""{host("edge1-in", "eth1")}---{
    policy(
        "dns-fast",
        '''
  doNotTrack: true
  applyOnForward: true
  types: [Ingress, Egress]
  ingress:
  - {action: Deny, source: {nets: [10.9.66.0/24]}}
  - {action: Allow, protocol: UDP, source: {nets: [10.9.0.0/16]}, destination: {ports: [5353]}}
  egress:
  - {action: Allow, protocol: UDP, source: {ports: [5353]}, destination: {nets: [10.9.0.0/16]}}
''',
    )
}"""
"""eth1 answers UDP port 5353 without conntrack."""

NODE_PORT = f"""{PODS}---{host()}---{
    policy(
        "nodeport-guard",
        '''
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: [30443]}}
  - {action: Deny, protocol: TCP, destination: {ports: ["30000:32767"]}}
''',
    )
}"""
"""NodePort 30443 is for the client only."""

ANY_PACKET = """\
  - {action: Deny, source: {nets: [192.0.2.66/32]}}
  - {action: Deny, source: {nets: ['2001:db8:ffff::66/128']}}
"""
"""Rules that any packet may match: policy is asked about all (E-22)."""
GUARD = NODE_PORT[NODE_PORT.rindex("---") :].rstrip() + "\n" + ANY_PACKET
"""PreDNAT policy alone, which is asked about every packet, and has no word on most."""
