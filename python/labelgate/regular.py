"""Files that are read again and again: a pipe in the place of one would be waited for for ever."""

from __future__ import annotations

import errno
import os
import stat


def read_regular(path: str) -> bytes:
    """What a regular file holds; OSError, without a wait, if it cannot be read or is none."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return file.read()
