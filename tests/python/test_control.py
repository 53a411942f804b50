"""The control socket: requests and answers, who may ask, and clients that do not behave."""

from __future__ import annotations

import json
import math
import os
import random
import resource
import select
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from labelgate.cli import cli, options
from labelgate.config import KEYS
from labelgate.control import VERSION, ControlError, ControlServer, NoDaemon, ask, network_namespace, server


class Answering:
    """A server that is served by a thread, as the daemon's loop does."""

    def __init__(self, path: Path) -> None:
        self.said: list[str] = []
        self.namespace = network_namespace()
        self.changes = 0
        self._over = threading.Event()
        self.server = ControlServer(str(path), self._verbs(), self.said.append)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _verbs(self) -> dict[str, server.Verb]:
        def refuse(arguments: dict[str, Any]) -> dict[str, Any]:
            raise ControlError("refused", "not so", ["why"])

        return {
            "echo": lambda arguments: {"arguments": arguments},
            "refuse": refuse,
            "fault": lambda arguments: {"never": 1 // 0},
            "status": lambda arguments: {"networkNamespace": self.namespace, "pid": 7},
            "rules": lambda arguments: {"rules": []},
            **dict.fromkeys(options.CHANGING, self._change),
        }

    def _change(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        self.changes += 1
        return {"generation": 2, "findings": []}

    def _serve(self) -> None:
        while not self._over.wait(0.001):
            self.server.serve()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def answering(path: Path) -> Iterator[Answering]:
    made = Answering(path)
    yield made
    made.close()


def connect(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(30)
    opened.connect(str(path))
    return opened


def wait_for(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_verb_is_answered(answering: Answering, path: Path) -> None:
    assert ask(str(path), "echo", text="ä", number=1) == {"arguments": {"text": "ä", "number": 1}}


def test_only_the_owner_may_ask(answering: Answering, path: Path) -> None:
    assert stat.filemode(path.stat().st_mode) == "srw-------"


def test_a_socket_that_is_removed_is_made_anew(
    answering: Answering, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_SECONDS", math.inf)
    with connect(path) as before, before.makefile("rb") as answers:
        shutil.rmtree(path.parent)
        path.parent.write_text("in the way")
        monkeypatch.setattr(server, "LOOK_SECONDS", 0.0)
        wait_for(lambda: answering.said)
        path.parent.unlink()
        wait_for(lambda: len(answering.said) > 1)
        assert ask(str(path), "echo") == {"arguments": {}}
        assert stat.filemode(path.stat().st_mode) == "srw-------"
        before.sendall(b'{"version":1,"verb":"echo"}\n')
        assert b"result" in answers.readline(), "who was let in before is still answered"
    first, last = answering.said
    assert first.startswith(f"warning: the control socket {path} is gone, and cannot be made anew: [Errno")
    assert last == f"warning: the control socket {path} was gone; it is made anew"
    answering.close()
    assert not path.exists()


def test_what_is_put_in_the_place_of_the_socket_is_left_alone(
    answering: Answering, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.0)
    path.with_name("file").write_text("of somebody")
    path.with_name("file").replace(path)
    answering.server.serve()
    assert (path.read_text(), answering.said) == ("of somebody", [])


def test_a_refusal_says_why(answering: Answering, path: Path) -> None:
    with pytest.raises(ControlError, match="not so") as refused:
        ask(str(path), "refuse")
    assert (refused.value.code, refused.value.details) == ("refused", ["why"])


def test_a_fault_of_a_verb_ends_nothing(answering: Answering, path: Path) -> None:
    with pytest.raises(ControlError, match="a fault of the daemon") as refused:
        ask(str(path), "fault")
    assert refused.value.code == "internal"
    assert "ZeroDivisionError" in answering.said[0]
    assert ask(str(path), "echo") == {"arguments": {}}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "request"),
        (b"[]", "request"),
        (b'{"verb":"echo"}', "version"),
        (b'{"version":2,"verb":"echo"}', "version"),
        (b'{"version":1}', "request"),
        (b'{"version":1,"verb":"shout"}', "verb"),
        (b'{"version":1,"verb":"echo"', "request"),
        (b"\xff\xfe", "request"),
        (b"[" * 100_000, "request"),
        (b"9" * 10_000, "request"),
    ],
)
def test_what_is_no_request_is_refused(answering: Answering, path: Path, line: bytes, code: str) -> None:
    with connect(path) as opened, opened.makefile("rb") as answers:
        opened.sendall(line + b"\n")
        answer = json.loads(answers.readline())
        assert (answer["version"], answer["error"]["code"]) == (VERSION, code)


def test_many_requests_at_once_are_answered_in_order(answering: Answering, path: Path) -> None:
    number = 3000
    lines = [{"version": VERSION, "verb": "echo", "n": n} for n in range(number)]
    with connect(path) as opened, opened.makefile("rb") as answers:
        opened.sendall("".join(json.dumps(line) + "\n" for line in lines).encode())
        found = [json.loads(answers.readline())["result"]["arguments"]["n"] for _ in range(number)]
    assert found == list(range(number))


def test_a_request_may_come_in_pieces(answering: Answering, path: Path) -> None:
    with connect(path) as opened, opened.makefile("rb") as answers:
        for byte in b'{"version":1,"verb":"echo"}\n':
            opened.sendall(bytes([byte]))
        assert json.loads(answers.readline())["result"] == {"arguments": {}}


def test_a_client_that_takes_nothing_holds_up_nobody(answering: Answering, path: Path) -> None:
    with connect(path) as deaf:
        deaf.setblocking(False)
        request = json.dumps({"version": VERSION, "verb": "echo", "text": "x" * 100_000}).encode() + b"\n"
        with suppress(BlockingIOError):
            for _ in range(1000):
                deaf.sendall(request)
        assert ask(str(path), "echo") == {"arguments": {}}


def test_a_crowd_cuts_off_the_silent(answering: Answering, path: Path) -> None:
    crowd = [connect(path) for _ in range(server.MOST_CLIENTS + 5)]
    try:
        assert ask(str(path), "echo") == {"arguments": {}}
        assert crowd[0].recv(1) == b""
    finally:
        for opened in crowd:
            opened.close()


def test_no_descriptor_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is let in later: the daemon must not be kept awake by what it cannot do now."""
    said: list[str] = []
    path.parent.mkdir()
    with (
        ControlServer(str(path), {"echo": lambda arguments: arguments}, said.append) as serving,
        connect(path) as waiting,
    ):
        waiting.sendall(b'{"version":1,"verb":"echo"}\n')
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The lowest free number is the first that is not to be had.
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            serving.serve()
            assert select.select([serving], [], [], 0)[0] == []
            assert said == ["warning: control socket: nobody can be let in now: Too many open files"]
            serving.serve()
            assert len(said) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        monkeypatch.setattr(server, "DEAF_SECONDS", 0.0)
        serving._deaf_until = 0.0
        for _ in range(3):
            serving.serve()
        assert json.loads(waiting.recv(1000))["result"] == {}


def test_the_silent_are_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.05)
    answering = Answering(path)
    with connect(path) as opened:
        opened.sendall(b'{"version":')
        assert opened.recv(1) == b""
    answering.close()


def test_a_verb_that_takes_long_keeps_its_client(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that could not be listened to meanwhile."""
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.2)
    path.parent.mkdir()

    def work(arguments: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.4)
        return {}

    with (
        ControlServer(str(path), {"work": work}, lambda _: None) as serving,
        connect(path) as waiting,
        connect(path) as asking,
    ):
        serving.serve()
        serving.serve()
        asking.sendall(b'{"version":1,"verb":"work"}\n')
        serving.serve()
        serving.serve()
        assert json.loads(asking.recv(1000))["result"] == {}
        waiting.sendall(b'{"version":1,"verb":"more"}\n')
        serving.serve()
        serving.serve()
        assert json.loads(waiting.recv(1000))["error"]["code"] == "verb"


def test_who_has_gone_changes_nothing(path: Path) -> None:
    """Nobody would learn of it. Who only sends no more waits for an answer."""
    path.parent.mkdir()
    done: list[str] = []

    def work(arguments: dict[str, Any]) -> dict[str, Any]:
        done.append(arguments["who"])
        return {}

    with ControlServer(str(path), {"work": work}, lambda _: None) as serving:
        with connect(path) as gone:
            gone.sendall(b'{"version":1,"verb":"work","who":"gone"}\n')
        with connect(path) as waiting:
            waiting.sendall(b'{"version":1,"verb":"work","who":"waiting"}\n')
            waiting.shutdown(socket.SHUT_WR)
            for _ in range(6):
                serving.serve()
            assert json.loads(waiting.recv(1000))["result"] == {}
    assert done == ["waiting"]


def test_a_line_without_an_end_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_BYTES", 1 << 20)
    answering = Answering(path)
    with connect(path) as opened, pytest.raises(OSError, match=r"Broken pipe|reset"):
        opened.sendall(b"x" * 10_000_000)
    answering.close()


def test_fuzzed_clients(answering: Answering, path: Path) -> None:
    """Any bytes, cut anywhere, with clients that go before their answer: the next one is answered."""
    dice = random.Random(7)
    words = [
        b'{"version":1,"verb":"echo"}',
        b'"verb"',
        b"\n",
        b"{",
        b"}",
        b"[",
        b"\\u0000",
        b"\xff",
        b"1e999",
        b"null",
    ]
    for _ in range(300):
        data = b"".join(
            dice.choice([dice.randbytes(dice.randrange(40)), *words]) for _ in range(dice.randrange(30))
        )
        with connect(path) as opened, suppress(OSError):
            opened.sendall(data)
            if dice.random() < 0.3:
                opened.shutdown(socket.SHUT_WR)
            if dice.random() < 0.5:
                opened.settimeout(0.002)
                opened.recv(100)
    assert ask(str(path), "echo") == {"arguments": {}}
    assert answering.said == []


def test_who_waits_for_a_daemon_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts and says nothing, as one that is stopped."""
    monkeypatch.setattr(options, "PATIENCE_SECONDS", 0.01)
    path.parent.mkdir()
    waits = (
        f"the daemon at {path} has not answered yet: it may be compiling a large policy, or have been stopped"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for seconds, said in ((0.2, [f"{waits}; waiting 0.2 s at most"]), (0.01, [])):

            @click.command()
            def verb(seconds: float = seconds) -> None:
                options.ask_daemon(str(path), "status", seconds)

            done = CliRunner().invoke(verb)
            assert done.exit_code == 3
            assert done.stderr.splitlines() == [
                *said, f"Error: the daemon at {path} does not answer within {seconds:g} s"
            ]  # fmt: skip


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(NoDaemon, match="no daemon is running"):
        ask(str(path), "echo")


def test_a_dead_daemons_socket_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NoDaemon, match="no daemon is running"):
        ask(str(path), "echo")
    answering = Answering(path)
    assert ask(str(path), "echo") == {"arguments": {}}
    answering.close()
    assert not path.exists()


def test_a_living_daemons_socket_is_left_alone(answering: Answering, path: Path) -> None:
    said: list[str] = []
    with ControlServer(str(path), {}, said.append):
        assert ask(str(path), "echo") == {"arguments": {}}
    assert said == [f"warning: no control socket at {path}: another daemon listens there"]
    assert ask(str(path), "echo") == {"arguments": {}}


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    said: list[str] = []
    ControlServer(str(path), {}, said.append).close()
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to("nowhere")
    ControlServer(str(path), {}, said.append).close()
    assert path.is_symlink()
    assert said == [f"warning: no control socket at {path}: something that is no socket is in its place"] * 2


def test_a_socket_that_cannot_be_made_at_the_start_is_made_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is removed."""
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.0)
    path.parent.write_text("in the way")
    answering = Answering(path)
    wait_for(lambda: answering.said)
    path.parent.unlink()
    wait_for(lambda: len(answering.said) > 1)
    assert ask(str(path), "echo") == {"arguments": {}}
    answering.close()
    first, last = answering.said
    assert first.startswith(f"warning: no control socket at {path}: [Errno")
    assert last == f"the control socket {path} is made"
    assert not path.exists()


