"""A worker that hangs, and what the daemon says of its health."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from labelgate.agent import AgentError, enforcement
from labelgate.agent.pulse import Pulse
from test_agent import Kernel, kernel, policy, run  # noqa: F401


def test_a_worker_that_hangs_ends_the_daemon(
    kernel: Kernel,  # noqa: F811
    policy: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody knows what it holds: the rules stay, closed, and whoever started us starts anew."""
    turns = itertools.count()
    monkeypatch.setattr(enforcement, "Pulse", lambda turns: Pulse(turns, itertools.count().__next__))
    kernel.turns = lambda: [next(turns), min(next(turns), 20)]
    kernel.steps = [lambda: None] * 100
    with pytest.raises(AgentError, match=r"worker 1 has not come round for 10 s\); our rules stay"):
        run(policy)
    assert len(kernel.steps) in range(70, 90)
    assert kernel.touched == ["bound", "applied", "stopped"]
