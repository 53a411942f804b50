"""Files that are read again and again: a pipe in the place of one would be waited for for ever.

What is larger than any file of policies is not read: it would take all memory to tell what is wrong with it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from fcntl import F_RDLCK, F_SETLEASE, F_SETSIG, F_UNLCK, fcntl
from signal import SIGURG
from typing import BinaryIO

MOST_BYTES = 256 << 20
"""Of one file; a request at the control socket has no more either."""
_PART_BYTES = 1 << 16


def read_regular(path: str) -> bytes:
    """What a regular file holds; OSError, without a wait, if it cannot be read or is none."""
    return read_and_tell(path)[0]


def read_closed(path: str) -> bytes:
    """The same; OSError also where somebody has it open for writing, as far as the kernel tells."""
    content, is_open = read_and_tell(path)
    if is_open:
        raise open_for_writing(path)
    return content


def open_for_writing(path: str) -> OSError:
    """What a file is refused with that somebody has open for writing: it may hold half of what it will."""
    return OSError(errno.EBUSY, "somebody has it open for writing", path)


def read_and_tell(path: str) -> tuple[bytes, bool | None]:
    """The same, and whether somebody had it open for writing; None where the kernel does not tell."""
    with open_regular(path) as file:
        before = _is_open_for_writing(file.fileno())
        content = read_bounded(file, path)
        return content, before or _is_open_for_writing(file.fileno())


def open_regular(path: str) -> BinaryIO:
    """For reading; OSError, without a wait, if it cannot be, or is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return os.fdopen(descriptor, "rb")


def read_bounded(file: BinaryIO, path: str) -> bytes:
    """All that is left of it; OSError (EFBIG) if that is more than a file may have."""
    if (size := _size(file)) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"{size} bytes", path)
    parts, left = list[bytes](), MOST_BYTES
    while part := file.read(_PART_BYTES):
        left -= len(part)
        if left < 0:  # A pipe has no size, and a file may grow meanwhile.
            raise OSError(errno.EFBIG, f"more than {MOST_BYTES} bytes", path)
        parts.append(part)
    return b"".join(parts)


def _size(file: BinaryIO) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except OSError:  # It is none of the system's.
        return 0


def _is_open_for_writing(descriptor: int) -> bool | None:
    """Whether any process has the file so, or mapped, by fcntl(2); None where that is not told.

    Of a file of somebody else without CAP_LEASE, and on file systems without leases (FUSE), or of others.
    """
    try:
        # Whoever opens the file in between waits until we let go, and we are signalled: SIGIO would end us.
        fcntl(descriptor, F_SETSIG, SIGURG)
        fcntl(descriptor, F_SETLEASE, F_RDLCK)
    except OSError as error:
        if error.errno != errno.EAGAIN or _file_system(os.fstat(descriptor).st_dev) in _REMOTE:
            return None
        return True
    fcntl(descriptor, F_SETLEASE, F_UNLCK)
    return False


_REMOTE = frozenset((b"nfs", b"nfs4", b"cifs", b"smb3"))
"""They refuse a lease in the same way when their server has not promised them the file."""


def _file_system(device: int) -> bytes | None:
    """What kind it is, by proc_pid_mountinfo(5)."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    with suppress(OSError), open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            mount, _, source = line.partition(b" - ")
            if mount.split()[2] == number:
                return source.split()[0]
    return None
