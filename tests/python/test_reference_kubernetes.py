"""The reference's own reading of networking.k8s.io NetworkPolicy (K-1 to K-16)."""

from __future__ import annotations

import pytest
from labelgate.reference import Reference
from labelgate.reference.labels import pod_interface
from reference_world import node_of, packet, told


def pod(namespace: str, name: str, address: str, labels: str, account: str = "default") -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}
spec:
  nodeName: edge1
  serviceAccountName: {account}
  containers:
  - name: c
    ports: [{{name: https, containerPort: 443}}, {{name: dns, containerPort: 53, protocol: UDP}}]
status: {{phase: Running, podIPs: [{{ip: {address}}}]}}
"""


CLUSTER = "\n---\n".join(
    [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {env: prod}}",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab, labels: {env: test}}",
        pod("shop", "web", "10.65.0.2", "{app: web}"),
        pod("shop", "db", "10.65.0.3", "{app: db, level: gold}"),
        pod("lab", "web", "10.66.0.2", "{app: web, level: tin}"),
        pod("lab", "bare", "10.66.0.3", "{}"),
        """
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: office, namespace: shop, labels: {app: web}}
spec: {nets: [10.80.0.0/16]}
""",
    ]
)
PEERS = {
    "shop/web": "10.65.0.2",
    "shop/db": "10.65.0.3",
    "lab/web": "10.66.0.2",
    "lab/bare": "10.66.0.3",
    "office": "10.80.0.1",
    "stranger": "203.0.113.7",
}
ANYWHERE = "namespaceSelector: {{}}, podSelector: {{matchExpressions: [{}]}}"
WEB = pod_interface("shop", "web", "cali")


def policy(spec: str, name: str = "p") -> str:
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: shop}}
spec: {{{spec}}}
"""


def to_web(node: Reference, source: str, **fields) -> str:
    return node.answer(packet("filter-forward", source, "10.65.0.2", in_="eth0", out=WEB, **fields)).verdict


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("podSelector: {}", "shop/web shop/db"),
        ("podSelector: {matchLabels: {app: web}}", "shop/web"),
        ("namespaceSelector: {}", "shop/web shop/db lab/web lab/bare"),
        ("namespaceSelector: {matchLabels: {env: test}}", "lab/web lab/bare"),
        ("namespaceSelector: {matchLabels: {env: test}}, podSelector: {matchLabels: {app: web}}", "lab/web"),
        ("namespaceSelector: {}, podSelector: {}", "shop/web shop/db lab/web lab/bare"),
        ("ipBlock: {cidr: 10.64.0.0/10}", "shop/web shop/db lab/web lab/bare office"),
        ("ipBlock: {cidr: 10.65.0.0/16, except: [10.65.0.3/32]}", "shop/web"),
        (
            ANYWHERE.format("{key: level, operator: In, values: [gold, tin]}"),
            "shop/db lab/web",
        ),
        (  # K-3: also where the label is absent
            ANYWHERE.format("{key: level, operator: NotIn, values: [gold]}"),
            "shop/web lab/web lab/bare",
        ),
        (
            ANYWHERE.format("{key: level, operator: Exists}"),
            "shop/db lab/web",
        ),
        (
            ANYWHERE.format("{key: level, operator: DoesNotExist}"),
            "shop/web lab/bare",
        ),
        (
            "namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}",
            "lab/web lab/bare",
        ),
        ("podSelector: {matchLabels: {app: web, level: gold}}", ""),
    ],
)
def test_peers(peer, expected) -> None:
    """K-2 to K-5: network sets are never peers of selectors."""
    node = node_of(
        CLUSTER, policy(f"podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{{{peer}}}]}}]")
    )
    assert {name for name, source in PEERS.items() if to_web(node, source) == "allow"} == set(
        expected.split()
    )


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("[]", "tcp/80 tcp/443 tcp/8080 udp/53 udp/80 sctp/80 icmp"),  # K-7
        ("[{}]", "tcp/80 tcp/443 tcp/8080"),  # K-8
        ("[{protocol: UDP}]", "udp/53 udp/80"),
        ("[{port: 80}]", "tcp/80"),
        ("[{port: 80, endPort: 443}]", "tcp/80 tcp/443"),
        ("[{port: https}]", "tcp/443"),  # M-25
        ("[{protocol: UDP, port: dns}, {port: 8080}]", "tcp/8080 udp/53"),
        ("[{protocol: TCP, port: 80}, {protocol: TCP}]", "tcp/80 tcp/443 tcp/8080"),  # K-8: swallowed
        ("[{protocol: SCTP, port: 80}]", "sctp/80"),
    ],
)
def test_ports(ports, expected) -> None:
    """K-7 to K-10."""
    node = node_of(CLUSTER, policy(f"podSelector: {{}}, ingress: [{{ports: {ports}}}]"))
    asked = {
        "tcp/80": {"dport": 80},
        "tcp/443": {"dport": 443},
        "tcp/8080": {"dport": 8080},
        "udp/53": {"dport": 53, "protocol": "udp"},
        "udp/80": {"dport": 80, "protocol": "udp"},
        "sctp/80": {"dport": 80, "protocol": "sctp"},
        "icmp": {"protocol": "icmp", "icmp": (8, 0)},
    }
    found = {name for name, fields in asked.items() if to_web(node, "203.0.113.7", **fields) == "allow"}
    assert found == set(expected.split())


