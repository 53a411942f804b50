"""Whether workloads reach each other (`Reference.connectivity`): both gates, wherever the workloads live."""

from __future__ import annotations

from labelgate.flow import Connection, Gate
from reference_world import SHOP, global_policy, namespaced_policy, node_of, packet

FAR = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: far, namespace: lab, labels: {app: far}}
spec: {orchestrator: k8s, workload: far, node: edge2, endpoint: eth0, interfaceName: cali111,
       ipNetworks: [10.65.1.9/32], profiles: [kns.shop]}
"""
WEB, DB, THERE, OUTSIDE = "10.65.0.2", "10.65.0.3", "10.65.1.9", "203.0.113.7"
OPEN = Gate("allow", None, "Profile/kns.shop", 0)


def asked(*documents: str, src: str, dst: str, dport: int = 80, protocol: str = "tcp") -> Connection:
    question = packet("filter-forward", src, dst, protocol, dport=dport, ct="established", accepted=True)
    return node_of(SHOP, FAR, *documents).connectivity(question)


def test_profiles_decide_without_policy() -> None:
    assert asked(src=WEB, dst=THERE) == Connection(OPEN, OPEN)


def test_no_gate_where_no_workload_owns_the_address() -> None:
    assert asked(src=OUTSIDE, dst=THERE) == Connection(None, OPEN)
    assert asked(src=WEB, dst=OUTSIDE) == Connection(OPEN, None)
    assert asked(src=OUTSIDE, dst=OUTSIDE) == Connection(None, None)


def test_both_gates_are_asked_though_the_first_denies() -> None:
    out = global_policy("  {selector: app == 'web', egress: [{action: Deny}]}", "out")
    into = global_policy("  {selector: app == 'far', ingress: [{action: Log}, {action: Allow}]}", "into")
    found = asked(out, into, src=WEB, dst=THERE)
    assert found == Connection(
        Gate("deny", "default", "GlobalNetworkPolicy/out", 0),
        Gate("allow", "default", "GlobalNetworkPolicy/into", 1),
    )
    assert found.verdict == "deny"


def test_a_remote_workload_is_isolated_too() -> None:
    isolated = namespaced_policy("  {types: [Ingress]}", namespace="lab")
    found = asked(isolated, src=WEB, dst=THERE)
    assert found == Connection(OPEN, Gate("deny", "default", None, None))  # E-21
    assert found.verdict == "deny"


def test_encapsulation_from_a_workload() -> None:
    found = asked(src=WEB, dst=DB, protocol="udp", dport=4789)
    assert found == Connection(Gate("deny", None, None, None), OPEN)  # E-20.5


def test_allow_needs_no_deny() -> None:
    assert [asked(src=src, dst=dst).verdict for src, dst in ((WEB, DB), (OUTSIDE, OUTSIDE))] == ["allow"] * 2


def test_the_smallest_name_owns_a_shared_address() -> None:
    twin = FAR.replace("name: far", "name: afar").replace("[kns.shop]", "[gone]")
    assert asked(twin, src=WEB, dst=THERE) == Connection(OPEN, Gate("deny", None, "Profile/gone", None))


def test_of_a_packet_that_is_a_fragment_the_ports_count_all_the_same() -> None:
    """A connection has no later fragment: it is the first packet that is asked about."""
    into = global_policy("  {ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}]}", "into")
    question = packet("filter-forward", WEB, DB, dport=80, fragment=True)
    found = node_of(SHOP, into).connectivity(question)
    assert found.ingress == Gate("deny", "default", "GlobalNetworkPolicy/into", 0)
