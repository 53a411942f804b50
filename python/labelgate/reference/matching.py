"""Whether a packet meets the criteria of a rule: section 3, one function for each group of criteria.

Nothing is computed ahead: every selector is compared with every member that has the address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from labelgate.flow import IPAddress, Packet
from labelgate.reference.labels import Endpoint, IPNetwork, Member
from labelgate.reference.rules import Entity, Icmp, Port, Rule
from labelgate.reference.selectors import Expression, matches
from labelgate.reference.services import Slice, has_backend, has_backend_port

_ICMP, _TCP, _UDP, _ICMPV6, _SCTP, _UDPLITE = 1, 6, 17, 58, 132, 136
_WITH_PORTS = (_TCP, _UDP, _SCTP, _UDPLITE)
_WITH_NAMED_PORTS = (_TCP, _UDP, _SCTP)
_FAMILY_OF_PROTOCOL = {_ICMP: 4, _ICMPV6: 6}


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a packet, and the criteria on it (M-4)."""

    entity: Entity
    address: IPAddress
    port: int | None
    """None where it cannot be read (M-19)."""


def rule_matches(rule: Rule, packet: Packet, members: Iterable[Member], slices: Iterable[Slice] = ()) -> bool:
    """All present criteria hold (M-1 to M-4)."""
    source_port, destination_port = readable_ports(packet) or (None, None)
    sides = (Side(rule.source, packet.src, source_port), Side(rule.destination, packet.dst, destination_port))
    return (
        exists_for(rule, packet.src.version)
        and protocol_matches(rule, packet.protocol)
        and icmp_matches(rule, packet)
        and all(nets_match(side) for side in sides)
        and all(ports_match(side, packet.protocol, members) for side in sides)
        and all(selectors_match(side, members) for side in sides)
        and services_match(sides, packet.protocol, slices)
    )


def readable_ports(packet: Packet) -> tuple[int, int] | None:
    """Source and destination port, unless this is a later fragment or a protocol without ports (M-19)."""
    if packet.fragment or packet.protocol not in _WITH_PORTS:
        return None
    if packet.sport is None or packet.dport is None:
        return None
    return packet.sport, packet.dport


def readable_icmp(packet: Packet) -> Icmp | None:
    """ICMP type and code, under the same conditions."""
    if packet.fragment or packet.protocol not in _FAMILY_OF_PROTOCOL or packet.icmp_type is None:
        return None
    return Icmp(packet.icmp_type, packet.icmp_code)


def exists_for(rule: Rule, version: int) -> bool:
    """Whether the rule exists for this IP version at all (M-10 to M-14)."""
    if rule.ip_version not in (None, version):
        return False  # M-10
    if rule.protocol is not None and _FAMILY_OF_PROTOCOL.get(rule.protocol, version) != version:
        return False  # M-11
    sides = (rule.source, rule.destination)
    return all(
        _has_family(side.nets, version) and _has_family(side.not_nets, version) for side in sides
    ) and not any(_is_catch_all(net, version) for side in sides for net in side.not_nets)  # M-14


def _has_family(nets: tuple[IPNetwork, ...], version: int) -> bool:
    """A list that holds only nets of the other family takes the whole rule with it (M-12, M-13)."""
    return not nets or any(net.version == version for net in nets)


def _is_catch_all(net: IPNetwork, version: int) -> bool:
    return net.version == version and net.prefixlen == 0


def protocol_matches(rule: Rule, protocol: int) -> bool:
    """M-15."""
    return rule.protocol in (None, protocol) and rule.not_protocol != protocol


def icmp_matches(rule: Rule, packet: Packet) -> bool:
    """M-33; what cannot be read matches neither form (M-19)."""
    if rule.icmp is None and rule.not_icmp is None:
        return True
    found = readable_icmp(packet)
    if found is None:
        return False
    positive = rule.icmp is None or _is_icmp(found, rule.icmp)
    return positive and not (rule.not_icmp is not None and _is_icmp(found, rule.not_icmp))


def _is_icmp(found: Icmp, wanted: Icmp) -> bool:
    return found.type == wanted.type and wanted.code in (None, found.code)


def nets_match(side: Side) -> bool:
    """M-16."""
    nets, not_nets = side.entity.nets, side.entity.not_nets
    is_inside = not nets or any(side.address in net for net in nets)
    return is_inside and not any(side.address in net for net in not_nets)


def selectors_match(side: Side, members: Iterable[Member]) -> bool:
    """M-20; notSelector on its own is also satisfied by addresses that nobody has (M-24)."""
    positive, negative = side.entity.positive, side.entity.negative
    if positive is not None and not _is_selected(positive, side.address, members):
        return False
    return negative is None or not _is_selected(negative, side.address, members)


def _is_selected(expression: Expression, address: IPAddress, members: Iterable[Member]) -> bool:
    return any(_has(member, address) and matches(expression, member.labels) for member in members)


def _has(member: Member, address: IPAddress) -> bool:
    return any(address in net for net in member.nets)


def services_match(sides: tuple[Side, Side], protocol: int, slices: Iterable[Slice]) -> bool:
    """M-31, M-32."""
    source, destination = sides
    wanted = source.entity.service
    if wanted is not None and not has_backend(slices, wanted, source.address):
        return False
    wanted = destination.entity.service
    return wanted is None or has_backend_port(slices, wanted, destination.address, protocol, destination.port)


def ports_match(side: Side, protocol: int, members: Iterable[Member]) -> bool:
    """M-17 to M-19."""
    entity = side.entity
    if side.port is None and any(not isinstance(port, str) for port in entity.not_ports):
        return False  # M-19: what has no port matches no numeric criterion, nor a negated one
    is_listed = not entity.ports or _is_one_of(entity.ports, side, protocol, members)
    return is_listed and not _is_one_of(entity.not_ports, side, protocol, members)


def _is_one_of(ports: tuple[Port, ...], side: Side, protocol: int, members: Iterable[Member]) -> bool:
    """M-17: in a range, or of a name."""
    for port in ports:
        if isinstance(port, str):
            if _is_named(port, side, protocol, members):
                return True
        elif side.port is not None and port[0] <= side.port <= port[1]:
            return True
    return False


def _is_named(name: str, side: Side, protocol: int, members: Iterable[Member]) -> bool:
    """M-25 to M-28: an endpoint with this address defines the name for this protocol and port.

    The protocol is the packet's, which the rule's own protocol, if it has one, has matched by now.
    """
    wanted = side.entity.positive
    return protocol in _WITH_NAMED_PORTS and any(
        isinstance(member, Endpoint)
        and _defines(member, name, protocol, side.port)
        and _has(member, side.address)
        and (wanted is None or matches(wanted, member.labels))
        for member in members
    )


def _defines(endpoint: Endpoint, name: str, protocol: int, port: int | None) -> bool:
    return any((found.name, found.protocol, found.port) == (name, protocol, port) for found in endpoint.ports)
