"""What the kernel says of the queues in the network namespace of the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_QUEUES = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")


@dataclass(frozen=True, slots=True)
class QueueState:
    """One line of nfnetlink_queue."""

    waiting: int
    """Packets without verdict."""
    dropped: int
    """Packets that the queue had no room for; with fail-open they pass uncounted."""
    undelivered: int
    """Packets that its socket had no room for; likewise."""
    packets: int = 0
    """Packets that it has had room for, of 32 bits."""


def parse_queues(text: str) -> dict[int, QueueState]:
    """Queues by number.

    >>> parse_queues(" 4206  24112     3 2 65531     7     8      120  1")
    {4206: QueueState(waiting=3, dropped=7, undelivered=8, packets=120)}
    """
    rows = (list(map(int, line.split())) for line in text.splitlines())
    return {row[0]: QueueState(row[2], row[5], row[6], row[7]) for row in rows}


def read_queues() -> dict[int, QueueState]:
    """Those that are bound; none where that cannot be seen."""
    try:
        return parse_queues(_QUEUES.read_text(encoding="ascii"))
    except OSError:
        return {}


class Passed:
    """Packets that passed because a socket had no room for them, where the hook fails open.

    The kernel counts them nowhere; they are those that it queued and that nobody waits for or has answered.
    What is on the way while this is read is missing until the next time, and the sum never goes back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._most: dict[str, int] = {}

    def of(self, hook: str, states: Iterable[QueueState], answered: int) -> int:
        """`states` are to be read before `answered`.

        >>> passed = Passed()
        >>> state = QueueState(waiting=1, dropped=0, undelivered=0, packets=10)
        >>> passed.of("filter-input", [state], 6), passed.of("filter-input", [state], 8)
        (3, 3)
        """
        found = sum(state.packets - state.waiting for state in states) - answered
        with self._lock:
            self._most[hook] = max(found, self._most.get(hook, 0))
            return self._most[hook]


def free_block(bound: Iterable[int], first: int, size: int) -> int:
    """The first of `size` queue numbers from `first` on, or behind them where some of those are bound.

    >>> free_block([4213], 4200, 14), free_block([4214], 4200, 14)
    (4214, 4200)
    """
    return first if set(bound).isdisjoint(range(first, first + size)) else first + size
