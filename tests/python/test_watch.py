"""Files that change: every way in which they are written, and that only whole ones are read."""

from __future__ import annotations

import errno
import mmap
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from inotify_simple import INotify
from labelgate import regular
from labelgate.resources import LoadError, Loading
from labelgate.sources.cache import FileCache
from labelgate.sources.files import read_documents
from labelgate.sources.watch import FileWatch

WAIT_SECONDS = 30
"""Only a failure waits so long."""


def tier(name: str, order: int = 1) -> str:
    head = "apiVersion: projectcalico.org/v3\nkind: Tier\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {{order: {order}}}\n"


class Follower:
    """What the daemon does: waits, reads when it is due, and keeps what it read."""

    def __init__(self, *paths: Path, begins: bool = True) -> None:
        self._paths = [str(path) for path in paths]
        self.said: list[str] = []
        self.watch = FileWatch(self._paths, self.said.append)
        self.cache = FileCache()
        self.readings = 0
        self.loading = Loading()
        if begins:
            self.settle()

    def settle(self) -> None:
        """Until nothing is to be read."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (left := self.watch.seconds_left()) is not None or self._is_told():
            assert time.monotonic() < deadline
            time.sleep(min(left or 0, 0.01))
            self.watch.poll()
            if self.watch.is_due():
                self.read()

    def read(self) -> None:
        self.readings += 1
        with suppress(LoadError):  # One is open for writing.
            self.loading = self.cache.read(self._paths, is_open=self.watch.is_open)

    def look_for(self, seconds: float) -> None:
        """Reads what is due meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.watch.poll()
            if self.watch.is_due():
                self.read()
            time.sleep(0.005)

    def _is_told(self) -> bool:
        return bool(select.select([self.watch.fileno()], [], [], 0.05)[0])

    @property
    def keys(self) -> list[str]:
        return [resource.key for resource in self.loading.resources]

    @property
    def orders(self) -> list[float | None]:
        return [resource.spec.order for resource in self.loading.resources]  # type: ignore[attr-defined]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text(tier("a"))
    return folder


