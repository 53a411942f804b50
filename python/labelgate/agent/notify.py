"""What systemd is told: that the policy is in force, and that the daemon is alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

ALIVE_SECONDS = 1.0
"""Not to be told more often."""
READY_SECONDS = 5.0
"""How long a service manager that is busy is waited for."""


class ServiceManager:
    """Whoever started us and listens at NOTIFY_SOCKET; nobody, if it is not set."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
        # A name that begins with @ is an abstract one.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._told = -ALIVE_SECONDS

    def ready(self, status: str) -> None:
        """The policy is in force."""
        # Told once: not to be lost where the socket is full at that moment.
        self._tell(f"READY=1\nSTATUS={status.splitlines()[0]}", patience=READY_SECONDS)

    def alive(self) -> None:
        """For the watchdog: to be told more often than WatchdogSec, at each step that has been done.

        Never by a timer or a thread of its own: a daemon that hangs must not be called alive.
        """
        now = time.monotonic()
        if now - self._told >= ALIVE_SECONDS:
            self._told = now
            self._tell("WATCHDOG=1")

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
