"""Staged policies: what they would decide can be asked for, but they decide nothing yet (E-15)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import PlainValidator

from labelgate.resources.errors import Finding, Findings, Wrong
from labelgate.resources.kubernetes import KubernetesNetworkPolicySpec
from labelgate.resources.metadata import Resource, policy_name_findings
from labelgate.resources.part import Part
from labelgate.resources.policy import DELETE, GlobalNetworkPolicySpec, NetworkPolicySpec
from labelgate.resources.values import one_of
from labelgate.resources.versions import CALICO

StagedAction = Annotated[
    str,
    PlainValidator(one_of("staged-action", "Set", DELETE, "Learn", "Ignore"), json_schema_input_type=str),
]


def _delete_findings(spec: Part, action: str, *excepted: str) -> Findings:
    """V-46: what is to be deleted says nothing else."""
    if action != DELETE:
        return
    for name, field in type(spec).model_fields.items():
        value, default = getattr(spec, name), field.get_default(call_default_factory=True)
        if name not in ("staged_action", *excepted) and value != default:
            path = (field.alias or name,)
            yield Finding(path, Wrong("staged-delete", f"`{path[0]}`"), (("stagedAction",),))


class StagedGlobalNetworkPolicySpec(GlobalNetworkPolicySpec):
    """`spec` of a StagedGlobalNetworkPolicy."""

    staged_action: StagedAction = "Set"

    def findings(self) -> Findings:
        """V-46."""
        yield from super().findings()
        yield from _delete_findings(self, self.staged_action, "tier")


class StagedNetworkPolicySpec(NetworkPolicySpec):
    """`spec` of a StagedNetworkPolicy."""

    staged_action: StagedAction = "Set"

    def findings(self) -> Findings:
        """V-46."""
        yield from super().findings()
        yield from _delete_findings(self, self.staged_action, "tier")


class StagedKubernetesNetworkPolicySpec(KubernetesNetworkPolicySpec):
    """`spec` of a StagedKubernetesNetworkPolicy."""

    field_hints: ClassVar[dict[str, str]] = dict.fromkeys(
        KubernetesNetworkPolicySpec.field_hints, "that is a `StagedNetworkPolicy`"
    )

    staged_action: StagedAction = "Set"

    def findings(self) -> Findings:
        """V-46; V-47: what cannot be converted is refused as in Kubernetes' own kind."""
        yield from super().findings()
        yield from _delete_findings(self, self.staged_action)


class StagedGlobalNetworkPolicy(Resource):
    """A GlobalNetworkPolicy that is not in force yet."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "StagedGlobalNetworkPolicy"

    spec: StagedGlobalNetworkPolicySpec

    def name_findings(self) -> Findings:
        """V-1, V-2, V-4."""
        yield from super().name_findings()
        yield from policy_name_findings(self.kind_name, self.metadata.name, is_global=True)


class StagedNetworkPolicy(Resource):
    """A NetworkPolicy that is not in force yet."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "StagedNetworkPolicy"
    namespaced: ClassVar[bool] = True

    spec: StagedNetworkPolicySpec

    def name_findings(self) -> Findings:
        """V-1..V-3."""
        yield from super().name_findings()
        yield from policy_name_findings(self.kind_name, self.metadata.name, is_global=False)


class StagedKubernetesNetworkPolicy(Resource):
    """A NetworkPolicy of Kubernetes that is not in force yet; always in tier `default`."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "StagedKubernetesNetworkPolicy"
    namespaced: ClassVar[bool] = True

    spec: StagedKubernetesNetworkPolicySpec
