"""What `labelgate replay` does: read, judge, count, and say it in words."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Self

import click

from labelgate.analysis.dnat import DnatRule, marked, read_dnat_rule, translated, unknown
from labelgate.analysis.flow_logs import from_lines
from labelgate.analysis.node import NodeJudge
from labelgate.analysis.recorded import BrokenRecording, Recorded, Source, from_capture, from_conntrack
from labelgate.analysis.replay import (
    ALLOWED,
    DROPPED,
    STATES,
    ClusterJudge,
    Differences,
    Judge,
    Judged,
    Reasons,
    Tally,
    flow_to_json,
)
from labelgate.analysis.saved_dnat import SavedDnat, read_saved
from labelgate.analysis.suggest import spoken
from labelgate.analysis.whereabouts import Whereabouts, is_of_any_interface, whereabouts
from labelgate.cli.host_facts import read_host
from labelgate.cli.options import EnvironmentProblem, refuse_other_nodes
from labelgate.cli.progress import ProgressBar
from labelgate.config import load_config
from labelgate.flow import FieldError, Hook, IPAddress
from labelgate.links import read_links
from labelgate.lockout import Host
from labelgate.model import core_model
from labelgate.settings import HostFacts
from labelgate.snapshot import Snapshot, load

Route = tuple[IPv4Network | IPv6Network, str]


def _nets(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise click.UsageError(f"--dnated: {error}, expected a net, for example 10.96.0.0/12") from None


def _dnat_rule(text: str) -> DnatRule:
    try:
        return read_dnat_rule(text)
    except FieldError as error:
        raise click.UsageError(f"--dnat: {error.message}; or a file of iptables-save") from None


def _saved(path: str, local: Iterable[IPAddress]) -> SavedDnat:
    """The rules of a file; what is not read of it is told of."""
    try:
        found = read_saved(Path(path).read_text(encoding="utf-8"), local)
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"--dnat {path}: {error}") from None
    for unread in found.unread[:_SHOWN]:
        click.echo(f"warning: --dnat {path}: {unread}", err=True)
    if (more := len(found.unread) - _SHOWN) > 0:
        click.echo(f"warning: --dnat {path}: and {more} lines more", err=True)
    return found


_SHOWN = 10
"""Lines of a file that are told of."""


@dataclass(frozen=True)
class Recording:
    """What was recorded, and how it is to be read."""

    path: str
    form: str
    """As the option says it."""
    most_flows: int
    is_complete: bool
    dnat: tuple[DnatRule, ...] = ()
    unknown: tuple[DnatRule, ...] = ()
    """Destinations of which it is not known where they are sent."""
    dnated: tuple[IPv4Network | IPv6Network, ...] = ()
    """Nets of destinations that are none."""
    captured_on: str | None = None
    """The interface, where the capture does not name it."""
    dnat_files: tuple[str, ...] = ()
    """Of iptables-save; see `with_files`."""

    @classmethod
    def of(
        cls,
        path: str,
        *,
        form: str,
        max_flows: int,
        from_start: bool,
        dnat: tuple[str, ...],
        dnated: tuple[str, ...],
        captured_on: str | None = None,
    ) -> Self:
        """As the options of the command line say it."""
        files = tuple(text for text in dnat if "=" not in text and os.path.exists(text))
        rules = tuple(_dnat_rule(text) for text in dnat if text not in files)
        return cls(path, form, max_flows, from_start, rules, (), _nets(dnated), captured_on, files)

    def with_files(self, local: Iterable[IPAddress] = ()) -> Self:
        """With the rules of its files behind those of the command line; `local` are addresses of the node."""
        found = [_saved(path, local) for path in self.dnat_files]
        rules = (*self.dnat, *(rule for one in found for rule in one.rules))
        return replace(self, dnat=rules, unknown=tuple(rule for one in found for rule in one.unknown))

    def blocks(self, source: Source) -> Iterator[Recorded]:
        """The flows of a source, with the destinations that they have behind DNAT."""
        for block in source.blocks:
            if self.dnat:
                block = translated(block, self.dnat)
            block = unknown(block, self.unknown) if self.unknown else block
            yield marked(block, self.dnated) if self.dnated else block

    def open(self, progress: ProgressBar) -> Source:
        """Its flows."""
        try:
            return self._source(progress)
        except OSError as error:
            raise EnvironmentProblem(f"{self.path}: {error}") from None
        except ValueError as error:
            hint = "; `--format jsonl` or `csv` reads flow logs" if self._is_guessed else ""
            raise EnvironmentProblem(f"{self.path}: {error}{hint}") from None

    @property
    def _is_guessed(self) -> bool:
        """Nobody said that it is a capture, and its name does not tell what it is."""
        return self.form == "auto" and self.kind == "capture" and ".pcap" not in self.path

    @property
    def kind(self) -> str:
        """What the option says, or the name does."""
        if self.form != "auto":
            return self.form
        if self.path == "conntrack":
            return "conntrack"
        name = self.path.removesuffix(".gz")
        return next((form for end, form in _FORMS.items() if name.endswith(end)), "capture")

    def _source(self, progress: ProgressBar) -> Source:
        if self.kind == "conntrack":
            return from_conntrack()
        if self.kind == "capture":
            path = "/dev/stdin" if self.path == "-" else self.path
            return from_capture(
                path, flows=self.most_flows, complete=self.is_complete, captured_on=self.captured_on,
                dnat=[rule.for_captures for rule in self.dnat], progress=progress,
            )  # fmt: skip
        return from_lines(sys.stdin.buffer if self.path == "-" else open(self.path, "rb"), self.kind)


_FORMS = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


@contextmanager
def reading(capture: str) -> Iterator[None]:
    """What goes wrong while blocks are taken, in the words of the command line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{capture}: {error}") from None


