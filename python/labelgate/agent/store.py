"""The daemon's state, where there is any: without it policy is enforced, but nothing can be applied."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from labelgate.agent.kept_counts import KeptCounts
from labelgate.agent.rules import RuleCounts
from labelgate.agent.state import Record, State, StateError, peek

KEEP_SECONDS = 1.0
"""Edits of files are kept when nothing more has changed for so long."""
RETRY_SECONDS = 30.0
"""What could not be written is tried again after so long."""


class Store:
    """Keeps what is in force; says once why it cannot."""

    def __init__(self, folder: str, say: Callable[[str], None], *, is_taken: bool = False) -> None:
        """`is_taken`: by the daemon that is to be replaced; `open` is to be called when that has ended."""
        self._say = say
        self._folder = folder
        self._state: State | None = None
        self._is_taken = is_taken
        self._counts = KeptCounts(folder, say)
        self._later: Record | None = None
        self._due = 0.0
        self.problem: str | None = None
        """Why nothing is kept."""
        self.refused = ""
        """Goes into every record: digest of files that the lock-out check refused."""
        if not is_taken:
            self.open()

    def open(self) -> None:
        """Takes the folder, if it can be had."""
        self._is_taken = False
        try:
            self._state = State(self._folder)
        except StateError as error:
            self._note(error)

    def keep_counts(self, counts: RuleCounts) -> None:
        """If the folder is ours: they go on where the daemon before ended, and are kept until the end."""
        if self._state:
            self._counts.open(counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._due = 0.0
        self.keep_due()
        self._counts.close()
        if self._state:
            self._state.close()

    def recover(self) -> Record | None:
        """What was kept; a trial that nobody confirmed is over. While another daemon keeps it: as it is."""
        if self._state is None and not self._is_taken:
            return None
        try:
            record = self._state.read() if self._state else peek(self._folder)
        except StateError as error:
            self._say(f"warning: {error}; the files are read instead")
            return None
        if record is not None:
            self.refused = record.refused
        if record is None or record.trial is None or self._state is None:
            return record
        paths = ", ".join(record.trial.paths)
        self._say(f"the policy of {paths} was on trial when the daemon ended: it is rolled back")
        record = replace(record, trial=None)
        self.try_to_keep(record)
        return record

    def keep(self, record: Record) -> None:
        """At once; StateError if that cannot be, and what was kept is kept still."""
        if self._state is None:
            raise StateError(self.problem or "")
        self._state.write(replace(record, refused=self.refused))
        self._later = self.problem = None

    def try_to_keep(self, record: Record) -> None:
        """At once, or say why not and try again later."""
        try:
            self.keep(record)
        except StateError as error:
            self._note(error)
            self._later, self._due = record, time.monotonic() + RETRY_SECONDS

    def keep_later(self, record: Record) -> None:
        """When there is time; `keep_due` does it."""
        self._later, self._due = record, time.monotonic() + KEEP_SECONDS

    def keep_due(self) -> None:
        """What was to be kept later, if it is time."""
        if self._later is not None and time.monotonic() >= self._due:
            self.try_to_keep(self._later)

    def _note(self, error: StateError) -> None:
        if self.problem != str(error):
            self.problem = str(error)
            self._say(f"warning: no state is kept: {error}")
