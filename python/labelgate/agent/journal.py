"""Events as entries of the journal, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

The line of an event is the message; each of its fields is one of the entry, so that `journalctl` finds them:
`LABELGATE_POLICY=GlobalNetworkPolicy/web`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from labelgate.events import line

PATH = "/run/systemd/journal/socket"
_NOTICE, _INFORMATION = "5", "6"
_FIELDS = {"in": "INTERFACE_IN", "out": "INTERFACE_OUT"}


class Journal:
    """Where entries are sent to. The journal may be away for a while, or for ever: nobody is waited for."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def write(self, events: Iterable[Mapping[str, Any]]) -> None:
        """One entry for each; what the journal has no room for is lost.

        Raises:
            OSError: it cannot be reached, or is full.
        """
        for event in events:
            self._socket.sendto(entry(event), self._path)

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
