"""`labelgate top`: what the daemon does, live."""

from __future__ import annotations

import os
import select
import signal
import socket as sockets
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from labelgate.cli.options import EnvironmentProblem, ask_daemon, socket_option, warn_of_elsewhere
from labelgate.cli.top_view import View
from labelgate.interrupts import held_back

ANSWER_SECONDS = 5.0
"""A daemon that compiles may take longer: the picture stands still meanwhile, and says so."""
ENDING = b"qQ\x03\x04"

Status = dict[str, Any]


@click.command()
@socket_option
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option("--once", is_flag=True, help="Two looks, one picture, no terminal needed.")
def top(socket: str | None, interval: float, once: bool) -> None:
    """Show what the daemon does, live: packets by hook, rules most met, denials, queues, processor time.

    q or Ctrl-C ends it. Where the output is no terminal one picture is printed, as with --once. What is
    counted by hook are packets that come to a queue; those that kernel rules settle (failsafe ports) are
    among rules and denials only, those of established connections nowhere. Exit code 3 if no daemon runs.
    """

    def read() -> Status:
        return ask_daemon(socket, "status", seconds=ANSWER_SECONDS)

    console = Console(highlight=False)
    first = read()
    warn_of_elsewhere(socket, first)
    if once or not console.is_terminal or console.is_dumb_terminal:
        time.sleep(interval)
        for line in View(first).lines(read(), console.width, None):
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
        return
    with suppress(KeyboardInterrupt):
        _watch(console, View(first), read, interval)


def _watch(console: Console, view: View, read: Callable[[], Status], interval: float) -> None:
    status, problem = view.before, None
    with _keys() as keys, _resizes() as resized, _screen(console) as live:
        due = time.monotonic() + interval
        while True:
            with held_back(signal.SIGINT):
                live.update(view.screen(status, console.size, problem), refresh=True)
            ready, _, _ = select.select([*keys, resized.fileno()], [], [], max(0.0, due - time.monotonic()))
            if resized.fileno() in ready:
                resized.recv(4096)
            if any(_is_ending(os.read(key, 64)) for key in ready if key in keys):
                return
            if time.monotonic() >= due:
                view.advance(status)
                try:
                    status, problem = read(), None
                except EnvironmentProblem as error:
                    problem = error.message
                due = time.monotonic() + interval


def _is_ending(typed: bytes) -> bool:
    """Also where the terminal is gone."""
    return not typed or any(key in ENDING for key in typed)


@contextmanager
def _screen(console: Console) -> Iterator[Live]:
    """A screen beside the one that was there, which comes back.

    Ctrl-C in the midst of drawing would leave a console that writes nothing more.
    """
    live = Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop")
    try:
        with held_back(signal.SIGINT):
            live.start()
        yield live
    finally:
        with held_back(signal.SIGINT):
            live.stop()


@contextmanager
def _keys() -> Iterator[list[int]]:
    """Where keys are heard, each at once and without echo; nowhere if standard input is no terminal."""
    if not sys.stdin.isatty():
        yield []
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield [descriptor]
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _resizes() -> Iterator[sockets.socket]:
    """Readable when the terminal has another size."""
    reader, writer = sockets.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.signal(signal.SIGWINCH, lambda *_: None)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGWINCH, before)
