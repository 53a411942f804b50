"""What `labelgate apply` refuses before it asks a daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from labelgate.cli import cli


@pytest.mark.parametrize("time", ["0s", "0", "86401s", "2000m", "soon", "-1s"])
def test_a_trial_of_no_time_or_of_days(time: str, tmp_path: Path) -> None:
    """A wrong option is one of usage (2), not a policy that the daemon refuses (1)."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("")
    asked = ["apply", "-f", str(policy), "--socket", str(tmp_path / "nobody"), "--confirm"]
    done = CliRunner().invoke(cli, [*asked, time])
    assert (done.exit_code, "--confirm" in done.stderr) == (2, True)
    assert CliRunner().invoke(cli, [*asked, "86400s"]).exit_code == 3
