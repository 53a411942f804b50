"""A start at which the configuration cannot be read: the one that was in force last, or none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from labelgate.agent import last_config
from labelgate.agent.last_config import state_folder
from labelgate.agent.state import State
from labelgate.cli import cli
from labelgate.config import config_of, kept_texts, load_config
from labelgate.settings import Failsafe
from labelgate.sources.cache import FileCache
from test_agent import POLICY, TWIN, Kernel

pytest_plugins = ["test_agent"]

CONFIG = "node: edge1\npolicies: [{policy}]\nstop: remove\nwatch: false\nqueues: {{base: 5200}}\n"


@pytest.fixture
def config(policy: Path, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(policy=policy), encoding="utf-8")
    return path


@pytest.fixture
def as_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("INVOCATION_ID", "x")
    return


def run(config: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["run", "--config", str(config), *options])


def told(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if not line.startswith("engines:")]


@pytest.mark.parametrize("slip", ["queues: {base: many}", "queue: 1", "kind: [", None], ids=str)
def test_a_slip_does_not_leave_a_host_without_policy(
    slip: str | None, kernel: Kernel, config: Path, as_service: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """A value, a key, no YAML, no file: policy and configuration of before are in force, and it says so."""
    assert run(config).exit_code == 0
    if slip is None:
        config.unlink()
    else:
        config.write_text(slip, encoding="utf-8")
    kernel.touched.clear()
    capfd.readouterr()
    assert run(config).exit_code == 0
    said = told(capfd)
    assert said[0].startswith(str(config))
    assert "the configuration is not valid: the one that was in force last is taken" in said
    assert "the policy that was in force last is put in force again" in said
    assert said[-2].startswith("generation 1 in force: node edge1, 1 host endpoints")
    assert kernel.touched == ["bound", "applied", "cleaned", "stopped"]


@pytest.mark.parametrize(
    ("right", "wrong", "why"),
    [
        ("policies: [", "policies: [/nowhere, ", "/nowhere: no such file or folder"),
        ("policies: [", "policies: [/nowhere] # ", "/nowhere: no such file or folder"),
        ("node: edge1", "node: edgel", "no endpoint names node `edgel`"),
    ],
)
def test_neither_does_a_valid_one_that_is_of_nothing(
    right: str,
    wrong: str,
    why: str,
    kernel: Kernel,
    config: Path,
    as_service: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Other paths, or another node, than those that the policy in force last was of."""
    assert run(config).exit_code == 0
    config.write_text(config.read_text(encoding="utf-8").replace(right, wrong), encoding="utf-8")
    for _ in range(2):  # The second start is of what the first one has kept.
        kernel.touched.clear()
        capfd.readouterr()
        assert run(config).exit_code == 0
        said = told(capfd)
        assert any(why in line for line in said[:2])
        assert any(line.endswith("is put in force again") for line in said)
        is_of_then = "no endpoint names the node: the configuration that was in force last is taken" in said
        assert is_of_then == right.startswith("node")
        assert said[-2].startswith("generation 1 in force: node edge1, 1 host endpoints")
        assert kernel.touched == ["bound", "applied", "cleaned", "stopped"]


@pytest.mark.parametrize("start", ["", "start: last-good\n"])
def test_what_was_given_by_hand_is_no_policy_of_a_service(
    start: str,
    kernel: Kernel,
    config: Path,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of other paths: somebody has tried something, and the same state was at hand."""
    config.write_text(CONFIG.format(policy="/nowhere") + start, encoding="utf-8")
    assert run(config, "-f", str(policy)).exit_code == 0
    monkeypatch.setenv("INVOCATION_ID", "x")
    kernel.touched.clear()
    capfd.readouterr()
    assert (run(config).exit_code, kernel.touched) == (1, [])
    assert f"the policy that was in force last is not taken: {policy} may have been given by hand" in told(
        capfd
    )


def test_what_the_lockout_check_refused_stays_refused(
    kernel: Kernel,
    config: Path,
    policy: Path,
    tmp_path: Path,
    as_service: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also where the policy in force last was of other paths."""
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.replace("eth0", "eth1"), encoding="utf-8")
    assert run(config).exit_code == 0
    config.write_text(CONFIG.format(policy=other), encoding="utf-8")
    cache = FileCache()
    cache.read((str(other),), lambda *_: None)
    with State(str(tmp_path / "state")) as opened:
        record = opened.read()
        assert record is not None
        opened.write(replace(record, refused=cache.digest))
    capfd.readouterr()
    assert run(config).exit_code == 0
    said = told(capfd)
    assert any("the files are those that the lock-out check refused" in line for line in said)
    assert any(f"in force last, of {policy}, is put in force again" in line for line in said)


