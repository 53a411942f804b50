"""What is measured on a router: each measure is bounded in count and time, and gives one sample."""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from labelgate import _core
from labelgate.queue_bench.cases import Case, Measure, Place
from labelgate.queue_bench.policies import BULK_PORT, ECHO_PORT, HALF_PORT, TCP_PORT, hit_ports
from labelgate.queue_bench.rig import RECEIVER, SENDER, Rig, Router, Watch

Sample = dict[str, float]

COUNTED: tuple[Measure, ...] = ("flood", "burst", "drain", "noting", "denials")
"""Every packet of these is counted at both ends, and by the handler."""
FLOWS = 4096
PAYLOAD = 18
"""Bytes in a datagram: the smallest frame of Ethernet."""
BURST, BURSTS = 512, 16
"""Packets that wait when a handler begins, few enough to stay in the processor's caches; and how often."""
MOST_PACKETS = 500_000
"""Of one flood."""
FIRST_SOURCE, SOURCES = 130, 64
"""The flood comes from so many addresses of a router's own network."""
CONNECTING_THREADS, PATIENCE, MOST_CONNECTIONS = 8, 0.5, 100_000
BULK_BYTES, STREAMS = 128 << 10, 4
"""Of one write, as iperf3 has it; and streams of one measure: each fares as its threads come to lie."""
CALM_SECONDS = 10.0
"""How long packets may take to come out of a router that has been flooded."""
LOOK_SECONDS, QUIET_LOOKS = 0.001, 500
"""Packets that have not come are lost when so many looks in a row have found nothing new."""


@dataclass(frozen=True)
class Effort:
    """How much is done in one round."""

    flood: float
    latency: int
    """Round trips."""
    connections: float
    bulk: float
    noting: float
    """Seconds, as those above but for `latency`: for comparing what is noted."""


@dataclass
class Checked:
    """Packets of floods and drains, summed over all rounds."""

    sent: int = 0
    delivered: int = 0
    dropped: int = 0
    """By a full queue."""
    answered: int | None = None
    """Those that the handler says to have judged, where it counts them."""
    until: float = 0.0
    """`time.monotonic()` when the last one was seen."""

    @property
    def unexplained(self) -> int:
        """Neither delivered nor dropped where somebody counts it."""
        return self.sent - self.delivered - self.dropped

    @property
    def unjudged(self) -> int:
        """Delivered, although the handler has not judged them."""
        return 0 if self.answered is None else max(0, self.delivered - self.answered)

    def add(self, other: Checked) -> None:
        """Sums up."""
        self.sent += other.sent
        self.delivered += other.delivered
        self.dropped += other.dropped


class Cores:
    """Who runs where: traffic comes from the first processor."""

    def __init__(self) -> None:
        allowed = sorted(os.sched_getaffinity(0))
        self.source, self.other = allowed[0], allowed[-1]

    def pin_source(self) -> None:
        """The calling thread."""
        os.sched_setaffinity(0, {self.source})

    @contextmanager
    def moved(self, pids: Sequence[int], processor: int) -> Iterator[None]:
        """Every thread of these processes runs there, and goes back afterwards."""
        before: dict[int, set[int]] = {}
        for task in (task for pid in pids for task in _tasks(pid)):
            with suppress(ProcessLookupError):  # It has just ended.
                before[task] = os.sched_getaffinity(task)
                os.sched_setaffinity(task, {processor})
        try:
            yield
        finally:
            for task, places in before.items():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(task, places)


class Processors:
    """Processor time of processes, and of the kernel's threads that work packets off behind their back."""

    def __init__(self) -> None:
        self._kernel = [pid for pid in _all_pids() if _name(pid).startswith("ksoftirqd/")]

    def nanoseconds(self, pids: Sequence[int]) -> int:
        """Of this process, its threads that have ended included, of others and of the kernel's threads."""
        others = sum(sum(threads(pid).values()) for pid in (*pids, *self._kernel))
        return time.process_time_ns() + others

    def kernel(self) -> int:
        """Of the kernel's threads only."""
        return sum(sum(threads(pid).values()) for pid in self._kernel)


def threads(pid: int) -> dict[int, int]:
    """Nanoseconds of each thread of a process."""
    found = {}
    for task in _tasks(pid):
        with suppress(OSError, ValueError):
            text = Path(f"/proc/{pid}/task/{task}/schedstat").read_text(encoding="ascii")
            found[task] = int(text.split()[0])
    return found


def busiest(before: dict[int, int], after: dict[int, int]) -> int:
    """Nanoseconds of the thread that has worked most: the packet loop."""
    return max(after[task] - before.get(task, 0) for task in after)


