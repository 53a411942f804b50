"""ClusterNetworkPolicy (K-20..K-27) and the stored form of Calico's policies (E-13) in the reference."""

from __future__ import annotations

import pytest
from reference_world import SHOP, global_policy, node_of, packet, told

PLACE = "workload-egress WorkloadEndpoint/shop/web"
PROFILE = f"{PLACE} - Profile/kns.shop#0 Allow: profile rule (M-54)"


def cluster_policy(egress: str, tier: str = "Admin", name: str = "c") -> str:
    return f"""
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: {name}}}
spec:
  tier: {tier}
  priority: 5
  subject: {{namespaces: {{matchLabels: {{env: prod}}}}}}
  egress: {egress}
"""


def steps(*documents: str, dst: str = "192.0.2.5", dport: int = 80) -> list[str]:
    """Of the one stage of a packet that the workload `web` sends."""
    question = packet("filter-forward", "10.65.0.2", dst, dport=dport, in_="cali111", out="eth0")
    return told(node_of(SHOP, *documents).answer(question))[1:]


NETWORK = "to: [{networks: [192.0.2.0/24]}]"
END = f"{PLACE} kube-admin - Pass: end of tier, action Pass (E-21)"


@pytest.mark.parametrize(
    ("action", "done"),
    [("Accept", "Allow: rule (M-50)"), ("Deny", "Deny: rule (M-51)"), ("Pass", "Pass: rule (M-52)")],
)
def test_actions(action: str, done: str) -> None:
    found = steps(cluster_policy(f"[{{action: {action}, {NETWORK}}}]"))
    name = f"{PLACE} kube-admin KubernetesClusterNetworkPolicy/c#0 {done}"
    assert found == [name, *([PROFILE] if action == "Pass" else [])]


def test_unmatched_goes_on_and_baseline_is_last() -> None:
    """K-22, E-3."""
    admin = cluster_policy("[{action: Deny, to: [{networks: [10.0.0.0/8]}]}]")
    baseline = cluster_policy(f"[{{action: Deny, {NETWORK}}}]", "Baseline", "b")
    last = f"{PLACE} kube-baseline KubernetesClusterNetworkPolicy/b#0 Deny: rule (M-51)"
    assert steps(admin, baseline) == [END, last]


@pytest.mark.parametrize(
    ("action", "found"),
    [
        ("Accept", [PROFILE]),  # no rule is left, so that the policy governs nothing (K-22)
        ("Deny", [f"{PLACE} kube-admin KubernetesClusterNetworkPolicy/c#0 Deny: rule (M-51)"]),
        ("Pass", [f"{PLACE} kube-admin KubernetesClusterNetworkPolicy/c#0 Deny: rule (M-51)"]),
    ],
)
def test_what_cannot_be_converted_fails_closed(action: str, found: list[str]) -> None:
    """K-26."""
    assert steps(cluster_policy(f"[{{action: {action}, to: [{{nodes: {{}}}}]}}]")) == found


def test_protocols() -> None:
    """K-25: groups by name, each with its ports."""
    protocols = "protocols: [{udp: {}}, {tcp: {destinationPort: {range: {start: 80, end: 81}}}}]"
    policy = cluster_policy(f"[{{action: Deny, {protocols}, {NETWORK}}}]")
    denied = [f"{PLACE} kube-admin KubernetesClusterNetworkPolicy/c#0 Deny: rule (M-51)"]
    found = [steps(policy, dport=port) for port in (79, 80, 81, 82)]
    assert found == [[END, PROFILE], denied, denied, [END, PROFILE]]


def test_stored_policy_without_types_governs_both_directions() -> None:
    """E-13, against E-12."""
    policy = global_policy("  {ingress: [{action: Allow}]}")
    stored = policy.replace("projectcalico.org/v3", "crd.projectcalico.org/v1")
    assert [steps(policy), steps(stored)] == [
        [PROFILE],
        [f"{PLACE} default - Deny: end of tier (E-21)"],
    ]
