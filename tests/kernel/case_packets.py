"""The bytes of a packet that a row describes, at a given length."""

from __future__ import annotations

from dataclasses import replace

from labelgate import flow
from labelgate.flow import Packet
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.layers.sctp import SCTP
from scapy.packet import Packet as Layer
from scapy.packet import Raw
from scapy.utils import checksum

TCP_FLAGS = {"new": "S", "untracked": "S", "established": "A", "invalid": "SA"}
"""What makes conntrack call it that: a SYN-ACK that nobody asked for is invalid."""


def packet_bytes(packet: Packet, length: int) -> bytes:
    """The whole IP packet of `length` bytes, with zeros as payload; the checksum of UDPLite is not right."""
    kind = IP if packet.src.version == 4 else IPv6
    number = {"proto" if kind is IP else "nh": packet.protocol}
    header: Layer = kind(src=str(packet.src), dst=str(packet.dst), **number)
    whole = bytes(header / _transport(packet, header, length - len(header)))
    assert len(whole) == length, f"{len(whole)} bytes, not {length}"
    return whole


def _transport(packet: Packet, header: Layer, size: int) -> Layer:
    ports = {"sport": packet.sport, "dport": packet.dport}
    match packet.protocol:
        case flow.TCP:
            return TCP(flags=TCP_FLAGS[packet.ct], **ports) / Raw(bytes(size - 20))
        case flow.UDP:
            return UDP(**ports) / Raw(bytes(size - 8))
        case flow.SCTP:
            # INIT with one parameter that nobody knows and everybody skips (RFC 9260, 3.2.1, 3.3.2).
            init = b"\1\0" + (size - 12).to_bytes(2) + b"\0\0\0\1" * 4
            return SCTP(**ports) / Raw(init + b"\xc0\0" + (size - 32).to_bytes(2) + bytes(size - 36))
        case flow.UDPLITE:
            # Coverage 0 is everything, checksum 0 is refused (RFC 3828).
            start = (packet.sport or 0).to_bytes(2) + (packet.dport or 0).to_bytes(2)
            return Raw(start + b"\0\0\0\1" + bytes(size - 8))
        case flow.ICMP | flow.ICMPV6:
            about = packet_bytes(known_flow(packet), size - 8) if packet.ct == "related" else bytes(size - 8)
            return Raw(_icmp(packet, header, bytes(4) + about))
    return Raw(bytes(size))


def _icmp(packet: Packet, header: Layer, rest: bytes) -> bytes:
    """Type, code, checksum and the rest; only ICMPv6 counts the addresses in."""
    start = bytes([packet.icmp_type or 0, packet.icmp_code or 0])
    plain = start + bytes(2) + rest
    total = checksum(plain) if packet.protocol == flow.ICMP else in6_chksum(flow.ICMPV6, header, plain)
    return start + total.to_bytes(2) + rest


def known_flow(packet: Packet) -> Packet:
    """The flow that makes conntrack know a packet: its own, or the one that its error is about."""
    if packet.ct != "related":
        return packet
    ports = {"protocol": flow.TCP, "sport": 40000, "dport": 80, "icmp_type": None, "icmp_code": None}
    return replace(packet, src=packet.dst, dst=packet.src, ct="established", **ports)
