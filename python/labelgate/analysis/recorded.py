"""Recorded flows by column, whatever recorded them: captures, flow logs in JSON lines or CSV, conntrack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate import _core
from labelgate.columns import address_column
from labelgate.flow import IPAddress
from labelgate.lockout import read_connections
from labelgate.ways import Flows

BLOCK = 1 << 16
"""Flows of a block, or so."""
MOST_FLOWS = 1 << 18
"""Under way at a time in a capture."""
BEGUN, UNDER_WAY, ORPHAN, DNATED = range(4)
"""Of `Recorded.begin`."""
CAME_IN = 1
"""Of `Recorded.way`."""

Progress = Callable[[int, int], None]
"""Told how many bytes are read, and how many there are."""


@dataclass(frozen=True, slots=True)
class Recorded(Flows):
    """Flows of one IP version as they were recorded; every array has n values.

    `answered`: the other side has sent something that is no refusal.
    """

    ct: NDArray[np.uint8]
    """Of the first packet, as in `labelgate.flow.CT_STATES`."""
    begin: NDArray[np.uint8]
    """`BEGUN`: the direction is known; `UNDER_WAY`: it is not; `ORPHAN`: an error about an unknown flow.
    `DNATED`: somebody gives it another destination on its way, which is not known."""
    packets: NDArray[np.uint64]
    replies: NDArray[np.uint64]
    bytes: NDArray[np.uint64]
    reply_bytes: NDArray[np.uint64]
    first: NDArray[np.uint64]
    """Nanoseconds since 1970; 0: not recorded."""
    last: NDArray[np.uint64]
    denied: NDArray[np.bool_]
    """Whoever recorded it says so; nothing passed."""
    interface: NDArray[np.uint32]
    """That its first packet was captured on: an index of `names`."""
    way: NDArray[np.uint8]
    """Which way packets of who began it pass that: 0 unknown, `CAME_IN`, or 2 out."""
    names: tuple[str | None, ...] = ()
    """Of interfaces, as far as the recording has them."""


_SIDES = ("src", "dst", "target")
_DTYPES = {
    "protocol": np.uint8, "sport": np.uint16, "dport": np.uint16, "target_port": np.uint16,
    "answered": np.bool_, "ct": np.uint8, "begin": np.uint8, "packets": np.uint64, "replies": np.uint64,
    "bytes": np.uint64, "reply_bytes": np.uint64, "first": np.uint64, "last": np.uint64,
    "denied": np.bool_, "interface": np.uint32, "way": np.uint8,
}  # fmt: skip


class BrokenRecording(ValueError):
    """No more can be read, behind which packet or line, and why; blocks of all before have been given."""


@dataclass
class Source:
    """Recorded flows, block by block, and what could not be read of them."""

    blocks: Iterator[Recorded]
    """Ends in `BrokenRecording` where no more can be read."""
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
    captured_on: str | None = None,
    dnat: Sequence[tuple[int | None, IPAddress, int | None, IPAddress, int | None]] = (),
    progress: Progress = lambda done, whole: None,
) -> Source:
    """A capture file; `flows`, `complete` and `dnat` are those of `labelgate._core.Capture`.

    `captured_on` is the interface of what was captured on one that the file does not name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no capture.
    """
    capture = _core.Capture(path, flows=flows, complete=complete, dnat=dnat)
    whole = Path(path).stat().st_size
    source = Source(iter(()))

    def blocks() -> Iterator[Recorded]:
        broken = None
        while broken is None:
            try:
                found = capture.read(BLOCK)
            except (OSError, ValueError) as error:
                broken = error
                break
            if found is None:
                break
            if whole:  # A pipe has no size.
                progress(min(capture.bytes_read, whole - 1), whole)
            names = tuple(name or captured_on for name in capture.interfaces)
            for columns in found:
                if n := len(columns["protocol"]):
                    yield Recorded(
                        **columns, target=columns["dst"], target_port=columns["dport"],
                        denied=np.zeros(n, np.bool_), names=names,
                    )  # fmt: skip
        progress(whole, whole)
        counters = json.loads(capture.counters())
        _count(counters, source.counters)
        if broken is not None:
            raise BrokenRecording(f"behind packet {counters['packets']}: {broken}")

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
        ("is_cut", "packets: the file ends inside one; all before it count"),
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
    tracked = read_connections(in_any_state=True)
    return Source(_blocks_of_tracked(tracked))


def _blocks_of_tracked(tracked: Iterable[Flows]) -> Iterator[Recorded]:
    """Conntrack knows of no more than one packet."""
    for flows in tracked:
        columns: dict[str, Any] = {name: np.zeros(len(flows), dtype) for name, dtype in _DTYPES.items()}
        columns |= {one.name: getattr(flows, one.name) for one in fields(flows)}
        whole = Recorded(**columns | {"packets": np.ones(len(flows), np.uint64)})
        for at in range(0, len(whole), BLOCK):
            yield whole.pick(np.arange(at, min(at + BLOCK, len(whole))))


def blocks_of(flows: Iterable[dict[str, Any]]) -> Iterator[Recorded]:
    """Blocks of one IP version; if no more can be read, those of what was read come first."""
    broken = None
    waiting: dict[int, list[dict[str, Any]]] = {4: [], 6: []}
    try:
        for flow in flows:
            rows = waiting[flow["src"].version]
            rows.append(flow)
            if len(rows) >= BLOCK:
                yield packed(rows)
                rows.clear()
    except BrokenRecording as error:
        broken = error
    for rows in waiting.values():
        if rows:
            yield packed(rows)
    if broken is not None:
        raise broken


def packed(rows: list[dict[str, Any]]) -> Recorded:
    """Flows of one IP version; addresses are objects, what is left out is 0, or not translated."""
    rows = [{"target": row["dst"], "target_port": row.get("dport", 0), **row} for row in rows]
    columns: dict[str, Any] = {name: address_column([row[name] for row in rows]) for name in _SIDES}
    for name, dtype in _DTYPES.items():
        columns[name] = np.array([row.get(name, 0) for row in rows], dtype)
    return Recorded(**columns)