def test_a_slip_that_is_mended_is_followed(
    kernel: Kernel, config: Path, policy: Path, as_service: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """As long as it is there, edits of the policies are refused."""
    good = config.read_text(encoding="utf-8")
    run(config)
    config.write_text("kind: [", encoding="utf-8")
    policy.write_text(f"{POLICY}---{TWIN}", encoding="utf-8")

    def mend() -> None:
        config.write_text(good, encoding="utf-8")
        os.kill(os.getpid(), signal.SIGHUP)

    kernel.steps = [lambda: os.kill(os.getpid(), signal.SIGHUP), mend]
    capfd.readouterr()
    assert run(config).exit_code == 0
    said = told(capfd)
    assert "generation 1 stays in force: the new configuration is not valid" in said
    assert said[-2].startswith("generation 2 in force")


def test_a_pipe_in_its_place_is_not_waited_for(
    kernel: Kernel, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config.unlink()
    os.mkfifo(config)
    done = run(config)
    assert (done.exit_code, kernel.touched) == (3, [])
    assert done.output == f"Error: {config}: not a regular file\n"


@pytest.mark.parametrize("why", ["by hand", "strict", "first start", "of before", "damaged"])
def test_what_is_not_there_is_not_made_up(
    why: str, kernel: Kernel, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is touched then: rules that are there stay."""
    if why != "by hand":
        monkeypatch.setenv("INVOCATION_ID", "x")
    if why == "strict":
        config.write_text(config.read_text(encoding="utf-8") + "start: strict\n", encoding="utf-8")
    if why != "first start":
        assert run(config).exit_code == 0
    state = tmp_path / "state"
    if why == "of before":  # What a version wrote that kept no configuration.
        with State(str(state)) as opened:
            record = opened.read()
            assert record is not None
            record.confirmed.config.clear()  # type: ignore[attr-defined]
            opened.write(record)
    if why == "damaged":
        (state / "policy.json").write_text("{}", encoding="utf-8")
    config.write_text("kind: [", encoding="utf-8")
    kernel.touched.clear()
    done = run(config)
    assert (done.exit_code, kernel.touched) == (3, [])
    assert done.output.startswith(f"Error: {config}:1")


def test_the_command_line_has_the_last_word(kernel: Kernel, config: Path, as_service: None) -> None:
    run(config)
    config.write_text("kind: [", encoding="utf-8")
    found = last_config(str(config), None, {"queues.base": 7000, "socket": None})
    assert found is not None
    assert (found.queue_base, found.node, found.stop) == (7000, "edge1", "remove")


def test_the_state_is_found_in_a_file_that_is_no_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("kind: [\nstate: '/srv/state' # here\n", encoding="utf-8")
    monkeypatch.delenv("LABELGATE_STATE", raising=False)
    assert state_folder(str(config), {}) == "/srv/state"
    assert state_folder(None, {"state": None}) == "/var/lib/labelgate"
    monkeypatch.setenv("LABELGATE_STATE", "/srv/environment")
    assert state_folder(str(config), {}) == "/srv/environment"
    assert state_folder(str(config), {"state": "/srv/flag"}) == "/srv/flag"


def test_what_is_kept_is_read_as_it_was(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "node: edge1\nmarks: {mask: '0x70'}\nfail: {filter-forward: open}\nlogPrefix: ''\nsettle: 500ms\n"
        "failsafeInboundHostPorts: none\nfailsafeOutboundHostPorts: ['udp:[fd00::/8]:53', 22]\n"
        "queues: {cpus: [0, 1], workers: 2}\nexemptLoopback: true\ninterfacePrefix: [cali, tap]\n",
        encoding="utf-8",
    )
    before = load_config(str(config), environ={})
    after = config_of(kept_texts(before), "kept", {})
    assert {key: given.value for key, given in after.sources.items()} == {
        key: given.value for key, given in before.sources.items()
    }
    assert after.settings == before.settings
    assert Failsafe(6, 22) in after.settings.failsafe_outbound
    assert len(kept_texts(load_config(None, environ={}))) == 1, "the node alone"
