"""How much is said of what comes again and again: with a clock of the tests."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from labelgate.agent.rate_limit import RateLimited


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_many_warnings_become_few(clock: Clock) -> None:
    said: list[str] = []
    limited = RateLimited(said.append, "changes of our rules", clock)
    for number in range(25):
        limited(str(number))
    assert said == [str(number) for number in range(10)]
    limited.catch_up()
    assert len(said) == 10
    clock.now += 60
    limited.catch_up()
    assert said[10:] == ["warning: and 15 more changes of our rules within a minute"]
    limited("again")
    clock.now += 60
    limited.catch_up()
    assert said[11:] == ["again"]


def test_what_was_left_out_is_said_once(clock: Clock) -> None:
    """By whichever thread finds the time passed; the other one is held while it says so."""
    said: list[str] = []
    together = threading.Barrier(2)

    def say(text: str) -> None:
        said.append(text)
        if " more " in text:
            with suppress(threading.BrokenBarrierError):
                together.wait(0.2)

    limited = RateLimited(say, "messages", clock)
    for _ in range(RateLimited.MOST + 5):
        limited("early")
    clock.now += 60
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(limited, ["late", "late"]))
    assert said[RateLimited.MOST :] == ["warning: and 5 more messages within a minute", "late", "late"]
