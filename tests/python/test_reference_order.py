"""Which policies the reference applies to an endpoint, and in which order (E-1 to E-15)."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from labelgate.reference import Reference
from labelgate.reference.chains import Chain, Passage
from labelgate.reference.cluster import Cluster
from labelgate.reference.labels import Host
from labelgate.reference.policies import Policy, Tier
from labelgate.reference.rules import ALLOW_ALL, Rule
from labelgate.reference.selectors import All
from labelgate.settings import Settings
from reference_world import (
    HOST,
    SHOP,
    global_policy,
    host_endpoint,
    namespaced_policy,
    node_of,
    packet,
    snapshot_of,
    told,
)

ALLOW_PROFILE = "[projectcalico-default-allow]"


def tier(name: str, spec: str = "{}") -> str:
    return f"""
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {{name: {name}}}
spec: {spec}
"""


def host_policy(name: str, spec: str) -> str:
    return global_policy(f"  {{selector: role == 'edge', {spec}}}", name)


def steps(*documents: str) -> list[str]:
    """The policies and ends of tiers that a packet to the host passes, shortened."""
    answer = node_of(host_endpoint(), *documents).answer(packet("filter-input", in_="eth0"))
    return [f"{step.tier}: {(step.policy or '-').split('/')[-1]} {step.action}" for step in answer.trace]


LOG = "ingress: [{action: Log}]"


def test_tiers_run_by_order_then_name() -> None:
    """E-2: a tier without order counts as 1000000, tied with `default`; E-4: a missing one is last."""
    assert steps(
        tier("zeta", "{order: 5, defaultAction: Pass}"),
        tier("alpha", "{order: 5, defaultAction: Pass}"),
        tier("bare", "{defaultAction: Pass}"),
        tier("zulu", "{defaultAction: Pass}"),
        host_policy("in-zeta", f"tier: zeta, {LOG}"),
        host_policy("in-alpha", f"tier: alpha, {LOG}"),
        host_policy("in-bare", f"tier: bare, {LOG}"),
        host_policy("in-zulu", f"tier: zulu, {LOG}"),
        host_policy("in-missing", f"tier: missing, {LOG}"),
        host_policy("in-default", "ingress: [{action: Pass}]"),
        host_policy("in-baseline", f"tier: kube-baseline, {LOG}"),
        host_policy("in-admin", f"tier: kube-admin, {LOG}"),
    ) == [
        "alpha: in-alpha Log",
        "alpha: - Pass",
        "zeta: in-zeta Log",
        "zeta: - Pass",
        "kube-admin: in-admin Log",
        "kube-admin: - Pass",
        "bare: in-bare Log",
        "bare: - Pass",
        "default: in-default Pass",
        "zulu: in-zulu Log",
        "zulu: - Pass",
        "kube-baseline: in-baseline Log",
        "kube-baseline: - Pass",
        "missing: in-missing Log",
        "missing: - Deny",
    ]


def test_pass_in_the_last_tier_leads_to_profiles() -> None:
    """M-52."""
    node = node_of(
        host_endpoint(profiles=ALLOW_PROFILE),
        host_policy("a", "ingress: [{action: Pass}]"),
        host_policy("b", "ingress: [{action: Deny}]"),
    )
    assert told(node.answer(packet("filter-input", in_="eth0"))) == [
        "allow",
        "normal HostEndpoint/out default GlobalNetworkPolicy/a#0 Pass: rule (M-52)",
        "normal HostEndpoint/out - Profile/projectcalico-default-allow#0 Allow: profile rule (M-54)",
    ]


def test_policies_run_by_order_then_name() -> None:
    """E-5: absent order last; ties by the text `name/namespace/kind`."""
    assert steps(
        host_policy("c", f"order: 10, {LOG}"),
        host_policy("b", f"order: 10, {LOG}"),
        host_policy("b.x", f"order: 10, {LOG}"),
        host_policy("a", LOG),
        host_policy("z", f"order: -1, {LOG}"),
        host_policy("w", f"order: 9.5, {LOG}"),
    ) == [
        "default: z Log",
        "default: w Log",
        "default: b.x Log",  # "." is before "/"
        "default: b Log",
        "default: c Log",
        "default: a Log",
        "default: - Deny",
    ]


def test_kinds_share_one_order() -> None:
    """E-5, E-6: same name and order; the text goes on with the namespace, which a global policy lacks."""
    log = "  {order: 1000, ingress: [{action: Log}]}"
    foreign = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: {podSelector: {}, ingress: [{}]}
"""
    node = node_of(SHOP, foreign, namespaced_policy(log), global_policy(log))
    asked = packet("filter-forward", dst="10.65.0.3", in_="eth0", out="cali222")
    assert [step.policy for step in node.answer(asked).trace] == [
        "GlobalNetworkPolicy/p",
        "KubernetesNetworkPolicy/shop/p",
    ]


