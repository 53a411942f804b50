"""One daemon after the other, over a socket whose other end does what it should not."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from labelgate.agent import AgentError, claim, handover
from labelgate.agent.claim import Claim
from labelgate.agent.handover import BUSY, DONE, READY, Presence
from labelgate.agent.process import Signals
from labelgate.control import ControlServer


@pytest.fixture(autouse=True)
def name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setattr(handover, "FOLDER", tmp_path / "run")
    return str(handover.socket_path())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def in_force(said: list[str]) -> Iterator[Presence]:
    with Presence(said.append) as presence:
        yield presence


def connect(name: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(30)
    opened.connect(name)
    return opened


def test_a_successor_that_gave_up_ends_nothing(in_force: Presence, name: str) -> None:
    connect(name).close()
    assert not in_force.is_replaced()
    assert not in_force.is_pending
    with connect(name) as successor:
        assert not in_force.is_replaced()
        assert successor.recv(1) == READY
        successor.send(DONE)
        assert in_force.is_replaced()


@pytest.mark.parametrize(("last", "is_succeeded"), [(DONE, True), (b"", False), (None, True)])
def test_what_became_of_a_successor_is_waited_for(
    in_force: Presence, name: str, last: bytes | None, is_succeeded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may be told to stop at once. One that says nothing may be in force."""
    monkeypatch.setattr(handover, "OUTCOME_SECONDS", 0.3)
    with connect(name) as successor:
        assert not in_force.is_replaced()
        if last is not None:
            successor.send(last) if last else successor.close()
        assert in_force.is_succeeded() is is_succeeded


