"""The daemon's state on disk: whole or not at all, whatever happens to the disk."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from labelgate.agent.state import FILE, Record, Source, State, StateError, peek
from labelgate.agent.store import Store


def source(name: str, size: int = 10, applied: bool = False) -> Source:
    return Source(("/etc/policies",), applied, ((f"{name}.yaml", b"x\xff\n" * size),), "abc")


FIRST = Record(source("first"))
TRIAL = Record(source("first"), source("second", applied=True))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(str(tmp_path / "state")) as state:
        yield state


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "policy.json"


def test_what_is_written_is_read(state: State) -> None:
    assert state.read() is None
    for record in (FIRST, TRIAL):
        state.write(record)
        assert state.read() == record


def test_nobody_else_may_read_it(state: State, file: Path) -> None:
    state.write(FIRST)
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


def test_two_daemons_do_not_share_it(state: State, file: Path) -> None:
    with pytest.raises(StateError, match="another daemon keeps its state there"):
        State(str(file.parent))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=f"{tmp_path}/file/state: Not a directory"):
        State(str(tmp_path / "file" / "state"))


def test_every_damage_is_noticed(state: State, file: Path) -> None:
    """Each byte changed, each length cut: never another record, never an exception of another kind."""
    dice = random.Random(5)
    state.write(TRIAL)
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    for place in range(len(whole)):
        damaged.append(whole[:place] + bytes([whole[place] ^ dice.randrange(1, 256)]) + whole[place + 1 :])
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(StateError, match=re.escape(str(file))):
            state.read()
        assert not file.exists()
        assert file.with_suffix(".damaged").read_bytes() == content


def test_a_later_version_is_not_guessed(state: State, file: Path) -> None:
    state.write(FIRST)
    header, _, body = file.read_bytes().partition(b"\n")
    file.write_bytes(json.dumps(json.loads(header) | {"version": 2}).encode() + b"\n" + body)
    with pytest.raises(StateError, match=r"has version 2, expected 1; set aside as policy\.damaged"):
        state.read()


def test_a_successor_reads_and_changes_nothing(state: State, file: Path) -> None:
    """The lock is still the other daemon's."""
    said: list[str] = []
    with Store(str(file.parent), said.append, is_taken=True) as store:
        assert store.recover() is None
        state.write(TRIAL)
        assert store.recover() == TRIAL
        file.write_bytes(b"damaged")
        assert store.recover() is None
        assert [file.read_bytes(), len(said)] == [b"damaged", 1]


def test_what_could_not_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at the stop; what somebody waits for is refused, and takes the place of nothing."""

    def fail(*_: object) -> None:
        raise StateError("no space")

    said: list[str] = []
    with Store(str(tmp_path), said.append) as store:
        with monkeypatch.context() as patched:
            patched.setattr(State, "write", fail)
            store.try_to_keep(FIRST)
            with pytest.raises(StateError):
                store.keep(TRIAL)
            store.keep_due()
            assert (store.problem, said) == ("no space", ["warning: no state is kept: no space"])
        store.keep_due()
        assert store.recover() is None, "it is not time yet"
        monkeypatch.setattr(time, "monotonic", lambda: float("inf"))
        store.keep_due()
        assert store.recover() == FIRST
        assert store.problem is None


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with State(str(folder)) as state:
        state.write(FIRST)
    for mode in (0o720, 0o702):
        folder.chmod(mode)
        for use in (State, peek):
            with pytest.raises(StateError, match=f"{folder}: others may write there"):
                use(str(folder))
    folder.chmod(0o755)
    assert peek(str(folder)) == FIRST
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        for use in (State, peek):
            with pytest.raises(StateError, match=f"{folder}: belongs to user 65534"):
                use(str(folder))


def test_what_others_have_put_there_is_not_opened(tmp_path: Path) -> None:
    """A pipe would be waited for for ever."""
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(StateError, match="not a regular file"):
        peek(str(tmp_path))
    tmp_path.chmod(0o777)
    with pytest.raises(StateError, match="others may write there"):
        peek(str(tmp_path))
    assert peek(str(tmp_path / "none")) is None


def test_links_are_not_followed(state: State, file: Path, tmp_path: Path) -> None:
    """They are gone when it is tried again."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    file.with_suffix(".new").symlink_to(mine)
    with pytest.raises(StateError, match="symbolic links"):
        state.write(FIRST)
    assert mine.read_text() == "mine"
    state.write(FIRST)
    assert state.read() == FIRST


IN_A_SMALL_DISK = """
import errno, os, subprocess, sys
sys.path.insert(0, {here!r})
from test_state import FIRST, source
from labelgate.agent.state import Record, State, StateError

def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", {place!r})
with State({place!r} + "/state") as state:
    state.write(FIRST)
    try:
        state.write(Record(source("large", 1_000_000)))
    except StateError as error:
        print(error)
    assert state.read() == FIRST
    assert sorted(os.listdir({place!r} + "/state")) == ["lock", "policy.json"]
    mount("-o", "remount,ro", {place!r})
    try:
        state.write(Record(source("next")))
    except StateError as error:
        print(error)
    assert state.read() == FIRST
with State({place!r} + "/state") as state:
    assert state.read() == FIRST
try:
    State({place!r} + "/other")
except StateError as error:
    print(error)
"""


def test_a_full_and_a_read_only_disk(tmp_path: Path) -> None:
    """In a mount namespace of its own."""
    script = IN_A_SMALL_DISK.format(here=str(Path(__file__).parent), place=str(tmp_path))
    command = ["unshare", "--mount", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [
        f"{tmp_path}/state/policy.json cannot be written: No space left on device",
        f"{tmp_path}/state/policy.json cannot be written: Read-only file system",
        f"{tmp_path}/other: Read-only file system",
    ], done.stderr


WRITING = """
import sys
sys.path.insert(0, {here!r})
from test_state import source
from labelgate.agent.state import Record, State
state = State({folder!r})
print("writing", flush=True)
for number in range(1_000_000):
    state.write(Record(source(str(number), 20_000)))
"""


def test_a_kill_leaves_a_whole_record(tmp_path: Path) -> None:
    dice = random.Random(3)
    script = WRITING.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    for _ in range(10):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(dice.random() / 20)
            os.kill(writer.pid, signal.SIGKILL)
        with State(str(tmp_path)) as state:
            record = state.read()
            if record is not None:
                ((_, content),) = record.confirmed.texts
                assert len(content) == 60_000
