"""The handler of the PyPI package NetfilterQueue: the verdicts of the core's loop, and Python's last word."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import socket
from pathlib import Path

import policies
import pytest
from kit import Ear, enforce, inject, ip, passing, saved, told, twins, wait_until, words
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import Probe, conntrack_entries, ready, send
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
    WEB_POD,
    World,
)
from labelgate.handlers.netfilterqueue import NetfilterQueueLoop
from labelgate.processors import Workers
from labelgate.snapshot import Snapshot
from namespaces import a_new_one
from policies import ALLOWED, ALLOWED_DATAGRAM, REFUSED
from scapy.layers.inet import UDP
from test_queue import ROOM, SENT, flood, stopped, waiting_and_dropped

HANDLER = ("--handler", "netfilterqueue")
SSH = Probe("tcp", STRANGER, EDGE_OUTSIDE, 22)
NODE_PORT = Probe("tcp", CLIENT, EDGE_OUTSIDE, 30443)
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # linux/in.h


def on_packet(folder: Path, body: str) -> tuple[str, ...]:
    """Options for an `on_packet` with this body."""
    file = folder / "look.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    file.write_text(f"def look(packet, decision):\n{lines}\n", encoding="utf-8")
    return (*HANDLER, "--on-packet", f"{file}:look")


def errors(daemon: Daemon, hook: str) -> int:
    count: int = daemon.counters()["hooks"][hook]["on_packet_errors"]
    return count


def test_a_loop_leaves_no_descriptor_open() -> None:
    """Neither one that ends, nor one that does not begin."""

    def loop(base: int) -> NetfilterQueueLoop:
        return NetfilterQueueLoop(
            Snapshot.of([]).compile(node="edge1").core, [], base=base, maxlen=64, marks=(1, 2, 4),
            fail_open=[False] * 7, malformed_accept=False, filter_reject=False, filter_return=False,
            without_repeat=[False] * 7,
        )  # fmt: skip

    with a_new_one():
        before = os.listdir("/proc/self/fd")
        first = loop(4200)
        with pytest.raises(OSError, match="queue 4213 cannot be bound"):
            loop(4213)
        first.stop()
        first.stop()
        assert first.drain(0) is False
        del first
        gc.collect()  # The package's own ones go with their queue.
        assert os.listdir("/proc/self/fd") == before


def test_verdicts_are_those_of_the_table(world: World, backend: str, tmp_path: Path) -> None:
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, HANDLER) as daemon:
        assert passing(world, *twins(ALLOWED, REFUSED)) == words(*twins(ALLOWED))
        verdicts = daemon.verdicts("filter-input")
        # A refused connection is tried again by TCP.
        assert verdicts["allow"] == 2
        assert verdicts["deny"] >= 2
        # A failsafe is settled by a rule, ahead of the queue.
        send(world, SSH)
        assert daemon.verdicts("filter-input")["allow"] == 2


def test_untracked_policy_leaves_no_conntrack_entry(world: World, backend: str, tmp_path: Path) -> None:
    """REPEAT with both marks: the rules of raw do the rest."""
    asked, banned = (Probe("udp", source, EDGE_INSIDE, 5353) for source in (RESOLVER_CLIENT, BANNED))
    with enforce(world, tmp_path, backend, policies.RESOLVER, HANDLER) as daemon:
        assert passing(world, *twins(asked, banned)) == words(*twins(asked))
        verdicts = daemon.verdicts("raw-prerouting")
        # Neighbour discovery is `continue`, whenever it comes.
        assert (verdicts["allow-notrack"], verdicts["deny"]) == (2, 2)
        assert conntrack_entries(world, EDGE, "dport=5353") == 0


def test_malformed_packets_are_denied_and_counted(world: World, backend: str, tmp_path: Path) -> None:
    half = bytes(ip(RESOLVER_CLIENT, EDGE_INSIDE, proto=17) / b"\x13\x89")  # Two bytes of a UDP header.
    # The port match of failsafe rules would drop it ahead of the queue.
    without = {"failsafeInboundHostPorts": "none", "failsafeOutboundHostPorts": "none"}
    with (
        enforce(world, tmp_path, backend, policies.RESOLVER, HANDLER, **without) as daemon,
        Ear(world, EDGE, 4, 17) as ear,
    ):
        inject(world, INSIDE, half)
        assert ear.packets() == []
        assert daemon.counters()["hooks"]["raw-prerouting"]["malformed"] == {"truncated": 1}


def test_on_packet_has_the_last_word(world: World, backend: str, tmp_path: Path) -> None:
    """It turns both: a denial of the table and an allowance; the packet and the decision say why."""
    body = """
