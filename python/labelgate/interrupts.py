"""Ctrl-C where an exception would do harm: while modules are imported, in the midst of what must be whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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


@contextmanager
def held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Holds signals back; those that came meanwhile are handled at the end, each once.

    By handlers, not by a mask: that is of one thread, and the kernel would give the signal to another one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals on the main thread only.
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with ExitStack() as all_of_them:  # A handler may raise; the others are called all the same.
            for number in reversed(dict.fromkeys(came)):
                all_of_them.callback(signal.raise_signal, number)
