"""Policies, tiers and profile rules as the law sees them, in order: E-1 to E-6, E-10 to E-15."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from labelgate import resources
from labelgate.reference import clusterwide, kubernetes
from labelgate.reference.labels import (
    DEFAULT_ALLOW,
    NAMESPACE,
    NAMESPACE_PREFIX,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNT_PREFIX,
)
from labelgate.reference.rules import ALLOW_ALL, Rule, all_of, criterion, rules_of
from labelgate.reference.selectors import All, Expression, Has, equals, parse, prefixed, replaced
from labelgate.snapshot import Snapshot

Direction = Literal["ingress", "egress"]
Kind = Literal["normal", "forward", "untracked", "prednat"]
DirectedRules = Mapping[Direction, tuple[Rule, ...]]
"""Rules of each direction; a direction that is not governed is absent (E-14)."""

_DEFAULT_TIER_ORDER = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of any kind."""

    kind: str
    namespace: str | None
    name: str
    tier: str
    order: float
    """Lower runs first; infinity where the policy has none (E-5)."""
    subject: Expression
    """What the effective labels of an endpoint must satisfy (E-1)."""
    rules: DirectedRules
    lists: frozenset[Kind]
    """Those it belongs to (E-10)."""
    in_force: bool = True
    """False: staged, so that it never matches and counts only at the end of its tier (E-15, E-23)."""

    @property
    def full_name(self) -> str:
        """`Kind/namespace/name` or `Kind/name`."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier with all of its policies, in order."""

    name: str
    passes: bool
    """Its action is Pass: what no policy decides goes on to the next tier (E-21)."""
    policies: tuple[Policy, ...]


def tiers(snapshot: Snapshot, *, staged: bool) -> tuple[Tier, ...]:
    """All tiers in the order in which they run, those that only a policy names last (E-2 to E-4)."""
    orders = {"kube-admin": 1_000.0, "default": _DEFAULT_TIER_ORDER, "kube-baseline": 10_000_000.0}  # E-3
    passing = {"kube-admin", "kube-baseline"}
    for tier in snapshot.tiers:
        order = tier.spec.order
        orders[tier.metadata.name] = _DEFAULT_TIER_ORDER if order is None else order  # E-2
        if tier.spec.default_action == "Pass":
            passing.add(tier.metadata.name)
    found = sorted(policies(snapshot, staged=staged), key=policy_order)
    missing = {policy.tier for policy in found} - set(orders)  # E-4
    names = sorted(orders, key=lambda name: (orders[name], name.encode())) + sorted(missing, key=str.encode)
    return tuple(
        Tier(name, name in passing, tuple(policy for policy in found if policy.tier == name))
        for name in names
    )


def policy_order(policy: Policy) -> tuple[float, bytes]:
    """E-5, E-6."""
    return policy.order, f"{policy.name}/{policy.namespace or ''}/{policy.kind}".encode()


def policies(snapshot: Snapshot, *, staged: bool) -> Iterator[Policy]:
    """Every policy of the snapshot, in no particular order; with `staged` the staged ones are in force."""
    for policy in snapshot.global_network_policies:
        yield _global(policy)
    for namespaced in snapshot.network_policies:
        yield _namespaced(namespaced)
    for foreign in snapshot.kubernetes_network_policies:
        yield _kubernetes(foreign)
    for clustered in snapshot.kubernetes_cluster_network_policies:
        yield _clustered(clustered)
    for found in _staged(snapshot):
        yield replace(found, in_force=staged)


def _staged(snapshot: Snapshot) -> Iterator[Policy]:
    """E-15: what is to be deleted is not there; all others say what they would, by another kind."""
    for policy in snapshot.staged_global_network_policies:
        if policy.spec.staged_action != "Delete":
            yield _global(policy)
    for namespaced in snapshot.staged_network_policies:
        if namespaced.spec.staged_action != "Delete":
            yield _namespaced(namespaced)
    for foreign in snapshot.staged_kubernetes_network_policies:
        if foreign.spec.staged_action != "Delete":
            yield _kubernetes(foreign)


def _global(policy: resources.GlobalNetworkPolicy | resources.StagedGlobalNetworkPolicy) -> Policy:
    spec = policy.spec
    return Policy(
        kind=policy.kind,
        namespace=None,
        name=policy.metadata.name,
        tier=spec.tier,
        order=inf if spec.order is None else spec.order,
        subject=_global_subject(spec.selector, spec.namespace_selector, spec.service_account_selector),
        rules=_directed(_types(policy), rules_of(spec.ingress, None), rules_of(spec.egress, None)),
        lists=_lists(spec.do_not_track, spec.pre_dnat, spec.apply_on_forward),
    )


def _global_subject(selector: str, namespaces: str, accounts: str) -> Expression:
    """E-1 for a GlobalNetworkPolicy; each field is rewritten apart, on the tree."""
    return _both(
        parse(selector),
        _inherited(namespaces, NAMESPACE_PREFIX, Has(NAMESPACE)),
        _inherited(accounts, SERVICE_ACCOUNT_PREFIX, Has(SERVICE_ACCOUNT)),
    )


