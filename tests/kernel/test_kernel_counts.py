"""Counts of rules whose packets rules of the kernel answer: exact, whatever becomes of those rules."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kit
import policies
import pytest
from labelgate.control import ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.world import (
    CLIENT,
    DB_POD,
    EDGE,
    EDGE_OUTSIDE,
    OUTSIDE,
    STRANGER,
    WEB,
    WEB_POD,
    World,
    twin,
)
from labelgate.netfilter import nfacct
from labelgate.netfilter.apply import Tools

FAILSAFE_PORT, OPEN_PORT, CLOSED_PORT = 68, 7000, 7001
FAILSAFE = (None, "failsafe (E-40)")
EGRESS = ("GlobalNetworkPolicy/open", "rule (M-50)")
OPEN = policies.policy(
    "open",
    f"""
  types: [Ingress, Egress]
  ingress:
  - {{action: Allow, protocol: UDP, destination: {{ports: [{OPEN_PORT}]}}}}
  egress:
  - {{action: Allow}}
""",
)
POLICY = f"{policies.host()}---{OPEN}"
OTHER_RULES = f"{POLICY}---{policies.host('edge1-in', 'eth1').replace('role: edge', 'role: inner')}"
"""All chains are written anew: another interface is governed, too, by no policy."""
RELOADS = 3
Name = tuple[str | None, str]


def packets(daemon: Daemon) -> dict[Name, tuple[int | None, str | None]]:
    """Packets of rules with egress policy and of reasons, and why they are not all counted."""
    return {
        (rule["policy"], rule["reason"]): (rule["packets"], rule["uncounted"])
        for rule in ask(daemon.socket, "rules")["rules"]
        if rule["direction"] != "Ingress"
    }


def is_counted(daemon: Daemon, name: Name, number: int) -> bool:
    """Whether it comes to this number, all being counted."""
    return kit.wait_until(lambda: packets(daemon).get(name) == (number, None), 5)


class Sender:
    """Sends datagrams, of which no one is answered: each is a first packet. Counts them."""

    def __init__(self, world: World, host: str, source: str, target: str, port: int) -> None:
        def opened() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((source, 0))
            return made

        self._socket = world.call(host, opened)
        self._target = (target, port)
        self.sent = 0

    def send(self, number: int) -> None:
        """So many, not faster than anybody takes them."""
        for left in range(number):
            try:
                self._socket.sendto(b"", self._target)
            except ConnectionRefusedError:  # What was told of the one before; this one was not sent.
                self._socket.sendto(b"", self._target)
            self.sent += 1
            if left % 50 == 0:
                time.sleep(0.002)

    def send_until(self, over: threading.Event) -> None:
        """Again and again."""
        while not over.is_set():
            self.send(50)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def load(*senders: Sender) -> Iterator[None]:
    """All of them send until the end."""
    over = threading.Event()
    threads = [threading.Thread(target=sender.send_until, args=(over,)) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def in_both_families(world: World, host: str, source: str, target: str, port: int) -> Iterator[list[Sender]]:
    """One sender for each, while the caller needs them."""
    senders = [
        Sender(world, host, source, target, port),
        Sender(world, host, twin(source), twin(target), port),
    ]
    yield senders
    for sender in senders:
        sender.close()


@pytest.fixture
def inward(world: World) -> Iterator[list[Sender]]:
    """To a failsafe port of the edge node."""
    yield from in_both_families(world, OUTSIDE, STRANGER, EDGE_OUTSIDE, FAILSAFE_PORT)


@pytest.fixture
def outward(world: World) -> Iterator[list[Sender]]:
    """From the edge node, where its egress policy allows everything."""
    yield from in_both_families(world, EDGE, EDGE_OUTSIDE, CLIENT, CLOSED_PORT)


def watch_output(world: World, backend: str) -> None:
    """Rules that count what leaves by eth0 and is no answer, in a table that is none of ours.

    The node says more than we have it say (it listens to multicast, and says so).
    """
    match = "-o eth0 -m conntrack ! --ctstate RELATED,ESTABLISHED"
    kit.add_rules(world, backend, "security", kit.count("OUTPUT", "leaves", match))


def left_by_eth0(world: World, backend: str) -> int:
    """What these have counted."""
    return sum(kit.hits(world, backend, "security")["leaves"])


def egress(daemon: Daemon, world: World, backend: str) -> tuple[int, int, int]:
    """Packets of the egress policy, and what has left before and after these were read."""
    before = left_by_eth0(world, backend)
    return packets(daemon)[EGRESS][0] or 0, before, left_by_eth0(world, backend)


def assert_all_is_counted(first: tuple[int, int, int], last: tuple[int, int, int], sent: int) -> None:
    """Between two readings each packet that left has been counted, once; so many at least."""
    counted = last[0] - first[0]
    assert max(sent, last[1] - first[2]) <= counted <= last[2] - first[1]


def test_counts_are_exact_while_rules_are_written_anew(
    world: World, backend: str, tmp_path: Path, inward: list[Sender], outward: list[Sender]
) -> None:
    path, configuration = tmp_path / "policy.yaml", tmp_path / "config.yaml"
    path.write_text(POLICY, encoding="utf-8")
    configuration.write_text("lockout: warn\n", encoding="utf-8")
    with Daemon(world, path, backend=backend, options=("--config", str(configuration))) as daemon:
        watch_output(world, backend)
        begun = egress(daemon, world, backend)
        with load(*inward, *outward):
            for number in range(RELOADS):
                path.write_text(OTHER_RULES if number % 2 == 0 else POLICY, encoding="utf-8")
                assert daemon.reload().startswith(f"generation {number + 2} in force")
        sent = sum(sender.sent for sender in inward)
        assert is_counted(daemon, FAILSAFE, sent)
        assert_all_is_counted(begun, egress(daemon, world, backend), sum(sender.sent for sender in outward))
        # Rules that were written anew have counted less than that.
        rules = world.run(EDGE, f"iptables-{backend}-save", "-c", "-t", "filter").splitlines()
        (own,) = (rule for rule in rules if "lg-host-in-queue" in rule and "--dports 68" in rule)
        assert 0 <= int(own[1:].split(":")[0]) < inward[0].sent
        assert "Z*  Allow (failsafe (E-40))" in kit.labelgate(daemon, "rules", "--top", "2")[1]
        # It is replaced, with the same load; and killed, with nobody there.
        with load(*inward), Daemon(world, path, backend=backend, options=("--replace",)) as successor:
            assert kit.wait_until(lambda: daemon.process.poll() is not None)
            successor.process.kill()
            successor.process.wait()
    for sender in inward:
        sender.send(100)
    with Daemon(world, path, backend=backend) as third:
        sent = sum(sender.sent for sender in inward)
        assert is_counted(third, FAILSAFE, sent)
    with Daemon(world, path, backend=backend) as fourth:
        inward[0].send(10)
        assert is_counted(fourth, FAILSAFE, sent + 10)
        assert world.call(EDGE, lambda: len(nfacct.counters("lg-"))) > 0
    assert world.call(EDGE, nfacct.counters, "lg-") == {}, "a stop leaves none"


def test_nothing_is_lost_when_somebody_flushes_rules(
    world: World, backend: str, tmp_path: Path, inward: list[Sender]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    with Daemon(world, path, backend=backend) as daemon:
        for sender in inward:
            sender.send(100)
        for family in kit.PROGRAMS:
            kit.restore(world, backend, family, "filter", "-F", "-X")
        daemon.wait_for("our rules are put back")
        # Once for each family, where it has seen the first before the second.
        jumps = [f"{program} filter -A INPUT -j lg-INPUT" for program in kit.PROGRAMS.values()]
        assert kit.wait_until(lambda: set(jumps) <= set(kit.saved(world, backend)))
        for sender in inward:
            sender.send(100)
        assert is_counted(daemon, FAILSAFE, 400)
        # Also their counters, while nobody sees it: what is lost is said.
        inward[0].send(10)
        with kit.stopped(daemon.process.pid):
            for table in ("raw", "mangle", "filter"):
                for family in kit.PROGRAMS:
                    kit.restore(world, backend, family, table, "-F", "-X")
            assert kit.wait_until(lambda: world.call(EDGE, remove_counters) == {})
        assert "what it counted since it was read last is lost" in daemon.wait_for("somebody removed counter")
        assert kit.wait_until(lambda: ask(daemon.socket, "status")["health"]["ready"])
        inward[1].send(5)
        assert kit.wait_until(lambda: packets(daemon)[FAILSAFE][0] in (405, 415))


def remove_counters() -> dict[str, nfacct.Counter]:
    """What is left: those that rules use still."""
    for name in nfacct.counters("lg-"):
        nfacct.remove(name)
    return nfacct.counters("lg-")


def test_without_nfacct_it_is_as_it_was(
    world: World, backend: str, tmp_path: Path, inward: list[Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An iptables that has no such match, which turns out with the first policy."""
    (folder,) = Path("/usr/lib").glob("*/xtables")
    for library in folder.iterdir():
        if library.name != "libxt_nfacct.so":
            (tmp_path / library.name).symlink_to(library)
    monkeypatch.setenv("XTABLES_LIBDIR", str(tmp_path))
    path = tmp_path / "policy.yaml"
    path.write_text(policies.NAMESPACE, encoding="utf-8")
    configuration = tmp_path / "config.yaml"
    configuration.write_text("lockout: warn\n", encoding="utf-8")
    options = ("--allow-empty", "--config", str(configuration))
    with Daemon(world, path, backend=backend, options=options) as daemon:
        path.write_text(POLICY, encoding="utf-8")
        assert daemon.reload().startswith("generation 2 in force")
        assert any("not counted (no nfacct)" in line for line in daemon.log)
        inward[0].send(10)
        assert packets(daemon)[EGRESS] == (None, "kernel")
        assert FAILSAFE not in packets(daemon)
        assert "not judged: 1 rules" in kit.labelgate(daemon, "rules", "--unused", "1h")[2]
        assert not [line for line in kit.saved(world, backend) if "nfacct" in line or "probe" in line]


