"""Several workers, and several network namespaces, in one process."""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import labelgate
import policies
import pytest
from kit import enforce, passing, saved, twins, words
from labelgate import _core
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import Probe, owner
from labelgate.demo.world import CLIENT, EDGE, EDGE_OUTSIDE, World
from labelgate.flow import HOOKS
from labelgate.processors import Workers
from labelgate.settings import HostFacts
from namespaces import a_new_one, enter_a_new_one
from policies import REFUSED_DATAGRAM as REFUSED
from test_metrics import held

WORKERS = 3


@pytest.mark.parametrize("fanout", ["balance", "cpu"])
def test_each_worker_has_queues_of_its_own(world: World, backend: str, fanout: str, tmp_path: Path) -> None:
    queues = {"workers": WORKERS, "fanout": fanout, "cpus": [0]}
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, queues=queues) as daemon:
        bound = world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
        first = 4200 + 6 * WORKERS  # filter INPUT
        assert sorted(int(line.split()[0]) for line in bound) == list(range(4200, 4200 + 14 * WORKERS))
        rule = f"--queue-balance {first}:{first + WORKERS - 1}"
        rules = [line for line in saved(world, backend) if rule in line]
        assert rules, "IPv4"
        assert all(("--queue-cpu-fanout" in line) == (fanout == "cpu") for line in rules)
        assert all(os.sched_getaffinity(thread) == {0} for thread in workers_of(daemon))
        probes = [Probe("udp", CLIENT, EDGE_OUTSIDE, 9100), Probe("tcp", CLIENT, EDGE_OUTSIDE, 9100)]
        assert passing(world, *twins(*probes, REFUSED)) == words(*twins(*probes))
        assert daemon.verdicts("filter-input")["allow"] >= 4
        assert len(workers_of(daemon)) == WORKERS


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors: one has one worker")
def test_packets_are_answered_where_they_are(world: World, backend: str, tmp_path: Path) -> None:
    """By default each worker has the packets of the processors that it runs on."""
    usable = sorted(os.sched_getaffinity(0))
    with enforce(world, tmp_path, backend, policies.MANAGEMENT) as daemon:
        planned = Workers.planned(None, "cpu", ())
        assert [os.sched_getaffinity(thread) for thread in workers_of(daemon)] == list(planned.places)
        first = 4200 + 6 * planned.count  # IPv4 filter INPUT
        for processor in usable[:4]:
            before = queued(world, first, planned.count)
            world.call(owner(REFUSED.src), datagrams, processor)
            after = queued(world, first, planned.count)
            came = [last - was for last, was in zip(after, before, strict=True)]
            expected = [0] * planned.count
            expected[processor % planned.count] = FLOWS
            assert came == expected


BARELY = """
import os, resource, time
from labelgate.queue_bench.loop import started
from labelgate.snapshot import Snapshot
table, started_ = Snapshot().compile(node="edge1"), 0
opened = max(map(int, os.listdir("/proc/self/fd")))
for room in range(0, 80):
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + room, 4096))
    try:
        loop = started(table, 4200, 100, 0x1500)
    except OSError as error:
        assert not started_, error
        continue
    time.sleep(0.02)
    assert loop.is_alive(), (room, loop.failure())
    loop.stop()
    del loop  # Descriptors of its own, until then.
    started_ += 1
print(started_)
"""


def test_a_loop_that_lacks_descriptors_does_not_start(world: World) -> None:
    """However many there are: none starts and ends later."""
    assert int(world.run(EDGE, sys.executable, "-c", BARELY)) > 10


FLOWS = 20


