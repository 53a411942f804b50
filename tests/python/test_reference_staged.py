"""Staged policies in the reference: E-15, E-23, and the second answer, as if they were in force."""

from __future__ import annotations

import pytest
from labelgate.reference import Reference
from labelgate.settings import Settings
from reference_world import HOST, NODE, SHOP, global_policy, host_endpoint, packet, snapshot_of, told

TO_WEB = packet("filter-forward", "10.9.0.50", "10.65.0.2", out="cali111")
TO_HOST = packet("mangle-prerouting", in_="eth0", ct="invalid")
PROFILE = [
    "allow accepted",
    "workload-ingress WorkloadEndpoint/shop/web - Profile/kns.shop#0 Allow: profile rule (M-54)",
]


def staged(kind: str, spec: str, name: str = "p") -> str:
    namespace = "" if "Global" in kind else ", namespace: shop"
    metadata = f"{{name: {name}{namespace}}}"
    return f"apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {metadata}\nspec: {{{spec}}}\n"


def both(question, *documents: str) -> list[list[str]]:
    """What is decided now, and with all staged policies in force."""
    snapshot = snapshot_of(SHOP, *documents)
    return [
        told(Reference(snapshot, NODE, HOST, Settings(), staged=second).answer(question))
        for second in (False, True)
    ]


PASSED = "workload-ingress WorkloadEndpoint/shop/web default - Pass: end of tier, all staged (E-23)"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("StagedGlobalNetworkPolicy", "StagedGlobalNetworkPolicy/p"),
        ("StagedNetworkPolicy", "StagedNetworkPolicy/shop/p"),
    ],
)
@pytest.mark.parametrize("action", ["Set", "Learn", "Ignore"])
def test_calico_kinds(kind: str, name: str, action: str) -> None:
    spec = f"stagedAction: {action}, selector: app == 'web', ingress: [{{action: Deny}}]"
    denied = f"workload-ingress WorkloadEndpoint/shop/web default {name}#0 Deny: rule (M-51)"
    assert both(TO_WEB, staged(kind, spec)) == [[PROFILE[0], PASSED, PROFILE[1]], ["deny", denied]]


def test_kubernetes_kind_is_in_the_default_tier_at_1000() -> None:
    """K-1: between the Calico policies of a lower and a higher order."""
    before = global_policy("  {order: 999, ingress: [{action: Log}]}", "before")
    after = global_policy("  {order: 1001, ingress: [{action: Deny}]}", "after")
    middle = staged("StagedKubernetesNetworkPolicy", "podSelector: {}, ingress: [{}]")
    place = "workload-ingress WorkloadEndpoint/shop/web default"
    logged = f"{place} GlobalNetworkPolicy/before#0 Log: rule (M-53)"
    assert both(TO_WEB, before, middle, after) == [
        ["deny", logged, f"{place} GlobalNetworkPolicy/after#0 Deny: rule (M-51)"],
        ["allow accepted", logged, f"{place} StagedKubernetesNetworkPolicy/shop/p#0 Allow: rule (M-50)"],
    ]


@pytest.mark.parametrize("kind", ["Global", "", "Kubernetes"])
def test_one_that_deletes_is_not_there(kind: str) -> None:
    """Not even for E-23."""
    assert both(TO_WEB, staged(f"Staged{kind}NetworkPolicy", "stagedAction: Delete")) == [PROFILE, PROFILE]


def test_staged_prednat_policy_alone_is_none() -> None:
    """E-15, E-34: an interface drops INVALID where its host endpoint has preDNAT policy that is in force."""
    spec = "preDNAT: true, applyOnForward: true, ingress: [{action: Allow}]"
    assert both(TO_HOST, host_endpoint(), staged("StagedGlobalNetworkPolicy", spec)) == [
        ["continue", "interface HostEndpoint/out - - -: no preDNAT policy here (E-33)"],
        ["deny", "conntrack HostEndpoint/out - - Deny: invalid (E-34)"],
    ]