@pytest.fixture
def built_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that name no socket ask here."""
    monkeypatch.delenv("LABELGATE_SOCKET", raising=False)
    monkeypatch.setitem(KEYS, "socket", (KEYS["socket"][0], str(path)))  # type: ignore[misc]


@pytest.mark.parametrize("verb", sorted(options.CHANGING))
def test_a_daemon_of_another_network_namespace_is_changed_by_its_name_only(
    verb: str, path: Path, answering: Answering, built_in: None, tmp_path: Path
) -> None:
    """The socket that is built in is one for all network namespaces."""
    (tmp_path / "policies").mkdir()
    words = [verb, *(["-f", str(tmp_path / "policies")] if verb == "apply" else [])]
    assert (CliRunner().invoke(cli, words).exit_code, answering.changes) == (0, 1)
    answering.namespace = 1
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, answering.changes) == (1, 1)
    assert done.stderr.startswith(
        f"the daemon at {path} (pid 7) is that of another network namespace: nothing"
    )
    for options_, environ in ((["--socket", str(path)], {}), ([], {"LABELGATE_SOCKET": str(path)})):
        before = answering.changes
        assert CliRunner().invoke(cli, [*words, *options_], env=environ).exit_code == 0
        assert answering.changes == before + 1


def test_a_reload_finds_the_socket_of_the_configuration(
    path: Path, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else is there may be what the daemon is going to refuse."""
    monkeypatch.delenv("LABELGATE_SOCKET", raising=False)
    config, none = tmp_path / "config.yaml", str(tmp_path / "none")
    config.write_text(f"node: a\nsocket: {path}\nnonsense: [\n", encoding="utf-8")
    words = ["reload", "--config", str(config)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    assert CliRunner().invoke(cli, [*words, "--socket", none]).exit_code == 3
    assert CliRunner().invoke(cli, words, env={"LABELGATE_SOCKET": none}).exit_code == 3
    assert answering.changes == 1


def test_a_trial_has_seconds(path: Path, answering: Answering, tmp_path: Path) -> None:
    words = ["apply", "-f", str(tmp_path), "--socket", str(path), "--confirm"]
    for given, said in (("5", "5s"), ("60s", "60s"), ("1.5m", "90s"), ("500ms", "0.5s")):
        done = CliRunner().invoke(cli, [*words, given])
        assert f"rolled back in {said} unless" in done.output


def test_one_that_is_asked_only_is_warned_of(path: Path, answering: Answering, built_in: None) -> None:
    for namespace, warnings in ((1, 1), (answering.namespace, 0), (None, 0)):
        answering.namespace = namespace
        done = CliRunner().invoke(cli, ["rules"])
        assert (done.exit_code, done.stderr.count("is that of another network namespace")) == (0, warnings)
    answering.namespace = 1
    assert CliRunner().invoke(cli, ["rules", "--socket", str(path)]).stderr == ""
