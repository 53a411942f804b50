"""How many workers there are, and on which processors each runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MOST_WORKERS = 8
"""More queues cost every packet: the kernel finds them in 16 lists."""
QUEUES_EACH, QUEUE_NUMBERS = 14, 65536
"""Of a worker: for seven hooks in two IP versions; and how many there can be."""


@dataclass(frozen=True)
class Workers:
    """Who answers packets.

    With `by_cpu` the kernel hands a packet to the worker whose number is that of the processor which has the
    packet, modulo their count (`--queue-cpu-fanout`, net/netfilter/xt_NFQUEUE.c). A worker that runs on those
    processors finds packets in their caches, and is woken without one processor interrupting another.
    """

    count: int
    by_cpu: bool = False
    places: tuple[frozenset[int], ...] = ()
    """The processors of each; empty: anywhere."""

    @classmethod
    def planned(
        cls,
        count: int | None,
        fanout: Literal["balance", "cpu"],
        cpus: Sequence[int],
        *,
        base: int = 0,
        usable: frozenset[int] | None = None,
        interfaces: Path = Path("/sys/class/net"),
    ) -> Workers:
        """As configured: `queues.workers` (None: chosen here), `queues.fanout`, `queues.cpus`, `queues.base`.

        >>> Workers.planned(None, "cpu", (), usable=frozenset({0, 1, 2})).places
        (frozenset({0}), frozenset({1}), frozenset({2}))
        >>> Workers.planned(None, "cpu", (1, 2, 3)).places
        (frozenset({3}), frozenset({1}), frozenset({2}))
        """
        usable = frozenset(os.sched_getaffinity(0)) if usable is None else usable
        places = frozenset(cpus) or usable
        if count is None:
            is_free = bool(cpus) or fanout == "cpu"
            wanted = len(places) if is_free else receiving_processors(interfaces, usable)
            count = max(1, min(wanted, MOST_WORKERS, (QUEUE_NUMBERS - base) // QUEUES_EACH))
        if fanout == "cpu" and count > 1:
            parts = (frozenset(cpu for cpu in places if cpu % count == number) for number in range(count))
            # Those that may not run where their packets are run where they may.
            return cls(count, True, tuple(part or places for part in parts))
        in_turn = [frozenset({cpus[number % len(cpus)]}) for number in range(count)] if cpus else []
        return cls(count, False, tuple(in_turn))


def receiving_processors(interfaces: Path, usable: frozenset[int]) -> int:
    """Processors on which packets come in: receive queues of the widest interface, or its RPS mask.

    1 where there are fewer than three processors: a second worker, woken on whichever processor is idle, took
    time from those that receive.
    """
    if len(usable) < 3:
        return 1
    widest = max((_width(interface) for interface in interfaces.glob("*/queues")), default=1)
    return max(1, min(widest, len(usable), MOST_WORKERS))


def _width(queues: Path) -> int:
    received = list(queues.glob("rx-*"))
    if not (queues.parent / "device").exists():
        received = received[:1]  # A virtual interface receives where its sender runs.
    steered = (_mask(queue / "rps_cpus") for queue in queues.glob("rx-*"))
    return max(len(received), *(mask.bit_count() for mask in steered), 0)


def _mask(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii").strip().replace(",", "") or "0", 16)
    except OSError:
        return 0


def pin(threads: Sequence[int], places: Sequence[frozenset[int]]) -> list[str]:
    """Each thread to its processors, none where there are no places; what could not be done, in words."""
    failures: list[str] = []
    for number, (thread, place) in enumerate(zip(threads, places, strict=False)):
        try:
            os.sched_setaffinity(thread, place)
        except OSError as error:
            cpus = ", ".join(map(str, sorted(place)))
            failures.append(f"worker {number} on processor {cpus}: {error.strerror}")
    return failures
