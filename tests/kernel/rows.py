"""Rows of the case folders as real packets: which the world can send, and what should become of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from kit import send_all
from labelgate.demo.traffic import Probe, owner
from labelgate.demo.world import INTERFACE_OF, World
from labelgate.flow import ICMP, ICMPV6, TCP, UDP, Answer, Packet
from labelgate.path import Judge, walk

CASES = Path(__file__).parents[1] / "cases"

_PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}
ECHO_REQUESTS = (8, 128)


@dataclass(frozen=True)
class Row:
    """One packet of a case that the world can send."""

    id: str
    packet: Packet
    probe: Probe

    @property
    def twin(self) -> Row:
        """The same over IPv6."""
        probe = self.probe.twin
        icmp = {"protocol": ICMPV6, "icmp_type": 128} if self.packet.protocol == ICMP else {}
        addresses = {"src": ip_address(probe.src), "dst": ip_address(probe.dst)}
        return Row(self.id, replace(self.packet, **addresses, **icmp), probe)


def sendable(packets: Iterator[tuple[str, Packet]]) -> Iterator[Row]:
    """The packets that begin a new flow between hosts of the world, by the interfaces that routing takes."""
    for identity, packet in packets:
        try:
            sender, receiver = owner(str(packet.src)), owner(str(packet.dst))
        except KeyError:
            continue
        is_first = packet.ct == "new" and not (packet.accepted or packet.dnatted or packet.fragment)
        is_echo = packet.protocol in (ICMP, ICMPV6) and packet.icmp_type in ECHO_REQUESTS
        has_port = packet.protocol in (TCP, UDP) and packet.dport
        places = (INTERFACE_OF[sender], INTERFACE_OF[receiver])
        before_routing = packet.hook.endswith("prerouting")
        seen = (packet.in_, packet.out or (places[1] if before_routing else None))
        if is_first and (is_echo or has_port) and seen == places and sender != receiver:
            protocol = _PROTOCOLS[packet.protocol]
            # An ephemeral source port says nothing to any policy: a fresh one makes a new flow each time.
            sport = packet.sport if packet.sport and packet.sport < 1024 else 0
            probe = Probe(protocol, str(packet.src), str(packet.dst), packet.dport or 0, sport)  # type: ignore[arg-type]
            yield Row(identity, packet, probe)


def expected(judge: Judge, row: Row) -> list[Answer]:
    """The answers at every hook on the way that routing gives the packet."""
    sender, receiver = owner(row.probe.src), owner(row.probe.dst)
    packet = replace(row.packet, in_=INTERFACE_OF[sender], out=INTERFACE_OF[receiver])
    return [visit.answer for visit in walk(judge, packet)]


def arrives(answers: list[Answer], *, base_drops: bool) -> bool:
    """Whether the packet arrives, where the base chains of filter accept, or drop what nobody accepted."""
    if any(answer.verdict == "deny" for answer in answers):
        return False
    return not base_drops or any(answer.verdict == "allow" for answer in answers)


def send_rows(world: World, rows: list[Row]) -> dict[str, bool]:
    """Whether each arrives."""
    results = send_all(world, [row.probe for row in rows])
    return {row.id: arrived for row, arrived in zip(rows, results, strict=True)}
