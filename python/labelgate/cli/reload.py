"""`labelgate reload`: has the running daemon read its files anew."""

from __future__ import annotations

import click

from labelgate.cli.options import ask_daemon, socket_option


@click.command()
@click.option("--force", is_flag=True, help="Even if somebody is locked out.")
@socket_option
def reload(socket: str | None, force: bool) -> None:
    """Have the daemon read policies and configuration anew, and say what came of it.

    Exit code 1 if they are not valid: the generation before stays in force; 3 if no daemon runs.
    """
    answer = ask_daemon(socket, "reload", force=force)
    click.echo(f"generation {answer['generation']} in force")