assert packet.hook == "filter-input" and packet.in_ == "eth0" and packet.out is None
assert packet.payload[0] >> 4 == packet.version
if packet.payload[9 if packet.version == 4 else 6] != 6:
    return decision.verdict
assert (decision.policy is None) == (decision.verdict == "deny"), decision
return {"allow": "deny", "deny": "allow"}[decision.verdict]"""
    options = on_packet(tmp_path, body)
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, options) as daemon:
        assert passing(world, *twins(ALLOWED, REFUSED)) == words(*twins(REFUSED))
        assert daemon.verdicts("filter-input")["allow"] == 2
        assert errors(daemon, "filter-input") == 0


def test_on_packet_can_leave_connections_untracked(world: World, backend: str, tmp_path: Path) -> None:
    """A verdict of its own is said with the marks that it needs: `continue` would be tracked."""
    body = "return 'allow-notrack' if decision.verdict == 'deny' else 'continue'"
    asked, banned = (Probe("udp", source, EDGE_INSIDE, 5353) for source in (RESOLVER_CLIENT, BANNED))
    with enforce(world, tmp_path, backend, policies.RESOLVER, on_packet(tmp_path, body)) as daemon:
        assert passing(world, *twins(banned)) == words(*twins(banned))
        assert conntrack_entries(world, EDGE, "dport=5353") == 0
        assert passing(world, asked) == []  # Nothing but untracked policy lets it in.
        assert daemon.verdicts("raw-prerouting")["allow-notrack"] >= 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no idea')", "RuntimeError: no idea"),
        ("raise SystemExit", "SystemExit"),
        ("return 'allow-notrack'", "expected one of deny, allow, continue"),
        ("return None", "'None' is not an instance of 'str'"),
    ],
)
def test_what_on_packet_gets_wrong_is_denied(
    world: World, backend: str, tmp_path: Path, body: str, said: str
) -> None:
    """Fail closed, counted, said once; and the loop goes on."""
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, on_packet(tmp_path, body)) as daemon:
        with Ear(world, EDGE, 4, 17) as ear:
            for number in range(3):
                inject(world, OUTSIDE, ip(CLIENT, EDGE_OUTSIDE) / UDP(sport=40_000 + number, dport=9100))
            if not any(said in line for line in daemon.log):  # Somebody may have come before us.
                daemon.wait_for(said)
            # Neighbour discovery is asked about, too.
            assert wait_until(lambda: errors(daemon, "filter-input") >= 3)
            assert ear.packets() == []
        assert daemon.verdicts("filter-input").keys() == {"deny"}
        assert sum(line.startswith("Traceback") for line in daemon.log) == 1


def test_reload_and_a_new_interface(world: World, backend: str, tmp_path: Path) -> None:
    """A swap holds for the packets that come from then on, with the same counters."""
    daemon = enforce(world, tmp_path, backend, policies.MANAGEMENT, HANDLER)
    with daemon:
        assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)
        policy = tmp_path / "policy.yaml"
        policy.write_text(policy.read_text().replace("203.0.113.0/24", "192.0.2.0/24"), encoding="utf-8")
        assert "generation 2" in daemon.reload()
        assert passing(world, ALLOWED, REFUSED) == words(REFUSED)
        assert daemon.counters()["generation"] == 2
        assert daemon.verdicts("filter-input")["allow"] == 2


def test_stop_leaves_nothing(world: World, backend: str, tmp_path: Path) -> None:
    before = saved(world, backend)
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, HANDLER) as daemon:
        assert passing(world, REFUSED) == []
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.exit_code() == 0
    assert saved(world, backend) == before
    assert passing(world, REFUSED) == words(REFUSED)


def test_kill_leaves_the_host_closed(world: World, backend: str, tmp_path: Path) -> None:
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, HANDLER) as daemon:
        daemon.process.kill()
        daemon.exit_code()
        assert passing(world, ALLOWED, SSH) == words(SSH)
    # The next one takes over what is there.
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, HANDLER):
        assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)


WEB_POLICY = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [10.9.0.0/24]}, destination: {ports: [80]}}
"""


