"""Kubernetes' ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator

from labelgate.resources.errors import Finding, Findings, Wrong, describe
from labelgate.resources.kubernetes import LabelSelector
from labelgate.resources.metadata import Resource
from labelgate.resources.part import LoosePart, Part
from labelgate.resources.values import (
    IPNetwork,
    is_integer,
    is_port_name,
    masked_network,
    one_of,
    port_number,
)
from labelgate.resources.versions import CLUSTER_POLICY

_PortNumber = Annotated[int, PlainValidator(port_number("cluster-port"), json_schema_input_type=int)]


def _word(code: str, *known: str, hints: Mapping[str, str] | None = None) -> PlainValidator:
    return PlainValidator(one_of(code, *known, hints=hints), json_schema_input_type=str)


def _peer_findings(peer: Part, fields: Sequence[str]) -> Findings:
    """K-24."""
    is_empty = all(getattr(peer, name) is None for name in fields)
    hint = "fill in whom it is about" if is_empty else None
    yield from _one_of_findings(peer, "cluster-peer", fields, hint)


def _one_of_findings(part: Part, code: str, fields: Sequence[str], hint: str | None = None) -> Findings:
    """Exactly one of these fields is given."""
    aliases = {name: field.alias or name for name, field in type(part).model_fields.items()}
    given = [f"`{aliases[name]}`" for name in fields if getattr(part, name) is not None]
    if len(given) != 1:
        wrong = Wrong(code, ", ".join(given) or "none of them", hint=hint)
        yield Finding((), wrong, tuple((aliases[name],) for name in fields))


class NamespacedPods(Part):
    """Pods of the namespaces selected; both selectors hold."""

    namespace_selector: LabelSelector
    pod_selector: LabelSelector


class ClusterSubject(Part):
    """Whose traffic is meant (K-21)."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None

    def findings(self) -> Findings:
        """K-20: without a subject there is no policy."""
        yield from _one_of_findings(self, "cluster-subject", ("namespaces", "pods"))


class ClusterIngressPeer(Part):
    """One of `from`."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None

    @property
    def is_understood(self) -> bool:
        """Every field that the API has here can be converted."""
        return True

    def findings(self) -> Findings:
        """K-24."""
        yield from _peer_findings(self, ("namespaces", "pods"))


class NodeSelector(LoosePart):
    """A selector of nodes; rules with it cannot be converted (K-26)."""


_Cidr = Annotated[IPNetwork, PlainValidator(masked_network("cluster-network"), json_schema_input_type=str)]


class ClusterEgressPeer(Part):
    """One of `to`."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None
    networks: Annotated[list[_Cidr], Field(min_length=1)] | None = None
    nodes: NodeSelector | None = None
    domain_names: list[str] | None = None

    @property
    def is_understood(self) -> bool:
        """K-26: neither nodes nor names can be converted."""
        return self.nodes is None and self.domain_names is None

    def findings(self) -> Findings:
        """K-24."""
        fields = ("namespaces", "pods", "networks", "nodes", "domain_names")
        yield from _peer_findings(self, fields)


class ClusterPortRange(Part):
    """Ports from start to end, both included."""

    start: _PortNumber
    end: _PortNumber

    def findings(self) -> Findings:
        """K-25."""
        if self.start > self.end:
            yield Finding((), Wrong("cluster-port-reversed", f"`{self.start}` to `{self.end}`"))


class ClusterPort(Part):
    """A port, or a range of ports."""

    number: _PortNumber | None = None
    range: ClusterPortRange | None = None

    def findings(self) -> Findings:
        """K-25."""
        yield from _one_of_findings(self, "cluster-port-form", ("number", "range"))


class ClusterTransport(Part):
    """A protocol with ports; without `destinationPort` all of them."""

    destination_port: ClusterPort | None = None


def _port_name(value: Any) -> str:
    if isinstance(value, str) and is_port_name(value):
        return value
    raise Wrong("cluster-port-name", describe(value))


class ClusterProtocol(Part):
    """One of `protocols` (K-25)."""

    tcp: ClusterTransport | None = None
    udp: ClusterTransport | None = None
    sctp: ClusterTransport | None = None
    destination_named_port: Annotated[str | None, PlainValidator(_port_name, json_schema_input_type=str)] = (
        None
    )

    def findings(self) -> Findings:
        """K-25."""
        fields = ("tcp", "udp", "sctp", "destination_named_port")
        yield from _one_of_findings(self, "cluster-protocol", fields)


class _ClusterRule(Part):
    name: Annotated[str, Field(max_length=100)] = ""
    """A comment (K-27)."""
    action: Annotated[
        str, _word("cluster-action", "Accept", "Deny", "Pass", hints={"allow": "here it is `Accept`"})
    ]
    protocols: list[ClusterProtocol] = Field(default_factory=list)


class ClusterIngressRule(_ClusterRule):
    """What is done with packets from peers."""

    from_: Annotated[list[ClusterIngressPeer], Field(alias="from")]

    def findings(self) -> Findings:
        """K-23: nobody is meant without peers."""
        if not self.from_:
            yield Finding(("from",), Wrong("cluster-no-peers", "an empty list"))


class ClusterEgressRule(_ClusterRule):
    """What is done with packets to peers."""

    to: list[ClusterEgressPeer]

    def findings(self) -> Findings:
        """K-23: nobody is meant without peers."""
        if not self.to:
            yield Finding(("to",), Wrong("cluster-no-peers", "an empty list"))


def _priority(value: Any) -> int:
    if is_integer(value) and 0 <= value <= 1000:
        return int(value)
    raise Wrong("cluster-priority", describe(value))


class KubernetesClusterNetworkPolicySpec(Part):
    """`spec` of a ClusterNetworkPolicy."""

    tier: Annotated[str, _word("cluster-tier", "Admin", "Baseline")]
    priority: Annotated[int, PlainValidator(_priority, json_schema_input_type=int)]
    subject: ClusterSubject
    ingress: list[ClusterIngressRule] = Field(default_factory=list)
    egress: list[ClusterEgressRule] = Field(default_factory=list)


class KubernetesClusterNetworkPolicy(Resource):
    """Kubernetes' ClusterNetworkPolicy (`kind: ClusterNetworkPolicy`), before or after all others."""

    version: ClassVar[str] = CLUSTER_POLICY
    kind_name: ClassVar[str] = "ClusterNetworkPolicy"

    spec: KubernetesClusterNetworkPolicySpec

    @property
    def notices(self) -> tuple[str, ...]:
        """K-26: what is done in place of rules that cannot be converted."""
        told = []
        ingress = [
            (rule.action, all(peer.is_understood for peer in rule.from_)) for rule in self.spec.ingress
        ]
        egress = [(rule.action, all(peer.is_understood for peer in rule.to)) for rule in self.spec.egress]
        for direction, rules in (("ingress", ingress), ("egress", egress)):
            for index, (action, is_understood) in enumerate(rules):
                done = "is left out" if action == "Accept" else "denies everything in its direction"
                if not is_understood:
                    what = "`nodes` and `domainNames` are not supported"
                    told.append(f"{self.key}: spec.{direction}[{index}]: {what}: the rule {done} (K-26)")
        return tuple(told)
