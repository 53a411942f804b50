"""Growth of lookups and builds over size, as a picture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from labelgate.bench import Measured

FORMATS = sorted(FigureCanvasBase.get_supported_filetypes())
SIZE = "endpoints of the cluster, or rules of the set"


def draw(found: Iterable[Measured], path: str) -> None:
    """Writes the picture; the ending of the path is one of `FORMATS`."""
    families: dict[str, list[Measured]] = {}
    for one in sorted(found, key=_size):
        families.setdefault(re.sub(r"-\d+k", "", one.name), []).append(one)
    figure = Figure(figsize=(12, 5), layout="constrained")
    lookups, builds = figure.subplots(1, 2)
    built: list[dict[str, Any]] = []
    for number, (family, members) in enumerate(families.items()):
        colour = f"C{number}"
        for way, style in (("one", "o-"), ("batch", "s--")):
            times = [one.nanoseconds["uniform"][way].median for one in members]
            lookups.plot([*map(_size, members)], times, style, color=colour, label=f"{family}, {way}")
        # A table that is asked in several ways is built in one.
        if anew := [one for one in members if one.facts["table"] not in built]:
            built += [one.facts["table"] for one in anew]
            _builds(builds, anew, family, colour)
    builds.plot([], [], ":", color="grey", label="n log n, from the smallest")
    for axes, title, unit in ((lookups, "Lookup", "nanoseconds"), (builds, "Compile and build", "seconds")):
        axes.set(title=title, xlabel=SIZE, ylabel=unit, xscale="log", yscale="log")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize="small")
    figure.savefig(path)


def _builds(axes: Axes, members: list[Measured], family: str, colour: str) -> None:
    """The builds, and how they would grow with n log n."""
    sizes = [_size(one) for one in members]
    seconds = [one.compile.median + one.build.median for one in members]
    axes.plot(sizes, seconds, "o-", color=colour, label=family)
    factor = seconds[0] / (sizes[0] * math.log(sizes[0]))
    axes.plot(sizes, [factor * size * math.log(size) for size in sizes], ":", color=colour)


def _size(one: Measured) -> int:
    size: int = one.facts["endpoints"] if one.facts["endpoints"] > 1 else one.facts["rules"]
    return size
