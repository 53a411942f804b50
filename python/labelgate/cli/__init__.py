"""The command line: one file per verb.

Exit codes: 0 ok, 1 findings or denied, 2 usage, 3 environment or load, 4 internal disagreement; of `diff` 4
says that something lets more through; 70 a fault of our own; 141 nobody reads the output any more.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from labelgate.config import ConfigError
from labelgate.errors import Portable
from labelgate.interrupts import ending_at_once
from labelgate.printable import printable_lines
from labelgate.resources import LoadError
from labelgate.resources.values import did_you_mean

VERBS = {
    "check": "check", "lint": "lint_verb", "diff": "diff_command", "reach": "reach_command",
    "explain": "explain", "connectivity": "connectivity", "replay": "replay", "suggest": "suggest",
    "test": "run_expectations", "selector": "selector", "schema": "schema", "bench": "bench",
    "run": "run", "status": "status", "top": "top", "events": "events", "rules": "rules",
    "reload": "reload", "apply": "apply", "confirm": "confirm", "rollback": "rollback",
    "config": "config", "doctor": "doctor", "install-unit": "install_unit", "clean": "clean",
    "demo": "demo", "version": "version",
}  # fmt: skip
"""Each verb with the name of its function."""
FAULT = 70
"""The exit code of faults of our own: EX_SOFTWARE of sysexits.h."""
CLOSED = 141
"""As a shell says it: 128 and the number of SIGPIPE."""
_MODULES = {"confirm": "apply", "rollback": "apply"}
"""Of verbs that have no file of their own."""


class _OutputError(Portable):
    """Standard output cannot be written. No OSError: what a verb says of those of its files is not for it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class _Output(io.FileIO):
    """Standard output. Errors of writing name no file by themselves, those of sockets and inotify neither."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            raise _OutputError(error) from None


def _name_output() -> None:
    """Has errors of standard output say so; nothing has been written yet."""
    old = sys.stdout
    # It is None where there is none, and an embedding program may have put another one in its place; the one
    # of the start is None where it was closed then (`streams`).
    if isinstance(old, io.TextIOWrapper) and sys.__stdout__ in (old, None):
        raw = _Output(1, "w", closefd=False)
        # Without a buffer where Python was told so.
        output: Any = raw if isinstance(old.buffer, io.RawIOBase) else io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            output, old.encoding, old.errors, None, old.line_buffering, old.write_through
        )


@contextmanager
def _writing() -> Iterator[None]:
    """Ends the program where its output cannot be written; of a closed pipe click would say 1: findings."""
    try:
        yield
    except _OutputError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # The interpreter would try what is left once more.
        if problem.error.errno == errno.EPIPE:
            sys.exit(CLOSED)
        text = f"standard output: {problem.error.strerror}: not all of the answer is there"
        click.echo(f"labelgate: {text}", err=True)
        sys.exit(3)


class _Verbs(click.Group):
    """Verbs that are imported when they are used: most need nothing of what others wait for (numpy)."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _writing():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _writing():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in VERBS and not word.startswith("-"):
            ctx.fail(f"no verb `{word}`: {did_you_mean(word, VERBS) or '`labelgate --help` lists them'}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = _MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        with ending_at_once():
            verb: click.Command = getattr(import_module(f"labelgate.cli.{module}"), VERBS[cmd_name])
        return verb


def _tell_version(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    """As the verb of that name, with whatever else is there."""
    if is_asked:
        click.echo(import_module("labelgate.cli.version").text())
        context.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version,
    help="Print the version.",
)  # fmt: skip
def cli() -> None:
    """Calico and Kubernetes network policy on any Linux host.

    \b
    Exit codes: 0 ok, 1 findings or denied, 2 usage, 3 environment or load, 4 internal disagreement;
    of `diff` 4 says that something lets more through; 70 a fault of labelgate; 130 interrupted;
    141 nobody reads the output any more.
    """


def main() -> None:
    """The `labelgate` program: every error is a message on stderr and an exit code.

    A traceback shows only faults of our own, which must not end in a code that says something of policies.
    """
    _name_output()
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        click.echo("labelgate: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (LoadError, ConfigError) as error:
        click.echo(printable_lines(str(error)), err=True)
        sys.exit(3)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # A panic of the core is no `Exception`.
        traceback.print_exc()
        click.echo("labelgate: this is a fault of labelgate: please report it", err=True)
        sys.exit(FAULT)
