"""Programs of iptables that fail, made for the test: what is told, and what is put back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from labelgate.netfilter import apply
from labelgate.netfilter.apply import ApplyError, Tools

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a program; there are no others."""
    monkeypatch.setattr(apply, "_SEARCH", str(tmp_path))

    def made(name: str, script: str) -> Path:
        program = tmp_path / name
        program.write_text(script, encoding="utf-8")
        program.chmod(0o755)
        return program

    return made


def test_a_program_that_cannot_be_run(install: Install) -> None:
    install("iptables-nft-save", "#!/nowhere/sh\n")
    with pytest.raises(ApplyError, match="cannot be run: No such file or directory"):
        Tools("nft").read("v4")
