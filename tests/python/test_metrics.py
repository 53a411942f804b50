"""Metrics, the server that tells them, `status` and `top`: from what a real daemon once answered."""

from __future__ import annotations

import http.client
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from labelgate.agent import exporter
from labelgate.agent.health import Health, Part
from labelgate.cli import cli
from labelgate.cli.options import EnvironmentProblem
from labelgate.cli.status import lines
from labelgate.cli.status import status as status_verb
from labelgate.cli.top import _watch
from labelgate.cli.top import top as top_verb
from labelgate.cli.top_view import View
from labelgate.control import ControlServer
from labelgate.metrics import server
from labelgate.metrics.families import families, registry
from labelgate.metrics.server import HttpServer, Response
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, ConsoleDimensions
from shipped import expressions, names_used

FOLDER = Path(__file__).parent / "recorded"
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
LOOPBACK = "127.0.0.1"


def recorded(number: int) -> dict[str, Any]:
    """What the daemon answered to `status`; the second a second or so behind the first."""
    found: dict[str, Any] = json.loads((FOLDER / f"status-{number}.json").read_text(encoding="utf-8"))
    return found


def measured() -> dict[str, Any]:
    """As metrics are made from it."""
    denied = {row["policy"]: row["packets"] for row in recorded(1)["hits"]["denied"]}
    return recorded(1) | {
        "hits": {"rules": None, "denied": denied, "stagedDenied": 5},
        "events": {"unwritten": {"events.file": 3, "events.journal": 0}},
        "counters": recorded(1)["counters"] | {"shadow": {"checked": 9, "wrong": 0}},
    }


