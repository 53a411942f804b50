"""Times that were noted before somebody set the clock, by the clock of now.

A host without a clock of its own begins in 1970, and is set forward by years once it has the time: what was
met a moment before would look unused for as long. How long ago it was tells a clock that nobody sets.
"""

from __future__ import annotations

import time

JUMP = 60_000
"""Milliseconds. Less than that is no matter: nobody asks for what is unused for a minute."""


class Clock:
    """Times are in milliseconds since 1970. To be looked at each minute; not for several threads at once."""

    def __init__(self) -> None:
        self._ahead = now() - running()
        self._jumps: list[tuple[int, int]] = []
        """Up to which times, by the clock of then, and how far it was set forward behind them."""

    def look(self) -> bool:
        """Notes how far the clock was set since the last look; whether it was."""
        wall = now()
        ahead = wall - running()
        by, self._ahead = ahead - self._ahead, ahead
        is_set = abs(by) > JUMP
        if by > JUMP:
            self._jumps.append((wall - by, by))
        elif by < -JUMP:
            while by < 0 and self._jumps:
                until, forward = self._jumps.pop()
                by += forward
                if by > 0:
                    self._jumps.append((until, by))
        return is_set

    def mended(self, noted: int) -> int:
        """A time that was noted; never earlier than it was, by the clock of now.

        What was noted while the clock was ahead, and set back since, is in the future until it has come.
        """
        for until, by in self._jumps:
            if noted <= until:
                noted += by
        return noted


def now() -> int:
    """Now, by the clock that people set."""
    return int(time.time() * 1000)


def running() -> int:
    """Of the clock that nobody sets, which goes on while the host sleeps."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)
