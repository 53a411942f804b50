"""The queue at its edges: full, without a listener, malformed packets, fragments, super-packets, counters."""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path

import policies
import pytest
from kit import Ear, echo_server, enforce, inject, ip, passing, stopped, twins, wait_until, words
from labelgate.demo.traffic import Probe, ask, family, owner, send
from labelgate.demo.world import (
    BANNED,
    CLIENT,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE,
    INSIDE_HOST,
    OUTSIDE,
    RESOLVER_CLIENT,
    STRANGER,
    WEB,
    WEB_POD,
    World,
    twin,
)
from labelgate.flow import HOOKS, Hook
from policies import ALLOWED_DATAGRAM as ALLOWED
from policies import REFUSED_DATAGRAM as REFUSED
from scapy.layers.inet import UDP

SENT = 100
ROOM = 20
PATIENCE = 60


def flood(world: World, probe: Probe, count: int = SENT) -> None:
    """Datagrams of new flows."""

    def work() -> None:
        for number in range(count):
            with socket.socket(family(probe.src), socket.SOCK_DGRAM) as sender:
                sender.bind((probe.src, 30_000 + number))
                sender.sendto(b"x", (probe.dst, probe.dport))

    world.call(owner(probe.src), work)


def waiting_and_dropped(world: World, hook: Hook) -> tuple[int, int]:
    """Of the hook's IPv4 queue: packets without verdict, and those that it had no room for."""
    number = 4200 + 2 * HOOKS.index(hook)  # Where there is one worker.
    for line in world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines():
        fields = list(map(int, line.split()))
        if fields[0] == number:
            return fields[2], fields[5]
    raise AssertionError(f"queue {number} is not bound")


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_overflow(world: World, backend: str, mode: str, tmp_path: Path) -> None:
    """What exceeds the queue is dropped and counted, or passes where the hook fails open."""
    config = {"queues": {"maxlen": ROOM, "workers": 1}, "fail": {"filter-input": mode}}
    with (
        enforce(world, tmp_path, backend, policies.MANAGEMENT, **config) as daemon,
        Ear(world, EDGE, 4, socket.IPPROTO_UDP) as ear,
    ):
        with stopped(daemon.process.pid):
            flood(world, ALLOWED)
            passed = SENT - ROOM if mode == "open" else 0
            assert len(ear.packets(held=ROOM)) == passed
            assert waiting_and_dropped(world, "filter-input") == (ROOM, SENT - ROOM - passed)
        assert len(ear.packets()) == ROOM
        assert daemon.counters()["hooks"]["filter-input"]["queue_dropped"] == SENT - ROOM - passed
        assert passing(world, *twins(ALLOWED, REFUSED)) == words(*twins(ALLOWED))


def test_a_flood_leaves_other_hooks_their_room(world: World, backend: str, tmp_path: Path) -> None:
    text = f"{policies.MANAGEMENT}---{policies.PODS}---{DENIED_POD}"
    with (
        enforce(world, tmp_path, backend, text, queues={"maxlen": ROOM, "workers": 1}) as daemon,
        Ear(world, WEB, 4, socket.IPPROTO_UDP) as ear,
    ):
        with stopped(daemon.process.pid):
            flood(world, ALLOWED)
            flood(world, Probe("udp", INSIDE_HOST, WEB_POD, 80), ROOM)
            full, whole = (ROOM, SENT - ROOM), (ROOM, 0)
            assert wait_until(lambda: waiting_and_dropped(world, "filter-input") == full)
            assert wait_until(lambda: waiting_and_dropped(world, "filter-forward") == whole)
        assert len(ear.packets()) == ROOM


IN_TURN = {
    "filter-input": (policies.MANAGEMENT, ALLOWED, REFUSED),
    "raw-prerouting": (
        policies.RESOLVER,
        Probe("udp", RESOLVER_CLIENT, EDGE_INSIDE, 5353),
        Probe("udp", BANNED, EDGE_INSIDE, 5353),
    ),
}


