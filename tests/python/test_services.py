"""Services in rules, and the EndpointSlices that say what they mean (M-31, M-32, V-50..V-55)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from labelgate import conversion
from labelgate.model import core_model
from labelgate.resources import EndpointSlice, LoadError, Service, load_text
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot

TCP, UDP, SCTP = 6, 17, 132
SLICES = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints:
- {addresses: [10.65.0.3], conditions: {ready: false}, nodeName: edge1}
- {addresses: [10.65.0.4]}
ports: [{name: sql, port: 5432}, {name: any}, {port: 53, protocol: UDP, appProtocol: dns}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-2, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
endpoints: [{addresses: ["fd00::3"]}]
ports: [{port: 5432, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: names, namespace: shop, labels: {kubernetes.io/service-name: names}}
addressType: FQDN
endpoints: [{addresses: [db.example, "fe80::1%eth0"]}]
ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: of-nothing, namespace: shop}
addressType: IPv4
endpoints: [{addresses: [10.65.0.9]}]
ports: null
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {clusterIP: 10.96.0.1, type: odd}
"""
WORLD = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {node: edge1, interfaceName: cali111, ipNetworks: [10.65.0.2], profiles: [kns.shop]}
"""


def policy(spec: str, kind: str = "NetworkPolicy", metadata: str = "name: p, namespace: shop") -> str:
    return f"apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n"


def snapshot(*documents: str) -> Snapshot:
    return Snapshot.of(load_text("\n---\n".join(documents)))


def test_what_is_read() -> None:
    first, *_, service = load_text(SLICES)
    assert isinstance(first, EndpointSlice)
    assert isinstance(service, Service)
    assert (first.key, first.service, service.key) == ("EndpointSlice/shop/db-1", "db", "Service/shop/db")
    assert first.model_dump(include={"endpoints", "ports"}) == {
        "endpoints": [{"addresses": ["10.65.0.3"]}, {"addresses": ["10.65.0.4"]}],
        "ports": [
            {"name": "sql", "protocol": "TCP", "port": 5432},
            {"name": "any", "protocol": "TCP", "port": None},
            {"name": "", "protocol": "UDP", "port": 53},
        ],
    }


def test_backends() -> None:
    """M-31: all slices of the service, ready or not; no number, no port; names are no addresses."""
    assert conversion.services(snapshot(SLICES).endpoint_slices) == [
        {
            "namespace": "shop",
            "name": "db",
            "addresses": ["10.65.0.3", "10.65.0.4", "fd00::3"],
            "ports": [
                ("10.65.0.3", TCP, 5432),
                ("10.65.0.3", UDP, 53),
                ("10.65.0.4", TCP, 5432),
                ("10.65.0.4", UDP, 53),
                ("fd00::3", TCP, 5432),
            ],
        },
        {"namespace": "shop", "name": "names", "addresses": [], "ports": []},
    ]


@pytest.mark.parametrize(
    ("services", "namespace"), [("{name: db}", "shop"), ("{name: db, namespace: other}", "other")]
)
def test_namespace_of_a_service(services: str, namespace: str) -> None:
    """V-55: without one it is the policy's own."""
    model: dict[str, Any] = json.loads(
        core_model(
            snapshot(policy(f"egress: [{{action: Allow, destination: {{services: {services}}}}}]")),
            Settings(),
        )
    )
    [rule] = model["policies"][0]["egress"]
    assert rule["destination"]["service"] == {"namespace": namespace, "name": "db"}
    assert "service" not in rule["source"]


def test_source_ports_beside_services_are_fine() -> None:
    """V-53, M-32."""
    load_text(
        policy(
            "ingress: [{action: Allow, protocol: TCP, destination: {ports: [1]},"
            " source: {services: {name: db}, ports: [2]}}]"
        )
    )


@pytest.mark.parametrize("kind", ["GlobalNetworkPolicy", "Profile"])
def test_namespace_is_needed_outside_of_one(kind: str) -> None:
    """V-54."""
    rule = "{action: Allow, destination: {services: {name: db}}}"
    with pytest.raises(LoadError) as caught:
        load_text(policy(f"egress: [{rule}]", kind, "name: p"))
    assert [(problem.rule, problem.path) for problem in caught.value.problems] == [
        ("V-54", "spec.egress[0].destination.services")
    ]


def test_warning_of_services_without_slices() -> None:
    rules = "egress: [{action: Allow, destination: {services: {name: db}}}, "
    rules += "{action: Allow, destination: {services: {name: gone}}}]"
    found = snapshot(WORLD, SLICES, policy(rules), policy(rules, metadata="name: q, namespace: shop"))
    assert found.warnings == [
        "NetworkPolicy/shop/p and 1 more: service `shop/gone` has no EndpointSlice: no packet is its (M-31)"
    ]


def test_decisions() -> None:
    """M-31: backend, protocol and port together; M-32: the backend's address alone."""
    table = snapshot(
        WORLD,
        SLICES,
        policy(
            "types: [Ingress, Egress],"
            "ingress: [{action: Allow, source: {services: {name: db}}}],"
            "egress: [{action: Allow, destination: {services: {name: db}}}]"
        ),
    ).compile(node="edge1", host=HostFacts({"eth0": ("198.51.100.10",)}))

    def verdict(src: str, dst: str, protocol: str, port: int) -> str:
        side = {"in_": "cali111", "out": "eth0"} if src == "10.65.0.2" else {"in_": "eth0", "out": "cali111"}
        return table.decide(
            hook="filter-forward", src=src, dst=dst, protocol=protocol, sport=40000, dport=port, **side
        ).verdict

    asked = [
        ("10.65.0.2", "10.65.0.3", "tcp", 5432),
        ("10.65.0.2", "10.65.0.4", "udp", 53),
        ("10.65.0.2", "10.65.0.4", "udp", 5432),
        ("10.65.0.2", "10.65.0.4", "tcp", 53),
        ("10.65.0.2", "10.96.0.1", "tcp", 5432),
        ("10.65.0.4", "10.65.0.2", "sctp", 7),
        ("10.65.0.9", "10.65.0.2", "sctp", 7),
    ]
    expected = ["allow", "allow", "deny", "deny", "deny", "allow", "deny"]
    assert [verdict(*question) for question in asked] == expected
