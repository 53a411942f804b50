"""`labelgate bench queue`: what does enforcement cost a packet, a connection, a stream, here?"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console

from labelgate.bench import machine
from labelgate.cli.bench_options import (
    chosen_by_name,
    is_chosen,
    origin,
    output_option,
    plot_option,
    refuse_undrawable,
    rounds_option,
    show,
)
from labelgate.cli.options import EnvironmentProblem, writing
from labelgate.cli.queue_figures import caches, costs, denials, ratios_table, through
from labelgate.demo.namespaces import WorldError
from labelgate.netfilter.apply import VARIANTS, Tools, Variant
from labelgate.queue_bench.cache import MOST_FILLED, Cache, most_entries
from labelgate.queue_bench.cases import Case, Selection, cases
from labelgate.queue_bench.denied import Miscounted
from labelgate.queue_bench.measures import Effort
from labelgate.queue_bench.ratios import Ratio, ratios
from labelgate.queue_bench.rounds import Report, run

T = TypeVar("T", Case, Cache)
QUICK_SECONDS = 34
"""No round begins after this; the one that has begun ends within 60 s."""
FULL_EFFORT = Effort(flood=0.25, latency=500, connections=0.5, bulk=0.8, noting=2.5)
QUICK_EFFORT = Effort(flood=0.05, latency=100, connections=0.15, bulk=0.15, noting=0.5)
SIZES, QUICK_SIZES = (10, 100, 1000, 10_000), (1000,)
LINEAR, QUICK_LINEAR = (10, 100, 1000, 10_000), (1000,)


@click.command("queue")
@click.option("--quick", is_flag=True, help="Fewer and smaller cases, in less than 60 s.")
@rounds_option
@click.option(
    "--backend",
    type=click.Choice(VARIANTS),
    help="labelgate's iptables variant [default: the first installed].",
)
@chosen_by_name("--case", "cases")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME=COMMAND",
    help="Also measure a program of yours that answers every packet of {queue} with NF_REPEAT and {mark}, "
    "with room for {maxlen}; one is started for each processor's queue; repeatable. The first also answers "
    "behind the least rules for connections.",
)
@click.option(
    "--peer-mixed",
    "mixed_peers",
    multiple=True,
    metavar="NAME=COMMAND",
    help="The same on packets with two marks of others in turn, those with one dropped, as `mixed verdicts`.",
)
@click.option(
    "--peer-marks",
    "mark_peers",
    multiple=True,
    metavar="NAME=COMMAND",
    help="The same on packets with two marks of others in turn, none dropped, as `mixed marks`.",
)
@output_option
@plot_option("processor time a packet over rules")
def queue(
    quick: bool,
    rounds: int,
    backend: Variant | None,
    patterns: tuple[str, ...],
    only_list: bool,
    peers: tuple[str, ...],
    mixed_peers: tuple[str, ...],
    mark_peers: tuple[str, ...],
    output: str,
    plot: str | None,
) -> None:
    """Measure enforcement on real packets, in network namespaces of its own (root).

    \b
    labelgate bench queue --quick
    labelgate bench queue -o json --plot costs.svg

    The same traffic goes through routers without rules, with connection tracking only, with labelgate, with
    linear rules of iptables and an ipset of the same meaning; and to a memcached, tracked and untracked.
    Every round asks all of them; figures are medians of the rounds. Packets are counted on both sides.
    Handlers run as `labelgate run` has it by default, a worker for each processor, where the packets are;
    for `handler` they are on another processor than the source, for `near` and `all` on the same.

    Ratios are of figures of the same round. "95 %" is where their median is with so much confidence (six
    rounds are needed); a bar is "met" or "missed" if that lies on one side of it, and "not shown" otherwise.
    `denied` is one loop that is switched between noting nothing of denied packets, counters by rule with
    events, and the flight recorder; "nothing again" shows how much like differs from like.

    Exit code 4 if packets got lost that nobody has dropped, got through without a verdict, or were counted
    wrongly. Nothing is left behind.
    """
    start = time.monotonic()
    if plot is not None:
        refuse_undrawable(plot)
    variants = _variants(backend)
    notes = list(_missing(variants))
    try:
        chosen, made = cases(_selection(quick, variants, peers, mixed_peers, mark_peers)), _caches(quick)
    except ValueError as error:
        raise click.UsageError(f"--peer: {error}") from None
    if only_list:
        click.echo("\n".join([*(case.name for case in chosen), *(cache.name for cache in made)]))
        return
    chosen, made = _matching(chosen, patterns), _matching(made, patterns)
    if not chosen and not made:
        raise click.UsageError(f"--case: found {', '.join(patterns)}, expected one of those of --list")
    effort = QUICK_EFFORT if quick else FULL_EFFORT
    until = start + QUICK_SECONDS if quick else float("inf")
    host = machine()
    report = _measured(chosen, made, variants[0], effort, rounds, until)
    found = ratios(report)
    heading = {
        **origin(),
        "seconds": round(time.monotonic() - start, 1),
        "machine": {**host, "loadAfter": machine()["load"], "tcp": _congestion_control()},
        "backend": variants[0],
    }
    _tell(heading, report, found, notes, output)
    if plot is not None:
        from labelgate.cli.queue_plot import draw

        with writing(plot):
            draw(report, plot)
    sys.exit(4 if any(one.checked.unexplained or one.checked.unjudged for one in report.found) else 0)


def _measured(
    chosen: list[Case], made: list[Cache], backend: Variant, effort: Effort, rounds: int, until: float
) -> Report:
    """What the rounds have found; ends the command where there is nothing to go by."""
    signal.signal(signal.SIGTERM, _exit)
    try:
        with Console(stderr=True).status("starting") as status:
            return run(chosen, made, backend, effort, rounds, until, lambda text: status.update(text))
    except (WorldError, ValueError) as error:
        raise EnvironmentProblem(str(error)) from None
    except Miscounted as error:
        click.echo(f"labelgate: {error}", err=True)
        sys.exit(4)


def _variants(backend: Variant | None) -> tuple[Variant, ...]:
    """Those that are installed, labelgate's first."""
    if os.geteuid() != 0:
        raise EnvironmentProblem("bench queue makes network namespaces and rules: run it as root")
    if shutil.which("ip") is None:
        raise EnvironmentProblem("bench queue needs the program ip (Debian: iproute2)")
    installed = [variant for variant in VARIANTS if Tools(variant).installed]
    if not installed or backend not in (None, *installed):
        raise EnvironmentProblem(f"iptables-{backend or 'nft'} is not installed (Debian: iptables)")
    first = backend or installed[0]
    return (first, *(variant for variant in installed if variant != first))


