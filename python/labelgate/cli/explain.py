"""`labelgate explain`: one flow for people, JSON lines for programs, each judged twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from labelgate.cli.options import (
    EnvironmentProblem,
    config_option,
    node_option,
    policies,
    read_host,
)
from labelgate.config import load_config
from labelgate.flow import HOOKS, Answer, FieldError, Packet, Step, answer_to_json, packet_from_json
from labelgate.path import Judge, Visit, walk
from labelgate.reference import Reference
from labelgate.settings import HostFacts
from labelgate.snapshot import Snapshot, load

DISAGREEMENT = 4


class Disagreement(Exception):
    """Table and reference answer differently: a bug of ours, never the user's."""

    def __init__(self, table: Answer, reference: Answer) -> None:
        super().__init__("table and reference disagree")
        self.table = table
        self.reference = reference


@click.command()
@policies()
@node_option
@click.option("--host", "host_file", type=click.Path(exists=True, dir_okay=False), help="Host facts (YAML).")
@config_option
@click.option("--packets", metavar="FILE|-", help="JSON lines: one packet a line in, one answer a line out.")
@click.option("-o", "--output", type=click.Choice(["text", "jsonl"]), help="[default: jsonl with --packets]")
@click.option(
    "--engine", type=click.Choice(["table", "reference", "both"]), default="both", show_default=True
)
@click.option("--hook", type=click.Choice(HOOKS), help="Only this hook [default: all on the way].")
@click.option("--in", "in_", metavar="NAME", help="In-interface.")
@click.option("--out", metavar="NAME", help="Out-interface.")
@click.option("--src", metavar="ADDRESS")
@click.option("--dst", metavar="ADDRESS")
@click.option("--protocol", metavar="NAME|NUMBER")
@click.option("--sport", type=int)
@click.option("--dport", type=int)
@click.option("--icmp-type", "icmpType", type=int)
@click.option("--icmp-code", "icmpCode", type=int)
@click.option("--ct", default="new", show_default=True, help="new, established, related, invalid, untracked.")
@click.option("--accepted", is_flag=True, help="The accept mark is set on arrival.")
@click.option("--dnatted", is_flag=True, help="The flow was DNATed in nat OUTPUT.")
@click.option("--fragment", is_flag=True, help="A later fragment, without ports.")
def explain(
    paths: tuple[str, ...],
    node: str | None,
    host_file: str | None,
    config_file: str | None,
    packets: str | None,
    output: str | None,
    engine: str,
    **question: Any,
) -> None:
    """Say what is decided about a flow at each hook and stage, by which rule, and why.

    \b
    labelgate explain -f policies/ --node edge1 --in eth0 --src 192.0.2.5 --dst 198.51.100.10 \\
        --protocol tcp --dport 22
    labelgate explain -f policies/ --node edge1 --packets questions.jsonl -o jsonl

    Exit code 1 if the flow is denied, 4 if table and reference disagree.
    """
    if packets is None and output == "jsonl":
        raise click.UsageError("-o jsonl needs --packets")
    if packets is not None and output == "text":
        raise click.UsageError("--packets answers in JSON lines: use -o jsonl")
    snapshot = load(*paths)
    judge = _judge(snapshot, node, host_file, config_file, engine)
    if packets is not None:
        sys.exit(_answer_lines(judge, packets))
    sys.exit(_explain_one(judge, question))


