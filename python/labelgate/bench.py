"""Measurements of decision tables: time of lookups and builds, memory, and whether answers are right."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelgate import _core

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of all rounds, the lowest and the highest."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done for each workload."""

    questions: int
    """In each trace."""
    rounds: int
    build_seconds: float
    """Builds are repeated, up to `rounds` times, until this is over."""
    until: float = float("inf")
    """`time.monotonic()` after which no other round begins; each workload has at least one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found out about one workload."""

    name: str
    facts: dict[str, Any]
    """Endpoints, policies, rules, questions, and `table`: the engines with their memory and reasons."""
    rounds: int
    compile: Spread
    """Seconds from model to program."""
    build: Spread
    """Seconds from program to table."""
    nanoseconds: dict[str, dict[str, Spread]]
    """By trace (`uniform`, `zipf`) and way (`one`, `dependent`, `batch`; on a sample `linear`, `naive`)."""
    checked: dict[str, Any]
    """How many answers were compared with whom, `mismatches`, and `verdicts`."""

    @property
    def engines(self) -> dict[str, int]:
        """For each engine, how many chains it answers for, by family."""
        table = self.facts["table"]
        others = Counter(other["engine"] for other in table["others"])
        return {
            name: count for name, count in {"classes": table["classes"]["tables"], **others}.items() if count
        }

    def to_json(self) -> dict[str, Any]:
        """One entry of `workloads` in the output."""
        return {
            "name": self.name,
            **self.facts,
            "rounds": self.rounds,
            "engines": self.engines,
            "seconds": {"compile": asdict(self.compile), "build": asdict(self.build)},
            "nanoseconds": {
                trace: {way: asdict(spread) for way, spread in ways.items()}
                for trace, ways in self.nanoseconds.items()
            },
            "perSecond": {
                way: round(1e9 / spread.median) for way, spread in self.nanoseconds["uniform"].items()
            },
            "checked": self.checked,
        }


def measure(name: str, bench: _core.Bench, effort: Effort, progress: Progress) -> Measured:
    """Checks all answers, then takes the time: builds, then rounds of all measures one after the other."""
    progress(f"{name}: answers")
    checked = json.loads(bench.check())
    progress(f"{name}: builds")
    builds = list(_builds(bench, effort))
    rounds: dict[str, dict[str, list[float]]] = {}
    done = 0
    while done < effort.rounds and (done == 0 or time.monotonic() < effort.until):
        progress(f"{name}: round {done + 1} of {effort.rounds}")
        for trace, way, nanoseconds in bench.round():
            rounds.setdefault(trace, {}).setdefault(way, []).append(nanoseconds)
        done += 1
    return Measured(
        name,
        json.loads(bench.facts()),
        done,
        Spread.of([compiled for compiled, _ in builds]),
        Spread.of([built for _, built in builds]),
        {trace: {way: Spread.of(all_) for way, all_ in ways.items()} for trace, ways in rounds.items()},
        checked,
    )


def _builds(bench: _core.Bench, effort: Effort) -> Iterator[tuple[float, float]]:
    end = min(time.monotonic() + effort.build_seconds, effort.until)
    for _ in range(effort.rounds):
        yield bench.build()
        if time.monotonic() > end:
            return


@contextmanager
def one_core() -> Iterator[int | None]:
    """Keeps this thread, and those that it starts, on one processor, where the system can; its number."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    # Interrupts tend to be served by the first one.
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
