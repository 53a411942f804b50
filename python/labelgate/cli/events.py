"""`labelgate events`: what was denied or logged, and by which rule."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from labelgate.cli.options import ask_daemon, socket_option, warn_of_elsewhere, writing
from labelgate.events import ExpressionError, Predicate, capture, line, parse

SECONDS = 0.3
"""Between two questions to the daemon."""


class _Expression(click.ParamType[Any]):
    name = "expr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Predicate:
        try:
            return parse(value)
        except ExpressionError as error:
            self.fail(str(error), param, ctx)


@click.command()
@socket_option
@click.option("--follow", "-f", is_flag=True, help="Go on with events as they come, until Ctrl-C.")
@click.option(
    "--filter",
    "wanted",
    type=_Expression(),
    metavar="EXPR",
    help="Only these, such as `kind=deny and dport=443`.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--pcap", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the headers of the last denied packets there (pcapng), told or not, each with its rule; "
    "`-` is standard output.",
)  # fmt: skip
def events(
    socket: str | None, follow: bool, wanted: Predicate | None, output: str, pcap: Path | None
) -> None:
    """Show packets that were denied, met a Log rule, or would be denied by staged policies; with the rule.

    The daemon keeps the last 4096, at most `events.rate` of each rule and `events.policyRate` of each policy
    a second; and the headers of the last `events.recorder` denied packets of each worker, for `--pcap`.
    Packets that kernel rules deny ahead of the queue (INVALID ones, chains that give every packet the same
    answer) are not among them.

    \b
    Filter: FIELD=VALUE and FIELD!=VALUE with `and`, `or`, `not` and brackets.
      src, dst: an address or CIDR
      protocol: tcp, udp, ... or a number
      sport, dport, rule, generation: a number
      kind (deny, log, staged-deny), hook, verdict, in, out, endpoint, stage, tier, policy, direction,
      action, reason: text, with `*` for any part
    """
    if follow and pcap:
        raise click.UsageError("--pcap writes what is kept now: leave out --follow")
    warn_of_elsewhere(socket)
    if pcap:
        packets = ask_daemon(socket, "recorder")["packets"]
        _write(pcap, [packet for packet in packets if wanted is None or wanted(packet)])
        return
    found = (event for event in _events(socket, follow=follow) if wanted is None or wanted(event))
    try:
        for event in found:
            click.echo(json.dumps(event) if output == "json" else line(event))
    except KeyboardInterrupt:
        pass


def _events(socket: str | None, *, follow: bool) -> Iterator[dict[str, Any]]:
    after: int | None = None
    while True:
        answer = ask_daemon(socket, "events", after=after)
        if answer["missed"]:
            click.echo(f"labelgate: {answer['missed']} events were missed", err=True)
        yield from answer["events"]
        after = answer["next"]
        if not answer["events"]:
            if not follow:
                _tell_untold(answer)
                return
            sys.stdout.flush()
            time.sleep(SECONDS)


def _tell_untold(answer: dict[str, Any]) -> None:
    if answer["limited"] or answer["lost"]:
        click.echo(
            f"labelgate: not told since the daemon started: {answer['limited']} above the rates, "
            f"{answer['lost']} lost",
            err=True,
        )


def _write(path: Path, found: list[dict[str, Any]]) -> None:
    content = b"".join(capture(found))
    if str(path) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()  # At the end of the program nobody could tell that it was not written.
        return
    with writing(path):
        path.write_bytes(content)
    click.echo(f"{len(found)} packets written to {path}", err=True)