def read_routes(texts: tuple[str, ...]) -> tuple[Route, ...]:
    """`NET=INTERFACE`."""
    routes = []
    for text in texts:
        net, equals, name = text.rpartition("=")
        try:
            routes.append((ip_network(net), name))
        except ValueError:
            equals = ""
        if not equals or not name:
            raise click.UsageError(
                f"--route: found `{text}`, expected NET=INTERFACE, for example 0.0.0.0/0=eth0"
            )
    return tuple(routes)


@dataclass(frozen=True)
class Place:
    """Where packets are judged."""

    node: str | None
    host_file: str | None
    config_file: str | None
    routes: tuple[str, ...]
    hook: Hook | None
    in_: str | None
    out: str | None
    staged: bool


def make_judges(
    policies: list[tuple[str, ...]], place: Place, captured_on: str | None, progress: ProgressBar
) -> list[Judge]:
    """One of each set of policies, of a node that an endpoint of any of them is on."""
    snapshots = [load(*paths, progress=progress) for paths in policies]
    host, prefixes, node = HostFacts({}), None, place.node
    if place.host_file is not None:
        host_node, host, prefixes = read_host(place.host_file)
        node = node or host_node
    if node is not None:
        refuse_other_nodes(node, *snapshots)
    found = [_judge(snapshot, place, node, host, prefixes) for snapshot in snapshots]
    interfaces = {name for _, named in found for name in named}
    if captured_on is not None and captured_on not in interfaces:
        # It would count as an interface without workloads, and change nothing.
        raise click.UsageError(
            f"--captured-on: found `{captured_on}`, expected an interface that endpoints of the node, "
            f"--host, --route, --in or --out name: {', '.join(sorted(interfaces)) or 'none'}"
        )
    return [judge for judge, _ in found]


def _judge(
    snapshot: Snapshot,
    place: Place,
    node: str | None,
    host: HostFacts,
    prefixes: tuple[str, ...] | None,
) -> tuple[Judge, set[str]]:
    """The judge of one set of policies, and the interfaces that are known by name."""
    settings = load_config(place.config_file, snapshot.felix_configurations, node, prefixes=prefixes).settings
    for warning in snapshot.warnings:
        click.echo(f"warning: {warning}", err=True)
    table = snapshot.compile(node=node, host=host, settings=settings, staged=place.staged)
    if node is None:
        return ClusterJudge(table), set()
    model, routes = json.loads(core_model(snapshot, settings)), read_routes(place.routes)
    where = _whereabouts(model, node, host, routes)
    workloads = frozenset(where.workloads.values())
    judge = NodeJudge(table, where, in_=place.in_, out=place.out, hook=place.hook, workloads=workloads)
    named = {one["interface"] for one in model["hosts"] if one["node"] == node} - {"", "*"}
    named |= {*workloads, *host.interfaces, *(name for _, name in routes), place.in_, place.out} - {None}
    return judge, named


