"""`labelgate clean`: takes every rule of ours out of the kernel."""

from __future__ import annotations

import click

from labelgate.cli.options import EnvironmentProblem
from labelgate.netfilter.apply import ApplyError
from labelgate.netfilter.apply import clean as remove_rules


@click.command()
def clean() -> None:
    """Remove every rule of ours from this network namespace, of both iptables variants.

    Packets that wait in a queue are lost if their hooks go. A running daemon puts its rules back: stop it
    first.
    """
    try:
        removed = remove_rules()
    except ApplyError as error:
        raise EnvironmentProblem("\n".join([str(error), *getattr(error, "__notes__", ())])) from None
    for table in removed:
        click.echo(f"removed our rules from {table}")
    if not removed:
        click.echo("nothing of ours is there")