def parsed_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that are parsed from now on."""
    parsed: list[str] = []
    add = Loading.add

    def noted(self: Loading, content: bytes | str, file: str, *more: object) -> None:
        parsed.append(Path(file).name)
        add(self, content, file, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Loading, "add", noted)
    return parsed


@pytest.fixture
def follower(folder: Path) -> Iterator[Follower]:
    made = Follower(folder)
    yield made
    made.watch.close()


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def beside_and_renamed(file: Path, text: str) -> None:
    """As most tools do, and kubectl cp, rsync, sed -i."""
    other = file.with_name(f".{file.name}.Xy12")
    other.write_text(text)
    other.rename(file)


def as_vim(file: Path, text: str) -> None:
    """A test file, a swap file, the old one renamed to a backup, a new one, the backup deleted."""
    (file.parent / "4913").write_text("")
    (file.parent / "4913").unlink()
    swap, backup = file.with_name(f".{file.name}.swp"), file.with_name(f"{file.name}~")
    swap.write_text(text)
    file.rename(backup)
    file.write_text(text)
    backup.unlink()
    swap.unlink()


def as_emacs(file: Path, text: str) -> None:
    """A lock that is a link to nowhere, an automatic save, a backup that is a copy."""
    lock = file.with_name(f".#{file.name}")
    lock.symlink_to("someone@somewhere.1234")
    file.with_name(f"#{file.name}#").write_text(text)
    shutil.copy(file, file.with_name(f"{file.name}~"))
    file.write_text(text)
    file.with_name(f"#{file.name}#").unlink()
    lock.unlink()


def deleted_and_written(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


def linked_anew(file: Path, text: str) -> None:
    """`ln -sfn`: between the two there is nothing."""
    target = file.parent.parent / f"target{time.monotonic_ns()}"
    target.write_text(text)
    file.unlink()
    file.symlink_to(target)


def hard_linked(file: Path, text: str) -> None:
    other = file.parent.parent / "other"
    other.write_text(text)
    file.unlink()
    os.link(other, file)


WAYS: list[Callable[[Path, str], None]] = [
    in_place, beside_and_renamed, as_vim, as_emacs, deleted_and_written, linked_anew, hard_linked,
]  # fmt: skip


@pytest.mark.parametrize("write", WAYS, ids=lambda way: way.__name__)
def test_each_way_to_write_is_followed(
    folder: Path, follower: Follower, write: Callable[[Path, str], None]
) -> None:
    for order in (2, 3):
        write(folder / "a.yaml", tier("a", order))
        follower.settle()
        assert follower.orders == [order]


@pytest.mark.parametrize("write", WAYS, ids=lambda way: way.__name__)
def test_a_file_that_is_named_is_followed(folder: Path, write: Callable[[Path, str], None]) -> None:
    """Also by a link from elsewhere."""
    link = folder.parent / "link"
    link.symlink_to("policies/a.yaml")
    follower = Follower(link)
    for order in (2, 3):
        write(folder / "a.yaml", tier("a", order))
        follower.settle()
        assert follower.orders == [order]
    follower.watch.close()


def config_map(folder: Path, version: str, **files: str) -> None:
    """As the kubelet mounts one: files are links into `..data`, a link that is swapped as a whole."""
    data = folder / f"..{version}"
    data.mkdir(parents=True)
    for name, text in files.items():
        (data / f"{name}.yaml").write_text(text)
        if not (folder / f"{name}.yaml").is_symlink():
            (folder / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    (folder / "..data_tmp").symlink_to(data.name)
    before = (folder / "..data").resolve()
    (folder / "..data_tmp").rename(folder / "..data")
    if before.name != "..data":
        shutil.rmtree(before)


def test_a_config_map(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    config_map(folder, "1", a=tier("a"), b=tier("b"))
    follower = Follower(folder)
    for version in range(2, 5):
        config_map(folder, str(version), a=tier("a", version), b=tier("b", version))
        follower.settle()
        assert follower.orders == [version, version]
        assert follower.loading.problems == []
    follower.watch.close()


def test_a_folder_that_is_a_link(tmp_path: Path) -> None:
    """Releases beside each other, and a link to the one in force."""
    for order in (1, 2):
        (tmp_path / f"release{order}").mkdir()
        (tmp_path / f"release{order}" / "a.yaml").write_text(tier("a", order))
    (tmp_path / "now").symlink_to("release1")
    follower = Follower(tmp_path / "now")
    (tmp_path / "next").symlink_to("release2")
    (tmp_path / "next").rename(tmp_path / "now")
    follower.settle()
    assert follower.orders == [2]
    (tmp_path / "release2" / "a.yaml").write_text(tier("a", 3))
    follower.settle()
    assert follower.orders == [3]
    follower.watch.close()


def test_folders_come_and_go(folder: Path, follower: Follower) -> None:
    inner = folder / "one" / "two"
    inner.mkdir(parents=True)
    (inner / "b.yaml").write_text(tier("b"))
    follower.settle()
    assert follower.keys == ["Tier/a", "Tier/b"]
    (inner / "b.yaml").write_text(tier("c"))
    follower.settle()
    assert follower.keys == ["Tier/a", "Tier/c"]
    shutil.rmtree(folder / "one")
    follower.settle()
    assert follower.keys == ["Tier/a"]
    folder.rename(folder.parent / "away")
    follower.settle()
    assert [problem.message for problem in follower.loading.problems] != []
    (folder.parent / "away").rename(folder)
    follower.settle()
    assert follower.keys == ["Tier/a"]


def test_a_link_that_loops_hides_no_folder(folder: Path, follower: Follower) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "b.yaml").write_text(tier("b"))
    (folder / "loop").symlink_to("loop")
    follower.settle()
    assert [problem.file for problem in follower.loading.problems] == [str(folder / "loop")]
    (folder / "inner" / "b.yaml").write_text(tier("c"))
    follower.settle()
    (folder / "loop").unlink()
    follower.settle()
    assert (follower.keys, follower.loading.problems) == (["Tier/a", "Tier/c"], [])


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder: Path) -> None:
    file = folder / "a.yaml"
    follower = Follower(file)
    file.unlink()
    os.mkfifo(file)
    follower.settle()
    [problem] = follower.loading.problems
    assert (problem.code, problem.found) == ("file-unreadable", "not a regular file")
    file.unlink()
    file.write_text(tier("b"))
    follower.settle()
    follower.watch.close()
    assert (follower.keys, follower.loading.problems) == (["Tier/b"], [])


def test_a_path_that_comes_later(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "etc" / "policies")
    (tmp_path / "etc" / "policies").mkdir(parents=True)
    (tmp_path / "etc" / "policies" / "a.yaml").write_text(tier("a"))
    follower.settle()
    assert follower.keys == ["Tier/a"]
    follower.watch.close()


def test_a_folder_that_cannot_be_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the kernel is reached: said once, the others are followed."""
    add_watch = INotify.add_watch

    def limited(self: INotify, path: str, mask: int) -> int:
        if path.endswith("inner"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(add_watch(self, path, mask))

    monkeypatch.setattr(INotify, "add_watch", limited)
    (folder / "inner").mkdir()
    follower = Follower(folder)
    for order in (2, 3):
        (folder / "a.yaml").write_text(tier("a", order))
        follower.settle()
        assert follower.orders == [order]
    inner = folder / "inner"
    assert follower.said == [f"warning: {inner} is not followed: No space left on device (fs.inotify?)"]
    follower.watch.close()


def test_a_half_written_file_is_not_read(folder: Path, follower: Follower) -> None:
    whole = tier("a", 7) + "---\n" + tier("b")
    with (folder / "a.yaml").open("w") as file:
        for part in (whole[:40], whole[40:90], whole[90:]):
            file.write(part)
            file.flush()
            deadline = time.monotonic() + 0.2
            while time.monotonic() < deadline:
                follower.watch.poll()
                assert not follower.watch.is_due()
                time.sleep(0.005)
    follower.settle()
    assert follower.keys == ["Tier/a", "Tier/b"]


def written_as(folder: Path, name: str) -> float:
    """Seconds until files are read whose last event is that one is written, and not yet closed."""
    with FileWatch([str(folder)], lambda _: None) as watch, (folder / name).open("w") as file:
        file.write("x")
        file.flush()
        watch.poll()
        left = watch.seconds_left()
        assert left is not None
        return left


def test_who_never_stops_writing_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert written_as(folder, "a.yaml") > 1
    monkeypatch.setattr("labelgate.sources.watch.MOST_OPEN_SECONDS", 0.0)
    assert written_as(folder, "a.yaml") <= 1


@pytest.fixture(params=["kernel tells", "kernel does not tell"])
def in_a_hurry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether files are open is looked at every tenth of a second; whether the kernel tells."""
    monkeypatch.setattr("labelgate.sources.watch.OPEN_SECONDS", 0.1)
    if is_told := request.param == "kernel tells":
        return is_told
    monkeypatch.setattr(regular, "_is_open_for_writing", lambda _: None)
    return is_told


def test_what_is_open_is_not_read_however_long(folder: Path, follower: Follower, in_a_hurry: bool) -> None:
    """`(sleep 8; cat new.yaml) > a.yaml`: the shell truncates at once."""
    with (folder / "a.yaml").open("w") as file:
        for text in ("", tier("a", 2) + "---\n", tier("b")):
            file.write(text)
            file.flush()
            follower.look_for(0.4)
            assert follower.orders == [1]
            [opened] = follower.watch.open_files()
            assert opened["file"] == str(folder / "a.yaml")
            assert opened["seconds"] > 0.3
            assert not follower.watch.is_waiting
    follower.settle()
    assert (follower.keys, follower.orders) == (["Tier/a", "Tier/b"], [2, 1])
    assert follower.watch.open_files() == []


def test_other_files_are_parsed_once_meanwhile(
    folder: Path, follower: Follower, in_a_hurry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them counts before the one that is open, which may go with them."""
    parsed = parsed_files(monkeypatch)
    digest = follower.cache.digest
    with (folder / "a.yaml").open("w") as file:
        file.write(tier("a", 2))
        file.flush()
        (folder / "b.yaml").write_text(tier("b"))
        follower.look_for(0.4)
        assert (follower.keys, follower.cache.digest) == (["Tier/a"], digest)
    follower.settle()
    assert follower.keys == ["Tier/a", "Tier/b"]
    assert parsed == ["b.yaml", "a.yaml"]


def test_what_is_open_without_a_change_is_in_nobodys_way(
    folder: Path, follower: Follower, in_a_hurry: bool
) -> None:
    """An editor may keep a file open for hours."""
    with (folder / "a.yaml").open("a"):
        (folder / "b.yaml").write_text(tier("b"))
        follower.settle()
        os.utime(folder / "a.yaml")
        follower.settle()
        assert follower.keys == ["Tier/a", "Tier/b"]


def test_a_file_truncated_by_name_is_read(folder: Path, follower: Follower, in_a_hurry: bool) -> None:
    """truncate(2) closes nothing, as it opens nothing; it is read where the kernel tells that."""
    os.truncate(folder / "a.yaml", 0)
    follower.look_for(0.4)
    assert follower.keys == ([] if in_a_hurry else ["Tier/a"])
    assert follower.cache.read([str(folder)]).resources == []  # As `labelgate reload` does.
    follower.settle()
    assert follower.watch.open_files() == []


def mapped(file: Path, follower: Callable[[], Follower]) -> tuple[Follower, Callable[[], object]]:
    """The descriptor is closed, the memory is still there."""
    made = follower()
    with file.open("r+b") as writer:
        memory = mmap.mmap(writer.fileno(), 0)
    memory[:4] = b"kind"
    os.utime(file)
    return made, memory.close


def moved_there(file: Path, follower: Callable[[], Follower]) -> tuple[Follower, Callable[[], object]]:
    """By who goes on to write."""
    made = follower()
    beside = file.with_name("beside")
    writer = beside.open("w")
    beside.rename(file)
    return made, writer.close


def behind_a_link(file: Path, follower: Callable[[], Follower]) -> tuple[Follower, Callable[[], object]]:
    """Of a name that nobody would read."""
    target = file.parent.parent / "target"
    file.rename(target)
    file.symlink_to(target)
    made = follower()
    return made, target.open("w").close


def of_another_process(file: Path, follower: Callable[[], Follower]) -> tuple[Follower, Callable[[], object]]:
    made = follower()
    writer = subprocess.Popen(["sh", "-c", f"echo >'{file}' && exec cat >>'{file}'"], stdin=subprocess.PIPE)
    deadline = time.monotonic() + WAIT_SECONDS
    while file.read_bytes() != b"\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # Between the two it is open for nobody.
    return made, writer.communicate


@pytest.mark.parametrize(
    "begin",
    [mapped, moved_there, behind_a_link, of_another_process],
    ids=lambda way: way.__name__,
)
def test_who_writes_is_the_kernels_to_tell(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[Path, Callable[[], Follower]], tuple[Follower, Callable[[], object]]],
) -> None:
    monkeypatch.setattr("labelgate.sources.watch.OPEN_SECONDS", 0.1)
    follower, close = begin(folder / "a.yaml", lambda: Follower(folder))
    follower.look_for(0.4)
    assert [opened["file"] for opened in follower.watch.open_files()] == [str(folder / "a.yaml")]
    assert follower.keys == ["Tier/a"]
    close()
    (folder / "a.yaml").write_text(tier("c"))
    follower.settle()
    assert follower.keys == ["Tier/c"]
    follower.watch.close()


