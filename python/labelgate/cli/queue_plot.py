"""Processor time a packet over the number of rules, as a picture."""

from __future__ import annotations

import re

from matplotlib.figure import Figure

from labelgate.bench import Spread
from labelgate.queue_bench.rounds import Report


def draw(report: Report, path: str) -> None:
    """Writes the picture: lines where a case comes in several sizes, levels where it does not."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    families: dict[str, list[tuple[int, Spread]]] = {}
    for one in report.found:
        if values := one.figure("burst", "cpu"):
            family = re.sub(r" [\d,]+$", "", one.name)
            families.setdefault(family, []).append((one.rules, Spread.of(values)))
    for number, (family, points) in enumerate(families.items()):
        medians = [spread.median for _, spread in points]
        if len(points) == 1:
            axes.axhline(medians[0], linestyle=":", color=f"C{number}", label=family)
            continue
        below = [spread.median - spread.min for _, spread in points]
        above = [spread.max - spread.median for _, spread in points]
        sizes = [size for size, _ in points]
        axes.errorbar(sizes, medians, (below, above), fmt="o-", capsize=3, color=f"C{number}", label=family)
    axes.set(
        title="Processor time of a packet, source to receiver",
        xlabel="rules or policies",
        ylabel="nanoseconds",
        xscale="log",
        yscale="log",
    )
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    figure.savefig(path)
