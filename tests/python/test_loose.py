"""nf_conntrack_tcp_loose, which `revoke: deny-now` switches off, is the host's again in the end."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from labelgate.agent import loose
from labelgate.agent.caution import Revocation
from labelgate.cli import cli
from labelgate.netfilter import conntrack

STRICT: Any = SimpleNamespace(config=SimpleNamespace(revoke="deny-now"))
NO_RULES = SimpleNamespace(queues_led_to=frozenset)
LENIENT: Any = SimpleNamespace(config=SimpleNamespace(revoke="new-only"))


@pytest.fixture(autouse=True)
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of the kernel's."""
    path = tmp_path / "sysctl"
    path.write_text("1")
    monkeypatch.setattr(conntrack, "_TCP_LOOSE", path)
    return path


@pytest.fixture(autouse=True)
def _nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("labelgate.cli.clean"), "Netfilter", lambda: NO_RULES)


@pytest.fixture
def state(tmp_path: Path, sysctl: Path) -> str:
    """Of a daemon that was killed."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    Revocation(print, str(folder)).follow(STRICT)
    assert sysctl.read_text() == "0"
    return str(folder)


@pytest.mark.parametrize("generations", [[STRICT], [LENIENT], [STRICT, LENIENT], [LENIENT, STRICT]])
def test_the_next_daemon_sets_it_back(generations: list[Any], state: str, sysctl: Path) -> None:
    said: list[str] = []
    revocation = Revocation(said.append, state)
    for generation in generations:
        revocation.follow(generation)
        assert sysctl.read_text() == ("0" if generation is STRICT else "1")
    revocation.undo()
    assert (sysctl.read_text(), said, list(Path(state).iterdir())) == ("1", [], [])


def test_a_start_of_the_machine_sets_it_anew(
    state: str, sysctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is 0 then is so by the host's own will."""
    monkeypatch.setattr(loose, "_BOOT", tmp_path / "boot")
    (tmp_path / "boot").write_text("another")
    said: list[str] = []
    revocation = Revocation(said.append, state)
    revocation.follow(STRICT)
    revocation.undo()
    assert sysctl.read_text() == "0"
    assert said == ["nf_conntrack_tcp_loose is 0 already: a stop leaves it so"]


def test_another_namespace_of_the_same_inode_is_not_ours(
    state: str, sysctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loose, "netns_cookie", lambda: 1 << 63)
    assert not loose.LooseNote(state).restore()
    assert sysctl.read_text() == "0"


def test_clean_sets_it_back(state: str, sysctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("labelgate.cli.clean"), "remove_rules", list)
    for expected in ("set nf_conntrack_tcp_loose back to 1\n", "nothing of ours is there\n"):
        done = CliRunner().invoke(cli, ["clean", "--state", state])
        assert (done.exit_code, done.output) == (0, expected)
        assert sysctl.read_text() == "1"


@pytest.mark.parametrize(
    ("process", "who"), [(7, "labelgate (pid 7)"), (0, "a labelgate that cannot be seen")]
)
def test_clean_leaves_what_a_daemon_enforces(
    process: int, who: str, state: str, sysctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removals: list[str] = []
    monkeypatch.setattr(
        import_module("labelgate.cli.clean"), "remove_rules", lambda: removals.append("") or []
    )
    monkeypatch.setattr(import_module("labelgate.cli.clean"), "running", lambda: process)
    done = CliRunner().invoke(cli, ["clean", "--state", state])
    assert (done.exit_code, removals, sysctl.read_text()) == (1, [], "0")
    assert done.stderr.startswith(f"{who}")
    assert "without --force" in done.stderr
    done = CliRunner().invoke(cli, ["clean", "--state", state, "--force"])
    assert (done.exit_code, removals, sysctl.read_text()) == (0, [""], "1")
    assert done.stderr.startswith(f"warning: {who}")


def test_clean_leaves_what_somebody_answers(
    state: str, sysctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon whose lock is not seen from here, and whose name somebody else has taken."""
    removals: list[str] = []
    clean = import_module("labelgate.cli.clean")
    monkeypatch.setattr(clean, "remove_rules", lambda: removals.append("") or [])
    monkeypatch.setattr(clean, "answered_queues", lambda _: [4206, 4213])
    done = CliRunner().invoke(cli, ["clean", "--state", state])
    assert (done.exit_code, removals, sysctl.read_text()) == (1, [], "0")
    assert "another process answers queues 4206..4213, which rules of ours lead to" in done.stderr
    assert CliRunner().invoke(cli, ["clean", "--state", state, "--force"]).exit_code == 0
    assert removals == [""]


def test_what_cannot_be_set_is_told(state: str, sysctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("labelgate.cli.clean"), "remove_rules", list)
    sysctl.unlink()
    sysctl.mkdir()
    done = CliRunner().invoke(cli, ["clean", "--state", state])
    assert (done.exit_code, done.output) == (3, "Error: nf_conntrack_tcp_loose cannot be set back to 1\n")
    assert len(list(Path(state).iterdir())) == 1, "to be tried again"


def test_nothing_is_written_or_believed_where_others_may_write(state: str, sysctl: Path) -> None:
    """A link there would be written through, and a note of somebody else's believed."""
    (note,) = Path(state).iterdir()
    mine, content = Path(state).with_name("mine"), note.read_bytes()
    mine.write_bytes(content)
    note.unlink()
    note.symlink_to(mine)
    Path(state).chmod(0o777)
    assert not loose.LooseNote(state).is_there()
    mine.write_text("mine")
    sysctl.write_text("1")
    said: list[str] = []
    revocation = Revocation(said.append, state)
    revocation.follow(STRICT)
    assert (mine.read_text(), sysctl.read_text()) == ("mine", "0")
    (told,) = said
    assert "a kill would leave" in told
    assert "others may write there" in told
    revocation.undo()
    assert (note.is_symlink(), sysctl.read_text()) == (True, "1")
    # Nor where nobody else may: what is in the place of the note is replaced.
    Path(state).chmod(0o700)
    loose.LooseNote(state).leave()
    assert (mine.read_text(), note.is_symlink(), note.read_bytes()) == ("mine", False, content)


def test_without_a_state_it_is_told(tmp_path: Path, sysctl: Path) -> None:
    said: list[str] = []
    revocation = Revocation(said.append, str(tmp_path / "no"))
    revocation.follow(STRICT)
    why = f"{tmp_path / 'no'}: No such file or directory"
    assert said == [f"warning: a kill would leave nf_conntrack_tcp_loose at 0: {why}"]
    revocation.undo()
    assert sysctl.read_text() == "1"
