"""Ctrl-C while modules are imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""As a shell says it: 128 and the number of SIGINT."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Ctrl-C ends the program without a traceback.

    An exception would come out of some module's import, or be lost in it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # In the background of a shell it is ignored.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