REMOVING = """#!/bin/sh
rules=$(cat)
case "$rules" in *--nfacct-name*)
    if mkdir {once} 2>/dev/null; then
        {python} -c "from labelgate.netfilter import nfacct
for name in nfacct.counters('lg-'): assert nfacct.remove(name)" || exit 9
    fi
esac
echo "$rules" | {program} "$@"
"""
"""Writes rules, but the first time that they count removes their counters before."""


def test_counters_that_go_before_rules_count_with_them_are_made_anew(
    world: World, backend: str, tmp_path: Path, inward: list[Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the daemon does that is replaced, where it has not counted with one for a while."""
    program, once = Tools("nft" if backend == "nft" else "legacy").program("v4", "restore"), tmp_path / "once"
    assert program is not None
    wrapper = tmp_path / Path(program).name
    script = REMOVING.format(once=once, python=sys.executable, program=program)
    wrapper.write_text(script, encoding="utf-8")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    with Daemon(world, path, backend=backend) as daemon:
        assert once.exists()
        inward[0].send(10)
        assert is_counted(daemon, FAILSAFE, 10)


def test_all_counters_are_listed(world: World) -> None:
    """The kernel tells of them in many messages."""
    names = {f"lg-{number:016x}-00000000" for number in range(1500)}

    def made() -> set[str]:
        assert all(nfacct.create(name) for name in names)
        return set(nfacct.counters("lg-"))

    assert world.call(EDGE, made) == names
    assert world.call(EDGE, remove_counters) == {}


PODS = f"""{policies.PODS}---{policies.host()}---{OPEN}---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: db, namespace: shop}}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
  - {{action: Allow, protocol: UDP, destination: {{ports: [{OPEN_PORT}]}}}}
