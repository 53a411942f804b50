"""Notices that somebody has changed the tables that our rules are in.

nft tells through netlink; whose change it was it does not say. The legacy variant tells nobody: its tables
are read twice a second, as the kernel keeps them, without the programs that print rules.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from labelgate.netfilter.rules import TABLES
from labelgate.netlink import NETFILTER, Message, attributes, messages

POLL_SECONDS = 0.5
"""How often tables of the legacy variant are looked at."""

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_GROUP_NFTABLES = 1 << (7 - 1)
_SUBSYSTEM_NFTABLES = 10
_TABLE_CHAIN_RULE = frozenset({0, 2, 3, 5, 6, 8})  # NFT_MSG_NEW* and NFT_MSG_DEL* of these
_TABLE_NAME = 1  # the first attribute of each of these messages
_FAMILY = 4  # struct nfgenmsg
_RECEIVE = 65536
_BUFFER = 1 << 20


class NftWatch:
    """Hears of every change of a table of ours; `fileno` is readable then."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((0, _GROUP_NFTABLES))
        except BaseException:
            self._socket.close()
            raise

    @property
    def descriptors(self) -> list[int]:
        """For select."""
        return [self._socket.fileno()]

    def has_changed(self) -> bool:
        """Whether there were changes since this was last asked; does not block."""
        changed = False
        while True:
            try:
                changed |= any(map(_concerns_us, messages(self._socket.recv(_RECEIVE))))
            except BlockingIOError:
                return changed
            except OSError:  # ENOBUFS: more events than the socket could hold.
                changed = True

    def close(self) -> None:
        """Stops listening."""
        self._socket.close()


def _concerns_us(message: Message) -> bool:
    kind, _, body = message
    if kind >> 8 != _SUBSYSTEM_NFTABLES or kind & 0xFF not in _TABLE_CHAIN_RULE:
        return False  # Elements of sets, for example, come by the thousand.
    for number, value in attributes(body[_FAMILY:]):
        if number == _TABLE_NAME:
            return value.rstrip(b"\0").decode(errors="replace") in TABLES
    return True


# linux/netfilter_ipv4/ip_tables.h and linux/netfilter_ipv6/ip6_tables.h, 64-bit: per family the socket level,
# and where in struct ipt_entry or ip6t_entry `next_offset` and the counters are.
_LAYOUTS = (
    ("ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, 90, 96),
    ("ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, 142, 152),
)
_NET = Path("/proc/thread-self/net")
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO_BYTES = 84  # struct ipt_getinfo: name, valid hooks, two arrays of five, number of entries, their size
_ENTRIES_HEADER = 40  # struct ipt_get_entries up to the entries
_COUNTERS = bytes(16)
_libc = ctypes.CDLL(None, use_errno=True)


class LegacyWatch:
    """Compares the tables with what they were; there is nothing to wait for."""

    descriptors: tuple[int, ...] = ()

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sockets: dict[int, socket.socket] = {}
        self._seen = self._fingerprints()
        self._looked = clock()

    def has_changed(self) -> bool:
        """Whether a table is not what it was when last looked at, at most so often."""
        if self._clock() - self._looked < POLL_SECONDS:
            return False
        self._looked = self._clock()
        seen, self._seen = self._seen, self._fingerprints()
        return seen != self._seen

    def close(self) -> None:
        """Stops looking."""
        for opened in self._sockets.values():
            opened.close()

    def _fingerprints(self) -> list[int | None]:
        found: list[int | None] = []
        for names, family, *place in _LAYOUTS:
            # To ask for a table that is not there would make it.
            there = _words(_NET / names)
            opened = self._socket(family) if there else None
            found += [
                _fingerprint(table, opened, *place) if opened is not None and table in there else None
                for table in TABLES
            ]
        return found

    def _socket(self, family: int) -> socket.socket | None:
        """Opened when it is first needed: the kernel may have no IPv6 at the start, and have it later."""
        if family not in self._sockets:
            try:
                self._sockets[family] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            except OSError:
                return None
        return self._sockets[family]


def _words(path: Path) -> frozenset[str]:
    try:
        return frozenset(path.read_text(encoding="ascii").split())
    except OSError:
        return frozenset()


def _fingerprint(
    table: str, opened: socket.socket, level: int, next_offset: int, counters: int
) -> int | None:
    """A checksum of a table without its counters; None where it does not exist or changes meanwhile."""
    try:
        size: int = struct.unpack_from("=I", _ask(opened, level, _GET_INFO, table, 0, _INFO_BYTES), 80)[0]
        entries = _ask(opened, level, _GET_ENTRIES, table, size, _ENTRIES_HEADER + size)[_ENTRIES_HEADER:]
    except OSError:
        return None
    checksum, place = 0, 0
    while place < size:
        length: int = struct.unpack_from("=H", entries, place + next_offset)[0]
        if length < counters:
            return None
        entries[place + counters : place + counters + len(_COUNTERS)] = _COUNTERS
        place += length
    return zlib.crc32(entries, checksum)


def _ask(opened: socket.socket, level: int, option: int, table: str, size: int, length: int) -> bytearray:
    """getsockopt(2) with a question in the buffer, which Python's own cannot."""
    answer = bytearray(length)
    struct.pack_into("=32sI", answer, 0, table.encode(), size)
    buffer = (ctypes.c_char * length).from_buffer(answer)
    written = ctypes.c_uint32(length)
    if _libc.getsockopt(opened.fileno(), level, option, buffer, ctypes.byref(written)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    del buffer
    return answer


class RuleWatch:
    """Says when our rules should be looked at: after a change of our tables, and from time to time anyway.

    Whoever changes rules again and again is followed so often and no more: between the check of a change and
    that of the next one lie `SPACING` seconds, or four times as long as a check takes.
    """

    EVERY = 5.0
    """Without any event: what no event tells is found then."""
    SPACING = 0.25

    def __init__(
        self, variant: Literal["nft", "legacy"], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._watch = NftWatch() if variant == "nft" else LegacyWatch(clock)
        self._clock = clock
        self._has_changed = self._was_changed = False
        """Something has; and had when rules were looked at last."""
        self._begun = self._ended = clock()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Readable when something has changed."""
        # While a change waits for its check, more of them wake nobody.
        return () if self._has_changed else tuple(self._watch.descriptors)

    @property
    def patience(self) -> float:
        """Seconds that one may wait for the descriptors."""
        if self._has_changed:
            return max(0.0, self._not_before - self._clock())
        return POLL_SECONDS

    @property
    def _not_before(self) -> float:
        if not self._was_changed:
            return self._ended  # Nobody changes rules again and again.
        return self._ended + min(self.EVERY, max(self.SPACING, 4 * (self._ended - self._begun)))

    def is_due(self) -> bool:
        """Whether to check now; `done` is to be called behind it."""
        self._has_changed |= self._watch.has_changed()
        now = self._clock()
        if not ((self._has_changed and now >= self._not_before) or now - self._ended >= self.EVERY):
            return False
        self._was_changed, self._has_changed = self._has_changed, False
        self._begun = now
        return True

    def done(self, *, again: bool) -> None:
        """The check has ended; `again`: it put something back.

        Who undoes that at once leaves a table as it was when last compared: only another look tells.
        """
        self._has_changed |= again
        self._was_changed |= again
        self._ended = self._clock()

    def close(self) -> None:
        """Stops watching."""
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
