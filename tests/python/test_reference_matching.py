"""The reference's rule matching (semantics 3): one rule, one packet, whether it matches."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from labelgate.reference import Reference
from labelgate.reference.matching import exists_for
from labelgate.reference.rules import Entity, Rule
from reference_world import SHOP, global_policy, namespaced_policy, node_of, packet

PEERS = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: client, namespace: lab, labels: {app: web, pcns.env: forged}}
spec:
  orchestrator: k8s
  workload: client
  node: edge2
  endpoint: eth0
  interfaceName: cali999
  ipNetworks: [10.66.0.9/32]
  profiles: [kns.lab]
  ports: [{name: https, protocol: TCP, port: 8443}, {name: sip, protocol: SCTP, port: 5060}]
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.lab}
spec: {labelsToApply: {pcns.env: test}}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: far, labels: {app: host}}
spec:
  node: edge2
  interfaceName: eth0
  expectedIPs: [10.70.0.1]
  ports: [{name: https, protocol: TCP, port: 9443}]
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: office, namespace: shop, labels: {app: office}}
spec: {nets: [10.80.0.0/16]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: world, labels: {app: world}}
spec: {nets: [10.90.0.0/16, "fd00:90::/32"]}
"""
WEB, DB, CLIENT, FAR, OFFICE, WORLD, STRANGER = (
    "10.65.0.2", "10.65.0.3", "10.66.0.9", "10.70.0.1", "10.80.5.5", "10.90.5.5", "10.200.0.1"
)  # fmt: skip
EVERYBODY = {
    "web": WEB,
    "db": DB,
    "client": CLIENT,
    "far": FAR,
    "office": OFFICE,
    "world": WORLD,
    "stranger": STRANGER,
}


def with_rule(rule: str, *, namespaced: bool = False, direction: str = "ingress") -> Reference:
    """A node where web has this rule only; who does not match is denied at the end of the tier."""
    make = namespaced_policy if namespaced else global_policy
    spec = f"  selector: app == 'web'\n  {direction}:\n  - {{action: Allow, {rule}}}"
    return node_of(SHOP, PEERS, make(spec))


def sources(rule: str, *, namespaced: bool = False) -> set[str]:
    """Whose packets to web the rule matches."""
    node = with_rule(rule, namespaced=namespaced)
    return {
        name
        for name, source in EVERYBODY.items()
        if node.answer(packet("filter-forward", source, WEB, in_="eth0", out="cali111")).verdict == "allow"
    }


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ("", "web db client far office world stranger"),
        ("nets: [10.65.0.0/16, 10.200.0.0/16]", "web db stranger"),
        ("nets: [10.64.0.0/10], notNets: [10.65.0.0/31, 10.65.0.2/32]", "db client far office world"),
        ("notNets: [10.0.0.0/9]", "stranger"),
        ("selector: all()", "web db client far office world"),  # known addresses only
        ("selector: ''", "web db client far office world stranger"),  # S-20
        ("selector: '!has(app)'", ""),
        ("selector: app == 'web'", "web client"),  # cluster-wide
        ("notSelector: app == 'web'", "db far office world stranger"),  # M-24
        ("selector: '!(app == \"web\")'", "db far office world"),  # the contrast
        ("selector: has(app), notSelector: app == 'web'", "db far office world"),
        ("selector: app == 'web', nets: [10.66.0.0/16]", "client"),  # M-1
        ("namespaceSelector: all()", "web db client office"),  # M-22
        ("namespaceSelector: global()", "far world"),
        ("namespaceSelector: global(), selector: app == 'host'", "far"),
        ("namespaceSelector: env == 'prod'", "web db office"),  # a network set inherits
        ("namespaceSelector: env != 'prod'", "client far world"),  # M-23
        ("namespaceSelector: all(), notSelector: app == 'web'", "db office"),
        ("serviceAccounts: {}", "web db client far office world stranger"),  # S-20
        ("serviceAccounts: {names: [front, other]}", "web"),
        ("serviceAccounts: {selector: all()}", "web db client far office world"),  # M-30
        ("serviceAccounts: {selector: team != 'a'}", "web db client far office world"),
        ("serviceAccounts: {names: [front], selector: has(team)}", ""),
    ],
)
def test_sources_of_a_global_policy(side, expected) -> None:
    """M-16, M-20 to M-24, M-30."""
    assert sources(f"source: {{{side}}}") == set(expected.split())


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ("nets: [10.64.0.0/10]", "web db client far office world"),  # nets alone do not limit (M-23)
        ("selector: all()", "web db office"),  # own namespace
        ("selector: app == 'web'", "web"),
        ("notSelector: app == 'web'", "db office"),  # M-21.4: a positive expression exists
        ("serviceAccounts: {selector: all()}", "web db office"),
        ("serviceAccounts: {}", "web db client far office world stranger"),
        ("namespaceSelector: all()", "web db client office"),
        ("namespaceSelector: global()", "far world"),
        ("namespaceSelector: env == 'test'", "client"),
        ("namespaceSelector: env == 'test', selector: app == 'db'", ""),
        ("namespaceSelector: env != 'prod'", "client far world"),
    ],
)
def test_sources_of_a_namespaced_policy(side, expected) -> None:
    """M-21 to M-23."""
    assert sources(f"source: {{{side}}}", namespaced=True) == set(expected.split())


