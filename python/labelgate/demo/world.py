"""The world of the demo and of the kernel tests: an edge node, two pods, an outside and an inside host.

```
 outside 203.0.113.7 (client), 192.0.2.5 (stranger)          web 10.65.0.2    db 10.65.0.3
    |                                                            |                |
    eth0 198.51.100.10 ---------------- edge ---------------- cali111          cali222
                                          |
                                        eth1 10.9.0.10 ------ inside 10.9.0.50, 10.9.1.1, 10.9.66.4
```

Every IPv4 address has an IPv6 twin: `twin("10.9.0.50")`. Nothing here reaches out of the namespaces.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

EDGE, OUTSIDE, INSIDE, WEB, DB = "edge", "outside", "inside", "web", "db"
HOSTS = (EDGE, OUTSIDE, INSIDE, WEB, DB)

CLIENT, CLIENT_REFUSED, STRANGER = "203.0.113.7", "203.0.113.99", "192.0.2.5"
EDGE_OUTSIDE, EDGE_INSIDE = "198.51.100.10", "10.9.0.10"
INSIDE_HOST, RESOLVER_CLIENT, BANNED = "10.9.0.50", "10.9.1.1", "10.9.66.4"
WEB_POD, DB_POD = "10.65.0.2", "10.65.0.3"

ADDRESSES: dict[str, tuple[str, ...]] = {
    EDGE: (EDGE_OUTSIDE, EDGE_INSIDE),
    OUTSIDE: ("198.51.100.1", CLIENT, CLIENT_REFUSED, STRANGER, "192.0.2.53", "8.8.8.8"),
    INSIDE: (INSIDE_HOST, RESOLVER_CLIENT, "10.9.1.9", BANNED, "10.8.0.1"),
    WEB: (WEB_POD,),
    DB: (DB_POD,),
}
"""Who has which address."""

PODS = {WEB: "cali111", DB: "cali222"}
"""Pod to its interface on the edge node."""

INTERFACE_OF: dict[str, str | None] = {EDGE: None, OUTSIDE: "eth0", INSIDE: "eth1", **PODS}
"""The edge node's interface towards each host."""

_V4 = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?:/(\d{1,2}))?(?![\w.])")
_counter = itertools.count()


def twin(address: str) -> str:
    """The IPv6 twin of an IPv4 address: the same 32 bits behind `2001:db8::/96`.

    >>> twin("10.65.0.2")
    '2001:db8::a41:2'
    """
    return str(IPv6Address((0x2001_0DB8 << 96) | int(IPv4Address(address))))


def twin_text(text: str) -> str:
    """Every IPv4 address and prefix in a text replaced by its twin.

    >>> twin_text("nets: [10.9.0.0/16, 192.0.2.5]")
    'nets: [2001:db8::a09:0/112, 2001:db8::c000:205]'
    """

    def replace(match: re.Match[str]) -> str:
        length = "" if match[2] is None else f"/{96 + int(match[2])}"
        return twin(match[1]) + length

    return _V4.sub(replace, text)


