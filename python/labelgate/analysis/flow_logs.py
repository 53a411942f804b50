"""Flow logs in JSON lines or CSV, of ours or of Calico, as recorded flows, in bounded memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from labelgate.analysis.recorded import BrokenRecording, Source, blocks_of
from labelgate.analysis.services import WITH_PORTS
from labelgate.flow import ICMP, ICMPV6, FieldError, protocol_number, read_address, shown

MOST_CHARACTERS = 1 << 20
"""Of a line. What is longer is no flow: it is counted, and passed over without being held."""
Lines = Iterator[tuple[int, str]]
"""With their numbers, from 1 on."""


def from_lines(lines: IO[bytes], form: str) -> Source:
    """Flow logs, plain or gzip: `form` is `jsonl` or `csv`; closed at the end.

    Text is UTF-8 or, if it begins with a byte order mark of that, UTF-16. What cannot be read is counted, and
    the first of it told.

    Raises:
        ValueError: once blocks are taken: the first line of CSV does not name the columns that are needed.
    """
    source = Source(iter(()))
    rows_of = _json_rows if form == "jsonl" else _csv_rows

    def read() -> Iterator[dict[str, Any]]:
        with lines, _text(lines) as text:
            for number, row in rows_of(_numbered(text, source), source):
                if not isinstance(row, dict):
                    source.skip(number, f"found {shown(row)}, expected an object")
                    continue
                if row.keys() >= _SUMMARY:
                    continue
                try:
                    yield _of_row(row)
                except FieldError as error:
                    source.skip(number, str(error))

    source.blocks = blocks_of(read())
    return source


def _text(lines: IO[bytes]) -> io.TextIOWrapper:
    """Before compression, whatever the name says; addresses and numbers are ASCII in all that can be read."""
    plain: Any = io.BufferedReader(lines)
    if plain.peek(2)[:2] == b"\x1f\x8b":
        plain = gzip.GzipFile(fileobj=plain)
    try:
        is_wide = plain.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
    except _UNREADABLE as error:  # It would not be told again.
        raise BrokenRecording(f"behind line 0: {error}") from None
    return io.TextIOWrapper(
        plain, encoding="utf-16" if is_wide else "utf-8-sig", errors="replace", newline=""
    )


_UNREADABLE = (OSError, EOFError, zlib.error)


def _numbered(text: IO[str], source: Source) -> Lines:
    """Lines end as they do anywhere (LF, CRLF, CR)."""
    number = 0
    try:
        while line := text.readline(MOST_CHARACTERS + 1):
            number += 1
            if len(line) > MOST_CHARACTERS:
                source.skip(number, f"found more than {MOST_CHARACTERS} characters, expected a flow")
                while line and not line.endswith(("\n", "\r")):
                    line = text.readline(MOST_CHARACTERS)
            elif not line.isspace():
                yield number, line
    except _UNREADABLE as error:
        raise BrokenRecording(f"behind line {number}: {error}") from None


def _json_rows(lines: Lines, source: Source) -> Iterator[tuple[int, Any]]:
    for number, line in lines:
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            source.skip(number, f"not JSON: {error}")


def _csv_rows(lines: Lines, source: Source) -> Iterator[tuple[int, Any]]:
    """A line is a record: one with an open quote takes no other line with it."""
    names: list[str] = []
    for number, line in lines:
        try:
            (row,) = csv.reader([line], strict=True)
        except csv.Error as error:
            if not names:
                raise ValueError(f"line {number}: found `{error}`, expected the names of columns") from None
            source.skip(number, f"not CSV: {error}")
            continue
        if not names:
            names = _columns(number, row)
        elif len(row) != len(names):
            source.skip(number, f"found {len(row)} fields, expected {len(names)}, as the first line has")
        else:
            yield (
                number,
                {name: value for name, value in zip(names, row, strict=True) if value not in ("", "-")},
            )


def _columns(number: int, names: list[str]) -> list[str]:
    """The names of columns, if all that a flow needs are among them."""
    for ours in ("src", "dst", "protocol"):
        if not set(_NAMES[ours]) & set(names):
            expected = " or ".join(f"`{name}`" for name in _NAMES[ours])
            raise ValueError(
                f"line {number}: found columns {shown(', '.join(names))}, "
                f"expected {expected} among them, separated by commas"
            )
    for name in names:
        if name and names.count(name) > 1:
            raise ValueError(f"line {number}: found column {shown(name)} twice, expected each once")
    return names


_NAMES = {
    "src": ("src", "source_ip"),
    "dst": ("dst", "dest_ip"),
    "protocol": ("protocol", "proto"),
    "sport": ("sport", "source_port"),
    "dport": ("dport", "dest_port"),
    "icmpType": ("icmpType",),
    "icmpCode": ("icmpCode",),
    "packets": ("packets", "packets_out"),
    "replies": ("replies", "packets_in"),
    "answered": ("answered",),
    "bytes": ("bytes", "bytes_out"),
    "replyBytes": ("replyBytes", "bytes_in"),
    # Of an event `action` is what the rule says, `verdict` what became of the packet.
    "action": ("verdict", "action"),
}
"""Our name of a field, and Calico's in its flow logs, as the source of a flow reports it."""
_AT_DESTINATION = {
    "packets_out": "packets_in", "packets_in": "packets_out",
    "bytes_out": "bytes_in", "bytes_in": "bytes_out",
}  # fmt: skip
"""To the destination what is in is what the source has sent."""
_PROTOCOLS = {"icmp6": ICMPV6, "ipip": 4, "esp": 50}
"""Calico's names in flow logs beside those that all questions may use."""


