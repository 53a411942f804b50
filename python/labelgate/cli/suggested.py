"""What `labelgate suggest` does: read, observe, and write policies with what each rule is there for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click
import yaml

from labelgate.analysis.recorded import BrokenRecording
from labelgate.analysis.suggest import (
    MOST_CHARACTERS,
    Direction,
    Observed,
    Peers,
    Rule,
    Suggestion,
    suggest,
    unselectable,
)
from labelgate.cli.options import EnvironmentProblem
from labelgate.cli.progress import ProgressBar
from labelgate.cli.replayed import Recording, reading
from labelgate.config import load_config
from labelgate.snapshot import load

_WIDTH = 10_000
"""A selector is one line, however long."""


def run(
    paths: tuple[str, ...],
    captures: tuple[str, ...],
    *,
    peers: Peers,
    net4: int,
    net6: int,
    unanswered: bool,
    workload_prefix: str,
    **options: Any,
) -> int:
    """Prints the policies; the exit code."""
    with ProgressBar() as progress:
        snapshot = load(*paths, progress=progress)
    settings = load_config(None, snapshot.felix_configurations).settings
    observed = Observed(snapshot, workload_prefix, settings)
    broken: list[str] = []
    for capture in captures:
        recording = Recording.of(capture, **options).with_files()
        with ProgressBar(what="reading flows") as progress, reading(capture):
            source = recording.open(progress)
            try:
                for block in recording.blocks(source):
                    observed.add(block, unanswered=unanswered)
            except BrokenRecording as error:
                broken.append(f"{capture}: {error}; what was read before counts")
        for problem in source.problems:
            click.echo(f"warning: {capture}: {problem}", err=True)
        observed.counters.update(
            {words: count for words, count in source.counters.items() if words != "packets"}
        )
    found = suggest(observed, peers=peers, prefix={4: net4, 6: net6})
    click.echo(text(observed, found, broken), nl=False)
    if observed.unnamed:
        click.echo(f"warning: {_unnamed(sorted(observed.unnamed))}", err=True)
    if broken:
        raise EnvironmentProblem("\n".join(broken))
    return 0 if found else 1


def text(observed: Observed, found: list[Suggestion], broken: Sequence[str] = ()) -> str:
    """The policies as YAML, with comments."""
    seen = {name for one in found for name in one.endpoints}
    refused = unselectable(observed)
    unnamed = sorted(observed.unnamed)
    silent = len(observed.endpoints) - len({*seen, *refused, *unnamed})
    lines = [
        "# Suggested from recorded flows: what was seen is allowed, all else would be denied. The policies",
        "# are staged: they decide nothing until their kind is NetworkPolicy or GlobalNetworkPolicy.",
        *(f"# {problem}" for problem in broken),
        *(f"# flows: {count} {words}" for words, count in sorted(observed.counters.items()) if count),
        *(
            ["# there is no endpoint in the files of -f, so nobody to suggest policy for"]
            * (not observed.endpoints)
        ),
    ]
    if silent:
        were, them = ("endpoint was", "it") if silent == 1 else ("endpoints were", "them")
        lines.append(f"# {silent} {were} in no flow: nothing is suggested for {them}")
    if refused:
        one, several = ("host endpoint was", "its", "it"), ("host endpoints were", "their", "them")
        were, their, them = one if len(refused) == 1 else several
        lines += [
            f"# {len(refused)} {were} seen, but no label of {their} own finds {them} alone: "
            f"nothing is suggested for {_listed(refused)}",
            "# Policy finds host endpoints by labels only: give each one (host: NAME) and suggest again.",
        ]
    if unnamed:
        lines += [
            f"# {_unnamed(unnamed)}",
            "# Give each one a short label that nobody else has (app: NAME) and suggest again.",
        ]
    return "\n".join([*lines, *(line for one in found for line in _policy(one))]) + "\n"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _unnamed(names: Sequence[str]) -> str:
    return (
        f"no selector of {MOST_CHARACTERS} characters or less finds {_listed(names)} and nobody else: "
        "policies and rules that need one are left out"
    )


def _policy(policy: Suggestion) -> Iterator[str]:
    namespace = {} if policy.namespace is None else {"namespace": policy.namespace}
    yield "---"
    yield f"# for {', '.join(policy.endpoints[:5])}" + (
        f" and {len(policy.endpoints) - 5} more" if len(policy.endpoints) > 5 else ""
    )
    if policy.beside:
        yield f"# {policy.beside} is among what was loaded: in force together, both allow"
    head = {
        "apiVersion": "projectcalico.org/v3",
        "kind": policy.kind,
        "metadata": {"name": policy.name, **namespace},
    }
    yield _yaml(head)
    yield "spec:"
    yield f"  {_yaml({'selector': policy.selector})}"
    yield "  types: [Ingress, Egress]"
    for direction in ("ingress", "egress"):
        yield from _rules(direction, policy)


def _rules(direction: Direction, policy: Suggestion) -> Iterator[str]:
    rules = policy.rules[direction]
    if not rules:
        yield f"  {direction}: []"
        return
    yield f"  {direction}:"
    for rule in rules:
        yield f"  # {_because(rule)}"
        first, *others = _yaml(rule.fields).splitlines()
        yield f"  - {first}"
        yield from (f"    {line}" for line in others)


def _because(rule: Rule) -> str:
    evidence = rule.evidence
    counts = (evidence.flows, "flow"), (evidence.packets, "packet")
    seen = ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts)
    return rule.note or f"{seen}, e.g. {evidence.example}"


def _yaml(fields: dict[str, Any]) -> str:
    return yaml.safe_dump(fields, sort_keys=False, width=_WIDTH, default_flow_style=False).rstrip()
