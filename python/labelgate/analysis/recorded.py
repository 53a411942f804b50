"""Recorded flows by column, whatever recorded them: captures, flow logs in JSON lines or CSV, conntrack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate import _core
from labelgate.columns import address_column
from labelgate.flow import IPAddress
from labelgate.lockout.flows import Flow as Tracked
from labelgate.lockout.flows import read_flows

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
class Recorded:
    """Flows of one IP version, each in the direction of who began it; every field is an array of n values."""

    src: NDArray[Any]
    """uint32 (n,) or uint8 (n, 16)."""
    dst: NDArray[Any]
    target: NDArray[Any]
    """The destination behind DNAT: `dst` where nothing translates it."""
    protocol: NDArray[np.uint8]
    sport: NDArray[np.uint16]
    """ICMP: the id."""
    dport: NDArray[np.uint16]
    """ICMP: `type << 8 | code`."""
    target_port: NDArray[np.uint16]
    """`dport` behind DNAT."""
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
    answered: NDArray[np.bool_]
    denied: NDArray[np.bool_]
    """Whoever recorded it says so; nothing passed."""
    interface: NDArray[np.uint32]
    """That its first packet was captured on: an index of `names`."""
    way: NDArray[np.uint8]
    """Which way packets of who began it pass that: 0 unknown, `CAME_IN`, or 2 out."""
    names: tuple[str | None, ...] = ()
    """Of interfaces, as far as the recording has them."""

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
        columns: dict[str, Any] = {
            name: np.ascontiguousarray(getattr(self, name)[rows]) for name in (*_SIDES, *_DTYPES)
        }
        return replace(self, **columns)

    @property
    def translated(self) -> NDArray[np.bool_]:
        """Those that DNAT gives another destination, which is known."""
        differs = self.target != self.dst
        moved = differs if self.version == 4 else differs.any(1)
        found: NDArray[np.bool_] = moved | (self.target_port != self.dport)
        return found

    def behind_dnat(self) -> Recorded:
        """The same flows as they are seen once DNAT has translated them."""
        return replace(self, dst=self.target, dport=self.target_port)


_SIDES = ("src", "dst", "target")
_DTYPES = {
    "protocol": np.uint8, "sport": np.uint16, "dport": np.uint16, "target_port": np.uint16, "ct": np.uint8,
    "begin": np.uint8, "packets": np.uint64, "replies": np.uint64, "bytes": np.uint64,
    "reply_bytes": np.uint64, "first": np.uint64, "last": np.uint64, "answered": np.bool_,
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
    tracked = read_flows(in_any_state=True)
    return Source(blocks_of(map(_of_tracked, tracked)))


def _of_tracked(flow: Tracked) -> dict[str, Any]:
    kind, code, ident = flow.icmp or (0, 0, 0)
    return {
        "src": flow.src, "dst": flow.dst, "protocol": flow.protocol,
        "sport": ident if flow.icmp else flow.sport,
        "dport": kind << 8 | code if flow.icmp else flow.dport,
        "packets": 1, "answered": flow.answered,
        **({} if flow.target is None else {"target": flow.target}),
        **({"target_port": flow.target_port} if flow.target_port else {}),
    }  # fmt: skip


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