_MOST = 1 << 53
"""Packets or bytes of a flow: more are no count, and sums of them would not fit."""


_SUMMARY = {"read", "fates", "rules"}
"""Of the last line of `labelgate replay --flows`, which is no flow."""


def _of_row(row: dict[str, Any]) -> dict[str, Any]:
    """One line; other fields than those of `_NAMES` are somebody else's and stay unread."""
    if isinstance(icmp := row.get("icmp"), list) and len(icmp) == 2:  # As `labelgate events` has it.
        row = {"icmpType": icmp[0], "icmpCode": icmp[1], **row}
    if row.get("reporter") == "dst":
        row = {_AT_DESTINATION.get(name, name): value for name, value in row.items()}
    said = {
        ours: value
        for ours, names in _NAMES.items()
        for value in [next((row[name] for name in names if row.get(name) is not None), None)]
        if value is not None
    }
    for name in ("src", "dst", "protocol"):
        if name not in said:
            raise FieldError(name, "missing")
    src, dst = read_address(said["src"], "src"), read_address(said["dst"], "dst")
    if src.version != dst.version:
        raise FieldError("dst", f"found `{dst}`, expected the IP version of src `{src}`")
    named = said["protocol"]
    protocol = protocol_number(_PROTOCOLS.get(named, named) if isinstance(named, str) else named)
    is_icmp = protocol in (ICMP, ICMPV6)
    if protocol in WITH_PORTS and "dport" not in said:
        raise FieldError("dport", "missing: a packet of this protocol has one")
    is_denied = str(said.get("action", "allow")).lower() in ("deny", "denied", "drop")
    replies = _number(said, "replies", _MOST)
    service = _number(said, "icmpType", 255) << 8 | _number(said, "icmpCode", 255)
    return {
        "src": src, "dst": dst, "protocol": protocol,
        "sport": 0 if is_icmp else _number(said, "sport", 65535),
        "dport": service if is_icmp else _number(said, "dport", 65535),
        "packets": _number(said, "packets", _MOST) or 1,
        "replies": replies,
        "bytes": _number(said, "bytes", _MOST),
        "reply_bytes": _number(said, "replyBytes", _MOST),
        "answered": not is_denied and _is_answered(said, replies),
        "denied": is_denied,
    }  # fmt: skip


def _is_answered(said: Mapping[str, Any], replies: int) -> bool:
    """Who says nothing of replies does not say that there are none; a refusal is a reply, and no answer."""
    if "answered" not in said:
        return replies > 0 or "replies" not in said
    word = str(said["answered"]).lower()
    if word not in ("true", "false"):
        raise FieldError("answered", f"found {shown(said['answered'])}, expected true or false")
    return word == "true"


def _number(said: Mapping[str, Any], name: str, limit: int) -> int:
    value = said.get(name, 0)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit:
        return value
    raise FieldError(name, f"found {shown(value)}, expected a number 0..{limit}")
