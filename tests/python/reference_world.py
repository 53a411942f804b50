"""What the reference tests share: a node made of YAML snippets, and answers as short lines."""

from __future__ import annotations

from ipaddress import ip_address

from labelgate.flow import Answer, CtState, Hook, Packet
from labelgate.reference import Reference
from labelgate.resources import load_text
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot

NODE = "edge1"
HOST = HostFacts(
    {"eth0": ("198.51.100.10",), "eth1": ("10.9.0.10", "fd00:9::10"), "lo": ("127.0.0.1", "::1")}
)
PROTOCOLS = {"icmp": 1, "ipip": 4, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132, "udplite": 136}

SHOP = """
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec:
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
  labelsToApply: {pcns.env: prod, pcns.projectcalico.org/name: shop}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  orchestrator: k8s
  workload: web
  node: edge1
  endpoint: eth0
  serviceAccountName: front
  interfaceName: cali111
  ipNetworks: [10.65.0.2/32, "fd00:65::2/128"]
  profiles: [kns.shop]
  ports: [{name: https, protocol: TCP, port: 443}, {name: dns, protocol: UDP, port: 53}]
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  orchestrator: k8s
  workload: db
  node: edge1
  endpoint: eth0
  interfaceName: cali222
  ipNetworks: [10.65.0.3/32]
  allowSpoofedSourcePrefixes: [10.99.0.0/16]
  profiles: [kns.shop]
"""


def host_endpoint(name: str = "out", interface: str = "eth0", profiles: str = "[]") -> str:
    return f"""
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: {name}, labels: {{role: edge}}}}
spec: {{node: edge1, interfaceName: "{interface}", profiles: {profiles}}}
"""


def global_policy(spec: str, name: str = "p") -> str:
    """A GlobalNetworkPolicy; the spec in YAML, indented by two."""
    return f"""
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: {name}}}
spec:
{spec}
"""


def namespaced_policy(spec: str, name: str = "p", namespace: str = "shop") -> str:
    return f"""
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
{spec}
"""


def snapshot_of(*documents: str) -> Snapshot:
    return Snapshot.of(load_text("\n---\n".join(documents)))


def node_of(*documents: str, settings: Settings | None = None, host: HostFacts = HOST) -> Reference:
    """The reference for a node on which these documents are in force."""
    return Reference(snapshot_of(*documents), NODE, host, settings or Settings())


def packet(
    hook: Hook,
    src: str = "192.0.2.5",
    dst: str = "10.9.0.50",
    protocol: str = "tcp",
    sport: int | None = 40000,
    dport: int | None = 80,
    *,
    icmp: tuple[int, int] | None = None,
    in_: str | None = None,
    out: str | None = None,
    ct: CtState = "new",
    accepted: bool = False,
    dnatted: bool = False,
    fragment: bool = False,
) -> Packet:
    has_ports = protocol in ("tcp", "udp", "sctp", "udplite")
    return Packet(
        hook=hook,
        src=ip_address(src),
        dst=ip_address(dst),
        protocol=PROTOCOLS[protocol],
        sport=sport if has_ports else None,
        dport=dport if has_ports else None,
        icmp_type=icmp[0] if icmp else None,
        icmp_code=icmp[1] if icmp else None,
        in_=in_,
        out=out,
        ct=ct,
        accepted=accepted,
        dnatted=dnatted,
        fragment=fragment,
    )


def told(answer: Answer) -> list[str]:
    """The verdict with its flags, then one line per step."""
    flags = [name for name, flag in (("failsafe", answer.failsafe), ("accepted", answer.accepted)) if flag]
    lines = [" ".join([answer.verdict, *flags])]
    for step in answer.trace:
        rule = "" if step.rule is None else f"#{step.rule}"
        place = f"{step.stage} {step.endpoint or '-'} {step.tier or '-'} {step.policy or '-'}{rule}"
        lines.append(f"{place} {step.action or '-'}: {step.reason}")
    return lines
