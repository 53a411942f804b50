"""`labelgate rules`: how often each rule in force was met, and when last."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from labelgate.cli.options import ask_daemon, socket_option, warn_of_elsewhere

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_UNCOUNTED = {
    "kernel": "kernel rules may answer ahead of the queue, and not all that they answer is counted",
    "pass": "Pass rules of chains where telling them apart would take too much memory are not wholly counted",
    "log": "Log rules of a list with very many rules and more than 16 Log rules are not wholly counted",
}


class _Age(click.ParamType[Any]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]{1,6})([smhdw])", str(value))
        if match is None:
            self.fail(f"found `{value}`, expected a duration such as 7d, 12h, 30m or 90s", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


@click.command()
@socket_option
@click.option(
    "--unused", type=_Age(), metavar="AGE", help="Only rules that no packet has met for so long, such as 7d."
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the N rules that were met most.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rules(socket: str | None, unused: int | None, top: int | None, output: str) -> None:
    """Show how often each rule was met, and when last.

    Counts are exact, and go on when policies are reloaded and when the daemon is restarted, for rules whose
    policy, direction and content stay. They count packets that the daemon judged, and those that kernel rules
    answer ahead of the queue; packets of known connections are not among them. Where not all are counted,
    `packets` is `-` (in JSON `uncounted` says why). What the kernel counts is looked at every five seconds
    and when it is asked for: `*` (`inKernel`) marks times that may be those of the look, not of the packet.

    With --unused the exit code is 1 if there are any. A rule is said to be unused only if all packets that
    meet it are counted, and its policy has been in force for so long as it is now.
    """
    warn_of_elsewhere(socket)
    answer = ask_daemon(socket, "rules")
    found = sorted(answer["rules"], key=_order)
    if unused is not None:
        found = [rule for rule in found if _is_unused(rule, time.time() * 1000 - unused * 1000)]
    if top is not None:
        found = sorted(found, key=lambda rule: -(rule["packets"] or 0))[:top]
    if output == "json":
        click.echo(json.dumps({**answer, "rules": found}, indent=2))
    else:
        click.echo("\n".join(_lines(found)))
        if unused is not None:
            _tell_unjudged(answer["rules"], time.time() * 1000 - unused * 1000)
    sys.exit(1 if unused is not None and found else 0)


def _order(rule: dict[str, Any]) -> tuple[Any, ...]:
    number = -1 if rule["rule"] is None else rule["rule"]
    return rule["policy"] is None, rule["tier"] or "", rule["policy"] or "", rule["direction"] or "", number


def _is_unused(rule: dict[str, Any], before: float) -> bool:
    if rule["policy"] is None or rule["uncounted"] or rule["since"] > before:
        return False
    return not rule["packets"] or rule["lastHit"] <= before


def _tell_unjudged(rules: list[dict[str, Any]], before: float) -> None:
    uncounted = sum(bool(rule["uncounted"]) for rule in rules)
    young = sum(not rule["uncounted"] and rule["since"] > before for rule in rules if rule["policy"])
    if uncounted or young:
        click.echo(
            f"labelgate: not judged: {uncounted} rules that are not wholly counted, {young} that have not "
            "been counted for so long",
            err=True,
        )


def _lines(found: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'PACKETS':>12}  {'LAST HIT':21}  RULE"
    for rule in found:
        packets = "-" if rule["packets"] is None or rule["uncounted"] else str(rule["packets"])
        mark = "*" if rule["inKernel"] and rule["lastHit"] else ""
        yield f"{packets:>12}  {_time(rule['lastHit']) + mark:21}  {_name(rule)}"
    if any(rule["inKernel"] and rule["lastHit"] for rule in found):
        yield "* or up to five seconds earlier: kernel rules count it, and it is when that was seen"
    for word in sorted({rule["uncounted"] for rule in found if rule["uncounted"]}):
        yield f"- {_UNCOUNTED[word]}"


def _time(milliseconds: int | None) -> str:
    if not milliseconds:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(rule: dict[str, Any]) -> str:
    tier = f"tier {rule['tier']}" if rule["tier"] and not rule["policy"] else None
    number = None if rule["rule"] is None else f"rule {rule['rule']}"
    words = (rule["policy"] or tier, rule["direction"], number, rule["action"])
    reason = "" if rule["rule"] is not None else f"({rule['reason']})"
    return " ".join(filter(None, (*words, reason)))
