"""`labelgate demo`: the five policy options on real packets."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import click
from rich.console import Console
from rich.table import Table

from labelgate.cli.options import EnvironmentProblem
from labelgate.demo.acts import Row, perform
from labelgate.demo.namespaces import WorldError

WIDTH = 120
"""Columns where there is no terminal to ask."""


@click.command()
@click.option("--backend", type=click.Choice(["nft", "legacy"]), default="nft", show_default=True)
def demo(backend: str) -> None:
    """Show the five policy options enforced on real packets in network namespaces (root).

    Exit code 1 if anything was not as expected. Nothing is left behind.
    """
    if os.geteuid() != 0:
        raise EnvironmentProblem("the demo makes network namespaces: run it as root")
    signal.signal(signal.SIGTERM, _exit)
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH)
    rows: list[Row] = []
    try:
        with console.status("starting") as status:
            for row in perform(backend, lambda text: status.update(f"enforcing {text}")):
                rows.append(row)
                if not console.is_terminal:
                    click.echo(f"{row.option}: {row.traffic}: {row.seen}", err=True)
    except WorldError as error:
        raise EnvironmentProblem(str(error)) from None
    console.print(_table(rows))
    wrong = sum(not row.is_right for row in rows)
    console.print(f"{len(rows)} observations, {wrong} not as expected")
    sys.exit(1 if wrong else 0)


def _exit(number: int, _: FrameType | None) -> None:
    """Leaves through every `finally`."""
    sys.exit(128 + number)


def _table(rows: list[Row]) -> Table:
    table = Table(title="Calico's five policy options on real packets")
    for column in ("option", "traffic", "expected", "seen", "deciding rule"):
        table.add_column(column, overflow="fold", no_wrap=column in ("option", "expected", "seen"))
    before = None
    for row in rows:
        if before not in (None, row.option):
            table.add_section()
        style = None if row.is_right else "bold red"
        option = row.option if row.option != before else ""
        table.add_row(option, row.traffic, row.expected, row.seen, row.rule, style=style)
        before = row.option
    return table
