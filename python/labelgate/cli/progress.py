"""How far reading is, on terminals, where it takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_SECONDS = 1.0
BETWEEN_SECONDS = 0.1


class ProgressBar:
    """A bar on standard error: only if that is a terminal, and only once reading takes longer than a second.

    It goes away when all is read, and on exit at the latest; the next reading begins a new one.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, what: str = "reading policies"
    ) -> None:
        self._what = what
        self._clock = clock
        self._is_watched = sys.stderr.isatty()
        self._next: float | None = None
        self._shown: tuple[Progress, TaskID] | None = None

    def __call__(self, done: int, whole: int) -> None:
        """So many bytes of so many are read."""
        if done == whole:
            self._end()
        elif self._next is None:
            self._next = self._clock() + PATIENCE_SECONDS
        elif self._is_watched and (now := self._clock()) >= self._next:
            self._next = now + BETWEEN_SECONDS
            self._show(done, whole)

    def _show(self, done: int, whole: int) -> None:
        if self._shown is None:
            from rich.console import Console  # Here, because most never need it, and it takes its time.
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            self._shown = bar, bar.add_task(self._what, total=whole)
            bar.start()
        bar, task = self._shown
        bar.update(task, completed=done)

    def _end(self) -> None:
        if self._shown is not None:
            self._shown[0].stop()
        self._next = self._shown = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
