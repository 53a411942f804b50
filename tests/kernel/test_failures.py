"""Every way in which the queue can fail, caused: the verdict that was chosen, and what is counted."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import policies
import pytest
import yaml
from kit import Ear, dual, enforce, passing, restore, saved, twins, wait_until, words
from labelgate.agent.handover import socket_path
from labelgate.demo.daemon import Daemon
from labelgate.demo.namespaces import WorldError
from labelgate.demo.traffic import Probe
from labelgate.demo.world import EDGE, EDGE_OUTSIDE, STRANGER, World
from labelgate.processors import Workers
from policies import ALLOWED_DATAGRAM as ALLOWED
from policies import REFUSED_DATAGRAM as REFUSED
from test_daemon import Traffic
from test_queue import SENT, flood, stopped

MEDDLE = Path(__file__).parent / "meddle.py"
SSH = Probe("tcp", STRANGER, EDGE_OUTSIDE, 22)


class Meddled(Daemon):
    """A daemon that does something to itself on SIGUSR2."""

    def __init__(self, world: World, folder: Path, backend: str, how: str, **config: Any) -> None:
        policy, configuration = folder / "policy.yaml", folder / "config.yaml"
        policy.write_text(dual(policies.MANAGEMENT), encoding="utf-8")
        configuration.write_text(yaml.safe_dump(config), encoding="utf-8")
        super().__init__(world, policy, backend=backend, options=("--config", str(configuration)))
        assert self._command[1:3] == ["-m", "labelgate"]
        self._command[:3] = [sys.executable, str(MEDDLE), how]

    def meddle(self) -> None:
        """Now."""
        self.process.send_signal(signal.SIGUSR2)


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_socket_overrun(world: World, backend: str, mode: str, tmp_path: Path) -> None:
    """More packets than the socket holds (ENOBUFS): dropped, or passed where the hook fails open; counted."""
    with (
        Meddled(
            world, tmp_path, backend, "shrink", fail={"filter-input": mode}, queues={"workers": 1}
        ) as daemon,
        Ear(world, EDGE, 4, socket.IPPROTO_UDP) as ear,
    ):
        daemon.meddle()
        daemon.counters()  # It has come by the signal before.
        with stopped(daemon.process.pid):
            flood(world, ALLOWED)
            assert wait_until(lambda: lost(world) > 0 or mode == "open")
            dropped = lost(world)
        arrived = len(ear.packets())
        assert arrived == (SENT if mode == "open" else SENT - dropped)
        assert mode == "open" or 0 < dropped < SENT
        counted = daemon.counters()["hooks"]["filter-input"]
        assert counted["overruns"] >= 1
        assert counted["socket_dropped"] == dropped
        passed = SENT - counted["packets"] if mode == "open" else 0
        assert counted["fail_open"]["malformed"] == 0
        # Among the packets answered may be some of IPv6 neighbour discovery, which nobody sent on purpose.
        assert 0 <= counted["fail_open"]["socket_full"] - passed <= (3 if mode == "open" else 0)
        assert passed > 0 or mode == "closed"
        assert passing(world, *twins(ALLOWED, REFUSED)) == words(*twins(ALLOWED)), "it goes on"


def lost(world: World) -> int:
    """Packets that no socket had room for: column 7 of nfnetlink_queue, of IPv4 filter INPUT."""
    for line in world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines():
        fields = list(map(int, line.split()))
        if fields[0] == 4206:
            return fields[6]
    raise AssertionError("the queue is not bound")


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_a_dead_worker_ends_the_process(world: World, backend: str, mode: str, tmp_path: Path) -> None:
    """Two workers, whose sockets break: who finds that out first ends both, and the daemon."""
    config: dict[str, Any] = {"fail": {"filter-input": mode}, "queues": {"workers": 2}}
    with Meddled(world, tmp_path, backend, "replace", **config) as daemon:
        assert passing(world, *twins(ALLOWED, REFUSED)) == words(*twins(ALLOWED))
        daemon.meddle()
        passing(world, ALLOWED)
        assert "our rules stay, what they queue is dropped" in daemon.wait_for("the packet loop ended")
        assert daemon.exit_code() == 3
        # Closed, but for failsafes; or open, as configured: nobody listens.
        assert world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue") == ""
        found = passing(world, *twins(ALLOWED, REFUSED, SSH))
        assert found == words(*twins(ALLOWED, REFUSED, SSH) if mode == "open" else twins(SSH))


def test_a_reply_that_comes_too_late(world: World, backend: str, tmp_path: Path) -> None:
    """The interface went down: the kernel has dropped the packets, and says so of each reply."""
    with Meddled(world, tmp_path, backend, "blind") as daemon:
        with stopped(daemon.process.pid):
            flood(world, ALLOWED)
            world.run(EDGE, "ip", "link", "set", "eth0", "down")
        assert wait_until(lambda: daemon.counters()["hooks"]["filter-input"]["netlink_errors"] >= 1)
        # What neighbours have to say meanwhile is counted, too.
        assert daemon.counters()["hooks"]["filter-input"]["packets"] >= SENT


SQUATTER = """
import os, socket, time
os.setresuid(65534, 65534, 65534)
squatter = socket.socket(socket.AF_UNIX)
squatter.bind("\\0/run/labelgate")
print(flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("is_squatted", [False, True])
def test_two_that_do_not_see_each_others_lock(
    world: World, backend: str, is_squatted: bool, tmp_path: Path
) -> None:
    """As in containers, each with a /run of its own: the second one changes nothing.

    Also where somebody else has the name by which they know of each other.
    """
    if is_squatted:
        squatter = world.start(EDGE, sys.executable, "-c", SQUATTER, stdout=subprocess.PIPE)
        assert squatter.stdout
        with squatter.stdout as said:
            said.readline()
    workers = 2
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, queues={"workers": workers}) as daemon:
        second = Daemon(world, tmp_path / "policy.yaml", backend=backend, options=("--queue-base", "5000"))
        apart = 'mount -t tmpfs none /run/labelgate && exec "$@"'
        second._command[:0] = ["unshare", "--mount", "sh", "-c", apart, "sh"]
        second.start()
        queues = f"another process answers queues {4200 + 6 * workers}..{4199 + 14 * workers}"
        second.wait_for(queues if is_squatted else "another labelgate runs in this network namespace")
        assert second.exit_code() == 3
        for command in ([], ["unshare", "--mount", "sh", "-c", apart, "sh"]):
            with pytest.raises(WorldError, match="stop it first; nothing is removed without --force"):
                world.run(EDGE, *command, sys.executable, "-m", "labelgate", "clean")
        assert daemon.counters()["rulesRestored"] == 0
        assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)


