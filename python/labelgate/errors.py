"""Exceptions that say more than a text, and go to other processes all the same."""

from __future__ import annotations

import copyreg
import os
import traceback
from typing import Any


class Portable(Exception):
    """Is pickled and copied whole, whatever its `__init__` takes.

    Other exceptions are made anew of what was passed to `super().__init__`. Where that does not fit they
    cannot be unpickled, and who asked a pool of processes waits for ever.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


def fault_place(fault: Exception) -> str:
    """A fault of ours in a few words: its class, and the line of ours or of a library that raised it.

    >>> try:
    ...     {}["key"]
    ... except KeyError as error:
    ...     fault_place(error).partition(" at ")[0]
    'KeyError'
    """
    *_, last = traceback.extract_tb(fault.__traceback__)
    return f"{type(fault).__name__} at {os.path.basename(last.filename)}:{last.lineno}"
