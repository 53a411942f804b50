"""Who switched nf_conntrack_tcp_loose off: we, which is kept on disk; a kill would leave it so for good."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from labelgate.agent.state import StateError, refuse_others, write_whole
from labelgate.netfilter.conntrack import set_tcp_loose
from labelgate.regular import open_regular

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, linux 5.14


class LooseNote:
    """A note in the state's folder, for one network namespace and as long as the machine is up."""

    def __init__(self, folder: str) -> None:
        """Of the calling thread's network namespace."""
        self._file = Path(folder) / f"tcp_loose-{os.stat('/proc/thread-self/ns/net').st_ino}"

    def is_there(self) -> bool:
        """Whether it was we who switched it off. A start of the machine has set it anew."""
        try:
            refuse_others(self._file.parent)
            with open_regular(str(self._file)) as opened:
                return opened.read() == _mine()
        except (StateError, OSError):  # What others may have left says nothing.
            return False

    def leave(self) -> None:
        """To be called before it is switched off; StateError where nothing can be written."""
        refuse_others(self._file.parent)
        write_whole(self._file, _mine())

    def restore(self) -> bool:
        """Sets the kernel as it was; False where it was not we who changed it.

        Raises:
            OSError: it may not be set.
        """
        was_ours = self.is_there()
        if was_ours and not set_tcp_loose(True):
            raise OSError("nf_conntrack_tcp_loose cannot be set back to 1")
        with suppress(StateError, OSError):
            refuse_others(self._file.parent)
            self._file.unlink()
        return was_ours


def _mine() -> bytes:
    """This boot, and this namespace in it: the inode of one that has gone is given to another."""
    return b"%s%d\n" % (_BOOT.read_bytes(), netns_cookie())


def netns_cookie() -> int:
    """What the kernel gives to no second network namespace; 0 before Linux 5.14."""
    with socket.socket(socket.AF_UNIX) as opened:
        try:
            cookie = opened.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return 0
    return int.from_bytes(cookie, sys.byteorder)
