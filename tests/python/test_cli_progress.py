"""The bar that says how far reading is."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from labelgate.cli.progress import PATIENCE_SECONDS, ProgressBar

TIER = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: outer}\n"
SHOWN, ERASED = "reading policies", "\x1b[2K"
VERBS = {
    "check": (),
    "explain": (
        "--node",
        "edge1",
        "--in",
        "eth0",
        "--src",
        "192.0.2.5",
        "--dst",
        "10.0.0.1",
        "--protocol",
        "1",
    ),
    "connectivity": ("--matrix", "--port", "80"),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """In place of standard error, from now on: pytest puts its own there when a test begins."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    return screen


def test_only_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, screen = 0.0, terminal(monkeypatch)
    with ProgressBar(lambda: now) as progress:
        progress(0, 1000)
        now = PATIENCE_SECONDS - 0.01
        progress(499, 1000)
        assert screen.getvalue() == ""
        now = PATIENCE_SECONDS
        progress(500, 1000)
        assert SHOWN in screen.getvalue()
        progress(1000, 1000)
        assert "50%" in screen.getvalue()
        assert screen.getvalue().endswith(ERASED)
        progress(0, 1000)  # Another reading has a second of its own.
        progress(1, 1000)
        assert screen.getvalue().endswith(ERASED)


def test_it_goes_away_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    times, screen = iter((0.0, PATIENCE_SECONDS)), terminal(monkeypatch)
    with contextlib.suppress(KeyboardInterrupt), ProgressBar(lambda: next(times)) as progress:
        progress(0, 1000)
        progress(1, 1000)
        raise KeyboardInterrupt
    assert screen.getvalue().endswith(ERASED)


def slowly(pipe: Path, text: str) -> None:
    """Writes a file whose reading takes longer than the bar has patience."""
    deadline = time.monotonic() + 60
    while True:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:  # Nobody reads it yet.
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with os.fdopen(writer, "w") as file:
        file.write(text)
        file.flush()
        time.sleep(PATIENCE_SECONDS + 0.1)


def heard(master: int) -> Iterator[bytes]:
    """What is written to a terminal until nobody has it open any more."""
    while True:
        try:
            yield os.read(master, 65536)
        except OSError:
            return


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_verbs_show_it_on_terminals_only(verb: str, is_terminal: bool, tmp_path: Path) -> None:
    slow, other = tmp_path / "slow.yaml", tmp_path / "other.yaml"
    os.mkfifo(slow)
    other.write_text(TIER.replace("outer", "inner"))
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "labelgate", verb, "-f", str(slow), "-f", str(other), *VERBS[verb]]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    error = slave if is_terminal else subprocess.PIPE
    with subprocess.Popen(words, **streams, stderr=error, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(slave)
        slowly(slow, TIER)
        said, plain = process.communicate(timeout=60)
    on_terminal = b"".join(heard(master)).decode()
    os.close(master)
    assert (process.returncode, SHOWN in said.decode()) == (0, False)
    assert (SHOWN in on_terminal) is is_terminal
    assert is_terminal or SHOWN not in plain.decode()
