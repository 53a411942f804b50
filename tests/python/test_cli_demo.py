"""What `labelgate demo` makes of what was seen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib import import_module

import pytest
from click.testing import CliRunner
from labelgate.cli import cli
from labelgate.demo.acts import Row

DEMO = import_module("labelgate.cli.demo")  # By attribute it is the command.


@pytest.mark.parametrize(("seen", "wrong"), [("passes", 0), ("denied", 1)])
def test_exit_code_tells_of_any_difference(seen: str, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(*_: object) -> Iterator[Row]:
        yield Row("workload", "client to db", "denied", "denied", "rule 0")
        yield Row("workload", "client to web", "passes", seen, "rule 1")

    monkeypatch.setattr(DEMO, "perform", perform)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # This process keeps its own.
    done = CliRunner().invoke(cli, ["demo"])
    assert done.exit_code == wrong
    assert f"2 observations, {wrong} not as expected" in done.stdout
