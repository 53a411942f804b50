"""One daemon per network namespace, and how it is replaced by another one without losing a packet.

```
 successor                                          daemon in force
 loads, compiles
 connects              ---------------------------> stops putting its rules back; READY
 binds other queues, swaps the rules to them
 DONE                  ---------------------------> answers what its queues still hold, ends
 is the daemon now     <--- end of connection ----- (its rules stay: they are the successor's)
```

If the connection ends before DONE, the successor has failed: the daemon looks after its rules again, at once.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from contextlib import suppress
from typing import Self

from labelgate.agent.generation import AgentError

NAME = "\0labelgate"
"""Names of abstract sockets (unix(7)) belong to the network namespace and go with the process."""
READY, DONE = b"r", b"d"
SECONDS = 30.0
"""For the other side to answer."""


class Presence:
    """Being the daemon of a network namespace: two would overwrite each other's chains."""

    def __init__(self, *, replace: bool = False) -> None:
        """AgentError where another one is, unless it is to be replaced."""
        self._name: socket.socket | None = None
        self._predecessor: socket.socket | None = None
        self._successor: socket.socket | None = None
        try:
            self._name = _listen()
        except OSError:
            if not replace:
                raise AgentError("labelgate is running already in this network namespace") from None
            self._predecessor = _connect()

    @property
    def replaces(self) -> bool:
        """Another daemon is still in force."""
        return self._predecessor is not None

    def announce(self) -> None:
        """Before the first change: the daemon in force stops to look after its rules.

        Raises:
            AgentError: it does not answer.
        """
        if self._predecessor is not None and self._predecessor_says() != READY:
            raise AgentError("the daemon in force does not want to be replaced")

    def take_over(self) -> None:
        """Behind the last change: waits until the daemon before this one has ended, and takes its place.

        Raises:
            AgentError: it does not end.
        """
        if self._predecessor is None:
            return
        with suppress(OSError):  # It has ended by itself.
            self._predecessor.sendall(DONE)
        if self._predecessor_says() != b"":
            raise AgentError("the daemon that is to be replaced does not end")
        self._predecessor.close()
        self._predecessor = None
        try:
            self._name = _listen()
        except OSError:
            raise AgentError("another daemon was started at the same time") from None

    def _predecessor_says(self) -> bytes:
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

    def is_replaced(self) -> bool:
        """Whether a successor is in force; does not block."""
        if self._successor is None:
            self._accept()
        if self._successor is None or not select.select([self._successor], [], [], 0)[0]:
            return False
        try:
            said = self._successor.recv(1)
        except OSError:
            said = b""
        if said != DONE:
            self._successor.close()
            self._successor = None
        return said == DONE

    def _accept(self) -> None:
        if self._name is None:
            return
        try:
            connection, _ = self._name.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        # The name is not guarded by file permissions.
        _, user, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user not in (0, os.geteuid()):
            connection.close()
            return
        connection.send(READY)
        self._successor = connection

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


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    try:
        connection.connect(NAME)
    except OSError as error:
        connection.close()
        raise AgentError(f"the daemon in force cannot be asked to be replaced: {error.strerror}") from None
    return connection