def test_what_was_opened_before_is_not_read(folder: Path, in_a_hurry: bool) -> None:
    """Where the kernel does not tell, only the next that is written to it does."""
    with (folder / "a.yaml").open("w") as file:
        file.write("kind")
        file.flush()
        follower = Follower(folder, begins=False)
        follower.look_for(0.4)
        assert (follower.keys, follower.loading.problems == []) == ([], in_a_hurry)
        file.write(": Half")
        file.flush()
        follower.look_for(0.4)
        assert [opened["file"] for opened in follower.watch.open_files()] == [str(folder / "a.yaml")]
    (folder / "a.yaml").write_text(tier("c"))
    follower.settle()
    assert follower.keys == ["Tier/c"]
    follower.watch.close()


def test_a_server_that_has_promised_nothing_tells_of_no_writer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS and SMB refuse a lease in the words of a file that is open."""
    file = folder / "a.yaml"
    with file.open("a"):
        assert regular.read_and_tell(str(file))[1] is True
        kind = regular._file_system(file.stat().st_dev)
        monkeypatch.setattr(regular, "_REMOTE", frozenset((kind,)))
        assert regular.read_and_tell(str(file))[1] is None


def test_who_opens_a_file_while_it_is_looked_at_does_no_harm(folder: Path) -> None:
    """The lease is broken then; SIGIO would end this process. Nobody is kept waiting either."""
    file = folder / "a.yaml"
    script = "import sys\nfor _ in range(20000): open(sys.argv[1], 'r+').close()"
    with subprocess.Popen([sys.executable, "-c", script, str(file)]) as writer:
        while writer.poll() is None:
            regular.read_and_tell(str(file))
    assert writer.returncode == 0
    assert regular.read_and_tell(str(file)) == (file.read_bytes(), False)


def test_what_is_not_read_is_not_waited_for(folder: Path) -> None:
    assert written_as(folder, ".a.yaml") <= 1
    named = folder / ".named.yaml"
    with FileWatch([str(named)], lambda _: None) as watch, named.open("w") as file:
        file.write("x")
        file.flush()
        watch.poll()
        assert (watch.seconds_left() or 0) > 1


def test_many_edits_are_one(folder: Path, follower: Follower) -> None:
    before = follower.readings
    for number in range(500):
        (folder / f"t{number}.yaml").write_text(tier(f"t{number}"))
    follower.settle()
    assert len(follower.keys) == 501
    assert follower.readings - before == 1


def test_only_what_changed_is_parsed(
    folder: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "b.yaml").write_text(tier("b"))
    follower.settle()
    parsed = parsed_files(monkeypatch)
    (folder / "b.yaml").write_text(tier("b", 2))
    follower.settle()
    os.utime(folder / "a.yaml")
    follower.settle()
    assert parsed == ["b.yaml"]


def test_nothing_new_is_the_same_object(folder: Path, follower: Follower) -> None:
    before = follower.loading
    (folder / "notes.txt").write_text("no policy")
    (folder / "a.yaml").write_text(tier("a"))
    follower.settle()
    assert follower.loading is before


def test_an_edit_within_one_tick_is_seen(folder: Path, follower: Follower) -> None:
    """Of the same size, in the same file, at what may be the same time."""
    for order in (2, 3, 4, 5):
        (folder / "a.yaml").write_text(tier("a", order))
        assert follower.cache.read([str(folder)]).resources[0].spec.order == order  # type: ignore[attr-defined]


def test_the_cache_reads_what_a_plain_reading_reads(folder: Path, follower: Follower) -> None:
    """Also what is wrong, and resources that are in two files."""
    (folder / "b.yaml").write_text(tier("b") + "---\n" + tier("a", 2))
    (folder / "c.yaml").write_text("kind: [\n")
    (folder / "d.yaml").symlink_to("nowhere")
    follower.settle()
    plain = read_documents([str(folder)])
    assert [str(problem) for problem in follower.loading.problems] == [
        str(problem) for problem in plain.problems
    ]
    assert len(plain.problems) == 3
    assert follower.keys == [resource.key for resource in plain.resources]
    (folder / "b.yaml").write_text(tier("b"))
    (folder / "c.yaml").unlink()
    (folder / "d.yaml").unlink()
    follower.settle()
    assert (follower.keys, follower.loading.problems) == (["Tier/a", "Tier/b"], [])
