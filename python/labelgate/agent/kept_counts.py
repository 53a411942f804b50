"""Counts of rules outlive the daemon: a file in the state folder, written each minute and at the end.

Where nothing was met since, only a small file beside it says that it is as it was, and when.

Whoever holds the folder's lock reads it at the start and writes it. A daemon that is killed loses what was
counted since it was written last.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labelgate.agent.panics import panics_refused
from labelgate.agent.rules import RuleCounts
from labelgate.agent.state import StateError, damaged, framed, read_whole, unframed, write_whole

FILE = "rules.json"
STILL = "rules.still"
"""Until when that is right, and its digest."""
VERSION = 1
SECONDS = 60.0
"""Between two writings."""
_STOP_SECONDS = 5.0
"""For a disk that does not answer, at the end."""


class KeptCounts:
    """The file. What is wrong with it is said, and packets are answered and counted all the same."""

    def __init__(self, folder: str, say: Callable[[str], None], seconds: float = SECONDS) -> None:
        self._file = Path(folder) / FILE
        self._say = say
        self._seconds = seconds
        self._counts: RuleCounts | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._problem = ""
        self._written: tuple[int, str] | None = None
        """Which of the changes are in the file, and the digest of that."""

    def open(self, counts: RuleCounts) -> None:
        """Has these go on where those of the daemon before have ended, and keeps them from now on."""
        try:
            read_whole(self._file, lambda content: self._restore(counts, content))
        except StateError as error:
            self._say(f"warning: {error}; rules are counted from 0")
        self._counts = counts
        # A thread of its own: a disk that does not answer holds up no change.
        self._thread = threading.Thread(target=self._run, name="labelgate-counts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """What has been counted until now is written; the packet loop has ended, or nothing leads to it."""
        self._over.set()
        if self._thread:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._over.wait(self._seconds)
            self._write()

    def _write(self) -> None:
        assert self._counts is not None
        try:
            with panics_refused():
                self._write_what_is_new(self._counts)
            self._problem = ""
        except Exception as error:  # Whatever it is, counting goes on.
            text = str(error) if isinstance(error, StateError) else f"{type(error).__name__}: {error}"
            if text != self._problem:
                self._problem = text
                self._say(f"warning: counts of rules are not kept: {text}")

    def _write_what_is_new(self, counts: RuleCounts) -> None:
        changes, time = counts.changes()
        if self._written is not None and self._written[0] == changes and self._file.exists():
            still = {"of": self._written[1], "time": time}
            write_whole(self._file.with_name(STILL), framed(still, VERSION))
            return
        content = framed(counts.saved(), VERSION)
        write_whole(self._file, content)
        self._written = changes, _digest(content)

    def _restore(self, counts: RuleCounts, content: bytes) -> None:
        saved: Any = unframed(content, VERSION)
        try:
            counts.restore({**saved, "time": max(saved["time"], self._still(_digest(content)))})
        except (KeyError, TypeError, ValueError, AttributeError):
            raise damaged() from None

    def _still(self, digest: str) -> int:
        """Until when a file of this digest was right, in milliseconds since 1970; 0: nobody says."""
        try:
            still: Any = unframed(self._file.with_name(STILL).read_bytes(), VERSION)
            return int(still["time"]) if still["of"] == digest else 0
        except (OSError, StateError, KeyError, TypeError, ValueError):
            return 0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