def samples(status: dict[str, Any]) -> dict[str, float]:
    """Each sample as text, read back from the text that Prometheus gets."""
    text = generate_latest(registry(lambda: status)).decode()
    return {
        f"{sample.name}{dict(sorted(sample.labels.items()))}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# --- metrics ---------------------------------------------------------------------------------------------


def test_every_number_of_the_status_is_told() -> None:
    status, found = measured(), samples(measured())
    hook = "filter-input"
    counted = status["counters"]["hooks"][hook]
    assert counted["verdicts"]["deny"] > 0
    for verdict, count in counted["verdicts"].items():
        assert found["labelgate_packets_total" + str({"hook": hook, "verdict": verdict})] == count
    assert found["labelgate_batches_total" + str({"hook": hook})] == counted["batches"]
    (queue,) = [row for row in status["queues"] if (row["hook"], row["family"]) == (hook, "v4")]
    label = str({"family": "v4", "hook": hook})
    assert found[f"labelgate_queue_packets_total{label}"] == queue["packets"] > 0
    assert found[f"labelgate_queue_room{label}"] == queue["room"]
    assert found["labelgate_ready{}"] == found["labelgate_live{}"] == 1
    (name, packets), *_ = status["hits"]["denied"].items()
    assert found["labelgate_denied_packets_total" + str({"policy": name})] == packets
    assert found["labelgate_staged_would_deny_total{}"] == 5
    assert found["labelgate_events_unwritten_total" + str({"target": "events.file"})] == 3


def test_names_are_as_the_field_has_them() -> None:
    for family in families(measured()):
        assert family.name.startswith("labelgate_")
        assert family.documentation
        assert (family.type == "counter") == all(s.name.endswith("_total") for s in family.samples)


def test_a_histogram_is_cumulative() -> None:
    status = measured()
    status["changes"]["compiled"] = {"bounds": [0.1, 1.0], "counts": [2, 0, 1], "seconds": 9.0, "last": 8.9}
    found = samples(status)
    name = "labelgate_table_compile_seconds"
    assert [found[f"{name}_bucket{{'le': '{le}'}}"] for le in ("0.1", "1.0", "+Inf")] == [2, 2, 3]
    assert (found[f"{name}_count{{}}"], found[f"{name}_sum{{}}"]) == (3, 9)


def test_what_a_handler_cannot_tell_is_left_out() -> None:
    status = measured()
    status["counters"]["hooks"]["filter-input"]["unsent"] = None
    label = str({"hook": "filter-input"})
    assert f"labelgate_unsent_replies_total{label}" in samples(measured())
    assert f"labelgate_unsent_replies_total{label}" not in samples(status)


def test_policies_are_bounded_and_rules_opt_in() -> None:
    status = measured()
    denied = {f"NetworkPolicy/{n}": 1 for n in range(510)}
    status["hits"] = {"rules": None, "denied": denied, "stagedDenied": None}
    denied = {key: value for key, value in samples(status).items() if "denied_packets" in key}
    assert len(denied) == 501
    assert denied["labelgate_denied_packets_total" + str({"policy": "(others)"})] == 10
    assert not any("rule_hits" in key for key in samples(status))
    row = {"tier": "t", "policy": "P", "direction": "Ingress", "rule": 3, "action": "Allow", "packets": 7}
    row["id"] = "0123abcd"
    status["hits"]["rules"] = [row]
    labels = {"action": "Allow", "direction": "Ingress", "id": "0123abcd", "policy": "P"}
    labels |= {"rule": "3", "tier": "t"}
    assert samples(status)[f"labelgate_rule_hits_total{labels}"] == 7


def test_dashboard_and_alerts_ask_only_what_exists() -> None:
    names = {key.partition("{")[0] for key in samples(measured())}
    assert len(list(expressions())) > 25
    assert names_used() <= names


def test_two_jobs_of_one_host_are_not_joined() -> None:
    """Prometheus refuses to match one series with several: of another exporter by the same name."""
    joins = [text for text in expressions() if re.search(r"\bon *\(", text)]
    assert len(joins) == 3
    assert all("on (job, instance)" in text for text in joins)


def test_the_page_names_every_metric_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = {key.partition("{")[0] for key in samples(measured()) if key.startswith("labelgate_")}
    found = {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}
    optional = {  # Of a handler, or where something is configured.
        "labelgate_on_packet_errors_total",
        "labelgate_rule_hits_total",
    }
    rows = set(re.findall(r"^\| `(labelgate_\w+)", page, re.MULTILINE))
    assert rows == found | optional


# --- the server ------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind((LOOPBACK, 0))
        return int(opened.getsockname()[1])


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def served(routes: dict[str, server.Route] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Port and what was said."""
    port, said = free_port(), []
    routes = routes or {"/livez": lambda accept: Response(b"fine\n")}
    running = HttpServer(LOOPBACK, port, routes, said.append, ("/slow",))
    try:
        assert wait_until(lambda: any("metrics and health at" in line for line in said))
        yield port, said
    finally:
        running.stop()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=30)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_paths() -> None:
    with served() as (port, _):
        assert ask(port, "/livez?verbose") == (200, b"fine\n")
        assert ask(port, "/livez", "HEAD") == (200, b"")
        assert ask(port, "/") == (404, b"no such path; known: /livez\n")
        assert ask(port, "/livez", "POST")[0] == 501


@pytest.mark.parametrize("kind", [ZeroDivisionError, BaseException])
def test_a_fault_in_an_answer_ends_nothing(kind: type[BaseException]) -> None:
    def fault(accept: str) -> Response:
        raise kind

    with served({"/livez": lambda accept: Response(b"fine\n"), "/metrics": fault}) as (port, said):
        assert ask(port, "/metrics")[0] == 500
        assert kind.__name__ in said[-1]
        assert ask(port, "/livez")[0] == 200


def test_requests_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long, broken, silent: each is cut off, and others are answered."""
    wrong = (b"GET /" + b"x" * 100_000, b"\0\xff\r\n\r\n", b"GET /livez HTTP/1.0\r\nA: " + b"b" * 99_999)
    with served() as (port, _):
        for data in wrong:
            with socket.create_connection((LOOPBACK, port), timeout=30) as client, suppress(ConnectionError):
                client.sendall(data)
                while client.recv(4096):
                    pass
        monkeypatch.setattr(server, "HEAD_SECONDS", 0.0)
        with socket.create_connection((LOOPBACK, port), timeout=30) as silent:
            assert silent.recv(1) == b"", "it has lasted too long"
        monkeypatch.undo()
        assert ask(port, "/livez") == (200, b"fine\n")


def test_health_is_answered_whatever_others_do() -> None:
    """Four wait for what takes long, others connect and say nothing, more and more of them."""
    entered, over = threading.Semaphore(0), threading.Event()

    def slow(accept: str) -> Response:
        entered.release()
        over.wait(30)
        return Response(b"late\n")

    def connected(count: int) -> list[socket.socket]:
        return [socket.create_connection((LOOPBACK, port), timeout=30) for _ in range(count)]

    with served({"/slow": slow, "/livez": lambda accept: Response(b"fine\n")}) as (port, _):
        clients = connected(4)
        for client in clients:
            client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
            assert entered.acquire(timeout=30)
        silent = connected(4)
        assert ask(port, "/slow") == (503, b"too many ask for this\n")
        silent += connected(12)
        assert ask(port, "/livez") == (200, b"fine\n")
        assert silent[0].recv(1) == b"", "the oldest gave way"
        over.set()
        for client in clients:
            with client.makefile("rb") as answer:
                assert answer.read().endswith(b"late\n")
        for client in (*clients, *silent):
            client.close()
        assert wait_until(lambda: ask(port, "/slow")[0] == 200)


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all have asked, one more is closed."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)
    entered, over = threading.Event(), threading.Event()

    def busy(accept: str) -> Response:
        entered.set()
        over.wait(30)
        return Response(b"late\n")

    with served({"/busy": busy}) as (port, _), socket.create_connection((LOOPBACK, port), 30) as first:
        first.sendall(b"GET /busy HTTP/1.0\r\n\r\n")
        assert entered.wait(30)
        with socket.create_connection((LOOPBACK, port), timeout=30) as second:
            assert second.recv(1) == b""
        over.set()
        with first.makefile("rb") as answer:
            assert answer.read().endswith(b"late\n")


def test_an_address_that_is_taken_is_tried_again() -> None:
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = HttpServer(LOOPBACK, port, {"/livez": lambda accept: Response(b"fine\n")}, said.append)
        assert wait_until(lambda: bool(said))
        assert said == [f"warning: no metrics at {LOOPBACK}:{port} yet: Address already in use"]
    assert wait_until(lambda: len(said) == 2)
    assert ask(port, "/livez")[0] == 200
    running.stop()


GOOD, BAD = Part("queues", None), Part("rules", "v4 filter: gone")


def test_health_has_the_names_of_felix() -> None:
    found = Health(live=(Part("worker 0", None),), ready=(GOOD, BAD))
    routes = exporter.routes(dict, lambda: found, lambda text: None)
    for path in ("/livez", "/liveness", "/healthz"):
        assert (routes[path]("").status, routes[path]("").body) == (200, b"worker 0: ok\n")
    for path in ("/readyz", "/readiness"):
        expected = (503, b"queues: ok\nrules: v4 filter: gone\n")
        assert (routes[path]("").status, routes[path]("").body) == expected


def test_health_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    said: list[str] = []
    routes = exporter.routes(dict, lambda: Health((), (GOOD,)), said.append)
    assert routes["/metrics"]("").status == 501
    assert routes["/readyz"]("").status == 200
    assert "labelgate[metrics]" in said[0]


# --- status and top --------------------------------------------------------------------------------------


def picture(before: dict[str, Any], now: dict[str, Any], width: int = 80, height: int = 24) -> list[str]:
    """What a terminal without colours shows."""
    console = Console(width=width, height=height, color_system=None, force_terminal=True, record=True)
    with console.capture() as capture:
        console.print(View(before).screen(now, ConsoleDimensions(width, height), None), end="")
    return [line.rstrip() for line in capture.get().splitlines()]


def block(heading: str) -> str:
    """The first block of text behind a heading of the page."""
    page = PAGE.read_text(encoding="utf-8")
    return page.partition(f"\n{heading}\n")[2].partition("```\n")[2].partition("```")[0]


def test_the_page_shows_what_is_shown() -> None:
    shown = picture(recorded(1), recorded(2))
    assert len(shown) == 24
    assert max(map(len, shown)) <= 80
    assert block("## `labelgate top`").splitlines() == shown
    assert block("## `labelgate status`").splitlines() == list(lines(recorded(2)))


def test_rates_are_differences() -> None:
    before, now = recorded(1), recorded(2)
    now["time"] = before["time"] + 2
    hook = now["counters"]["hooks"]["raw-output"]
    hook["packets"] = before["counters"]["hooks"]["raw-output"]["packets"] + 4001
    (line,) = [line for line in picture(before, now) if line.startswith("raw-output")]
    assert line.split()[1] == "2,000"
    now["pid"] += 1  # Another daemon: its counters began anew.
    (line,) = [line for line in picture(before, now) if line.startswith("raw-output")]
    assert line.split()[1:4] == ["-"] * 3


def test_a_rule_is_known_by_what_it_is_not_by_its_place() -> None:
    """The rule above it was taken out meanwhile, and had been met more often."""
    before, now = recorded(1), recorded(2)
    row = {"tier": "t", "policy": "P", "direction": "Ingress", "action": "Allow"}
    above, below = row | {"id": "a"}, row | {"id": "b"}
    before["hits"]["rules"] = [above | {"rule": 0, "packets": 900}, below | {"rule": 1, "packets": 100}]
    now["hits"]["rules"] = [below | {"rule": 0, "packets": 102}]
    before["time"], now["time"] = 0, 2
    (line,) = [line for line in picture(before, now) if line.startswith("P ingress 0 Allow")]
    assert line.split()[-2:] == ["1", "102"]


def test_what_is_wrong_is_seen() -> None:
    now = recorded(2)
    now["health"] = {"live": True, "ready": False, "problems": ["rules: v4 filter: gone"]}
    now["refused"] = {"since": "2026-01-01T00:00:00Z", "message": "policy.yaml:3: wrong", "problems": []}
    now["counters"]["hooks"]["filter-input"]["queue_dropped"] = 5
    now["counters"]["hooks"]["filter-input"]["fail_open"]["malformed"] = 2
    now["events"] = {"unwritten": {"events.file": 7, "events.journal": 0}}
    shown, told = "\n".join(picture(recorded(1), now, width=120)), "\n".join(lines(now))
    for text in (shown, told):
        assert "NOT READY" in text
        assert "rules: v4 filter: gone" in text
        assert "5 dropped by full queues, 2 PASSED unjudged, 7 events not written to events.file" in text
        assert "events.journal" not in text
    assert "CHANGE REFUSED" in shown
    assert "policy.yaml:3: wrong" in told


@pytest.mark.parametrize(("width", "height"), [(40, 10), (60, 18), (80, 24), (200, 50)])
def test_it_fits(width: int, height: int) -> None:
    shown = picture(recorded(1), recorded(2), width, height)
    assert len(shown) == height
    assert max(map(len, shown)) <= width
    assert shown[-1] == "q ends"


def test_endpoints_that_rules_do_not_reach_are_named_and_counted() -> None:
    now = recorded(2)
    now["outOfReach"] = [f"HostEndpoint/h{number}: a port" for number in range(12)]
    told = [line for line in lines(now) if line.startswith("warning: ")]
    assert (told[0], told[9]) == ("warning: HostEndpoint/h0: a port", "warning: HostEndpoint/h9: a port")
    assert told[10:] == ["warning: and 2 more endpoints that rules do not reach (-o json has all)"]


def test_once_prints_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([recorded(1), recorded(2)])
    monkeypatch.setattr(sys.modules["labelgate.cli.top"], "ask_daemon", lambda *_, **__: next(answers))
    done = CliRunner().invoke(cli, ["top", "--interval", "0.2"])
    assert done.exit_code == 0
    assert "\x1b" not in done.output
    assert done.output.splitlines()[:10] == picture(recorded(1), recorded(2))[:10]


def test_no_daemon() -> None:
    assert (top_verb.name, status_verb.name) == ("top", "status")
    done = CliRunner().invoke(cli, ["top", "--socket", "/nowhere/control.sock"], standalone_mode=False)
    assert isinstance(done.exception, EnvironmentProblem)
    assert done.exception.exit_code == 3


class Struck(Console):
    """Somebody presses Ctrl-C while a picture is begun."""

    draws = 0

    def _enter_buffer(self) -> None:
        super()._enter_buffer()
        self.draws += 1
        if self.draws == 12:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_picture() -> None:
    """The screen that was there comes back, also where another thread could take the signal."""
    written = io.StringIO()
    console = Struck(file=written, force_terminal=True, width=80, height=24, _environ={})
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            _watch(console, View(recorded(1)), lambda: recorded(2), 0.01)
    finally:
        done.set()
        other.join()
    assert console.draws > 12
    assert "\x1b[?1049l" in written.getvalue()


@pytest.mark.parametrize("how", ["q", "SIGINT"])
def test_a_terminal(tmp_path: Path, how: str) -> None:
    """The real program at a terminal: it draws, follows, ends, and leaves the terminal as it was."""
    path, over = str(tmp_path / "control.sock"), threading.Event()
    control = ControlServer(path, {"status": lambda arguments: recorded(1)}, lambda text: None)

    def answer() -> None:
        while not over.is_set():
            control.serve()
            time.sleep(0.01)

    thread = threading.Thread(target=answer)
    thread.start()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "labelgate", "top", "--interval", "0.2", "--socket", path]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    try:
        seen = b""
        while seen.count(b"filter-forward") < 3:
            seen += os.read(ours, 65536)
        assert b"q ends" in seen
        if how == "q":
            os.write(ours, b"q")
        else:
            running.send_signal(signal.SIGINT)
        while b"\x1b[?1049l" not in seen:  # Back from the other screen.
            seen += os.read(ours, 65536)
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.wait()
        over.set()
        thread.join()
        control.close()
        os.close(ours)
        os.close(theirs)
