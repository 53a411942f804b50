"""`labelgate apply`, `confirm` and `rollback`: a new policy in force, on trial if one likes."""

from __future__ import annotations

import sys

import click

from labelgate.cli.options import EnvironmentProblem, ask_daemon, policies, socket_option
from labelgate.config import read_duration
from labelgate.sources.files import STDIN, all_files, read_file


@click.command()
@policies()
@click.option(
    "--confirm", metavar="TIME", help="Roll back unless `labelgate confirm` comes in this time, such as 60s."
)
@socket_option
def apply(paths: tuple[str, ...], confirm: str | None, socket: str | None) -> None:
    """Put policies in force in the running daemon, in the place of all that it has.

    They stay in force, also after a restart, until something is written to the files that the daemon
    follows, it is told to reload, or other policies are applied. With --confirm they are rolled back in time,
    and also if the daemon is killed before.

    Exit code 1 if they are refused: nothing is changed then; 3 if no daemon runs.
    """
    seconds = None if confirm is None else _seconds(confirm)
    texts = [[name, content.decode("utf-8", "surrogateescape")] for name, content in _read(paths)]
    answer = ask_daemon(socket, "apply", paths=paths, texts=texts, confirm=seconds)
    click.echo(f"generation {answer['generation']} in force")
    if confirm is not None:
        click.echo(f"rolled back in {confirm} unless you run: labelgate confirm")


@click.command()
@socket_option
def confirm(socket: str | None) -> None:
    """Keep the policy that is on trial.

    Exit code 1 if none is; 3 if no daemon runs.
    """
    click.echo(f"generation {ask_daemon(socket, 'confirm')['generation']} is confirmed")


@click.command()
@socket_option
def rollback(socket: str | None) -> None:
    """Put back in force at once what was before the policy that is on trial.

    Exit code 1 if none is; 3 if no daemon runs.
    """
    click.echo(f"rolled back: generation {ask_daemon(socket, 'rollback')['generation']} in force")


def _seconds(text: str) -> float:
    try:
        return read_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--confirm") from None


def _read(paths: tuple[str, ...]) -> list[tuple[str, bytes]]:
    texts: list[tuple[str, bytes]] = []
    for file in all_files(paths):
        content = sys.stdin.buffer.read() if file == STDIN else read_file(file)
        if not isinstance(content, bytes):
            raise EnvironmentProblem(f"{file}: {content.message}: {content.found}")
        texts.append(("<stdin>" if file == STDIN else file, content))
    return texts
