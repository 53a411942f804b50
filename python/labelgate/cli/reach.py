"""`labelgate reach`: who reaches whom."""

from __future__ import annotations

import json
import sys
from ipaddress import ip_address
from pathlib import Path

import click

from labelgate.analysis.lint.selection import some
from labelgate.analysis.reach import Reach, TooMany, port_service, reach
from labelgate.analysis.reach_report import dot, grid, lines, matrix, picture, to_json
from labelgate.cli.connectivity import port_protocol
from labelgate.cli.options import EnvironmentProblem, config_option, policies, writing
from labelgate.cli.progress import ProgressBar
from labelgate.config import load_config
from labelgate.resources.values import did_you_mean
from labelgate.snapshot import load

PICTURES = (".svg", ".png")


@click.command("reach")
@policies()
@config_option
@click.option("--to", metavar="PEER", help="Who reaches these?")
@click.option("--from", "from_", metavar="PEER", help="What do these reach?")
@click.option("--port", type=click.IntRange(1, 65535), help="Only this port [default: every service].")
@click.option("--protocol", metavar="NAME|NUMBER", help="Of the port [default: tcp].")
@click.option("--by", metavar="endpoint|namespace|label:KEY", help="Rows of grid, DOT and picture.")
@click.option(
    "-o", "--output", type=click.Choice(["list", "grid", "json", "dot"]), default="list", show_default=True
)
@click.option(
    "--picture", "picture_file", type=click.Path(dir_okay=False), help="Write FILE.svg or FILE.png."
)
def reach_command(
    paths: tuple[str, ...],
    config_file: str | None,
    to: str | None,
    from_: str | None,
    port: int | None,
    protocol: str | None,
    by: str | None,
    output: str,
    picture_file: str | None,
) -> None:
    """Say who can reach whom: workloads, host endpoints, and addresses outside.

    \b
    labelgate reach -f policies/ --to app=db --port 5432     # who can reach the databases
    labelgate reach -f policies/ --from Pod/shop/web-1       # what can web-1 reach, on which ports
    labelgate reach -f policies/ --port 443 -o grid          # everybody
    labelgate reach -f policies/ --port 443 --picture reach.svg

    PEER is a name (Pod/shop/web-1 or shop/web-1), a label (app=web), a namespace (shop/) or an address, and
    then only its IP version is asked about. Grid, JSON, DOT and picture have the pairs that --from and --to
    name. Addresses that no endpoint has are peers, too: one for each set of them that policy tells apart.
    Judged are both ends of a new connection; DNAT, routes and nodes on the way are not.

    Exit codes: 0 answered, 1 --from reaches no --to, 2 usage, 3 what cannot be read.
    """
    _check(by, picture_file)
    if protocol is not None and port is None:
        raise click.UsageError("--protocol needs --port")
    protocol = protocol or "tcp"
    number = port_protocol(protocol)
    with ProgressBar() as progress:
        snapshot = load(*paths, progress=progress)
    service = None if port is None else port_service(number, port)
    try:
        found = reach(
            snapshot,
            services=service,
            settings_of=lambda node: load_config(config_file, snapshot.felix_configurations, node).settings,
        )
    except TooMany as error:
        raise click.UsageError(str(error)) from None
    if not found.peers and output != "json":
        click.echo(
            "no endpoints in these files, so nobody to reach or be reached: add Pods (with a node and "
            "addresses: `kubectl get pods -o yaml`), WorkloadEndpoints or HostEndpoints",
            err=True,
        )
    destinations, sources = _peers(found, to, "--to"), _peers(found, from_, "--from")
    if not found.peers and output != "json":
        return
    found = _in_named_version(found, from_, to)
    chosen = found.between(sources, destinations)
    if picture_file is not None:
        asked = "any service" if port is None else f"{protocol} {port}"
        _draw(chosen, by, Path(picture_file), f"new connections, {asked}")
    elif output == "list":
        for line in lines(found, sources, destinations):
            click.echo(line)
    elif output == "json":
        click.echo(json.dumps(to_json(chosen), indent=2))
    else:
        shown = grid(chosen, by)
        click.echo(dot(shown) if output == "dot" else f"{matrix(shown).text()}\n{matrix(shown).legend}")
    if sources and destinations and not chosen.allowed.any():
        sys.exit(1)


def _check(by: str | None, picture_file: str | None) -> None:
    if by is not None and by not in ("endpoint", "namespace") and not by.startswith("label:"):
        raise click.UsageError(f"--by: found `{by}`, expected endpoint, namespace or label:KEY")
    if picture_file is not None and Path(picture_file).suffix not in PICTURES:
        raise click.UsageError(f"--picture: found `{picture_file}`, expected FILE.svg or FILE.png")


def _peers(found: Reach, text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    peers = found.matching(text)
    if not peers:
        raise click.UsageError(
            f"{option}: found `{text}`, expected the name, label key=value, namespace/ or address of a peer"
            + _known(found, text)
        )
    return peers


def _known(found: Reach, text: str) -> str:
    """What was probably meant, or a few of those that there are."""
    endpoints = [one for one in found.peers if one.kind != "outside"]
    if hint := did_you_mean(text, (name for one in endpoints for name in one.names), likeness=0.6):
        return f": {hint}"
    return f", such as {some((one.name for one in endpoints), 3)}" if endpoints else ""


def _in_named_version(found: Reach, *texts: str | None) -> Reach:
    """Who names an address asks about its IP version."""
    versions = {one for one in map(_version, texts) if one is not None}
    if len(versions) > 1:
        raise click.UsageError("--from, --to: found an IPv4 and an IPv6 address, expected one IP version")
    return found.in_version(*versions) if versions else found


def _version(text: str | None) -> int | None:
    try:
        return ip_address(text or "").version
    except ValueError:
        return None


def _draw(found: Reach, by: str | None, path: Path, title: str) -> None:
    try:
        with writing(path):
            picture(grid(found, by), path, title)
    except ImportError:
        raise EnvironmentProblem("--picture needs matplotlib: pip install 'labelgate[plot]'") from None
