"""`labelgate status`: what the running daemon enforces, its queues and failures, what it refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from labelgate.cli.options import ask_daemon, socket_option, warn_of_elsewhere
from labelgate.printable import printable_lines

MOST_NAMED = 10
"""Endpoints that rules do not reach: a host may have hundreds on one bridge."""


@click.command()
@socket_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(socket: str | None, output: str) -> None:
    """Show what the daemon enforces, since when, what waits in its queues, and what has failed.

    Exit code 1 if a change was refused and the generation before it is in force; 3 if no daemon runs.
    """
    answer = ask_daemon(socket, "status")
    warn_of_elsewhere(socket, answer)
    click.echo(
        json.dumps(answer, indent=2) if output == "json" else printable_lines("\n".join(lines(answer)))
    )
    sys.exit(1 if answer["refused"] else 0)


def lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """The answer of the daemon as text."""
    generation, health = answer["generation"], answer["health"]
    yield f"labelgate {answer['labelgate']}, pid {answer['pid']} since {answer['since']}"
    yield f"node {answer['node']}"
    yield f"{'live' if health['live'] else 'NOT LIVE'}, {'ready' if health['ready'] else 'NOT READY'}"
    yield from health["problems"]
    yield f"generation {generation['number']} in force since {generation['since']}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in generation["policiesByKind"].items() if count)
    yield f"{generation['policies']} policies{kinds and f' ({kinds})'}"
    yield (
        f"{generation['hostEndpoints']} host endpoints, {generation['workloads']} workloads, "
        f"{answer['rules']['variant']} rules"
    )
    unreached = answer.get("outOfReach", ())
    yield from (f"warning: {text}" for text in unreached[:MOST_NAMED])
    if more := unreached[MOST_NAMED:]:
        yield f"warning: and {len(more)} more endpoints that rules do not reach (-o json has all)"
    if other := answer["rules"].get("otherVariant"):
        yield f"warning: iptables-{other} has rules, too: packets pass those of both"
    for writer in answer["rules"].get("markWriters", ()):
        yield f"warning: {writer}: packets may be judged twice, or pass as judged"
    yield generation["engines"]
    yield f"files: {', '.join(answer['files']['paths'])}"
    for opened in answer["files"].get("open", ()):
        yield f"not read, as it has been open for writing for {opened['seconds']:.0f} s: {opened['file']}"
    if answer["policy"]["applied"]:
        yield f"in force is what was applied from {', '.join(answer['policy']['paths'])}"
    if trial := answer["trial"]:
        yield f"ON TRIAL: rolled back in {trial['secondsLeft']:.0f} s unless you run: labelgate confirm"
    if problem := answer["state"]["problem"]:
        yield f"no state is kept: {problem}"
    yield from _hooks(answer)
    yield f"failures since the start: {', '.join(failures(answer)) or 'none'}"
    if refused := answer["refused"]:
        yield f"REFUSED at {refused['since']}; generation {generation['number']} stays in force:"
        yield refused["message"]


def _hooks(answer: Mapping[str, Any]) -> Iterator[str]:
    """Hooks that saw packets, or have some waiting."""
    for hook, counted in answer["counters"]["hooks"].items():
        seen = [f"{count} {verdict}" for verdict, count in counted["verdicts"].items() if count]
        queues = [row for row in answer["queues"] if row["hook"] == hook]
        waiting, room = (sum(row[key] for row in queues) for key in ("waiting", "room"))
        if seen or waiting:
            yield f"{hook}: {', '.join(seen) or 'none judged'}; {waiting} of {room} queued"


_FAILURES = (
    ("queue_dropped", "{} dropped by full queues"),
    ("socket_dropped", "{} dropped by full sockets"),
    ("unknown_interface", "{} of interfaces that are gone"),
    ("loop_guard", "{} came twice"),
    ("notrack_refused", "{} not untracked as rules of others are in the way"),
    ("unreadable_messages", "{} unreadable messages"),
    ("unsent", "{} replies not sent"),
    ("netlink_errors", "{} replies too late"),
    ("on_packet_errors", "{} failures of --on-packet"),
)


def failures(answer: Mapping[str, Any]) -> list[str]:
    """What has gone wrong since the start, in words; empty where nothing has."""
    hooks = answer["counters"]["hooks"].values()
    sums = [(text, sum(hook.get(key) or 0 for hook in hooks)) for key, text in _FAILURES]
    found = [text.format(count) for text, count in sums if count]
    if malformed := sum(sum(hook["malformed"].values()) for hook in hooks):
        found.append(f"{malformed} malformed")
    if passed := sum(sum(hook["fail_open"].values()) for hook in hooks):
        found.append(f"{passed} PASSED unjudged")
    for target, lost in answer.get("events", {}).get("unwritten", {}).items():
        if lost:
            found.append(f"{lost} events not written to {target}")
    if restored := answer["counters"]["rulesRestored"]:
        found.append(f"rules put back {restored} times")
    if wrong := (answer["counters"].get("shadow") or {}).get("wrong"):
        found.append(f"{wrong} decisions that the reference denies")
    if refused := sum(answer["changes"]["refused"].values()):
        found.append(f"{refused} changes refused")
    return found
