"""Network sets: named lists of networks with labels (`projectcalico.org/v3`)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from labelgate.resources.errors import Finding, Findings, Wrong
from labelgate.resources.metadata import Resource
from labelgate.resources.part import Part
from labelgate.resources.values import SetNet, merged
from labelgate.resources.versions import CALICO

_NAMESPACE_LABEL = "projectcalico.org/namespace"


class NetworkSetSpec(Part):
    """`spec` of both kinds of sets; bare addresses count as networks of one, host bits are masked away."""

    field_hints: ClassVar[dict[str, str]] = {
        "allowedEgressDomains": "packets show no names, and rules that deny the set would deny less;"
        " list addresses as `nets`",
    }

    nets: Annotated[list[SetNet], AfterValidator(merged)] = Field(default_factory=list)


class _AnyNetworkSet(Resource):
    spec: NetworkSetSpec = NetworkSetSpec()

    def findings(self) -> Findings:
        """V-8."""
        yield from super().findings()
        if _NAMESPACE_LABEL in self.metadata.labels:
            yield Finding(
                ("metadata", "labels", _NAMESPACE_LABEL), Wrong("label-reserved", f"`{_NAMESPACE_LABEL}`")
            )


class GlobalNetworkSet(_AnyNetworkSet):
    """Networks that rules of all namespaces can select (R-26)."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "GlobalNetworkSet"


class NetworkSet(_AnyNetworkSet):
    """Networks that belong to a namespace (R-26)."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "NetworkSet"
    namespaced: ClassVar[bool] = True
