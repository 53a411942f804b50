"""What `labelgate apply` refuses before it asks a daemon."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from labelgate.cli import cli

apply = import_module("labelgate.cli.apply")


@pytest.mark.parametrize("time", ["0s", "0", "86401s", "2000m", "soon", "-1s"])
def test_a_trial_of_no_time_or_of_days(time: str, tmp_path: Path) -> None:
    """A wrong option is one of usage (2), not a policy that the daemon refuses (1)."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("")
    asked = ["apply", "-f", str(policy), "--socket", str(tmp_path / "nobody"), "--confirm"]
    done = CliRunner().invoke(cli, [*asked, time])
    assert (done.exit_code, "--confirm" in done.stderr) == (2, True)
    assert CliRunner().invoke(cli, [*asked, "86400s"]).exit_code == 3


@pytest.mark.parametrize(
    "words", ["UNKNOWN 65535 UNKNOWN 65535", "", "192.0.2.5 40000 198.51.100.10", "\x1b"]
)
def test_a_session_of_no_connection_is_ignored(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As sshd tells one that is none of IP: the daemon had refused the request, as one without paths."""
    monkeypatch.setattr(apply, "_ssh_connection", lambda: words)
    assert apply.ssh_session() is None
    told = capsys.readouterr().err
    assert told.startswith("warning: SSH_CONNECTION names no connection: `")
    assert "\x1b" not in told


def test_a_session_over_ssh_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "_ssh_connection", lambda: "192.0.2.5 40000 198.51.100.10 22")
    assert apply.ssh_session() == "192.0.2.5 40000 198.51.100.10 22"
    monkeypatch.setattr(apply, "_ssh_connection", lambda: None)
    assert apply.ssh_session() is None
