"""The daemon as its unit starts it: with exactly the capabilities of the unit, and told to systemd."""

from __future__ import annotations

import configparser
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import policies
import pytest
from labelgate.cli.install_unit import unit
from labelgate.control import ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import send
from labelgate.demo.world import EDGE, World
from policies import ALLOWED, REFUSED
from seccomp import members

SECCOMP = Path(__file__).parent / "seccomp.py"


def service(key: str) -> list[str]:
    """What the unit says."""
    reader = configparser.ConfigParser(interpolation=None, strict=False)
    reader.read_string(unit())
    return reader["Service"][key].split()


def capabilities() -> list[str]:
    """Those of the unit, as setpriv names them."""
    return [name.removeprefix("CAP_").lower() for name in service("CapabilityBoundingSet")]


DENY_WRITE_EXECUTE = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""As MemoryDenyWriteExecute= does by a filter of system calls; by the kernel, where it can (6.3 or newer)."""


class Bounded(Daemon):
    """With no capabilities and calls but these, no new privileges, and no memory to write code into."""

    def __init__(
        self,
        world: World,
        path: Path,
        *,
        backend: str,
        capabilities: list[str],
        calls: Sequence[str] = ("@default", "@known"),
    ) -> None:
        super().__init__(world, path, backend=backend, watch=True)
        self._command = bounded(self._command, capabilities, calls)


def bounded(command: Sequence[str], capabilities: Sequence[str], calls: Sequence[str]) -> list[str]:
    """The command with no others than these."""
    bounds = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return [
        "setpriv", "--no-new-privs", f"--bounding-set={bounds}", f"--inh-caps={bounds}",
        sys.executable, "-c", DENY_WRITE_EXECUTE,
        sys.executable, str(SECCOMP), ",".join(calls), *command,
    ]  # fmt: skip


def effective(pid: int) -> int:
    """The capabilities that a process has, as a mask."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("CapEff:")[2].split()[0], 16)


def test_the_bounds_of_the_unit_are_wide_enough(world: World, backend: str, management: Path) -> None:
    """Capabilities and system calls: to start, follow edits, try a policy and roll it back, leave nothing."""
    calls = service("SystemCallFilter")
    with Bounded(world, management, backend=backend, capabilities=capabilities(), calls=calls) as daemon:
        assert effective(daemon.process.pid).bit_count() == len(capabilities())
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
        swapped = policies.MANAGEMENT.replace("203.0.113.0/24", "192.0.2.0/24")
        management.write_text(swapped, encoding="utf-8")
        daemon.wait_for("generation 2 in force")
        assert [send(world, ALLOWED), send(world, REFUSED)] == [False, True]
        ask(daemon.socket, "apply", paths=["x"], texts=[["x.yaml", policies.MANAGEMENT]], confirm=60)
        assert [send(world, ALLOWED), send(world, REFUSED)] == [True, False]
        assert ask(daemon.socket, "rollback")["generation"] == 4
        assert ask(daemon.socket, "status")["state"]["problem"] is None
        assert daemon.stop() == 0
    assert "NFQUEUE" not in world.run(EDGE, f"iptables-{backend}-save")


def test_a_reload_of_the_unit_says_what_was_refused(world: World, management: Path, tmp_path: Path) -> None:
    """Within the bounds of the unit, by the socket that the configuration names, be it wrong by now."""
    calls = service("SystemCallFilter")
    config = tmp_path / "config.yaml"
    *_, verb, option, _file = service("ExecReload")
    reload = [sys.executable, "-m", "labelgate", verb, option, str(config)]
    command = ["ip", "netns", "exec", world.namespace(EDGE), *bounded(reload, capabilities(), calls)]
    with Bounded(world, management, backend="nft", capabilities=capabilities(), calls=calls) as daemon:
        config.write_text(f"socket: {daemon.socket}\nnonsense", encoding="utf-8")
        for text, code, said in (
            (policies.MANAGEMENT, 0, "generation 2 in force"),
            (policies.MANAGEMENT.replace("Allow", "Alow", 1), 1, f"{management}:"),
        ):
            management.write_text(text, encoding="utf-8")
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done


@pytest.mark.parametrize(("backend", "missing"), [("nft", "net_admin"), ("legacy", "net_raw")])
def test_none_of_them_is_too_many(world: World, management: Path, backend: str, missing: str) -> None:
    fewer = [name for name in capabilities() if name != missing]
    daemon = Bounded(world, management, backend=backend, capabilities=fewer)
    daemon.start()
    assert daemon.exit_code() == 3


def test_a_call_outside_of_the_filter_is_seen(world: World, management: Path) -> None:
    """As iptables is written in C, and the core in Rust: the filter holds for all, or shows nothing."""
    daemon = Bounded(
        world, management, backend="nft", capabilities=capabilities(),
        calls=[*sorted(members(service("SystemCallFilter")) - {"sendmsg"})],
    )  # fmt: skip
    daemon.start()
    assert daemon.exit_code() in (-signal.SIGSYS, 3)
    assert not any(" in force" in line for line in daemon.log)


def test_systemd_is_told(world: World, management: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the policy is in force, again and again that the daemon lives, and that it stops."""
    address = str(world.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with Daemon(world, management, backend="nft") as daemon:
            while (told := manager.recv(1000)) == b"WATCHDOG=1":
                pass  # The steps of the start.
            assert told.startswith(b"READY=1\nSTATUS=generation 1 in force")
            assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            daemon.stop()
        rest = {b"WATCHDOG=1"}
        while b"STOPPING=1" not in rest:
            rest.add(manager.recv(1000))
        assert rest == {b"WATCHDOG=1", b"STOPPING=1"}
    command = [sys.executable, "-m", "labelgate", "status", "--socket", daemon.socket]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 3
