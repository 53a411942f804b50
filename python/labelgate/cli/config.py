"""`labelgate config`: every value that is in effect, and where it comes from."""

from __future__ import annotations

import json

import click

from labelgate.cli.options import config_option, node_option, policies
from labelgate.config import load_config, value_text
from labelgate.snapshot import Snapshot
from labelgate.sources.files import load_documents


@click.command()
@policies(required=False)
@node_option
@config_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def config(paths: tuple[str, ...], node: str | None, config_file: str | None, output: str) -> None:
    """Print the effective configuration: what `labelgate run` with the same options would use.

    FelixConfiguration documents of the policies count. A value is printed as the configuration file takes it.
    """
    paths = paths or load_config(config_file, node=node).policies
    felix = Snapshot.of(load_documents(paths)).felix_configurations
    effective = load_config(config_file, felix, node).sources
    rows = {key: (value_text(key, given.value), given.source) for key, given in effective.items()}
    if output == "json":
        found = {key: {"value": value, "source": source} for key, (value, source) in rows.items()}
        click.echo(json.dumps(found, indent=2))
        return
    width = max(len(key) for key in rows)
    for key, (value, source) in rows.items():
        click.echo(f"{key:{width}}  {value or '-'}  ({source})")
