"""Datagrams that are counted one by one, and others of all kinds that are not."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from labelgate.demo.traffic import family, owner
from labelgate.demo.world import (
    BANNED,
    CLIENT,
    DB_POD,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE_HOST,
    STRANGER,
    WEB_POD,
    World,
    twin,
)

SO_RCVBUFFORCE = 33  # asm-generic/socket.h; root may exceed net.core.rmem_max
_FLOWS = 50
_OURS = b"soak"
"""Others send to the same ports."""
_STRANGERS = (CLIENT, STRANGER, INSIDE_HOST, BANNED, "10.9.1.9", WEB_POD, DB_POD)
_TARGETS = (EDGE_OUTSIDE, EDGE_INSIDE, WEB_POD, DB_POD)


class Stream:
    """Datagrams that policy always allows, from many ports; how many were sent, and how many arrived."""

    def __init__(self, world: World, src: str, dst: str, dport: int) -> None:
        self.name = f"{src} > {dst} port {dport}"
        self.sent = self.arrived = 0
        self._target = (dst, dport)
        self._ear = world.call(owner(dst), _bound, dst, dport)
        # Nothing is lost here while this process has other things to do.
        self._ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self._ear.setblocking(False)
        self._senders = [world.call(owner(src), _bound, src, 40_000 + number) for number in range(_FLOWS)]

    def send(self) -> None:
        """One more, from the next port."""
        self._senders[self.sent % _FLOWS].sendto(_OURS, self._target)
        self.sent += 1

    def hear(self) -> None:
        """Counts what has arrived."""
        with suppress(BlockingIOError):
            while True:
                self.arrived += self._ear.recv(64) == _OURS

    def close(self) -> None:
        """Ends it."""
        for opened in (self._ear, *self._senders):
            opened.close()


class Noise:
    """New flows of random ports, protocols and addresses, both families; some are denied, some allowed."""

    def __init__(self, world: World, seed: int) -> None:
        self._dice = random.Random(seed)
        self._senders: dict[tuple[str, socket.SocketKind], socket.socket] = {}
        for address in _STRANGERS:
            for source in (address, twin(address)):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
                    self._senders[source, kind] = world.call(owner(source), _source, source, kind)
        self._targets = [(target, twin(target)) for target in _TARGETS]

    def send(self) -> None:
        """One packet: UDP to some port, or one of another protocol, whose first bytes may be ports too."""
        dice = self._dice
        source = dice.choice(_STRANGERS)
        targets = dice.choice(self._targets)
        is_v6 = dice.random() < 0.5
        kind = dice.choice((socket.SOCK_DGRAM, socket.SOCK_RAW))
        ports = (22, 53, 80, 443, 5353, 9100, 4789, dice.randrange(6000, 6100), dice.randrange(1, 65536))
        port = dice.choice(ports)
        # A raw socket sends what stands for a TCP or ICMPv6 header, and takes no port.
        data = port.to_bytes(2) * 2 + dice.randbytes(20)
        address = (targets[is_v6], port if kind == socket.SOCK_DGRAM else 0)
        with suppress(OSError):  # What a host may not send.
            self._senders[twin(source) if is_v6 else source, kind].sendto(data, address)

    def close(self) -> None:
        """Ends it."""
        for sender in self._senders.values():
            sender.close()


class Load:
    """Runs something again and again in a thread of its own, with a pause between."""

    def __init__(self, work: Callable[[], object], pause: float) -> None:
        self._work, self._pause = work, pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self._work()
            time.sleep(self._pause)

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self._thread.join()


def _bound(address: str, port: int) -> socket.socket:
    opened = socket.socket(family(address), socket.SOCK_DGRAM)
    opened.bind((address, port))
    return opened


def _source(address: str, kind: socket.SocketKind) -> socket.socket:
    protocols = {socket.AF_INET: socket.IPPROTO_TCP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
    protocol = protocols[family(address)] if kind == socket.SOCK_RAW else 0
    opened = socket.socket(family(address), kind, protocol)
    opened.bind((address, 0))
    opened.setblocking(False)
    return opened