def _has_netfilterqueue() -> bool:
    return importlib.util.find_spec("netfilterqueue") is not None


def _congestion_control() -> str:
    """Of streams: `bbr` paces packets, by round trips and not by what they cost."""
    with suppress(OSError):
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip()
    return "unknown"


def _can_fill() -> bool:
    return os.access("/usr/sbin/conntrack", os.X_OK) or shutil.which("conntrack") is not None


def _missing(variants: tuple[Variant, ...]) -> Iterator[str]:
    """What is left out, and why."""
    if len(variants) < len(VARIANTS):
        yield "rules of one variant only: the other iptables is not installed"
    if shutil.which("ipset") is None:
        yield "no ipset: the program is not installed (Debian: ipset)"
    if not _has_netfilterqueue():
        yield "no NetfilterQueue: pip install 'labelgate[netfilterqueue]'"
    if shutil.which("memcached") is None or not _can_fill():
        yield "no memcached: the programs are not installed (Debian: memcached, conntrack)"
    elif most_entries() > MOST_FILLED:
        yield f"no small table of connections: nf_conntrack_max of this host is above {MOST_FILLED:,}"


def _selection(
    quick: bool,
    variants: tuple[Variant, ...],
    peers: tuple[str, ...],
    mixed_peers: tuple[str, ...],
    mark_peers: tuple[str, ...],
) -> Selection:
    return Selection(
        sizes=QUICK_SIZES if quick else SIZES,
        linear=QUICK_LINEAR if quick else LINEAR,
        variants=variants,
        has_ipset=shutil.which("ipset") is not None,
        has_netfilterqueue=_has_netfilterqueue(),
        has_mixed=not quick,
        has_single=not quick,
        hooks=(1,) if quick else (1, 2),
        peers=peers,
        mixed_peers=mixed_peers,
        mark_peers=mark_peers,
    )


def _matching(chosen: list[T], patterns: tuple[str, ...]) -> list[T]:
    return [one for one in chosen if not patterns or is_chosen(one.name, patterns)]


def _caches(quick: bool) -> list[Cache]:
    if shutil.which("memcached") is None or not _can_fill():
        return []
    # Filling a table takes seconds.
    sizes = (False,) if quick or most_entries() > MOST_FILLED else (False, True)
    return [Cache(is_tracked, is_small) for is_small in sizes for is_tracked in (True, False)]


def _exit(number: int, _: FrameType | None) -> None:
    """Leaves through every `finally`."""
    sys.exit(128 + number)


def _tell(heading: dict[str, Any], report: Report, found: list[Ratio], notes: list[str], output: str) -> None:
    if output == "json":
        body = {**report.to_json(), "ratios": [ratio.to_json() for ratio in found], "leftOut": notes}
        click.echo(json.dumps({**heading, **body}, indent=2))
        return
    first = (costs(report), through(report))
    tables = [
        *(figures for figures in first if figures.rows),
        *(denials(one) for one in report.found if one.name == "denied"),
        ratios_table(found),
        *([caches(report)] if report.caches else []),
    ]
    show(tables, output)
    host = heading["machine"]
    click.echo(
        f"{report.rounds} rounds in {heading['seconds']:.0f} s; {host['cpu']}, {host['cpus']} processors, "
        f"load {host['load']} before and "
        f"{host['loadAfter']} after; {host['system']}, TCP {host['tcp']}; {heading['backend']} rules"
    )
    click.echo(f"{heading['command']}: labelgate {heading['version']}")
    for note in notes:
        click.echo(f"left out: {note}", err=True)
    for one in report.found:
        if one.checked.unexplained:
            click.echo(f"{one.name}: {one.checked.unexplained} packets lost that nobody dropped", err=True)
        if one.checked.unjudged:
            click.echo(f"{one.name}: {one.checked.unjudged} packets delivered without a verdict", err=True)
