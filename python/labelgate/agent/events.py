"""Events of the packet loop: taken as they come, kept for whoever asks, written to a file and the journal.

A thread of its own takes them. Nobody is waited for: who asks too seldom has missed some, and is told how
many.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from labelgate.agent.generation import Generation
from labelgate.agent.journal import Journal
from labelgate.handlers import PacketLoop
from labelgate.links import Links

KEPT = 4096
"""Events that can be asked for."""
MOST_ANSWERED = 500
"""Events of one answer."""
_SECONDS = 0.2
_MOST = 1000
"""Packets of one turn."""


class EventLog:
    """Takes events until it is stopped."""

    def __init__(self, loop: PacketLoop, first: Generation, say: Callable[[str], None]) -> None:
        self._loop = loop
        self._say = say
        self._names: dict[int, str] = dict(first.links.indexes)
        self._numbers = {1: first.number}
        """Numbers of generations by the loop's numbers of tables."""
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._sequence = 0
        self._file = first.config.event_file
        self._journal = Journal() if first.config.event_journal else None
        self._descriptor = -1
        self._has_failed = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.reopen()
        self._thread = threading.Thread(target=self._run, name="labelgate-events")
        self._thread.start()

    def swapped(self, number: int, generation: int, links: Links) -> None:
        """The packet loop answers by this generation; `number` is the loop's own."""
        with self._lock:
            self._names |= dict(links.indexes)
            self._numbers = {**dict(list(self._numbers.items())[-15:]), number: generation}

    def reopen(self) -> None:
        """Opens the file anew: it may have been moved away. What is lost from now on is said again."""
        self._has_failed = False
        if not self._file:
            return
        with self._lock:
            self._close()
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._descriptor = os.open(self._file, flags, 0o640)
            except OSError as error:
                self._say(f"warning: events.file: {self._file}: {error.strerror}; events are not written")

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
        self._thread.join()
        with self._lock:
            self._close()
            if self._journal:
                self._journal.close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _run(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._over.wait(_SECONDS)
            try:
                self._take()
            except Exception as error:  # Whatever it is, it must not end the events without a word.
                self._fail(f"{type(error).__name__}: {error}")

    def _take(self) -> None:
        events = json.loads(self._loop.events(_MOST))
        with self._lock:
            events = [self._named(event) for event in events]
            self._kept.extend(events)
            self._sequence += len(events)
            for write in (self._append, self._journal.write if self._journal else None):
                if write:
                    try:
                        write(events)
                    except OSError as error:
                        self._fail(str(error.strerror))

    def _named(self, event: dict[str, Any]) -> dict[str, Any]:
        """With our numbers of generations, and the names of interfaces."""
        number, interfaces = self._numbers.get(event["generation"]), (event["in"], event["out"])
        in_, out = map(self._name, interfaces)
        return {**event, "generation": number, "in": in_, "out": out}

    def _append(self, events: Iterable[Mapping[str, Any]]) -> None:
        if self._descriptor >= 0:
            text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode()
            while text:
                text = text[os.write(self._descriptor, text) :]

    def _fail(self, why: str) -> None:
        """Once for each time that the file is opened."""
        if not self._has_failed:
            self._has_failed = True
            self._say(f"warning: events are lost: {why}")

    def _name(self, index: int) -> str | None:
        if index and index not in self._names:
            with suppress(OSError):
                self._names[index] = socket.if_indextoname(index)
        return self._names.get(index, f"#{index}") if index else None
