"""Counters that rules count packets with (nfacct): objects of the kernel, apart from any rule.

They go on whatever happens to the rules: these may be written anew, flushed, or left by a daemon that has
ended. The kernel refuses to remove one that a rule uses: one that could be removed has counted its last
packet.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_acct.h
_NETLINK_NETFILTER = 12
_SUBSYSTEM_ACCT = 7
_NEW, _GET, _DEL = 0, 1, 3
_REQUEST, _ACK, _EXCL, _DUMP, _CREATE = 0x1, 0x4, 0x200, 0x300, 0x400
_ERROR, _DONE = 2, 3
_NAME, _PACKETS, _USE = 1, 2, 4
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_FAMILY = bytes(4)  # struct nfgenmsg
_RECEIVE = 1 << 16
_SECONDS = 5.0
_TRIES, _PAUSE = 5, 0.05


class Counter(NamedTuple):
    """What the kernel says of one."""

    packets: int
    is_used: bool
    """Some rule counts with it."""


def create(name: str) -> bool:
    """False if it is there already; OSError if there can be none."""
    try:
        for _ in _ask(_NEW, _REQUEST | _ACK | _CREATE | _EXCL, name):
            pass
    except FileExistsError:
        return False
    return True


def remove(name: str) -> bool:
    """False if a rule uses it, or it is gone; another OSError if it may not be removed."""
    try:
        for _ in _ask(_DEL, _REQUEST | _ACK, name):
            pass
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOENT):
            return False
        raise
    return True


def counters(prefix: str) -> dict[str, Counter]:
    """Those of the calling thread's network namespace whose names begin so; OSError if there can be none."""
    found: dict[str, Counter] = {}
    for body in _ask(_GET, _REQUEST | _DUMP):
        fields = dict(_attributes(body[len(_FAMILY) :]))
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


def _ask(kind: int, flags: int, name: str = "") -> Iterator[bytes]:
    """The bodies of the answers."""
    body = _FAMILY + (_attribute(_NAME, name.encode() + b"\0") if name else b"")
    head = _HEADER.pack(_HEADER.size + len(body), _SUBSYSTEM_ACCT << 8 | kind, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asked:
        asked.settimeout(_SECONDS)
        asked.send(head + body)
        while True:
            answer = asked.recv(_RECEIVE)
            while len(answer) >= _HEADER.size:
                length, told, *_ = _HEADER.unpack_from(answer)
                if told in (_ERROR, _DONE):
                    _raise(answer)
                    return
                yield answer[_HEADER.size : length]
                answer = answer[(length + 3) & ~3 :]


def _raise(answer: bytes) -> None:
    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
    if number:
        raise OSError(-number, os.strerror(-number))


def _attribute(number: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, number) + value + bytes(-length % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, number = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield number, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