def test_forged_namespace_label_is_discarded() -> None:
    """R-22: client's own `pcns.env` label does not count; its profile's does."""
    assert sources("source: {selector: pcns.env == 'forged'}") == set()
    assert sources("source: {selector: pcns.env == 'test'}") == {"client"}


V4, V6 = ip_network("10.0.0.0/8"), ip_network("fd00::/8")


@pytest.mark.parametrize(
    ("entity", "families"),
    [
        (Entity(nets=(V4, V6)), {4, 6}),  # M-13: the validation refuses such lists, the law does not
        (Entity(not_nets=(V4, V6)), {4, 6}),
        (Entity(nets=(V4,), not_nets=(V6,)), set()),
        (Entity(not_nets=(V4, ip_network("0.0.0.0/0"))), set()),  # M-14
        (Entity(not_nets=(V6, V4, ip_network("0.0.0.0/0"))), {6}),
        (Entity(not_nets=(V4, ip_network("::/0"))), {4}),
        (Entity(nets=(ip_network("0.0.0.0/0"), ip_network("::/0"))), {4, 6}),
    ],
)
def test_families_that_a_rule_exists_for(entity, families) -> None:
    """M-12 to M-14, each of the four lists by itself."""
    for rule in (Rule("Allow", source=entity), Rule("Allow", destination=entity)):
        assert {version for version in (4, 6) if exists_for(rule, version)} == families


def matches(rule: str, *, direction: str = "ingress", namespaced: bool = False, **fields) -> bool:
    """Whether the rule of web matches a packet to it (or, for egress, from it)."""
    node = with_rule(rule, direction=direction, namespaced=namespaced)
    is_v6 = fields.pop("v6", False)
    stranger, own = ("fd00:200::1", "fd00:65::2") if is_v6 else (STRANGER, WEB)
    peer = fields.pop("peer", stranger)
    if direction == "egress":
        asked = packet("filter-forward", own, peer, in_="cali111", out="eth0", **fields)
    else:
        asked = packet("filter-forward", peer, own, in_="eth0", out="cali111", **fields)
    return node.answer(asked).verdict == "allow"