def test_a_planned_restart_loses_nothing(world: World, backend: str, tmp_path: Path) -> None:
    """One daemon after the other takes the place of the one before, under traffic that is counted."""
    path = tmp_path / "policy.yaml"
    path.write_text(policies.MANAGEMENT, encoding="utf-8")
    first = Daemon(world, path, backend=backend)
    with first, Traffic(world) as traffic:
        before = first
        count = 14 * Workers.planned(None, "cpu", ()).count
        for queue in (4200 + count, 4200, 4200 + count):  # each beside the queues of the one before
            traffic.wait_for_arrivals(100)
            after = Daemon(world, path, backend=backend, options=("--replace", "--stop", "remove"))
            after.start()
            after.wait_for("in force")
            assert "another labelgate is in force" in before.wait_for("stopped")
            assert before.exit_code() == 0
            bound = world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
            assert sorted(int(line.split()[0]) for line in bound) == list(range(queue, queue + count))
            before = after
        traffic.wait_for_arrivals(100)
        traffic.stop()
        assert traffic.arrived == traffic.sent
    assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)
    assert before.stop() == 0
    assert saved(world, backend) == []


def test_other_mark_bits_need_a_restart(world: World, backend: str, tmp_path: Path) -> None:
    """A successor would find bits of the one before on packets: it is refused, and all goes on."""
    path, config = tmp_path / "policy.yaml", tmp_path / "config.yaml"
    path.write_text(policies.MANAGEMENT, encoding="utf-8")
    config.write_text("marks: {mask: 0x2a00}\n", encoding="utf-8")
    with Daemon(world, path, backend=backend) as daemon, Traffic(world) as traffic:
        traffic.wait_for_arrivals(100)
        rules = saved(world, backend)
        after = Daemon(world, path, backend=backend, options=("--replace", "--config", str(config)))
        after.start()
        after.wait_for("marks.mask: found 0x2a00, expected 0x1500 as the daemon in force has it")
        assert after.exit_code() == 3
        traffic.wait_for_arrivals(100)
        traffic.stop()
        assert traffic.arrived == traffic.sent
        assert saved(world, backend) == rules
        assert daemon.stop() == 0
    with after:
        assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)


