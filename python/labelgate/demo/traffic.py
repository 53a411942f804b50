"""Real packets between the hosts of the world, and whether they arrived.

Every probe is one new flow from a port of its own. A packet counts as lost when nothing has come for a while
in which none waited for a verdict: on a busy machine the daemon may be late.
"""

from __future__ import annotations

import errno
import itertools
import select
import socket
import struct
import time
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from labelgate.demo.world import ADDRESSES, EDGE, World, twin

LOOK_SECONDS, QUIET_LOOKS = 0.1, 4
"""A packet is lost when so many looks in a row found nothing, neither here nor in a queue.

On these links it takes well below a millisecond.
"""
MOST_SECONDS = 5.0
"""How long one may wait for its verdict, and a server may take to answer."""

_ports = itertools.cycle(range(20_000, 30_000))


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


def queued(world: World) -> int:
    """Packets that wait for a verdict in the edge node."""

    def read() -> str:
        try:
            return Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text(encoding="ascii")
        except FileNotFoundError:  # No queue has ever been made.
            return ""

    return sum(int(line.split()[2]) for line in world.call(EDGE, read).splitlines())


def ready(world: World, opened: socket.socket, *, writable: bool = False, held: int = 0) -> bool:
    """Waits until a socket can be read (or written); False once nothing can come any more.

    `held` packets may stay in the queues: nobody answers them meanwhile.
    """
    readers, writers = ([], [opened]) if writable else ([opened], [])
    over, quiet = time.monotonic() + MOST_SECONDS, 0
    while quiet < QUIET_LOOKS and time.monotonic() < over:
        if any(select.select(readers, writers, [], LOOK_SECONDS)):
            return True
        quiet = quiet + 1 if queued(world) <= held else 0
    return False


def send(world: World, probe: Probe) -> bool:
    """Whether the flow works: a datagram arrives, a connection is made, an echo is answered."""
    sender = owner(probe.src)
    sport = probe.sport or next(_ports)
    if probe.protocol == "icmp":
        return world.call(sender, _echo, world, probe.src, probe.dst, sport)
    address, port = probe.arrives_at or (probe.dst, probe.dport)
    receiver = world.call(owner(address), _receiver, _kind(probe), address, port)
    try:
        return world.call(sender, _deliver, world, probe, sport, receiver)
    finally:
        receiver.close()


def ask(world: World, probe: Probe, request: bytes) -> bytes | None:
    """Asks a server that is there already; the first part of its answer, None if none comes in time."""

    def exchange() -> bytes | None:
        with _sender(probe, probe.sport or next(_ports)) as client:
            try:
                if connect(world, client, (probe.dst, probe.dport)) != 0:
                    return None
                client.sendall(request)
                # Who is connected is not denied: only the server can be late.
                is_waiting = probe.protocol == "tcp" or ready(world, client)
                return client.recv(65535) if is_waiting else None
            except OSError:
                return None

    return world.call(owner(probe.src), exchange)


def connect(world: World, client: socket.socket, target: tuple[str, int]) -> int:
    """Connects; 0, or the error that the network tells, ETIMEDOUT if it tells nothing."""
    client.settimeout(0)
    code = client.connect_ex(target)
    if code == errno.EINPROGRESS:
        is_told = ready(world, client, writable=True)
        code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if is_told else errno.ETIMEDOUT
    client.settimeout(MOST_SECONDS)
    return code


def _kind(probe: Probe) -> socket.SocketKind:
    return socket.SOCK_STREAM if probe.protocol == "tcp" else socket.SOCK_DGRAM


def _receiver(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    receiver = socket.socket(family(address), kind)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    receiver.bind((address, port))
    receiver.settimeout(0)
    if kind == socket.SOCK_STREAM:
        receiver.listen()
    return receiver


def _sender(probe: Probe, sport: int) -> socket.socket:
    sender = socket.socket(family(probe.src), _kind(probe))
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sender.bind((probe.src, sport))
    return sender


def _deliver(world: World, probe: Probe, sport: int, receiver: socket.socket) -> bool:
    with _sender(probe, sport) as sender:
        try:
            if connect(world, sender, (probe.dst, probe.dport)) != 0:
                return False
            if probe.protocol == "udp":
                sender.send(b"probe")
            if not ready(world, receiver):
                return False
            if probe.protocol == "udp":
                return receiver.recv(65535) == b"probe"
            receiver.accept()[0].close()
        except OSError:
            return False
        return True


_ECHO = {
    socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0),
    socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129),
}


def _echo(world: World, source: str, target: str, identity: int) -> bool:
    protocol, request, reply = _ECHO[family(source)]
    with socket.socket(family(source), socket.SOCK_RAW, protocol) as sender:
        sender.bind((source, 0))
        payload = b"labelgate"
        header = struct.pack("!BBHHH", request, 0, 0, identity, 1)
        if family(source) == socket.AF_INET:
            header = struct.pack("!BBHHH", request, 0, _checksum(header + payload), identity, 1)
        try:
            sender.sendto(header + payload, (target, 0))
        except OSError:
            return False
        return _hears(world, sender, reply, identity)


def _hears(world: World, sender: socket.socket, reply: int, identity: int) -> bool:
    """Whether the answer comes; raw sockets hear everything of their protocol."""
    while ready(world, sender):
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