@pytest.mark.parametrize(
    ("rule", "v4", "v6"),
    [
        ("", True, True),  # M-2
        ("ipVersion: 4", True, False),  # M-10
        ("ipVersion: 6", False, True),
        ("source: {nets: [10.0.0.0/8]}", True, False),  # M-12
        ("source: {notNets: [10.0.0.0/9]}", True, False),  # never matches the other family
        ("destination: {notNets: ['fd00:66::/32']}", False, True),
        ("source: {nets: ['::/0']}", False, True),
        ("source: {nets: [0.0.0.0/0]}", True, False),
        ("notProtocol: UDP", True, True),  # M-15
        ("notProtocol: TCP", False, False),
        ("notProtocol: ICMP", True, True),  # M-11: only `protocol` implies a family
        ("protocol: 6", True, True),
        ("protocol: UDP", False, False),
    ],
)
def test_families_and_protocols(rule, v4, v6) -> None:
    assert (matches(rule), matches(rule, v6=True)) == (v4, v6)


@pytest.mark.parametrize(
    ("rule", "packets"),
    [
        ("protocol: ICMP", "v4/8.0 v4/8.1 v4/3.1 v4/-"),
        ("protocol: 1", "v4/8.0 v4/8.1 v4/3.1 v4/-"),
        ("protocol: ICMPv6", "v6/128.0"),
        ("protocol: 58", "v6/128.0"),
        ("protocol: ICMP, icmp: {}", "v4/8.0 v4/8.1 v4/3.1 v4/-"),
        ("protocol: ICMP, icmp: {type: 8}", "v4/8.0 v4/8.1"),
        ("protocol: ICMP, icmp: {type: 8, code: 0}", "v4/8.0"),
        ("protocol: ICMP, notICMP: {type: 8}", "v4/3.1"),
        ("protocol: ICMP, notICMP: {type: 8, code: 0}", "v4/8.1 v4/3.1"),
        ("protocol: ICMP, notICMP: {}", "v4/8.0 v4/8.1 v4/3.1 v4/-"),
        ("protocol: ICMP, icmp: {type: 8}, notICMP: {type: 8, code: 1}", "v4/8.0"),
    ],
)
def test_icmp(rule, packets) -> None:
    """M-11, M-33; what is no ICMP of the rule's family, or has no readable type, never matches a type."""
    asked = {
        "v4/8.0": {"protocol": "icmp", "icmp": (8, 0)},
        "v4/8.1": {"protocol": "icmp", "icmp": (8, 1)},
        "v4/3.1": {"protocol": "icmp", "icmp": (3, 1)},
        "v4/-": {"protocol": "icmp", "icmp": (8, 0), "fragment": True},
        "v4 as 58": {"protocol": "icmpv6", "icmp": (128, 0)},
        "v6/128.0": {"protocol": "icmpv6", "icmp": (128, 0), "v6": True},
        "v6 as 1": {"protocol": "icmp", "icmp": (8, 0), "v6": True},
        "tcp": {},
    }
    assert {name for name, fields in asked.items() if matches(rule, **fields)} == set(packets.split())


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("protocol: TCP, destination: {ports: [80]}", "80"),
        ("protocol: TCP, destination: {ports: ['443:8443', 80]}", "80 443 8443"),
        ("protocol: TCP, destination: {notPorts: ['443:8442']}", "80 8443"),
        ("protocol: TCP, destination: {ports: ['1:65535'], notPorts: [80]}", "443 8443"),  # M-3
        ("protocol: TCP, source: {ports: [40000]}", "80 443 8443"),
        ("protocol: TCP, source: {notPorts: [40000]}", ""),
        ("protocol: TCP, source: {ports: [80]}", ""),
        ("protocol: UDP, destination: {ports: [80]}", ""),
        ("protocol: TCP, destination: {ports: [https]}", "443"),  # M-25
        ("protocol: TCP, destination: {ports: [https, 80]}", "80 443"),  # M-17
        ("destination: {ports: [https]}", "443"),
        ("protocol: TCP, destination: {notPorts: [https]}", "80 8443"),
        ("protocol: TCP, destination: {notPorts: [https, 80]}", "8443"),  # M-18
        ("protocol: TCP, destination: {ports: [nobody]}", ""),  # M-26
        ("protocol: TCP, destination: {notPorts: [nobody]}", "80 443 8443"),
        ("protocol: TCP, destination: {ports: [dns]}", ""),  # of UDP
    ],
)
def test_ports(rule, expected) -> None:
    found = [port for port in (80, 443, 8443) if matches(rule, dport=port)]
    assert " ".join(map(str, found)) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("protocol: TCP", True),
        ("protocol: TCP, destination: {ports: ['1:65535']}", False),
        ("protocol: TCP, destination: {notPorts: [443]}", False),
        ("protocol: TCP, source: {notPorts: [443]}", False),
        ("protocol: TCP, destination: {ports: [https]}", False),
        ("protocol: TCP, destination: {notPorts: [https]}", True),
        ("protocol: TCP, destination: {notPorts: [https, 443]}", False),
        ("source: {nets: [10.0.0.0/8]}", True),
    ],
)
def test_later_fragments_have_no_ports(rule, expected) -> None:
    """M-19."""
    assert matches(rule, dport=443, fragment=True) is expected


