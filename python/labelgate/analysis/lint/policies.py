"""Remarks on policies as such: tiers, types, directions, staged ones, those that select nothing."""

from __future__ import annotations

from collections.abc import Iterator

from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.selection import Selection
from labelgate.model import BUILT_IN_TIERS
from labelgate.reference.policies import Direction, Policy
from labelgate.resources import (
    GlobalNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
)
from labelgate.resources.metadata import Resource
from labelgate.resources.values import did_you_mean

_STAGED = (StagedGlobalNetworkPolicy, StagedNetworkPolicy, StagedKubernetesNetworkPolicy)
DIRECTIONS: tuple[Direction, Direction] = ("ingress", "egress")


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG107, LG201, LG202, LG205, LG206."""
    for policy in selection.policies:
        resource = selection.resource(policy)
        yield from _subject(selection, policy, resource)
        yield from _inert(policy, resource)
        if "normal" in policy.lists and policy.tier not in selection.passing_tiers:
            yield from _without_rules(policy, resource)
    yield from _tiers(selection)
    yield from _staged(selection)


def _subject(selection: Selection, policy: Policy, resource: Resource) -> Iterator[Remark]:
    if selection.endpoints and not selection.selected(policy):
        text = "it selects none of the endpoints in these files: it does nothing (E-1)"
        mend = "correct its selector, or remove it"
        yield Remark("LG201", resource, ("spec", _selector_field(resource)), text, mend)


def _selector_field(resource: Resource) -> str:
    if "Kubernetes" not in type(resource).__name__:
        return "selector"
    return "subject" if "Cluster" in type(resource).__name__ else "podSelector"


def types_field(resource: Resource) -> str:
    """Where a policy says which directions it governs."""
    return "policyTypes" if "Kubernetes" in type(resource).__name__ else "types"


def drops_direction(resource: Resource, direction: str) -> bool:
    """Whether a policy would no longer govern a direction if it had no rules for it (E-12, E-13, K-13)."""
    is_cluster = "Cluster" in type(resource).__name__
    if is_cluster or _written_types(resource) or resource.api_version.startswith("crd."):
        return False
    is_kubernetes = "Kubernetes" in type(resource).__name__
    return direction == "egress" or (not is_kubernetes and bool(resource.spec.egress))  # type: ignore[attr-defined]


def _written_types(resource: Resource) -> list[str]:
    return getattr(resource.spec, "types", None) or getattr(resource.spec, "policy_types", None) or []  # type: ignore[attr-defined]


def _inert(policy: Policy, resource: Resource) -> Iterator[Remark]:
    for direction in DIRECTIONS:
        written = getattr(resource.spec, direction)  # type: ignore[attr-defined]
        if written and direction not in policy.rules and policy.kind != "KubernetesClusterNetworkPolicy":
            field, word = types_field(resource), direction.title()
            text = f"`{field}` leaves {word} out: these {len(written)} rules do nothing (E-14)"
            yield Remark(
                "LG107", resource, ("spec", direction), text, f"add {word} to `{field}`, or remove them"
            )


def _without_rules(policy: Policy, resource: Resource) -> Iterator[Remark]:
    """A policy without any rule that names its types is the usual default deny: that is meant."""
    types, field = _written_types(resource), types_field(resource)
    if types and not any(getattr(resource.spec, direction) for direction in DIRECTIONS):  # type: ignore[attr-defined]
        return
    law = "K-13" if field == "policyTypes" else "E-13" if resource.api_version.startswith("crd.") else "E-12"
    for direction in DIRECTIONS:
        if policy.rules.get(direction) != () or (types and direction in resource.spec.model_fields_set):  # type: ignore[attr-defined]
            continue  # Rules of another direction, or `egress: []` beside the types: that is meant, too.
        word = direction.title()
        why = f"`{field}` has {word}" if types else f"without `{field}` it governs {word} ({law})"
        text = f"{why}, but there are no {direction} rules: what no other policy allows is denied (E-14)"
        mend = f"write {direction} rules, or let `{field}` name only what is meant"
        yield Remark("LG202", resource, ("spec", field) if types else ("spec",), text, mend)


def _tiers(selection: Selection) -> Iterator[Remark]:
    known = {*BUILT_IN_TIERS, *(tier.metadata.name for tier in selection.snapshot.tiers)}
    for policy in selection.snapshot.calico_policies():
        tier = policy.spec.tier
        if tier not in known:
            text = f"there is no tier `{tier}`: it comes after all others and ends in deny (E-4)"
            mend = did_you_mean(tier, known) or f"load Tier `{tier}`, or correct the name"
            yield Remark("LG205", policy, ("spec", "tier"), text, mend)


def _staged(selection: Selection) -> Iterator[Remark]:
    for resource in selection.resources.values():
        if not isinstance(resource, _STAGED):
            continue
        twin = selection.resources.get(resource.key.removeprefix("Staged"))
        action = resource.spec.staged_action
        if action == "Delete":
            what = "is still there" if twin else "is not there (any more)"
            text = f"the policy that it is to delete {what}; nothing is deleted by it (E-15)"
        elif twin is not None and _same(resource, twin):
            text = "the enforced policy of this name says the same (E-15)"
        else:
            text = "it decides nothing until it is enforced (E-15)"
        mend = "enforce it as the kind without `Staged`, or remove it"
        yield Remark("LG206", resource, ("kind",), text, mend)


def _same(staged: Resource, enforced: Resource) -> bool:
    def spec(resource: Resource) -> dict[str, object]:
        return dict(resource.spec.model_dump(exclude={"staged_action"}))  # type: ignore[attr-defined]

    return spec(staged) == spec(enforced)


CALICO = (GlobalNetworkPolicy, NetworkPolicy, StagedGlobalNetworkPolicy, StagedNetworkPolicy)
