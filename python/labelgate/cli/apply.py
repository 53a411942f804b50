"""`labelgate apply`, `confirm` and `rollback`: a new policy in force, on trial if one likes."""

from __future__ import annotations

import os
from pathlib import Path

import click

from labelgate.cli.options import EnvironmentProblem, ask_daemon, policies, socket_option
from labelgate.config.values import read_duration
from labelgate.control import MOST_TRIAL_SECONDS
from labelgate.printable import printable
from labelgate.sources.files import STDIN, all_files, file_name, read_file


@click.command()
@policies()
@click.option(
    "--confirm", metavar="TIME", help="Roll back unless `labelgate confirm` comes in this time, such as 60s."
)
@click.option("--force", is_flag=True, help="Even if somebody is locked out, or sessions are cut.")
@socket_option
def apply(paths: tuple[str, ...], confirm: str | None, force: bool, socket: str | None) -> None:
    """Put policies in force in the running daemon, in the place of all that it has.

    They stay in force, also after a restart, until something is written to the files that the daemon
    follows, it is told to reload, or other policies are applied. With --confirm they are rolled back in time,
    and also if the daemon is killed before.

    Exit code 1 if they are refused, because they are not valid, or because this session, others over SSH,
    failsafe ports, DNS, DHCP or IPv6 neighbour discovery work now and would be denied: nothing is changed
    then. 3 if no daemon runs.
    """
    seconds = None if confirm is None else _seconds(confirm)
    answer = ask_daemon(
        socket, "apply", paths=paths, texts=read_texts(paths), confirm=seconds, force=force,
        session=ssh_session(),
    )  # fmt: skip
    for warning in answer.get("warnings", ()):
        click.echo(f"warning: {printable(warning)}", err=True)
    for finding in answer["findings"]:
        click.echo(f"warning: {finding_text(finding)}", err=True)
    click.echo(f"generation {answer['generation']} in force")
    if seconds is not None:
        click.echo(f"rolled back in {seconds:g}s unless you run: labelgate confirm")


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
        seconds = read_duration(text)
        if not 0 < seconds <= MOST_TRIAL_SECONDS:
            raise ValueError(f"expected more than nothing and at most {MOST_TRIAL_SECONDS:g}s, found {text}")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--confirm") from None
    return seconds


def read_texts(paths: tuple[str, ...]) -> list[tuple[str, str]]:
    """Every file with what it holds, as a request has them; EnvironmentProblem if one cannot be read."""
    texts: list[tuple[str, str]] = []
    for file in all_files(paths):
        content = read_file(file)
        if not isinstance(content, bytes):
            raise EnvironmentProblem(f"{file_name(file)}: {content.message}: {content.found}")
        name = file_name(file) if file == STDIN else os.path.abspath(file)
        texts.append((name, content.decode("utf-8", "surrogateescape")))
    return texts


def finding_text(finding: dict[str, str]) -> str:
    """What would be denied, in a line."""
    return f"{finding['what']}: {finding['subject']}: denied ({finding['reason']})"


def ssh_session() -> str | None:
    """The connection over which this is asked, as SSH_CONNECTION has it; None if that names none."""
    words = _ssh_connection()
    if words is None:
        return None
    from labelgate.agent.asked import read_session  # It takes a while.

    try:
        read_session(words)
    except ValueError:  # As of sshd behind a socket that is none of IP: `UNKNOWN 65535 UNKNOWN 65535`.
        shown = printable(words)
        click.echo(f"warning: SSH_CONNECTION names no connection: `{shown}`; it is ignored", err=True)
        return None
    return words


def _ssh_connection() -> str | None:
    """Of this process or, as sudo takes it away, of one above it; None if there is none."""
    pid = os.getpid()
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        for word in words:
            if word.startswith(b"SSH_CONNECTION="):
                return word.partition(b"=")[2].decode(errors="replace")
        pid = int(status.partition("PPid:")[2].split()[0])
    return None