def _whereabouts(model: dict[str, Any], node: str, host: HostFacts, routes: tuple[Route, ...]) -> Whereabouts:
    """With no route given all that is elsewhere is behind the one interface that is known, if it is one."""
    hosts = [one for one in model["hosts"] if one["node"] == node]
    workloads = [
        (one["interface"], [net.partition("/")[0] for net in one["networks"]])
        for one in model["workloads"]
        if one["node"] == node and one["interface"]
    ]
    if not routes:
        named = {one["interface"] for one in hosts if one["interface"] not in ("", "*")}
        outer = (named | set(host.interfaces)) - {"lo"} - {name for name, _ in workloads}
        if len(outer) == 1:
            name = next(iter(outer))
            routes = ((ip_network("0.0.0.0/0"), name), (ip_network("::/0"), name))
    return whereabouts(
        host.interfaces, workloads, [text for one in hosts for text in one["addresses"]], routes
    )


def run(
    policies: list[tuple[str, ...]], place: Place, recording: Recording, *, each: bool, output: str
) -> int:
    """Reads, judges and prints; the exit code."""
    with ProgressBar() as progress:
        judges = make_judges(policies, place, recording.captured_on, progress)
        local = {address for judge in judges if isinstance(judge, NodeJudge) for address in judge.local}
        recording = recording.with_files(local)
    with ProgressBar(what="reading flows") as progress, reading(recording.path):
        if recording.kind == "conntrack" and place.host_file is None and not place.routes:
            judges = _on_this_host(judges)
        source = recording.open(progress)
        tallies, differences, broken = _run(
            recording.blocks(source), judges, _flow_line(judges) if each else None
        )
    report = _report(source, judges, tallies, differences) | ({"broken": str(broken)} if broken else {})
    click.echo(json.dumps(report) if output == "json" else _text(report))
    if broken is not None:
        raise EnvironmentProblem(f"{recording.path}: {broken}; what was read before is counted above")
    if not any(tally.states[[ALLOWED, *DROPPED], 0].any() for tally in tallies):
        raise EnvironmentProblem(
            _nothing_judged(recording.path, report, is_cluster=isinstance(judges[0], ClusterJudge))
        )
    return int(bool(differences.groups if len(judges) == 2 else tallies[0].states[DROPPED, 0].any()))


def _nothing_judged(capture: str, report: dict[str, Any], *, is_cluster: bool) -> str:
    """Why neither 0 nor 1 would be an answer."""
    fates = [f"{counts['flows']} {fate}" for fate, counts in report["fates"].items() if counts["flows"]]
    unread = report["read"].get("lines: cannot be read", 0)
    fates += [f"{unread} lines that cannot be read"] if unread else []
    return (
        f"{capture}: no flow was judged: found {', '.join(fates) or 'no flow'}; "
        "expected a flow that begins in it and has an endpoint of these policies"
        + ("; host endpoints have a say with --node only" if is_cluster else "")
    )


