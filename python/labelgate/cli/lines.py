"""Questions in bulk: JSON lines in, one answer a line out, in order, with constant memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from labelgate.cli.options import EnvironmentProblem
from labelgate.errors import Portable
from labelgate.flow import FieldError

DISAGREEMENT = 4
"""The exit code if table and reference disagree anywhere."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Disagreement(Portable):
    """Table and reference answer differently: a bug of ours, never the user's."""

    def __init__(self, table: dict[str, Any], reference: dict[str, Any]) -> None:
        super().__init__("table and reference disagree")
        self.answers = {"table": table, "reference": reference}


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"`{text}` is no number")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(path, "rb") as lines:
            yield lines
    except OSError as error:
        raise EnvironmentProblem(f"{path}: {error.strerror}") from None


def answer_lines(path: str, answer: Callable[[Any], dict[str, Any]]) -> int:
    """Answers every line of a file or of standard input (`-`); the exit code.

    `answer` gets one decoded line and returns the answer without `id`. A line that cannot be read or that it
    refuses with `FieldError` is answered with the error. Every answer is written out at once, so that a
    program may ask and wait.
    """
    status = 0
    with _opened(path) as lines:
        for line in lines:
            if line.isspace():
                continue
            identity, found = _answer_line(answer, line)
            if "error" in found and "table" in found["error"]:
                status = DISAGREEMENT
            sys.stdout.write(_encode({"id": identity, **found}) + "\n")
            sys.stdout.flush()
    return status


def _answer_line(answer: Callable[[Any], dict[str, Any]], line: bytes) -> tuple[Any, dict[str, Any]]:
    """The `id` of a line and its answer."""
    identity: Any = None
    try:
        question = _decode(line.decode().rstrip())
        identity = question.get("id") if isinstance(question, dict) else None
        return identity, answer(question)
    except FieldError as error:
        return identity, _error(error.message, error.field or None)
    except Disagreement as error:
        return identity, {"error": {"message": str(error), "field": None, **error.answers}}
    except json.JSONDecodeError as error:
        return identity, _error(f"not JSON: {error.msg} at column {error.colno}", None)
    except UnicodeDecodeError as error:
        return identity, _error(f"not UTF-8: byte {line[error.start]:#04x} at {error.start + 1}", None)
    except RecursionError:
        return identity, _error("not JSON: nested too deeply", None)
    except ValueError as error:
        return identity, _error(f"not JSON: {error}", None)


def _error(message: str, field: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "field": field}}
