"""One expectation to the packets that it asks about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

from labelgate._core import selector_answer
from labelgate.expect.world import World
from labelgate.flow import TCP, UDPLITE, CtState, FieldError, Hook, IPAddress, Packet
from labelgate.path import Destination, read_destination
from labelgate.reference.labels import Host, Workload
from labelgate.resources import AskedPeer, Expectation, PolicyTest
from labelgate.resources.values import WITH_PORTS, PortRange, did_you_mean
from labelgate.settings import HostFacts
from labelgate.table import DecisionTable

CLIENT_PORT = 49152
"""The source port where none is given: the first of those that clients use for a connection."""
MOST = 100_000
"""Questions of one expectation."""


class Unanswerable(Exception):
    """An expectation that asks nothing, or not enough to be asked; what would mend it is said."""


@dataclass(frozen=True, slots=True)
class Side:
    """An address that a peer stands for."""

    address: IPAddress
    owner: Workload | Host | None = None
    """The endpoint that is meant by it."""

    def __str__(self) -> str:
        """With the endpoint, if one is meant."""
        if self.owner is None:
            return str(self.address)
        name = self.owner.name if isinstance(self.owner, Host) else self.owner.name.partition("/")[2]
        return f"{name} ({self.address})"


@dataclass(frozen=True, slots=True)
class Question:
    """One packet, and what it is asked of."""

    source: Side
    destination: Side
    packet: Packet
    table: DecisionTable | None
    """Of the node whose way is meant; None: whether workloads connect, wherever they live."""
    is_hook: bool = False
    """Only the packet's hook, not the whole way."""
    dnat: Destination | None = None


def questions(world: World, test: PolicyTest, expectation: Expectation) -> list[Question]:
    """Every combination of an expectation's peers, IP versions and ports.

    Raises:
        Unanswerable: there is none, there are too many, or one cannot be asked.
    """
    from_, to = ([(peer, list(_sides(world, test, peer))) for peer in peers] for peers in _ends(expectation))
    sources, destinations = ([side for _, sides in end for side in sides] for end in (from_, to))
    ports = _ports(world, expectation)
    if len(sources) * len(destinations) * len(ports) > MOST:
        found = f"{len(sources)} sources, {len(destinations)} destinations and {len(ports)} port ranges"
        raise Unanswerable(f"too many questions: {found}, expected at most {MOST} combinations; split it")
    silent = [
        *_silent(from_, lambda side: any(_is_pair(side, other) for other in destinations)),
        *_silent(to, lambda side: any(_is_pair(other, side) for other in sources)),
    ]
    if silent:
        raise Unanswerable(
            f"nothing to ask of {', '.join(silent)}: no peer of the other end is another than itself and has "
            "an IP version in common with it; take it out, or ask it in an expectation of its own"
        )
    return [
        _question(world, test, expectation, source, destination, port)
        for source, destination in product(sources, destinations)
        if _is_pair(source, destination)
        for port in ports
    ]


def _ends(expectation: Expectation) -> tuple[list[AskedPeer], list[AskedPeer]]:
    return expectation.from_, expectation.to


def _silent(end: list[tuple[AskedPeer, list[Side]]], is_asked: Callable[[Side], bool]) -> Iterator[str]:
    """The peers of one end that no question is about: an answer would seem to be theirs, too."""
    for peer, sides in end:
        if not any(map(is_asked, sides)):
            yield f"`{peer.text}`" + ("" if sides else " (which has no address)")


def _is_pair(source: Side, destination: Side) -> bool:
    is_itself = source.owner is not None and source.owner is destination.owner
    return source.address.version == destination.address.version and not is_itself


def _ports(world: World, expectation: Expectation) -> list[int | None]:
    """Where a protocol has ports and none is named, all are meant."""
    protocol = TCP if expectation.protocol is None else expectation.protocol
    if protocol not in (*WITH_PORTS, UDPLITE):
        return [None]
    found: set[int] = set()
    for ports in expectation.port or [PortRange(1, 65535)]:
        single = ports.first == ports.last
        found |= {ports.first} if single else set(world.boundaries.of_ports(ports))
    return [*sorted(found)]


