"""One daemon per network namespace, and how it is replaced by another one without losing a packet.

```
 successor                                          daemon in force
 loads, compiles
 connects              ---------------------------> stops putting its rules back; READY
 binds other queues, swaps the rules to them
 DONE                  ---------------------------> answers what its queues still hold, ends
 is the daemon now     <--- end of connection ----- (its rules stay: they are the successor's)
```

If the connection ends before DONE, or DONE does not come in time, the successor has failed: the daemon looks
after its rules again, at once. Behind DONE the successor only waits, as nobody else is left. A daemon with a
policy on trial says BUSY: what comes into force next is for the trial to say.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from labelgate.agent.generation import AgentError

NAME = "\0labelgate"
"""Names of abstract sockets (unix(7)) belong to the network namespace and go with the process."""
READY, DONE, BUSY = b"r", b"d", b"b"
SECONDS = 30.0
"""For the other side to answer; behind DONE, between warnings."""
PENDING_SECONDS = 90.0
"""For a successor to come into force."""
NAME_SECONDS = 5.0
"""For the name to be free when the daemon before has ended."""


class Presence:
    """Being the daemon of a network namespace: two would overwrite each other's chains."""

    def __init__(self, say: Callable[[str], None], *, replace: bool = False) -> None:
        """AgentError where another one is, unless it is to be replaced."""
        self._say = say
        self._name: socket.socket | None = None
        self._predecessor: socket.socket | None = None
        self._successor: socket.socket | None = None
        self._since = 0.0
        """When the successor came."""
        self.replaces = False
        """Another daemon is still in force."""
        try:
            self._name = _listen()
        except OSError:
            if not replace:
                raise AgentError("labelgate is running already in this network namespace") from None
            self.replaces = True

    def announce(self) -> None:
        """Before the first change, all else being ready: the daemon in force stops to look after its rules.

        Raises:
            AgentError: it does not answer, or not now.
        """
        if not self.replaces:
            return
        self._predecessor = _connect()
        said = self._predecessor_says()
        if said == BUSY:
            raise AgentError(
                "the daemon in force has a policy on trial: `labelgate confirm` or `rollback` first"
            )
        if said != READY:
            raise AgentError("the daemon in force does not want to be replaced")

    def take_over(self) -> None:
        """Behind the last change: waits until the daemon before this one has ended, and takes its place.

        Raises:
            AgentError: a third one has.
        """
        if self._predecessor is None:
            return
        with suppress(OSError):  # It has ended by itself.
            self._predecessor.sendall(DONE)
        while self._predecessor_says() != b"":
            self._say("warning: the daemon that is replaced has not ended yet; waiting")
        self._predecessor.close()
        self._predecessor = None
        self._name = _listen_soon()
        self.replaces = False

    def _predecessor_says(self) -> bytes:
        """READY or BUSY; nothing when it has ended, `?` where it says nothing."""
        assert self._predecessor is not None
        try:
            return self._predecessor.recv(1)
        except TimeoutError:
            return b"?"
        except OSError:
            return b""

    @property
    def descriptors(self) -> list[int]:
        """Readable when `is_replaced` is to be asked."""
        heard = self._successor or self._name
        return [] if heard is None else [heard.fileno()]

    @property
    def is_pending(self) -> bool:
        """A successor is at work: the rules are not ours to put back."""
        return self._successor is not None

    def is_replaced(self, *, is_busy: bool = False) -> bool:
        """Whether a successor is in force; does not block. While `is_busy` none is let in."""
        if self._successor is None:
            self._accept(is_busy=is_busy)
        if self._successor is None:
            return False
        is_late = time.monotonic() - self._since > PENDING_SECONDS
        if not select.select([self._successor], [], [], 0)[0] and not is_late:
            return False
        try:
            said = self._successor.recv(1)
        except OSError:
            said = b""
        if said != DONE:
            self._successor.close()
            self._successor = None
            late = " in time" if is_late else ""
            self._say(f"warning: the labelgate that was to replace this one did not come into force{late}")
        return said == DONE

    def _accept(self, *, is_busy: bool) -> None:
        if self._name is None:
            return
        try:
            connection, _ = self._name.accept()
        except OSError:
            return
        connection.setblocking(False)
        try:
            if _is_ours(connection):
                connection.send(BUSY if is_busy else READY)
                if not is_busy:
                    self._successor, self._since = connection, time.monotonic()
                    return
        except OSError:  # It has given up.
            pass
        connection.close()

    def close(self) -> None:
        """Tells a successor that this one has ended, and frees the name."""
        # The name first: who is told finds it free.
        for opened in (self._name, self._successor, self._predecessor):
            if opened is not None:
                opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listen() -> socket.socket:
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(NAME)
        name.listen(1)
        name.setblocking(False)
    except BaseException:
        name.close()
        raise
    return name


def _listen_soon() -> socket.socket:
    """The daemon before may be seen to end a moment before its name is free."""
    until = time.monotonic() + NAME_SECONDS
    while True:
        try:
            return _listen()
        except OSError:
            if time.monotonic() > until:
                raise AgentError("another daemon was started at the same time") from None
            time.sleep(0.05)


def _is_ours(connection: socket.socket) -> bool:
    """Whether root or we are at the other end: the name is not guarded by file permissions."""
    _, user, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user in (0, os.geteuid())


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    try:
        connection.connect(NAME)
    except OSError as error:
        connection.close()
        raise AgentError(f"the daemon in force cannot be asked to be replaced: {error.strerror}") from None
    if not _is_ours(connection):
        connection.close()
        raise AgentError("somebody else has taken the daemon's name (an abstract socket, `labelgate`)")
    return connection
