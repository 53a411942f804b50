"""`labelgate connectivity`: which workloads reach which, wherever they live."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from labelgate.analysis.matrix import By, Matrix, TooManyPairs, matrix
from labelgate.cli.lines import Disagreement, answer_lines
from labelgate.cli.options import config_option, policies
from labelgate.cli.progress import ProgressBar
from labelgate.config import load_config
from labelgate.flow import (
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Connection,
    FieldError,
    Packet,
    connection_from_json,
    connection_to_json,
    protocol_number,
)
from labelgate.reference import Reference
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot, load

PORT_PROTOCOLS = (TCP, UDP, SCTP, UDPLITE)


@click.command()
@policies()
@config_option
@click.option(
    "--packets", metavar="FILE|-", help="JSON lines: one connection a line in, one answer a line out."
)
@click.option(
    "--engine", type=click.Choice(["table", "reference", "both"]), help="For --packets [default: both]."
)
@click.option("--matrix", "as_matrix", is_flag=True, help="Who reaches whom, as a grid (from the table).")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the matrix.")
@click.option("--protocol", metavar="NAME|NUMBER", help="Of the matrix [default: tcp].")
@click.option("--by", type=click.Choice(["workload", "namespace"]), help="Of the matrix [default: workload].")
def connectivity(
    paths: tuple[str, ...],
    config_file: str | None,
    packets: str | None,
    engine: str | None,
    as_matrix: bool,
    port: int | None,
    protocol: str | None,
    by: By | None,
) -> None:
    """Say whether policy lets new connections through between workloads of a cluster.

    \b
    labelgate connectivity -f policies/ --matrix --port 443 --by namespace
    labelgate connectivity -f policies/ --packets questions.jsonl

    Judged are the egress policy of the workload that has the source and the ingress policy of the workload
    that has the destination; host endpoints and interfaces play no part. Connections of the matrix come from
    source port 40000.
    """
    if as_matrix == (packets is not None):
        raise click.UsageError("ask with --packets, or for a --matrix")
    if as_matrix and port is None:
        raise click.UsageError("--matrix needs --port")
    for option, value in (("--port", port), ("--protocol", protocol), ("--by", by)):
        if value is not None and not as_matrix:
            raise click.UsageError(f"{option} needs --matrix")
    if engine is not None and as_matrix:
        raise click.UsageError("--engine needs --packets")
    number = port_protocol(protocol or "tcp")
    with ProgressBar() as progress:
        snapshot = load(*paths, progress=progress)
    settings = load_config(config_file, snapshot.felix_configurations).settings
    for warning in snapshot.warnings:
        click.echo(f"warning: {warning}", err=True)
    if port is not None and as_matrix:
        table = snapshot.compile(node=None, settings=settings)
        try:
            with ProgressBar(what="asking") as progress:
                found = matrix(table, port=port, protocol=number, by=by or "workload", progress=progress)
        except TooManyPairs as error:
            raise click.UsageError(f"--matrix: {error}") from None
        _print(found)
        return
    judge = _judge(snapshot, settings, engine or "both")
    sys.exit(answer_lines(packets or "-", lambda line: judge(connection_from_json(line))))


def port_protocol(protocol: str) -> int:
    """The number of a protocol that has ports."""
    try:
        number = protocol_number(protocol)
    except FieldError as error:
        raise click.UsageError(f"--protocol: {error.message}") from None
    if number not in PORT_PROTOCOLS:
        raise click.UsageError(f"--protocol: found `{protocol}`, expected one that has ports")
    return number


def _judge(snapshot: Snapshot, settings: Settings, engine: str) -> Callable[[Packet], dict[str, Any]]:
    table: Callable[[Packet], Connection] = snapshot.compile(node=None, settings=settings).connectivity
    if engine == "table":
        return lambda packet: connection_to_json(table(packet))
    literal = Reference(snapshot, "", HostFacts({}), settings).connectivity
    if engine == "reference":
        return lambda packet: connection_to_json(literal(packet))

    def both(packet: Packet) -> dict[str, Any]:
        fast, slow = connection_to_json(table(packet)), connection_to_json(literal(packet))
        if fast != slow:
            raise Disagreement(fast, slow)
        return fast

    return both


def _print(found: Matrix) -> None:
    if not found.names:
        click.echo("no workloads")
        return
    if sys.stdout.isatty():
        _print_table(found)
    else:
        click.echo(found.text())
    click.echo("rows connect to columns; " + found.legend)


_COLOURS = {"yes": "green", "all": "green", "no": "red", "none": "red", "-": "dim"}


def _print_table(found: Matrix) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table(header_style="bold")
    grid.add_column("from \\ to")
    for index in range(len(found.names)):
        grid.add_column(str(index + 1), justify="center")
    for index, (name, row) in enumerate(zip(found.names, found.cells, strict=True)):
        cells = (f"[{_COLOURS.get(cell, 'yellow')}]{cell}[/]" for cell in row)
        grid.add_row(f"{index + 1} {name}", *cells)
    Console().print(grid)
