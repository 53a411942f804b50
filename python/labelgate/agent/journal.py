"""Events as entries of the journal, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

The line of an event is the message; each of its fields is one of the entry, so that `journalctl` finds them:
`LABELGATE_POLICY=GlobalNetworkPolicy/web`.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from labelgate.events import line

PATH = "/run/systemd/journal/socket"
_NOTICE, _INFORMATION = "5", "6"
PATIENCE_SECONDS = 1.0
"""For a journal that takes entries slower than they come: ten of them fill its socket."""
_FIELDS = {"in": "INTERFACE_IN", "out": "INTERFACE_OUT"}


class Journal:
    """Where entries are sent to, by one thread. The journal may be away for a while, or for ever."""

    def __init__(self, path: str = PATH, patience: float = PATIENCE_SECONDS) -> None:
        """`patience`: seconds that all entries of one turn may wait together, and the last of them alone."""
        self._path, self._patience = path, patience
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The kernel's own waiting: poll(2) does not see that the other end of such a socket is full.
        timeval = struct.pack("@ll", *divmod(int(patience * 1e6), 10**6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        self._takes = True
        """It took the last entry: one that hangs is waited for once."""

    def write(self, events: Iterable[Mapping[str, Any]]) -> None:
        """One entry for each; what the journal has no room for in its time is lost.

        Raises:
            OSError: it cannot be reached, or is full; the rest of these events is lost.
        """
        end = time.monotonic() + self._patience
        for event in events:
            flags = 0 if self._takes and time.monotonic() < end else socket.MSG_DONTWAIT
            self._takes = False
            self._socket.sendto(entry(event), flags, self._path)
            self._takes = True

    def close(self) -> None:
        """Writes no more."""
        self._socket.close()


def entry(event: Mapping[str, Any]) -> bytes:
    """The datagram of one entry; fields that are null are left away.

    >>> entry({"time": 0, "kind": "log", "protocol": 6, "src": "::1", "sport": None, "dst": "::2",
    ...        "dport": None, "icmp": None, "in": "eth0", "out": None, "hook": "filter-input",
    ...        "endpoint": None, "tier": None, "policy": None, "direction": None, "rule": None,
    ...        "reason": "a"}).split(b"\\n")[:4]
    [b'MESSAGE=1970-01-01T00:00:00.000Z log tcp ::1 > ::2 eth0>- filter-input -: a', b'PRIORITY=6', \
b'SYSLOG_IDENTIFIER=labelgate', b'LABELGATE_TIME=0']
    """
    fields = {
        "MESSAGE": line(event),
        "PRIORITY": _NOTICE if event["kind"] == "deny" else _INFORMATION,
        "SYSLOG_IDENTIFIER": "labelgate",
    }
    for name, value in event.items():
        if value is not None:
            fields[f"LABELGATE_{_FIELDS.get(name, name.upper())}"] = (
                ",".join(map(str, value)) if isinstance(value, list) else str(value)
            )
    return b"".join(_field(name, value.encode()) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
