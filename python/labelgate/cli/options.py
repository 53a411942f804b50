"""Options and errors that several verbs share."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from labelgate.config import control_socket, variable_of
from labelgate.control import ANSWER_SECONDS, ControlError, NoDaemon, ask, is_elsewhere
from labelgate.printable import printable, printable_lines
from labelgate.snapshot import Snapshot, check_node

PATIENCE_SECONDS = 5.0
"""For an answer of the daemon, before somebody is told that it is waited for."""
F = TypeVar("F", bound=Callable[..., Any])


class EnvironmentProblem(click.ClickException):
    """The host, its kernel or the files are not as they must be; exit code 3."""

    exit_code = 3

    def __init__(self, message: str) -> None:
        super().__init__(printable_lines(message))


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """What cannot be written is told by the name of its file."""
    try:
        yield
    except OSError as error:
        # Libraries that draw have errors without a number.
        raise EnvironmentProblem(f"{path}: {error.strerror or error}") from None


def policies(required: bool = True) -> Callable[[F], F]:
    """`-f PATH`: files, folders (recursive) and `-`."""
    return click.option(
        "-f",
        "--filename",
        "paths",
        multiple=True,
        required=required,
        metavar="PATH",
        help="File, folder (recursive: .yaml, .yml, .json) or - for standard input; repeatable.",
    )


host_option = click.option(
    "--host",
    "host_file",
    metavar="FILE",
    help="Host facts (YAML): interfaces with addresses, node, workloadPrefixes (docs/configuration.md).",
)

node_option = click.option(
    "--node",
    metavar="NAME",
    help="Node name [default: $LABELGATE_NODE, `node` of the configuration, else the lower-cased host name].",
)


def recording_options(command: F) -> F:
    """How recorded flows are read."""
    for option in reversed(
        (
            click.option(
                "--format",
                "form",
                type=click.Choice(["auto", "capture", "jsonl", "csv", "conntrack"]),
                default="auto",
                show_default=True,
                help="Of CAPTURE; by its name if not said.",
            ),
            click.option(
                "--dnat",
                multiple=True,
                metavar="FROM=TO|FILE",
                help="Where DNAT sends flows: ADDRESS[:PORT][/PROTOCOL]=ADDRESS[:PORT], or a file of "
                "iptables-save; repeatable.",
            ),
            click.option(
                "--dnated",
                multiple=True,
                metavar="NET",
                help="Flows to it have another destination, which is not known (Services).",
            ),
            click.option("--from-start", is_flag=True, help="Nothing was under way when the capture began."),
            click.option(
                "--max-flows",
                type=click.IntRange(1),
                default=1 << 18,
                show_default=True,
                help="Under way at a time in a capture.",
            ),
        )
    ):
        command = option(command)
    return command


def _there(_context: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    """Refused at once where there is no file: not every question comes to read it."""
    if path is not None and not Path(path).exists():
        raise EnvironmentProblem(f"{path}: {os.strerror(errno.ENOENT)}")
    if path is not None and Path(path).is_dir():
        raise EnvironmentProblem(f"{path}: {os.strerror(errno.EISDIR)}")
    return path


config_option = click.option(
    "--config", "config_file", metavar="FILE", callback=_there, help="Configuration file (YAML)."
)


def unknown_node(snapshot: Snapshot, node: str) -> str | None:
    """What is to be said if no endpoint names the node: nothing governs there, and nothing is denied."""
    nodes = snapshot.nodes()
    if node in nodes:
        return None
    return f"no endpoint names node `{node}` (nodes found: {', '.join(map(printable, nodes)) or 'none'})"


def refuse_other_nodes(node: str, *snapshots: Snapshot) -> None:
    """A node that no endpoint is on is a mistake of usage where only that node is asked about."""
    try:
        check_node(node, *snapshots)
    except ValueError as mistake:
        raise click.UsageError(str(mistake)) from None


class Refused(click.ClickException):
    """What was asked for is not done; exit code 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """The message as it is."""
        click.echo(printable_lines(self.message), err=True)


socket_option = click.option(
    "--socket",
    metavar="PATH",
    help="The daemon's control socket [default: $LABELGATE_SOCKET, else as built in].",
)


CHANGING = frozenset({"reload", "apply", "confirm", "rollback"})
"""Verbs that are for the daemon of this network namespace, unless its socket is named."""


def ask_daemon(
    socket: str | None, verb: str, seconds: float = ANSWER_SECONDS, **arguments: Any
) -> dict[str, Any]:
    """Asks the running daemon; EnvironmentProblem if there is none, Refused if it refuses.

    Refused, too, where something would be changed in another network namespace, whose daemon has the
    socket that is built in.
    """
    path = control_socket(socket)
    if verb in CHANGING and (where := elsewhere(socket, ask_daemon(socket, "status", seconds))):
        raise Refused(f"{where}: nothing is changed; go there (nsenter -n), or name the socket by --socket")
    told = threading.Timer(PATIENCE_SECONDS, _say_that_it_waits, (path, seconds))
    told.daemon = True
    if seconds > PATIENCE_SECONDS:
        told.start()
    try:
        return ask(path, verb, seconds, **arguments)
    except NoDaemon as error:
        raise EnvironmentProblem(str(error)) from None
    except ControlError as error:
        raise Refused(str(error)) from None
    finally:
        told.cancel()


def elsewhere(socket: str | None, status: Mapping[str, Any]) -> str | None:
    """What is to be said of a daemon of another network namespace that nobody has asked for by its socket."""
    is_named = socket is not None or os.environ.get(variable_of("socket"))
    if is_named or not is_elsewhere(status):
        return None
    return (
        f"the daemon at {control_socket(socket)} (pid {status['pid']}) is that of another network namespace"
    )


def warn_of_elsewhere(socket: str | None, status: Mapping[str, Any] | None = None) -> None:
    """For verbs that only read; asks for the status where it is not known."""
    if where := elsewhere(socket, ask_daemon(socket, "status") if status is None else status):
        click.echo(f"warning: {where}", err=True)


def _say_that_it_waits(path: str, seconds: float) -> None:
    waits = f"it may be compiling a large policy, or have been stopped; waiting {seconds:g} s at most"
    click.echo(f"the daemon at {path} has not answered yet: {waits}", err=True)
