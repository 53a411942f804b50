"""The asking end."""

from __future__ import annotations

import socket
from typing import Any

from labelgate.control.protocol import MOST_BYTES, ControlError, read_answer, request_line

ANSWER_SECONDS = 120.0
"""A daemon that compiles the policies of a large cluster answers no sooner."""


class NoDaemon(Exception):
    """Nobody answers at the socket; says what was found there."""


def ask(path: str, verb: str, seconds: float = ANSWER_SECONDS, **arguments: Any) -> dict[str, Any]:
    """Asks the daemon one thing.

    Raises:
        NoDaemon: none answers.
        ControlError: it refuses; says why.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        _connect(connection, path)
        try:
            connection.sendall(request_line(verb, arguments))
            with connection.makefile("rb") as lines:
                line = lines.readline(MOST_BYTES)
        except TimeoutError:
            raise NoDaemon(f"the daemon at {path} does not answer within {seconds:g} s") from None
        except OSError as error:
            raise NoDaemon(f"the daemon at {path} ended the connection ({error.strerror})") from None
    if not line.endswith(b"\n"):
        raise NoDaemon(f"the daemon at {path} ended the connection without an answer")
    return read_answer(line)


def _connect(connection: socket.socket, path: str) -> None:
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NoDaemon(f"no daemon is running: nobody listens at {path}") from None
    except PermissionError:
        raise NoDaemon(f"{path} is not for this user: ask as root") from None
    except OSError as error:
        raise NoDaemon(f"{path}: {error.strerror or error}") from None


__all__ = ["ANSWER_SECONDS", "ControlError", "NoDaemon", "ask"]