def test_a_successor_has_its_time(
    in_force: Presence, name: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(name) as successor:
        assert not in_force.is_replaced()
        assert in_force.is_pending
        monkeypatch.setattr(handover, "PENDING_SECONDS", -1.0)
        assert not in_force.is_replaced()
        assert not in_force.is_pending
        assert (successor.recv(5), successor.recv(1)) == (READY + bytes(4), b"")
    assert [line.endswith("did not come into force in time") for line in said] == [True]


def test_done_in_the_last_moment_counts(
    in_force: Presence, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(name) as successor:
        assert not in_force.is_replaced()
        successor.send(DONE)
        monkeypatch.setattr(handover, "PENDING_SECONDS", -1.0)
        assert in_force.is_replaced()


def test_nobody_is_let_in_during_a_trial(in_force: Presence, name: str) -> None:
    with connect(name) as successor:
        assert not in_force.is_replaced(is_busy=True)
        assert not in_force.is_pending
        assert (successor.recv(1), successor.recv(1)) == (BUSY, b"")


def test_a_successor_asks_only_when_it_is_prepared(in_force: Presence, said: list[str]) -> None:
    """And is told why not."""
    with Presence(said.append, replace=True) as successor:
        assert successor.replaces
        assert not in_force.is_replaced()
        assert not in_force.is_pending
        is_over = threading.Event()

        def work() -> None:
            while not is_over.wait(0.005):
                in_force.is_replaced(is_busy=True)

        thread = threading.Thread(target=work)
        thread.start()
        with pytest.raises(AgentError, match="has a policy on trial"):
            successor.announce(0x1500)
        is_over.set()
        thread.join()


def test_a_successor_with_other_mark_bits_is_refused(in_force: Presence, said: list[str]) -> None:
    """It says what both have, and the daemon in force goes on."""
    in_force.announce(0x1500)
    with Presence(said.append, replace=True) as successor:
        thread = threading.Thread(target=wait_for_one, args=(in_force,))
        thread.start()
        with pytest.raises(AgentError, match="found 0x2a00, expected 0x1500 as the daemon in force has it"):
            successor.announce(0x2A00)
        thread.join()
    assert not in_force.is_replaced()
    assert not in_force.is_pending
    assert [line.endswith("did not come into force") for line in said] == [True]


def wait_for_one(in_force: Presence) -> None:
    deadline = time.monotonic() + 30
    while not in_force.is_pending and time.monotonic() < deadline:
        assert not in_force.is_replaced()
        time.sleep(0.005)


def test_behind_done_the_successor_waits(name: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it takes, and until the lock is free."""
    monkeypatch.setattr(handover, "SECONDS", 0.5)
    before = handover._take()
    before.listener.settimeout(30)
    with Presence(said.append, replace=True) as successor:
        thread = threading.Thread(target=end_slowly, args=(before, said))
        thread.start()
        successor.announce(0x1500)
        successor.take_over()
        thread.join()
        assert not successor.replaces
        assert len(successor.descriptors) == 1
    assert "warning: the daemon that is replaced has not ended yet; waiting" in said


def end_slowly(before: handover._Place, said: list[str]) -> None:
    """Answers, ends the connection after two warnings, and lets go of the lock a moment later."""
    connection, _ = before.listener.accept()
    connection.send(READY + (0x1500).to_bytes(4))
    connection.settimeout(30)
    assert connection.recv(1) == DONE
    deadline = time.monotonic() + 30
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    connection.close()
    time.sleep(0.2)
    before.close()


def test_two_do_not_run_at_once(in_force: Presence, said: list[str]) -> None:
    with pytest.raises(AgentError, match="running already"):
        Presence(said.append)


def test_two_that_see_different_folders(
    in_force: Presence, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in containers: the second one is refused in the moment it starts, whatever rules there are."""
    apart = Claim
    monkeypatch.setattr(handover, "CLAIM_SECONDS", 0.0)
    claimed = os.fsencode(handover.FOLDER)
    monkeypatch.setattr(handover, "Claim", lambda _: apart(claimed))
    monkeypatch.setattr(handover, "FOLDER", tmp_path / "other")
    for _ in range(100):  # Who asks is in nobody's way.
        with pytest.raises(AgentError, match="its lock is not seen from here"):
            Presence(said.append)
        assert not in_force.is_replaced()
    in_force.close()
    with Presence(said.append) as other:
        assert not other.replaces
    assert list((tmp_path / "other").iterdir()) == []
    assert said == []


SQUATTER = """
import os, socket, sys
os.setresuid(65534, 65534, 65534)
squatter = socket.socket(socket.AF_UNIX)
squatter.bind("\\0" + sys.argv[1])
squatter.listen(int(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: somebody else has to take the name")
@pytest.mark.parametrize("backlog", [0, 100])
def test_a_name_that_somebody_else_has_taken_says_nothing(name: str, said: list[str], backlog: int) -> None:
    """No local user can keep a daemon from starting."""
    command = [sys.executable, "-c", SQUATTER, str(handover.FOLDER), str(backlog)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout
        squatter.stdout.readline()
        for _ in range(3):  # With no backlog there is soon no room to ask.
            with Presence(said.append) as presence:
                assert not presence.replaces
        squatter.communicate()
    assert len(said) == 3
    assert all("with another" in line and "cannot be told" in line for line in said)
    with Presence(said.append):
        assert len(said) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: somebody else has to take the name")
def test_a_daemon_whose_name_somebody_else_has_taken_runs(name: str, said: list[str]) -> None:
    """Its lock tells; who has none is no daemon, and nothing is made by asking."""
    command = [sys.executable, "-c", SQUATTER, str(handover.FOLDER), "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout
        squatter.stdout.readline()
        assert handover.running() is None
        assert not handover.FOLDER.exists()
        with Presence(said.append):
            assert handover.running() == 0
            handover.FOLDER.chmod(0o777)
            assert handover.running() is None, "anybody could have locked that"
        assert handover.running() is None
        squatter.communicate()
    handover.FOLDER.chmod(0o755)
    with Presence(said.append):
        assert handover.running() == os.getpid()


def test_a_name_that_is_let_go_while_its_owner_is_looked_for_is_had(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, before = claim._owner, Claim(b"labelgate-test-let-go")

    def late(address: bytes) -> int | None:
        before.close()
        return ask(address)

    monkeypatch.setattr(claim, "_owner", late)
    monkeypatch.setattr(claim, "SECONDS", 0.0)
    with closing(Claim(b"labelgate-test-let-go")):
        monkeypatch.setattr(claim, "_owner", ask)
        with pytest.raises(BlockingIOError):
            Claim(b"labelgate-test-let-go")


def test_nobody_else_can_be_in_the_way(in_force: Presence, name: str) -> None:
    """Whoever may not open the file can neither lock it nor connect."""
    folder = Path(name).parent
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {".sock": 0o600, ".lock": 0o600}
    assert folder.stat().st_mode & 0o022 == 0
    assert f"netns-{os.stat('/proc/self/ns/net').st_ino}" == Path(name).stem


def test_the_umask_is_left_to_all_threads(
    name: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another one makes meanwhile would have its mode."""
    before = os.umask(0)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", lambda _: pytest.fail("it is changed"))
            with Presence(said.append), ControlServer(str(tmp_path / "control.sock"), {}, said.append):
                modes = [path.stat().st_mode & 0o777 for path in (Path(name), tmp_path / "control.sock")]
    finally:
        os.umask(before)
    assert (modes, said) == ([0o600, 0o600], [])


KILLED = """
import os, signal, sys
from pathlib import Path
from labelgate.agent import handover
handover.FOLDER = Path(sys.argv[1])
presence = handover.Presence(print)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_daemon_that_was_killed_is_in_nobodys_way(name: str, said: list[str]) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(name).parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert Path(name).is_socket(), "it had no time to tidy up"
    with Presence(said.append) as presence:
        assert not presence.replaces
        assert len(presence.descriptors) == 1
        with connect(name) as successor:
            assert not presence.is_replaced()
            assert successor.recv(1) == READY
    assert list(Path(name).parent.iterdir()) == []
    assert said == []


def test_a_lock_whose_file_is_gone_is_none(in_force: Presence, name: str) -> None:
    """Who waits at a file that is taken away takes the one that has its name then."""
    lock = Path(name).with_suffix(".lock")
    waiting = os.open(lock, os.O_RDWR)
    in_force.close()
    try:
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with Presence(lambda _: None) as other:
            assert not other.replaces
            assert not os.path.samestat(os.fstat(waiting), lock.stat())
    finally:
        os.close(waiting)


@pytest.mark.parametrize("why", ["others may write there", "belongs to user 7, not to", "Not a directory"])
def test_a_folder_that_cannot_be_trusted(why: str, name: str, said: list[str]) -> None:
    """Policy is enforced all the same."""
    folder = Path(name).parent
    if why == "Not a directory":
        folder.write_text("")
        folder = folder / "below"
        handover.FOLDER = folder  # Undone by the fixture.
    else:
        folder.mkdir()
        folder.chmod(0o777)
    if why.startswith("belongs"):
        os.chown(folder, 7, -1)
    with Presence(said.append) as presence:
        assert not presence.replaces
        assert presence.descriptors == []
        assert not presence.is_replaced()
    (warning,) = said
    assert warning.startswith("warning: whether another labelgate runs here cannot be told")
    assert why in warning


def test_no_descriptor_is_left_for_a_successor(
    in_force: Presence, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be let in must not keep the daemon awake; it is let in later."""

    def fail(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with connect(name) as successor:
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "accept", fail)
            assert not in_force.is_replaced()
            assert in_force.descriptors == []
        monkeypatch.setattr(handover, "DEAF_SECONDS", 0.0)
        in_force._deaf_until = 0.0
        assert len(in_force.descriptors) == 1
        assert not in_force.is_replaced()
        assert successor.recv(1) == READY


def test_who_has_a_name_is_told() -> None:
    assert claim.holder(b"labelgate-test-holder") is None
    with closing(Claim(b"labelgate-test-holder")):
        assert claim.holder(b"labelgate-test-holder") == os.getpid()
    assert claim.holder(b"labelgate-test-holder") is None


def test_descriptors_above_those_of_select_are_waited_for(in_force: Presence, name: str) -> None:
    """Each worker has more than a dozen, and there may be 64: select(2) ends at 1023."""
    with (
        many_descriptors(),
        Signals() as signals,
        socket.create_server(("127.0.0.1", 0)) as other,
        connect(name) as successor,
    ):
        assert other.fileno() > 1023
        assert list(signals.take([other.fileno()], 0)) == []
        signals.wait(0.001)
        assert not in_force.is_replaced()
        assert successor.recv(1) == READY
        successor.send(DONE)
        assert in_force.is_replaced()
        with socket.create_connection(other.getsockname()):
            os.kill(os.getpid(), signal.SIGHUP)
            assert list(signals.take([other.fileno()], 30)) == [signal.SIGHUP]


@contextmanager
def many_descriptors() -> Iterator[None]:
    """What is opened meanwhile has a number above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip(f"needs 1200 descriptors, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    with ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while (last := os.open(os.devnull, os.O_RDONLY)) < 1023:
            opened.callback(os.close, last)
        opened.callback(os.close, last)
        yield
