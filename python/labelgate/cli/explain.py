"""`labelgate explain`: one flow for people, JSON lines for programs, each judged twice."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from labelgate.cli.doubts import LocalWorkloads, doubts
from labelgate.cli.host_facts import read_host
from labelgate.cli.lines import DISAGREEMENT, Disagreement, answer_lines
from labelgate.cli.options import config_option, host_option, node_option, policies, unknown_node
from labelgate.cli.progress import ProgressBar
from labelgate.config import load_config
from labelgate.flow import (
    HOOKS,
    NOWHERE,
    Answer,
    FieldError,
    Packet,
    Step,
    answer_to_json,
    missing_interfaces,
    packet_from_json,
)
from labelgate.path import Destination, Judge, Visit, path_to_json, read_destination, walk
from labelgate.reference import Reference
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot, load
from labelgate.table import DecisionTable


@click.command()
@policies()
@node_option
@host_option
@config_option
@click.option("--packets", metavar="FILE|-", help="JSON lines: one packet a line in, one answer a line out.")
@click.option("-o", "--output", type=click.Choice(["text", "jsonl"]), help="[default: jsonl with --packets]")
@click.option(
    "--engine", type=click.Choice(["table", "reference", "both"]), default="both", show_default=True
)
@click.option("--hook", type=click.Choice(HOOKS), help="Only this hook [default: all on the way].")
@click.option("--path", is_flag=True, help="The whole way, hook by hook; with --packets for every line.")
@click.option("--dnat", metavar="ADDR:PORT", help="Where DNAT sends the packet on its way.")
@click.option(
    "--out-before-dnat",
    metavar="NAME",
    help="Out-interface towards --dst, where DNAT changes it (--out is that behind DNAT) "
    "[default: --dst is an address of the node; of what the node sends, --out].",
)
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
@click.option("--staged", is_flag=True, help="Answer a second time as if every staged policy were in force.")
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
    out_before_dnat: str | None,
    staged: bool,
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
    way = _checked(packets, output, path, dnat, question), out_before_dnat
    # Lines may bring a `dnat` of their own.
    if out_before_dnat is not None and dnat is None and not (packets is not None and path):
        raise click.UsageError("--out-before-dnat needs --dnat: without it --out is the only one")
    with ProgressBar() as progress:
        snapshot = load(*paths, progress=progress)
    world = _world(snapshot, node, host_file, config_file)
    table = world.table()
    for warning in table.warnings:
        click.echo(f"warning: {warning}", err=True)
    judge = _judge(world, engine, table)
    second = _judge(world, engine, world.table(staged=True), staged=True) if staged else None
    if packets is None:
        sys.exit(_explain_one(table, judge, second, question, way))

    def answers(one: Judge) -> Callable[[Any], dict[str, Any]]:
        return _answer_path(one, LocalWorkloads(table), way) if path else _answer_hook(one)

    if second is None:
        sys.exit(answer_lines(packets, answers(judge)))
    first, as_staged = answers(judge), answers(second)
    sys.exit(answer_lines(packets, lambda line: {**first(line), "staged": as_staged(line)}))


def _checked(
    packets: str | None, output: str | None, path: bool, dnat: str | None, question: dict[str, Any]
) -> Destination | None:
    """Refuses options that do not go together; the destination that `--dnat` names."""
    given = [name.rstrip("_") for name, value in question.items() if value not in (None, False, "new")]
    if packets is None and output == "jsonl":
        raise click.UsageError("-o jsonl needs --packets")
    if packets is not None and output == "text":
        raise click.UsageError("--packets answers in JSON lines: use -o jsonl")
    if packets is not None and given:
        option = re.sub("([A-Z])", r"-\1", given[0]).lower()
        raise click.UsageError(
            f"--{option} is of one packet: with --packets each line has its own `{given[0]}`"
        )
    if question["hook"] is not None and (path or dnat is not None):
        raise click.UsageError("--path and --dnat pass all hooks: leave out --hook")
    if dnat is not None and packets is not None and not path:
        raise click.UsageError("--dnat needs --path: without it each line is judged at its own hook")
    try:
        return None if dnat is None else read_destination(dnat)
    except FieldError as error:
        raise click.UsageError(f"--dnat: {error.message}") from None


@dataclass(frozen=True)
class _World:
    """What packets are judged by."""

    snapshot: Snapshot
    node: str
    host: HostFacts
    settings: Settings

    def table(self, *, staged: bool = False) -> DecisionTable:
        return self.snapshot.compile(node=self.node, host=self.host, settings=self.settings, staged=staged)


def _world(snapshot: Snapshot, node: str | None, host_file: str | None, config_file: str | None) -> _World:
    host, prefixes = HostFacts({}), None
    if host_file is not None:
        host_node, host, prefixes = read_host(host_file)
        node = node or host_node
    config = load_config(config_file, snapshot.felix_configurations, node, prefixes=prefixes)
    if unknown := unknown_node(snapshot, config.node):
        click.echo(f"warning: {unknown}", err=True)
    for warning in snapshot.warnings:
        click.echo(f"warning: {warning}", err=True)
    return _World(snapshot, config.node, host, config.settings)


def _judge(world: _World, engine: str, table: DecisionTable, *, staged: bool = False) -> Judge:
    reference = Reference(world.snapshot, world.node, world.host, world.settings, staged=staged)
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


_Dnat = tuple[Destination | None, str | None]
"""Where DNAT sends packets, and the out-interface ahead of it, as far as they are given."""
_OUT_BEFORE = "outBeforeDnat"
_NOWHERE = NOWHERE.format("in", "out")


def _answer_hook(judge: Judge) -> Callable[[Any], dict[str, Any]]:
    def answer(line: Any) -> dict[str, Any]:
        packet = packet_from_json(line)
        match _missing_interface(packet):
            case (field,):
                raise FieldError(field, f"missing: a packet at {packet.hook} has one")
            case (_, _):
                raise FieldError("in", _NOWHERE)
        return answer_to_json(judge(packet))

    return answer


def _answer_path(judge: Judge, local: LocalWorkloads, dnat: _Dnat) -> Callable[[Any], dict[str, Any]]:
    """Answers with every hook on the way; a line may bring its own `dnat` and `outBeforeDnat`."""

    def answer(line: Any) -> dict[str, Any]:
        destination, before = dnat
        if isinstance(line, dict):
            if line.get("hook") is not None:
                raise FieldError("hook", f"found `{line['hook']}`, expected none: --path passes all hooks")
            if line.get("dnat") is not None:
                destination = read_destination(line["dnat"])
            before = _out_before(line, destination, before)
            line = {name: value for name, value in line.items() if name not in ("dnat", _OUT_BEFORE)}
            line["hook"] = HOOKS[0]
        packet = packet_from_json(line)
        if not packet.in_ and not packet.out:
            raise FieldError("in", _NOWHERE)
        local.check(packet, destination)
        return path_to_json(list(walk(judge, packet, destination, before)))

    return answer


def _out_before(line: dict[str, Any], dnat: Destination | None, default: str | None) -> str | None:
    found = line.get(_OUT_BEFORE)
    if found is None:
        return default
    if not isinstance(found, str) or not found:
        raise FieldError(_OUT_BEFORE, f"found `{found}`, expected an interface's name")
    if dnat is None:
        raise FieldError(_OUT_BEFORE, f"found `{found}`, expected none: without `dnat` only `out` counts")
    return found


def _explain_one(
    table: DecisionTable,
    judge: Judge,
    second: Judge | None,
    question: dict[str, Any],
    dnat: _Dnat,
) -> int:
    fields = {name.rstrip("_"): value for name, value in question.items() if value not in (None, False)}
    fields.setdefault("hook", HOOKS[0])
    is_path = question["hook"] is None
    try:
        packet = packet_from_json(fields)
        if is_path and not packet.in_ and not packet.out:
            raise click.UsageError("say where the packet is seen: --in, --out or both")
        if is_path:
            LocalWorkloads(table).check(packet, dnat[0])
        if not is_path and (missing := _missing_interface(packet)):
            needed = "--in, --out or both" if len(missing) > 1 else f"--{missing[0]}"
            raise click.UsageError(f"--hook {packet.hook} needs {needed}: policy is that of an interface")
        ways = [
            list(walk(one, packet, *dnat)) if is_path else [Visit(packet, one(packet))]
            for one in (judge, second)
            if one is not None
        ]
    except FieldError as error:
        raise click.UsageError(f"--{error.field}: {error.message}") from None
    except Disagreement as error:
        click.echo("table and reference disagree, please report this:", err=True)
        for name, answer in error.answers.items():
            click.echo(f"  {name + ':':<10} {json.dumps(answer)}", err=True)
        return DISAGREEMENT
    for doubt in doubts(table, packet, dnat[1]):
        click.echo(f"warning: {doubt}", err=True)
    visits = ways[0]
    before = packet.dst, packet.dport
    for visit in visits:
        if before != (visit.packet.dst, visit.packet.dport):
            before = visit.packet.dst, visit.packet.dport
            click.echo(f"{'DNAT':<19} to {before[0]}" + ("" if before[1] is None else f" port {before[1]}"))
        _print_visit(visit)
    click.echo(_end(visits[-1], is_path))
    if second is not None:
        click.echo(f"if every staged policy were in force: {_end(ways[1][-1], is_path)}")
    return 1 if visits[-1].answer.verdict == "deny" else 0


def _missing_interface(packet: Packet) -> tuple[str, ...]:
    """As options and lines call them."""
    return tuple(field.rstrip("_") for field in missing_interfaces(packet))


def _end(last: Visit[Answer], is_path: bool) -> str:
    """How it ends."""
    if last.answer.verdict == "deny":
        return f"denied at {last.packet.hook}: {_words(last.answer.trace[-1])}"
    allowed = f"allowed at {last.packet.hook}" if last.answer.verdict != "continue" else None
    if not is_path:
        return allowed or "not denied"
    return f"delivered: {allowed or 'nothing denies it, the rules of others may'}"


def _print_visit(visit: Visit[Answer]) -> None:
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