class _ThisHost:
    """Where addresses are by the routes of this host as they are now."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def of(self, address: IPAddress) -> tuple[bool, str | None]:
        """As `Whereabouts.of`."""
        if self._host.is_local(address):
            return True, "lo"
        out = None if is_of_any_interface(address) else self._host.interface(address)
        return address.is_multicast, out


def _on_this_host(judges: list[Judge]) -> list[Judge]:
    """With the addresses and routes that this host has now."""
    links = read_links()
    here = _ThisHost(Host(links))
    return [
        judge.on_host(links.host_facts, here) if isinstance(judge, NodeJudge) else judge for judge in judges
    ]


def _run(
    blocks: Iterator[Recorded], judges: list[Judge], each: Callable[[Recorded, list[Judged]], None] | None
) -> tuple[list[Tally], Differences, BrokenRecording | None]:
    """Counts of what can be read, and what ended it too early."""
    tallies, differences = [Tally() for _ in judges], Differences()
    try:
        for block in blocks:
            judged = [judge.judge(block) for judge in judges]
            for tally, one in zip(tallies, judged, strict=True):
                tally.add(block, one)
            if len(judged) == 2:
                differences.add(block, judged[0], judged[1])
            if each is not None:
                each(block, judged)
    except BrokenRecording as broken:
        return tallies, differences, broken
    return tallies, differences, None


def _flow_line(judges: list[Judge]) -> Callable[[Recorded, list[Judged]], None]:
    def show(block: Recorded, judged: list[Judged]) -> None:
        for row in range(len(block)):
            line = flow_to_json(block, row)
            fates = [_fate(judge.reasons, one, row) for judge, one in zip(judges, judged, strict=True)]
            line |= fates[0] | ({"against": fates[1]} if len(fates) > 1 else {})
            click.echo(json.dumps(line))

    return show


def _fate(reasons: Reasons, judged: Judged, row: int) -> dict[str, Any]:
    number = int(judged.decider[row])
    return {"fate": STATES[judged.state[row]], "by": None if number < 0 else reasons.all[number]._asdict()}


def _report(
    source: Source, judges: list[Judge], tallies: list[Tally], differences: Differences
) -> dict[str, Any]:
    """The whole result, in the form of `-o json`."""

    def side(judge: Judge, tally: Tally) -> dict[str, Any]:
        states = zip(STATES, tally.states, strict=True)
        rules = sorted(tally.rules.items(), key=lambda item: -int(item[1][0]))
        return {
            "fates": {state: _counts(counts) for state, counts in states},
            "rules": [{**judge.reasons.all[number]._asdict(), **_counts(counts)} for number, counts in rules],
        }

    sides = [side(judge, tally) for judge, tally in zip(judges, tallies, strict=True)]
    report: dict[str, Any] = {"read": dict(source.counters), "problems": source.problems, **sides[0]}
    if len(sides) == 2:
        report["against"] = sides[1]
        report["differences"] = [
            {
                "before": _side(judges[0].reasons, key[0], key[1]),
                "after": _side(judges[1].reasons, key[2], key[3]),
                **_counts(counts),
                "examples": examples,
            }
            for key, (counts, examples) in sorted(
                differences.groups.items(), key=lambda item: -int(item[1][0][0])
            )
        ]
    return report


def _side(reasons: Reasons, state: int, number: int) -> dict[str, Any]:
    return {"fate": STATES[state], "by": None if number < 0 else reasons.all[number]._asdict()}


def _counts(counts: Any) -> dict[str, int]:
    return dict(zip(("flows", "packets", "bytes"), map(int, counts), strict=True))


def _text(report: dict[str, Any]) -> str:
    lines = [*_fates(report, "")]
    if "against" in report:
        lines += ["", *_fates(report["against"], "against: "), "", *_different(report["differences"])]
    lines += ["read:"] * bool(report["read"])
    lines += [f"{count:>12}  {words}" for words, count in report["read"].items()]
    return "\n".join([*lines, *(f"warning: {problem}" for problem in report["problems"])])


def _fates(side: dict[str, Any], prefix: str) -> Iterator[str]:
    yield f"{prefix}{'flows':>12}  {'packets':>12}"
    for state, counts in side["fates"].items():
        if counts["flows"]:
            yield f"{counts['flows']:>12}  {counts['packets']:>12}  {state}"
    yield "by rule:"
    for row in side["rules"]:
        if row["tier"] or row["verdict"] != "continue":
            yield f"{row['flows']:>12}  {row['packets']:>12}  {_why(row)}"


def _why(row: dict[str, Any]) -> str:
    where = [f"tier {row['tier']}"] if row["tier"] else []
    if row["policy"]:
        where.append(row["policy"] + ("" if row["rule"] is None else f" rule {row['rule']}"))
    return f"{row['verdict']} at {row['place']}: {row['reason']}" + (
        f" [{', '.join(where)}]" if where else ""
    )


def _different(groups: list[dict[str, Any]]) -> Iterator[str]:
    if not groups:
        yield "no flow has another verdict"
    else:
        yield f"{sum(group['flows'] for group in groups)} flows have another verdict:"
    for group in groups:
        fates = " -> ".join(group[name]["fate"] for name in ("before", "after"))
        yield f"{group['flows']:>12}  {group['packets']:>12}  {fates}"
        for name in ("before", "after"):
            by = group[name]["by"]
            yield f"    {name:<7} {_why(by) if by else group[name]['fate']}"
        for flow in group["examples"]:
            number = flow["dport"] if "dport" in flow else flow["icmpType"] << 8 | flow["icmpCode"]
            to = f" (DNAT to {flow['dnat']})" if "dnat" in flow else ""
            yield f"    e.g.    {flow['src']} > {flow['dst']} {spoken((flow['protocol'], number))}{to}"