def _tasks(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Bench:
    """A case in its place, with the sockets that its measures need."""

    def __init__(self, case: Case, place: Place, cores: Cores, processors: Processors) -> None:
        self.case, self.checked = case, Checked()
        self._rig, self._router = place.rig, place.router
        self._cores, self._processors = cores, processors
        self._watch, self._is_still = Watch(place.rig, place.router), False
        self._pids = case.pids
        router, ports = place.router, hit_ports(case.rules)
        self._flooding = self._rig.call(SENDER, frames, router, router.flooded, ports)
        self._draining = self._rig.call(SENDER, frames, router, router.dropped, ports)

    def close(self) -> None:
        """Before the namespaces go."""
        self._watch.close()

    def measure(self, what: Measure, effort: Effort) -> Sample:
        """One sample."""
        measures: dict[Measure, Callable[[Effort], Sample]] = {
            "flood": self._flood,
            "burst": self._burst,
            "drain": self._drain,
            "latency": self._latency,
            "connections": self._connections,
            "bulk": self._bulk,
        }
        judged = self.case.judged() if what in COUNTED else None
        sample = measures[what](effort)
        if judged is not None:
            self.checked.answered = (self.checked.answered or 0) + (self.case.judged() or 0) - judged
        return sample

    def _flood(self, effort: Effort) -> Sample:
        """As many packets as the source can send."""
        start = time.monotonic()
        counted, all_, _ = self._sent(self._flooding, self._watch.received, MOST_PACKETS, effort.flood)
        packets = counted.delivered
        return {"kpps": packets / (counted.until - start) / 1e3, "cpu": per(all_, packets)}

    def _burst(self, effort: Effort) -> Sample:
        """So many packets, then who answers them: what one costs all in all, on its way to the receiver."""
        packets = used = 0
        over = time.monotonic() + effort.flood
        with self._cores.moved(self._pids, self._cores.source):
            for number in range(BURSTS):
                with self._standing_still():
                    counted, all_, _ = self._sent(self._flooding, self._watch.received, BURST, effort.flood)
                packets, used = packets + counted.delivered, used + all_
                if number and time.monotonic() > over:
                    break
        return {"cpu": per(used, packets)}

    def _drain(self, effort: Effort) -> Sample:
        """The same, to nowhere: what a packet costs who answers it, and the rest of its way in the router.

        `handler`: on another processor than that which has received them; `near`: on the same one.
        """
        found = {"handler": self._cores.other, "near": self._cores.source}
        return {name: per(*self.drained(BURSTS, processor)) for name, processor in found.items()}

    def drained(self, bursts: int, processor: int) -> tuple[int, int]:
        """Nanoseconds of the handler on a processor, and packets that it answered."""
        packets = used = 0
        with self._cores.moved(self._pids, processor):
            for _ in range(bursts):
                with self._standing_still():
                    counted, _, handled = self._sent(
                        self._draining, self._watch.answered, BURST, CALM_SECONDS
                    )
                packets, used = packets + counted.delivered, used + handled
        return used, packets

    def samples(self, what: Measure, effort: Effort) -> list[Sample]:
        """What one round has of a measure."""
        return [self.measure(what, effort)]

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """The handler waits until the packets have been sent."""
        self._is_still = True
        try:
            yield
        finally:
            self._is_still = False
            for pid in self._pids:
                os.kill(pid, signal.SIGCONT)

    def _sent(
        self, source: _core.FrameSource, come: Callable[[], int], count: int, seconds: float
    ) -> tuple[Checked, int, int]:
        """What became of the packets; nanoseconds of all, and of the handler."""

        def work() -> tuple[int, int]:
            self._cores.pin_source()
            start = time.thread_time_ns()
            return source.send(count, seconds), time.thread_time_ns() - start

        stopped = self._pids if self._is_still else []
        with self._counting(come) as counted:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            before, kernel = [threads(pid) for pid in self._pids], self._processors.kernel()
            counted.sent, sending = self._rig.call(SENDER, work)
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        if self._pids:
            time.sleep(LOOK_SECONDS)  # The kernel writes down what a thread has worked when it goes to sleep.
        handled = sum(busiest(was, threads(pid)) for was, pid in zip(before, self._pids, strict=True))
        return counted, sending + handled + self._processors.kernel() - kernel, handled

    @contextmanager
    def _counting(self, come: Callable[[], int]) -> Iterator[Checked]:
        """What becomes of the packets that are sent meanwhile; ends when none is on its way any more.

        `come` counts those that have come to where they should.
        """
        before, dropped = come(), self._watch.dropped()
        counted = Checked()
        yield counted
        quiet, over = 0, time.monotonic() + CALM_SECONDS
        while quiet < QUIET_LOOKS and time.monotonic() < over:
            seen, counted.until = counted.delivered, time.monotonic()
            counted.delivered, counted.dropped = come() - before, self._watch.dropped() - dropped
            if not counted.unexplained:
                break
            is_moving = counted.delivered != seen or self._watch.waiting()
            quiet = 0 if is_moving else quiet + 1
            time.sleep(LOOK_SECONDS)
        self.checked.add(counted)

    def _latency(self, effort: Effort) -> Sample:
        """One datagram at a time there and back."""
        target = f"{self._router.servers[0]}:{ECHO_PORT}"
        found, lost = self._rig.call(
            SENDER, _core.exchange, self._router.client, target, effort.latency, CALM_SECONDS
        )
        return {**percentiles(found), "lost": lost}

    def _connections(self, effort: Effort) -> Sample:
        """Short TCP connections, eight at a time."""
        targets = [f"{server}:{TCP_PORT}" for server in self._router.servers]
        return connections(self._rig, targets, b"", effort.connections, self._processors, self._pids)

    def _bulk(self, effort: Effort) -> Sample:
        """One TCP stream, then another."""
        before = self._processors.nanoseconds(self._pids)
        start = time.monotonic()
        count = sum(stream(self._rig, self._router, effort.bulk / STREAMS) for _ in range(STREAMS))
        seconds = time.monotonic() - start
        used = self._processors.nanoseconds(self._pids) - before
        return {"gbit": count * 8 / seconds / 1e9, "cpu": per(used, count)}


def frames(router: Router, target: str, ports: Sequence[int]) -> _core.FrameSource:
    """A source of frames to these ports of an address, made in the sender's namespace; always the same."""
    dice = random.Random(1)
    network, destination = int(IPv4Address(router.client)) & ~0xFF, int(IPv4Address(target))
    flows = [
        (
            network + FIRST_SOURCE + dice.randrange(SOURCES),
            # In turn, for cases that tell halves apart; and none of a failsafe, which is answered by a rule.
            dice.randrange(1024, HALF_PORT) if number % 2 else dice.randrange(HALF_PORT, 65536),
            destination,
            dice.choice(ports),
        )
        for number in range(FLOWS)
    ]
    device = socket.if_nametoindex(router.sender_device)
    return _core.FrameSource(device, router.mac(0), router.mac(1), flows, payload=PAYLOAD)


def connections(
    rig: Rig, targets: list[str], request: bytes, seconds: float, processors: Processors, pids: list[int]
) -> Sample:
    """Short TCP connections from the sender; `cpu` is that of all who take part, per connection."""

    def work() -> tuple[list[int], int]:
        return _core.connect_many(
            targets,
            threads=CONNECTING_THREADS,
            most=MOST_CONNECTIONS,
            seconds=seconds,
            patience=PATIENCE,
            request=request,
        )

    before, start = processors.nanoseconds(pids), time.monotonic()
    found, lost = rig.call(SENDER, work)
    elapsed = time.monotonic() - start
    used = processors.nanoseconds(pids) - before
    per_second = len(found) / elapsed
    return {"perSecond": per_second, "cpu": per(used, len(found)), "lost": lost, **percentiles(found)}


def stream(rig: Rig, router: Router, seconds: float) -> int:
    """Bytes that have come through one TCP connection, receiver to be trusted."""
    listener = rig.call(RECEIVER, socket.create_server, (router.servers[0], BULK_PORT))
    counted = [0]

    def receive() -> None:
        listener.settimeout(PATIENCE)
        room = bytearray(BULK_BYTES)
        with suppress(OSError), listener, listener.accept()[0] as accepted:
            accepted.settimeout(CALM_SECONDS)
            while length := accepted.recv_into(room):
                counted[0] += length

    def send() -> None:
        with suppress(OSError), socket.create_connection((router.servers[0], BULK_PORT), PATIENCE) as sender:
            end, data = time.monotonic() + seconds, bytes(BULK_BYTES)
            while time.monotonic() < end:
                sender.sendall(data)

    receiver = threading.Thread(target=receive)
    receiver.start()
    rig.call(SENDER, send)
    receiver.join()
    return counted[0]


def per(nanoseconds: int, done: int) -> float:
    """What each cost; NaN, no figure, where nothing was done: the time then went into failing."""
    return nanoseconds / done if done > 0 else math.nan


def percentiles(nanoseconds: Sequence[int]) -> Sample:
    """In microseconds; NaN where there is none."""
    if len(nanoseconds) < 2:
        return dict.fromkeys(("p50", "p90", "p99"), math.nan)
    cuts = statistics.quantiles(nanoseconds, n=100, method="inclusive")
    return {"p50": cuts[49] / 1e3, "p90": cuts[89] / 1e3, "p99": cuts[98] / 1e3}
