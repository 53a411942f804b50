"""Counts of rules over restarts: what goes on, what begins anew, and what is wrong with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from labelgate.agent import rules
from labelgate.agent.kept_counts import FILE, STILL, VERSION, KeptCounts
from labelgate.agent.rules import MOST_GAP, RuleCounts
from labelgate.agent.state import framed
from labelgate.handlers import PacketLoop
from test_events import TCP, UDP, Loop, generation, met

MINUTE = 60_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Milliseconds since 1970, in its only place."""
    now = [MINUTE]
    monkeypatch.setattr(rules, "_now", lambda: now[0])
    return now


def daemon(*content: dict[str, str], packets: int = 0) -> RuleCounts:
    """Counts of a daemon with such rules, the first of which that many packets have met."""
    loop = Loop()
    counts = RuleCounts(cast(PacketLoop, loop), generation(1, *content))
    reason = {"tier": "default", "policy": None, "direction": None, "rule": None, "action": "Deny"}
    end = {**reason, "reason": "end of tier (E-21)", "packets": packets, "lastHit": 7}
    told = [met("Ingress", 0, packets), end] if packets else []
    loop.tables = [{"generation": 1, "isOver": False, "rules": told}]
    return counts


def shown(counts: RuleCounts) -> list[tuple[Any, ...]]:
    """Of rules in the direction Ingress, and of what stands in the place of rules."""
    rows = [row for row in counts.rows()["rules"] if row["direction"] != "Egress"]
    return [(row["rule"], row["packets"], row["lastHit"], row["since"]) for row in rows]


def keep(folder: Path, counts: RuleCounts) -> list[str]:
    """Opens the file for these counts and writes it at once; what is said."""
    said: list[str] = []
    kept = KeptCounts(str(folder), said.append)
    kept.open(counts)
    kept.close()
    return said


def test_counts_go_on(tmp_path: Path, clock: list[int]) -> None:
    assert keep(tmp_path, daemon(TCP, UDP, packets=5)) == []
    clock[0] += MINUTE
    later = daemon(TCP, UDP, packets=3)
    assert keep(tmp_path, later) == []
    assert shown(later) == [(0, 8, 5, MINUTE), (1, 0, None, MINUTE), (None, 8, 7, MINUTE)]
    assert later.rows()["since"] == MINUTE
    assert later.denied() == {"(end of tier (E-21), tier default)": 3}, "counters begin with the daemon"
    clock[0] += MINUTE
    # And not twice.
    third = daemon(TCP, UDP)
    assert keep(tmp_path, third) == []
    assert shown(third)[0] == (0, 8, 5, MINUTE)


def test_a_policy_that_was_edited_meanwhile_is_since_now(tmp_path: Path, clock: list[int]) -> None:
    keep(tmp_path, daemon(TCP, packets=5))
    clock[0] += MINUTE
    later = daemon(UDP, TCP)
    keep(tmp_path, later)
    assert shown(later)[:2] == [(0, 0, None, 2 * MINUTE), (1, 5, 5, 2 * MINUTE)]


@pytest.mark.parametrize(("gap", "since"), [(MOST_GAP, MINUTE), (MOST_GAP + 1, MINUTE + MOST_GAP + 1)])
def test_nobody_knows_what_a_long_absence_missed(
    tmp_path: Path, clock: list[int], gap: int, since: int
) -> None:
    keep(tmp_path, daemon(TCP, packets=5))
    clock[0] += gap
    later = daemon(TCP)
    keep(tmp_path, later)
    assert shown(later) == [(0, 5, 5, since), (None, 5, 7, since)]


def test_the_one_that_takes_over_goes_on(tmp_path: Path, clock: list[int]) -> None:
    """It began before the other one ended, and has counted meanwhile."""
    before = daemon(TCP, packets=5)
    clock[0] += MINUTE
    successor = daemon(TCP, packets=2)
    clock[0] += MINUTE
    keep(tmp_path, before)
    keep(tmp_path, successor)
    assert shown(successor)[0] == (0, 7, 5, MINUTE)


