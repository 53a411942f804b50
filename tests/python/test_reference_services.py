"""Rules with `services` in the reference: M-31, M-32, V-55."""

from __future__ import annotations

import pytest
from reference_world import SHOP, global_policy, namespaced_policy, node_of, packet


def slice_of(
    service: str = "pay", namespace: str = "shop", ports: str = "[{port: 8080}]", name: str = "s"
) -> str:
    return f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
endpoints:
- {{addresses: [10.1.1.1, backend.example], conditions: {{ready: false}}}}
- {{addresses: [10.1.1.2]}}
ports: {ports}
"""


CLUSTER_ADDRESS = """
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 8080}]}
"""
TO_PAY = namespaced_policy("  {egress: [{action: Allow, destination: {services: {name: pay}}}]}")
FROM_PAY = namespaced_policy("  {ingress: [{action: Allow, source: {services: {name: pay}}}]}")


def out(documents: list[str], dst: str, protocol: str = "tcp", dport: int = 8080, **fields) -> str:
    question = packet("filter-forward", "10.65.0.2", dst, protocol, dport=dport, in_="cali111", **fields)
    return node_of(SHOP, *documents).answer(question).verdict


@pytest.mark.parametrize(
    ("question", "verdict"),
    [
        (("10.1.1.1", "tcp", 8080), "allow"),  # not ready: counts
        (("10.1.1.2", "tcp", 8080), "allow"),
        (("10.1.1.2", "tcp", 8081), "deny"),
        (("10.1.1.2", "udp", 8080), "deny"),
        (("10.1.1.2", "udp", 53), "allow"),  # the second slice
        (("10.1.1.2", "icmp", 0), "deny"),
        (("10.1.1.3", "tcp", 8080), "deny"),
        (("10.96.0.1", "tcp", 8080), "deny"),  # the service's own address is no backend
    ],
)
def test_egress_destination(question: tuple[str, str, int], verdict: str) -> None:
    second = slice_of(ports="[{port: 53, protocol: UDP}, {name: any}]", name="t")
    assert out([TO_PAY, slice_of(), second, CLUSTER_ADDRESS], *question) == verdict


def test_a_later_fragment_is_for_no_backend() -> None:
    assert out([TO_PAY, slice_of()], "10.1.1.1", fragment=True) == "deny"


@pytest.mark.parametrize("documents", [[], [slice_of("other")], [slice_of(namespace="lab")]])
def test_an_unknown_service_is_empty(documents: list[str]) -> None:
    """V-55: without a namespace it is one of the policy's own."""
    assert out([TO_PAY, *documents], "10.1.1.1") == "deny"


def test_a_global_policy_names_the_namespace() -> None:
    spec = "  {egress: [{action: Allow, destination: {services: {name: pay, namespace: lab}}}]}"
    assert out([global_policy(spec), slice_of(namespace="lab")], "10.1.1.1") == "allow"


@pytest.mark.parametrize(("src", "verdict"), [("10.1.1.1", "allow"), ("10.1.1.3", "deny")])
def test_ingress_source_has_no_ports(src: str, verdict: str) -> None:
    """M-32."""
    node = node_of(SHOP, FROM_PAY, slice_of())
    question = packet("filter-forward", src, "10.65.0.2", "udp", 1, 2, out="cali111")
    assert node.answer(question).verdict == verdict