"""
POD_EGRESS = ("Profile/kns.shop", "profile rule (M-54)")
TURNED_PORT = 6000


def test_each_packet_is_counted_once_on_its_way_through_the_node(
    world: World, backend: str, tmp_path: Path
) -> None:
    """What passes one stage of FORWARD may be queued in a later one; and DNATed packets of this host are
    judged behind the routing, where forwarded ones pass, too."""
    world.set_sysctls(WEB, {"net/ipv6/conf/all/disable_ipv6": "1"})  # It is quiet.
    turn = f"-p udp --dport {TURNED_PORT} -j DNAT --to-destination {CLIENT}:{CLOSED_PORT}"
    kit.add_rules(
        world, backend, "nat", f"-A OUTPUT {turn}", f"-A PREROUTING -i cali111 {turn}", families=["v4"]
    )
    path = tmp_path / "policy.yaml"
    path.write_text(PODS, encoding="utf-8")
    with Daemon(world, path, backend=backend) as daemon:
        watch_output(world, backend)
        begun = egress(daemon, world, backend)
        for source, target, port, number in (
            (WEB_POD, DB_POD, OPEN_PORT, 20),  # Queued where it comes to the other pod.
            (WEB_POD, DB_POD, CLOSED_PORT, 30),  # Denied there.
            (WEB_POD, CLIENT, CLOSED_PORT, 40),  # Nobody queues it.
            (WEB_POD, EDGE_OUTSIDE, OPEN_PORT, 50),  # To the host itself.
            (WEB_POD, STRANGER, TURNED_PORT, 60),
        ):
            once(world, WEB, source, target, port, number)
        assert is_counted(daemon, POD_EGRESS, 20 + 30 + 40 + 50 + 60)
        once(world, EDGE, EDGE_OUTSIDE, STRANGER, TURNED_PORT, 70)
        assert_all_is_counted(begun, egress(daemon, world, backend), 70)


def once(world: World, host: str, source: str, target: str, port: int, number: int) -> None:
    """So many first packets of one flow."""
    sender = Sender(world, host, source, target, port)
    sender.send(number)
    sender.close()
