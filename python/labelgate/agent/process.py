"""What the daemon has from being a process: signals, and how it shall stop."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Literal

from labelgate.config import Config

StopMode = Literal["remove", "keep", "open"]
StartMode = Literal["strict", "last-good"]
LEFT: Mapping[StopMode, str] = {
    "remove": "our rules are removed",
    "keep": "our rules stay, what they queue is dropped",
    "open": "our rules stay, what they would queue passes",
}
"""What is said of it."""

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
LONGEST_SECONDS = 86400.0
"""Of one wait: poll(2) counts milliseconds in an int."""


def is_service(environ: Mapping[str, str] | None = None) -> bool:
    """Whether systemd started us."""
    return "INVOCATION_ID" in (os.environ if environ is None else environ)


def stop_mode(config: Config, environ: Mapping[str, str] | None = None) -> StopMode:
    """The configured mode; by default `keep` as a service and `remove` otherwise."""
    return config.stop or ("keep" if is_service(environ) else "remove")


def start_mode(config: Config, environ: Mapping[str, str] | None = None) -> StartMode:
    """The configured mode; by default `last-good` as a service and `strict` otherwise."""
    return config.start or ("last-good" if is_service(environ) else "strict")


class ToldToStop(BaseException):
    """A stop before anything is in force: no error, and nothing that is caught as one."""


class Signals:
    """SIGTERM, SIGINT, SIGHUP and SIGUSR1 as something to wait for; main thread only."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def __enter__(self) -> Signals:
        with ExitStack() as undo:
            self._reader, writer = map(undo.enter_context, socket.socketpair())
            self._reader.setblocking(False)
            writer.setblocking(False)
            for number in self.NUMBERS:
                undo.callback(signal.signal, number, signal.signal(number, lambda *_: None))
            wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            undo.callback(signal.set_wakeup_fd, wakeup)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def take(self, others: Sequence[int], seconds: float) -> Iterator[int]:
        """Waits for a signal or until one of the other descriptors is readable; yields the signals."""
        if not self._waiting:
            wait_readable([self._reader.fileno(), *others], seconds)
        self._read()
        while self._waiting:
            yield self._waiting.pop(0)

    @property
    def is_told_to_stop(self) -> bool:
        """A signal that stops waits to be taken."""
        self._read()
        return bool(set(self._waiting) & STOPPING)

    def wait(self, seconds: float) -> None:
        """Waits this long; a signal is kept for `take`, and one that stops ends the wait."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self.is_told_to_stop:
            wait_readable([self._reader.fileno()], left)
            self._read()

    def _read(self) -> None:
        with suppress(BlockingIOError):
            self._waiting += self._reader.recv(4096)


def wait_readable(descriptors: Iterable[int], seconds: float) -> bool:
    """Waits until one of them is readable, or has ended; False if that takes longer.

    Not by select(2), which knows no descriptor above 1023: each worker has more than a dozen.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    # Never a moment too early: who waits for a time would come round for nothing.
    return bool(poll.poll(math.ceil(min(seconds, LONGEST_SECONDS) * 1000)))
