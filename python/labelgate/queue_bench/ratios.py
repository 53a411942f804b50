"""What the figures are worth: ratios of figures of the same round, and what is promised of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labelgate.bench import Spread
from labelgate.queue_bench.cases import LEAST, PAST, SINGLE, Measure
from labelgate.queue_bench.rounds import Found, Report

Interval = tuple[float, float]


@dataclass(frozen=True)
class Ratio:
    """One figure over another; `bar` is what is promised of their median, as `<= 1.12`."""

    name: str
    value: Spread
    bar: str = ""
    interval: Interval | None = None
    """Where the median is with 95 % confidence; None: too few pairs to say."""
    pairs: int = 1

    @classmethod
    def of(cls, name: str, values: Sequence[float], bar: str = "") -> Ratio:
        """Of at least one pair of figures."""
        return cls(name, Spread.of(values), bar, confidence(values), len(values))

    @property
    def is_met(self) -> bool | None:
        """By the median; None where nothing is promised."""
        return self._meets(self.value.median) if self.bar else None

    @property
    def is_shown(self) -> bool | None:
        """Both ends of an interval say the same of the bar; None where nothing is promised."""
        if not self.bar:
            return None
        return self.interval is not None and len({self._meets(end) for end in self.interval}) == 1

    def _meets(self, value: float) -> bool:
        sense, limit = self.bar.split()
        return value <= float(limit) if sense == "<=" else value >= float(limit)

    def to_json(self) -> dict[str, Any]:
        """One entry of `ratios` in the output."""
        verdict = {"bar": self.bar or None, "met": self.is_met, "shown": self.is_shown}
        low, high = self.interval or (None, None)
        return {
            "name": self.name,
            **asdict(self.value),
            "low": low,
            "high": high,
            "pairs": self.pairs,
            **verdict,
        }


def confidence(values: Sequence[float]) -> Interval | None:
    """Between which of them the median of what they are drawn from lies, in 95 of 100 cases.

    However they spread, so many are below that median as heads fall: as many are left off at either end as is
    still too few for one case in forty. None where not even one can be: six are needed.
    """
    ordered, count = sorted(values), len(values)
    left_off = below = 0
    while left_off < count and 40 * (below + math.comb(count, left_off)) <= 2**count:
        below += math.comb(count, left_off)
        left_off += 1
    return (ordered[left_off - 1], ordered[count - left_off]) if left_off else None


LINEAR_BARS = {("legacy", 1000): ">= 7", ("legacy", 10_000): ">= 70", ("nft", 1000): ">= 6"}
"""Processor time a packet over that of labelgate with as many policies."""


PEER_BARS = {
    "null verdict": "<= 1.12",
    "nfq_batch": "<= 1.12",
    "nfq_batch multi": "<= 1.12",
    "nfq_batch drop": "<= 1.12",
}
"""Our handler over that of another one: peers by the names that benches/README.md gives them."""
SLOWER_BARS = {"nfq_library": ">= 1.6"}
"""Theirs over ours."""
NETFILTERQUEUE_BAR = ">= 2.2"
NOTING_BAR = "<= 1.03"
"""Counters and events, against neither."""


def ratios(report: Report) -> list[Ratio]:
    """Those for which both figures are there."""
    return list(_ratios({one.name: one for one in report.found}))


def _ratios(found: dict[str, Found]) -> Iterator[Ratio]:
    native = [one for name, one in found.items() if name.startswith("labelgate ")]
    mixed = [one for name, one in found.items() if name.startswith("mixed ")]
    for ours in native[-1:] + mixed:
        for other in found.values():
            if other not in (*native, *mixed):
                yield from _handlers(ours, other)
    yield from _through(found, native[-1:])
    yield from _linear(found)
    for denied in filter(None, [found.get("denied")]):
        yield from _noting(denied)


def _handlers(ours: Found, other: Found) -> Iterator[Ratio]:
    """Bars are of handlers that give the same answers."""
    is_same = ours.answers == other.answers
    if other.name.startswith("NetfilterQueue"):  # It says every verdict alone, whatever the marks.
        bar = NETFILTERQUEUE_BAR if is_same or ours.answers == "marks" else ""
        yield from _ratio(other, ours, "drain", "handler", bar)
    elif other.name in SLOWER_BARS:
        yield from _ratio(other, ours, "drain", "handler", SLOWER_BARS[other.name] if is_same else "")
    else:
        bar = PEER_BARS.get(other.name, "") if is_same else ""
        yield from _ratio(ours, other, "drain", "handler", bar)


def _through(found: dict[str, Found], largest: list[Found]) -> Iterator[Ratio]:
    """Streams and connections, against connection tracking alone and against the least of handlers."""
    blind = [one for one in found.values() if one.is_peer or one.name == "null verdict"]
    least = [one for one in found.values() if one.name.startswith(LEAST)]
    bars = {"labelgate, tracked, one hook": ">= 0.78", "labelgate, tracked, two hooks": ">= 0.62"}
    tracked = [(found[name], bar) for name, bar in bars.items() if name in found]
    for base in filter(None, [found.get("conntrack only")]):
        for ours in largest:
            yield from _ratio(ours, base, "bulk", "gbit", ">= 0.90")
        for one in (one for name, one in found.items() if name.startswith(PAST)):
            yield from _ratio(one, base, "bulk", "gbit")
            yield from _ratio(one, base, "connections", "perSecond")
        for one in blind:
            yield from _ratio(one, base, "bulk", "gbit")
        for one, bar in [*tracked, *((one, "") for one in least)]:
            yield from _ratio(one, base, "connections", "perSecond", bar)
    for one in blind:
        for ours in largest:
            yield from _ratio(ours, one, "bulk", "gbit")
            yield from _ratio(ours, one, "connections", "perSecond")
    for one in least:
        for ours, _ in tracked:
            yield from _ratio(ours, one, "connections", "perSecond")
    for name, one in found.items():
        for ours in filter(None, [found.get(name.removeprefix(SINGLE)) if name.startswith(SINGLE) else None]):
            yield from _ratio(ours, one, "connections", "perSecond")
            yield from _ratio(ours, one, "bulk", "gbit")


def _linear(found: dict[str, Found]) -> Iterator[Ratio]:
    """All of a packet's time, and what the rules add to it: source and links are the same for both."""
    for name, other in found.items():
        variant, _, count = name.partition(" rules ")
        native = found.get(f"labelgate {count}")
        if count and native is not None:
            yield from _ratio(other, native, "burst", "cpu")
            yield from _added_ratio(other, native, found, LINEAR_BARS.get((variant, other.rules), ""))
            for blind in _least(found):
                yield from _added_ratio(other, blind, found)