def test_forwarded_and_dnatted(world: World, backend: str, tmp_path: Path) -> None:
    """Mangle PREROUTING and FORWARD: pods are reached by those whom their policies let in."""
    let_in, refused = (Probe("tcp", source, WEB_POD, 80) for source in (INSIDE_HOST, RESOLVER_CLIENT))
    text = f"{policies.NODE_PORT}---{WEB_POLICY}"
    with enforce(world, tmp_path, backend, text, HANDLER) as daemon:
        told(world, NODE_PORT)
        assert daemon.verdicts("mangle-prerouting")["allow-skip-hep"] >= 1
        assert passing(world, *twins(let_in, refused)) == words(*twins(let_in))
        assert daemon.verdicts("filter-forward")["deny"] >= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--on-packet", "x:y"), "use --handler netfilterqueue"),
        ((*HANDLER, "--on-packet", "no_such_module:y"), "no_such_module"),
        ((*HANDLER, "--on-packet", "./none.py:y"), "there is no file"),
    ],
)
def test_arguments_that_cannot_be(world: World, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    daemon = enforce(world, tmp_path, "nft", policies.MANAGEMENT, options)
    daemon.start()
    daemon.wait_for(said)
    assert daemon.exit_code() in (2, 3)


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_a_full_queue_drops(world: World, mode: str, tmp_path: Path) -> None:
    """Counted by the kernel, whatever `fail` says: the package cannot ask for a queue that fails open."""
    config = {"queues": {"maxlen": ROOM}, "fail": {"filter-input": mode}}
    with (
        enforce(world, tmp_path, "nft", policies.MANAGEMENT, HANDLER, **config) as daemon,
        Ear(world, EDGE, 4, socket.IPPROTO_UDP) as ear,
    ):
        with stopped(daemon.process.pid):
            flood(world, ALLOWED_DATAGRAM)
            full = (ROOM, SENT - ROOM)
            assert wait_until(lambda: waiting_and_dropped(world, "filter-input") == full)
        assert len(ear.packets()) == ROOM
        assert daemon.counters()["hooks"]["filter-input"]["queue_dropped"] == SENT - ROOM
        assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)


def test_one_handler_takes_the_place_of_the_other(world: World, tmp_path: Path) -> None:
    """What waits for the one that is replaced is answered by it, however late; Python can take over again."""
    gate = tmp_path / "gate"
    body = f"""
import os, time
while not os.path.exists({str(gate)!r}):
    time.sleep(0.005)
return decision.verdict"""
    path = tmp_path / "policy.yaml"
    path.write_text(policies.MANAGEMENT, encoding="utf-8")
    first = Daemon(world, path, backend="nft", options=on_packet(tmp_path, body))
    native = Daemon(world, path, backend="nft", options=("--replace",))
    # Filter INPUT, beside the queues of before.
    queue = 4200 + (14 + 6) * Workers.planned(None, "cpu", ()).count
    led = re.compile(rf"--queue-(num|balance) {queue}\b")
    last = Daemon(world, path, backend="nft", options=("--replace", "--stop", "remove", *HANDLER))
    with first, Ear(world, EDGE, 4, socket.IPPROTO_UDP) as ear:
        flood(world, ALLOWED_DATAGRAM)
        assert wait_until(lambda: sum(waiting_and_dropped(world, "filter-input")) >= SENT - 1)
        native.start()
        assert wait_until(lambda: any(map(led.search, saved(world, "nft"))))
        assert ear.packets(held=2 * SENT) == []  # Neighbour discovery waits, too.
        gate.touch()
        native.wait_for("in force")
        assert first.exit_code() == 0
        assert len(ear.packets()) == SENT
        assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)
    last.start()
    last.wait_for("in force")
    assert native.exit_code() == 0
    assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)
    assert last.stop() == 0
    assert saved(world, "nft") == []


@pytest.mark.parametrize("has_function", [False, True])
def test_jumbo_frames(world: World, tmp_path: Path, has_function: bool) -> None:
    """Packets far larger than what is copied to Python are judged by their headers, and arrive whole.

    A function sees as much of one as the package has room for, and how long it is.
    """
    body = """
if decision.verdict == "allow":
    assert len(packet.payload) == 3904 < int.from_bytes(packet.payload[2:4]) == 8928
return decision.verdict"""
    options = on_packet(tmp_path, body) if has_function else HANDLER
    for host in (OUTSIDE, EDGE):
        world.run(host, "ip", "link", "set", "eth0", "mtu", "9000")
    data = random.Random(1).randbytes(8900)

    def opened(address: str, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)  # Never in fragments.
        made.bind((address, port))
        return made

    with (
        enforce(world, tmp_path, "nft", policies.MANAGEMENT, options) as daemon,
        world.call(EDGE, opened, EDGE_OUTSIDE, 9100) as receiver,
    ):
        for source, arrives in ((CLIENT, True), (STRANGER, False)):
            with world.call(OUTSIDE, opened, source, 0) as sender:
                sender.sendto(data, (EDGE_OUTSIDE, 9100))
                assert ready(world, receiver) == arrives
                assert not arrives or receiver.recv(65535) == data
        verdicts = daemon.verdicts("filter-input")
        assert verdicts["allow"] >= 1
        assert verdicts["deny"] >= 1
        assert daemon.counters()["hooks"]["filter-input"]["malformed"] == {}
