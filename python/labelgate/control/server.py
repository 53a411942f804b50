"""The answering end: never waits for a client, and bounds what one can take."""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from labelgate.control.protocol import (
    MOST_BYTES,
    ControlError,
    error_line,
    read_request,
    result_line,
)

MOST_CLIENTS = 32
"""One more, and the one that has been silent longest is cut off."""
BACKLOG = 128
"""How many may wait to be let in while the daemon does something else."""
SILENT_SECONDS = 30.0
"""A client that neither sends nor takes anything for so long is cut off."""
LOOK_SECONDS = 1.0
"""Between two looks whether the socket is still there to be found."""
DEAF_SECONDS = 1.0
"""How long nobody is let in where that has failed: with no descriptor left it would fail again and again."""
CHUNK = 1 << 18
"""Bytes taken from one client before the others have their turn."""

Verb = Callable[[dict[str, Any]], dict[str, Any]]
"""Arguments in, result out; raises `ControlError` to refuse."""


@dataclass(eq=False)
class _Client:
    connection: socket.socket
    heard: float
    """When it last sent or took something."""
    request: bytearray = field(default_factory=bytearray)
    """What has come of requests."""
    searched: int = 0
    """Bytes of `request` that are known to hold no end of a line."""
    answers: bytearray = field(default_factory=bytearray)
    """What it has not yet taken."""


class ControlServer:
    """Answers at a socket; `fileno` is readable when there is something to do, `serve` then does it."""

    def __init__(self, path: str, verbs: Mapping[str, Verb], say: Callable[[str], None]) -> None:
        """Listens, and takes over a socket that a dead daemon left.

        Where it cannot, that is said, and tried again as soon as nothing is in the place.
        """
        self._path = Path(path)
        self._verbs = verbs
        self._say = say
        self._clients: set[_Client] = set()
        self._worked_until = 0.0
        """When the last verb had been done."""
        self._looked = time.monotonic()
        self._is_lost = False
        """There is no socket, and that has been said."""
        self._deaf_until: float | None = None
        """Nobody is let in; None while that goes well."""
        self._listener: socket.socket | None = None
        self._inode: int | None = None
        with ExitStack() as opened:
            self._selector = opened.enter_context(selectors.EpollSelector())
            try:
                self._listen()
            except OSError as error:
                say(f"warning: no control socket at {path}: {error}")
                self._is_lost = True
            opened.pop_all()

    def fileno(self) -> int:
        """For select and poll."""
        return self._selector.fileno()

    def serve(self) -> None:
        """Does what can be done without waiting, one step for each client; to be called from time to time."""
        if self._deaf_until is not None and time.monotonic() >= self._deaf_until:
            self._deaf_until = None
            assert self._listener
            self._selector.register(self._listener, selectors.EVENT_READ)
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self._listen_anew()
        for key, events in self._selector.select(0):
            if key.data is None:
                self._accept()
            elif key.data in self._clients:  # It may have been cut off in this round.
                self._step(key.data, events)
        # While a verb was at work nobody was listened to.
        silent = time.monotonic() - SILENT_SECONDS
        for client in [one for one in self._clients if max(one.heard, self._worked_until) < silent]:
            self._cut_off(client)

    def close(self) -> None:
        """Sends what it can at once, and listens no more."""
        for client in tuple(self._clients):
            with suppress(OSError):
                client.connection.send(client.answers)
            self._cut_off(client)
        if self._listener:
            self._listener.close()
        self._selector.close()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        with ExitStack() as opened:
            listener = opened.enter_context(_listen(self._path))
            inode = self._path.stat().st_ino
            if self._deaf_until is None:
                self._selector.register(listener, selectors.EVENT_READ)
            opened.pop_all()
        if self._listener:
            if self._deaf_until is None:
                self._selector.unregister(self._listener)
            self._listener.close()
        self._listener, self._inode = listener, inode

    def _listen_anew(self) -> None:
        """Where there is no socket: it could not be made, or somebody has removed it, as by emptying /run.

        What is in its place is left alone.
        """
        if os.path.lexists(self._path):
            return
        was_there = self._listener is not None
        try:
            self._listen()
        except OSError as error:
            if not self._is_lost:
                self._say(
                    f"warning: the control socket {self._path} is gone, and cannot be made anew: {error}"
                )
            self._is_lost = True
            return
        self._is_lost = False
        if was_there:
            self._say(f"warning: the control socket {self._path} was gone; it is made anew")
        else:
            self._say(f"the control socket {self._path} is made")

    def _accept(self) -> None:
        assert self._listener
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # It went away.
            return
        except OSError as error:
            self._say(f"warning: control socket: nobody can be let in now: {error.strerror}")
            self._deaf_until = time.monotonic() + DEAF_SECONDS
            self._selector.unregister(self._listener)
            return
        if len(self._clients) >= MOST_CLIENTS:
            self._cut_off(min(self._clients, key=lambda client: client.heard))
        connection.setblocking(False)
        client = _Client(connection, time.monotonic())
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _step(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._send(client)
            else:
                self._receive(client)
        except OSError:  # It went away.
            self._cut_off(client)

    def _receive(self, client: _Client) -> None:
        data = client.connection.recv(CHUNK)
        client.heard = time.monotonic()
        client.request += data
        if not data or len(client.request) > MOST_BYTES:
            self._cut_off(client)
        elif self._answer(client):
            self._selector.modify(client.connection, selectors.EVENT_WRITE, client)

    def _answer(self, client: _Client) -> bool:
        """Answers the next request, if it is whole; further ones wait until this answer has been taken."""
        end = client.request.find(b"\n", client.searched)
        if end < 0:
            client.searched = len(client.request)
            return False
        if _is_gone(client.connection):
            raise ConnectionResetError  # Nobody would learn what has been done.
        line = bytes(client.request[:end])
        del client.request[: end + 1]
        client.searched = 0
        client.answers += self._answered(line)
        self._worked_until = client.heard = time.monotonic()
        return True

    def _answered(self, line: bytes) -> bytes:
        try:
            name, arguments = read_request(line)
            if (verb := self._verbs.get(name)) is None:
                raise ControlError("verb", f"unknown verb; known: {', '.join(sorted(self._verbs))}")
            return result_line(verb(arguments))
        except ControlError as error:
            return error_line(error)
        except Exception:  # A fault of ours in a verb must not end the daemon.
            self._say(f"control socket: internal fault\n{traceback.format_exc().rstrip()}")
            return error_line(ControlError("internal", "a fault of the daemon; its log has more"))

    def _send(self, client: _Client) -> None:
        sent = client.connection.send(client.answers)
        client.heard = time.monotonic()
        del client.answers[:sent]
        if not client.answers and not self._answer(client):
            self._selector.modify(client.connection, selectors.EVENT_READ, client)

    def _cut_off(self, client: _Client) -> None:
        self._clients.discard(client)
        with suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other end is closed; one that only sends no more waits for its answer still."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody else may connect, not even between bind and chmod; the umask is that of all threads.
        os.fchmod(listener.fileno(), 0o600)
        _bind(listener, path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    try:
        listener.bind(str(path))
        return
    except OSError as error:
        if not path.is_socket():
            if error.errno != errno.EADDRINUSE:
                raise
            raise FileExistsError("something that is no socket is in its place") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise FileExistsError("another daemon listens there")
    listener.bind(str(path))
