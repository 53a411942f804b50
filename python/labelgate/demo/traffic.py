"""Real packets between the hosts of the world, and whether they arrived.

Every probe is one new flow from a port of its own, and waits a bounded time.
"""

from __future__ import annotations

import itertools
import select
import socket
import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Literal

from labelgate.demo.world import ADDRESSES, World, twin

WAIT_SECONDS = 0.4
"""How long a packet may take before it counts as lost; on these links it takes well below a millisecond."""

_ports = itertools.count(20_000)


@dataclass(frozen=True, slots=True)
class Probe:
    """One new flow."""

    protocol: Literal["tcp", "udp", "icmp"]
    src: str
    dst: str
    dport: int = 0
    sport: int = 0
    """0: a port of its own."""
    arrives_at: tuple[str, int] | None = None
    """Where it arrives, if not where it is sent to (DNAT)."""

    @property
    def twin(self) -> Probe:
        """The same over IPv6."""
        at = self.arrives_at and (twin(self.arrives_at[0]), self.arrives_at[1])
        return replace(self, src=twin(self.src), dst=twin(self.dst), arrives_at=at)

    def __str__(self) -> str:
        port = f" port {self.dport}" if self.protocol != "icmp" else " echo"
        return f"{self.protocol} {self.src} > {self.dst}{port}"


def owner(address: str) -> str:
    """The host that has an address or is the IPv4 twin's owner."""
    for host, addresses in ADDRESSES.items():
        if address in addresses or address in map(twin, addresses):
            return host
    raise KeyError(f"no host of the world has {address}")


def family(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6


def send(world: World, probe: Probe) -> bool:
    """Whether the flow works: a datagram arrives, a connection is made, an echo is answered."""
    sender = owner(probe.src)
    sport = probe.sport or next(_ports)
    if probe.protocol == "icmp":
        return world.call(sender, _echo, probe.src, probe.dst, sport)
    address, port = probe.arrives_at or (probe.dst, probe.dport)
    kind = socket.SOCK_STREAM if probe.protocol == "tcp" else socket.SOCK_DGRAM
    receiver = world.call(owner(address), _receiver, kind, address, port)
    try:
        return world.call(sender, _deliver, kind, (probe.src, sport), (probe.dst, probe.dport), receiver)
    finally:
        receiver.close()


def ask(world: World, probe: Probe, request: bytes) -> bytes | None:
    """Asks a server that is there already; the first part of its answer, None if none comes in time."""

    def exchange() -> bytes | None:
        kind = socket.SOCK_STREAM if probe.protocol == "tcp" else socket.SOCK_DGRAM
        with _sender(kind, (probe.src, probe.sport or next(_ports))) as client:
            try:
                client.connect((probe.dst, probe.dport))
                client.sendall(request)
                return client.recv(65535)
            except OSError:
                return None

    return world.call(owner(probe.src), exchange)


def _receiver(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    receiver = socket.socket(family(address), kind)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    receiver.bind((address, port))
    receiver.settimeout(WAIT_SECONDS)
    if kind == socket.SOCK_STREAM:
        receiver.listen()
    return receiver


def _sender(kind: socket.SocketKind, source: tuple[str, int]) -> socket.socket:
    sender = socket.socket(family(source[0]), kind)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sender.bind(source)
    sender.settimeout(WAIT_SECONDS)
    return sender


def _deliver(
    kind: socket.SocketKind, source: tuple[str, int], target: tuple[str, int], receiver: socket.socket
) -> bool:
    with _sender(kind, source) as sender:
        try:
            if kind == socket.SOCK_STREAM:
                sender.connect(target)
                receiver.accept()[0].close()
                return True
            sender.sendto(b"probe", target)
            return receiver.recvfrom(65535)[0] == b"probe"
        except OSError:
            return False


_ECHO = {
    socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0),
    socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129),
}


def _echo(source: str, target: str, identity: int) -> bool:
    protocol, request, reply = _ECHO[family(source)]
    with socket.socket(family(source), socket.SOCK_RAW, protocol) as sender:
        sender.bind((source, 0))
        identity &= 0xFFFF
        payload = b"labelgate"
        header = struct.pack("!BBHHH", request, 0, 0, identity, 1)
        if family(source) == socket.AF_INET:
            header = struct.pack("!BBHHH", request, 0, _checksum(header + payload), identity, 1)
        try:
            sender.sendto(header + payload, (target, 0))
        except OSError:
            return False
        return _hears(sender, reply, identity)


def _hears(sender: socket.socket, reply: int, identity: int) -> bool:
    """Whether the answer comes; raw sockets hear everything of their protocol."""
    while select.select([sender], [], [], WAIT_SECONDS)[0]:
        packet = sender.recv(65535)
        message = packet[(packet[0] & 15) * 4 :] if sender.family == socket.AF_INET else packet
        if message[0] == reply and struct.unpack("!H", message[4:6])[0] == identity:
            return True
    return False


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def conntrack_entries(world: World, host: str, text: str) -> int:
    """How many conntrack entries of a host mention a text, such as `dport=11211`."""
    listed = world.run(host, "conntrack", "-f", "ipv4", "-L", check=False)
    listed += world.run(host, "conntrack", "-f", "ipv6", "-L", check=False)
    return sum(text in line.split() for line in listed.splitlines())
