"""What `bench match` and `bench queue` share: options, what is chosen by name, and how figures are shown."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from labelgate import _core
from labelgate.cli.figures import Figures
from labelgate.cli.options import EnvironmentProblem

F = TypeVar("F", bound=Callable[..., Any])
WIDTH = 160
"""Columns where there is no terminal to ask."""
ROUNDS = 9

rounds_option = click.option("--rounds", type=click.IntRange(1, 1000), default=ROUNDS, show_default=True)
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True
)


def chosen_by_name(option: str, plural: str) -> Callable[[F], F]:
    """`--workload NAME` and `--list`."""
    patterns = click.option(
        option, "patterns", multiple=True, metavar="NAME",
        help="Only these; * stands for anything; repeatable.",
    )  # fmt: skip
    names = click.option(
        "--list", "only_list", is_flag=True, help=f"Print the names of all {plural} and stop."
    )
    return lambda verb: patterns(names(verb))


def plot_option(what: str) -> Callable[[F], F]:
    """`--plot FILE`; `refuse_undrawable` checks it."""
    kind = click.Path(dir_okay=False, writable=True)
    return click.option("--plot", type=kind, help=f"Draw {what} (.svg, .png, .pdf).")


def refuse_undrawable(path: str) -> None:
    """Before anything is measured: no matplotlib, or no ending that it knows."""
    if importlib.util.find_spec("matplotlib") is None:
        raise EnvironmentProblem("--plot needs matplotlib: pip install 'labelgate[plot]'")
    from labelgate.cli.plot import FORMATS

    if Path(path).suffix.removeprefix(".") not in FORMATS:
        raise click.UsageError(
            f"--plot: found `{path}`, expected a name that ends in one of {', '.join(FORMATS)}"
        )


def is_chosen(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns means it."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def origin() -> dict[str, Any]:
    """What was run to get the figures."""
    return {"command": shlex.join(["labelgate", *sys.argv[1:]]), "version": _core.__version__}


def show(tables: Iterable[Figures], output: str) -> None:
    """As text or markdown."""
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH)
    for figures in tables:
        if output == "markdown":
            click.echo(figures.markdown() + "\n")
        else:
            console.print(figures.table())
