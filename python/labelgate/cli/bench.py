"""`labelgate bench`: how fast is this, here?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console

from labelgate import _core
from labelgate.bench import Effort, Measured, machine, measure, one_core
from labelgate.cli.bench_options import (
    ROUNDS,
    chosen_by_name,
    is_chosen,
    origin,
    output_option,
    plot_option,
    refuse_undrawable,
    rounds_option,
    show,
)
from labelgate.cli.bench_queue import queue
from labelgate.cli.figures import builds, lookups
from labelgate.cli.host_facts import read_host
from labelgate.cli.options import (
    EnvironmentProblem,
    config_option,
    host_option,
    policies,
    unknown_node,
    writing,
)
from labelgate.config import load_config
from labelgate.model import core_model
from labelgate.settings import HostFacts
from labelgate.snapshot import load

UPLINK = "eth0"
"""The other side of packets that are forwarded to and from endpoints of one's own policies."""
DISAGREEMENT = 4
"""Exit code: answers differ."""
QUICK = (
    "labels-1k-node", "labels-10k-node", "labels-10k-cluster", "labels-10k-node-v6", "labels-10k-between",
    "acl-1k", "fw-1k", "ipc-1k", "acl-10k", "fw-10k", "ipc-10k",
)  # fmt: skip
QUICK_SECONDS = 40
"""No workload and no round begins after this; those that have begun end within 60 s."""
FULL_EFFORT = Effort(questions=1_000_000, rounds=ROUNDS, build_seconds=30)

Bench = Callable[[], _core.Bench]


@click.group()
def bench() -> None:
    """Measure this machine: every figure with the answers behind it checked."""


bench.add_command(queue)


@bench.command("match")
@chosen_by_name("--workload", "workloads")
@policies(required=False)
@click.option("--node", metavar="NAME", help="Of the policies [default: all workloads of the cluster].")
@host_option
@config_option
@click.option("--quick", is_flag=True, help="Small workloads, in less than 60 s.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=1, show_default=True)
@rounds_option
@output_option
@plot_option("growth over size")
def match(
    patterns: tuple[str, ...],
    only_list: bool,
    paths: tuple[str, ...],
    node: str | None,
    host_file: str | None,
    config_file: str | None,
    quick: bool,
    seed: int,
    rounds: int,
    output: str,
    plot: str | None,
) -> None:
    """Measure lookups in the decision table: one at a time, each waiting for the last one, in batches.

    \b
    labelgate bench match --quick
    labelgate bench match --workload 'labels-10k-*' -o json
    labelgate bench match -f policies/ --node edge1

    Workloads are made from their name and the seed. Half of the questions are aimed at rules. Every figure is
    the median of all rounds; a sample of the questions is also answered by `linear`, the rules in order, and
    for workloads with a name by all policies in order (naive).

    Exit code 4 if any two answers differ.
    """
    if only_list:
        click.echo("\n".join(_core.workloads()))
        return
    if paths and (patterns or plot):
        raise click.UsageError("-f measures policies of your own: leave out --workload and --plot")
    if not paths and (node or host_file or config_file):
        raise click.UsageError("--node, --host and --config belong to policies of your own: give -f")
    if plot is not None:
        refuse_undrawable(plot)
    effort = _effort(quick, rounds)
    if paths:
        benches = {"policies": _own(paths, node, host_file, config_file, seed, effort)}
    else:
        benches = {name: _named(name, seed, effort) for name in _chosen(patterns, quick)}
    host = machine()
    with one_core() as core:
        found = list(_measured(benches, effort))
    report = {**origin(), "seed": seed, "machine": {**host, "core": core}}
    _tell(report, found, output, left_out=list(benches)[len(found) :])
    if plot is not None:
        from labelgate.cli.plot import draw

        with writing(plot):
            draw(found, plot)
    sys.exit(DISAGREEMENT if any(one.checked["mismatches"] for one in found) else 0)


def _effort(quick: bool, rounds: int) -> Effort:
    if not quick:
        return Effort(FULL_EFFORT.questions, rounds, FULL_EFFORT.build_seconds)
    return Effort(50_000, rounds, build_seconds=1, until=time.monotonic() + QUICK_SECONDS)


def _chosen(patterns: tuple[str, ...], quick: bool) -> list[str]:
    names = _core.workloads()
    for pattern in patterns:
        if not any(is_chosen(name, [pattern]) for name in names):
            raise click.UsageError(f"--workload: found `{pattern}`, expected one of {', '.join(names)}")
    if patterns:
        return [name for name in names if is_chosen(name, patterns)]
    return [name for name in names if name in QUICK] if quick else names


def _named(name: str, seed: int, effort: Effort) -> Bench:
    return lambda: _core.Bench(name, seed=seed, questions=effort.questions)


def _own(
    paths: tuple[str, ...],
    node: str | None,
    host_file: str | None,
    config_file: str | None,
    seed: int,
    effort: Effort,
) -> Bench:
    snapshot = load(*paths)
    for warning in snapshot.warnings:
        click.echo(f"warning: {warning}", err=True)
    host, prefixes = HostFacts({}), None
    if host_file is not None:
        named, host, prefixes = read_host(host_file)
        node = node or named
    if node is not None and (unknown := unknown_node(snapshot, node)):
        raise EnvironmentProblem(unknown)
    settings = load_config(config_file, snapshot.felix_configurations, node, prefixes=prefixes).settings
    facts = {"interfaces": host.interfaces, "workload_prefixes": settings.workload_prefixes}

    def made() -> _core.Bench:
        try:
            return _core.Bench.of_policies(
                core_model(snapshot, settings),
                json.dumps(facts).encode(),
                node=node,
                uplink=UPLINK,
                seed=seed,
                questions=effort.questions,
            )
        except ValueError as error:
            raise EnvironmentProblem(str(error)) from None

    return made


def _measured(benches: dict[str, Bench], effort: Effort) -> Iterator[Measured]:
    """One workload after the other, so that only one is in memory."""
    with Console(stderr=True).status("starting") as status:
        for index, (name, made) in enumerate(benches.items()):
            if index and time.monotonic() > effort.until:
                return
            status.update(f"{name}: policies and questions")
            yield measure(name, made(), effort, lambda text: status.update(text))


def _tell(report: dict[str, Any], found: list[Measured], output: str, left_out: list[str]) -> None:
    if output == "json":
        workloads = [one.to_json() for one in found]
        click.echo(json.dumps({**report, "workloads": workloads, "leftOut": left_out}, indent=2))
        return
    show((lookups(found), builds(found)), output)
    host = report["machine"]
    busy = " (busy: builds take longer than they should)" if host["load"] > 1 else ""
    click.echo(f"{host['cpu']}, one core of {host['cpus']}, load {host['load']}{busy}; {host['system']}")
    click.echo(f"{report['command']}: labelgate {report['version']}, seed {report['seed']}")
    for one in found:
        if one.checked["mismatches"]:
            click.echo(
                f"{one.name}: {one.checked['mismatches']} answers differ: {one.checked['first']}", err=True
            )
    if left_out:
        click.echo(f"no time left for {', '.join(left_out)}", err=True)