@pytest.mark.parametrize(
    ("spec", "governed"),
    [
        ("ingress: [{action: Allow}]", "in"),
        ("egress: [{action: Allow}]", "out"),
        ("ingress: [{action: Allow}], egress: [{action: Allow}]", "in out"),
        ("order: 1", "in"),
        ("types: [Egress], ingress: [{action: Allow}]", "out"),
        ("types: [Ingress, Egress], ingress: [{action: Allow}]", "in out"),
    ],
)
def test_types(spec, governed) -> None:
    """E-12, E-14: a direction that is not governed is left to the profiles."""
    node = node_of(host_endpoint(profiles=ALLOW_PROFILE), host_policy("p", spec))
    answers = {
        "in": node.answer(packet("filter-input", in_="eth0")),
        "out": node.answer(packet("filter-output", out="eth0")),
    }
    assert " ".join(name for name, answer in answers.items() if answer.trace[0].tier) == governed


def staged(name: str, **fields) -> Policy:
    policy = Policy(
        kind="StagedGlobalNetworkPolicy",
        namespace=None,
        name=name,
        tier="default",
        order=inf,
        subject=All(),
        rules={"ingress": (ALLOW_ALL,)},
        lists=frozenset(["normal"]),
        in_force=False,
    )
    return replace(policy, **fields)


def end_of(*policies: Policy) -> list[tuple[str | None, str | None, str]]:
    """The steps of a packet to a host endpoint with only these policies, all in a tier that denies."""
    host = Host("HostEndpoint/out", {}, (), "out", "edge1", "eth0", (), ())
    cluster = Cluster((host,), (Tier("default", False, policies),), {})
    passage = Passage(cluster, Settings(), packet("filter-input", in_="eth0"), False)
    passage.run(Chain(host, "normal", "ingress", "normal"))
    return [(step.tier, step.policy, step.reason) for step in passage.steps]


def test_staged_policies_never_match() -> None:
    """E-15, E-23: where all are staged the end of the tier passes, else it is as if they were not there."""
    log = Rule("Log")
    real = staged("b", kind="GlobalNetworkPolicy", rules={"ingress": (log,)}, in_force=True)
    assert end_of(staged("a"), staged("c")) == [
        ("default", None, "end of tier, all staged (E-23)"),
        (None, None, "no profile allows (E-25)"),
    ]
    assert end_of(staged("a"), real, staged("c")) == [
        ("default", "GlobalNetworkPolicy/b", "rule (M-53)"),
        ("default", None, "end of tier (E-21)"),
    ]


