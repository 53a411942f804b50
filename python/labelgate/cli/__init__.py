"""The command line: one file per verb.

Exit codes: 0 ok, 1 findings or denied, 2 usage, 3 environment or load, 4 internal disagreement; of `diff` 4
says that something lets more through; 70 a fault of our own; 141 nobody reads the output any more.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from labelgate.config import ConfigError
from labelgate.interrupts import ending_at_once
from labelgate.resources import LoadError

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
_UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What writing to standard output fails with: its reader has gone, the disk is full or broken."""
_MODULES = {"confirm": "apply", "rollback": "apply"}
"""Of verbs that have no file of their own."""


@contextmanager
def _writing() -> Iterator[None]:
    """Ends the program where its output cannot be written; of a closed pipe click would say 1: findings."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        if error.errno == errno.EPIPE and not _has_nobody_reading():
            raise  # A socket: who was asked has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # The interpreter would try what is left once more.
        if error.errno == errno.EPIPE:
            sys.exit(CLOSED)
        click.echo(f"labelgate: standard output: {error.strerror}: not all of the answer is there", err=True)
        sys.exit(3)


def _has_nobody_reading() -> bool:
    """Whether standard output is a pipe or a socket whose other end is closed."""
    output = select.poll()
    output.register(1, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in output.poll(0))


class _Verbs(click.Group):
    """Verbs that are imported when they are used: most need nothing of what others wait for (numpy)."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _writing():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _writing():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = _MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        with ending_at_once():
            verb: click.Command = getattr(import_module(f"labelgate.cli.{module}"), VERBS[cmd_name])
        return verb


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
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
        click.echo(error, err=True)
        sys.exit(3)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # A panic of the core is no `Exception`.
        traceback.print_exc()
        click.echo("labelgate: this is a fault of labelgate: please report it", err=True)
        sys.exit(FAULT)
