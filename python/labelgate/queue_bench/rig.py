"""Sender, receiver and the routers between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from labelgate.demo.namespaces import Namespaces, batch

SENDER, RECEIVER = "sender", "receiver"
SOURCES = "10.71.0.0/16"
"""Everybody who sends, for rules."""
TARGETS = 16
"""Addresses of a server: each has room for as many connections that were closed a moment ago."""


@dataclass(frozen=True, slots=True)
class Router:
    """Where it is, seen from both sides."""

    number: int

    @property
    def host(self) -> str:
        """The name of its namespace."""
        return f"r{self.number}"

    @property
    def near(self) -> str:
        """Its address on `eth0`."""
        return f"10.71.{self.number}.1"

    @property
    def client(self) -> str:
        """The sender's address in its network."""
        return f"10.71.{self.number}.2"

    @property
    def servers(self) -> list[str]:
        """The receiver's addresses in its other network."""
        return [f"10.72.{self.number}.{last}" for last in range(1, TARGETS + 1)]

    @property
    def own(self) -> list[str]:
        """Addresses of the router itself, as many."""
        return [f"10.71.{self.number}.{last}" for last in range(101, 101 + TARGETS)]

    @property
    def flooded(self) -> str:
        """The receiver has no such address: it drops what comes for it, without an answer."""
        return f"10.73.{self.number}.1"

    @property
    def dropped(self) -> str:
        """The router has a route to nowhere for it: whatever such a packet costs, it costs the router."""
        return f"10.74.{self.number}.1"

    @property
    def sender_device(self) -> str:
        """The sender's interface to it."""
        return f"s{self.number}"

    @property
    def receiver_device(self) -> str:
        """The receiver's interface to it."""
        return f"d{self.number}"

    def mac(self, side: int) -> bytes:
        """0: sender, 1: `eth0`, 2: `eth1`, 3: receiver."""
        return bytes([2, 0, 0, 0, self.number, side])

    def mac_text(self, side: int) -> str:
        """The same in words."""
        return self.mac(side).hex(":")


class Rig(Namespaces):
    """The namespaces, with links, addresses and routes. IPv6 is off: nobody asks for neighbours meanwhile."""

    def __init__(self, routers: Sequence[Router]) -> None:
        super().__init__([SENDER, RECEIVER, *(router.host for router in routers)])
        self.routers = routers

    def build(self) -> None:
        """Links, addresses and routes."""
        for host in self._hosts:
            self.set_sysctls(host, _sysctls(host))
        sender, receiver = self.namespace(SENDER), self.namespace(RECEIVER)
        links = []
        for router in self.routers:
            place = self.namespace(router.host)
            mac = router.mac_text
            links += [
                f"link add eth0 netns {place} address {mac(1)} type veth "
                f"peer name {router.sender_device} netns {sender} address {mac(0)}",
                f"link add eth1 netns {place} address {mac(2)} type veth "
                f"peer name {router.receiver_device} netns {receiver} address {mac(3)}",
            ]
        batch(None, links)
        batch(sender, ["link set lo up", *(line for router in self.routers for line in _sender(router))])
        batch(receiver, ["link set lo up", *(line for router in self.routers for line in _receiver(router))])
        for router in self.routers:
            batch(self.namespace(router.host), _router(router))

    def remove(self) -> None:
        """All processes end at the same time."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        super().remove()

    def queues(self, router: Router) -> list[int]:
        """The numbers of a router's queues that are bound."""
        with closing(Watch(self, router)) as watch:
            return [line[0] for line in watch.queues()]


class Watch:
    """What has come through a router, and what waits in it. Read without entering a namespace each time."""

    def __init__(self, rig: Rig, router: Router) -> None:
        self._device = f"{router.receiver_device}:".encode()
        self._devices = rig.call(RECEIVER, _open, "dev")
        assert self._devices is not None, "every namespace has devices"
        self._queues = rig.call(router.host, _open, "netfilter/nfnetlink_queue")

    def received(self) -> int:
        """Packets that have come to the receiver."""
        assert self._devices is not None
        (line,) = (line for line in _lines(self._devices) if line.strip().startswith(self._device))
        return int(line.split(b":")[1].split()[1])

    def queues(self) -> list[list[int]]:
        """By queue: number, port, waiting, mode, copied bytes, dropped by it, by its socket, last id, 1."""
        return [] if self._queues is None else [list(map(int, line.split())) for line in _lines(self._queues)]

    def waiting(self) -> int:
        """Packets without a verdict."""
        return sum(line[2] for line in self.queues())

    def answered(self) -> int:
        """Packets with one, so far: ids are given to all that the queue takes, also if the socket is full."""
        return sum(line[7] - line[6] - line[2] for line in self.queues())

    def dropped(self) -> int:
        """By full queues and full socket buffers."""
        return sum(line[5] + line[6] for line in self.queues())

    def close(self) -> None:
        """The namespaces can go."""
        for opened in (self._devices, self._queues):
            if opened is not None:
                os.close(opened)


def _open(name: str) -> int | None:
    """A file of the calling thread's namespace, which stays that file."""
    try:
        return os.open(f"/proc/thread-self/net/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # No queue has ever been made on this host.
        return None


def _lines(opened: int) -> list[bytes]:
    os.lseek(opened, 0, os.SEEK_SET)
    return b"".join(iter(lambda: os.read(opened, 65536), b"")).splitlines()


def _sysctls(host: str) -> dict[str, str]:
    values = {
        "net/ipv6/conf/all/disable_ipv6": "1",
        "net/ipv6/conf/default/disable_ipv6": "1",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/default/rp_filter": "0",
        "net/ipv4/ip_forward": "0" if host in (SENDER, RECEIVER) else "1",
        # Above all failsafe ports: untracked policy does not see what a client sends from one (E-43).
        "net/ipv4/ip_local_port_range": "7000 65535",
        "net/ipv4/tcp_tw_reuse": "1",
    }
    return {name: value for name, value in values.items() if Path(f"/proc/sys/{name}").exists()}


def _sender(router: Router) -> list[str]:
    device = router.sender_device
    return [
        f"link set {device} up",
        f"address add {router.client}/24 dev {device}",
        f"neighbour replace {router.near} dev {device} lladdr {router.mac_text(1)} nud permanent",
        *(
            f"neighbour replace {own} dev {device} lladdr {router.mac_text(1)} nud permanent"
            for own in router.own
        ),
        f"route add 10.72.{router.number}.0/24 via {router.near} dev {device}",
    ]


def _receiver(router: Router) -> list[str]:
    device, gateway = router.receiver_device, f"10.72.{router.number}.254"
    return [
        f"link set {device} up",
        *(f"address add {server}/24 dev {device}" for server in router.servers),
        f"neighbour replace {gateway} dev {device} lladdr {router.mac_text(2)} nud permanent",
        f"route add 10.71.{router.number}.0/24 via {gateway} dev {device}",
    ]


def _router(router: Router) -> list[str]:
    return [
        "link set lo up",
        "link set eth0 up",
        "link set eth1 up",
        f"address add {router.near}/24 dev eth0",
        *(f"address add {own}/24 dev eth0" for own in router.own),
        f"address add 10.72.{router.number}.254/24 dev eth1",
        f"neighbour replace {router.client} dev eth0 lladdr {router.mac_text(0)} nud permanent",
        *(
            f"neighbour replace {server} dev eth1 lladdr {router.mac_text(3)} nud permanent"
            for server in router.servers
        ),
        f"route add {router.flooded}/32 via {router.servers[0]} dev eth1",
        f"route add blackhole {router.dropped}/32",
    ]
