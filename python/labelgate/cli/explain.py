"""`labelgate explain`: one flow for people, JSON lines for programs, each judged twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from labelgate.cli.lines import DISAGREEMENT, Disagreement, answer_lines
from labelgate.cli.options import config_option, node_option, policies, read_host
from labelgate.config import load_config
from labelgate.flow import HOOKS, Answer, FieldError, Packet, Step, answer_to_json, packet_from_json
from labelgate.path import Destination, Judge, Visit, path_to_json, read_destination, walk
from labelgate.reference import Reference
from labelgate.settings import HostFacts
from labelgate.snapshot import Snapshot, load


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
@click.option("--path", is_flag=True, help="The whole way, hook by hook; with --packets for every line.")
@click.option("--dnat", metavar="ADDR:PORT", help="Where DNAT sends the packet on its way.")
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
    path: bool,
    dnat: str | None,
    **question: Any,
) -> None:
    """Say what is decided about a flow at each hook and stage, by which rule, and why.

    \b
    labelgate explain -f policies/ --node edge1 --in eth0 --src 192.0.2.5 --dst 198.51.100.10 \\
        --protocol tcp --dport 22
    labelgate explain -f policies/ --node edge1 --path --in eth0 --out cali1 --src 192.0.2.5 \\
        --dst 198.51.100.10 --protocol tcp --dport 30080 --dnat 10.65.0.2:8080
    labelgate explain -f policies/ --node edge1 --packets questions.jsonl -o jsonl

    Exit code 1 if the flow is denied, 4 if table and reference disagree.
    """
    destination = _checked(packets, output, path, dnat, question["hook"])
    snapshot = load(*paths)
    judge = _judge(snapshot, node, host_file, config_file, engine)
    if packets is None:
        sys.exit(_explain_one(judge, question, destination))
    sys.exit(answer_lines(packets, _answer_path(judge, destination) if path else _answer_hook(judge)))


def _checked(
    packets: str | None, output: str | None, path: bool, dnat: str | None, hook: str | None
) -> Destination | None:
    """Refuses options that do not go together; the destination that `--dnat` names."""
    if packets is None and output == "jsonl":
        raise click.UsageError("-o jsonl needs --packets")
    if packets is not None and output == "text":
        raise click.UsageError("--packets answers in JSON lines: use -o jsonl")
    if hook is not None and (path or dnat is not None):
        raise click.UsageError("--path and --dnat pass all hooks: leave out --hook")
    if dnat is not None and packets is not None and not path:
        raise click.UsageError("--dnat needs --path: without it each line is judged at its own hook")
    try:
        return None if dnat is None else read_destination(dnat)
    except FieldError as error:
        raise click.UsageError(f"--dnat: {error.message}") from None


def _judge(
    snapshot: Snapshot, node: str | None, host_file: str | None, config_file: str | None, engine: str
) -> Judge:
    host, prefixes = HostFacts({}), None
    if host_file is not None:
        host_node, host, prefixes = read_host(host_file)
        node = node or host_node
    config = load_config(config_file, snapshot.felix_configurations, node, prefixes=prefixes)
    node, settings = config.node, config.settings
    if node not in (nodes := snapshot.nodes()):
        found = ", ".join(nodes) or "none"
        click.echo(f"warning: no endpoint names node `{node}` (nodes found: {found})", err=True)
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
            raise Disagreement(answer_to_json(fast), answer_to_json(literal))
        return literal

    return both


def _answer_hook(judge: Judge) -> Callable[[Any], dict[str, Any]]:
    return lambda line: answer_to_json(judge(packet_from_json(line)))


def _answer_path(judge: Judge, dnat: Destination | None) -> Callable[[Any], dict[str, Any]]:
    """Answers with every hook on the way; a line may bring its own `dnat`."""

    def answer(line: Any) -> dict[str, Any]:
        destination = dnat
        if isinstance(line, dict):
            if line.get("hook") is not None:
                raise FieldError("hook", f"found `{line['hook']}`, expected none: --path passes all hooks")
            if line.get("dnat") is not None:
                destination = read_destination(line["dnat"])
            line = {**{name: value for name, value in line.items() if name != "dnat"}, "hook": HOOKS[0]}
        packet = packet_from_json(line)
        if not packet.in_ and not packet.out:
            raise FieldError("in", "missing: say where the packet is seen by `in`, `out` or both")
        return path_to_json(list(walk(judge, packet, destination)))

    return answer


def _explain_one(judge: Judge, question: dict[str, Any], dnat: Destination | None) -> int:
    fields = {name.rstrip("_"): value for name, value in question.items() if value not in (None, False)}
    fields.setdefault("hook", HOOKS[0])
    is_path = question["hook"] is None
    try:
        packet = packet_from_json(fields)
        if is_path and not packet.in_ and not packet.out:
            raise click.UsageError("say where the packet is seen: --in, --out, both, or --hook")
        visits = list(walk(judge, packet, dnat)) if is_path else [Visit(packet, judge(packet))]
    except FieldError as error:
        raise click.UsageError(f"--{error.field}: {error.message}") from None
    except Disagreement as error:
        click.echo("table and reference disagree, please report this:", err=True)
        for name, answer in error.answers.items():
            click.echo(f"  {name + ':':<10} {json.dumps(answer)}", err=True)
        return DISAGREEMENT
    before = packet.dst, packet.dport
    for visit in visits:
        if before != (visit.packet.dst, visit.packet.dport):
            before = visit.packet.dst, visit.packet.dport
            click.echo(f"{'DNAT':<19} to {before[0]}" + ("" if before[1] is None else f" port {before[1]}"))
        _print_visit(visit)
    last = visits[-1]
    denied = last.answer.verdict == "deny"
    click.echo(
        f"denied at {last.packet.hook}: {_words(last.answer.trace[-1])}" if denied else _end(last, is_path)
    )
    return 1 if denied else 0


def _end(last: Visit, is_path: bool) -> str:
    """How it ends where nothing denies."""
    allowed = f"allowed at {last.packet.hook}" if last.answer.verdict != "continue" else None
    if not is_path:
        return allowed or "not denied"
    return f"delivered: {allowed or 'nothing denies it, the rules of others may'}"


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
