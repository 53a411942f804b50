"""`labelgate check`: are these policies valid, and what do they refer to that is not there?"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from labelgate.cli.options import policies
from labelgate.cli.progress import ProgressBar
from labelgate.resources import Loading, Problem, Summary
from labelgate.snapshot import Snapshot
from labelgate.sources.files import read_documents


@click.command()
@policies()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(paths: tuple[str, ...], output: str) -> None:
    """Validate policies: every error with its place, what was found, what was expected and a hint.

    Exit code 1 if any document is invalid.
    """
    with ProgressBar() as progress:
        loading = read_documents(paths, progress)
    if output == "json":
        click.echo(json.dumps(_report(loading), indent=2))
    else:
        _print(loading)
    sys.exit(1 if loading.problems else 0)


def _print(loading: Loading) -> None:
    problems = sorted(loading.problems, key=_place)
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        click.echo(f"{len(problems)} errors in {len(loading.documents)} documents", err=True)
        return
    for warning in Snapshot.of(loading.resources).warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{len(loading.documents)} documents are valid")


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.file, problem.line, problem.column


def _report(loading: Loading) -> dict[str, Any]:
    """The JSON of the interface: every document with its errors, and errors that belong to no document."""
    by_document: dict[int, list[Problem]] = {}
    for problem in sorted(loading.problems, key=_place):
        by_document.setdefault(problem.index, []).append(problem)
    return {
        "documents": [_document(item, by_document.get(item.index, [])) for item in loading.documents],
        "errors": [{"file": problem.file, **_error(problem)} for problem in by_document.get(-1, [])],
    }


def _document(item: Summary, problems: list[Problem]) -> dict[str, Any]:
    return {
        "index": item.index,
        "file": item.file,
        "line": item.line,
        "kind": item.kind,
        "namespace": item.namespace,
        "name": item.name,
        "valid": not problems,
        "errors": [_error(problem) for problem in problems],
    }


def _error(problem: Problem) -> dict[str, Any]:
    details = (("found", problem.found), ("expected", problem.expected), ("hint", problem.hint))
    message = "; ".join([problem.message, *(f"{label} {text}" for label, text in details if text)])
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "message": message,
        "rule": problem.rule,
    }
