"""The systemd unit and the container's manifest: what systemd says of it, and that both ask for the same."""

from __future__ import annotations

import configparser
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from labelgate.agent import exporter, handover
from labelgate.agent.notify import PATIENCE_SECONDS, ServiceManager
from labelgate.cli import cli
from labelgate.cli.install_unit import unit
from labelgate.config import load_config
from labelgate.doctor import files as doctor_files
from labelgate.doctor.files import installation

MOST_EXPOSED = 2.5
"""`systemd-analyze security`: 10 is a service without any bounds."""
MANIFEST = Path(__file__).parents[2] / "deploy" / "daemonset.yaml"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    done = CliRunner().invoke(cli, ["install-unit", "--install", "--folder", str(tmp_path)])
    assert done.exit_code == 0
    return tmp_path / "labelgate.service"


def section(name: str) -> dict[str, str]:
    reader = configparser.ConfigParser(interpolation=None, strict=False)
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    reader.read_string(unit())
    return dict(reader[name])


def test_it_is_printed_as_it_is_installed(installed: Path) -> None:
    assert CliRunner().invoke(cli, ["install-unit"]).output == installed.read_text() == unit()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["install-unit", "--install", "--folder", str(tmp_path / "no")])
    assert done.exit_code == 3


def test_systemd_understands_it(installed: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_it_hardened(installed: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for labelgate.service: ([0-9.]+)", done.stdout)
    assert found
    assert float(found[1]) <= MOST_EXPOSED


def test_it_is_there_before_the_network(installed: Path) -> None:
    words = section("Unit")
    assert "network-pre.target" in words["Before"].split()
    assert words["Wants"] == "network-pre.target"
    assert words["DefaultDependencies"] == "no"


def test_what_others_have_in_the_run_directory_stays() -> None:
    """The lock by which two daemons are kept apart, and the socket of one that has taken the unit's place."""
    words = section("Service")
    assert (words["RuntimeDirectory"], words["RuntimeDirectoryPreserve"]) == ("labelgate", "yes")
    assert str(handover.FOLDER) == "/run/labelgate"
    assert load_config(None, environ={}).socket.startswith("/run/labelgate/")


def test_events_can_be_written_to_its_logs() -> None:
    """`ProtectSystem=strict` leaves nothing else to write to; headers of packets are root's alone."""
    words = section("Service")
    assert (words["LogsDirectory"], words["LogsDirectoryMode"]) == ("labelgate", "0700")
    assert "/var/log/labelgate" in section("Unit")["RequiresMountsFor"].split()


def test_it_is_spared_when_memory_runs_out() -> None:
    assert -1000 < int(section("Service")["OOMScoreAdjust"]) <= -900


def test_a_stop_signals_the_daemon_alone() -> None:
    """Not the programs by which it takes its rules out."""
    assert section("Service")["KillMode"] == "mixed"


def test_a_node_is_not_closed_by_a_rollout() -> None:
    """Between two containers what rules queue is dropped: somebody chooses when; no image is pulled then."""
    spec = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["spec"]
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_services_set_no_variables() -> None:
    """Those of a Service named labelgate begin as ours do."""
    spec = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    assert spec["enableServiceLinks"] is False


def test_probes_leave_a_daemon_that_loads_alone() -> None:
    """What answers has a thread of its own, and is there once the first policy is in force."""
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["httpGet"] == liveness["httpGet"]
    asked = liveness["httpGet"]
    assert asked["path"] in exporter.LIVE
    (listen,) = [one["value"] for one in container["env"] if one["name"] == "LABELGATE_METRICS_LISTEN"]
    assert f"{asked['host']}:{asked['port']}" == listen
    assert startup["periodSeconds"] * startup["failureThreshold"] >= PATIENCE_SECONDS


def test_a_python_at_home_can_be_run() -> None:
    assert "ProtectHome=yes" in unit(["/usr/bin/python3", "/usr", "/usr/lib/python3/labelgate"])
    assert "ProtectHome=read-only" in unit(["/home/me/venv/bin/python"])


@pytest.mark.parametrize("home", ["/root/.pyenv/versions/3.11.7", "/home/me/.local/share/uv/python/3.12"])
def test_a_python_behind_a_link_into_a_home_can_be_run(tmp_path: Path, home: str) -> None:
    """A virtual environment elsewhere, of a Python as pyenv and uv install it."""
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.symlink_to(f"{home}/bin/python3")
    assert "ProtectHome=read-only" in unit([str(program)])
    assert "ProtectHome=read-only" in unit(["/usr/bin/python3", home])


def test_the_installation_is_looked_at_as_a_whole() -> None:
    program, real, base, package = installation()
    assert (program, real, base) == (sys.executable, os.path.realpath(sys.executable), sys.base_prefix)
    assert Path(package, "labelgate.service").is_file()


@pytest.mark.parametrize("name", ["my venv", "100%", "100%n", "a;b", "a$b", "ü", "${HOME}"])
def test_a_path_of_any_name_is_one_word(tmp_path: Path, name: str) -> None:
    program = tmp_path / name / "python"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    path = tmp_path / "labelgate.service"
    path.write_text(unit([str(program)]), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    if shutil.which(command[0]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", ['/a"b/python', "/it's/python", "/a\\b/python"])
def test_a_path_that_systemd_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("labelgate.cli.install_unit.installation", lambda: (path,))
    done = CliRunner().invoke(cli, ["install-unit"])
    assert (done.exit_code, "systemd runs no program whose path has a quote" in done.output) == (3, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_what_the_unit_cannot_read_is_said(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home of mode 0750 is closed to root without CAP_DAC_OVERRIDE."""
    home = tmp_path / "home"
    program = home / "python"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr(doctor_files, "TEMPORARY", ())
    monkeypatch.setattr(doctor_files, "installation", lambda: (str(program),))
    monkeypatch.setattr("labelgate.cli.install_unit.installation", lambda: (str(program),))
    real = doctor_files._may
    above = [path.stat() for path in tmp_path.parents] + [tmp_path.stat()]
    monkeypatch.setattr(doctor_files, "_may", lambda found, bits: found in above or real(found, bits))
    for mode, owner, is_closed in ((0o750, 1000, True), (0o755, 1000, False), (0o700, 0, False)):
        home.chmod(mode)
        os.chown(home, owner, owner)
        done = CliRunner().invoke(cli, ["install-unit", "--install", "--folder", str(tmp_path)])
        found = doctor_files.program()
        assert done.exit_code == 0
        assert (found.state == "warning", "warning" in done.output) == (is_closed, is_closed)
        if is_closed:
            assert f"cannot read this installation: {home} (owner 1000, mode 750)" in done.output
            assert found.found == f"{home} (owner 1000, mode 750)"


def test_the_container_asks_for_the_same() -> None:
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    context = container["securityContext"]
    wanted = {name.removeprefix("CAP_") for name in section("Service")["CapabilityBoundingSet"].split()}
    assert set(context["capabilities"]["add"]) == wanted
    assert context["capabilities"]["drop"] == ["ALL"]
    assert not context["privileged"]
    assert not context["allowPrivilegeEscalation"]


def test_a_reload_can_fail() -> None:
    """A signal cannot say that the new files were refused."""
    assert section("Service")["ExecReload"].endswith(
        " -m labelgate reload --config /etc/labelgate/config.yaml"
    )


@pytest.mark.parametrize("is_abstract", [False, True])
def test_what_systemd_is_told(tmp_path: Path, is_abstract: bool) -> None:
    name = f"@labelgate-test-{tmp_path.name}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1) if is_abstract else name)
        service = ServiceManager({"NOTIFY_SOCKET": name})
        service.ready("generation 1 in force\nengines")
        service.alive()
        service.stopping()
        told = [manager.recv(1000) for _ in range(3)]
    assert told == [b"READY=1\nSTATUS=generation 1 in force", b"WATCHDOG=1", b"STOPPING=1"]


def test_nobody_listens(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).alive()
    ServiceManager({}).alive()


def test_a_manager_that_is_busy_hears_that_it_is_ready(tmp_path: Path) -> None:
    """The watchdog is not told while its socket is full; the policy in force is, once there is room."""
    name = str(tmp_path / "notify")
    service = ServiceManager({"NOTIFY_SOCKET": name})
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others,
        ThreadPoolExecutor(1) as pool,
    ):
        manager.bind(name)
        manager.settimeout(30)
        others.setblocking(False)
        waiting = 0
        with suppress(BlockingIOError):
            for waiting in range(10_000):  # noqa: B007
                others.sendto(b"x", name)
        service.alive()
        ready = pool.submit(service.ready, "generation 1 in force")
        told = [manager.recv(1000) for _ in range(waiting + 1)]
        ready.result()
    assert told == [b"x"] * waiting + [b"READY=1\nSTATUS=generation 1 in force"]


def test_no_descriptor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).alive()
