"""One expectation to the packets that it asks about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from labelgate.expect.connections import connections
from labelgate.expect.cuts import NodeCuts
from labelgate.expect.question import Question, packet
from labelgate.expect.sides import Side, Unanswerable, is_pair, sides
from labelgate.expect.world import World
from labelgate.flow import FieldError
from labelgate.path import Destination, read_destination
from labelgate.reference.labels import Host, Workload
from labelgate.resources import AskedPeer, Expectation, PolicyTest
from labelgate.resources.values import did_you_mean
from labelgate.settings import HostFacts

MOST = 100_000
"""Questions of one expectation."""
Told = list[tuple[AskedPeer, list[Side]]]
"""Peers, each with what it stands for."""


def questions(world: World, test: PolicyTest, expectation: Expectation) -> list[Question]:
    """Everything that an expectation asks, each kind of packet that is told apart once.

    Raises:
        Unanswerable: there is none, there are too many, or one cannot be asked.
    """
    from_, to = (
        [(peer, list(sides(world, test, peer))) for peer in peers]
        for peers in (expectation.from_, expectation.to)
    )
    _check_silent(from_, to)
    sources, destinations = ([side for _, found in end for side in found] for end in (from_, to))
    found: list[Question] = []
    for question in _questions(world, test, expectation, sources, destinations):
        found.append(question)
        if len(found) > MOST:
            told = f"{len(sources)} sources and {len(destinations)} destinations, as policy tells them apart"
            raise Unanswerable(f"too many questions: {told}, expected at most {MOST}; split it")
    return found


def _questions(
    world: World, test: PolicyTest, expectation: Expectation, sources: list[Side], destinations: list[Side]
) -> Iterator[Question]:
    if _is_way(expectation):
        yield from _ways(world, test, expectation, product(sources, destinations))
        return
    hosts = [[side for side in end if isinstance(side.owner, Host)] for end in (sources, destinations)]
    others = [[side for side in end if not isinstance(side.owner, Host)] for end in (sources, destinations)]
    yield from _ways(world, test, expectation, product(hosts[0], destinations))
    yield from _ways(world, test, expectation, product(others[0], hosts[1]))
    yield from connections(world, expectation, others[0], others[1])


def _ways(
    world: World, test: PolicyTest, expectation: Expectation, pairs: Iterator[tuple[Side, Side]]
) -> Iterator[Question]:
    """Through one node, for each pair whose way it is."""
    addresses = {name: tuple(map(str, found)) for name, found in test.spec.interfaces.items()}
    dnat = _dnat(expectation)
    asked = [pair for pair in pairs if is_pair(*pair)]
    cuts: dict[tuple[str, int], NodeCuts] = {}
    for source, destination in asked:
        node = _node(world, test, expectation, (source, destination))
        _check_interfaces(world, test, expectation, node)
        table = world.table(node, HostFacts(addresses))
        key = node, source.family
        if key not in cuts:
            of_family = [pair for pair in asked if pair[0].family == source.family]
            cuts[key] = NodeCuts.of(world, test, expectation, (table, node), of_family, dnat)
        for way in cuts[key].pairs(source, destination):
            for port in cuts[key].ports:
                in_, out = _interfaces(world, test, expectation, node, *way, dnat)
                asks = replace(packet(expectation, *way, port), in_=in_, out=out)
                before = None if dnat is None else _departure(*way, node)
                is_known = dnat is None or bool(before or not in_ or _is_own(world, test, node, way[1]))
                yield Question(*way, asks, table, expectation.hook is not None, dnat, before, is_known)


def _dnat(expectation: Expectation) -> Destination | None:
    try:
        return None if expectation.dnat is None else read_destination(expectation.dnat)
    except FieldError as error:
        raise Unanswerable(str(error)) from None


def _check_silent(from_: Told, to: Told) -> None:
    """Peers of one end that no question is about: an answer would seem to be theirs, too."""
    sources, destinations = (_Known.of(end) for end in (from_, to))
    silent = [*_silent(from_, destinations), *_silent(to, sources)]
    if silent:
        raise Unanswerable(
            f"nothing to ask of {', '.join(silent)}: no peer of the other end is another than itself and has "
            "an IP version in common with it; take it out, or ask it in an expectation of its own"
        )


@dataclass(frozen=True)
class _Known:
    """Of one end whom each IP version knows."""

    owners: dict[int, set[str | None]]

    @classmethod
    def of(cls, end: Told) -> _Known:
        found: dict[int, set[str | None]] = {}
        for _, several in end:
            for side in several:
                name = None if side.owner is None else side.owner.name
                found.setdefault(side.family, set()).add(name)
        return cls(found)

    def has_other(self, side: Side) -> bool:
        owners = self.owners.get(side.family, set())
        return bool(owners if side.owner is None else owners - {side.owner.name})


def _silent(end: Told, other: _Known) -> Iterator[str]:
    for peer, found in end:
        if not any(map(other.has_other, found)):
            yield f"`{peer.text}`" + ("" if found else " (which has no address)")


def _is_way(expectation: Expectation) -> bool:
    """Whether the way through one node is meant, whoever the peers are."""
    given = (expectation.node, expectation.hook, expectation.in_, expectation.out, expectation.dnat)
    return any(given) or expectation.state != "new"


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
    return Side.at(dnat.address, world.workloads.get(world.owners.get(str(dnat.address), "")))


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