def _inherited(selector: str, prefix: str, instead_of_all: Expression) -> Expression | None:
    """A selector over inherited labels; empty is no constraint (S-20)."""
    expression = criterion(selector)
    return None if expression is None else replaced(prefixed(expression, prefix), All(), instead_of_all)


def _both(selector: Expression, *constraints: Expression | None) -> Expression:
    return all_of(selector, *constraints) or selector


def _namespaced(policy: resources.NetworkPolicy | resources.StagedNetworkPolicy) -> Policy:
    spec, namespace = policy.spec, policy.metadata.namespace or ""
    return Policy(
        kind=policy.kind,
        namespace=namespace,
        name=policy.metadata.name,
        tier=spec.tier,
        order=inf if spec.order is None else spec.order,
        subject=_both(  # E-1: here `all()` over service accounts stays always true
            parse(spec.selector),
            equals(NAMESPACE, namespace),
            _inherited(spec.service_account_selector, SERVICE_ACCOUNT_PREFIX, All()),
        ),
        rules=_directed(_types(policy), rules_of(spec.ingress, namespace), rules_of(spec.egress, namespace)),
        lists=_lists(is_untracked=False, is_prednat=False, is_on_forward=False),
    )


def _kubernetes(
    policy: resources.KubernetesNetworkPolicy | resources.StagedKubernetesNetworkPolicy,
) -> Policy:
    spec, namespace = policy.spec, policy.metadata.namespace or ""
    types = kubernetes.policy_types(spec)
    return Policy(
        kind=type(policy).__name__,  # in documents the enforced kind is `NetworkPolicy` too
        namespace=namespace,
        name=policy.metadata.name,
        tier="default",  # K-1
        order=1_000.0,  # K-1
        subject=_both(kubernetes.pods(spec.pod_selector), equals(NAMESPACE, namespace)),
        rules=_directed(
            types,
            tuple(kubernetes.ingress_rules(spec, namespace)),
            tuple(kubernetes.egress_rules(spec, namespace)),
        ),
        lists=_lists(is_untracked=False, is_prednat=False, is_on_forward=False),  # K-30
    )


def _clustered(policy: resources.KubernetesClusterNetworkPolicy) -> Policy:
    """K-20 to K-22: it governs the directions in which it has a rule."""
    pods, namespaces = clusterwide.subject(policy.spec)
    rules: dict[Direction, tuple[Rule, ...]] = {
        "ingress": tuple(clusterwide.ingress_rules(policy.spec)),
        "egress": tuple(clusterwide.egress_rules(policy.spec)),
    }
    within = namespaces and replaced(prefixed(namespaces, NAMESPACE_PREFIX), All(), Has(NAMESPACE))
    return Policy(
        kind="KubernetesClusterNetworkPolicy",
        namespace=None,
        name=policy.metadata.name,
        tier=clusterwide.TIERS[policy.spec.tier],
        order=float(policy.spec.priority),
        subject=_both(pods, within),
        rules={direction: made for direction, made in rules.items() if made},
        lists=_lists(is_untracked=False, is_prednat=False, is_on_forward=False),  # K-30
    )


def _types(
    policy: resources.GlobalNetworkPolicy
    | resources.StagedGlobalNetworkPolicy
    | resources.NetworkPolicy
    | resources.StagedNetworkPolicy,
) -> list[str] | None:
    """As listed; nothing has filled them in where the policy comes from storage (R-5, E-13)."""
    if policy.api_version.startswith("crd."):
        return policy.spec.types or ["Ingress", "Egress"]
    return policy.spec.types


def _directed(types: list[str] | None, ingress: tuple[Rule, ...], egress: tuple[Rule, ...]) -> DirectedRules:
    """E-12, E-14: rules of a direction that the policy does not govern are ignored."""
    if not types:
        types = [*(["Ingress"] if ingress or not egress else []), *(["Egress"] if egress else [])]
    rules: dict[Direction, tuple[Rule, ...]] = {}
    if "Ingress" in types:
        rules["ingress"] = ingress
    if "Egress" in types:
        rules["egress"] = egress
    return rules


def _lists(is_untracked: bool, is_prednat: bool, is_on_forward: bool) -> frozenset[Kind]:
    """E-10."""
    if is_untracked:
        return frozenset[Kind](["untracked"])
    if is_prednat:
        return frozenset[Kind](["prednat"])
    return frozenset[Kind](["normal", "forward"] if is_on_forward else ["normal"])


def profile_rules(snapshot: Snapshot) -> dict[str, DirectedRules]:
    """The rules of every profile that exists, by its name; a written profile goes before a made one."""
    rules: dict[str, DirectedRules] = {}
    allow: DirectedRules = {"ingress": (ALLOW_ALL,), "egress": (ALLOW_ALL,)}
    for namespace in snapshot.namespaces:
        rules[f"kns.{namespace.metadata.name}"] = allow
    for account in snapshot.service_accounts:
        rules[f"ksa.{account.metadata.namespace}.{account.metadata.name}"] = {"ingress": (), "egress": ()}
    for profile in snapshot.profiles:
        spec = profile.spec
        rules[profile.metadata.name] = {
            "ingress": rules_of(spec.ingress, None),
            "egress": rules_of(spec.egress, None),
        }
    rules[DEFAULT_ALLOW] = allow
    return rules
