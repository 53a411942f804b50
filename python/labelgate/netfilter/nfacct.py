"""Counters that rules count packets with (nfacct): objects of the kernel, apart from any rule.

They go on whatever happens to the rules: these may be written anew, flushed, or left by a daemon that has
ended. The kernel refuses to remove one that a rule uses: one that could be removed has counted its last
packet.
"""

from __future__ import annotations

import errno
import struct
import time
from typing import NamedTuple

from labelgate.netlink import ACK, CREATE, DUMP, EXCL, NETFILTER, ask, attribute, attributes

# linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_acct.h
_SUBSYSTEM_ACCT = 7
_NEW, _GET, _DEL = 0, 1, 3
_NAME, _PACKETS, _USE = 1, 2, 4
_FAMILY = bytes(4)  # struct nfgenmsg
_TRIES, _PAUSE = 5, 0.05


class Counter(NamedTuple):
    """What the kernel says of one."""

    packets: int
    is_used: bool
    """Some rule counts with it."""


def create(name: str) -> bool:
    """False if it is there already; OSError if there can be none."""
    try:
        _ask(_NEW, ACK | CREATE | EXCL, name)
    except FileExistsError:
        return False
    return True


def remove(name: str) -> bool:
    """False if a rule uses it, or it is gone; another OSError if it may not be removed."""
    try:
        _ask(_DEL, ACK, name)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOENT):
            return False
        raise
    return True


def counters(prefix: str) -> dict[str, Counter]:
    """Those of the calling thread's network namespace whose names begin so; OSError if there can be none."""
    found: dict[str, Counter] = {}
    for body in _ask(_GET, DUMP):
        fields = dict(attributes(body[len(_FAMILY) :]))
        name = fields[_NAME].rstrip(b"\0").decode(errors="replace")
        if name.startswith(prefix):
            (uses,) = struct.unpack("!I", fields[_USE])
            # The list of all counters is one use.
            found[name] = Counter(int.from_bytes(fields[_PACKETS]), uses > 1)
    return found


def remove_all(prefix: str) -> bool:
    """Those whose names begin so, a moment after their rules went; whether there were any."""
    is_any = False
    for _ in range(_TRIES):
        try:
            found = counters(prefix)
        except OSError:
            return is_any  # There can be none.
        for name in found:
            is_any |= remove(name)
        if not found:
            break
        time.sleep(_PAUSE)  # nft lets go of rules a moment after they are gone.
    return is_any


def _ask(kind: int, flags: int, name: str = "") -> list[bytes]:
    """The bodies of the answers."""
    body = _FAMILY + (attribute(_NAME, name.encode() + b"\0") if name else b"")
    return list(ask(NETFILTER, (_SUBSYSTEM_ACCT << 8 | kind, flags, body)))
