"""What all tests need."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def _heeding_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT, and what they start inherits it: tests wait for it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
