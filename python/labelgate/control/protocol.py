"""Requests and answers as lines; shared by both ends."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from labelgate.errors import Portable

VERSION = 1
"""Of requests and answers; an unknown one is refused, so that neither end guesses."""
MOST_TRIAL_SECONDS = 86400.0
"""How long a policy may be on trial."""
MOST_BYTES = 256 << 20
"""A longer line is no request: policies of a whole cluster fit."""


class ControlError(Portable):
    """A request is refused; `code` is a stable word, the text is for people."""

    def __init__(self, code: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


def is_elsewhere(status: Mapping[str, Any]) -> bool:
    """Whether the daemon with this status is known to be that of another network namespace."""
    there, here = status.get("networkNamespace"), network_namespace()
    return None not in (there, here) and there != here


def network_namespace() -> int | None:
    """The inode of the calling thread's network namespace; None where that cannot be told."""
    try:
        return os.stat("/proc/thread-self/ns/net").st_ino
    except OSError:
        return None


def request_line(verb: str, arguments: dict[str, Any]) -> bytes:
    """A request as the client sends it."""
    return _line({"version": VERSION, "verb": verb, **arguments})


def read_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Verb and arguments.

    Raises:
        ControlError: this is no request of this version.
    """
    request = _read(line, "request")
    if request.pop("version", None) != VERSION:
        raise ControlError(
            "version", f"expected a request of version {VERSION}; use `labelgate` as installed"
        )
    verb = request.pop("verb", None)
    if not isinstance(verb, str):
        raise ControlError("request", "expected a verb")
    return verb, request


def result_line(result: dict[str, Any]) -> bytes:
    """An answer."""
    return _line({"version": VERSION, "result": result})


def error_line(error: ControlError) -> bytes:
    """An answer that says why there is none."""
    words = {"code": error.code, "message": str(error), "details": error.details}
    return _line(
        {"version": VERSION, "error": {key: word for key, word in words.items() if word is not None}}
    )


def read_answer(line: bytes) -> dict[str, Any]:
    """The result.

    Raises:
        ControlError: the daemon says why there is none, or this is no answer of this version.
    """
    answer = _read(line, "answer")
    if answer.get("version") != VERSION:
        raise ControlError("version", f"the daemon speaks another version than {VERSION}: restart it")
    if isinstance(error := answer.get("error"), dict):
        raise ControlError(str(error.get("code")), str(error.get("message")), error.get("details"))
    result = answer.get("result")
    if not isinstance(result, dict):
        raise ControlError("answer", "expected a result")
    return result


def _read(line: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    # ValueError: also text that is no UTF-8, and numbers of too many digits.
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ControlError(what, "expected one JSON object per line")
    return value


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
