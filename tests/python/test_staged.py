"""Staged policies: no effect (E-15), a pass at the end of a tier of their own (E-23), the second answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from labelgate.agent.unheard import unheard
from labelgate.model import core_model
from labelgate.resources import load_text
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot

WORLD = """
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: allow}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {app: web, projectcalico.org/orchestrator: k8s}}
spec: {node: edge1, interfaceName: cali111, ipNetworks: [10.65.0.2], profiles: [allow]}
"""
DENY = "ingress: [{action: Deny}]"


def policy(kind: str, spec: str, name: str = "p") -> str:
    namespace = "" if "Global" in kind else ", namespace: shop"
    metadata = f"{{name: {name}{namespace}}}"
    return f"apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {metadata}\nspec: {{{spec}}}\n"


def snapshot(*documents: str) -> Snapshot:
    return Snapshot.of(load_text("\n---\n".join([WORLD, *documents])))


def policies(*documents: str, staged: bool = False) -> list[dict[str, Any]]:
    model = json.loads(core_model(snapshot(*documents), Settings(), staged=staged))
    found: list[dict[str, Any]] = model["policies"]
    return found


KINDS = ["StagedGlobalNetworkPolicy", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy"]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_calico_kinds_are_as_the_kinds_they_stage(kind: str) -> None:
    spec = "tier: default, order: 5, selector: app == 'web', egress: [{action: Allow, protocol: TCP}]"
    [real] = policies(policy(kind.removeprefix("Staged"), spec))
    wanted = real | {"kind": kind}
    assert policies(policy(kind, spec)) == [wanted | {"staged": True}]
    assert policies(policy(kind, spec), staged=True) == [wanted | {"staged": False}]


def test_kubernetes_kind_is_as_the_kind_it_stages() -> None:
    spec = "podSelector: {matchLabels: {app: web}}, egress: [{ports: [{port: 53}]}]"
    text = policy("NetworkPolicy", spec).replace("projectcalico.org/v3", "networking.k8s.io/v1")
    [real] = policies(text)
    wanted = real | {"kind": "StagedKubernetesNetworkPolicy"}
    text = policy("StagedKubernetesNetworkPolicy", spec)
    assert policies(text) == [wanted | {"staged": True}]
    assert policies(text, staged=True) == [wanted | {"staged": False}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("action", "count"), [("Set", 1), ("Learn", 1), ("Ignore", 1), ("Delete", 0)])
def test_staged_actions(kind: str, action: str, count: int) -> None:
    """E-15: Delete is not loaded at all, not even for the second answer; the others are alike."""
    text = policy(kind, f"stagedAction: {action}")
    assert [len(policies(text, staged=staged)) for staged in (False, True)] == [count, count]


def decided(*documents: str, staged: bool = False) -> tuple[str, str | None, str]:
    table = snapshot(*documents).compile(node="edge1", host=HostFacts({"eth0": ()}), staged=staged)
    decision = table.decide(
        hook="filter-forward", in_="eth0", out="cali111", src="203.0.113.7", dst="10.65.0.2",
        protocol="tcp", sport=40000, dport=80,
    )  # fmt: skip
    return decision.verdict, decision.policy, decision.reason


def test_second_answer() -> None:
    """Alone in a tier they pass (E-23); in force they deny, each under its own name."""
    staged = {
        "StagedGlobalNetworkPolicy": DENY,
        "StagedNetworkPolicy": DENY,
        "StagedKubernetesNetworkPolicy": "podSelector: {}",
    }
    passed = ("allow", "Profile/allow", "profile rule (M-54)")
    assert [decided(policy(kind, spec)) for kind, spec in staged.items()] == [passed] * 3
    assert [decided(policy(kind, spec), staged=True) for kind, spec in staged.items()] == [
        ("deny", "StagedGlobalNetworkPolicy/p", "rule (M-51)"),
        ("deny", "StagedNetworkPolicy/shop/p", "rule (M-51)"),
        ("deny", None, "end of tier (E-21)"),
    ]


def test_beside_a_policy_in_force() -> None:
    """E-5, E-23: in force it takes its place in the order; else it is as if it were not there."""
    allow = policy("NetworkPolicy", "order: 2, ingress: [{action: Allow}]", "q")
    deny = policy("StagedNetworkPolicy", f"order: 1, {DENY}")
    assert decided(allow, deny) == ("allow", "NetworkPolicy/shop/q", "rule (M-50)")
    assert decided(allow, deny, staged=True) == ("deny", "StagedNetworkPolicy/shop/p", "rule (M-51)")


def test_missing_tiers_of_staged_policies() -> None:
    """V-49, E-4: a warning; none for what is to be deleted."""
    staged = policy("StagedGlobalNetworkPolicy", "tier: gone")
    deleted = policy("StagedNetworkPolicy", "tier: none, stagedAction: Delete")
    assert snapshot(staged, deleted).warnings == [
        "StagedGlobalNetworkPolicy/p: tier `gone` does not exist: it comes last and denies (E-4)"
    ]


OPEN = policy("NetworkPolicy", "selector: app == 'web', egress: [{action: Allow}], types: [Egress]", "open")
HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0}
"""
UNTRACKED = (
    "selector: role == 'edge', doNotTrack: true, applyOnForward: true, ingress: [{action: %s, protocol: %s}]"
)


@pytest.mark.parametrize(
    ("documents", "names"),
    [
        ([policy("StagedNetworkPolicy", f"selector: app == 'web', {DENY}")], ["WorkloadEndpoint/shop/web"]),
        # What is asked about anyhow, denied anyhow, or allowed by both is no news.
        (
            [
                policy(
                    "NetworkPolicy", "selector: app == 'web', ingress: [{action: Allow, protocol: TCP}]", "a"
                ),
                policy("StagedNetworkPolicy", f"selector: app == 'web', {DENY}"),
            ],
            [],
        ),
        (
            [
                policy("NetworkPolicy", f"selector: app == 'web', {DENY}", "a"),
                policy(
                    "StagedNetworkPolicy", "selector: app == 'web', ingress: [{action: Deny, protocol: TCP}]"
                ),
            ],
            [],
        ),
        ([OPEN, policy("StagedNetworkPolicy", "selector: app == 'web', egress: [{action: Allow}]")], []),
        ([HOST, policy("StagedGlobalNetworkPolicy", UNTRACKED % ("Deny", "TCP"))], ["HostEndpoint/h"]),
        (
            [
                HOST,
                policy("GlobalNetworkPolicy", UNTRACKED % ("Allow", "UDP"), "a"),
                policy("StagedGlobalNetworkPolicy", UNTRACKED % ("Deny", "TCP")),
            ],
            ["HostEndpoint/h"],
        ),
        (
            [
                HOST,
                policy("GlobalNetworkPolicy", UNTRACKED % ("Allow", "UDP"), "a"),
                policy("StagedGlobalNetworkPolicy", UNTRACKED % ("Log", "UDP")),
            ],
            [],
        ),
    ],
)
def test_whose_packets_staged_policies_do_not_see(documents: list[str], names: list[str]) -> None:
    """Kernel rules answer, and no packet comes to the daemon."""
    host = HostFacts({"eth0": (), "cali111": ()})
    made = [snapshot(*documents).compile(node="edge1", host=host, staged=staged) for staged in (False, True)]
    said = list(unheard(*made))
    assert [name for text in said for name in names if name in text] == names
    assert len(said) == len(names)
