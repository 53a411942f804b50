"""Growth of lookups and builds over size, as a picture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import click
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labelgate.bench import Measured


def draw(found: Iterable[Measured], path: str) -> None:
    """Writes the picture; the ending of the path says in which format.

    Raises:
        click.UsageError: there is no such format.
    """
    families: dict[str, list[Measured]] = {}
    for one in sorted(found, key=_size):
        families.setdefault(re.sub(r"-\d+k", "", one.name), []).append(one)
    figure = Figure(figsize=(12, 5), layout="constrained")
    lookups, builds = figure.subplots(1, 2)
    for number, (family, members) in enumerate(families.items()):
        colour = f"C{number}"
        for way, style in (("one", "o-"), ("batch", "s--")):
            times = [one.nanoseconds["uniform"][way].median for one in members]
            lookups.plot([*map(_size, members)], times, style, color=colour, label=f"{family}, {way}")
        builds.plot([*map(_rules, members)], [*map(_seconds, members)], "o-", color=colour, label=family)
    _guide(builds, [one for members in families.values() for one in members])
    _axes(lookups, "Lookup", "endpoints (rules, where there is one endpoint)", "nanoseconds")
    _axes(builds, "Compile and build", "rules", "seconds")
    try:
        figure.savefig(path)
    except ValueError as error:
        raise click.UsageError(f"--plot: {error}") from None


def _size(one: Measured) -> int:
    endpoints: int = one.facts["endpoints"]
    return endpoints if endpoints > 1 else _rules(one)


def _rules(one: Measured) -> int:
    rules: int = one.facts["rules"]
    return rules


def _seconds(one: Measured) -> float:
    return one.compile.median + one.build.median


def _guide(axes: Axes, found: list[Measured]) -> None:
    """n log n through the smallest build, to compare slopes with."""
    first = min(found, key=_rules)
    factor = _seconds(first) / (_rules(first) * math.log(_rules(first)))
    sizes = sorted({_rules(one) for one in found})
    axes.plot(sizes, [factor * size * math.log(size) for size in sizes], ":", color="grey", label="n log n")


def _axes(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