def _sides(world: World, test: PolicyTest, peer: AskedPeer) -> Iterator[Side]:
    if peer.net is not None:
        nets = (
            [peer.net.network_address] if peer.net.num_addresses == 1 else world.boundaries.of_net(peer.net)
        )
        yield from map(Side, nets)
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
        raise Unanswerable(f"`{peer.text}` selects no workload of the policies' files")
    for workload in chosen:
        yield from _addresses(world, workload)


def _named(world: World, test: PolicyTest, name: str) -> Iterator[Side]:
    keys = [name] if name in world.members else [f"{kind}/{name}" for kind in ("Pod", "WorkloadEndpoint")]
    found = [key for key in keys if key in world.members]
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
        yield from (Side(address) for net in member.nets for address in world.boundaries.of_net(net))


def _addresses(world: World, workload: Workload) -> Iterator[Side]:
    for net in workload.nets:
        address = net.network_address
        owner = world.owners.get(str(address))
        if owner != workload.name:
            raise Unanswerable(f"{address} of `{workload.name}` belongs to `{owner}`, whose name is smaller")
        yield Side(address, workload)


def _of_host(test: PolicyTest, host: Host) -> Iterator[Side]:
    """Its expected addresses, else those that the test gives its interface."""
    addresses = [net.network_address for net in host.nets]
    addresses = addresses or list(test.spec.interfaces.get(host.interface, ()))
    if not addresses:
        hint = "give its interface addresses in `spec.interfaces`, or name an address and `in`"
        raise Unanswerable(f"`{host.name}` has no `expectedIPs`: {hint}")
    for address in addresses:
        yield Side(address, host)


def _question(
    world: World,
    test: PolicyTest,
    expectation: Expectation,
    source: Side,
    destination: Side,
    port: int | None,
) -> Question:
    packet = Packet(
        hook=cast("Hook", expectation.hook or "filter-forward"),
        src=source.address,
        dst=destination.address,
        protocol=TCP if expectation.protocol is None else expectation.protocol,
        sport=None if port is None else expectation.source_port or CLIENT_PORT,
        dport=port,
        icmp_type=None if expectation.icmp is None else expectation.icmp.type,
        icmp_code=None if expectation.icmp is None else expectation.icmp.code,
        ct=cast("CtState", expectation.state),
    )
    if not _is_of_node(expectation, source, destination):
        if not any(str(side.address) in world.owners for side in (source, destination)):
            raise Unanswerable(
                f"neither {source} nor {destination} is a workload, so no policy is asked; for what a node "
                "makes of them give `node`, and `in` or `out`"
            )
        return Question(source, destination, packet, None)
    node = _node(world, test, expectation, (source, destination))
    dnat = None
    try:
        dnat = None if expectation.dnat is None else read_destination(expectation.dnat)
    except FieldError as error:
        raise Unanswerable(str(error)) from None
    _check_interfaces(world, test, expectation, node)
    addresses = {name: tuple(map(str, found)) for name, found in test.spec.interfaces.items()}
    in_, out = _interfaces(world, test, expectation, node, source, destination, dnat)
    packet = replace(packet, in_=in_, out=out)
    table = world.table(node, HostFacts(addresses))
    return Question(source, destination, packet, table, expectation.hook is not None, dnat)


def _is_of_node(expectation: Expectation, source: Side, destination: Side) -> bool:
    """Whether the way through one node is meant: it has a host endpoint, or says so."""
    given = (expectation.node, expectation.hook, expectation.in_, expectation.out, expectation.dnat)
    hosts = isinstance(source.owner, Host) or isinstance(destination.owner, Host)
    return hosts or any(given) or expectation.state != "new"


def _node(world: World, test: PolicyTest, expectation: Expectation, sides: tuple[Side, Side]) -> str:
    hosts = {side.owner.node for side in sides if isinstance(side.owner, Host)}
    if expectation.node and hosts - {expectation.node}:
        (host, *_) = sorted(hosts - {expectation.node})
        raise Unanswerable(f"`node` is `{expectation.node}`, but the host endpoint is one of `{host}`")
    default = {test.spec.node} if test.spec.node else set(world.nodes)
    candidates = {expectation.node} if expectation.node else hosts or default
    if len(candidates) != 1:
        raise Unanswerable("whose way is meant? Give `node` here or in `spec`")
    (node,) = candidates
    if node not in world.nodes:
        raise Unanswerable(
            f"no endpoint names node `{node}` (nodes found: {', '.join(world.nodes) or 'none'})"
        )
    return str(node)


