"""The picture of `labelgate top`: two answers of the daemon in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.text import Text

from labelgate.cli.status import failures

Status = Mapping[str, Any]

NAME_WIDTH = 18
"""The longest name of a hook."""


class View:
    """Differences between a status and the one before it."""

    def __init__(self, before: Status) -> None:
        self.before = before

    def advance(self, status: Status) -> None:
        """What comes next is compared with this."""
        self.before = status

    def screen(self, status: Status, size: ConsoleDimensions, problem: str | None) -> RenderableType:
        """All that fits in a terminal."""
        lines = self.lines(status, size.width, size.height - 1)
        foot = f"NO ANSWER: {problem}" if problem else "q ends"
        lines += [Text()] * (size.height - 1 - len(lines))
        lines.append(Text(foot, style="bold red" if problem else "dim"))
        for line in lines:
            line.no_wrap = True
            line.overflow = "ellipsis"
        return Group(*lines)

    def lines(self, status: Status, width: int, height: int | None) -> list[Text]:
        """At most `height` lines, the last ones left out; None: all."""
        upper = [*self._head(status), Text(), *self._hooks(status, width), *_failures(status)]
        room = None if height is None else max(0, height - len(upper))
        lines = [*upper, *self._rules(status, width, room)]
        return lines if height is None else lines[:height]

    def _seconds(self, status: Status) -> float:
        """Between the two; 0 where they are not of one process, or the same."""
        if self.before["pid"] != status["pid"]:
            return 0.0
        return float(max(0.0, status["time"] - self.before["time"]))

    def _rate(self, status: Status, now: float, before: float | None) -> str:
        seconds = self._seconds(status)
        return "-" if not seconds or before is None else _number((now - before) / seconds)

    def _head(self, status: Status) -> Iterator[Text]:
        table, health = status["generation"], status["health"]
        yield Text(
            f"labelgate {status['labelgate']}  node {status['node']}  "
            f"generation {table['number']} since {table['since']}",
            style="bold",
        )
        words = [
            "live" if health["live"] else "NOT LIVE",
            "ready" if health["ready"] else "NOT READY",
            *(["CHANGE REFUSED"] if status["refused"] else []),
            *(["ON TRIAL"] if status.get("trial") else []),
        ]
        is_good = health["live"] and health["ready"] and not status["refused"]
        line = Text(", ".join(words), style="green" if is_good else "bold red")
        yield line.append(
            f"  {table['policies']} policies, {table['hostEndpoints']} host endpoints, "
            f"{table['workloads']} workloads",
            style="not bold default",
        )
        workers = sum(worker["cpuSeconds"] for worker in status["workers"])
        earlier = sum(worker["cpuSeconds"] for worker in self.before["workers"])
        whole, before = status["process"]["cpuSeconds"], self.before["process"]["cpuSeconds"]
        yield Text(
            f"cpu: workers ({len(status['workers'])}) {self._percent(status, workers - earlier)}, "
            f"all {self._percent(status, whole - before)}   "
            f"memory {status['process']['residentBytes'] / 2**20:.0f} MiB   "
            f"table {table['tableBytes'] / 1024:,.0f} KiB"
        )

    def _percent(self, status: Status, used: float) -> str:
        seconds = self._seconds(status)
        return f"{100 * max(0.0, used) / seconds:.0f} %" if seconds else "- %"

    def _hooks(self, status: Status, width: int) -> Iterator[Text]:
        yield Text(_columns(width, "hook", _HEADINGS), style="reverse")
        for hook, now in status["counters"]["hooks"].items():
            before = self.before["counters"]["hooks"].get(hook)
            numbers = [now["packets"], now["verdicts"].get("deny", 0), _lost(now)]
            earlier = (
                [None] * 3
                if before is None
                else [before["packets"], before["verdicts"].get("deny", 0), _lost(before)]
            )
            rates = [self._rate(status, *pair) for pair in zip(numbers, earlier, strict=True)]
            waiting = sum(row["waiting"] for row in status["queues"] if row["hook"] == hook)
            cells = [*rates, _number(waiting), _number(numbers[0]), _number(numbers[1])]
            style = "dim" if not now["packets"] else "bold red" if rates[2] not in ("0", "-") else ""
            yield Text(_columns(width, hook, cells), style=style)

    def _rules(self, status: Status, width: int, room: int | None) -> Iterator[Text]:
        """Rules most met now, then who denied; each has half of the room."""
        hits, before = status["hits"], self.before["hits"]
        # What no rule decided is no rule.
        rules = [row for row in hits["rules"] if row["action"]]
        rules = self._moving(status, rules, before["rules"], _rule_name, "id")
        denied = self._moving(status, hits["denied"], before["denied"], lambda row: row["policy"], "policy")
        half = len(rules) if room is None else max(0, (room - 4) // 2)
        most = len(denied) if room is None else max(0, room - 4 - min(half, len(rules)))
        if room is None or room > 4:
            for heading, rows, count in (("rule", rules, half), ("denied by", denied, most)):
                yield Text()
                yield Text(_columns(width, heading, ("met/s", "met")), style="reverse")
                yield from (Text(_columns(width, name, cells)) for name, *cells in rows[:count])

    def _moving(
        self, status: Status, now: Any, before: Any, name: Any, known_by: str
    ) -> list[tuple[str, str, str]]:
        """Those that are met most at the moment come first; `known_by` a field that stays the same."""
        earlier = {row[known_by]: row["packets"] for row in before}
        differences = [(row["packets"] - earlier.get(row[known_by], row["packets"]), row) for row in now]
        differences.sort(key=lambda item: (-item[0], -item[1]["packets"], name(item[1])))
        return [
            (
                name(row),
                self._rate(status, row["packets"], earlier.get(row[known_by])),
                _number(row["packets"]),
            )
            for _, row in differences
        ]


_HEADINGS = ("packets/s", "denied/s", "lost/s", "queued", "packets", "denied")


def _rule_name(row: Mapping[str, Any]) -> str:
    rule = "" if row["rule"] is None else f" {str(row['direction']).lower()} {row['rule']}"
    return f"{row['policy']}{rule} {row['action'] or ''}".rstrip()


def _lost(counted: Mapping[str, Any]) -> int:
    return int(counted["queue_dropped"] + counted["socket_dropped"])


def _columns(width: int, name: str, cells: Any) -> str:
    """The name takes what is left of the width; cells that leave it too little are left out."""
    cells = cells[: max(1, (width - NAME_WIDTH) // 10)]
    right = "".join(f"{cell:>10}" for cell in cells)
    left = max(0, width - len(right))
    return (name if len(name) <= left else name[: max(0, left - 1)] + "…").ljust(left) + right


def _number(number: float) -> str:
    """In nine characters at most.

    >>> [_number(value) for value in (0, 0.25, 12.3, 1234, 1234567, 123456789, 5e12)]
    ['0', '0.2', '12', '1,234', '1,234,567', '123 M', '5,000 G']
    """
    if 0 < number < 10 and number != int(number):
        return f"{number:.1f}"
    for limit, unit in ((1e7, ""), (1e10, " M"), (float("inf"), " G")):
        if number < limit:
            return f"{number / {'': 1, ' M': 1e6, ' G': 1e9}[unit]:,.0f}{unit}"
    return "inf"


def _failures(status: Status) -> Iterator[Text]:
    yield Text()
    found = failures(status)
    if found:
        yield Text(f"since the start: {', '.join(found)}", style="yellow")
    else:
        yield Text("no failures since the start", style="dim")
    for problem in status["health"]["problems"]:
        yield Text(problem, style="bold red")
