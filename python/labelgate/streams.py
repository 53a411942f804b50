"""Standard streams: those that are closed, as services and cron jobs may have them, and the journal's."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Opens those of descriptors 0 to 2 that are closed on /dev/null: before any other file would get them.

    Output that nobody can read is not there: /dev/null is opened such that writing to it fails. Errors have
    no other place to go, so they are dropped.
    """
    if not _open(0, os.O_RDONLY):
        sys.stdin = os.fdopen(0, closefd=False)
    if not _open(1, os.O_RDONLY):
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if not _open(2, os.O_WRONLY):
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)


def _open(number: int, flags: int) -> bool:
    """Whether a descriptor was open before."""
    try:
        os.fstat(number)
    except OSError:
        # The least one that is free is taken: this one, since those below it are open.
        os.set_inheritable(os.open(os.devnull, flags), True)
        return False
    return True


def is_journal() -> bool:
    """Whether standard error is the stream to systemd's journal (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
