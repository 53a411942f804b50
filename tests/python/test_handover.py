"""One daemon after the other, over a socket whose other end does what it should not."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from labelgate.agent import AgentError, handover
from labelgate.agent.handover import BUSY, DONE, READY, Presence


@pytest.fixture(autouse=True)
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"\0labelgate-test-{os.getpid()}"
    monkeypatch.setattr(handover, "NAME", name)
    return name


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def in_force(said: list[str]) -> Iterator[Presence]:
    with Presence(said.append) as presence:
        yield presence


def connect(name: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(30)
    opened.connect(name)
    return opened


def test_a_successor_that_gave_up_ends_nothing(in_force: Presence, name: str) -> None:
    connect(name).close()
    assert not in_force.is_replaced()
    assert not in_force.is_pending
    with connect(name) as successor:
        assert not in_force.is_replaced()
        assert successor.recv(1) == READY
        successor.send(DONE)
        assert in_force.is_replaced()


def test_a_successor_has_its_time(
    in_force: Presence, name: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(name) as successor:
        assert not in_force.is_replaced()
        assert in_force.is_pending
        monkeypatch.setattr(handover, "PENDING_SECONDS", -1.0)
        assert not in_force.is_replaced()
        assert not in_force.is_pending
        assert (successor.recv(1), successor.recv(1)) == (READY, b"")
    assert [line.endswith("did not come into force in time") for line in said] == [True]


def test_done_in_the_last_moment_counts(
    in_force: Presence, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(name) as successor:
        assert not in_force.is_replaced()
        successor.send(DONE)
        monkeypatch.setattr(handover, "PENDING_SECONDS", -1.0)
        assert in_force.is_replaced()


def test_nobody_is_let_in_during_a_trial(in_force: Presence, name: str) -> None:
    with connect(name) as successor:
        assert not in_force.is_replaced(is_busy=True)
        assert not in_force.is_pending
        assert (successor.recv(1), successor.recv(1)) == (BUSY, b"")


def test_a_successor_asks_only_when_it_is_prepared(in_force: Presence, said: list[str]) -> None:
    """And is told why not."""
    with Presence(said.append, replace=True) as successor:
        assert successor.replaces
        assert not in_force.is_replaced()
        assert not in_force.is_pending
        is_over = threading.Event()

        def work() -> None:
            while not is_over.wait(0.005):
                in_force.is_replaced(is_busy=True)

        thread = threading.Thread(target=work)
        thread.start()
        with pytest.raises(AgentError, match="has a policy on trial"):
            successor.announce()
        is_over.set()
        thread.join()


def test_behind_done_the_successor_waits(name: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it takes, and until the name is free."""
    monkeypatch.setattr(handover, "SECONDS", 0.5)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        with Presence(said.append, replace=True) as successor:
            thread = threading.Thread(target=end_slowly, args=(listener, said))
            thread.start()
            successor.announce()
            successor.take_over()
            thread.join()
            assert not successor.replaces
            assert len(successor.descriptors) == 1
    assert "warning: the daemon that is replaced has not ended yet; waiting" in said


def end_slowly(listener: socket.socket, said: list[str]) -> None:
    """Answers, ends the connection after two warnings, and frees the name a moment later."""
    connection, _ = listener.accept()
    connection.send(READY)
    connection.settimeout(30)
    assert connection.recv(1) == DONE
    deadline = time.monotonic() + 30
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    connection.close()
    time.sleep(0.2)
    listener.close()


def test_the_name_of_somebody_else(name: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        monkeypatch.setattr(handover, "_is_ours", lambda _: False)
        with (
            Presence(said.append, replace=True) as successor,
            pytest.raises(AgentError, match="somebody else"),
        ):
            successor.announce()
