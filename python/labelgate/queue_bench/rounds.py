"""Builds everything, goes round, and says what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labelgate import _core
from labelgate.bench import Spread
from labelgate.queue_bench.cache import Cache
from labelgate.queue_bench.cases import Answers, Case, Denied, Measure, Place, Variant
from labelgate.queue_bench.denied import NotingBench
from labelgate.queue_bench.measures import Bench, Checked, Cores, Effort, Processors, Sample
from labelgate.queue_bench.policies import ECHO_PORT, TCP_PORT
from labelgate.queue_bench.rig import RECEIVER, Rig, Router

Progress = Callable[[str], None]


@dataclass
class Found:
    """What was found out about one case."""

    name: str
    rules: int
    samples: dict[Measure, list[Sample]]
    """By measure, one for each round; of `noting` many."""
    checked: Checked
    is_peer: bool = False
    answers: Answers = "same"

    def figure(self, measure: Measure, name: str) -> list[float]:
        """One figure, round by round."""
        return [sample[name] for sample in self.samples.get(measure, [])]

    def to_json(self) -> dict[str, Any]:
        """One entry of `cases` in the output."""
        checked = {name: getattr(self.checked, name) for name in ("sent", "delivered", "dropped", "answered")}
        return {
            "name": self.name,
            "rules": self.rules,
            "packets": checked,
            **{measure: spreads(samples) for measure, samples in self.samples.items()},
        }


@dataclass
class Report:
    """All of it."""

    found: list[Found]
    caches: list[Cache]
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """The body of the output."""
        return {
            "rounds": self.rounds,
            "cases": [one.to_json() for one in self.found],
            "memcached": [{"name": cache.name, **spreads(cache.samples)} for cache in self.caches],
        }


def spreads(samples: Sequence[Sample]) -> dict[str, Any]:
    """Median and range of every figure, of the rounds in which it could be taken; null if there is none."""
    found: dict[str, Any] = {}
    for name in samples[0] if samples else ():
        values = [sample[name] for sample in samples if not math.isnan(sample[name])]
        found[name] = asdict(Spread.of(values)) if values else None
    return found


def run(
    cases: list[Case],
    caches: list[Cache],
    backend: Variant,
    effort: Effort,
    rounds: int,
    until: float,
    progress: Progress,
) -> Report:
    """Measures every case once in each round, until the rounds are done or `time.monotonic()` is `until`.

    Each case has at least one round. WorldError if something cannot be built; everything is removed again.
    """
    progress("network namespaces")
    with TemporaryDirectory() as folder, ExitStack() as open_things:
        rig = open_things.enter_context(Rig([Router(number) for number in range(len(cases) + len(caches))]))
        places = [Place(rig, router, Path(folder), backend) for router in rig.routers]
        benches = []
        for bench in _started(cases, caches, places, progress):
            benches.append(open_things.enter_context(closing(bench)))
        open_things.enter_context(_servers(rig))
        found = [_found(bench) for bench in benches]
        done = 0
        while done < rounds and (done == 0 or time.monotonic() < until):
            for bench, into in zip(benches, found, strict=True):
                progress(f"round {done + 1} of {rounds}: {bench.case.name}")
                for measure in bench.case.measures:
                    into.samples.setdefault(measure, []).extend(bench.samples(measure, effort))
            for cache in caches:
                progress(f"round {done + 1} of {rounds}: {cache.name}")
                cache.measure(effort.connections)
            done += 1
    return Report(found, caches, done)


def _started(
    cases: list[Case], caches: list[Cache], places: list[Place], progress: Progress
) -> Iterator[Bench]:
    """Daemons load their policies side by side."""
    cores, processors = Cores(), Processors()
    others = places[len(cases) :]
    progress("policies and rules")
    for case, place in zip(cases, places, strict=False):
        case.begin(place)
    for cache, place in zip(caches, others, strict=True):
        cache.begin(place)
    for cache, place in zip(caches, others, strict=True):
        progress(cache.name)
        cache.finish(place, processors)
    for case, place in zip(cases, places, strict=False):
        progress(case.name)
        case.finish(place)
        kind = NotingBench if isinstance(case, Denied) else Bench
        yield kind(case, place, cores, processors)


def _found(bench: Bench) -> Found:
    """Nothing yet."""
    case = bench.case
    return Found(case.name, case.rules, {}, bench.checked, case.is_peer, case.answers)


@contextmanager
def _servers(rig: Rig) -> Iterator[None]:
    """The echo and the greeter."""
    with ExitStack() as open_things:
        for port, answer in ((ECHO_PORT, "echo"), (TCP_PORT, "greet")):
            server = rig.call(RECEIVER, _core.LoadServer, f"0.0.0.0:{port}", answer)
            open_things.callback(server.stop)
        yield