def _check_interfaces(world: World, test: PolicyTest, expectation: Expectation, node: str) -> None:
    """Where an interface is nobody's no policy denies: a name that is misspelt would allow all."""
    endpoints = [*world.hosts.values(), *world.workloads.values()]
    named = {found.interface for found in endpoints if found.node == node and found.interface}
    known = {*named - {"*"}, *test.spec.interfaces, "lo"}
    for field, name in (("in", expectation.in_), ("out", expectation.out)):
        if name is None or name in known:
            continue
        if "*" in named and not name.startswith(world.settings.workload_prefixes):
            continue
        near = did_you_mean(name, sorted(known))
        raise Unanswerable(
            f"`{field}: {name}`: no endpoint of node `{node}` has this interface"
            + (f"; {near}" if near else "")
            + "; one without endpoints is told of in `spec.interfaces`"
        )


def _interfaces(
    world: World,
    test: PolicyTest,
    expectation: Expectation,
    node: str,
    source: Side,
    destination: Side,
    dnat: Destination | None,
) -> tuple[str | None, str | None]:
    """Where the packet comes in and goes out: as given, else by the endpoints that are meant."""
    is_sent_here = isinstance(source.owner, Host)
    in_ = expectation.in_ or (None if is_sent_here else _arrival(source, destination, node))
    after = destination if dnat is None else _translated(world, dnat)
    out = expectation.out or _departure(source, after, node)
    if expectation.hook is not None:
        return _at_hook(expectation.hook, in_, out)
    if in_ and not out and not _is_own(world, test, node, after):
        raise Unanswerable(f"where does it go? {after} is not of node `{node}`: give `out`")
    if not in_ and not _is_own(world, test, node, source):
        raise Unanswerable(f"where does it come in? {source} is not of node `{node}`: give `in`")
    if not in_ and not out:
        raise Unanswerable(f"which interface does it leave node `{node}` by? Give `out`")
    return in_, out


def _translated(world: World, dnat: Destination) -> Side:
    return Side(dnat.address, world.workloads.get(world.owners.get(str(dnat.address), "")))


def _arrival(source: Side, destination: Side, node: str) -> str | None:
    if isinstance(source.owner, Workload):
        return _interface(source, node)
    return _own(destination.owner) if isinstance(destination.owner, Host) else None


def _departure(source: Side, destination: Side, node: str) -> str | None:
    if isinstance(destination.owner, Workload):
        return _interface(destination, node)
    is_sent_out = isinstance(source.owner, Host) and not isinstance(destination.owner, Host)
    return _own(source.owner) if is_sent_out and isinstance(source.owner, Host) else None


def _at_hook(hook: str, in_: str | None, out: str | None) -> tuple[str | None, str | None]:
    """What is known at a hook, and what must be."""
    if hook.endswith("prerouting") or hook == "filter-input":
        out = None
    elif hook != "filter-forward":
        in_ = None
    if hook == "filter-forward" and not (in_ and out):
        raise Unanswerable("hook `filter-forward` needs `in` and `out`")
    if not in_ and not out:
        raise Unanswerable(
            f"hook `{hook}` needs `{'out' if 'put' in hook and hook != 'filter-input' else 'in'}`"
        )
    return in_, out


def _interface(side: Side, node: str) -> str | None:
    """Of a workload on this node."""
    is_here = isinstance(side.owner, Workload) and side.owner.node == node
    return side.owner.interface if is_here and side.owner is not None else None


def _own(host: Host) -> str | None:
    return host.interface if host.interface not in ("", "*") else None


def _is_own(world: World, test: PolicyTest, node: str, side: Side) -> bool:
    """Whether an address is one of the node's, as far as anything says so."""
    given = {found for addresses in test.spec.interfaces.values() for found in addresses}
    hosts = (host for host in world.hosts.values() if host.node == node)
    expected = {net.network_address for host in hosts for net in host.nets}
    return isinstance(side.owner, Host) or side.address in given | expected or side.address.is_loopback