def _least(found: dict[str, Found]) -> list[Found]:
    """The first peer, or the null verdict: a queue with it behind costs what is the kernel's of our cost."""
    peers = [one for one in found.values() if one.is_peer]
    return [*peers, *filter(None, [found.get("null verdict")])][:1]


def _added_ratio(other: Found, one: Found, found: dict[str, Found], bar: str = "") -> Iterator[Ratio]:
    if over := _quotients(_added(other, found), _added(one, found)):
        yield Ratio.of(f"{other.name} / {one.name}: added to no rule", over, bar)


def _added(one: Found, found: dict[str, Found]) -> list[float]:
    """Processor time above that of a router without rules."""
    least = [cpu for base in filter(None, [found.get("no rule")]) for cpu in base.figure("burst", "cpu")]
    return [cpu - base for cpu, base in zip(one.figure("burst", "cpu"), least, strict=False)]


def _ratio(one: Found, other: Found, measure: Measure, figure: str, bar: str = "") -> Iterator[Ratio]:
    over = _quotients(one.figure(measure, figure), other.figure(measure, figure))
    if over:
        yield Ratio.of(f"{one.name} / {other.name}: {_WORDS[measure, figure]}", over, bar)


def _noting(denied: Found) -> Iterator[Ratio]:
    """Turns of one block, floods of one round."""
    measures: dict[Measure, str] = {"noting": "handler", "denials": "handler in a flood"}
    for measure, what in measures.items():
        base = denied.figure(measure, "nothing")
        for figure, words in NOTED_WORDS.items():
            over = _quotients(denied.figure(measure, figure), base)
            if over and figure != "nothing":
                is_promised = (measure, figure) == ("noting", "told")
                yield Ratio.of(f"denied, {words} / nothing: {what}", over, NOTING_BAR if is_promised else "")


NOTED_WORDS = {
    "nothing": "nothing",
    "told": "counters and events",
    "recorded": "counters, events, flight recorder",
    "again": "nothing again",
}
"""What is noted of denied packets."""


_WORDS = {
    ("drain", "handler"): "handler",
    ("bulk", "gbit"): "one TCP stream",
    ("connections", "perSecond"): "connections",
    ("burst", "cpu"): "processor time a packet",
}


def _quotients(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    pairs = zip(ones, others, strict=False)
    return [one / other for one, other in pairs if other and not math.isnan(one / other)]