def test_a_daemon_with_another_number_of_workers_takes_over(world: World, tmp_path: Path) -> None:
    """It takes queues that the one before does not have, however many those are; nothing is lost."""
    policy, before = tmp_path / "policy.yaml", None
    policy.write_text(policies.MANAGEMENT, encoding="utf-8")
    with ExitStack() as open_things:
        for count, begin in ((3, 4200), (1, 4200 + 3 * 14), (2, 4200), (8, 4200 + 2 * 14), (1, 4200)):
            config = tmp_path / f"{begin}-{count}.yaml"
            config.write_text(f"queues: {{workers: {count}}}\n", encoding="utf-8")
            options = ("--config", str(config), "--replace", "--stop", "remove")
            daemon = Daemon(world, policy, backend="nft", options=options)
            daemon.start()
            daemon.wait_for("in force")
            if before is None:
                traffic = open_things.enter_context(Traffic(world))
            else:
                assert before.exit_code() == 0
            bound = world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
            assert sorted(int(line.split()[0]) for line in bound) == list(range(begin, begin + 14 * count))
            traffic.wait_for_arrivals(100)
            before = daemon
        traffic.stop()
        assert traffic.arrived == traffic.sent
    assert daemon.stop() == 0


def refused_as_nobody(path: Path) -> list[str]:
    """What whoever has no rights may not do with the daemon's lock and socket; the thread is nobody then."""
    assert ctypes.CDLL(None).syscall(117, 65534, 65534, 65534) == 0  # setresuid(2) of one thread, on x86-64
    refused: list[str] = []
    with socket.socket(socket.AF_UNIX) as opened:
        try:
            opened.connect(str(path))
        except PermissionError:
            refused.append("connect")
    for what, work in {
        "lock": lambda: os.open(path.with_suffix(".lock"), os.O_RDONLY),
        "make": lambda: os.open(path.with_suffix(".new"), os.O_CREAT | os.O_RDWR),
        "remove": path.unlink,
    }.items():
        try:
            work()
        except PermissionError:
            refused.append(what)
    return refused


def test_a_successor_that_fails_changes_nothing(world: World, backend: str, tmp_path: Path) -> None:
    """It has announced itself, changed rules, and dies: the daemon in force puts its rules back."""
    with Meddled(world, tmp_path, backend, "blind") as daemon:
        path = world.call(EDGE, socket_path)
        # Whoever may not change rules may not keep the daemon, or another one, from doing so.
        with ThreadPoolExecutor(1) as apart:
            assert apart.submit(refused_as_nobody, path).result() == ["connect", "lock", "make", "remove"]
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(30)
            other.connect(str(path))
            assert other.recv(1) == b"r"
            restore(world, backend, "v4", "filter", "-D INPUT -j lg-INPUT")
            assert passing(world, REFUSED) == words(REFUSED), "nobody puts them back meanwhile"
            assert daemon.counters()["rulesRestored"] == 0
        daemon.wait_for("our rules are put back")
        assert wait_until(lambda: passing(world, ALLOWED, REFUSED) == words(ALLOWED))


