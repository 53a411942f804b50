"""`labelgate check`: are these policies valid, and what do they refer to that is not there?"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from labelgate.agent.asked import read_session
from labelgate.cli.apply import finding_text, read_texts, ssh_session
from labelgate.cli.options import (
    EnvironmentProblem,
    Refused,
    config_option,
    node_option,
    policies,
    socket_option,
    unknown_node,
    warn_of_elsewhere,
)
from labelgate.cli.progress import ProgressBar
from labelgate.config import load_config
from labelgate.control import ControlError, NoDaemon, ask
from labelgate.links import read_links
from labelgate.lockout import Host, findings, open_sessions, read_connections
from labelgate.printable import printable
from labelgate.resources import Loading, Problem, Summary
from labelgate.snapshot import Snapshot
from labelgate.sources.files import STDIN, all_files, misnamed, read_documents


@click.command()
@policies()
@click.option("--live", is_flag=True, help="Also: what works on this host now and would be denied?")
@node_option
@config_option
@socket_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(
    paths: tuple[str, ...],
    live: bool,
    node: str | None,
    config_file: str | None,
    socket: str | None,
    output: str,
) -> None:
    """Validate policies: every error with its place, what was found, what was expected and a hint.

    With --live, sessions that are alive (that of who asks first), failsafe ports, DNS, DHCP and IPv6
    neighbour discovery are judged, too: against what the running daemon enforces, if there is one. Nothing
    is changed.

    Exit code 1 if any document is invalid, or anything would be denied; 3 if --live cannot be told: no daemon
    runs, and no endpoint names this node.
    """
    with ProgressBar() as progress:
        loading = read_documents(paths, progress)
    for warning in misnamed(paths):
        click.echo(f"warning: {warning}", err=True)
    is_asked = live and not loading.problems
    found = _live(paths, loading, node, config_file, socket) if is_asked else []
    if output == "json":
        _warn(loading)
        click.echo(json.dumps({**_report(loading), **({"live": found} if is_asked else {})}, indent=2))
    else:
        _print(paths, loading)
        for finding in found:
            click.echo(finding_text(finding), err=True)
        if is_asked and not found:
            click.echo("nothing that works now would be denied")
    sys.exit(1 if loading.problems or found else 0)


def _live(
    paths: tuple[str, ...], loading: Loading, node: str | None, config_file: str | None, socket: str | None
) -> list[dict[str, Any]]:
    """What would be denied: asked of the daemon or, where none runs, found out here."""
    snapshot = Snapshot.of(loading.resources)
    config = load_config(config_file, snapshot.felix_configurations, node, flags={"socket": socket})
    session = ssh_session()
    try:
        texts = read_texts(paths)
        if config.sources["socket"].source == "default":
            warn_of_elsewhere(None, ask(config.socket, "status"))
        answer = ask(config.socket, "check", paths=paths, texts=texts, session=session)
        for warning in answer.get("warnings", ()):
            click.echo(f"warning: {printable(warning)}", err=True)
        return list(answer["findings"])
    except NoDaemon:
        if unknown := unknown_node(snapshot, config.node):  # "Nothing would be denied" would be no answer.
            raise EnvironmentProblem(f"--live: {unknown}; set --node or --config") from None
        links = read_links()
        for idle in snapshot.idle_host_endpoints(config.node, links.host_facts):
            click.echo(f"warning: {printable(idle)}: it governs nothing here", err=True)
        table = snapshot.compile(node=config.node, host=links.host_facts, settings=config.settings)
        mine = read_session(session) if session else None
        found = findings(None, table, Host(links), open_sessions(), read_connections(), mine=mine)
        return [item.to_json() for item in found]
    except ControlError as error:
        raise Refused(str(error)) from None


def _warn(loading: Loading) -> None:
    """Of what documents name and is not there, unless what could not be read may have been that."""
    if not loading.problems:
        for warning in Snapshot.of(loading.resources).warnings:
            click.echo(f"warning: {warning}", err=True)


def _note_empty_files(paths: tuple[str, ...], loading: Loading) -> None:
    """A command that failed may have left one."""
    known = {document.file for document in loading.documents}
    for file in all_files(paths):
        if file != STDIN and file not in known:
            click.echo(f"note: no documents in {printable(file)}", err=True)


def _print(paths: tuple[str, ...], loading: Loading) -> None:
    problems = sorted(loading.problems, key=_place)
    for problem in problems:
        click.echo(str(problem), err=True)
    count = len(loading.documents)
    read = f"{count} document{'s' * (count != 1)}"
    if problems:
        click.echo(f"{len(problems)} error{'s' * (len(problems) != 1)} in {read}", err=True)
        return
    _warn(loading)
    if not loading.documents:
        click.echo("note: no documents in these files: is it the right path?", err=True)
    else:
        _note_empty_files(paths, loading)
    click.echo(f"{read} {'is' if count == 1 else 'are'} valid")


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
