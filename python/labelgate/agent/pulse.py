"""Whether every worker of the packet loop still comes round it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

LIVE_SECONDS = 5.0
"""A worker that was silent for longer is not live; without packets it comes round once a second."""
HUNG_SECONDS = 10.0
"""Then the daemon ends: nobody has chosen that some queues are answered and others are not."""
LOOK_SECONDS = 1.0
"""What one look counts at most: a host that slept, or a looker that was busy, makes no worker hang."""


class Pulse:
    """How long each worker has been silent while somebody looked; any thread may look."""

    def __init__(
        self, turns: Callable[[], Sequence[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._turns, self._clock = turns, clock
        self._lock = threading.Lock()
        self._seen = list(turns())
        self._silent = [0.0] * len(self._seen)
        self._looked = clock()

    def silent(self) -> list[float]:
        """Seconds, by worker.

        >>> moments, turns = iter([0.0, 0.5, 60.0, 60.5]), iter([[1, 1], [2, 1], [3, 1], [3, 2]])
        >>> pulse = Pulse(lambda: next(turns), lambda: next(moments))
        >>> pulse.silent(), pulse.silent(), pulse.silent()
        ([0.0, 0.5], [0.0, 1.5], [0.5, 0.0])
        """
        with self._lock:
            turns, now = list(self._turns()), self._clock()
            step = min(now - self._looked, LOOK_SECONDS)
            self._silent = [
                silent + step if turn == seen else 0.0
                for silent, turn, seen in zip(self._silent, turns, self._seen, strict=True)
            ]
            self._seen, self._looked = turns, now
            return list(self._silent)

    def hung(self) -> int | None:
        """The number of a worker that will not come round any more; None: there is none."""
        silent = self.silent()
        return next((number for number, seconds in enumerate(silent) if seconds > HUNG_SECONDS), None)
