"""What systemd is told: that the policy is in force, and that the daemon is alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

ALIVE_SECONDS = 1.0
"""Not to be told more often."""
READY_SECONDS = 5.0
"""How long a service manager that is busy is waited for."""
PATIENCE_SECONDS = 600
"""For one step of the core: the watchdog is still there, and a host that is busy has time."""


class ServiceManager:
    """Whoever started us and listens at NOTIFY_SOCKET; nobody, if it is not set."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        path = environ.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is an abstract one.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        usec = environ.get("WATCHDOG_USEC", "")
        self._watchdog = int(usec) if usec.isascii() and usec.isdigit() else 0
        """Microseconds between two signs of life; 0: there is no watchdog."""
        self._told = -ALIVE_SECONDS

    def ready(self, status: str) -> None:
        """The policy is in force."""
        # Told once: not to be lost where the socket is full at that moment.
        self._tell(f"READY=1\nSTATUS={status.splitlines()[0]}", patience=READY_SECONDS)

    def status(self, status: str) -> None:
        """What `systemctl status` shows from now on."""
        self._tell(f"STATUS={status.splitlines()[0]}")

    def alive(self) -> None:
        """For the watchdog: to be told more often than WatchdogSec, at each step that has been done.

        Never by a timer or a thread of its own: a daemon that hangs must not be called alive.
        """
        now = time.monotonic()
        if now - self._told >= ALIVE_SECONDS:
            self._told = now
            self._tell("WATCHDOG=1")

    @contextmanager
    def patience(self) -> Iterator[None]:
        """For what may take longer than WatchdogSec and tells of no steps: the watchdog waits ten minutes."""
        if not self._watchdog:
            yield
            return
        # Not to be lost: each also begins the time anew.
        self._tell(f"WATCHDOG_USEC={max(self._watchdog, PATIENCE_SECONDS * 10**6)}", patience=READY_SECONDS)
        try:
            yield
        finally:
            self._tell(f"WATCHDOG_USEC={self._watchdog}", patience=READY_SECONDS)

    def stopping(self) -> None:
        """A planned stop has begun."""
        self._tell("STOPPING=1")

    def _tell(self, state: str, *, patience: float = 0) -> None:
        if not self._address:
            return
        # We may have no descriptor left; one that does not listen must not hold us up.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(patience)
            sender.sendto(state.encode(), self._address)
