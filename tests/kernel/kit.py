"""What the tests of the dataplane share: rules of others, raw packets, ears, the edge node's state."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import Probe, connect, family, owner, ready, send
from labelgate.demo.world import EDGE, INTERFACE_OF, World, twin_text
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

ACCEPT, DECIDED, REJECT = 0x0100, 0x0400, 0x1000
"""Our mark bits, as they are by default."""

PROGRAMS = {"v4": "iptables", "v6": "ip6tables"}
_RULE = re.compile(r"\s*- \{action:")
_LIST = re.compile(r"\[([^\[\]]*\b\d+\.\d+\.\d+\.\d+[^\[\]]*)\]")


def dual(text: str) -> str:
    """The policies for both families: a rule with addresses has a twin (V-28), other lists hold twins too."""
    lines: list[str] = []
    for line in text.splitlines():
        if _RULE.match(line):
            lines += dict.fromkeys((line, twin_text(line)))
        else:
            lines.append(_LIST.sub(lambda found: f"[{found[1]}, {twin_text(found[1])}]", line))
    return "\n".join(lines)


def twins(*probes: Probe) -> list[Probe]:
    """Each probe and its IPv6 twin behind it."""
    return [either for probe in probes for either in (probe, probe.twin)]


def enforce(
    world: World, folder: Path, backend: str, policies: str, options: tuple[str, ...] = (), **config: Any
) -> Daemon:
    """`labelgate run` with these policies, for both families, and this configuration."""
    policy, configuration = folder / "policy.yaml", folder / "config.yaml"
    policy.write_text(dual(policies), encoding="utf-8")
    configuration.write_text(yaml.safe_dump(config), encoding="utf-8")
    return Daemon(world, policy, backend=backend, options=("--config", str(configuration), *options))


def send_all(world: World, probes: Sequence[Probe]) -> list[bool]:
    """Whether each flow works; those that share no port of a host go at the same time."""
    seen: dict[int, bool] = {}
    waiting = dict(enumerate(probes))
    while waiting:
        taken: set[tuple[object, ...]] = set()
        wave: list[int] = []
        for number, probe in waiting.items():
            ports = _ports_of(probe)
            if taken.isdisjoint(ports):
                taken |= ports
                wave.append(number)
        with ThreadPoolExecutor(len(wave)) as pool:
            results = pool.map(lambda number: send(world, probes[number]), wave)
            seen |= dict(zip(wave, results, strict=True))
        waiting = {number: probe for number, probe in waiting.items() if number not in seen}
    return [seen[number] for number in range(len(probes))]


def _ports_of(probe: Probe) -> set[tuple[object, ...]]:
    """What a probe binds: a sender on a fixed port would hear what is meant for a receiver there."""
    ports: set[tuple[object, ...]] = {(probe.protocol, *(probe.arrives_at or (probe.dst, probe.dport)))}
    return ports | ({(probe.protocol, probe.src, probe.sport)} if probe.sport else set())


def passing(world: World, *probes: Probe) -> list[str]:
    """Those that work, in words."""
    return [str(probe) for probe, works in zip(probes, send_all(world, probes), strict=True) if works]


def words(*probes: Probe) -> list[str]:
    """Probes as `passing` says them."""
    return [str(probe) for probe in probes]


def told(world: World, probe: Probe) -> str | None:
    """The error that the sender of a flow is told, None if it is told none."""

    def work() -> int:
        kind = socket.SOCK_STREAM if probe.protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family(probe.src), kind) as sender:
            sender.bind((probe.src, 0))
            code = connect(world, sender, (probe.dst, probe.dport))
            if probe.protocol == "udp":
                sender.send(b"x")
                ready(world, sender)
                code = sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return code

    code = world.call(owner(probe.src), work)
    return None if code == errno.ETIMEDOUT else errno.errorcode.get(code)


def labelgate(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a client command."""
    command = [sys.executable, "-m", "labelgate", *arguments, "--socket", daemon.socket]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it became true in this time; only a failure takes it all."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process that does not run, but holds its sockets."""
    os.kill(process, signal.SIGSTOP)
    tasks = list(Path(f"/proc/{process}/task").glob("*/stat"))
    try:
        assert wait_until(lambda: all(") T " in task.read_text() for task in tasks))
        yield
    finally:
        os.kill(process, signal.SIGCONT)


# Rules of others.


def add_rules(
    world: World, backend: str, table: str, *rules: str, families: Iterable[str] = PROGRAMS
) -> None:
    """Rules of another program, as `-A CHAIN ...`, `-I ...` or `:CHAIN - [0:0]`; IPv6: with twins."""
    for name in families:
        restore(world, backend, name, table, *(twin_text(rule) if name == "v6" else rule for rule in rules))