class World:
    """Creates the namespaces on entry and removes them, with every process started in them, on exit."""

    def __init__(self) -> None:
        self._prefix = f"lg-{os.getpid()}-{next(_counter)}"
        self._processes: list[subprocess.Popen[str]] = []

    def namespace(self, host: str) -> str:
        """The name of a host's namespace, as `ip netns` knows it."""
        return f"{self._prefix}-{host}"

    def __enter__(self) -> Self:
        remove_stale()
        try:
            for host in HOSTS:
                _ip(f"netns add {self.namespace(host)}")
            _batch(None, self._links())
            for host in HOSTS:
                self.write_sysctls(host)
                _batch(self.namespace(host), _ADDRESSING[host]())
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Ends what was started here and removes the namespaces; safe to call twice."""
        with _uninterrupted():
            for process in reversed(self._processes):
                end(process)
            self._processes.clear()
            for host in HOSTS:
                with suppress(WorldError):
                    _ip(f"netns delete {self.namespace(host)}")

    def _links(self) -> list[str]:
        def link(host: str, name: str, number: int) -> str:
            edge, other = self.namespace(EDGE), self.namespace(host)
            return (
                f"link add {name} netns {edge} address {_mac(EDGE, number)} type veth "
                f"peer name eth0 netns {other} address {_mac(host, number)}"
            )

        return [
            link(OUTSIDE, "eth0", 0),
            link(INSIDE, "eth1", 1),
            link(WEB, "cali111", 2),
            link(DB, "cali222", 3),
        ]

    def write_sysctls(self, host: str) -> None:
        """Forwarding on the edge node; no address detection delays and no source checks anywhere."""
        values = {
            "net/ipv4/ip_forward": "1" if host == EDGE else "0",
            "net/ipv6/conf/all/forwarding": "1" if host == EDGE else "0",
            "net/ipv4/conf/all/rp_filter": "0",
            "net/ipv4/conf/default/rp_filter": "0",
            "net/ipv6/conf/all/accept_dad": "0",
            "net/ipv6/conf/default/accept_dad": "0",
            "net/ipv4/icmp_ratelimit": "0",
            "net/ipv4/ping_group_range": "0 2147483647",
        }

        def write() -> None:
            for name, value in values.items():
                with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
                    file.write(value)

        self.call(host, write)

    def call(self, host: str, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function inside a host's namespace, on a thread of its own; sockets it makes stay there."""
        return call_in(self.namespace(host), function, *arguments)

    def run(self, host: str, *command: str, check: bool = True, stdin: str | None = None) -> str:
        """Runs a command to its end inside a host's namespace; its standard output."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace(host), *command],
            input=stdin, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise WorldError(f"{host}: {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start(self, host: str, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Starts a command inside a host's namespace; it is ended with the world at the latest."""
        with _uninterrupted():  # Nothing runs here that is not on the list.
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace(host), *command],
                stdin=subprocess.DEVNULL, text=True, **options,
            )  # fmt: skip
            self._processes.append(process)
        return process


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds SIGINT and SIGTERM back; what comes meanwhile is handled at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals are handled on the main thread only.
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def remove_stale() -> None:
    """Removes worlds whose maker was killed before it could, with the processes in them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30, check=False)
    for line in listed.stdout.splitlines():
        match = re.match(r"lg-(\d+)-\d+-", line)
        if match is None or os.path.exists(f"/proc/{match[1]}"):
            continue
        name = line.split()[0]
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
        for pid in map(int, inside.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(WorldError):
            _ip(f"netns delete {name}")


class WorldError(Exception):
    """The world cannot be built, or a command in it failed."""


def end(process: subprocess.Popen[str], seconds: float = 20.0) -> int:
    """Ends a process politely, then for good; its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def call_in(namespace: str, function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function on a thread that has entered a network namespace; its result or its exception."""
    outcome: list[tuple[bool, Any]] = []

    def work() -> None:
        try:
            _enter(namespace)
            outcome.append((True, function(*arguments)))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    succeeded, result = outcome[0]
    if succeeded:
        return result  # type: ignore[no-any-return]
    raise result


_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: str) -> None:
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", namespace)
    finally:
        os.close(descriptor)


def _ip(arguments: str) -> None:
    done = subprocess.run(
        ["ip", *arguments.split()], capture_output=True, text=True, timeout=30, check=False,
        process_group=0,  # A terminal's Ctrl-C is for us alone: it would stop the removal half way.
    )  # fmt: skip
    if done.returncode != 0:
        raise WorldError(f"ip {arguments}: {done.stderr.strip()}")


def _batch(namespace: str | None, lines: list[str]) -> None:
    place = [] if namespace is None else ["-n", namespace]
    done = subprocess.run(
        ["ip", *place, "-batch", "-"],
        input="\n".join(lines), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise WorldError(f"ip -batch in {namespace}: {done.stderr.strip()}")


def _mac(host: str, link: int) -> str:
    """Fixed, so that neighbours can be written down: a default-deny host cuts neighbour discovery (E-53)."""
    return f"02:00:00:00:{link:02x}:{HOSTS.index(host) + 1:02x}"


_GATEWAY, _GATEWAY6 = "169.254.1.1", "fe80::1"


def _addresses(device: str, addresses: tuple[str, ...]) -> list[str]:
    v4 = [f"address add {address}/32 dev {device}" for address in addresses]
    v6 = [f"address add {twin(address)}/128 dev {device} nodad" for address in addresses]
    return [*v4, *v6]


def _neighbour(device: str, address: str, mac: str) -> list[str]:
    return [
        f"route add {address}/32 dev {device}",
        f"route add {twin(address)}/128 dev {device}",
        f"neighbour replace {address} dev {device} lladdr {mac} nud permanent",
        f"neighbour replace {twin(address)} dev {device} lladdr {mac} nud permanent",
    ]


def _routes(device: str, gateway: str, nets: tuple[str, ...]) -> list[str]:
    v4 = [f"route add {net} via {gateway} dev {device}" for net in nets]
    v6 = [f"route add {twin_text(net)} via {twin(gateway)} dev {device}" for net in nets]
    return [*v4, *v6]


def _edge() -> list[str]:
    lines = ["link set lo up"]
    for device in ("eth0", "eth1", *PODS.values()):
        lines.append(f"link set {device} up")
    lines += [*_addresses("eth0", (EDGE_OUTSIDE,)), *_addresses("eth1", (EDGE_INSIDE,))]
    lines += _neighbour("eth0", ADDRESSES[OUTSIDE][0], _mac(OUTSIDE, 0))
    lines += _routes("eth0", ADDRESSES[OUTSIDE][0], ("203.0.113.0/24", "192.0.2.0/24", "8.8.8.8/32"))
    lines += _neighbour("eth1", ADDRESSES[INSIDE][0], _mac(INSIDE, 1))
    lines += _routes("eth1", ADDRESSES[INSIDE][0], ("10.9.0.0/16", "10.8.0.0/16"))
    for pod, device in PODS.items():
        (address,) = ADDRESSES[pod]
        lines += [
            f"address add {_GATEWAY}/32 dev {device}",
            f"address add {_GATEWAY6}/64 dev {device} nodad",
            f"route add {address}/32 dev {device}",
            f"route add {twin(address)}/128 dev {device}",
        ]
    return lines


def _host(host: str, gateway: str, link: int) -> list[str]:
    lines = ["link set lo up", "link set eth0 up", *_addresses("eth0", ADDRESSES[host])]
    lines += _neighbour("eth0", gateway, _mac(EDGE, link))
    source, source6 = ADDRESSES[host][0], twin(ADDRESSES[host][0])
    return [
        *lines,
        f"route add default via {gateway} dev eth0 src {source}",
        f"route add ::/0 via {twin(gateway)} dev eth0 src {source6}",
    ]


def _pod(host: str) -> list[str]:
    return [
        "link set lo up",
        "link set eth0 up",
        *_addresses("eth0", ADDRESSES[host]),
        f"route add {_GATEWAY}/32 dev eth0",
        f"route add default via {_GATEWAY} dev eth0",
        f"route add ::/0 via {_GATEWAY6} dev eth0",
    ]


_ADDRESSING: dict[str, Callable[[], list[str]]] = {
    EDGE: _edge,
    OUTSIDE: lambda: _host(OUTSIDE, EDGE_OUTSIDE, 0),
    INSIDE: lambda: _host(INSIDE, EDGE_INSIDE, 1),
    WEB: lambda: _pod(WEB),
    DB: lambda: _pod(DB),
}
