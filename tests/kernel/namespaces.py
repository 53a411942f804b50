"""Network namespaces without a name: they end when nobody is in them any more."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def enter_a_new_one() -> None:
    """The calling thread leaves the namespace that it is in."""
    assert _libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def a_new_one() -> Iterator[None]:
    """The calling thread is in it, and then back where it was."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    enter_a_new_one()
    try:
        yield
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(home)
