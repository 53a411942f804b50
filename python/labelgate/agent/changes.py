"""What became of the changes since the start: how long compiling took, and what was refused."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: upper bounds of the buckets; what takes longer is in the last one."""

Reason = Literal["invalid", "lockout", "rules"]
"""Files or configuration are not valid; somebody would be locked out; rules could not be applied."""
REASONS: tuple[Reason, ...] = ("invalid", "lockout", "rules")


@dataclass
class Durations:
    """A histogram of seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0
    """All of them together."""
    last: float = 0.0

    def observe(self, seconds: float) -> None:
        """One more.

        >>> durations = Durations()
        >>> durations.observe(0.003)
        >>> durations.counts[:4], durations.last
        ([0, 0, 1, 0], 0.003)
        """
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds, self.last = self.seconds + seconds, seconds

    def to_json(self) -> dict[str, Any]:
        """For the control socket: `counts` has one more than `bounds`, and is not cumulative."""
        return {
            "bounds": list(BOUNDS),
            "counts": list(self.counts),
            "seconds": round(self.seconds, 6),
            "last": round(self.last, 6),
        }


@dataclass
class Changes:
    """Written by the main thread, read by any."""

    compiled: Durations = field(default_factory=Durations)
    """Model and engines of a generation, those that were then refused included."""
    refused: Counter[Reason] = field(default_factory=Counter)
    """Changes of the files or of the interfaces that are not in force: each attempt, each edit once."""

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        return {
            "compiled": self.compiled.to_json(),
            "refused": {reason: self.refused[reason] for reason in REASONS},
        }
