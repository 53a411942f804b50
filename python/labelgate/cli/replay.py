"""`labelgate replay`: recorded traffic judged by a policy, or by two."""

from __future__ import annotations

import sys
from typing import Any

import click

from labelgate.cli.options import config_option, host_option, recording_options
from labelgate.flow import HOOKS

_PLACE = ("node", "host_file", "config_file", "routes", "hook", "in_", "out", "staged")


@click.command()
@click.argument("policy", nargs=1)
@click.argument("capture", nargs=1)
@click.option("-f", "--filename", "more", multiple=True, metavar="PATH", help="More policies, endpoints.")
@click.option("--against", multiple=True, metavar="PATH", help="A second policy: what would be different.")
@recording_options
@click.option("--node", metavar="NAME", help="Judge as this node does [default: workloads of the cluster].")
@host_option
@config_option
@click.option("--route", "routes", multiple=True, metavar="NET=INTERFACE", help="Where addresses are.")
@click.option("--in", "in_", metavar="NAME", help="In-interface of every flow.")
@click.option("--out", metavar="NAME", help="Out-interface of every flow.")
@click.option("--captured-on", metavar="NAME", help="The interface of a capture that does not name its own.")
@click.option("--hook", type=click.Choice(HOOKS), help="Only this hook (needs --in or --out).")
@click.option("--staged", is_flag=True, help="As if every staged policy were in force.")
@click.option("--flows", "each", is_flag=True, help="With -o json: a line for each flow, then the summary.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def replay(
    policy: str,
    capture: str,
    more: tuple[str, ...],
    against: tuple[str, ...],
    each: bool,
    output: str,
    **options: Any,
) -> None:
    """Judge recorded traffic by a policy: what would be denied, and by which rule.

    \b
    labelgate replay policies/ traffic.pcap                        workloads of the cluster
    labelgate replay policies/ eth0.pcapng.gz --node edge1         host endpoints, too
    labelgate replay policies/ traffic.pcap --against new/         what would be different
    labelgate replay policies/ conntrack --node edge1              the connections of this host

    CAPTURE is a pcap or pcapng file (plain or gzip), flow logs (.jsonl, .csv), `conntrack`, or - for
    standard input. A flow is judged by its first packet, in the direction of who began it.

    Exit code 1 if anything is denied; with --against, if anything is different; 3 if CAPTURE cannot be read
    to its end, or no flow was judged.
    """
    place = {name: options.pop(name) for name in _PLACE}
    of_node = (place["in_"], place["out"], place["hook"], place["routes"], options["captured_on"])
    if any(of_node) and not (place["node"] or place["host_file"]):
        raise click.UsageError(
            "--in, --out, --hook, --route and --captured-on are of a node: say which by --node"
        )
    if place["hook"] and not (place["in_"] or place["out"]):
        raise click.UsageError("--hook needs --in, --out or both")
    if each and output != "json":
        raise click.UsageError("--flows needs -o json")
    from labelgate.cli import replayed  # Here, because numpy takes its time.

    policies = [(policy, *more)] + ([(*against, *more)] if against else [])
    recording = replayed.Recording.of(capture, **options)
    sys.exit(replayed.run(policies, replayed.Place(**place), recording, each=each, output=output))
