"""What the daemon opens is closed where its start fails half-way."""

from __future__ import annotations

import gc
import os
import selectors
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from labelgate.agent import handover
from labelgate.agent.events import EventLog
from labelgate.agent.handover import Presence
from labelgate.agent.process import Signals
from labelgate.control import ControlServer


class Failure(BaseException):
    """As Ctrl-C, wherever it comes."""


def fail(*_: object, **__: object) -> Any:
    raise Failure


def control_socket(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(selectors.EpollSelector, "register", fail)
    ControlServer(str(folder / "control.sock"), {}, fail)


def presence(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(handover, "FOLDER", folder)
    patch.setattr(handover, "Claim", fail)
    Presence(fail)


def signals(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(signal, "set_wakeup_fd", fail)
    with Signals():
        pass


def journal(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(threading.Thread, "start", fail)
    config = SimpleNamespace(event_file=str(folder / "events"), event_journal=True)
    first = SimpleNamespace(number=1, links=SimpleNamespace(indexes=[]), config=config)
    EventLog(cast(Any, None), cast(Any, first), fail)


@pytest.mark.parametrize("start", [control_socket, presence, signals, journal])
def test_nothing_is_left_open(
    start: Callable[[pytest.MonkeyPatch, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = {number: signal.getsignal(number) for number in Signals.NUMBERS}
    before = os.listdir("/proc/self/fd")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with monkeypatch.context() as patch:
            try:
                start(patch, tmp_path)
            except Failure:
                is_over = True
        gc.collect()
    assert is_over
    assert [str(one.message) for one in found if one.category is ResourceWarning] == []
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert {number: signal.getsignal(number) for number in Signals.NUMBERS} == handlers
