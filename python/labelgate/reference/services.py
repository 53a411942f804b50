"""The backends of services, straight from their EndpointSlices: M-31, M-32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from labelgate.flow import IPAddress
from labelgate.resources import EndpointSlice
from labelgate.snapshot import Snapshot

_SERVICE_NAME = "kubernetes.io/service-name"
_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


@dataclass(frozen=True, slots=True)
class Service:
    """The name of a service."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Backends of a service: each address with each port, ready or not (M-31)."""

    service: Service
    addresses: tuple[IPAddress, ...]
    ports: tuple[tuple[int, int], ...]
    """Protocol and number."""


def slices(snapshot: Snapshot) -> tuple[Slice, ...]:
    """Every EndpointSlice that names its service."""
    return tuple(
        Slice(Service(found.metadata.namespace or "", name), tuple(_addresses(found)), tuple(_ports(found)))
        for found in snapshot.endpoint_slices
        if (name := found.metadata.labels.get(_SERVICE_NAME))
    )


def _addresses(found: EndpointSlice) -> Iterator[IPAddress]:
    """M-31: what is no address is skipped."""
    for endpoint in found.endpoints:
        for text in endpoint.addresses:
            try:
                yield ip_address(text)
            except ValueError:
                continue


def _ports(found: EndpointSlice) -> Iterator[tuple[int, int]]:
    """M-31: a port without a number contributes nothing."""
    for port in found.ports:
        if port.port is not None:
            yield _PROTOCOLS[port.protocol], port.port


def has_backend(found: Iterable[Slice], service: Service, address: IPAddress) -> bool:
    """Whether the address is a backend of the service (M-32)."""
    return any(one.service == service and address in one.addresses for one in found)


def has_backend_port(
    found: Iterable[Slice], service: Service, address: IPAddress, protocol: int, port: int | None
) -> bool:
    """Whether a backend of the service listens there (M-31); what has no readable port is nowhere."""
    return any(
        one.service == service and address in one.addresses and (protocol, port) in one.ports for one in found
    )
