"""`labelgate doctor`: what stands in the way of enforcing policy on this host."""

from __future__ import annotations

import json
import sys

import click

from labelgate.agent.handover import running
from labelgate.cli.options import config_option, socket_option
from labelgate.config import load_config
from labelgate.doctor import examine
from labelgate.printable import printable


@click.command()
@config_option
@socket_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def doctor(config_file: str | None, socket: str | None, output: str) -> None:
    """Look at kernel, capabilities, iptables, queues, marks, rules of others, files, policies and the daemon.

    Each finding comes with what it means and how to mend it. Nothing is changed.

    Exit code 1 if there is a warning or a failure.
    """
    config = load_config(config_file, flags={"socket": socket})
    found = list(examine(config, config_file, running=running()))
    if output == "json":
        click.echo(json.dumps([diagnosis.to_json() for diagnosis in found], indent=2))
    else:
        for diagnosis in found:
            click.echo(printable(f"{diagnosis.state:8} {diagnosis.subject}: {diagnosis.found}"))
            for label, text in (("means", diagnosis.meaning), ("mend", diagnosis.mend)):
                if text:
                    click.echo(f"{'':8}   {label}: {text}")
    sys.exit(1 if any(diagnosis.state in ("warning", "failure") for diagnosis in found) else 0)
