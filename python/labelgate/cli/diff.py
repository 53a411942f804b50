"""`labelgate diff`: what an edit of policy changes, in verdicts."""

from __future__ import annotations

import gc
import json
import sys

import click

from labelgate.analysis.diff import Difference, SettingsOf, diff
from labelgate.analysis.diff_report import lines, to_json
from labelgate.cli.host_facts import read_host
from labelgate.cli.options import config_option, host_option, refuse_other_nodes
from labelgate.cli.progress import ProgressBar
from labelgate.config import load_config
from labelgate.interrupts import ending_at_once
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from labelgate.sources.files import STDIN, without_collection
from labelgate.sources.states import load_states

CHANGED, WIDENED = 1, 4


@click.command("diff")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--node", metavar="NAME", help="Only the endpoints of this node [default: those of all nodes].")
@host_option
@config_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--examples/--no-examples", default=True, help="A packet for each change [default: yes].")
@without_collection()
def diff_command(
    old: str,
    new: str,
    node: str | None,
    host_file: str | None,
    config_file: str | None,
    output: str,
    examples: bool,
) -> None:
    """Say whose verdicts change between two states of the resources, for which packets.

    \b
    labelgate diff policies-before/ policies/
    git worktree add /tmp/main main && labelgate diff /tmp/main/policies policies

    OLD and NEW are files or folders (one may be -, standard input), each with everything: policies,
    endpoints, network sets. Complete:
    every class of packets is asked about once, at every hook; nothing is sampled. `+` lines let more
    through, `-` lines less.

    \b
    Exit codes: 0 nothing changes, 1 something changes and nothing lets more through,
    4 something lets more through, 2 usage, 3 what cannot be read.
    """
    facts, prefixes = None, None
    if host_file is not None:
        host_node, facts, prefixes = read_host(host_file)
        node = node or host_node
        if node is None:
            raise click.UsageError("--host is of one node: name it with --node, or in the file")
    if old == new == STDIN:
        raise click.UsageError("OLD and NEW are both `-`: one of them can be standard input")
    with ProgressBar() as progress:
        before, after = map(Snapshot.of, load_states(old, new, progress))
    if node is not None:
        refuse_other_nodes(node, before, after)

    with ending_at_once("labelgate: interrupted"):  # Tables are built on threads.
        found = diff(before, after, node=node, host=facts, settings_of=_settings(config_file, prefixes))
    _warn({old: before, new: after}, found)
    if output == "json":
        click.echo(json.dumps(to_json(found), indent=2))
    else:
        for line in lines(found, examples=examples):
            click.echo(line)
    gc.freeze()  # What is read lives to the end: the interpreter would look through all of it on its way out.
    sys.exit(_exit_code(found))


def _warn(states: dict[str, Snapshot], found: Difference) -> None:
    """Says on standard error why there may be less to compare than is meant."""
    empty = [path for path, state in states.items() if not any(state.resources())]
    for path in empty:
        click.echo(f"note: {path} has no resources: is it the right path?", err=True)
    if not empty and not found.names.endpoints:
        click.echo(
            "note: there is no endpoint in OLD or NEW, so nobody whose verdicts could change: "
            "add Pods, WorkloadEndpoints or HostEndpoints to both",
            err=True,
        )


def _settings(config_file: str | None, prefixes: tuple[str, ...] | None) -> SettingsOf:
    """Settings by node; those of nodes without a document of their own are read once."""
    known: dict[tuple[int, str | None], Settings] = {}

    def settings_of(snapshot: Snapshot, node: str | None) -> Settings:
        documents = [
            one for one in snapshot.felix_configurations if one.metadata.name in ("default", f"node.{node}")
        ]
        own = node if any(one.metadata.name != "default" for one in documents) else None
        key = (id(snapshot), own)
        if key not in known:
            known[key] = load_config(config_file, documents, own, prefixes=prefixes).settings
        return known[key]

    return settings_of


def _exit_code(found: Difference) -> int:
    if not found:
        return 0
    return WIDENED if found.widens else CHANGED
