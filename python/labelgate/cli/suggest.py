"""`labelgate suggest`: from recorded flows to a policy that allows them and nothing else."""

from __future__ import annotations

import sys
from typing import Any

import click

from labelgate.cli.options import policies, recording_options


@click.command()
@policies()
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@recording_options
@click.option(
    "--peers",
    type=click.Choice(["seen", "namespace"]),
    default="seen",
    show_default=True,
    help="Rules find those that were seen, or all workloads of their namespaces.",
)
@click.option("--net4", type=click.IntRange(0, 32), default=32, show_default=True, metavar="LENGTH")
@click.option("--net6", type=click.IntRange(0, 128), default=128, show_default=True, metavar="LENGTH")
@click.option("--unanswered", is_flag=True, help="TCP that nobody has answered counts, too.")
@click.option("--workload-prefix", default="cali", hidden=True)
def suggest(paths: tuple[str, ...], captures: tuple[str, ...], **options: Any) -> None:
    """Write the least policy that allows what was recorded, as staged policies in Calico's YAML.

    \b
    labelgate suggest -f endpoints/ week.pcap.gz > suggested.yaml
    labelgate suggest -f endpoints/ flows.jsonl --peers namespace --net4 24 > suggested.yaml
    labelgate replay endpoints/ week.pcap.gz -f suggested.yaml --staged

    -f names endpoints (pods, workload and host endpoints, namespaces, network sets). CAPTURE is what
    `labelgate replay` reads. --net4 and --net6 widen addresses that no endpoint has to so long a prefix.

    Exit code 1 if nothing is suggested: nothing was recorded of any endpoint that labels find; 3 if a CAPTURE
    cannot be read to its end.
    """
    from labelgate.cli import suggested  # Here, because numpy takes its time.

    sys.exit(suggested.run(paths, captures, **options))
