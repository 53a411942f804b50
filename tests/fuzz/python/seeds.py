"""What fuzzing begins with: made anew from cases, golden texts and tables, so that it never grows stale."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import labelgate
from labelgate.model import core_model
from labelgate.settings import Failsafe, Settings
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # odd packets are wanted

TESTS = Path(__file__).parents[2]
LONGEST = 8192
"""Longer documents are left out: they cost time and hold nothing else."""


def selectors() -> Iterator[bytes]:
    """Those of the tables of `docs/semantics.md`, accepted and refused."""
    tables = json.loads((TESTS / "cases" / "selector-texts" / "tables.json").read_text())
    for table in ("truth", "canonical", "rejected"):
        yield from (row["selector"].encode() for row in tables[table])


def packets() -> Iterator[bytes]:
    """Every header that is read, alone and behind the others."""
    transports: list[Packet] = [
        TCP(sport=40000, dport=80),
        UDP(dport=53),
        SCTP(dport=80),
        ICMP(type=8),
        Raw(),
    ]
    transports += [ICMPv6EchoRequest(), IPv6ExtHdrDestOpt() / UDP(), AH(spi=1, seq=1) / TCP()]
    extensions = [
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrRouting(),
        IPv6ExtHdrFragment(offset=0),
        IPv6ExtHdrFragment(offset=9),
    ]
    for transport in transports:
        for header in (IP(), IP(options=b"\x94\x04\0\0"), IP(frag=9), IP(flags="MF")):
            yield bytes(header / transport / Raw(b"data"))
        yield bytes(IPv6() / transport / Raw(b"data"))
        for extension in extensions:
            yield bytes(IPv6() / extension / transport / Raw(b"data"))
            yield bytes(IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / extension / transport)


def messages() -> Iterator[bytes]:
    """Datagrams of the kernel: packets, answers to requests, several in one."""
    header = attribute(1, struct.pack(">IHB", 7, 0x0800, 3))
    numbers = [attribute(number, struct.pack(">I", number)) for number in (3, 5, 6, 13)]
    payload = attribute(10, bytes(IP() / UDP(dport=53)))
    other = attribute(14, struct.pack(">I", 1))
    packet = message(0x300, nfgen() + header + b"".join(numbers) + other + payload)
    plain = message(0x300, nfgen() + header + payload)
    answers = [message(2, struct.pack("=i", code) + plain[:16]) for code in (0, -1, -(2**31))]
    yield from (
        packet,
        plain,
        message(0x300, nfgen() + payload),
        message(0x300, nfgen() + header[:6]),
        *answers,
    )
    yield from (packet + plain, plain + answers[1] + packet, plain + packet[:40], message(3, b""))
    yield from (message(0x300, nfgen() + header + attribute(number, b"\0\1")) for number in (1, 3, 5, 6, 13))


def connections() -> Iterator[bytes]:
    """Datagrams of conntrack: each family and kind of protocol, zones, answered or not; ends of answers."""
    ends = {2: (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])), 10: (bytes(15) + b"\1", bytes(15) + b"\2")}
    ports = attribute(2, b"\x9c\x40") + attribute(3, b"\0\x50")
    echo = {
        2: attribute(4, b"\0\7") + attribute(5, b"\x08") + attribute(6, b"\0"),
        10: attribute(7, b"\0\7") + attribute(8, b"\x80") + attribute(9, b"\0"),
    }
    zone, state = attribute(18, b"\0\7"), nested(4, nested(1, attribute(1, b"\3")))
    for family, (one, other) in ends.items():
        for protocol, rest in ((6, ports), (58 if family == 10 else 1, echo[family]), (47, b"")):
            numbers = (1, 2) if family == 2 else (3, 4)
            there, back = (
                nested(1, b"".join(map(attribute, numbers, pair)))
                + nested(2, attribute(1, bytes([protocol])) + rest)
                for pair in ((one, other), (other, one))
            )
            status = attribute(3, struct.pack(">I", 0x188 if rest else 0x18E))
            head, rest = struct.pack(">BBH", family, 0, 0), nested(2, back) + status
            body = head + nested(1, there) + rest
            for more in (b"", zone, state if protocol == 6 else zone + state):
                yield message(0x100, body + more)
            zoned = nested(1, there + attribute(3, b"\0\7"))
            yield message(0x100, head + zoned + rest) + message(3, bytes(4))
    yield from (message(3, bytes(4)), message(2, struct.pack("=i", -1)), message(2, bytes(4)))


def message(kind: int, body: bytes) -> bytes:
    """Struct `nlmsghdr` and a body, padded."""
    return pad(struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body)


def nfgen() -> bytes:
    """Struct `nfgenmsg` of queue 4200."""
    return struct.pack(">BBH", 2, 0, 4200)


def attribute(number: int, value: bytes) -> bytes:
    """Struct `nlattr` and a value, padded."""
    return pad(struct.pack("=HH", 4 + len(value), number) + value)


def nested(number: int, value: bytes) -> bytes:
    """The same, made of others (`NLA_F_NESTED`)."""
    return attribute(0x8000 | number, value)


def pad(content: bytes) -> bytes:
    """To a multiple of four."""
    return content + bytes(-len(content) % 4)


def captures() -> Iterator[bytes]:
    """A flow with its reply and an error about it, in both forms and behind every header of a link layer."""
    there = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=40000, dport=53)
    back = IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=53, dport=40000)
    handshake = [
        IPv6(src="::1", dst="::2") / TCP(sport=9, dport=80, flags="S"),
        IPv6(src="::2", dst="::1") / TCP(sport=80, dport=9, flags="SA"),
        IPv6(src="::1", dst="::2") / TCP(sport=9, dport=80, flags="R"),
    ]
    echo = [IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=kind, id=7) for kind in (8, 0)]
    error = IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3) / there
    conversations = [[there, back, error], handshake, echo]
    mac = bytes(12)
    headers = {
        1: [mac + b"\x08\0", mac + b"\x81\0\0\x64\x86\xdd"],
        101: [b""],
        0: [b"\x02\0\0\0"],
        113: [bytes(14) + b"\x08\0"],
        276: [b"\x08\0" + bytes(18)],
    }
    for link, starts in headers.items():
        for start, packets in product(starts, conversations):
            frames = [start + bytes(packet) for packet in packets]
            yield pcap(link, frames)
    yield pcapng(101, [bytes(packet) for packet in (*handshake, *echo)])


def pcap(link: int, frames: list[bytes]) -> bytes:
    """A file of these frames, a second apart."""
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    lengths = [struct.pack("<IIII", second, 0, len(frame), len(frame)) for second, frame in enumerate(frames)]
    return header + b"".join(map(bytes.__add__, lengths, frames))


def pcapng(link: int, frames: list[bytes]) -> bytes:
    """Section, interface with a name, packets."""
    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    interface = block(1, struct.pack("<HHIHH", link, 0, 65535, 2, 4) + b"eth0")
    packets = [
        block(6, struct.pack("<IIIII", 0, 0, 9, len(frame), len(frame)) + pad(frame)) for frame in frames
    ]
    return section + interface + b"".join(packets)


def block(kind: int, body: bytes) -> bytes:
    """A block of pcapng."""
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def documents() -> Iterator[bytes]:
    """Policies of the cases, and all that is refused in tests."""
    folders = [
        (TESTS / "cases", ("*/policy.yaml", "rejected/*.yaml")),
        (TESTS / "golden", ("errors/*.[yj]*",)),
    ]
    for folder, patterns in folders:
        for pattern in patterns:
            yield from (path.read_bytes() for path in sorted(folder.glob(pattern)))


def models() -> Iterator[bytes]:
    """Those of the cases, without fields of rules that say nothing: in short input changes matter."""
    settings = Settings(failsafe_inbound=(), failsafe_outbound=(Failsafe(17, 53),))
    for path in sorted((TESTS / "cases").glob("*/policy.yaml")):
        model = json.loads(core_model(labelgate.load(path), settings))
        for owner in (*model["policies"], *model["profiles"]):
            owner |= {side: [said(rule) for rule in owner.get(side, ())] for side in ("ingress", "egress")}
        yield json.dumps(model, separators=(",", ":")).encode()


def said(node: Any) -> Any:
    """Without fields that hold nothing."""
    if not isinstance(node, dict):
        return node
    fields = {name: said(value) for name, value in node.items()}
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


SEEDS = {
    "selector": selectors,
    "packet": packets,
    "message": messages,
    "conntrack": connections,
    "model": models,
    "capture": captures,
    "selector-reference": selectors,
    "documents": documents,
}
"""By target."""


def write(target: str, folder: Path) -> None:
    """Put the seeds of a target into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]()):
        if len(seed) <= LONGEST:
            (folder / f"{number:03}").write_bytes(seed)
