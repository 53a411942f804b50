"""`labelgate clean`: takes every rule of ours out of the kernel."""

from __future__ import annotations

import click

from labelgate.agent import LooseNote, state_folder
from labelgate.agent.handover import running
from labelgate.agent.queues import answered_queues
from labelgate.cli.options import EnvironmentProblem, Refused
from labelgate.netfilter import nfacct
from labelgate.netfilter.apply import ApplyError, Netfilter
from labelgate.netfilter.apply import clean as remove_rules
from labelgate.netfilter.rules import PREFIX


@click.command()
@click.option("--config", "config_file", metavar="FILE", help="Configuration file: says where the state is.")
@click.option("--state", metavar="FOLDER", help="What outlives the daemon [default: /var/lib/labelgate].")
@click.option("--force", is_flag=True, help="Even while a daemon runs; it puts its rules back.")
def clean(config_file: str | None, state: str | None, force: bool) -> None:
    """Remove every rule of ours from this network namespace, of both iptables variants.

    Packets that wait in a queue are lost if their hooks go. nf_conntrack_tcp_loose is set back where the
    state says that a daemon with `revoke: deny-now` was killed.

    Exit code 1 if a daemon runs: nothing is changed then. Stop it first.
    """
    process = running()
    if process is not None and not force:
        raise Refused(f"{_named(process)} runs: stop it first; nothing is removed without --force")
    try:
        # A daemon whose lock is not seen from here, and whose name somebody else has taken.
        if not force and (answered := answered_queues(Netfilter().queues_led_to())):
            raise Refused(
                f"another process answers queues {answered[0]}..{answered[-1]}, which rules of ours lead to: "
                "stop it first; nothing is removed without --force"
            )
        removed = remove_rules()
    except ApplyError as error:
        raise EnvironmentProblem("\n".join([str(error), *getattr(error, "__notes__", ())])) from None
    try:
        has_counters = nfacct.remove_all(PREFIX)
        is_restored = LooseNote(state_folder(config_file, {"state": state})).restore()
    except OSError as error:
        raise EnvironmentProblem(str(error)) from None
    finally:
        # Told once all is done: nobody may read it.
        if process is not None:
            click.echo(f"warning: {_named(process)} runs, and puts its rules back", err=True)
        for table in removed:
            click.echo(f"removed our rules from {table}")
    if has_counters:
        click.echo("removed our counters; what was kept of them (rules.json) is kept")
    if is_restored:
        click.echo("set nf_conntrack_tcp_loose back to 1")
    elif not removed and not has_counters:
        click.echo("nothing of ours is there")


def _named(process: int) -> str:
    return f"labelgate (pid {process})" if process else "a labelgate that cannot be seen from here"