def test_lists_of_policies() -> None:
    """E-10, E-11: workloads have normal policy only; each policy is in one list, or with AoF in two."""
    marked = "selector: all(), applyOnForward: true, types: [Ingress], ingress: [{action: Deny}]"
    node = node_of(
        SHOP,
        host_endpoint(profiles=ALLOW_PROFILE),
        global_policy(f"  {{doNotTrack: true, {marked}}}", "dnt"),
        global_policy(f"  {{preDNAT: true, {marked}}}", "pdn"),
    )
    assert [
        node.answer(packet(hook, in_="eth0")).trace[0].policy
        for hook in ("raw-prerouting", "mangle-prerouting", "filter-input", "filter-forward")
    ] == [
        "GlobalNetworkPolicy/dnt",
        "GlobalNetworkPolicy/pdn",
        "Profile/projectcalico-default-allow",
        None,
    ]
    asked = packet("filter-forward", dst="10.65.0.3", in_="eth1", out="cali222")
    assert told(node.answer(asked)) == [
        "allow accepted",
        "workload-ingress WorkloadEndpoint/shop/db - Profile/kns.shop#0 Allow: profile rule (M-54)",
    ]


@pytest.mark.parametrize(
    ("policy", "web", "db", "host"),
    [
        (global_policy("  {selector: app == 'web'}"), True, False, False),
        (global_policy("  {selector: ''}"), True, True, True),
        (global_policy("  {namespaceSelector: all()}"), True, True, False),
        (global_policy("  {namespaceSelector: env == 'prod'}"), True, True, False),
        (global_policy("  {namespaceSelector: env != 'test'}"), True, True, True),  # M-23
        (global_policy("  {selector: all(), namespaceSelector: env != 'test'}"), True, True, True),  # E-1
        (global_policy("  {serviceAccountSelector: all()}"), True, False, False),
        (global_policy("  {serviceAccountSelector: '!all()'}"), False, True, True),
        (namespaced_policy("  {selector: ''}"), True, True, False),
        (namespaced_policy("  {selector: ''}", namespace="other"), False, False, False),
        (namespaced_policy("  {serviceAccountSelector: all()}"), True, True, False),  # E-1: not rewritten
    ],
)
def test_subjects(policy, web, db, host) -> None:
    """E-1: without rules, a policy that applies denies."""
    node = node_of(SHOP, host_endpoint(profiles=ALLOW_PROFILE), policy)

    def denies(asked) -> bool:
        return node.answer(asked).verdict == "deny"

    assert (
        denies(packet("filter-forward", dst="10.65.0.2", in_="eth1", out="cali111")),
        denies(packet("filter-forward", dst="10.65.0.3", in_="eth1", out="cali222")),
        denies(packet("filter-input", in_="eth0")),
    ) == (web, db, host)


def test_no_node_has_no_endpoints() -> None:

    nowhere = Reference(snapshot_of(SHOP, host_endpoint()), None, HOST, Settings())
    assert told(nowhere.answer(packet("filter-input", in_="eth0"))) == [
        "continue",
        "interface - - - -: no endpoint here (E-39)",
    ]


def test_namespaced_policy_on_a_labelled_host_endpoint() -> None:
    """E-1: nothing prevents the label; the policy is normal, not forward."""
    labelled = host_endpoint().replace("{role: edge}", "{projectcalico.org/namespace: shop}")
    node = node_of(labelled, namespaced_policy("  {ingress: [{action: Deny}]}"))
    assert told(node.answer(packet("filter-input", in_="eth0"))) == [
        "deny",
        "normal HostEndpoint/out default NetworkPolicy/shop/p#0 Deny: rule (M-51)",
    ]
    assert told(node.answer(packet("filter-forward", in_="eth0", out="eth1"))) == [
        "allow accepted",
        "from-hep HostEndpoint/out - - Allow: no applyOnForward policy (E-52)",
    ]


def test_order_of_namespaced_policies() -> None:
    """E-5: without an order it comes last, whatever its name."""
    node = node_of(
        SHOP,
        namespaced_policy("  {ingress: [{action: Log}]}", "a"),
        namespaced_policy("  {order: 7, ingress: [{action: Log}]}", "b"),
        namespaced_policy("  {order: -7, ingress: [{action: Log}]}", "c"),
    )
    asked = packet("filter-forward", dst="10.65.0.3", in_="eth0", out="cali222")
    policies = [step.policy for step in node.answer(asked).trace]
    assert policies == [*(f"NetworkPolicy/shop/{name}" for name in "cba"), None]
