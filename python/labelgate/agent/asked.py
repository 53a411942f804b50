"""What comes in at the control socket, checked."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Self

from labelgate.agent.generation import Generation
from labelgate.agent.state import encoded
from labelgate.control import MOST_TRIAL_SECONDS, ControlError
from labelgate.flow import TCP
from labelgate.lockout import Finding, Flow
from labelgate.sources.emptied import emptied


@dataclass(frozen=True)
class Trial:
    """A policy in force that is rolled back unless somebody confirms it."""

    before: Generation
    until: float
    """By the monotonic clock."""

    def seconds_left(self) -> float:
        """Never below 0."""
        return max(0.0, self.until - time.monotonic())

    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.until


@dataclass(frozen=True)
class Asked:
    """Policies that somebody wants to be in force, or to know about."""

    paths: tuple[str, ...]
    texts: tuple[tuple[str, bytes], ...]
    confirm: float | None
    """Seconds of a trial."""
    is_forced: bool
    session: Flow | None
    """The connection over which it is asked, if it is one over SSH."""

    def told(self, found: Iterable[Finding], before: Generation, after: Generation) -> dict[str, Any]:
        """For the control socket: what was found, and warnings of texts that hold nothing any more."""
        held, holds = _counts(before), _counts(after)
        warnings = emptied(held, {name: holds[name] for name, _ in self.texts})
        return {"findings": [finding.to_json() for finding in found], "warnings": list(warnings)}

    @classmethod
    def read(cls, arguments: Mapping[str, Any]) -> Self:
        """ControlError if this is not what is expected."""
        refuse_unknown(arguments, "paths", "texts", "confirm", "force", "session")
        try:
            paths = tuple(_text(path) for path in arguments["paths"])
            texts = tuple((_text(name), encoded(_text(text))) for name, text in arguments["texts"])
            session = None if (words := arguments.get("session")) is None else read_session(words)
        except (KeyError, TypeError, ValueError):
            raise ControlError("request", "expected paths, texts with their names, and a session") from None
        return cls(paths, texts, _seconds(arguments.get("confirm")), arguments.get("force") is True, session)


def _counts(generation: Generation) -> Counter[str]:
    """How many resources are from each file."""
    return Counter(os.path.abspath(resource.location.file) for resource in generation.snapshot.resources())


def read_session(words: Any) -> Flow:
    """From SSH_CONNECTION: address and port of the client, then of the server; ValueError if it is none."""
    src, sport, dst, dport = _text(words).split()
    client, server = (ip_address(address.partition("%")[0]) for address in (src, dst))
    ports = int(sport), int(dport)
    if client.version != server.version or not all(0 < port < 65536 for port in ports):
        raise ValueError
    return Flow(TCP, client, server, *ports)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST_TRIAL_SECONDS:
        return value
    raise ControlError("request", f"confirm: expected seconds up to {MOST_TRIAL_SECONDS:g}")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError


def refuse_unknown(arguments: Mapping[str, object], *known: str) -> None:
    """ControlError where a request has arguments that its verb does not."""
    if unknown := sorted(arguments.keys() - set(known)):
        raise ControlError("request", f"unknown argument `{unknown[0]}`")
