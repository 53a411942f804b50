"""Connections that conntrack knows in the network namespace of the calling thread, and has to forget."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from labelgate import _core
from labelgate.lockout.flows import Flow
from labelgate.netlink import ACK, DUMP, NETFILTER, Question, ask_all, attribute, datagrams, nested

if TYPE_CHECKING:
    from labelgate.ways import Flows

# linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h
_SUBSYSTEM_CTNETLINK = 1
_GET, _DELETE = 1, 2
_TUPLE, _ADDRESSES, _PROTOCOL = 1, 1, 2
_SOURCE, _DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_ICMP_ID, _ICMP_TYPE, _ICMP_CODE = {4: 4, 6: 7}, {4: 5, 6: 8}, {4: 6, 6: 9}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def read_connections(*, in_any_state: bool = False) -> list[Flows]:
    """Tracked connections of IPv4 and of IPv6 that both sides have a part in; of TCP the established ones.

    `in_any_state`: all that conntrack would let something pass of, so also those that begin or end.
    Connections in a zone of their own are in neither.

    Raises:
        OSError: conntrack cannot be asked.
    """
    from labelgate.ways import Flows

    found = _core.Connections(in_any_state)
    with closing(datagrams(NETFILTER, _question(_GET, DUMP, socket.AF_UNSPEC))) as answer:
        for datagram in answer:
            if found.add(datagram):
                break
    return [Flows(**columns) for columns in found.columns()]


def forget_connections(flows: Sequence[Flow]) -> list[Flow]:
    """Has conntrack forget connections; those that it still knew.

    Raises:
        OSError: conntrack cannot be asked.
    """
    answers = ask_all(NETFILTER, map(_deletion, flows))
    # It has ended meanwhile where this fails.
    return [flow for flow, answer in zip(flows, answers, strict=True) if not isinstance(answer, OSError)]


def _deletion(flow: Flow) -> Question:
    version = flow.src.version
    if flow.icmp:
        kind, code, number = flow.icmp
        ends: Iterable[bytes] = (
            attribute(_ICMP_ID[version], struct.pack("!H", number)),
            attribute(_ICMP_TYPE[version], bytes([kind])),
            attribute(_ICMP_CODE[version], bytes([code])),
        )
    else:
        ends = (
            attribute(_SOURCE_PORT, struct.pack("!H", flow.sport)),
            attribute(_DESTINATION_PORT, struct.pack("!H", flow.dport)),
        )
    addresses = nested(
        _ADDRESSES,
        attribute(_SOURCE[version], flow.src.packed),
        attribute(_DESTINATION[version], flow.dst.packed),
    )
    protocol = nested(_PROTOCOL, attribute(_NUMBER, bytes([flow.protocol])), *ends)
    return _question(_DELETE, ACK, _FAMILIES[version], nested(_TUPLE, addresses, protocol))


def _question(kind: int, flags: int, family: int, body: bytes = b"") -> Question:
    return _SUBSYSTEM_CTNETLINK << 8 | kind, flags, struct.pack("=BBH", family, 0, 0) + body
