"""What `bench queue` measured, as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labelgate.bench import Spread
from labelgate.cli.figures import Figures
from labelgate.queue_bench.cases import Measure
from labelgate.queue_bench.measures import Sample
from labelgate.queue_bench.ratios import NOTED_WORDS, Ratio
from labelgate.queue_bench.rounds import Found, Report


def costs(report: Report) -> Figures:
    """Packets."""
    columns = (
        "case", "handler ns:", "near ns:", "all ns:", "live ns:", "kpps:", "RTT p50 µs:", "p90:", "p99:",
        "packets:", "dropped:",
    )  # fmt: skip
    shown: list[tuple[Measure, str, int]] = [
        ("drain", "handler", 0), ("drain", "near", 0), ("burst", "cpu", 0), ("flood", "cpu", 0),
        ("flood", "kpps", 1), ("latency", "p50", 1), ("latency", "p90", 1), ("latency", "p99", 1),
    ]  # fmt: skip
    rows = [
        (
            one.name,
            *(_cell(one.samples.get(measure, []), name, digits) for measure, name, digits in shown),
            f"{one.checked.delivered:,}",
            f"{one.checked.dropped:,}",
        )
        for one in report.found
        if one.samples.keys() & {"flood", "drain"}
    ]
    title = (
        "A packet: processor time of who answers it, and of all; median of the rounds and half of their range"
    )
    return Figures(title, columns, rows, _wrong(report.found))


def through(report: Report) -> Figures:
    """Connections and streams."""
    columns = (
        "case",
        "connections/s:",
        "CPU µs each:",
        "p50 µs:",
        "p99 µs:",
        "lost:",
        "Gbit/s:",
        "CPU s/GB:",
    )
    shown = (("perSecond", 0, 1.0), ("cpu", 1, 1e-3), ("p50", 0, 1.0), ("p99", 0, 1.0))
    rows = [
        (
            one.name,
            *(_cell(one.samples["connections"], name, digits, scale) for name, digits, scale in shown),
            f"{sum(one.figure('connections', 'lost')):,.0f}",
            _cell(one.samples["bulk"], "gbit", 2),
            _cell(one.samples["bulk"], "cpu", 2),
        )
        for one in report.found
        if "connections" in one.samples
    ]
    return Figures("Short TCP connections, eight at a time, and one stream", columns, rows, set())


def caches(report: Report) -> Figures:
    """The memcached."""
    columns = (
        "policy, conntrack table",
        "connections/s:",
        "lost:",
        "entries:",
        "p50 µs:",
        "p99 µs:",
        "CPU µs each:",
    )
    rows: list[tuple[str, ...]] = [
        (
            cache.name,
            _cell(cache.samples, "perSecond", 0),
            _cell(cache.samples, "lost", 0),
            _cell(cache.samples, "entries", 0),
            _cell(cache.samples, "p50", 0),
            _cell(cache.samples, "p99", 0),
            _cell(cache.samples, "cpu", 1, 1e-3),
        )
        for cache in report.caches
    ]
    title = (
        "Short connections to a memcached behind a host endpoint: lost and left in the table in each round"
    )
    return Figures(title, columns, rows, set())


def ratios_table(found: Sequence[Ratio]) -> Figures:
    """What is promised."""
    words = {True: "met", False: "missed", None: ""}
    titles = ("ratio", "median:", "95 %:", "min:", "max:", "bar", "")
    rows: list[tuple[str, ...]] = [
        (
            ratio.name,
            _digits(ratio.value.median),
            "-" if ratio.interval is None else "-".join(map(_digits, ratio.interval)),
            _digits(ratio.value.min),
            _digits(ratio.value.max),
            ratio.bar,
            words[ratio.is_met] if ratio.is_shown is not False else "not shown",
        )
        for ratio in found
    ]
    missed = {ratio.name for ratio in found if ratio.is_shown and not ratio.is_met}
    title = "Ratios within a round; 95 %: where their median is"
    return Figures(title, titles, rows, missed)


def denials(denied: Found) -> Figures:
    """The loop that is switched."""
    turns, floods = denied.samples["noting"], denied.samples["denials"]
    rows: list[tuple[str, ...]] = [
        (
            words,
            _cell(turns, figure, 0).partition(" ")[0],  # The range of hundreds tells of the worst one only.
            _cell(floods, figure, 0),
            _cell(floods, f"{figure} kpps", 1),
        )
        for figure, words in NOTED_WORDS.items()
    ]
    columns = ("noted of denied packets", "handler ns:", "in a flood:", "kpps:")
    title = f"Denied packets: processor time of their handler, {len(turns)} times in turn"
    return Figures(title, columns, rows, set())


def _digits(ratio: float) -> str:
    """What is near 1 is told to a thousandth."""
    return f"{ratio:.{3 if 0.9 < ratio < 1.1 else 2}f}"


def _wrong(found: Sequence[Found]) -> set[str]:
    return {one.name for one in found if one.checked.unexplained or one.checked.unjudged}


def _cell(samples: Sequence[Sample], name: str, digits: int, scale: float = 1) -> str:
    values = [sample[name] * scale for sample in samples if not math.isnan(sample[name])]
    if not values:
        return "-"
    spread = Spread.of(values)
    return f"{spread.median:,.{digits}f} ±{(spread.max - spread.min) / 2:,.{digits}f}"