def datagrams(processor: int) -> None:
    """From a socket each, sent by this processor, which also receives what is sent over a veth."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        for _ in range(FLOWS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((REFUSED.src, 0))
                sender.sendto(b"x", (REFUSED.dst, REFUSED.dport))
    finally:
        os.sched_setaffinity(0, before)


def queued(world: World, first: int, count: int) -> list[int]:
    """By queue, from the first one on: how many packets were put into it."""
    lines = world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
    found = {int(fields[0]): int(fields[7]) for fields in map(str.split, lines)}
    return [found[number] for number in range(first, first + count)]


def workers_of(daemon: Daemon) -> list[int]:
    """Threads, the first worker first."""
    tasks = Path(f"/proc/{daemon.process.pid}/task")
    named = {comm.read_text().strip(): int(comm.parent.name) for comm in tasks.glob("*/comm")}
    return [named[name] for name in sorted(named) if re.fullmatch(r"labelgate-\d", name)]


def test_one_process_serves_several_namespaces(tmp_path: Path) -> None:
    """Each loop belongs to the namespace of the thread that started it; one allows what the other denies."""
    opened: dict[str, tuple[_core.Enforcer, socket.socket]] = {}

    def start(port: int) -> None:
        enter_a_new_one()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        rule = f"*filter\n-A INPUT -p udp -j NFQUEUE --queue-num {4200 + 2 * HOOKS.index('filter-input')}\n"
        subprocess.run(["iptables-legacy-restore"], input=f"{rule}COMMIT\n", text=True, check=True)
        path = tmp_path / f"{port}.yaml"
        path.write_text(policies.host(interface="lo") + "---" + policies.policy("one", RULE % port))
        host = HostFacts({"lo": ("127.0.0.1",)})
        table = labelgate.load(path).compile(node="edge1", host=host).core
        enforcer = _core.Enforcer(
            table, [(1, "lo")], base=4200, maxlen=100, marks=(0x100, 0x400, 0x1000), fail_open=[False] * 7,
            malformed_accept=False, filter_reject=False, filter_return=False, without_repeat=[False] * 7,
        )  # fmt: skip
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.bind(("127.0.0.1", 7000))
        for sent in (7000, 7001):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(str(sent).encode(), ("127.0.0.1", sent))
        opened[str(port)] = enforcer, ear

    RULE = """
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [%d]}}
"""
    with a_new_one():
        for port in (7000, 7001):
            thread = threading.Thread(target=start, args=(port,))
            thread.start()
            thread.join()
    try:
        for port, (enforcer, ear) in opened.items():
            assert enforcer.drain(10)
            with pytest.raises(ValueError, match="found -1, expected 0"):
                enforcer.drain(-1.0)
            ear.settimeout(1)
            if port == "7000":
                assert ear.recv(10) == b"7000"
            with pytest.raises(TimeoutError):
                ear.recv(10)
            assert '"deny":1' in enforcer.counters()
    finally:
        for enforcer, ear in opened.values():
            enforcer.stop()
            ear.close()


def test_a_loop_that_is_let_go_holds_up_no_other_thread(tmp_path: Path) -> None:
    """Its worker hangs, and is waited for: nobody else is meanwhile."""
    path = tmp_path / "policy.yaml"
    path.write_text(policies.MANAGEMENT, encoding="utf-8")
    table = labelgate.load(path).compile(node="edge1").core
    with a_new_one():
        loop = _core.Enforcer(
            table, [], base=4200, maxlen=100, marks=(0x100, 0x400, 0x1000), fail_open=[False] * 7,
            malformed_accept=False, filter_reject=False, filter_return=False, without_repeat=[False] * 7,
        )  # fmt: skip
    ticks, over = list[float](), threading.Event()

    def tick() -> None:
        while not over.wait(0.01):
            ticks.append(time.monotonic())

    (worker,) = loop.thread_ids()
    with held(str(worker)):
        thread = threading.Thread(target=tick)
        thread.start()
        begun = time.monotonic()
        del loop
        waited = time.monotonic() - begun
        over.set()
        thread.join()
    assert waited >= _core.STOP_SECONDS
    assert max(after - before for before, after in itertools.pairwise(ticks)) < waited / 2
