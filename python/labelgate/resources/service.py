"""Services and their EndpointSlices: what rules with `services` match (M-31, M-32)."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field, PlainValidator

from labelgate.resources.errors import Wrong, describe
from labelgate.resources.kubernetes import CoreResource
from labelgate.resources.part import LoosePart
from labelgate.resources.values import IPAddress, is_integer, one_of, port_number
from labelgate.resources.versions import CORE, DISCOVERY

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its service."""


def _port(value: Any) -> int | str:
    if is_integer(value) or isinstance(value, str):
        return cast("int | str", value)
    raise Wrong("service-target-port", describe(value))


class ServicePort(LoosePart):
    """One of `ports`: what clients see, and what the backends see after DNAT (E-70)."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    target_port: Annotated[int | str | None, PlainValidator(_port, json_schema_input_type=int | str)] = None
    """Absent: as `port`; text: a named port of the backends."""
    node_port: int | None = None


class ServiceSpec(LoosePart):
    """`spec` of a Service."""

    type: str = "ClusterIP"
    selector: dict[str, str] = Field(default_factory=dict)
    """Labels of its backends; without any they stand in slices only."""
    cluster_ip: str = Field(default="", alias="clusterIP")
    """Empty or `None` where it has no address of its own."""
    cluster_ips: list[str] = Field(default_factory=list, alias="clusterIPs")
    external_ips: list[str] = Field(default_factory=list, alias="externalIPs")
    ports: list[ServicePort] = Field(default_factory=list)

    @property
    def addresses(self) -> set[IPAddress]:
        """Those that clients in the cluster send to, and that DNAT changes."""
        found = set()
        for text in (self.cluster_ip, *self.cluster_ips):
            with suppress(ValueError):
                found.add(ip_address(text))
        return found


class Service(CoreResource):
    """A service; without effect on verdicts: its EndpointSlices have those behind it."""

    version: ClassVar[str] = CORE
    kind_name: ClassVar[str] = "Service"
    namespaced: ClassVar[bool] = True

    spec: ServiceSpec = ServiceSpec()


class SliceEndpoint(LoosePart):
    """One of `endpoints`; whether it is ready does not matter (M-31)."""

    addresses: list[str] = Field(default_factory=list)
    """Those that are no IP addresses are skipped (M-31)."""


class SlicePort(LoosePart):
    """One of `ports`; without a number it stands for none (M-31)."""

    name: str = ""
    """The one of the service's port."""
    protocol: Annotated[
        str, PlainValidator(one_of("slice-protocol", "TCP", "UDP", "SCTP"), json_schema_input_type=str)
    ] = "TCP"
    port: Annotated[int | None, PlainValidator(port_number("slice-port"), json_schema_input_type=int)] = None


class EndpointSlice(CoreResource):
    """Backends of a service: every address with every port."""

    ignored: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[str] = DISCOVERY
    kind_name: ClassVar[str] = "EndpointSlice"
    namespaced: ClassVar[bool] = True

    endpoints: list[SliceEndpoint] = Field(default_factory=list)
    ports: list[SlicePort] = Field(default_factory=list)

    @property
    def service(self) -> str | None:
        """Name of the service it belongs to, in its own namespace."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL)
