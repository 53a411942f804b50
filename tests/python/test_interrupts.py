"""Signals that are held back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from labelgate.interrupts import held_back

BOTH = (signal.SIGUSR1, signal.SIGUSR2)


class Came(Exception):
    pass


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """What handlers were called for; that of SIGUSR1 raises `Came`."""
    numbers: list[int] = []

    def handle(number: int, _frame: Any) -> None:
        numbers.append(number)
        if number == signal.SIGUSR1:
            raise Came

    before = {number: signal.signal(number, handle) for number in BOTH}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("order", [BOTH, BOTH[::-1]])
def test_each_signal_that_came_is_handled_at_the_end(
    order: tuple[signal.Signals, ...], handled: list[int]
) -> None:
    """In their order, each once, also where the handler of one raises."""
    done = []

    def hold() -> None:
        with held_back(*BOTH):
            for number in order * 2:
                signal.raise_signal(number)
            done.extend(handled)

    with pytest.raises(Came):
        hold()
    assert (done, handled) == ([], list(order))
