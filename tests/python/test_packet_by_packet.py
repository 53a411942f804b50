"""The loop of the package NetfilterQueue, on queues that are not there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from labelgate import load
from labelgate.flow import HOOKS
from labelgate.handlers import netfilterqueue
from labelgate.handlers.netfilterqueue import NetfilterQueueLoop
from test_agent import POLICY

PACKET = SimpleNamespace(drop=lambda: None)
BATCH = 3


class Queue:
    """In the place of the package's; each has a socket that `answer` makes readable."""

    made: list[Queue]

    def __init__(self) -> None:
        self.made.append(self)
        self.ours, self.theirs = socket.socketpair()

    def bind(self, number: int, callback: Callable[[Any], None], **_: int) -> None:
        self.callback = callback

    def get_fd(self) -> int:
        return self.ours.fileno()

    def run_socket(self, _: object) -> None:
        self.ours.recv(1)
        for _packet in range(BATCH):
            self.callback(PACKET)

    def unbind(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetfilterQueueLoop]:
    monkeypatch.setattr(Queue, "made", [], raising=False)
    monkeypatch.setattr(netfilterqueue, "NetfilterQueue", Queue)
    monkeypatch.setitem(netfilterqueue._SAY, netfilterqueue.DROP, lambda packet: packet.drop())
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    table = load(policy).compile(node="edge1").core
    flags = {"malformed_accept": False, "filter_reject": False, "filter_return": False}
    each = [False] * len(HOOKS)
    made = NetfilterQueueLoop(
        table, [], base=1, maxlen=1, marks=(1, 2, 4), fail_open=each, without_repeat=each, **flags
    )
    yield made
    made.stop()


def test_each_packet_is_a_turn(loop: NetfilterQueueLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that takes a fifth of a second for each of a whole batch has not hung."""
    seen: list[int] = []

    def reply(*_: object) -> tuple[int, None]:
        seen.extend(loop.turns())
        return netfilterqueue.DROP, None

    monkeypatch.setattr(netfilterqueue._Queue, "_reply", reply)
    Queue.made[0].theirs.send(b"p")
    assert loop.drain(30)
    assert len(seen) == len(set(seen)) == BATCH
