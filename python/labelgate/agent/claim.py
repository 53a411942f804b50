"""A name in the network namespace that one process at a time has, whatever files it sees.

Daemons in containers, each with a `/run` of its own, share no lock, but they share the names of abstract
sockets. The kernel lets go of one when its process ends. Anybody may take a name: only root's counts.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from contextlib import suppress
from typing import NamedTuple

SECONDS = 1.0
"""For another one to listen that has the name already."""
_WAITING = 64
"""Askers that nobody has looked at yet."""
_UCRED = struct.Struct("=iII")  # linux/socket.h: pid, uid, gid


class Claim:
    """Held until it is closed."""

    def __init__(self, name: bytes) -> None:
        """Raises:
        BlockingIOError: another process of root, or of our user, has the name.
        OSError: somebody else has, or it cannot be told who.
        """
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._bind(b"\0" + name)
            self._listener.listen(_WAITING)
        except BaseException:
            self._listener.close()
            raise

    def _bind(self, address: bytes) -> None:
        try:
            self._listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if _counts(_owner(address)):
                raise BlockingIOError(errno.EWOULDBLOCK, "another process has this name") from None
            self._listener.bind(address)  # Who had it may have ended meanwhile.

    def let_go_of_askers(self) -> None:
        """To be called from time to time: who asked whose the name is knows it by now."""
        with suppress(OSError):
            for _ in range(_WAITING):
                self._listener.accept()[0].close()

    def close(self) -> None:
        """The next one may have the name."""
        self._listener.close()


def holder(name: bytes) -> int | None:
    """The id of the process that has the name, 0 if it cannot be seen from here; None: none that counts."""
    owner = _owner(b"\0" + name, seconds=0.0)
    return owner.pid if owner and _counts(owner) else None


class _Owner(NamedTuple):
    pid: int
    uid: int


def _counts(owner: _Owner | None) -> bool:
    return owner is not None and owner.uid in (0, os.geteuid())


def _owner(address: bytes, seconds: float = SECONDS) -> _Owner | None:
    """Who listens there; None: nobody does, or too many ask. One that does not yet is waited for so long."""
    until = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asker:
            try:
                asker.connect(address)
            except ConnectionRefusedError:  # Not yet, or no more.
                if time.monotonic() > until:
                    return None
                time.sleep(0.01)
                continue
            except OSError:
                return None
            credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _ = _UCRED.unpack(credentials)
            return _Owner(pid, uid)