def test_a_stop_while_a_successor_is_at_work_leaves_the_rules(
    world: World, backend: str, tmp_path: Path
) -> None:
    """They may be its own by now: nothing that policy denies passes, whatever `stop` says."""
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, ("--stop", "remove")) as daemon:
        rules = saved(world, backend)
        with socket.socket(socket.AF_UNIX) as successor:
            successor.settimeout(30)
            successor.connect(str(world.call(EDGE, socket_path)))
            assert successor.recv(1) == b"r"
            assert daemon.stop() == 0
        assert "our rules stay for it" in daemon.wait_for("stopped")
        assert saved(world, backend) == rules
        assert passing(world, ALLOWED, REFUSED) == []
        daemon.start()
        daemon.wait_for("in force")
        assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)


@pytest.mark.parametrize("table", ["raw", "mangle", "filter"])
def test_a_table_that_is_gone(world: World, backend: str, table: str, tmp_path: Path) -> None:
    """Somebody empties a whole table: noticed by events alone, put back and counted."""
    with Meddled(world, tmp_path, backend, "blind") as daemon:
        for name in ("v4", "v6"):
            program = {"v4": "iptables", "v6": "ip6tables"}[name]
            world.run(EDGE, f"{program}-{backend}-restore", stdin=f"*{table}\nCOMMIT\n")
        daemon.wait_for("our rules are put back")
        assert wait_until(lambda: daemon.counters()["rulesRestored"] >= 1)
        found = words(*twins(ALLOWED))
        assert wait_until(lambda: passing(world, *twins(ALLOWED, REFUSED)) == found)
        daemon.counters()
        chains = [line for line in daemon.log if "not as it was installed" in line]
        families = [line.split(":")[1].split()[0] for line in chains]
        assert families, daemon.log
        assert len(set(families)) == len(families), "one for each IP version"


def test_an_appended_rule_of_ours_is_put_back(world: World, backend: str, tmp_path: Path) -> None:
    """And jumps that others outrank: noticed without the look from time to time."""
    with Meddled(world, tmp_path, backend, "blind") as daemon:
        for lines, finding in (
            (["-D FORWARD -j lg-FORWARD-end"], "is not `-j lg-FORWARD-end`"),
            (["-I INPUT 1 -p udp -j ACCEPT"], "rule 1 is not `-j lg-INPUT`"),
            (["-F lg-INPUT"], "lg-INPUT: not as it was installed"),
            (["-A FORWARD -p udp -j RETURN"], "is not `-j lg-FORWARD-end`"),
        ):
            restore(world, backend, "v4", "filter", *lines)
            daemon.wait_for(finding)
            daemon.counters()  # Said behind the repair, which would mend the next change without a word.


def test_whoever_fights_over_the_rules_is_answered_in_bounds(
    world: World, backend: str, tmp_path: Path
) -> None:
    """Forty changes: all is in order in the end, and not all of them were talked about."""
    with Meddled(world, tmp_path, backend, "blind") as daemon:
        for _ in range(40):
            lines = world.run(EDGE, f"iptables-{backend}-save", "-t", "filter")
            if "-A INPUT -j lg-INPUT" in lines:
                restore(world, backend, "v4", "filter", "-D INPUT -j lg-INPUT")
        expected = words(*twins(ALLOWED))
        assert wait_until(lambda: passing(world, *twins(ALLOWED, REFUSED)) == expected)
        restored = daemon.counters()["rulesRestored"]
        assert restored >= 1
        daemon.stop()
        warned = [line for line in daemon.log if "put back" in line]
        assert 1 <= len(warned) <= 10
