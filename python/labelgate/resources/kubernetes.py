"""Kubernetes' own resources: policies (`networking.k8s.io/v1`) and what endpoints are made of (`v1`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator

from labelgate.resources.errors import Finding, Findings, Wrong, describe, quote
from labelgate.resources.metadata import LooseMetadata, Resource, label_findings
from labelgate.resources.part import LOOSE, LoosePart, Part
from labelgate.resources.positions import integer
from labelgate.resources.values import (
    IPAddress,
    IPNetwork,
    address,
    is_integer,
    is_label_key,
    is_label_value,
    is_port_name,
    masked_network,
    one_of,
    port_number,
)
from labelgate.resources.versions import CORE, NETWORKING


def _word(code: str, *known: str, hints: Mapping[str, str] | None = None) -> PlainValidator:
    return PlainValidator(one_of(code, *known, hints=hints), json_schema_input_type=str)


_TRANSPORTS = ("TCP", "UDP", "SCTP")
_NO_ICMP = dict.fromkeys(("icmp", "icmpv6"), "rules of Kubernetes cannot name ICMP; those of Calico can")


class LabelSelectorRequirement(Part):
    """One of `matchExpressions`."""

    key: str
    operator: Annotated[str, _word("operator", "In", "NotIn", "Exists", "DoesNotExist")]
    values: list[str] = Field(default_factory=list)

    def findings(self) -> Findings:
        """K-2, as the Kubernetes API checks it."""
        if not is_label_key(self.key):
            yield Finding(("key",), Wrong("label-key", quote(self.key)))
        needs = (("operator",), ("values",))
        takes_values = self.operator in ("In", "NotIn")
        if takes_values and not self.values:
            yield Finding((), Wrong("operator-values", "no values", operator=self.operator), needs)
        if not takes_values and self.values:
            found = ", ".join(map(quote, self.values))
            yield Finding(("values",), Wrong("operator-no-values", found, operator=self.operator), needs)
        for index, value in enumerate(self.values):
            if not is_label_value(value):
                yield Finding(("values", index), Wrong("label-value", quote(value)))


class LabelSelector(Part):
    """Kubernetes' label selector; empty selects all."""

    other_hint: ClassVar[str | None] = "labels stand under `matchLabels`; without any it selects all"

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[LabelSelectorRequirement] = Field(default_factory=list)

    def findings(self) -> Findings:
        """V-6."""
        yield from label_findings(self.match_labels, ("matchLabels",), "label-key", "label-value")


_Block = Annotated[IPNetwork, PlainValidator(masked_network("block"), json_schema_input_type=str)]


class IpBlock(Part):
    """A network, and networks inside it that are left out."""

    cidr: _Block
    except_: list[_Block] = Field(default_factory=list, alias="except")

    def findings(self) -> Findings:
        """K-12: each exception is a smaller network inside the block."""
        for index, net in enumerate(self.except_):
            if not _inside(net, self.cidr):
                wrong = Wrong("block-except", f"`{net}`", cidr=self.cidr)
                yield Finding(("except", index), wrong, (("cidr",),))


def _inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner != outer and inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner != outer and inner.subnet_of(outer)
    return False


class Peer(Part):
    """One of `from` or `to`."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None

    def findings(self) -> Findings:
        """K-5: a block, or selectors; never both."""
        if self.ip_block is not None and (self.pod_selector or self.namespace_selector):
            yield Finding(("ipBlock",), Wrong("peer-both", "both"))


_PEER_FIELDS = (("podSelector",), ("namespaceSelector",), ("ipBlock",))


def _peer_findings(peers: list[Peer] | None, field: str) -> Findings:
    for index, peer in enumerate(peers or []):
        if peer.pod_selector is None and peer.namespace_selector is None and peer.ip_block is None:
            path = (field, index)
            needs = tuple((*path, *name) for name in _PEER_FIELDS)
            yield Finding(path, Wrong("peer-empty", "an empty mapping", field=field), needs)


def _port(value: Any) -> int | str:
    """K-9: a number, digits, or a name."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
        value = integer(value.lstrip("0") or "0")
    if is_integer(value) and 1 <= value <= 65535:
        return int(value)
    if isinstance(value, str) and is_port_name(value):
        return value
    raise Wrong("kubernetes-port", describe(value))


