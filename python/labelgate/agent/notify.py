"""What systemd is told: that the policy is in force, and that the daemon is alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class ServiceManager:
    """Whoever started us and listens at NOTIFY_SOCKET; nobody, if it is not set."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
        # A name that begins with @ is an abstract one.
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self, status: str) -> None:
        """The policy is in force."""
        self._tell(f"READY=1\nSTATUS={status.splitlines()[0]}")

    def alive(self) -> None:
        """For the watchdog: to be told more often than WatchdogSec."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """A planned stop has begun."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
            # One that does not listen must not hold us up.
            sender.setblocking(False)
            sender.sendto(state.encode(), self._address)
