"""Recorded flows by column, whatever recorded them: captures, flow logs in JSON lines or CSV, conntrack."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from labelgate import _core
from labelgate.columns import address_column
from labelgate.flow import ICMP, ICMPV6, FieldError, IPAddress, protocol_number, read_address
from labelgate.lockout.flows import Flow as Tracked
from labelgate.lockout.flows import read_flows

BLOCK = 1 << 16
"""Flows of a block, or so."""
MOST_FLOWS = 1 << 18
"""Under way at a time in a capture."""
BEGUN, UNDER_WAY, ORPHAN, DNATED = range(4)
"""Of `Recorded.begin`."""

Progress = Callable[[int, int], None]
"""Told how many bytes are read, and how many there are."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Flows of one IP version, each in the direction of who began it; every field is an array of n values."""

    src: NDArray[Any]
    """uint32 (n,) or uint8 (n, 16)."""
    dst: NDArray[Any]
    protocol: NDArray[np.uint8]
    sport: NDArray[np.uint16]
    """ICMP: the id."""
    dport: NDArray[np.uint16]
    """ICMP: `type << 8 | code`."""
    ct: NDArray[np.uint8]
    """Of the first packet, as in `labelgate.flow.CT_STATES`."""
    begin: NDArray[np.uint8]
    """`BEGUN`: the direction is known; `UNDER_WAY`: it is not; `ORPHAN`: an error about an unknown flow.
    `DNATED`: somebody gives it another destination on its way."""
    packets: NDArray[np.uint64]
    replies: NDArray[np.uint64]
    bytes: NDArray[np.uint64]
    reply_bytes: NDArray[np.uint64]
    first: NDArray[np.uint64]
    """Nanoseconds since 1970; 0: not recorded."""
    last: NDArray[np.uint64]
    answered: NDArray[np.bool_]
    denied: NDArray[np.bool_]
    """Whoever recorded it says so; nothing passed."""

    def __len__(self) -> int:
        return len(self.protocol)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self.src.ndim == 1 else 6

    def address(self, side: NDArray[Any], row: int) -> IPAddress:
        """The address of a row of `src` or `dst`."""
        value = side[row]
        return IPv4Address(int(value)) if self.version == 4 else IPv6Address(value.tobytes())

    def pick(self, rows: NDArray[Any]) -> Recorded:
        """Those of these rows."""
        return Recorded(*(np.ascontiguousarray(getattr(self, item.name)[rows]) for item in fields(self)))


_DTYPES = {
    "protocol": np.uint8, "sport": np.uint16, "dport": np.uint16, "ct": np.uint8, "begin": np.uint8,
    "packets": np.uint64, "replies": np.uint64, "bytes": np.uint64, "reply_bytes": np.uint64,
    "first": np.uint64, "last": np.uint64, "answered": np.bool_, "denied": np.bool_,
}  # fmt: skip


def marked(block: Recorded, nets: Sequence[IPv4Network | IPv6Network]) -> Recorded:
    """The same with `DNATED` where the destination is in one of the nets."""
    keys = block.dst if block.version == 4 else block.dst.view("V16")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found = [any(block.address(block.dst, int(row)) in net for net in nets) for row in first]
    is_dnated = np.array(found, np.bool_)[inverse.reshape(-1)] & (block.begin == BEGUN)
    return replace(block, begin=np.where(is_dnated, DNATED, block.begin).astype(np.uint8))


@dataclass
class Source:
    """Recorded flows, block by block, and what could not be read of them."""

    blocks: Iterator[Recorded]
    counters: Counter[str] = field(default_factory=Counter)
    """What is in no block, and how often; complete once all blocks are taken."""
    problems: list[str] = field(default_factory=list)
    """The first lines that cannot be read: where, what was found, what was expected."""

    def skip(self, line: int, why: str) -> None:
        """Counts a line that cannot be read."""
        self.counters["lines: cannot be read"] += 1
        if len(self.problems) < 5:
            self.problems.append(f"line {line}: {why}")


def from_capture(
    path: str,
    *,
    flows: int = MOST_FLOWS,
    complete: bool = False,
    progress: Progress = lambda done, whole: None,
) -> Source:
    """A capture file; the arguments are those of `labelgate._core.Capture`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no capture; once blocks are taken: it is damaged.
    """
    capture = _core.Capture(path, flows=flows, complete=complete)
    whole = Path(path).stat().st_size
    source = Source(iter(()))

    def blocks() -> Iterator[Recorded]:
        while (found := capture.read(BLOCK)) is not None:
            if whole:  # A pipe has no size.
                progress(min(capture.bytes_read, whole - 1), whole)
            for columns in found:
                if n := len(columns["protocol"]):
                    columns["denied"] = np.zeros(n, np.bool_)
                    yield Recorded(**{item.name: columns[item.name] for item in fields(Recorded)})
        progress(whole, whole)
        _count(json.loads(capture.counters()), source.counters)

    source.blocks = blocks()
    return source


def _count(found: Mapping[str, Any], counters: Counter[str]) -> None:
    """The counters of a capture, by the words that people read."""
    counters["packets"] = found["packets"]
    for name, words in (
        ("not_ip", "packets: not IP"),
        ("fragments", "packets: later fragments, judged with their first one"),
        ("cut_link", "packets: malformed: end in the link layer"),
        ("evicted", "flows: given out early, the table of flows was full"),
        ("is_cut", "packets: the file ends inside one"),
    ):
        if found[name]:
            counters[words] += int(found[name])
    for kind, count in found["malformed"].items():
        if count:
            counters[f"packets: malformed: {kind}"] += count


