"""Network namespaces with names, and commands, processes and calls inside of them."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from labelgate.interrupts import held_back

T = TypeVar("T")
ENDING = (signal.SIGINT, signal.SIGTERM)
_counter = itertools.count()


class Namespaces:
    """One for each host; made on entry and removed, with every process started in them, on exit."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._prefix = f"lg-{os.getpid()}-{next(_counter)}"
        self._hosts = tuple(hosts)
        self._processes: list[subprocess.Popen[str]] = []
        self.folder: Path
        """For what processes in here keep: removed with the namespaces."""

    def namespace(self, host: str) -> str:
        """The name of a host's namespace, as `ip netns` knows it."""
        return f"{self._prefix}-{host}"

    def build(self) -> None:
        """Furnishes the namespaces once they are there."""

    def __enter__(self) -> Self:
        remove_stale()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self._prefix}-"))
        try:
            for host in self._hosts:
                ip(f"netns add {self.namespace(host)}")
            self.build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Ends what was started here and removes the namespaces; safe to call twice."""
        with held_back(*ENDING):
            for process in reversed(self._processes):
                end(process)
            self._processes.clear()
            for host in self._hosts:
                with suppress(WorldError):
                    ip(f"netns delete {self.namespace(host)}")
            shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, host: str, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function inside a host's namespace, on a thread of its own; sockets it makes stay there."""
        return call_in(self.namespace(host), function, *arguments)

    def set_sysctls(self, host: str, values: Mapping[str, str]) -> None:
        """Writes values below `/proc/sys`, such as `net/ipv4/ip_forward`, inside a host's namespace."""

        def write() -> None:
            for name, value in values.items():
                with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
                    file.write(value)

        self.call(host, write)

    def run(self, host: str, *command: str, check: bool = True, stdin: str | None = None) -> str:
        """Runs a command to its end inside a host's namespace; its standard output."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace(host), *command],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise WorldError(f"{host}: {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start(self, host: str, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Starts a command inside a host's namespace; it is ended with the world at the latest."""
        options = {"stdin": subprocess.DEVNULL, **options}
        with held_back(*ENDING):  # Nothing runs here that is not on the list.
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace(host), *command], text=True, **options
            )
            self._processes.append(process)
        return process


def remove_stale() -> None:
    """Removes worlds whose maker was killed before it could, with the processes in them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30, check=False)
    for line in listed.stdout.splitlines():
        match = re.match(r"lg-(\d+)-\d+-", line)
        if match is None or os.path.exists(f"/proc/{match[1]}"):
            continue
        name = line.split()[0]
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
        for pid in map(int, inside.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(WorldError):
            ip(f"netns delete {name}")
    for folder in Path(tempfile.gettempdir()).glob("lg-*-*-*"):
        match = re.fullmatch(r"lg-(\d+)-\d+-\w{8}", folder.name)
        if match is not None and not os.path.exists(f"/proc/{match[1]}"):
            shutil.rmtree(folder, ignore_errors=True)


class WorldError(Exception):
    """The world cannot be built, or a command in it failed."""


def end(process: subprocess.Popen[str], seconds: float = 20.0) -> int:
    """Ends a process politely, then for good; its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def call_in(namespace: str, function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function on a thread that has entered a network namespace; its result or its exception."""
    outcome: list[tuple[bool, Any]] = []

    def work() -> None:
        try:
            _enter(namespace)
            outcome.append((True, function(*arguments)))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    succeeded, result = outcome[0]
    if succeeded:
        return result  # type: ignore[no-any-return]
    raise result


_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: str) -> None:
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", namespace)
    finally:
        os.close(descriptor)


def ip(arguments: str) -> None:
    """Runs `ip`; WorldError if it fails."""
    done = subprocess.run(
        ["ip", *arguments.split()], capture_output=True, text=True, timeout=30, check=False,
        process_group=0,  # A terminal's Ctrl-C is for us alone: it would stop the removal half way.
    )  # fmt: skip
    if done.returncode != 0:
        raise WorldError(f"ip {arguments}: {done.stderr.strip()}")


def batch(namespace: str | None, lines: Iterable[str], *options: str) -> None:
    """Runs many commands of `ip` at once, inside a namespace if one is named; WorldError if one fails."""
    place = list(options) if namespace is None else [*options, "-n", namespace]
    done = subprocess.run(
        ["ip", *place, "-batch", "-"],
        input="\n".join(lines), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise WorldError(f"ip -batch in {namespace}: {done.stderr.strip()}")