def test_rules_are_counted_by_protocol_then_peer() -> None:
    """K-6; the rules of the second entry follow those of the first."""
    node = node_of(
        CLUSTER,
        policy("""podSelector: {}, ingress: [
  {ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 80}, {protocol: UDP, port: 54}],
   from: [{ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: 192.0.2.0/24}}]},
  {from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]"""),
    )
    asked = [
        packet("filter-forward", source, "10.65.0.2", protocol, dport=port, in_="eth0", out=WEB)
        for source, protocol, port in (
            ("203.0.113.7", "tcp", 80),
            ("192.0.2.5", "tcp", 80),
            ("203.0.113.7", "udp", 53),
            ("192.0.2.5", "udp", 54),
            ("198.51.100.9", "sctp", 9),
        )
    ]
    assert [told(node.answer(question))[1:] for question in asked] == [
        [f"workload-ingress Pod/shop/web default KubernetesNetworkPolicy/shop/p#{index} Allow: rule (M-50)"]
        for index in range(5)
    ]


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("podSelector: {}", "deny", "allow"),  # K-13, K-14
        ("podSelector: {}, policyTypes: []", "deny", "allow"),
        ("podSelector: {}, policyTypes: [Ingress]", "deny", "allow"),
        ("podSelector: {}, policyTypes: [Egress]", "allow", "deny"),
        ("podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}]", "allow", "deny"),
        ("podSelector: {}, egress: [{ports: [{port: 1}]}]", "deny", "deny"),  # the API server's default
        ("podSelector: {}, policyTypes: [Ingress], egress: [{}]", "deny", "allow"),
        ("podSelector: {}, egress: [{to: []}]", "deny", "allow"),
        ("podSelector: {matchLabels: {app: db}}", "allow", "allow"),
    ],
)
def test_types(spec, ingress, egress) -> None:
    node = node_of(CLUSTER, policy(spec))
    out = packet("filter-forward", "10.65.0.2", "203.0.113.7", in_=WEB, out="eth0")
    assert (to_web(node, "203.0.113.7"), node.answer(out).verdict) == (ingress, egress)


def test_egress_peers_and_ports_are_destinations() -> None:
    """K-10."""
    node = node_of(
        CLUSTER,
        policy("""podSelector: {}, egress: [
  {to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]"""),
    )
    verdicts = [
        node.answer(packet("filter-forward", "10.65.0.2", target, dport=port, in_=WEB, out="eth0")).verdict
        for target, port in (("10.65.0.3", 5432), ("10.65.0.3", 80), ("10.66.0.3", 5432))
    ]
    assert verdicts == ["allow", "deny", "deny"]


def test_policies_add_up() -> None:
    """K-15."""
    node = node_of(
        CLUSTER,
        policy("podSelector: {}, ingress: [{ports: [{port: 80}]}]", "a"),
        policy("podSelector: {}, ingress: [{ports: [{port: 81}]}]", "b"),
    )
    assert [to_web(node, "203.0.113.7", dport=port) for port in (80, 81, 82)] == ["allow", "allow", "deny"]


def test_other_namespaces_and_host_endpoints_are_not_subjects() -> None:
    """K-2, K-30."""
    node = node_of(
        CLUSTER,
        policy("podSelector: {}"),
        """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out, labels: {projectcalico.org/namespace: shop}}
spec: {node: edge1, interfaceName: eth0, profiles: [projectcalico-default-allow]}
""",
    )
    lab = packet("filter-forward", dst="10.66.0.2", in_="eth1", out=pod_interface("lab", "web", "cali"))
    assert node.answer(lab).verdict == "allow"
    assert node.answer(packet("filter-input", in_="eth0")).verdict == "allow"
