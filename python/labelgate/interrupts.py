"""Ctrl-C while modules are imported, or other threads are at work that cannot be stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""As a shell says it: 128 and the number of SIGINT."""


@contextmanager
def ending_at_once(message: str = "") -> Iterator[None]:
    """Ctrl-C ends the program without a traceback, with a message on standard error if one is given.

    An exception would come out of some module's import, or be lost in it; and the interpreter would wait for
    all threads before it ends.
    """

    def end(*_: object) -> None:
        if message:
            os.write(2, f"{message}\n".encode())
        os._exit(INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # In the background of a shell it is ignored.
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
