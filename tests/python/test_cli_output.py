"""Standard output that cannot be written says nothing of policies, and is no fault of ours."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import labelgate as package
import pytest
from click.testing import CliRunner
from labelgate import cli

FULL = "labelgate: standard output: No space left on device: not all of the answer is there\n"
WRITERS = [["--help"], ["schema", "Tier"]]


def labelgate(words: list[str], output: int) -> tuple[int, str]:
    """Exit code and errors."""
    command = [sys.executable, "-P", "-m", "labelgate", *words]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_a_verb_that_does_not_exist_is_told_the_nearest() -> None:
    """Or where all of them stand."""
    for word, hint in (("lnit", "did you mean `lint`?"), ("xyz", "`labelgate --help` lists them")):
        result = CliRunner().invoke(cli.cli, [word, "-f", "policies/"])
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: no verb `{word}`: {hint}")


def test_shells_complete_verbs() -> None:
    """As README says."""
    asked = {"_LABELGATE_COMPLETE": "bash_complete", "COMP_WORDS": "labelgate li", "COMP_CWORD": "1"}
    result = CliRunner().invoke(cli.cli, prog_name="labelgate", env=asked)
    assert (result.exit_code, result.stdout) == (0, "plain,lint\n")


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_reader_that_has_gone(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert labelgate(words, writer) == (141, "")
    finally:
        os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a device of Linux that is full")
@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_full_disk(words: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = labelgate(words, full)
    finally:
        os.close(full)
    assert code == 3
    assert said == FULL


CAPTURE = """
import importlib, sys
events = importlib.import_module("labelgate.cli.events")
events.ask_daemon, events.warn_of_elsewhere = lambda *_: {"packets": []}, lambda *_: None
sys.argv[1:] = ["events", "--pcap", "-"]
from labelgate.cli import main
main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a device of Linux that is full")
def test_a_capture_to_a_full_disk() -> None:
    """It is bytes, not lines, which nothing writes before the program ends."""
    command, buffered = [sys.executable, "-P", "-c", CAPTURE], {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=buffered
        )
    assert (done.returncode, done.stderr) == (3, FULL)


