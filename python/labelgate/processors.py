"""How many processors receive packets, and which threads run where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

MOST_WORKERS = 8
"""More queues cost every packet: the kernel finds them in 16 lists."""


def receiving_processors(
    interfaces: Path = Path("/sys/class/net"), usable: frozenset[int] | None = None
) -> int:
    """Processors on which packets come in: receive queues of the widest interface, or its RPS mask.

    1 where there are fewer than three processors: there a second worker took time from those that receive.
    """
    usable = frozenset(os.sched_getaffinity(0)) if usable is None else usable
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


def pin(threads: Sequence[int], processors: Sequence[int]) -> None:
    """Each thread to one processor, in turn; to none where there are none.

    Raises:
        OSError: there is no such processor here.
    """
    for number, thread in enumerate(threads):
        if processors:
            os.sched_setaffinity(thread, {processors[number % len(processors)]})
