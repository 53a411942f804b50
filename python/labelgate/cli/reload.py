"""`labelgate reload`: has the running daemon read its files anew."""

from __future__ import annotations

import os

import click

from labelgate.agent.last_config import path_in_file
from labelgate.cli.options import ask_daemon, socket_option
from labelgate.config import variable_of


@click.command()
@click.option("--force", is_flag=True, help="Even if somebody is locked out, or a file is open for writing.")
@socket_option
# Not `config_option`: what is wrong with the file is the daemon's to say.
@click.option("--config", "config_file", metavar="FILE", help="Configuration file: says where the socket is.")
def reload(socket: str | None, force: bool, config_file: str | None) -> None:
    """Have the daemon read policies and configuration anew, and say what came of it.

    Exit code 1 if they are not valid, or one is open for writing: the generation before stays in force; 3 if
    no daemon runs.
    """
    if socket is None and not os.environ.get(variable_of("socket")):
        socket = path_in_file(config_file, "socket")
    answer = ask_daemon(socket, "reload", force=force)
    click.echo(f"generation {answer['generation']} in force")