def restore(world: World, backend: str, name: str, table: str, *lines: str) -> None:
    """One transaction in one family; all network namespaces share the lock of the legacy variant."""
    text = "\n".join([f"*{table}", *lines, "COMMIT", ""])
    world.run(EDGE, f"{PROGRAMS[name]}-{backend}-restore", "--noflush", "--wait=20", stdin=text)


def count(chain: str, name: str, match: str, target: str = "") -> str:
    """A rule that `hits` finds by its name."""
    jump = f" -j {target}" if target else ""
    return f"-A {chain} {match} -m comment --comment {name}{jump}"


def hits(world: World, backend: str, table: str) -> dict[str, tuple[int, int]]:
    """Packets that came to each rule with a comment, IPv4 and IPv6."""
    found: dict[str, list[int]] = {}
    for index, program in enumerate(PROGRAMS.values()):
        listed = world.run(EDGE, f"{program}-{backend}-save", "-c", "-t", table)
        for packets, name in re.findall(r"^\[(\d+):\d+\] .*--comment (\S+)", listed, re.MULTILINE):
            found.setdefault(name, [0, 0])[index] += int(packets)
    return {name: (counts[0], counts[1]) for name, counts in found.items()}


def saved(world: World, backend: str) -> list[str]:
    """All rules of both families, without counters and tables that hold none."""
    lines: list[str] = []
    for program in PROGRAMS.values():
        text = world.run(EDGE, f"{program}-{backend}-save")
        for table in text.split("*")[1:]:
            rules = [line for line in table.splitlines() if line.startswith("-A") or " - [" in line]
            lines += [f"{program} {table.split()[0]} {rule.split(' [')[0]}" for rule in rules]
    return lines


# Packets as bytes.


def ip(src: str, dst: str, **fields: Any) -> Packet:
    """The header of the family of these addresses."""
    return (IP if ip_address(src).version == 4 else IPv6)(src=src, dst=dst, **fields)


def inject(world: World, host: str, *packets: Packet | bytes) -> None:
    """Sends packets as they are from a host's interface to the edge node."""
    mac = world.run(EDGE, "cat", f"/sys/class/net/{INTERFACE_OF[host]}/address").strip()

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
            for data in map(bytes, packets):
                protocol = 0x0800 if data[0] >> 4 == 4 else 0x86DD
                wire.sendto(data, ("eth0", protocol, 0, 0, bytes.fromhex(mac.replace(":", ""))))

    world.call(host, work)


class Ear:
    """Hears what a host gets of one IP protocol, before any socket does: raw sockets listen behind INPUT."""

    def __init__(self, world: World, host: str, version: int, protocol: int) -> None:
        where = socket.AF_INET if version == 4 else socket.AF_INET6
        self._world, self._version = world, version
        self._socket: socket.socket = world.call(host, socket.socket, where, socket.SOCK_RAW, protocol)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def packets(self, *, held: int = 0) -> list[bytes]:
        """What came, from the transport header on, once nothing more comes; `held`: as in `ready`."""
        heard: list[bytes] = []
        while ready(self._world, self._socket, held=held):
            packet = self._socket.recv(65535)
            heard.append(packet[(packet[0] & 15) * 4 :] if self._version == 4 else packet)
        return heard

    def ports(self) -> list[int]:
        """Destination ports of what came."""
        return sorted(int.from_bytes(packet[2:4]) for packet in self.packets())


@contextmanager
def echo_server(world: World, host: str, address: str, port: int) -> Iterator[None]:
    """Answers each datagram with itself."""

    def opened() -> socket.socket:
        made = socket.socket(family(address), socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(0.1)  # How often it looks whether it is over.
        return made

    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                server.sendto(*server.recvfrom(65535))
            except OSError:  # Nothing came, or the answer was denied.
                continue

    with world.call(host, opened) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def add_pod(world: World, interface: str, address: str) -> None:
    """A pod whose other end is in the edge node's own namespace list: a veth into the namespace of `web`."""
    edge, web = world.namespace(EDGE), world.namespace("web")
    link = f"ip link add {interface} netns {edge} type veth peer name late0 netns {web}"
    subprocess.run(link.split(), check=True)
    for host, command in (
        ("web", "ip link set late0 up"),
        ("web", f"ip address add {address}/32 dev late0"),
        (EDGE, f"ip link set {interface} up"),
        (EDGE, f"ip route add {address}/32 dev {interface}"),
    ):
        world.run(host, *command.split())
