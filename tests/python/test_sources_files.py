"""Files, folders and standard input."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from labelgate import regular
from labelgate.cli import cli
from labelgate.regular import MOST_BYTES
from labelgate.resources import LoadError
from labelgate.sources import folders
from labelgate.sources.cache import FileCache
from labelgate.sources.files import load_documents, misnamed, policy_files, read_documents
from labelgate.sources.watch import FileWatch


def tier(name: str) -> str:
    return f"apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: {name}}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, name in (
        ("b.yaml", "b"),
        ("a.yml", "a"),
        ("c/d.json", "d"),
        ("c/e.yaml", "e"),
        ("notes.txt", "x"),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(tier(name))
    (tmp_path / "c/d.json").write_text(
        '{"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "d"}}'
    )
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/f.yaml").write_text(tier("f"))
    return tmp_path


def test_folders_are_read_sorted(folder: Path) -> None:
    assert [resource.key for resource in load_documents([folder])] == ["Tier/a", "Tier/b", "Tier/d", "Tier/e"]


def test_a_named_file_may_have_any_suffix_and_counts_once(folder: Path) -> None:
    paths = [folder / "notes.txt", str(folder / "b.yaml"), folder]
    assert [resource.key for resource in load_documents(paths)] == [
        "Tier/x",
        "Tier/b",
        "Tier/a",
        "Tier/d",
        "Tier/e",
    ]


def test_a_mounted_config_map(tmp_path: Path) -> None:
    """Kubernetes mounts links to files in a hidden folder."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026/a.yaml").write_text(tier("a"))
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert [resource.key for resource in load_documents([tmp_path])] == ["Tier/a"]


def test_a_link_to_a_folder_above_does_not_loop(folder: Path) -> None:
    (folder / "c" / "up").symlink_to(folder)
    assert len(load_documents([folder])) == 4


@contextmanager
def nested(folder: Path, levels: int) -> Iterator[Path]:
    """Folders one in another: the last one."""
    # One by one, and so taken away: Python would recurse, and the whole way may be too long a name.
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        yield folder.joinpath(*["d"] * levels)
    finally:
        subprocess.run(["rm", "-r", folder / "d"], check=True)


def test_folders_that_lie_too_deep_are_refused(folder: Path) -> None:
    """They ended the daemon, and every other verb."""
    with nested(folder, folders.MOST_DEPTH - 1) as deepest:
        (deepest / "z.yaml").write_text(tier("z"))
        assert len(load_documents([folder])) == 5
    with nested(folder / "c", 3000):
        with pytest.raises(LoadError) as caught:
            load_documents([folder])
        [problem] = caught.value.problems
        assert (problem.file, problem.code) == (str(folder), "folder-deep")
        with FileWatch([str(folder)], print) as watch:
            assert str(folder / "c") in watch._folders.values()
            assert len(watch._folders) < 2 * folders.MOST_DEPTH


def test_folders_that_hold_too_much_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_NAMES", 6)
    assert len(load_documents([folder])) == 4
    (folder / "c" / "note").write_text("")
    with pytest.raises(LoadError, match="holds too many files and folders"):
        load_documents([folder])


@pytest.mark.parametrize("is_followed", [False, True])
def test_files_that_are_too_large_are_not_read(folder: Path, is_followed: bool) -> None:
    """Nor those that are it together: to tell what is wrong with them would take all memory."""
    with (folder / "a.yml").open("r+b") as file:
        file.truncate(MOST_BYTES + 1)
    [problem] = read_documents([folder], is_followed=is_followed).problems
    assert (problem.file, problem.code, problem.found) == (
        str(folder / "a.yml"), "file-large", f"{MOST_BYTES + 1} bytes",
    )  # fmt: skip
    for number in range(4):
        with (folder / f"more{number}.yaml").open("wb") as file:
            file.truncate(MOST_BYTES)
    with pytest.raises(LoadError) as caught:
        FileCache().read([str(folder)]) if is_followed else read_documents([folder])
    [problem] = caught.value.problems
    assert (problem.file, problem.code) == (str(folder), "files-large")


def test_a_pipe_that_never_ends_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular, "MOST_BYTES", 1 << 20)
    [problem] = read_documents(["/dev/zero"]).problems
    assert (problem.code, problem.found) == ("file-large", "more than 1048576 bytes")


def test_links_to_links_are_walked_once(folder: Path) -> None:
    """Two in each of many folders are more ways than anybody could go."""
    for number in range(40):
        (folder / f"f{number}").mkdir()
        for name in ("a", "b"):
            (folder / f"f{number}" / name).symlink_to(folder / f"f{number + 1}")
    assert len(load_documents([folder])) == 4


