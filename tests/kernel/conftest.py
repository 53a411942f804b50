"""Real packets in network namespaces of our own. Without root these tests fail; they are not skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import policies
import pytest
from labelgate.agent.handover import socket_path
from labelgate.demo.world import EDGE, World


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    assert os.geteuid() == 0, "kernel tests make network namespaces and netfilter rules: run them as root"


@pytest.fixture
def world() -> Iterator[World]:
    """A world of its own for each test, removed also when the test fails."""
    with World() as world:
        lock = world.call(EDGE, socket_path)
        yield world
    for left in (lock, lock.with_suffix(".lock")):  # By a daemon that was killed.
        left.unlink(missing_ok=True)


@pytest.fixture(params=["nft", "legacy"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both variants of iptables."""
    return str(request.param)


@pytest.fixture
def management(tmp_path: Path) -> Path:
    """A file with `policies.MANAGEMENT`."""
    path = tmp_path / "management.yaml"
    path.write_text(policies.MANAGEMENT, encoding="utf-8")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which rows of the cases no packet could show, and why."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [Counter(value) for report in reports for name, value in report.user_properties if name == "rows"]
    if rows := sum(found, Counter()):
        terminalreporter.section("rows of the cases")
        for words, count in rows.most_common():
            terminalreporter.line(f"{count:5} {words}")