GOOD: dict[str, Any] = {"time": 1, "began": 1, "rules": [], "policies": {}}
DAMAGED = [
    b"",
    b"{}\n{}",
    b"\xff\xfe\x00",
    framed(GOOD, VERSION)[:-1],
    framed(GOOD, VERSION + 1),
    framed([], VERSION),
    framed({"time": 1}, VERSION),
    framed({**GOOD, "rules": [["key", 1, 1]]}, VERSION),
    framed({**GOOD, "rules": [[["a"], 1, 1]]}, VERSION),
    framed({**GOOD, "rules": [[[None] * 7, -1, 1]]}, VERSION),
    framed({**GOOD, "rules": [[[None] * 7, "many", 1]]}, VERSION),
    framed({**GOOD, "policies": {"a": 1}}, VERSION),
    framed({**GOOD, "began": None}, VERSION),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_file_that_is_wrong_is_told_and_set_aside(tmp_path: Path, clock: list[int], content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    counts = daemon(TCP, packets=5)
    (said,) = keep(tmp_path, counts)
    assert "rules are counted from 0" in said
    assert (tmp_path / "rules.damaged").read_bytes() == content
    assert shown(counts)[0] == (0, 5, 5, MINUTE)
    assert keep(tmp_path, daemon(TCP)) == []


def test_what_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    counts = daemon(TCP)
    said: list[str] = []
    kept = KeptCounts(str(tmp_path / "gone"), said.append)
    kept.open(counts)
    kept._write()
    kept.close()
    (text,) = said
    assert text.startswith("warning: counts of rules are not kept: ")
    assert text.endswith("No such file or directory")


def test_without_a_folder_nothing_is_read_or_written(tmp_path: Path) -> None:
    KeptCounts(str(tmp_path), lambda _: None).close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_as_it_was_is_not_written_again(tmp_path: Path, clock: list[int]) -> None:
    """But until when it was so: the daemon was there, and is not thought to have been away."""
    counts = daemon(TCP, packets=5)
    kept = KeptCounts(str(tmp_path), pytest.fail)
    kept._counts = counts
    kept._write()
    first = (tmp_path / FILE).stat()
    clock[0] += 2 * MOST_GAP
    kept._write()
    assert (tmp_path / FILE).stat() == first
    later = daemon(TCP)
    clock[0] += MINUTE
    assert keep(tmp_path, later) == []
    assert shown(later)[0] == (0, 5, 5, MINUTE)
    # Of another file it says nothing.
    (tmp_path / STILL).write_bytes(framed({"of": "0", "time": clock[0]}, VERSION))
    clock[0] += MOST_GAP + 1
    last = daemon(TCP)
    assert keep(tmp_path, last) == []
    assert shown(last)[0] == (0, 5, 5, clock[0])


def test_whatever_changes_is_written(tmp_path: Path, clock: list[int]) -> None:
    loop = Loop()
    counts = RuleCounts(cast(PacketLoop, loop), generation(1, TCP))
    kept = KeptCounts(str(tmp_path), pytest.fail)
    kept._counts = counts
    seen: list[int] = []

    def is_written() -> bool:
        kept._write()
        seen.append((tmp_path / FILE).stat().st_ino)
        return len(seen) == 1 or seen[-1] != seen[-2]

    assert is_written()
    assert not is_written()
    loop.tables = [{"generation": 1, "isOver": False, "rules": [met("Ingress", 0, 1)]}]
    assert is_written()
    assert not is_written()
    loop.tables[0]["rules"] = [met("Ingress", 0, 1) | {"lastHit": 9}]
    assert is_written()
    counts.swapped(2, generation(2, UDP))
    assert is_written()
    assert not is_written()
    (tmp_path / FILE).unlink()
    kept._write()
    assert (tmp_path / FILE).exists()
