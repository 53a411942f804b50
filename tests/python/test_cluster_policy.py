"""ClusterNetworkPolicy in Calico form (K-20..K-27), as the model of the core has it."""

from __future__ import annotations

from typing import Any

import pytest
from labelgate import conversion
from labelgate.resources import KubernetesClusterNetworkPolicy, load_text
from labelgate.settings import HostFacts
from labelgate.snapshot import Snapshot

K8S = "projectcalico.org/orchestrator == 'k8s'"
TCP, UDP, SCTP = 6, 17, 132
EVERYONE = "subject: {namespaces: {}}"
WORLD = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: edge1, containers: [{ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.65.0.2}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: office, namespace: shop}
spec: {nets: [203.0.113.0/24]}
"""


def policy(spec: str, tier: str = "Admin", priority: int = 10) -> str:
    return (
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n"
        f"spec: {{tier: {tier}, priority: {priority}, {spec}}}\n"
    )


def converted(spec: str, tier: str = "Admin", priority: int = 10) -> dict[str, Any]:
    [resource] = load_text(policy(spec, tier, priority))
    assert isinstance(resource, KubernetesClusterNetworkPolicy)
    return conversion.cluster_policy(resource)


def egress(rule: str) -> list[dict[str, Any]]:
    found = converted(f"{EVERYONE}, egress: [{rule}]")
    assert (found["applies_ingress"], found["applies_egress"]) == (False, bool(found["egress"]))
    rules: list[dict[str, Any]] = found["egress"]
    return rules


def test_policy_as_a_whole() -> None:
    """K-20..K-23, K-27."""
    found = converted(
        "subject: {pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {}}},"
        "ingress: [{name: from-everyone, action: Accept, from: [{namespaces: {}},"
        " {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}]",
        "Baseline",
        7,
    )
    assert found == {
        "kind": "KubernetesClusterNetworkPolicy",
        "name": "p",
        "tier": "kube-baseline",
        "order": 7.0,
        "selector": K8S,
        "namespace_selector": "env == 'prod'",
        "applies_ingress": True,
        "applies_egress": False,
        "ingress": [
            {
                "action": "Allow",
                "protocol": None,
                "source": {"namespace_selector": "all()"},
                "destination": {},
            },
            {
                "action": "Allow",
                "protocol": None,
                "source": {"selector": f"{K8S} && app == 'web'", "namespace_selector": "all()"},
                "destination": {},
            },
        ],
        "egress": [],
    }


def test_subject_namespaces() -> None:
    """K-21, K-22: no rules, no types."""
    found = converted(EVERYONE)
    assert (found["tier"], found["selector"], found["namespace_selector"]) == ("kube-admin", K8S, "all()")
    assert (found["applies_ingress"], found["applies_egress"]) == (False, False)


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [
        ("[]", [(None, {})]),
        ("[{tcp: {}}]", [(TCP, {})]),
        (
            "[{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {range: {start: 80, end: 90}}}}"
            ", {tcp: {destinationPort: {number: 91}}}, {destinationNamedPort: http}, {sctp: {}}]",
            [
                (None, {"ports": [], "named_ports": ["http"]}),
                (SCTP, {}),
                (TCP, {"ports": [[80, 91]], "named_ports": []}),
                (UDP, {"ports": [[53, 53]], "named_ports": []}),
            ],
        ),
        ("[{tcp: {destinationPort: {number: 80}}}, {tcp: {}}]", [(TCP, {})]),
    ],
)
def test_protocols(protocols: str, expected: list[tuple[int | None, dict[str, Any]]]) -> None:
    """K-25: named ports are of any protocol, and come first; an entry without port stands for all."""
    found = egress(f"{{action: Deny, to: [{{networks: [10.1.2.3/8, 'fd00::/8']}}], protocols: {protocols}}}")
    nets = {"nets": ["10.0.0.0/8", "fd00::/8"]}
    assert found == [
        {"action": "Deny", "protocol": protocol, "destination": nets | ports} for protocol, ports in expected
    ]


@pytest.mark.parametrize("peer", ["nodes: {matchLabels: {a: b}}", "domainNames: [a.example]"])
@pytest.mark.parametrize(
    ("action", "expected"),
    [("Accept", []), ("Deny", [{"action": "Deny"}]), ("Pass", [{"action": "Deny"}])],
)
def test_what_cannot_be_converted(peer: str, action: str, expected: list[dict[str, Any]]) -> None:
    """K-26: fail closed, with a warning."""
    rule = f"{{action: {action}, to: [{{namespaces: {{}}}}, {{{peer}}}], protocols: [{{tcp: {{}}}}]}}"
    assert egress(rule) == expected
    told = "is left out" if action == "Accept" else "denies everything in its direction"
    assert Snapshot.of(load_text(policy(f"{EVERYONE}, egress: [{rule}]"))).warnings == [
        "KubernetesClusterNetworkPolicy/p: spec.egress[0]: `nodes` and `domainNames` are not supported: the"
        f" rule {told} (K-26)"
    ]


def decided(*policies: str, src: str = "203.0.113.7", port: int = 8080) -> tuple[str, str | None, str | None]:
    documents = "\n---\n".join([WORLD, *policies])
    table = Snapshot.of(load_text(documents)).compile(node="edge1", host=HostFacts({"eth0": ()}))
    interface = conversion.pod_interface("cali", "shop", "web")
    decision = table.decide(
        hook="filter-forward", in_="eth0", out=interface, src=src, dst="10.65.0.2",
        protocol="tcp", sport=40000, dport=port,
    )  # fmt: skip
    return decision.verdict, decision.tier, decision.policy


NAME = "KubernetesClusterNetworkPolicy/p"


def test_decisions() -> None:
    """K-22: what no rule matches goes on; K-23: `namespaces` also means network sets; K-25: named ports."""
    deny = f"{EVERYONE}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: PROTOCOLS}}]"
    named = policy(deny.replace("PROTOCOLS", "[{destinationNamedPort: http}]"))
    allowed = ("allow", None, "Profile/kns.shop")
    assert decided(named) == ("deny", "kube-admin", NAME)
    assert decided(named, port=8081) == allowed
    assert decided(named, src="192.0.2.1") == allowed
    pods = "{pods: {namespaceSelector: {}, podSelector: {}}}"
    assert decided(policy(f"{EVERYONE}, ingress: [{{action: Deny, from: [{pods}]}}]")) == allowed


def test_admin_before_and_baseline_after() -> None:
    """K-20, E-3: Pass leaves the decision to the next tier."""

    def of(action: str, tier: str) -> str:
        return policy(f"{EVERYONE}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]", tier)

    own = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: own, namespace: shop}\n"
        "spec: {podSelector: {}, ingress: [{}]}"
    )
    assert decided(of("Deny", "Admin"), own) == ("deny", "kube-admin", NAME)
    assert decided(of("Pass", "Admin"), own) == ("allow", "default", "KubernetesNetworkPolicy/shop/own")
    assert decided(of("Deny", "Baseline"), own) == ("allow", "default", "KubernetesNetworkPolicy/shop/own")
    assert decided(of("Deny", "Baseline")) == ("deny", "kube-baseline", NAME)
