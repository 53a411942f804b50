"""The policies that people start from are valid, complete, shown in a case, and their commands work."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path

import labelgate
import pytest
from cases import FOLDER, load_cases
from click.testing import CliRunner
from labelgate.cli import cli
from labelgate.config import load_config

EXAMPLES = Path(str(files("labelgate"))) / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_missing(name: str) -> None:
    snapshot = labelgate.load(EXAMPLES / name)
    (node, *_) = snapshot.nodes()
    assert snapshot.warnings == []
    assert snapshot.compile(node=node).warnings == []


@pytest.mark.parametrize("name", NAMES)
def test_the_command_in_the_head_of_a_file_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    text = (EXAMPLES / name).read_text().replace("\\\n#", "")
    (command,) = re.findall(r"^#   labelgate (explain .*)$", text, re.MULTILINE)
    result = CliRunner().invoke(cli, shlex.split(command))
    last = result.output.strip().splitlines()[-1]
    assert (result.exit_code, last.split()[0]) in ((0, "delivered:"), (1, "denied")), result.output
    assert "unknown workload" not in last


def test_every_example_is_a_case() -> None:
    linked = {case.policy.resolve().name for case in load_cases() if case.policy.is_symlink()}
    assert sorted(linked) == NAMES


def test_the_readme_names_every_example() -> None:
    named = re.findall(r"^\| `(.*)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == NAMES


def test_a_case_has_the_settings_that_its_felix_configuration_gives() -> None:
    (case,) = [case for case in load_cases() if case.policy.resolve().name == "bastion-host.yaml"]
    assert FOLDER / case.name == case.policy.parent
    felix = case.snapshot().felix_configurations
    assert load_config(None, felix, case.node, environ={}).settings == case.settings