@pytest.mark.parametrize("hook", IN_TURN)
def test_denied_and_allowed_in_turn(world: World, backend: str, hook: Hook, tmp_path: Path) -> None:
    """All that waits is answered together: each packet has its own verdict, and what passes its order."""
    without_ipv6(world)
    text, *probes = IN_TURN[hook]
    with (
        enforce(world, tmp_path, backend, text, queues={"workers": 1}) as daemon,
        Ear(world, EDGE, 4, socket.IPPROTO_UDP) as ear,
    ):
        with stopped(daemon.process.pid):
            for number in range(SENT):
                one_datagram(world, probes[number % 2], number)
            assert wait_until(lambda: waiting_and_dropped(world, hook) == (SENT, 0))
        assert [packet[8] for packet in ear.packets()] == [*range(0, SENT, 2)]
        verdicts = daemon.verdicts(hook)
        assert [verdicts.pop("deny"), *verdicts.values()] == [SENT // 2] * 2


def without_ipv6(world: World) -> None:
    """Hosts would send of themselves."""
    for host in (EDGE, OUTSIDE, INSIDE, WEB):
        world.run(host, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")


def one_datagram(world: World, probe: Probe, number: int) -> None:
    """Its one byte is the number."""

    def work() -> None:
        with socket.socket(family(probe.src), socket.SOCK_DGRAM) as sender:
            sender.bind((probe.src, 0))
            sender.sendto(bytes([number]), (probe.dst, probe.dport))

    world.call(owner(probe.src), work)


def test_no_listener(world: World, backend: str, tmp_path: Path) -> None:
    """After kill -9 a hook is closed, but one that fails open lets pass; what the kernel settles holds."""
    text = f"{policies.MANAGEMENT}---{policies.PODS}---{DENIED_POD}"
    to_web, to_host = Probe("udp", INSIDE_HOST, WEB_POD, 80), Probe("udp", WEB_POD, EDGE_INSIDE, 80)
    with enforce(world, tmp_path, backend, text, fail={"filter-input": "open"}) as daemon:
        assert passing(world, *twins(ALLOWED, REFUSED, to_web)) == words(*twins(ALLOWED, to_web))
        daemon.process.kill()
        daemon.process.wait()
        assert passing(world, *twins(ALLOWED, REFUSED, to_web, to_host)) == words(*twins(ALLOWED, REFUSED))


DENIED_POD = policies.policy(
    "some",
    """
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [80]}}
""",
).replace("role == 'edge'", "app == 'web'")
"""Something to ask the engine about the pod `web`."""


LARGE = policies.policy(
    "large",
    """
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: UDP, source: {nets: [10.9.0.0/16]}, destination: {ports: [9200]}}
  - {action: Allow, protocol: TCP, source: {nets: [10.9.0.0/16]}, destination: {ports: [5002]}}
  egress:
  - {action: Deny, protocol: TCP}
""",
    order=20,
)
BULK = policies.policy(
    "bulk",
    """
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [10.9.0.0/16]}, destination: {ports: [5001]}}
  egress:
  - {action: Allow, protocol: TCP, source: {ports: [5001]}, destination: {nets: [10.9.0.0/16]}}
""",
    more="  doNotTrack: true\n  applyOnForward: true\n",
)


@pytest.mark.parametrize("malformed", ["deny", "accept"])
def test_malformed_packets(world: World, backend: str, malformed: str, tmp_path: Path) -> None:
    """Counted by kind, and answered as configured at every hook."""
    half = b"\x13\x89"  # two bytes of a UDP header; raw sockets get them nevertheless
    short = [
        bytes(ip(RESOLVER_CLIENT, EDGE_INSIDE, proto=17) / half),
        bytes(ip(twin(RESOLVER_CLIENT), twin(EDGE_INSIDE), nh=17) / half),
        # a destination options header that says to be longer than what is there
        bytes(ip(twin(RESOLVER_CLIENT), twin(EDGE_INSIDE), nh=60) / b"\x11\x04\1\4\0\0\0\0"),
    ]
    longer = bytearray(short[0])
    longer[2:4] = (200).to_bytes(2)  # says 200 bytes: the kernel drops it before any hook
    # The port match of failsafe rules drops such packets by itself, whatever is configured here.
    without = {"failsafeInboundHostPorts": "none", "failsafeOutboundHostPorts": "none"}
    given = {"malformed": malformed, "disableConntrackInvalidCheck": True, **without}
    with (
        enforce(world, tmp_path, backend, f"{policies.RESOLVER}---{LARGE}", **given) as daemon,
        Ear(world, EDGE, 4, socket.IPPROTO_UDP) as ear,
        Ear(world, EDGE, 6, socket.IPPROTO_UDP) as ear6,
    ):
        inject(world, INSIDE, *short, bytes(longer))
        heard = [] if malformed == "deny" else [half]
        assert [ear.packets(), ear6.packets()] == [heard, heard]
        hooks = daemon.counters()["hooks"]
        counted = {hook: {kind: n for kind, n in hooks[hook]["malformed"].items() if n} for hook in hooks}
        assert counted["raw-prerouting"] == {"truncated": 3}


@pytest.mark.parametrize("malformed", ["deny", "accept"])
def test_long_extension_headers(world: World, backend: str, malformed: str, tmp_path: Path) -> None:
    """M-15, M-17: read up to 212 bytes; a packet with more is denied, whoever pads it, and counted."""

    def padded(size: int, port: int) -> bytes:
        # One option that is to be skipped if it is not known (RFC 8200, 4.2).
        option = bytes([17, size // 8 - 1, 0x1E, size - 4]) + bytes(size - 4) if size else b""
        head = ip(twin(RESOLVER_CLIENT), twin(EDGE_INSIDE), nh=60 if size else 17)
        udp = UDP(sport=5000 + size, dport=port, chksum=0xFFFF) / size.to_bytes(2)
        return bytes(head / (option + bytes(udp)))

    with (
        enforce(world, tmp_path, backend, f"{policies.RESOLVER}---{LARGE}", malformed=malformed) as daemon,
        Ear(world, EDGE, 6, socket.IPPROTO_UDP) as ear,
    ):
        inject(world, INSIDE, *(padded(size, port) for size in (0, 88, 208, 216) for port in (5353, 5354)))
        assert sorted(int.from_bytes(packet[-2:]) for packet in ear.packets()) == [0, 88, 208]
        hooks = daemon.counters()["hooks"]
        assert hooks["raw-prerouting"]["malformed"]["not-copied"] == 2
        assert hooks["raw-prerouting"]["fail_open"]["malformed"] == 0


@pytest.mark.parametrize("size", [4000, 60_000])
def test_fragments(world: World, backend: str, size: int, tmp_path: Path) -> None:
    """Datagrams larger than the link's MTU: whole at every hook, allowed and denied by their ports."""
    data = bytes(range(250)) * (size // 250)
    text = f"{policies.RESOLVER}---{LARGE}---{policies.PODS}---{DENIED_POD}"
    raw, filtered = (
        Probe("udp", RESOLVER_CLIENT, EDGE_INSIDE, 5353),
        Probe("udp", INSIDE_HOST, EDGE_INSIDE, 9200),
    )
    banned, closed = Probe("udp", BANNED, EDGE_INSIDE, 5353), Probe("udp", INSIDE_HOST, EDGE_INSIDE, 9201)
    forwarded, refused = Probe("udp", INSIDE_HOST, WEB_POD, 80), Probe("udp", INSIDE_HOST, WEB_POD, 81)
    with enforce(world, tmp_path, backend, text):
        for wanted, unwanted in ((raw, banned), (filtered, closed), (forwarded, refused)):
            for good, bad in ((wanted, unwanted), (wanted.twin, unwanted.twin)):
                with (
                    echo_server(world, owner(good.dst), good.dst, good.dport),
                    Ear(world, owner(bad.dst), 6 if ":" in bad.dst else 4, socket.IPPROTO_UDP) as ear,
                ):
                    assert ask(world, good, data) == data
                    assert ask(world, bad, data) is None
                    assert [len(packet) for packet in ear.packets()] == [8 + size]


@pytest.mark.parametrize("port", [5001, 5002], ids=["untracked", "tracked"])
@pytest.mark.parametrize("address", [EDGE_INSIDE, twin(EDGE_INSIDE)], ids=["v4", "v6"])
def test_super_packets(world: World, backend: str, port: int, address: str, tmp_path: Path) -> None:
    """A transfer whose packets are all queued in raw, in segments far above the MTU, arrives intact."""
    data = bytes(range(256)) * (4 * 4096)
    digest: list[str] = []

    def listen() -> socket.socket:
        return socket.create_server((address, port), family=family(address))

    def receive() -> None:
        with server.accept()[0] as peer:
            peer.settimeout(PATIENCE)
            whole = hashlib.sha256()
            while part := peer.recv(1 << 20):
                whole.update(part)
            digest.append(whole.hexdigest())

    def transmit() -> None:
        source = RESOLVER_CLIENT if "." in address else twin(RESOLVER_CLIENT)
        with socket.create_connection(
            (address, port), timeout=PATIENCE, source_address=(source, 0)
        ) as client:
            client.sendall(data)

    with (
        enforce(world, tmp_path, backend, f"{policies.RESOLVER}---{BULK}---{LARGE}") as daemon,
        world.call(EDGE, listen) as server,
    ):
        receiver = threading.Thread(target=receive)
        receiver.start()
        world.call(INSIDE, transmit)
        receiver.join()
        assert digest == [hashlib.sha256(data).hexdigest()]
        verdict = {5001: "allow-notrack", 5002: "continue"}[port]
        packets = daemon.verdicts("raw-prerouting")[verdict]
        assert packets < len(data) / 1448, "some packets are larger than the link's MTU"


def test_counters_say_what_was_sent(world: World, backend: str, tmp_path: Path) -> None:
    """SIGUSR1: per hook and verdict."""
    without_ipv6(world)
    text = f"{policies.MANAGEMENT}---{policies.PODS}---{DENIED_POD}"
    # A late answer has TCP send again.
    guard = policies.GUARD.replace("TCP", "UDP")
    with enforce(world, tmp_path, backend, text + guard) as daemon:
        seen = [send(world, probe) for probe in (ALLOWED, ALLOWED, REFUSED)]
        seen += [send(world, Probe("udp", CLIENT, WEB_POD, port)) for port in (80, 80, 81)]
        seen.append(send(world, Probe("udp", CLIENT, EDGE_OUTSIDE, 30443)))
        # Denied by a rule of the kernel, which counts for itself.
        seen.append(send(world, Probe("udp", EDGE_OUTSIDE, STRANGER, 7)))
        assert seen == [True, True, False, True, True, False, True, False]
        hooks = daemon.counters()["hooks"]
        verdicts = {
            hook: {word: number for word, number in counted["verdicts"].items() if number}
            for hook, counted in hooks.items()
        }
        assert verdicts == {
            "raw-prerouting": {},
            "raw-output": {},
            "mangle-prerouting": {"continue": 6, "allow-skip-hep": 1},
            "filter-input": {"allow": 2, "deny": 1},
            "filter-forward": {"allow": 2, "deny": 1},
            "filter-output": {},
            "mangle-postrouting": {},
        }
        assert {hook: counted["packets"] for hook, counted in hooks.items()} == {
            hook: sum(counted.values()) for hook, counted in verdicts.items()
        }
