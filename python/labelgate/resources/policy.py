"""Calico policies, profiles and tiers (`projectcalico.org/v3`)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, PlainValidator

from labelgate.resources.errors import Finding, Findings, Path, Wrong, describe, quote
from labelgate.resources.metadata import (
    NAME,
    Resource,
    label_findings,
    policy_name_findings,
    tier_name_findings,
)
from labelgate.resources.part import Part
from labelgate.resources.rule import Rules, direction_findings, services_findings
from labelgate.resources.values import Reference, SelectorWithoutGlobal, one_of
from labelgate.resources.versions import CALICO

DELETE = "Delete"
"""The action of staged policies that are to be deleted (E-15)."""

_Type = Annotated[str, PlainValidator(one_of("type", "Ingress", "Egress"), json_schema_input_type=str)]
_PerformanceHint = Annotated[
    str, PlainValidator(one_of("value-unknown", "AssumeNeededOnEveryNode"), json_schema_input_type=str)
]


def _repeated(values: list[str], field: str, code: str) -> Findings:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Finding((field, index), Wrong(code, quote(value)))


class PolicySpec(Part):
    """What both Calico policy kinds have."""

    tier: Annotated[Reference, AfterValidator(lambda name: name or "default")] = "default"
    order: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """Lower runs first; None is last (E-5)."""
    ingress: Rules = Field(default_factory=list)
    egress: Rules = Field(default_factory=list)
    selector: SelectorWithoutGlobal = ""
    service_account_selector: SelectorWithoutGlobal = ""
    types: list[_Type] | None = None
    """As written; None is inferred from the rules (E-12)."""
    performance_hints: list[_PerformanceHint] = Field(default_factory=list)

    def findings(self) -> Findings:
        """V-33, V-44, V-52, V-74."""
        if self.types is not None:
            if not self.types:
                yield Finding(("types",), Wrong("types-empty", describe(self.types)))
            yield from _repeated(self.types, "types", "type-twice")
        yield from _repeated(self.performance_hints, "performanceHints", "hint-twice")
        yield from direction_findings(self.ingress, self.egress)


class GlobalNetworkPolicySpec(PolicySpec):
    """`spec` of a GlobalNetworkPolicy."""

    namespace_selector: SelectorWithoutGlobal = ""
    do_not_track: bool = False
    pre_dnat: bool = Field(default=False, alias="preDNAT")
    apply_on_forward: bool = False

    def findings(self) -> Findings:
        """V-40..V-43, V-54."""
        yield from super().findings()
        yield from services_findings(self.ingress, self.egress)
        if self.do_not_track and self.pre_dnat:
            yield Finding(("preDNAT",), Wrong("untracked-and-prednat", "both true"))
        if self.pre_dnat and self.egress:
            yield Finding(("egress",), Wrong("prednat-egress", f"egress rules: {len(self.egress)}"))
        if self.pre_dnat and "Egress" in (self.types or []):
            path: Path = ("types", (self.types or []).index("Egress"))
            yield Finding(path, Wrong("prednat-type", "`Egress`"))
        for field, given in (("doNotTrack", self.do_not_track), ("preDNAT", self.pre_dnat)):
            if given and not self.apply_on_forward:
                wrong = Wrong("forward-needed", f"`{field}: true`", field=field)
                yield Finding((field,), wrong, (("applyOnForward",),))


class NetworkPolicySpec(PolicySpec):
    """`spec` of a NetworkPolicy."""

    field_hints: ClassVar[dict[str, str]] = dict.fromkeys(
        ("doNotTrack", "preDNAT", "applyOnForward", "namespaceSelector"),
        "only a `GlobalNetworkPolicy` has it",
    ) | dict.fromkeys(
        ("podSelector", "policyTypes"), "that is a policy of `apiVersion: networking.k8s.io/v1`"
    )


class GlobalNetworkPolicy(Resource):
    """A policy for workloads of all namespaces and for host endpoints."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "GlobalNetworkPolicy"

    spec: GlobalNetworkPolicySpec

    def name_findings(self) -> Findings:
        """V-1, V-2, V-4."""
        yield from super().name_findings()
        yield from policy_name_findings(self.kind_name, self.metadata.name, is_global=True)


class NetworkPolicy(Resource):
    """A policy for the workloads of its namespace."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "NetworkPolicy"
    namespaced: ClassVar[bool] = True

    spec: NetworkPolicySpec

    def name_findings(self) -> Findings:
        """V-1..V-3."""
        yield from super().name_findings()
        yield from policy_name_findings(self.kind_name, self.metadata.name, is_global=False)


class ProfileSpec(Part):
    """`spec` of a Profile."""

    ingress: Rules = Field(default_factory=list)
    egress: Rules = Field(default_factory=list)
    labels_to_apply: dict[str, str] = Field(default_factory=dict)

    def findings(self) -> Findings:
        """V-9, V-33, V-52, V-54."""
        path: Path = ("labelsToApply",)
        yield from label_findings(self.labels_to_apply, path, "labels-to-apply-key", "labels-to-apply-value")
        yield from direction_findings(self.ingress, self.egress)
        yield from services_findings(self.ingress, self.egress)


class Profile(Resource):
    """Rules and labels for the endpoints that list it."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "Profile"

    spec: ProfileSpec


class TierSpec(Part):
    """`spec` of a Tier."""

    order: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """Lower runs first; None counts as 1000000 (E-2)."""
    default_action: Annotated[
        str | None, PlainValidator(one_of("tier-action", "Deny", "Pass"), json_schema_input_type=str)
    ] = None
    """`Deny`, `Pass`, or None, which is `Deny` (E-2)."""


DEFAULT_TIER_ORDER = 1_000_000.0
_FIXED_TIERS = {
    "default": (DEFAULT_TIER_ORDER, "Deny"),
    "kube-admin": (1_000.0, "Pass"),
    "kube-baseline": (10_000_000.0, "Pass"),
}


class Tier(Resource):
    """A group of policies with an order and an action at its end."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "Tier"

    spec: TierSpec = TierSpec()

    def name_findings(self) -> Findings:
        """V-1, V-2, V-5."""
        yield from super().name_findings()
        yield from tier_name_findings(self.metadata.name)

    def findings(self) -> Findings:
        """V-70."""
        yield from super().findings()
        tier = self.metadata.name
        if tier not in _FIXED_TIERS:
            return
        order, action = _FIXED_TIERS[tier]
        if (self.spec.order if self.spec.order is not None else DEFAULT_TIER_ORDER) != order:
            found = "no `order`" if self.spec.order is None else f"`{self.spec.order:.15g}`"
            wrong = Wrong("tier-order", found, tier=tier, order=f"{order:.0f}")
            yield Finding(("spec", "order"), wrong, (("spec", "order"), NAME))
        if (self.spec.default_action or "Deny") != action:
            found = f"`{self.spec.default_action}`" if self.spec.default_action else "no `defaultAction`"
            path: Path = ("spec", "defaultAction")
            yield Finding(path, Wrong("tier-action-fixed", found, tier=tier, action=action), (path, NAME))
