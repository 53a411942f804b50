"""Minutes of mixed traffic while policy, pods and rules change; then a flood. What must hold is checked.

No decision that the reference calls wrong, no packet lost by a reload, memory that does not grow; of a flood
every packet answered or counted as lost, and service again at once behind it.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "kernel"))

import policies
from kit import dual
from labelgate.demo.daemon import Daemon
from labelgate.demo.world import (
    CLIENT,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    HOSTS,
    INSIDE_HOST,
    RESOLVER_CLIENT,
    WEB_POD,
    World,
    twin,
)
from labelgate.processors import Workers
from traffic import Load, Noise, Stream

LATE_PODS = 6
TURN_SECONDS = 1.0
GROWTH_KIB = 4096
"""That memory may grow from the second quarter of the time to the last one, beside a twentieth."""
RECOVERY_SECONDS = 0.2
PROBES = 50
"""Packets that must all arrive for service to be as before."""
PROBE_SECONDS = 0.5
"""For the last of them to arrive."""
SHADOW = 100
WORKERS = Workers.planned(None, "cpu", ()).count
SENDERS = 8

RESOLVER_HOST = policies.RESOLVER.replace("role: edge", "role: resolver").replace(
    "role == 'edge'", "role == 'resolver'"
)
PRIVATE = """
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [80]}}
"""


def text(dice: random.Random, pods: set[int]) -> str:
    """Policy in which what streams need is always allowed, and much else changes."""
    changing = [changing_rule(dice) for _ in range(5)]
    late = [policies.pod(f"late{number}", f"cali9{number}", f"10.65.0.1{number}") for number in sorted(pods)]
    web = policies.policy("web", PRIVATE, order=5).replace("role == 'edge'", "app == 'web'")
    return dual(
        "---".join(
            (
                policies.PODS,
                *late,
                RESOLVER_HOST,
                policies.host(),
                policies.policy("management", policies.ALLOW_9100),
                web,
                policies.policy("changing", "\n".join(["  ingress:", *changing]), order=20),
            )
        )
    )


def changing_rule(dice: random.Random) -> str:
    """One that makes no difference to the streams."""
    action, protocol = dice.choice(("Allow", "Deny", "Pass")), dice.choice(("UDP", "TCP"))
    net = dice.choice((f"{CLIENT}/32", f"{INSIDE_HOST}/32", "192.0.2.0/24", "10.9.0.0/16", "10.0.0.0/8"))
    ports = f"{dice.randrange(6000, 6100)}, {dice.choice((22, 53, 80, 443))}"
    return (
        f"  - {{action: {action}, protocol: {protocol}, source: {{nets: [{net}]}}, "
        f"destination: {{ports: [{ports}]}}}}"
    )


class Soak:
    """The world, the daemon in it, and the traffic."""

    def __init__(self, world: World, folder: Path, backend: str, seed: int) -> None:
        self.world, self.dice = world, random.Random(seed)
        self.path = folder / "policy.yaml"
        self.pods: set[int] = set()
        self.links: set[int] = set()
        self.reloads = 0
        self.memory: list[int] = []
        self.path.write_text(text(self.dice, self.pods), encoding="utf-8")
        options = ("--config", str(folder / "config.yaml"))
        (folder / "config.yaml").write_text(
            f"shadow: {SHADOW}\nqueues: {{workers: {WORKERS}}}\n", encoding="utf-8"
        )
        self.daemon = Daemon(world, self.path, backend=backend, options=options)
        flows = (
            (CLIENT, EDGE_OUTSIDE, 9100),
            (RESOLVER_CLIENT, EDGE_INSIDE, 5353),
            (INSIDE_HOST, WEB_POD, 80),
        )
        self.streams = [
            Stream(world, *ends, port)
            for src, dst, port in flows
            for ends in ((src, dst), (twin(src), twin(dst)))
        ]

    def turn(self) -> None:
        """Pods come or go, and the policy changes."""
        number = self.dice.randrange(LATE_PODS)
        self.pods ^= {number}
        if self.dice.random() < 0.5:
            self._toggle_link(self.dice.randrange(LATE_PODS))
        self.path.write_text(text(self.dice, self.pods), encoding="utf-8")
        said = self.daemon.reload()
        if "stays in force" in said:
            raise SystemExit("\n".join(["a reload failed:", *self.daemon.log[-20:]]))
        self.reloads += 1
        self.memory.append(resident(self.daemon.process.pid))

    def _toggle_link(self, number: int) -> None:
        edge, web = self.world.namespace(EDGE), self.world.namespace("web")
        name = f"cali9{number}"
        command = f"ip -n {edge} link delete {name}"
        if number not in self.links:
            command = f"ip link add {name} netns {edge} type veth peer name late{number} netns {web}"
        subprocess.run(command.split(), check=True)
        if number not in self.links:
            subprocess.run(f"ip -n {edge} link set {name} up".split(), check=True)
        self.links ^= {number}

    def settle(self) -> None:
        """Until nothing is on its way any more."""
        for _ in range(20):
            for stream in self.streams:
                stream.hear()
            time.sleep(0.05)

    def run(self, seconds: float) -> list[str]:
        """All of it; what does not hold."""
        noise = Noise(self.world, seed=7)
        loads = [Load(lambda: [stream.send() for stream in self.streams], 0.001), Load(noise.send, 0.0005)]
        loads.append(Load(lambda: [stream.hear() for stream in self.streams], 0.01))
        over = time.monotonic() + seconds
        try:
            while time.monotonic() < over:
                began = time.monotonic()
                self.turn()
                time.sleep(max(0.0, TURN_SECONDS - (time.monotonic() - began)))
        finally:
            for load in loads:
                load.stop()
            noise.close()
        self.settle()
        return self.verdict(seconds)

    def verdict(self, seconds: float) -> list[str]:
        """Prints the summary; what does not hold."""
        counters = self.daemon.counters()
        shadow, hooks = counters["shadow"], counters["hooks"]
        sent, arrived = (sum(getattr(s, what) for s in self.streams) for what in ("sent", "arrived"))
        quarter = max(1, len(self.memory) // 4)
        early, late = middle(self.memory[quarter : 2 * quarter]), middle(self.memory[-quarter:])
        print(f"{seconds:g} s, {self.reloads} reloads, {counters['generation']} tables")
        print(f"counted packets: {sent} sent, {arrived} arrived")
        print(f"decisions: {sum(hook['packets'] for hook in hooks.values())}; {shadow} by the reference")
        print(f"resident memory of the daemon: {early} KiB early, {late} KiB late")
        wrong = [f"{s.name}: {s.sent - s.arrived} packets lost" for s in self.streams if s.sent != s.arrived]
        if shadow["wrong"] or not shadow["checked"]:
            wrong.append(f"shadow: {shadow}")
        wrong += [line for line in self.daemon.log if line.startswith("error: wrong verdict")][:5]
        if seconds >= 60 and late > early * 1.05 + GROWTH_KIB:
            wrong.append(f"memory grows: {early} KiB, then {late} KiB")
        lost = {name: hook["overruns"] + hook["unsent"] for name, hook in hooks.items()}
        return wrong + [f"{name}: {count} overruns" for name, count in lost.items() if count]


def resident(process: int) -> int:
    """KiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def middle(values: list[int]) -> int:
    """Median; 0 of none."""
    return sorted(values)[len(values) // 2] if values else 0


def queue_counts(world: World) -> list[int]:
    """Of IPv4 filter INPUT: waiting, dropped by queues, dropped by sockets."""
    rows = world.run(EDGE, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
    ours = range(4200 + 6 * WORKERS, 4200 + 7 * WORKERS)
    found = [fields for fields in (list(map(int, row.split())) for row in rows) if fields[0] in ours]
    if len(found) != WORKERS:
        raise SystemExit("a queue is not bound any more")
    return [sum(fields[column] for fields in found) for column in (2, 5, 6)]


FLOOD = """
import os, socket, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
sockets = []
for number in range(64):
    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sockets[-1].bind((sys.argv[3], int(sys.argv[2]) + number))
    sockets[-1].connect((sys.argv[4], 9100))
over, sent = time.monotonic() + float(sys.argv[5]), 0
while time.monotonic() < over:
    for one in sockets:
        one.send(b"flood")
    sent += len(sockets)
print(sent)
"""


def workers(process: int) -> dict[int, set[int]]:
    """Threads that answer packets, and the processors where they may run."""
    comms = Path(f"/proc/{process}/task").glob("*/comm")
    names = {int(comm.parent.name): comm.read_text(encoding="ascii").strip() for comm in comms}
    found = [thread for thread, name in names.items() if re.fullmatch(r"labelgate-\d+", name)]
    if len(found) != WORKERS:
        raise SystemExit("a worker is not there")
    return {thread: os.sched_getaffinity(thread) for thread in found}


def overload(soak: Soak, seconds: float) -> list[str]:
    """Far more than workers can take: they have to share one processor with all senders."""
    daemon, world = soak.daemon, soak.world
    for host in HOSTS:  # With IPv6 hosts send of themselves.
        world.run(host, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    soak.settle()
    usable = workers(daemon.process.pid)
    processor = min(os.sched_getaffinity(0))
    before, memory = daemon.counters()["hooks"]["filter-input"], resident(daemon.process.pid)
    dropped_before = queue_counts(world)
    for thread in usable:
        os.sched_setaffinity(thread, {processor})
    stream = soak.streams[0]
    command, to = (sys.executable, "-c", FLOOD, str(processor)), (CLIENT, EDGE_OUTSIDE, str(seconds))
    senders = [
        world.start("outside", *command, str(port), *to, stdout=subprocess.PIPE)
        for port in range(50_000, 50_000 + 64 * SENDERS, 64)
    ]
    offered = sum(int(sender.communicate()[0]) for sender in senders)
    for thread, processors in usable.items():
        os.sched_setaffinity(thread, processors)
    stream.hear()
    stream.arrived = stream.sent = 0
    back = recovery(stream)
    soak.settle()
    after, dropped = daemon.counters()["hooks"]["filter-input"], queue_counts(world)
    answered = after["packets"] - before["packets"] - stream.arrived
    lost = sum(dropped[1:]) - sum(dropped_before[1:])
    grown = resident(daemon.process.pid) - memory
    print(f"flood of {seconds:g} s: {offered} offered, {answered} answered, {lost} counted as lost")
    print(
        f"behind the flood: all of {PROBES} packets passed from {back * 1000:.0f} ms on; "
        f"memory grew by {grown} KiB"
    )
    wrong = []
    unknown = offered + stream.sent - stream.arrived - answered - lost
    if unknown:
        wrong.append(f"flood: {unknown} packets are neither answered nor counted as lost")
    if offered < 2 * answered:
        wrong.append("flood: not twice what the worker took")
    if grown > GROWTH_KIB:
        wrong.append(f"flood: memory grew by {grown} KiB")
    if back > RECOVERY_SECONDS:
        wrong.append(f"flood: all of {PROBES} packets passed only after {back:.3f} s")
    return wrong


def recovery(stream: Stream) -> float:
    """Seconds until service is as before: all of `PROBES` packets sent from then on arrive."""
    began = time.monotonic()
    while (start := time.monotonic()) < began + 10:
        sent, arrived = stream.sent, stream.arrived
        for _ in range(PROBES):
            stream.send()
            time.sleep(0.002)
        late = time.monotonic() + PROBE_SECONDS
        while stream.arrived - arrived < stream.sent - sent and time.monotonic() < late:
            time.sleep(0.002)
            stream.hear()
        if stream.arrived - arrived == stream.sent - sent:
            break
    return start - began


def main() -> None:
    """Ends with 1 if anything does not hold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600.0)
    options.add_argument("--flood-seconds", type=float, default=20.0)
    options.add_argument("--backend", choices=["nft", "legacy"], default="nft")
    options.add_argument("--seed", type=int, default=1)
    given: Any = options.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, World() as world:
        soak = Soak(world, Path(folder), given.backend, given.seed)
        with soak.daemon:
            wrong += soak.run(given.seconds)
            wrong += overload(soak, given.flood_seconds)
        for stream in soak.streams:
            stream.close()
    print("\n".join(wrong) or "all holds")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
