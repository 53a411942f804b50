"""What the figures are worth: ratios of figures of the same round, and what is promised of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labelgate.bench import Spread
from labelgate.queue_bench.cases import Measure
from labelgate.queue_bench.rounds import Found, Report


@dataclass(frozen=True)
class Ratio:
    """One figure over another; `bar` is what is promised of their median, as `<= 1.12`."""

    name: str
    value: Spread
    bar: str = ""

    @property
    def is_met(self) -> bool | None:
        """None where nothing is promised."""
        if not self.bar:
            return None
        sense, limit = self.bar.split()
        return self.value.median <= float(limit) if sense == "<=" else self.value.median >= float(limit)

    def to_json(self) -> dict[str, Any]:
        """One entry of `ratios` in the output."""
        return {"name": self.name, **asdict(self.value), "bar": self.bar or None, "met": self.is_met}


LINEAR_BARS = {("legacy", 1000): ">= 7", ("legacy", 10_000): ">= 70", ("nft", 1000): ">= 6"}
"""Processor time a packet over that of labelgate with as many policies."""


PEER_BARS = {
    "null verdict": "<= 1.12",
    "nfq_batch": "<= 1.12",
    "nfq_batch multi": "<= 1.12",
}
"""Our handler over that of another one: peers by the names that benches/README.md gives them."""
SLOWER_BARS = {"nfq_library": ">= 1.6"}
"""Theirs over ours."""
NETFILTERQUEUE_BAR = ">= 2.2"


def ratios(report: Report) -> list[Ratio]:
    """Those for which both figures are there."""
    return list(_ratios({one.name: one for one in report.found}))


def _ratios(found: dict[str, Found]) -> Iterator[Ratio]:
    native = [one for name, one in found.items() if name.startswith("labelgate ")]
    mixed = [one for name, one in found.items() if name.startswith("mixed verdicts ")]
    for ours in native[-1:] + mixed:
        for other in found.values():
            if other not in (*native, *mixed):
                yield from _handlers(ours, other, is_mixed=ours in mixed)
    yield from _through(found, native[-1:])
    yield from _linear(found)


def _handlers(ours: Found, other: Found, *, is_mixed: bool) -> Iterator[Ratio]:
    """Bars are of handlers that give the same verdicts: every other packet another one, or not."""
    is_same = is_mixed == other.name.endswith(" multi")
    if other.name.startswith("NetfilterQueue"):
        yield from _ratio(other, ours, "drain", "handler", NETFILTERQUEUE_BAR)
    elif other.name in SLOWER_BARS:
        yield from _ratio(other, ours, "drain", "handler", SLOWER_BARS[other.name] if is_same else "")
    else:
        bar = PEER_BARS.get(other.name, "") if is_same else ""
        yield from _ratio(ours, other, "drain", "handler", bar)


def _through(found: dict[str, Found], largest: list[Found]) -> Iterator[Ratio]:
    """Streams and connections, against connection tracking alone."""
    for base in filter(None, [found.get("conntrack only")]):
        for ours in largest:
            yield from _ratio(ours, base, "bulk", "gbit", ">= 0.90")
        hooks = {"one hook": ">= 0.78", "two hooks": ">= 0.62"}
        for other in found.values():
            for hook, bar in hooks.items():
                if other.name.endswith(hook):
                    yield from _ratio(other, base, "connections", "perSecond", bar)


def _linear(found: dict[str, Found]) -> Iterator[Ratio]:
    """All of a packet's time, and what the rules add to it: source and links are the same for both."""
    for name, other in found.items():
        variant, _, count = name.partition(" rules ")
        native = found.get(f"labelgate {count}")
        if count and native is not None:
            yield from _ratio(other, native, "burst", "cpu")
            if over := _quotients(_added(other, found), _added(native, found)):
                bar = LINEAR_BARS.get((variant, other.rules), "")
                yield Ratio(f"{name} / {native.name}: added to no rule", Spread.of(over), bar)


def _added(one: Found, found: dict[str, Found]) -> list[float]:
    """Processor time above that of a router without rules."""
    least = [cpu for base in filter(None, [found.get("no rule")]) for cpu in base.figure("burst", "cpu")]
    return [cpu - base for cpu, base in zip(one.figure("burst", "cpu"), least, strict=False)]


def _ratio(one: Found, other: Found, measure: Measure, figure: str, bar: str = "") -> Iterator[Ratio]:
    over = _quotients(one.figure(measure, figure), other.figure(measure, figure))
    if over:
        yield Ratio(f"{one.name} / {other.name}: {_WORDS[measure, figure]}", Spread.of(over), bar)


_WORDS = {
    ("drain", "handler"): "handler",
    ("bulk", "gbit"): "one TCP stream",
    ("connections", "perSecond"): "connections",
    ("burst", "cpu"): "processor time a packet",
}


def _quotients(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    pairs = zip(ones, others, strict=False)
    return [one / other for one, other in pairs if other and not math.isnan(one / other)]