def test_a_linked_folder_is_read(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A policy behind a link must not be missing without a word."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "z.yaml").write_text(tier("z"))
    (folder / "linked").symlink_to(elsewhere)
    assert len(load_documents([folder])) == 5


def test_only_files_of_a_folder_are_read(folder: Path) -> None:
    """A pipe would be waited for for ever."""
    os.mkfifo(folder / "pipe.yaml")
    (folder / "linked.yaml").symlink_to("pipe.yaml")
    (folder / "null.yaml").symlink_to("/dev/null")
    assert list(map(os.path.basename, policy_files(str(folder)))) == ["a.yml", "b.yaml", "d.json", "e.yaml"]
    (folder / "nowhere.yaml").symlink_to("gone")
    assert os.path.join(folder, "nowhere.yaml") in policy_files(str(folder))


def test_a_link_that_cannot_be_followed_is_told_of(folder: Path) -> None:
    """Whatever its name: policies may be behind it."""
    (folder / "loop").symlink_to("loop")
    with pytest.raises(LoadError) as caught:
        load_documents([folder])
    [problem] = caught.value.problems
    assert (problem.file, problem.code) == (str(folder / "loop"), "file-unreadable")
    assert problem.found == "Too many levels of symbolic links"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_link_into_a_folder_that_nobody_else_may_search(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "z.yaml").write_text(tier("z"))
    (folder / "z.yaml").symlink_to(hidden / "z.yaml")
    for place in (folder, *folder.parents[:3]):
        place.chmod(0o755)
    os.seteuid(65534)
    try:
        [problem] = read_documents([folder]).problems
    finally:
        os.seteuid(0)
    assert (problem.file, problem.code) == (str(folder / "z.yaml"), "file-unreadable")
    assert problem.found == "Permission denied"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(tier("a").encode())))
    [resource] = load_documents(["-"])
    assert resource.location.file == "<stdin>"


def test_problems_of_all_files_at_once(folder: Path) -> None:
    (folder / "a.yml").write_text(tier("A"))
    (folder / "c/e.yaml").write_bytes(b"\xff")
    missing = folder / "gone.yaml"
    with pytest.raises(LoadError) as caught:
        load_documents([folder, missing])
    assert [(problem.file, problem.code) for problem in caught.value.problems] == [
        (str(folder / "a.yml"), "name"),
        (str(folder / "c/e.yaml"), "not-utf8"),
        (str(missing), "file-missing"),
    ]
    assert str(caught.value).count("\n  hint: ") == 3


def test_the_same_resource_in_two_files(folder: Path) -> None:
    (folder / "b.yaml").write_text(tier("a"))
    loading = read_documents([folder])
    [problem] = loading.problems
    assert (problem.file, problem.code) == (str(folder / "b.yaml"), "resource-duplicate")
    assert problem.expected == f"each resource once; the first is at {folder / 'a.yml'}:1:1"


def test_progress(tmp_path: Path) -> None:
    texts = {"a.yaml": "---\n".join(map(tier, "abcde")), "b.yaml": "", "c.yaml": tier("f")}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    told: list[tuple[int, int]] = []
    load_documents([tmp_path], lambda done, whole: told.append((done, whole)))
    step, whole = len("---\n" + tier("a")), sum(map(len, texts.values())) + len(texts)
    first, second = len(texts["a.yaml"]) + 1, len(texts["a.yaml"]) + 2
    done = [0, 0, *(step * number for number in (1, 2, 3, 4)), first, second, second, whole]
    assert told == [(number, whole) for number in done]


def test_notices(tmp_path: Path) -> None:
    file = tmp_path / "felix.yaml"
    file.write_text(
        tier("default").replace("Tier", "FelixConfiguration") + "spec: {logSeverityScreen: Info}\n"
    )
    assert read_documents([file]).notices == (
        f"{file}:1: FelixConfiguration/default: fields without effect here: logSeverityScreen",
    )


def test_names_in_capitals_are_warned_of(folder: Path) -> None:
    """They are not read; the others, whatever they are called, are not meant."""
    for name in ("POLICY.YAML", "c/a.Yml", ".HIDDEN.YAML", "NOTES.TXT"):
        (folder / name).write_text("no policy [")
    (folder / "FOLDER.YAML").mkdir()
    names = [folder / "POLICY.YAML", folder / "c" / "a.Yml"]
    expected = [f"not read: {name}; names end in .yaml, .yml or .json" for name in names]
    assert misnamed([folder, folder / "c"]) == expected
    assert len(load_documents([folder])) == 4
    for verb in ("check", "lint"):
        result = CliRunner().invoke(cli, [verb, "-f", str(folder)])
        assert [line for line in result.stderr.splitlines() if "not read" in line] == [
            f"warning: {warning}" for warning in expected
        ]
    cache = FileCache()
    for warnings in (expected, [], []):
        cache.read([str(folder)])
        assert list(cache.warnings) == warnings
    (folder / "POLICY.YAML").rename(folder / "Policy.yaml")
    assert len(cache.read([str(folder)]).problems) == 1
    assert cache.warnings == ()
