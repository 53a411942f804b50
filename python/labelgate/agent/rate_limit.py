"""Warnings that others can cause as often as they like: said to a limit, and counted beyond it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimited:
    """Says things, but of many only the first ones; how many were left out is said later. From any thread."""

    MOST = 10
    SECONDS = 60.0

    def __init__(
        self, say: Callable[[str], None], what: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`what` names them where they are counted only: "changes of our rules"."""
        self._say, self._what, self._clock = say, what, clock
        self._lock = threading.RLock()
        self._said = self._left_out = 0
        self._since = clock()

    def __call__(self, text: str) -> None:
        """Says it, if there is room."""
        with self._lock:
            self.catch_up()
            if self._said < self.MOST:
                self._said += 1
                self._say(text)
            else:
                self._left_out += 1

    def catch_up(self) -> None:
        """Begins anew where the time has passed."""
        with self._lock:
            now = self._clock()
            if now - self._since < self.SECONDS:
                return
            if self._left_out:
                self._say(f"warning: and {self._left_out} more {self._what} within a minute")
            self._said = self._left_out = 0
            self._since = now