def from_conntrack() -> Source:
    """What conntrack of this network namespace tracks now, answered or not.

    Raises:
        OSError: it cannot be read.
    """
    tracked = read_flows(in_any_state=True)
    return Source(_packed(map(_of_tracked, tracked)))


def _of_tracked(flow: Tracked) -> dict[str, Any]:
    kind, code, ident = flow.icmp or (0, 0, 0)
    return {
        "src": flow.src, "dst": flow.dst, "protocol": flow.protocol,
        "sport": ident if flow.icmp else flow.sport,
        "dport": kind << 8 | code if flow.icmp else flow.dport,
        "packets": 1, "answered": flow.answered, "begin": BEGUN if flow.target is None else DNATED,
    }  # fmt: skip


def from_lines(lines: IO[bytes], form: str) -> Source:
    """Flow logs, plain or gzip: `form` is `jsonl` or `csv`; closed at the end.

    What cannot be read is counted, and the first of it told.

    Raises:
        OSError, EOFError, zlib.error: once blocks are taken: they cannot be read, or not to their end.
        ValueError: once blocks are taken: the first line of CSV cannot be read.
    """
    source = Source(iter(()))
    rows_of = _json_rows if form == "jsonl" else _csv_rows

    def read() -> Iterator[dict[str, Any]]:
        with lines, _plain(lines) as plain:
            for number, row in rows_of(plain, source):
                try:
                    yield _of_row(row)
                except FieldError as error:
                    source.skip(number, str(error))

    source.blocks = _packed(read())
    return source


def _plain(lines: IO[bytes]) -> IO[bytes]:
    """Before compression, whatever the name says."""
    buffered = io.BufferedReader(lines)  # type: ignore[type-var]
    return gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == b"\x1f\x8b" else buffered  # type: ignore[return-value]


def _json_rows(lines: IO[bytes], source: Source) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            source.skip(number, f"not JSON: {error}")


def _csv_rows(lines: IO[bytes], source: Source) -> Iterator[tuple[int, Any]]:
    """Lines may end as they do anywhere (LF, CRLF, CR), and begin with the mark that spreadsheets write."""
    with io.TextIOWrapper(lines, encoding="utf-8-sig", errors="replace", newline="") as text:
        reader = csv.reader(text)
        try:
            names = next(reader, [])
        except csv.Error as error:  # The next line would pass for it.
            raise ValueError(f"line 1: found `{error}`, expected the names of columns (CSV)") from None
        for number, row in _csv_records(reader, source):
            fields_of_row = zip(names, row, strict=False)
            yield number, {name: value for name, value in fields_of_row if value not in ("", "-")}


def _csv_records(reader: Any, source: Source) -> Iterator[tuple[int, list[str]]]:
    """Each error takes a line away, so that this ends."""
    while True:
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            source.skip(reader.line_num, f"not CSV: {error}")
        else:
            return


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
    "bytes": ("bytes", "bytes_out"),
    "replyBytes": ("replyBytes", "bytes_in"),
    "action": ("action", "verdict"),
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


def _of_row(row: Any) -> dict[str, Any]:
    """One line; other fields than those of `_NAMES` are somebody else's and stay unread."""
    if not isinstance(row, dict):
        raise FieldError("", "expected an object")
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
    is_denied = str(said.get("action", "allow")).lower() in ("deny", "denied", "drop")
    service = _number(said, "icmpType", 255) << 8 | _number(said, "icmpCode", 255)
    return {
        "src": src, "dst": dst, "protocol": protocol,
        "sport": 0 if is_icmp else _number(said, "sport", 65535),
        "dport": service if is_icmp else _number(said, "dport", 65535),
        "packets": _number(said, "packets", _MOST) or 1,
        "replies": _number(said, "replies", _MOST),
        "bytes": _number(said, "bytes", _MOST),
        "reply_bytes": _number(said, "replyBytes", _MOST),
        "answered": not is_denied,
        "denied": is_denied,
    }  # fmt: skip


def _number(said: Mapping[str, Any], name: str, limit: int) -> int:
    value = said.get(name, 0)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit:
        return value
    raise FieldError(name, f"found `{value}`, expected a number 0..{limit}")


def _packed(flows: Iterable[dict[str, Any]]) -> Iterator[Recorded]:
    """Blocks of one IP version."""
    waiting: dict[int, list[dict[str, Any]]] = {4: [], 6: []}
    for flow in flows:
        rows = waiting[flow["src"].version]
        rows.append(flow)
        if len(rows) >= BLOCK:
            yield packed(rows)
            rows.clear()
    for rows in waiting.values():
        if rows:
            yield packed(rows)


def packed(rows: list[dict[str, Any]]) -> Recorded:
    """Flows of one IP version; addresses are objects, what is left out is 0."""
    sides = {name: address_column([row[name] for row in rows]) for name in ("src", "dst")}
    return Recorded(
        **sides,
        **{name: np.array([row.get(name, 0) for row in rows], dtype) for name, dtype in _DTYPES.items()},
    )
