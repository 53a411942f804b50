"""`labelgate status`: what the running daemon enforces, and what it refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from labelgate.cli.options import ask_daemon, socket_option


@click.command()
@socket_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(socket: str | None, output: str) -> None:
    """Show what the daemon enforces.

    Exit code 1 if a change was refused and the generation before it is in force; 3 if no daemon runs.
    """
    answer = ask_daemon(socket, "status")
    click.echo(json.dumps(answer, indent=2) if output == "json" else "\n".join(_lines(answer)))
    sys.exit(1 if answer["refused"] else 0)


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    generation = answer["generation"]
    yield f"labelgate {answer['labelgate']}, pid {answer['pid']}, node {answer['node']}"
    yield f"generation {generation['number']} in force since {generation['since']}"
    yield (
        f"{generation['policies']} policies, {generation['hostEndpoints']} host endpoints, "
        f"{generation['workloads']} workloads, {answer['rules']['variant']} rules"
    )
    if other := answer["rules"].get("otherVariant"):
        yield f"warning: iptables-{other} has rules, too: what they do to our marks is not watched"
    yield generation["engines"]
    yield f"files: {', '.join(answer['files']['paths'])}"
    if answer["policy"]["applied"]:
        yield f"in force is what was applied from {', '.join(answer['policy']['paths'])}"
    if trial := answer["trial"]:
        yield f"ON TRIAL: rolled back in {trial['secondsLeft']:.0f} s unless you run: labelgate confirm"
    if problem := answer["state"]["problem"]:
        yield f"no state is kept: {problem}"
    yield from _verdicts(answer["counters"])
    if refused := answer["refused"]:
        yield f"REFUSED at {refused['since']}; generation {generation['number']} stays in force:"
        yield refused["message"]


def _verdicts(counters: dict[str, Any]) -> Iterator[str]:
    """Hooks that saw packets."""
    for hook, counted in counters["hooks"].items():
        seen = {verdict: count for verdict, count in counted["verdicts"].items() if count}
        if seen:
            yield f"{hook}: " + ", ".join(f"{count} {verdict}" for verdict, count in seen.items())