def _judge(
    snapshot: Snapshot, node: str | None, host_file: str | None, config_file: str | None, engine: str
) -> Judge:
    host, prefixes = HostFacts({}), None
    if host_file is not None:
        host_node, host, prefixes = read_host(host_file)
        node = node or host_node
    config = load_config(config_file, snapshot.felix_configurations, node, prefixes=prefixes)
    node, settings = config.node, config.settings
    reference = Reference(snapshot, node, host, settings)
    table = snapshot.compile(node=node, host=host, settings=settings)
    for warning in (*snapshot.warnings, *table.warnings):
        click.echo(f"warning: {warning}", err=True)
    if engine == "table":
        return table.answer
    if engine == "reference":
        return reference.answer

    def both(packet: Packet) -> Answer:
        fast, literal = table.answer(packet), reference.answer(packet)
        if fast != literal:
            raise Disagreement(fast, literal)
        return literal

    return both


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdin
        return
    try:
        with open(path, encoding="utf-8") as lines:
            yield lines
    except OSError as error:
        raise EnvironmentProblem(f"{path}: {error.strerror}") from None


def _answer_lines(judge: Judge, path: str) -> int:
    status = 0
    with _opened(path) as lines:
        for line in lines:
            if not line.strip():
                continue
            answer, disagrees = _answer_line(judge, line)
            click.echo(json.dumps(answer, separators=(",", ":")))
            status = DISAGREEMENT if disagrees else status
    return status


def _answer_line(judge: Judge, line: str) -> tuple[dict[str, Any], bool]:
    """The answer to one line; a line that cannot be read is answered with its error."""
    identity: Any = None
    try:
        question = json.loads(line)
        identity = question.get("id") if isinstance(question, dict) else None
        return {"id": identity, **answer_to_json(judge(packet_from_json(question)))}, False
    except json.JSONDecodeError as error:
        problem: dict[str, Any] = {"message": f"not JSON: {error.msg} at column {error.colno}", "field": None}
    except FieldError as error:
        problem = {"message": error.message, "field": error.field or None}
    except Disagreement as error:
        problem = {
            "message": str(error),
            "field": None,
            "table": answer_to_json(error.table),
            "reference": answer_to_json(error.reference),
        }
        return {"id": identity, "error": problem}, True
    return {"id": identity, "error": problem}, False


def _explain_one(judge: Judge, question: dict[str, Any]) -> int:
    fields = {name.rstrip("_"): value for name, value in question.items() if value not in (None, False)}
    hook = fields.setdefault("hook", HOOKS[0])
    try:
        packet = packet_from_json(fields)
    except FieldError as error:
        raise click.UsageError(f"--{error.field}: {error.message}") from None
    if question["hook"] is None and not packet.in_ and not packet.out:
        raise click.UsageError("say where the packet is seen: --in, --out, both, or --hook")
    try:
        visits = list(walk(judge, packet)) if question["hook"] is None else [Visit(packet, judge(packet))]
    except Disagreement as error:
        click.echo(f"table and reference disagree at {hook}, please report this:", err=True)
        click.echo(f"  table:     {json.dumps(answer_to_json(error.table))}", err=True)
        click.echo(f"  reference: {json.dumps(answer_to_json(error.reference))}", err=True)
        return DISAGREEMENT
    for visit in visits:
        _print_visit(visit)
    last = visits[-1]
    if last.answer.verdict == "deny":
        click.echo(f"denied at {last.packet.hook}: {_words(last.answer.trace[-1])}")
        return 1
    click.echo("not denied" if last.answer.verdict == "continue" else f"allowed at {last.packet.hook}")
    return 0


def _print_visit(visit: Visit) -> None:
    answer = visit.answer
    notes = [note for note, holds in (("failsafe", answer.failsafe), ("marked", answer.accepted)) if holds]
    suffix = f"  [{', '.join(notes)}]" if notes else ""
    click.echo(f"{visit.packet.hook:<19} {answer.verdict}{suffix}")
    for step in answer.trace:
        click.echo(f"    {step.stage:<16} {_words(step)}")


def _words(step: Step) -> str:
    where = [step.endpoint] if step.endpoint else []
    if step.tier:
        where.append(f"tier {step.tier}")
    if step.policy:
        where.append(step.policy + ("" if step.rule is None else f" rule {step.rule}"))
    verb = step.action or "no decision"
    return f"{verb}: {step.reason}" + (f" [{', '.join(where)}]" if where else "")
