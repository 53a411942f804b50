"""`labelgate run`: enforces policy in this network namespace."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import runpy
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from labelgate.agent import Agent, AgentError, Options, last_config
from labelgate.cli.options import EnvironmentProblem, node_option, policies
from labelgate.cli.progress import ProgressBar
from labelgate.config import Config, ConfigError, load_config
from labelgate.handlers import BindLoop
from labelgate.printable import printable_lines
from labelgate.regular import read_closed
from labelgate.streams import is_journal


@click.command()
@policies(required=False)
@node_option
# Not `config_option`: a service whose file is gone takes what was in force last.
@click.option("--config", "config_file", metavar="FILE", help="Configuration file (YAML).")
@click.option(
    "--backend", type=click.Choice(["auto", "nft", "legacy"]), help="iptables variant [default: auto]."
)
@click.option(
    "--stop", type=click.Choice(["remove", "keep", "open"]), help="What a planned stop leaves behind."
)
@click.option("--settle", metavar="SECONDS", help="Wait before enforcing if conntrack was off [default: 2s].")
@click.option("--queue-base", type=int, help="First of 14 queue numbers for each worker [default: 4200].")
@click.option("--watch/--no-watch", default=None, help="Follow the files as they change [default: --watch].")
@click.option("--state", metavar="FOLDER", help="What outlives the daemon [default: /var/lib/labelgate].")
@click.option("--socket", metavar="PATH", help="Control socket [default: /run/labelgate/control.sock].")
@click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Tell metrics and health over HTTP; without ADDRESS to this host only [default: none].",
)
@click.option("--replace", is_flag=True, help="Take the place of the daemon in force; no packet is lost.")
@click.option(
    "--handler",
    type=click.Choice(["native", "netfilterqueue"]),
    default="native",
    show_default=True,
    help="Who answers packets: the core, or the PyPI package NetfilterQueue (slower; see --on-packet).",
)
@click.option(
    "--on-packet",
    metavar="PLACE:NAME",
    help="A Python function with the last word on every packet, of a module or a file that ends in .py; "
    "for --handler netfilterqueue.",
)
@click.option("--allow-empty", is_flag=True, help="Run although no endpoint names this node.")
def run(
    paths: tuple[str, ...],
    node: str | None,
    config_file: str | None,
    backend: str | None,
    stop: str | None,
    settle: str | None,
    queue_base: int | None,
    watch: bool | None,
    state: str | None,
    socket: str | None,
    metrics: str | None,
    replace: bool,
    handler: str,
    on_packet: str | None,
    allow_empty: bool,
) -> None:
    """Enforce policies until SIGTERM or Ctrl-C.

    What is written to the files comes into force at once; SIGHUP and `labelgate reload` read them, too.
    SIGUSR1 prints the counters as JSON. Needs root (CAP_NET_ADMIN).

    \b
    labelgate run -f policies/ --handler netfilterqueue --on-packet ./look.py:look

    with, in look.py, `def look(packet, decision): return decision.verdict`; see
    labelgate.handlers.netfilterqueue.
    """
    bind = _bind(handler, on_packet)
    flags = {
        "backend": backend, "stop": stop, "settle": settle, "queues.base": queue_base, "watch": watch,
        "state": state, "socket": socket, "metrics.listen": metrics,
    }  # fmt: skip
    try:
        config, last = _configuration(config_file, node, flags)
        is_configured = not paths
        paths = paths or config.policies
        if not paths:
            raise click.UsageError("no policies: use -f PATH, or `policies` in the configuration")
        options = Options(
            paths, node, config_file, allow_empty, flags, replace, bind, last, is_configured=is_configured
        )
        with ProgressBar() as progress:
            Agent(options, _say, progress).run()
    except (AgentError, ConfigError) as error:
        raise EnvironmentProblem(str(error)) from None


def _configuration(
    config_file: str | None, node: str | None, flags: dict[str, Any]
) -> tuple[Config, Config | None]:
    """What to begin with; the second is there where that is what was in force last."""
    try:
        return load_config(config_file, node=node, flags=flags, read=read_closed), None
    except ConfigError as error:
        last = last_config(config_file, node, flags)
        if last is None:
            raise
        _say(f"{error}\nthe configuration is not valid: the one that was in force last is taken")
        return last, last


def _bind(handler: str, on_packet: str | None) -> BindLoop | None:
    if handler == "native":
        if on_packet is not None:
            raise click.UsageError("--on-packet: the core calls no Python: use --handler netfilterqueue")
        return None
    if importlib.util.find_spec("netfilterqueue") is None:
        raise EnvironmentProblem(
            "--handler netfilterqueue needs the package: pip install 'labelgate[netfilterqueue]' "
            "(Debian: libnetfilter-queue-dev, a C compiler)"
        )
    from labelgate.handlers.netfilterqueue import NetfilterQueueLoop

    return functools.partial(
        NetfilterQueueLoop, on_packet=None if on_packet is None else _function(on_packet)
    )


def _function(text: str) -> Any:
    """What `module:name` or `file.py:name` names."""
    place, _, name = text.rpartition(":")
    try:
        if not place.endswith(".py"):
            found = getattr(importlib.import_module(place), name)
        elif not Path(place).is_file():
            raise ImportError(f"there is no file {place}")
        else:
            found = runpy.run_path(place)[name]
    except Exception as error:
        raise EnvironmentProblem(f"--on-packet {text}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise EnvironmentProblem(f"--on-packet {text}: is no function")
    return found


_WARNING = "<4>"
"""What the journal takes for the priority of a line (sd-daemon(3))."""


def _say(text: str) -> None:
    """One write per message, so that lines of several processes do not mix."""
    if text.startswith("warning") and is_journal():
        text = "\n".join(f"{_WARNING}{line}" for line in text.splitlines())
    with suppress(OSError):  # Nobody reads it any more: policy is enforced all the same.
        os.write(2, f"{printable_lines(text)}\n".encode())