class Port(Part):
    """One of `ports`; absent protocol is TCP, absent port is every port (K-8)."""

    protocol: Annotated[str | None, _word("kubernetes-protocol", *_TRANSPORTS, hints=_NO_ICMP)] = None
    port: Annotated[int | str | None, PlainValidator(_port, json_schema_input_type=int | str)] = None
    end_port: int | None = None

    def findings(self) -> Findings:
        """K-9."""
        if self.end_port is None:
            return
        if not isinstance(self.port, int):
            found = f"`port: {self.port}`" if self.port else "no `port`"
            hint = f"write the number that is behind `{self.port}`" if self.port else None
            yield Finding(("endPort",), Wrong("end-port", found, hint=hint), (("port",),))
        elif not self.port <= self.end_port:
            yield Finding(("endPort",), Wrong("end-port-reversed", f"`{self.end_port}`", port=self.port))
        elif self.end_port > 65535:
            yield Finding(("endPort",), Wrong("kubernetes-port", f"`{self.end_port}`"))


class IngressRule(Part):
    """Who may come in, and to which ports."""

    field_hints: ClassVar[dict[str, str]] = {"to": "`to` belongs to egress rules; here it is `from`"}

    from_: list[Peer] | None = Field(default=None, alias="from")
    ports: list[Port] | None = None

    def findings(self) -> Findings:
        """K-5."""
        yield from _peer_findings(self.from_, "from")


class EgressRule(Part):
    """Where to, and to which ports."""

    field_hints: ClassVar[dict[str, str]] = {"from": "`from` belongs to ingress rules; here it is `to`"}

    to: list[Peer] | None = None
    ports: list[Port] | None = None

    def findings(self) -> Findings:
        """K-5."""
        yield from _peer_findings(self.to, "to")


class KubernetesNetworkPolicySpec(Part):
    """`spec` of Kubernetes' NetworkPolicy."""

    field_hints: ClassVar[dict[str, str]] = dict.fromkeys(
        ("selector", "types", "order", "tier", "doNotTrack", "preDNAT", "applyOnForward"),
        "that is a policy of `apiVersion: projectcalico.org/v3`",
    )

    pod_selector: LabelSelector = LabelSelector()
    policy_types: list[Annotated[str, _word("policy-type", "Ingress", "Egress")]] | None = None
    """As written; None or empty is inferred (K-13)."""
    ingress: list[IngressRule] = Field(default_factory=list)
    egress: list[EgressRule] = Field(default_factory=list)

    def findings(self) -> Findings:
        """K-13."""
        types = self.policy_types or []
        for index, value in enumerate(types):
            if value in types[:index]:
                yield Finding(("policyTypes", index), Wrong("policy-type-twice", quote(value)))


class KubernetesNetworkPolicy(Resource):
    """Kubernetes' NetworkPolicy (`kind: NetworkPolicy`)."""

    version: ClassVar[str] = NETWORKING
    kind_name: ClassVar[str] = "NetworkPolicy"
    namespaced: ClassVar[bool] = True

    spec: KubernetesNetworkPolicySpec = KubernetesNetworkPolicySpec()


# --- core v1: only the fields that are read are checked --------------------------------------------------


class CoreResource(Resource):
    """Only the fields that are read are checked."""

    model_config = LOOSE

    metadata: LooseMetadata


class Namespace(CoreResource):
    """A namespace; its labels become those of profile `kns.NAME` (R-24)."""

    version: ClassVar[str] = CORE
    kind_name: ClassVar[str] = "Namespace"


class ServiceAccount(CoreResource):
    """A service account; its labels become those of profile `ksa.NAMESPACE.NAME` (R-25)."""

    version: ClassVar[str] = CORE
    kind_name: ClassVar[str] = "ServiceAccount"
    namespaced: ClassVar[bool] = True


class ContainerPort(LoosePart):
    """A port of a container (R-32)."""

    name: str = ""
    container_port: Annotated[
        int, PlainValidator(port_number("endpoint-port-number"), json_schema_input_type=int)
    ]
    host_port: int = 0
    protocol: str = "TCP"


class Container(LoosePart):
    """A container of a pod."""

    ports: list[ContainerPort] = Field(default_factory=list)


class PodSpec(LoosePart):
    """`spec` of a Pod."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    containers: list[Container] = Field(default_factory=list)
    init_containers: list[Container] = Field(default_factory=list)


_address = address("pod-address")


class PodIp(LoosePart):
    """One of `podIPs`."""

    ip: Annotated[IPAddress, PlainValidator(_address, json_schema_input_type=str)]


class PodStatus(LoosePart):
    """`status` of a Pod."""

    phase: str = ""
    pod_ip: Annotated[
        IPAddress | None,
        PlainValidator(lambda text: None if text == "" else _address(text), json_schema_input_type=str),
    ] = Field(default=None, alias="podIP")
    pod_ips: list[PodIp] = Field(default_factory=list, alias="podIPs")


class Pod(CoreResource):
    """A pod: a workload endpoint once it has a node and addresses (R-21..R-23, R-30..R-32)."""

    ignored: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[str] = CORE
    kind_name: ClassVar[str] = "Pod"
    namespaced: ClassVar[bool] = True

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
