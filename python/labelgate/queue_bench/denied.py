"""What noting denied packets costs their handler: counts by rule, events, the flight recorder.

One process does all of it and is switched in between, so that memory, queue and router are the same; turns
are short and change places all the time. The difference that is looked for is smaller than that of one turn
from the next: many are compared, each with its neighbours. `again` is `nothing` once more: what comes of
comparing like with like.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from labelgate.queue_bench.cases import Denied, Measure
from labelgate.queue_bench.measures import MOST_PACKETS, Bench, Effort, Sample, per

NOTED = {"nothing": "nothing", "told": "told", "recorded": "recorded", "again": "nothing"}
"""What is told to the loop, by the names of turns."""
TURN = 2
"""Bursts of a turn."""


class Miscounted(Exception):
    """The loop does not note what it is told to: no figure of it is worth anything."""


class NotingBench(Bench):
    """Of a case that can be switched."""

    case: Denied
    _blocks = 0

    def close(self) -> None:
        """The line to the loop, too."""
        super().close()
        self.case.close()

    def samples(self, what: Measure, effort: Effort) -> list[Sample]:
        """`noting`: as many blocks as there is time for, a turn of each kind in each; `denials`: floods."""
        if what == "denials":
            return [self._block(self._flooded, effort)]
        found: list[Sample] = []
        end = time.monotonic() + effort.noting
        while not found or time.monotonic() < end:
            found.append(self._block(self._drained, effort))
        return found

    def _block(self, turn: Callable[[str, Effort], tuple[Sample, int]], effort: Effort) -> Sample:
        """Miscounted if rules have not counted exactly the packets that they should."""
        names, number = [*NOTED], self._blocks
        self._blocks += 1
        at = number // 2 % len(names)
        order = (names[at:] + names[:at])[:: -1 if number % 2 else 1]
        found: Sample = {}
        for name in order:
            before = self.case.note(NOTED[name])
            sample, packets = turn(name, effort)
            wanted = 0 if NOTED[name] == "nothing" else packets
            if (counted := self.case.note("nothing") - before) != wanted:
                raise Miscounted(f"denied, {name}: rules have counted {counted} packets, expected {wanted}")
            found.update(sample)
        return found

    def _drained(self, name: str, effort: Effort) -> tuple[Sample, int]:
        """Nanoseconds a packet of bursts that wait when the handler is let go."""
        used, packets = self.drained(TURN, self._cores.other)
        return {name: per(used, packets)}, packets

    def _flooded(self, name: str, effort: Effort) -> tuple[Sample, int]:
        """The same while the source sends as fast as it can, and how many come through."""
        start = time.monotonic()
        counted, _, handled = self._sent(self._draining, self._watch.answered, MOST_PACKETS, effort.flood)
        packets = counted.delivered
        kpps = packets / (counted.until - start) / 1e3
        return {f"{name} kpps": kpps, name: per(handled, packets)}, packets
