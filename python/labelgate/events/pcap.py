"""Headers of denied packets as a capture file (pcapng), each with the rule that denied it as a comment.

Block layouts: draft-ietf-opsawg-pcapng, sections 4.1 to 4.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from labelgate.events.line import line

LINKTYPE_RAW = 101
"""Packets begin with the IP header, of either version."""
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT, _RESOLUTION = 1, 9


def capture(events: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The blocks of a file; packets are cut to what the events hold of them."""
    yield _block(_SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    # Times in milliseconds.
    yield _block(_INTERFACE, struct.pack("<HHI", LINKTYPE_RAW, 0, 0) + _option(_RESOLUTION, b"\x03") + _END)
    for event in events:
        header = bytes.fromhex(event["header"])
        high, low = divmod(event["time"], 1 << 32)
        fields = struct.pack("<IIIII", 0, high, low, len(header), max(event["length"], len(header)))
        yield _block(_PACKET, fields + _padded(header) + _option(_COMMENT, line(event).encode()) + _END)


_END = struct.pack("<HH", 0, 0)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length
