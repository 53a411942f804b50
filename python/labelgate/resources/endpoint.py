"""Host endpoints and workload endpoints (`projectcalico.org/v3`)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, PlainValidator

from labelgate.resources.errors import Finding, Findings, Wrong, describe
from labelgate.resources.metadata import Resource
from labelgate.resources.part import Part
from labelgate.resources.values import (
    INTERFACE,
    Address,
    IPNetwork,
    Reference,
    endpoint_port_name,
    endpoint_protocol,
    host_network,
    is_integer,
    loose_network,
    merged,
    port_number,
)
from labelgate.resources.versions import CALICO

_PortName = Annotated[str, PlainValidator(endpoint_port_name, json_schema_input_type=str)]
_PortNumber = Annotated[int, PlainValidator(port_number("endpoint-port-number"), json_schema_input_type=int)]
_PortProtocol = Annotated[int, PlainValidator(endpoint_protocol, json_schema_input_type=int | str)]
_Profiles = Annotated[list[Reference], AfterValidator(merged)]


def _name_or_none(value: Any) -> str:
    return "" if value == "" else endpoint_port_name(value)


def _host_port(value: Any) -> int:
    if is_integer(value) and 0 <= value <= 65535:
        return int(value)
    raise Wrong("workload-host-port", describe(value))


def _interface(text: str) -> str:
    if text and not INTERFACE.match(text):
        hint = "names are cut at 15 characters by the kernel" if len(text) > 15 else None
        raise Wrong("interface-name", describe(text), hint=hint)
    return text


def _interface_or_all(text: str) -> str:
    return text if text == "*" else _interface(text)


class EndpointPort(Part):
    """A named port of a host endpoint."""

    missing: ClassVar[str] = "endpoint-port-missing"

    name: _PortName
    protocol: _PortProtocol
    """IP protocol number."""
    port: _PortNumber


class HostEndpointSpec(Part):
    """`spec` of a HostEndpoint."""

    node: Reference
    interface_name: Annotated[str, AfterValidator(_interface_or_all)] = ""
    """A name, `*`, or empty: then `expected_ips` choose the interface (E-45)."""
    expected_ips: Annotated[list[Address], AfterValidator(merged)] = Field(
        default_factory=list, alias="expectedIPs"
    )
    profiles: _Profiles = Field(default_factory=list)
    ports: list[EndpointPort] = Field(default_factory=list)

    def findings(self) -> Findings:
        """V-60, V-61."""
        if not self.node:
            yield Finding(("node",), Wrong("endpoint-node", "empty text"))
        if not self.interface_name and not self.expected_ips:
            yield Finding((), Wrong("endpoint-interface", "neither"), (("interfaceName",), ("expectedIPs",)))


class HostEndpoint(Resource):
    """An interface of a host, or all of them."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "HostEndpoint"

    spec: HostEndpointSpec


class WorkloadEndpointPort(Part):
    """A port of a workload; without a name it only documents a host port."""

    missing: ClassVar[str] = "endpoint-port-missing"

    name: Annotated[str, PlainValidator(_name_or_none, json_schema_input_type=str)] = ""
    protocol: _PortProtocol
    """IP protocol number."""
    port: _PortNumber
    host_port: Annotated[int, PlainValidator(_host_port, json_schema_input_type=int)] = 0
    host_ip: str = Field(default="", alias="hostIP")

    def findings(self) -> Findings:
        """V-67."""
        if not self.name and not self.host_port:
            yield Finding((), Wrong("workload-port-name", "neither"), (("name",), ("hostPort",)))


class IpNat(Part):
    """A floating address of a workload; only checked."""

    internal_ip: Address = Field(alias="internalIP")
    external_ip: Address = Field(alias="externalIP")


_HostNetwork = Annotated[IPNetwork, PlainValidator(host_network, json_schema_input_type=str)]
_Prefix = Annotated[IPNetwork, PlainValidator(loose_network("spoofed-prefix"), json_schema_input_type=str)]


class WorkloadEndpointSpec(Part):
    """`spec` of a WorkloadEndpoint."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        ("containerID", "ipv4Gateway", "ipv6Gateway", "qosControls")
    )

    orchestrator: Reference = ""
    workload: Reference = ""
    node: Reference = ""
    pod: Reference = ""
    endpoint: Reference = ""
    service_account_name: Reference = ""
    ip_networks: Annotated[list[_HostNetwork], AfterValidator(merged)] = Field(default_factory=list)
    ip_nats: list[IpNat] = Field(default_factory=list, alias="ipNATs")
    profiles: _Profiles = Field(default_factory=list)
    interface_name: Annotated[str, AfterValidator(_interface)] = ""
    mac: str = ""
    ports: list[WorkloadEndpointPort] = Field(default_factory=list)
    allow_spoofed_source_prefixes: Annotated[list[_Prefix], AfterValidator(merged)] = Field(
        default_factory=list
    )

    def findings(self) -> Findings:
        """V-66, V-68."""
        own: set[Any] = {net.network_address for net in self.ip_networks}
        for index, nat in enumerate(self.ip_nats):
            if nat.internal_ip.version != nat.external_ip.version:
                found = f"`{nat.internal_ip}` and `{nat.external_ip}`"
                yield Finding(("ipNATs", index), Wrong("nat-family", found))
            if nat.internal_ip not in own:
                wrong = Wrong("nat-internal", f"`{nat.internal_ip}`")
                yield Finding(("ipNATs", index, "internalIP"), wrong, (("ipNetworks",),))
        if not self.interface_name:
            yield Finding(("interfaceName",), Wrong("workload-interface", "nothing"), (("interfaceName",),))


class WorkloadEndpoint(Resource):
    """An interface of a workload, written by hand (R-6)."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "WorkloadEndpoint"
    namespaced: ClassVar[bool] = True

    spec: WorkloadEndpointSpec
