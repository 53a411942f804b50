"""Events of the packet loop: taken as they come, kept for whoever asks, written to a file and the journal.

A thread of its own takes them. Nobody is waited for: who asks too seldom has missed some, and is told how
many.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from labelgate.agent.event_file import EventFile
from labelgate.agent.generation import Generation
from labelgate.agent.journal import Journal
from labelgate.agent.panics import panics_refused
from labelgate.handlers import PacketLoop
from labelgate.links import Links, interface_name

KEPT = 4096
"""Events that can be asked for."""
MOST_ANSWERED = 500
"""Events of one answer."""
_SECONDS = 0.2
_MOST = 1000
"""Packets of one turn."""
_TABLES = 64
"""So many tables are remembered, for events that are told late."""
_STOP_SECONDS = 2.0


class EventLog:
    """Takes events until it is stopped."""

    def __init__(self, loop: PacketLoop, first: Generation, say: Callable[[str], None]) -> None:
        self._loop = loop
        self._say = say
        self._tables = {1: (first.number, dict(first.links.indexes))}
        """By the loop's numbers of tables: our generation, and the names of its interfaces."""
        self._early: list[dict[str, Any]] = []
        """Of tables that are not known here yet: the loop answers by one a moment before it is told."""
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._sequence = 0
        self._file = EventFile(first.config.event_file) if first.config.event_file else None
        self._path = first.config.event_file
        self._journal = Journal() if first.config.event_journal else None
        self._failing: set[str] = set()
        """What cannot be written now."""
        targets = {"events.file": self._file, "events.journal": self._journal}
        self.unwritten = {name: 0 for name, target in targets.items() if target}
        """Events of batches that could not be written, by where they were to go."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        # A disk that does not answer holds up this thread alone, also at the end.
        self._thread = threading.Thread(target=self._run, name="labelgate-events", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._close()
            raise

    def swapped(self, number: int, generation: int, links: Links) -> None:
        """The packet loop answers by this generation; `number` is the loop's own."""
        with self._lock:
            kept = dict(list(self._tables.items())[1 - _TABLES :])
            self._tables = {**kept, number: (generation, dict(links.indexes))}

    def answer(self, after: int | None) -> dict[str, Any]:
        """Events behind a number, oldest first, `MOST_ANSWERED` at most; None: all that are kept.

        `missed` are those behind it that are no longer kept, `limited` and `lost` those that never came.
        """
        with self._lock:
            first = self._sequence - len(self._kept)
            begin = first if after is None else min(max(after, first), self._sequence)
            events = [self._kept[index - first] for index in range(begin, self._sequence)][:MOST_ANSWERED]
        limited, lost = self._loop.untold()
        missed = 0 if after is None else max(0, first - after)
        return {
            "events": events,
            "next": begin + len(events),
            "missed": missed,
            "limited": limited,
            "lost": lost,
        }

    def recorded(self) -> dict[str, Any]:
        """The last denied packets, however many were told, oldest first."""
        packets = json.loads(self._loop.recorded())
        with self._lock:
            return {"packets": [self._named(packet) for packet in packets]}

    def stop(self) -> None:
        """Takes what has come until now, and no more."""
        self._over.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._over.wait(_SECONDS)
            try:
                with panics_refused():
                    self._take(is_last=is_over)
            except Exception as error:  # Whatever it is, it must not end the events without a word.
                self._fail("events", f"{type(error).__name__}: {error}")
        self._close()

    def _close(self) -> None:
        for target in (self._file, self._journal):
            if target:
                target.close()

    def _take(self, *, is_last: bool = False) -> None:
        """At the end nothing waits for its table any more."""
        taken = json.loads(self._loop.events(_MOST))
        with self._lock:
            taken, latest = self._early + taken, max(self._tables)
            self._early = [event for event in taken if event["generation"] > latest and not is_last]
            events = [self._named(event) for event in taken if event["generation"] <= latest or is_last]
            self._kept.extend(events)
            self._sequence += len(events)
        if self._file:
            self._write("events.file", self._file.write, events)
        if self._journal:
            self._write("events.journal", self._journal.write, events)

    def _write(
        self, target: str, write: Callable[[list[dict[str, Any]]], None], events: list[dict[str, Any]]
    ) -> None:
        try:
            write(events)
            if events:  # A file that can be opened may still be one that cannot be written.
                self._failing.discard(target)
        except OSError as error:
            self.unwritten[target] += len(events)
            path = f"{self._path}: " if target == "events.file" else ""
            self._fail(target, f"{path}{error.strerror}")

    def _named(self, event: dict[str, Any]) -> dict[str, Any]:
        """With our number of the generation, and the names that its interfaces had."""
        generation, names = self._tables.get(event["generation"], (None, {}))
        in_, out = (_name(event[side], names) for side in ("in", "out"))
        return {**event, "generation": generation, "in": in_, "out": out}

    def _fail(self, target: str, why: str) -> None:
        """Once, until it works again."""
        if target not in self._failing:
            self._failing.add(target)
            self._say(f"warning: {target}: {why}; events are lost")


def _name(index: int, names: Mapping[int, str]) -> str | None:
    if not index:
        return None
    if index not in names:
        with suppress(OSError):
            return interface_name(index)
    return names.get(index, f"#{index}")
