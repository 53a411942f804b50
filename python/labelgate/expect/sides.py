"""Peers of an expectation to the addresses that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from labelgate._core import selector_answer
from labelgate.expect.world import World
from labelgate.flow import IPAddress
from labelgate.reference.labels import Host, IPNetwork, Workload
from labelgate.resources import AskedPeer, PolicyTest
from labelgate.resources.values import did_you_mean
from labelgate.snapshot import Snapshot


class Unanswerable(Exception):
    """An expectation that asks nothing, or not enough to be asked; what would mend it is said."""


@dataclass(frozen=True, slots=True)
class Side:
    """Addresses that a peer stands for; one that has an owner is a single address."""

    net: IPNetwork
    owner: Workload | Host | None = None
    """The endpoint that is meant by it."""

    @classmethod
    def at(cls, address: IPAddress, owner: Workload | Host | None = None) -> Side:
        """A single address."""
        return cls(ip_network(address), owner)

    @property
    def address(self) -> IPAddress:
        """The first one."""
        return self.net.network_address

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.net.version

    @property
    def is_single(self) -> bool:
        """Whether it is one address."""
        return self.net.num_addresses == 1

    def __str__(self) -> str:
        """The first address, with the endpoint, if one is meant."""
        if self.owner is None:
            return str(self.address)
        name = self.owner.name if isinstance(self.owner, Host) else self.owner.name.partition("/")[2]
        return f"{name} ({self.address})"


def is_pair(source: Side, destination: Side) -> bool:
    """Whether packets from one to the other are asked about: nobody who is named is asked about itself."""
    is_itself = source.owner is not None and source.owner is destination.owner
    return source.family == destination.family and not is_itself


def sides(world: World, test: PolicyTest, peer: AskedPeer) -> Iterator[Side]:
    """What a peer stands for.

    Raises:
        Unanswerable: it does not exist, selects nothing, or has no address of its own.
    """
    if peer.net is not None:
        yield Side(peer.net)
    elif peer.selector is not None:
        yield from _selected(world, peer)
    else:
        yield from _named(world, test, peer.name or "")


def _selected(world: World, peer: AskedPeer) -> Iterator[Side]:
    chosen = [
        workload
        for workload in world.workloads.values()
        if peer.namespace in (None, workload.name.split("/")[1])
        and selector_answer(peer.selector or "", dict(workload.labels))[0]
    ]
    if not chosen:
        namespaces = {name.split("/")[1] for name in world.workloads}
        near = None if peer.namespace is None else did_you_mean(peer.namespace, sorted(namespaces))
        raise Unanswerable(
            f"`{peer.text}` selects no workload of the policies' files" + (f"; {near}" if near else "")
        )
    for workload in chosen:
        yield from _addresses(world, workload)


def _named(world: World, test: PolicyTest, name: str) -> Iterator[Side]:
    keys = [name] if name in world.members else [f"{kind}/{name}" for kind in ("Pod", "WorkloadEndpoint")]
    found = [key for key in keys if key in world.members]
    if not found and (lack := _lack(world.snapshot, {name, *keys})):
        raise Unanswerable(f"`{name}` is no endpoint: it {lack} (R-30)")
    if len(found) != 1:
        near = did_you_mean(name, [*world.members, *(key.partition("/")[2] for key in world.workloads)])
        why = (
            f"is both {found[0]} and {found[1]}" if found else "is no endpoint or set of the policies' files"
        )
        raise Unanswerable(f"`{name}` {why}" + (f"; {near}" if near and not found else ""))
    member = world.members[found[0]]
    if isinstance(member, Workload):
        yield from _addresses(world, member)
    elif isinstance(member, Host):
        yield from _of_host(test, member)
    else:
        yield from map(Side, member.nets)


def _lack(snapshot: Snapshot, keys: set[str]) -> str | None:
    """Why a pod or workload that is there is no endpoint."""
    for pod in snapshot.pods:
        if pod.key in keys:
            if pod.spec.host_network:
                return "is on the network of its host"
            if not pod.spec.node_name:
                return "has no node yet"
            has_address = pod.status.pod_ips or pod.status.pod_ip
            return f"is finished ({pod.status.phase})" if has_address else "has no address"
    if any(workload.key in keys for workload in snapshot.workload_endpoints):
        return "has no `ipNetworks`"
    return None


def _addresses(world: World, workload: Workload) -> Iterator[Side]:
    for net in workload.nets:
        address = net.network_address
        owner = world.owners.get(str(address))
        if owner != workload.name:
            raise Unanswerable(f"{address} of `{workload.name}` belongs to `{owner}`, whose name is smaller")
        yield Side.at(address, workload)


def _of_host(test: PolicyTest, host: Host) -> Iterator[Side]:
    """Its expected addresses, else those that the test gives its interface."""
    addresses = [net.network_address for net in host.nets]
    addresses = addresses or list(test.spec.interfaces.get(host.interface, ()))
    if not addresses:
        hint = "give its interface addresses in `spec.interfaces`, or name an address and `in`"
        raise Unanswerable(f"`{host.name}` has no `expectedIPs`: {hint}")
    for address in addresses:
        yield Side.at(address, host)
