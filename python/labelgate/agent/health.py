"""Whether the daemon is live (its workers come round) and ready (it enforces), part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labelgate.agent.enforcement import Enforcement
from labelgate.agent.pulse import LIVE_SECONDS


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that must be as it should."""

    name: str
    problem: str | None
    """None: it is."""


@dataclass(frozen=True, slots=True)
class Health:
    """All parts at one instant."""

    live: tuple[Part, ...]
    ready: tuple[Part, ...]

    @property
    def is_live(self) -> bool:
        """Every worker has come round its loop lately."""
        return not any(part.problem for part in self.live)

    @property
    def is_ready(self) -> bool:
        """The table is in force, rules of ours are in the kernel, and their queues are bound."""
        return not any(part.problem for part in self.ready)

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        problems = [f"{part.name}: {part.problem}" for part in (*self.live, *self.ready) if part.problem]
        return {"live": self.is_live, "ready": self.is_ready, "problems": problems}


def health(enforcement: Enforcement) -> Health:
    """As it is now; any thread may ask."""
    return Health(tuple(_workers(enforcement)), tuple(_enforces(enforcement)))


def table(parts: tuple[Part, ...]) -> str:
    """One line for each part.

    >>> print(table((Part("worker 0", None), Part("worker 1", "silent for 7 s"))), end="")
    worker 0: ok
    worker 1: silent for 7 s
    """
    return "".join(f"{part.name}: {part.problem or 'ok'}\n" for part in parts)


def _workers(enforcement: Enforcement) -> Iterator[Part]:
    for number, silent in enumerate(enforcement.pulse.silent()):
        yield Part(f"worker {number}", f"silent for {silent:.0f} s" if silent > LIVE_SECONDS else None)


def _enforces(enforcement: Enforcement) -> Iterator[Part]:
    yield Part("table", None if enforcement.is_answering() else "the packet loop has ended")
    yield Part("rules", enforcement.rules_problem())
    unbound = [number for row in enforcement.queues() for number in row["unbound"]]
    yield Part("queues", f"not bound: {', '.join(map(str, unbound))}" if unbound else None)
