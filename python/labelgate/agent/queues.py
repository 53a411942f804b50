"""What the kernel says of the queues in the network namespace of the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from labelgate.processors import QUEUE_NUMBERS

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
    """Packets that it has had room for."""
    owner: int = 0
    """The netlink port of the socket that it is bound to."""


_NOTHING = QueueState(0, 0, 0)


def parse_queues(text: str) -> dict[int, QueueState]:
    """Queues by number.

    >>> parse_queues(" 4206  24112     3 2 65531     7     8      120  1")
    {4206: QueueState(waiting=3, dropped=7, undelivered=8, packets=120, owner=24112)}
    """
    rows = (list(map(int, line.split())) for line in text.splitlines())
    return {row[0]: QueueState(row[2], row[5], row[6], row[7], row[1]) for row in rows}


def read_queues() -> dict[int, QueueState]:
    """Those that are bound; none where that cannot be seen."""
    try:
        return parse_queues(_QUEUES.read_text(encoding="ascii"))
    except OSError:
        return {}


def answered_queues(led_to: frozenset[int]) -> list[int]:
    """Of those that rules of ours lead to: nobody answers what a daemon that was killed has left."""
    return sorted(led_to & read_queues().keys())


class Queues:
    """Queues with counters that go on where those of the kernel begin anew: it has 32 bits for each.

    To be read before each has counted so many packets once more.
    """

    def __init__(self, read: Callable[[], dict[int, QueueState]] = read_queues) -> None:
        self._read = read
        self._lock = threading.Lock()
        """Also while the kernel is asked: what is read later is never less."""
        self._last: dict[int, QueueState] = {}
        self._totals: dict[int, QueueState] = {}

    def read(self) -> dict[int, QueueState]:
        """As `read_queues`, with everything that was counted since the first time.

        >>> answers = iter([QueueState(0, 5, 6, 2**32 - 1), QueueState(0, 5, 7, 3)])
        >>> queues = Queues(lambda: {4206: next(answers)})
        >>> queues.read()[4206].packets, queues.read()[4206].packets == 2**32 + 3
        (4294967295, True)
        """
        with self._lock:
            found = self._read()
            for number, state in found.items():
                last = self._last.get(number, state)
                is_known = number in self._last and last.owner == state.owner
                before = self._totals.get(number, _NOTHING)
                self._totals[number] = _onward(before, last if is_known else _NOTHING, state)
            self._last |= found
            return {number: self._totals[number] for number in found}


def _onward(total: QueueState, last: QueueState, now: QueueState) -> QueueState:
    def added(field: str) -> int:
        new: int = (getattr(now, field) - getattr(last, field)) % 2**32
        return new + int(getattr(total, field))

    return replace(now, **{field: added(field) for field in ("dropped", "undelivered", "packets")})


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
    """The first of `size` queue numbers from `first` on, or of the next ones behind them that nobody has.

    Below them where there are none behind; `first` where there are none at all.

    >>> free_block([4213], 4200, 14), free_block([4214], 4200, 14), free_block(range(4200, 4228), 4200, 14)
    (4214, 4200, 4228)
    >>> free_block(range(65508, 65536), 65508, 14)
    65494
    """
    taken = {*bound}
    last = QUEUE_NUMBERS - size
    starts = chain(range(first, last + 1), range(min(first, last), -1, -1))
    free = (start for start in starts if taken.isdisjoint(range(start, start + size)))
    return next(free, first)
