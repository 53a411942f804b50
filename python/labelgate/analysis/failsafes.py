"""Failsafe ports as rules: boundaries of a partition, of which only the criteria count."""

from __future__ import annotations

from functools import cache
from ipaddress import IPv4Network, IPv6Network

from labelgate.analysis.addresses import IPV4, IPV6
from labelgate.analysis.program import ANYWHERE, AddressSet, Direction, Ports, Rule, Side, set_of
from labelgate.settings import Failsafe


@cache
def failsafe_rule(entry: Failsafe, direction: Direction, *, is_return: bool = False) -> Rule:
    """What an entry takes of packets in a direction, those of its own connections or the replies (E-43).

    The net is that of the remote side (E-41). Equal entries give equal rules: their sets are one object.
    """
    remote, families = ANYWHERE, (True, True)
    if entry.net is not None:
        remote = Side((_set(entry.net),))
        families = (entry.net.version == IPV4, entry.net.version == IPV6)
    ports = Ports(((entry.port, entry.port),))
    source, destination = (remote, ANYWHERE) if direction == "ingress" else (ANYWHERE, remote)
    if is_return:
        source = Side(source.in_sets, ports=ports)
    else:
        destination = Side(destination.in_sets, ports=ports)
    return Rule("Allow", entry.protocol, source=source, destination=destination, families=families)


@cache
def _set(net: IPv4Network | IPv6Network) -> AddressSet:
    return set_of(net.version, [(int(net.network_address), int(net.broadcast_address))])