@pytest.mark.parametrize(
    ("rule", "peer", "port", "protocol", "namespaced", "expected"),
    [
        ("destination: {ports: [https]}", CLIENT, 8443, "tcp", False, True),
        ("destination: {ports: [https]}", CLIENT, 443, "tcp", False, False),  # web's number
        ("destination: {ports: [https]}", FAR, 9443, "tcp", False, True),  # host endpoints too
        ("destination: {ports: [https]}", STRANGER, 8443, "tcp", False, False),
        ("destination: {ports: [sip]}", CLIENT, 5060, "sctp", False, True),
        ("destination: {ports: [sip]}", CLIENT, 5060, "udp", False, False),
        ("protocol: UDP, destination: {ports: [sip]}", CLIENT, 5060, "udp", False, False),
        ("destination: {ports: [https]}", CLIENT, 8443, "tcp", True, True),  # cluster-wide even here
        ("destination: {selector: all(), ports: [https]}", CLIENT, 8443, "tcp", True, False),
        ("destination: {selector: app == 'host', ports: [https]}", CLIENT, 8443, "tcp", False, False),
        ("destination: {selector: app == 'host', ports: [https]}", FAR, 9443, "tcp", False, True),
        ("destination: {notPorts: [https]}", CLIENT, 8443, "tcp", False, False),
        ("destination: {selector: app == 'web', notPorts: [https]}", CLIENT, 8443, "tcp", False, False),
        ("destination: {notPorts: [https]}", STRANGER, 8443, "tcp", False, True),
    ],
)
def test_named_ports_of_peers(rule, peer, port, protocol, namespaced, expected) -> None:
    """M-25 to M-28."""
    fields = {"peer": peer, "dport": port, "protocol": protocol}
    assert matches(rule, direction="egress", namespaced=namespaced, **fields) is expected


def test_named_source_port() -> None:
    """M-4: the source side, in an ingress rule."""
    rule = "source: {ports: [https]}"
    assert matches(rule, peer=CLIENT, sport=8443)
    assert not matches(rule, peer=CLIENT, sport=443)


def test_set_of_everything() -> None:
    """M-20: `/0` is a member net like any other."""
    everything = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: all, labels: {any: thing}}
spec: {nets: [0.0.0.0/0]}
"""
    spec = "  selector: app == 'web'\n  ingress: [{action: Allow, source: {selector: has(any)}}]"
    node = node_of(SHOP, everything, global_policy(spec))
    v4 = packet("filter-forward", STRANGER, WEB, in_="eth0", out="cali111")
    v6 = packet("filter-forward", "fd00:200::1", "fd00:65::2", in_="eth0", out="cali111")
    assert (node.answer(v4).verdict, node.answer(v6).verdict) == ("allow", "deny")
