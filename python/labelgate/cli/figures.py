"""What was measured, as tables: for the terminal, or as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from labelgate.bench import Measured, Spread

WAYS = ("one", "dependent", "batch")


@dataclass(frozen=True)
class Figures:
    """A table. Columns whose name ends in `:` hold numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    wrong: set[str]
    """Rows, by their first cell, whose answers differ."""

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title)
        for column in self.columns:
            is_number = column.endswith(":")
            table.add_column(
                column.removesuffix(":"), justify="right" if is_number else "left", no_wrap=is_number
            )
        for row in self.rows:
            table.add_row(*row, style="bold red" if row[0] in self.wrong else None)
        return table

    def markdown(self) -> str:
        """For a document."""
        heads = (column.removesuffix(":") for column in self.columns)
        lines = ("---:" if column.endswith(":") else "---" for column in self.columns)
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, lines, *self.rows))


def lookups(found: list[Measured]) -> Figures:
    """The time of a lookup, in every way."""
    rows = []
    for one in found:
        uniform, zipf = one.nanoseconds["uniform"], one.nanoseconds["zipf"]
        spreads = [*(uniform[way] for way in WAYS), *(zipf[way] for way in WAYS)]
        slow = [uniform.get(way) for way in ("linear", "naive")]
        rate = f"{1e3 / uniform['batch'].median:.1f}"
        rows.append((one.name, *map(_nanoseconds, [*spreads, *slow]), rate))
    columns = (
        "one:",
        "dependent:",
        "batch:",
        "zipf one:",
        "zipf dependent:",
        "zipf batch:",
        "linear:",
        "naive:",
    )
    title = "Nanoseconds a lookup: median of all rounds, and half of their range"
    return Figures(title, ("workload", *columns, "M/s in batches:"), rows, _wrong(found))


def builds(found: list[Measured]) -> Figures:
    """Everything else."""
    rows = []
    for one in found:
        facts, checked = one.facts, one.checked
        asked = sum(checked["verdicts"].values())
        verdicts = (f"{name} {count / asked:.0%}" for name, count in checked["verdicts"].items())
        answers = (checked[name] for name in ("questions", "linear", "naive", "mismatches"))
        row = (
            one.name,
            *(f"{facts[name]:,}" for name in ("enforced", "policies", "rules")),
            _milliseconds(one.compile),
            _milliseconds(one.build),
            f"{facts['table']['bytes'] / 1e6:.2f}",
            ", ".join(f"{name} {count:,}" for name, count in one.engines.items()),
            ", ".join(verdicts),
            *(f"{count:,}" for count in answers),
        )
        rows.append(row)
    sizes = ("endpoints:", "policies:", "rules:", "compile ms:", "build ms:", "MB:")
    answered = ("answers:", "as linear:", "as naive:", "differ:")
    title = "Builds, memory, engines (tables of chains by family), and answers"
    return Figures(title, ("workload", *sizes, "engines", "verdicts", *answered), rows, _wrong(found))


def _wrong(found: list[Measured]) -> set[str]:
    return {one.name for one in found if one.checked["mismatches"]}


def _nanoseconds(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    half = (spread.max - spread.min) / 2
    return (
        f"{spread.median:,.1f} ±{half:,.1f}" if spread.median < 1000 else f"{spread.median:,.0f} ±{half:,.0f}"
    )


def _milliseconds(spread: Spread) -> str:
    return f"{spread.median * 1e3:,.1f} ±{(spread.max - spread.min) / 2 * 1e3:,.1f}"