POLICY = str(Path(package.__file__).parent / "examples" / "01-workload.yaml")
READERS = {
    "explain": (["explain", "-f", POLICY, "--packets"], "{}\n"),
    "replay": (
        ["replay", "-o", "json", "--flows", "--node", "edge1", "--route", "0.0.0.0/0=eth0", POLICY],
        '{"src":"203.0.113.7","dst":"10.65.0.2","protocol":"tcp","sport":4000,"dport":443}\n',
    ),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a device of Linux that is full")
@pytest.mark.parametrize("verb", READERS)
def test_a_full_disk_is_not_told_of_the_file_that_is_read(verb: str, tmp_path: Path) -> None:
    words, content = READERS[verb]
    read = tmp_path / "read.jsonl"
    read.write_text(content)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = labelgate([*words, str(read)], full)
    finally:
        os.close(full)
    assert code == 3
    assert said.endswith(FULL)
    assert read.name not in said


def test_output_without_a_buffer_is_not_given_one() -> None:
    """As Python is told with `-u`: what is written is there, however the program ends."""
    script = "import os, sys; from labelgate.cli import _name_output; _name_output(); print('x'); os._exit(0)"
    command = [sys.executable, "-P", "-u", "-c", script]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout == b"x\n"


def test_clean_does_all_before_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may read what it says; nf_conntrack_tcp_loose is set back all the same."""
    clean = importlib.import_module("labelgate.cli.clean")
    restored = []

    class Note:
        def __init__(self, folder: object) -> None:
            pass

        def restore(self) -> bool:
            restored.append(True)
            return True

    def fail(text: str) -> None:
        assert restored, f"told before all was done: {text}"
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(clean, "remove_rules", lambda: ["raw"])
    monkeypatch.setattr(clean.nfacct, "remove_all", lambda prefix: True)
    monkeypatch.setattr(clean, "LooseNote", Note)
    monkeypatch.setattr(clean.click, "echo", fail)
    with pytest.raises(BrokenPipeError):
        clean.clean.callback(None, None, False)
    assert restored


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_what_is_not_the_output_is_not_told_as_if(number: int) -> None:
    """A daemon that ends while it is asked; watches of which the kernel allows no more."""
    with pytest.raises(OSError, match=os.strerror(number)), cli._writing():
        raise OSError(number, os.strerror(number))


def without(number: int, words: list[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a run that has one of its standard streams closed."""
    close = f'exec "$@" {number}>&-' if number else 'exec "$@" <&-'
    command = ["sh", "-c", close, "sh", sys.executable, "-P", "-m", "labelgate", *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_closed_input_is_empty() -> None:
    assert without(0, ["lint", "-f", "-"])[0] == 0
    assert without(0, [*READERS["explain"][0], "-"])[:2] == (0, "")


@pytest.mark.parametrize("words", [WRITERS[0], ["check", "-f", POLICY]], ids=" ".join)
def test_closed_output_cannot_be_written(words: list[str]) -> None:
    code, _, said = without(1, words)
    assert code == 3
    assert said == FULL.replace("No space left on device", "Bad file descriptor")


def test_closed_errors_change_no_answer() -> None:
    code, answer, _ = without(2, ["check", "-f", POLICY])
    assert code == 0
    assert answer.endswith("documents are valid\n")


def test_all_closed_streams_are_opened_before_any_file() -> None:
    """A policy file of descriptor 2 would get the errors written into it, if it could be."""
    script = (
        "import os, sys; saved = os.dup(1); [os.close(n) for n in (0, 1, 2)];"
        "sys.stdin = sys.stdout = sys.stderr = None;"
        "from labelgate import streams; streams.open_closed();"
        "found = [os.path.realpath(f'/proc/self/fd/{n}') for n in (0, 1, 2)];"
        "print('dropped', file=sys.stderr); assert sys.stdin.read() == '';"
        "os.write(saved, repr((found, os.get_inheritable(2))).encode())"
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    assert done.stdout == repr((["/dev/null"] * 3, True)).encode()


SAYS = "from labelgate.cli.run import _say; _say('warning: one\\ntwo'); _say('three\\nfour')"


@pytest.mark.parametrize("is_journal", [True, False])
def test_warnings_have_their_priority_in_the_journal(is_journal: bool) -> None:
    """`journalctl -p warning` finds them, each line; a terminal, or another file, has no marks."""
    reader, writer = os.pipe()
    found = os.fstat(writer)
    stream = f"{found.st_dev}:{found.st_ino + (not is_journal)}"
    with os.fdopen(reader, "rb") as said:
        try:
            command = [sys.executable, "-P", "-c", SAYS]
            environ = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run(command, stderr=writer, timeout=60, check=True, env=environ)
        finally:
            os.close(writer)
        mark = b"<4>" if is_journal else b""
        assert said.read() == b"%swarning: one\n%stwo\nthree\nfour\n" % (mark, mark)


def test_the_version_is_told_by_an_option_too() -> None:
    told = {CliRunner().invoke(cli.cli, [word]).output for word in ("--version", "version")}
    assert len(told) == 1
    assert told.pop().startswith("labelgate ")


SPOILT = {
    "wrong": 'apiVersion: v1\nkind: Namespace\nmetadata: {name: "a\\e[2Jb\\u202e", "la\\x07bels": {}}\n',
    "missing": "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: d}\n"
    'spec: {nodeName: "n\\e[2J", serviceAccountName: "s\\nx \\e[2J"}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n'
    "---\napiVersion: labelgate/v1\nkind: PolicyTest\nmetadata: {name: t}\nspec:\n  expectations:\n"
    "  - {from: 10.0.0.9, to: d/p, protocol: TCP, port: 80, expect: allow}\n",
}


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize(
    "words",
    [
        "check -f",
        "check -o json -f",
        "lint -f",
        "lint -o json -f",
        "lint -o sarif -f",
        "test",
        "test --junit /dev/null",
        "connectivity --matrix --port 80 -f",
        "reach -f",
        "explain --node m --hook filter-input --in e --src ::1 --dst ::2 --protocol tcp --dport 80 -f",
    ],
)
def test_what_files_hold_is_no_command_to_a_terminal(tmp_path: Path, words: str, what: str) -> None:
    """Nor what they are called, which need not be UTF-8."""
    folder = tmp_path / "policies"
    folder.mkdir()
    name = os.fsencode(folder) + b"/caf\xe9\x1b[2J.yaml"
    Path(os.fsdecode(name)).write_text(SPOILT[what], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "labelgate", *words.split(), "policies"],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, capture_output=True, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode <= 3, said
    assert "Traceback" not in said
    assert all(line.isprintable() for line in said.split("\n"))
    assert not any(line.startswith("x ") for line in said.split("\n"))
