"""`labelgate bench match`: what it prints, that it checks answers, and that it can be stopped."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from labelgate import _core, bench
from labelgate.bench import Effort, Measured, Spread
from labelgate.cli import cli
from labelgate.cli.plot import draw
from reference_world import SHOP, global_policy, host_endpoint

verb = importlib.import_module("labelgate.cli.bench")
"""The module: in `labelgate.cli` the command has its name."""
WAYS = {"one", "dependent", "batch"}
WEB_ONLY = global_policy(
    "  {selector: app == 'web', ingress: [{action: Allow, protocol: TCP, ipVersion: 4,"
    " source: {selector: app == 'db'}, destination: {ports: [80]}}]}",
    "web-only",
)


def match(*words: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "match", *words])


def small(*words: str) -> Result:
    return match("--quick", "--rounds", "2", *words)


@pytest.fixture(scope="module")
def report() -> Any:
    result = small("--workload", "labels-1k-node", "--seed", "7", "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text("\n---\n".join((SHOP, WEB_ONLY, host_endpoint())))
    return str(path)


def test_the_report_says_what_was_measured_where(report: Any) -> None:
    assert set(report) == {"command", "version", "seed", "machine", "workloads", "leftOut"}
    assert (report["version"], report["seed"], report["leftOut"]) == (_core.__version__, 7, [])
    assert set(report["machine"]) == {"cpu", "cpus", "load", "system", "python", "core"}


def test_a_workload_has_all_figures(report: Any) -> None:
    (found,) = report["workloads"]
    assert found["name"] == "labels-1k-node"
    assert (found["endpoints"], found["enforced"], found["policies"]) == (1000, 200, 100)
    assert (found["questions"], found["rounds"]) == (50_000, 2)
    assert set(found["seconds"]) == {"compile", "build"}
    assert {trace: set(ways) for trace, ways in found["nanoseconds"].items()} == {
        "uniform": WAYS | {"linear", "naive"},
        "zipf": WAYS,
    }
    spreads = [
        *found["seconds"].values(),
        *(way for ways in found["nanoseconds"].values() for way in ways.values()),
    ]
    assert all(0 < spread["min"] <= spread["median"] <= spread["max"] for spread in spreads)
    one = found["nanoseconds"]["uniform"]["one"]["median"]
    assert found["perSecond"]["one"] == pytest.approx(1e9 / one, rel=1e-6)
    assert found["table"]["bytes"] > 0
    assert sum(found["engines"].values()) == 2 * found["table"]["chains"]


def test_all_answers_are_checked(report: Any) -> None:
    checked = report["workloads"][0]["checked"]
    assert (checked["questions"], checked["linear"], checked["naive"]) == (100_000, 20_000, 20_000)
    assert (checked["mismatches"], checked["first"]) == (0, None)
    assert set(checked["verdicts"]) == {"allow", "deny"}
    assert sum(checked["verdicts"].values()) == 50_000


def test_a_seed_gives_the_same_answers(report: Any) -> None:
    def verdicts(seed: int) -> Any:
        checked = _core.Bench("labels-1k-node", seed=seed, questions=50_000).check()
        return json.loads(checked)["verdicts"]

    expected = report["workloads"][0]["checked"]["verdicts"]
    assert verdicts(7) == expected
    assert verdicts(8) != expected


def test_the_table_for_people_has_machine_command_and_version() -> None:
    result = small("--workload", "acl-1k", "--rounds", "1")
    assert result.exit_code == 0, result.output
    for text in (
        "acl-1k",
        "tree",
        f"labelgate {_core.__version__}, seed 1",
        bench.machine()["cpu"],
        "one core of",
    ):
        assert text in result.stdout


def test_markdown_has_one_row_for_each_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "measure", lambda name, *_: measured(name, 10, 5.0))
    lines = small("--workload", "*-1k", "-o", "markdown").stdout.splitlines()
    assert lines[:3] == [
        "| workload | one | dependent | batch | zipf one | zipf dependent | zipf batch | linear | naive |"
        " M/s in batches |",
        "| --- |" + " ---: |" * 9,
        "| acl-1k | " + "5.0 ±0.0 | " * 7 + "- | 200.0 |",
    ]
    names = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert names == ["| workload", "| ---", "| acl-1k", "| fw-1k", "| ipc-1k"] * 2


def test_workloads_are_listed_and_chosen_by_pattern() -> None:
    names = match("--list").stdout.split()
    assert names == _core.workloads()
    assert len(names) == 27
    assert set(verb.QUICK) < set(names)
    assert verb._chosen(("*-100k", "acl-1k"), quick=True) == ["acl-1k", "acl-100k", "fw-100k", "ipc-100k"]
    assert verb._chosen((), quick=True) == list(verb.QUICK)


@pytest.mark.parametrize("where", [("--node", "edge1"), ()], ids=["node", "cluster"])
def test_policies_of_ones_own(policy: str, where: tuple[str, ...]) -> None:
    result = small("-f", policy, *where, "-o", "json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["workloads"]
    assert found["name"] == "policies"
    assert found["enforced"] == (3 if where else 2)
    assert found["checked"]["mismatches"] == 0
    assert found["checked"]["linear"] >= 20_000
    assert "naive" not in found["nanoseconds"]["uniform"]
    assert set(found["checked"]["verdicts"]) == {"allow", "deny"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--workload", "acl-2k"), 2, "found `acl-2k`, expected one of labels-1k-node, "),
        (("-f", "POLICY", "--workload", "acl-1k"), 2, "leave out --workload and --plot"),
        (("-f", "POLICY", "--plot", "x.svg"), 2, "leave out --workload and --plot"),
        (("--node", "edge1"), 2, "give -f"),
        (("--rounds", "0"), 2, "0 is not in the range"),
        (("--seed", "-1"), 2, "-1 is not in the range"),
        (("--plot", "x.doc"), 2, "found `x.doc`, expected a name that ends in one of "),
        (("-f", "POLICY", "--node", "nowhere"), 3, "no endpoint names node `nowhere` (nodes found: edge1)"),
    ],
    ids=str,
)
def test_what_cannot_be_measured(policy: str, words: tuple[str, ...], code: int, message: str) -> None:
    result = match(*(policy if word == "POLICY" else word for word in words))
    assert (result.exit_code, message in result.output) == (code, True), result.output


def test_a_plot_without_its_library_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = match("--plot", "x.svg")
    assert result.exit_code == 3
    assert "pip install 'labelgate[plot]'" in result.output


def measured(name: str, size: int, nanoseconds: float, mismatches: int = 0) -> Measured:
    spread = Spread.of([nanoseconds])
    table = {"chains": 1, "bytes": 1000, "classes": {"tables": 1}, "others": [{"engine": "tree"}]}
    facts = {"endpoints": size, "enforced": 1, "policies": 1, "rules": 1, "questions": 10, "table": table}
    ways = dict.fromkeys(("one", "dependent", "batch", "linear"), spread)
    checked = {
        "questions": 20, "linear": 10, "naive": 0, "mismatches": mismatches, "first": "a question",
        "verdicts": {"allow": 10},
    }  # fmt: skip
    seconds = Spread.of([size / 1e6])
    return Measured(name, facts, 1, seconds, seconds, {"uniform": ways, "zipf": ways}, checked)


def test_answers_that_differ_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "measure", lambda name, *_: measured(name, 10, 5.0, mismatches=3))
    result = small("--workload", "acl-1k")
    assert result.exit_code == 4
    assert "acl-1k: 3 answers differ: a question" in result.stderr
    assert small("--workload", "acl-1k", "-o", "json").exit_code == 4


def test_what_there_is_no_time_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "QUICK_SECONDS", 0)
    monkeypatch.setattr(verb, "measure", lambda name, *_: measured(name, 10, 5.0))
    result = small("--workload", "acl-1k", "--workload", "fw-1k", "-o", "json")
    found = json.loads(result.stdout)
    assert [one["name"] for one in found["workloads"]] == ["acl-1k"]
    assert found["leftOut"] == ["fw-1k"]


def test_rounds_end_when_time_is_over() -> None:
    made = _core.Bench("acl-1k", seed=1, questions=100)
    assert bench.measure("acl-1k", made, Effort(100, 5, 0.0, until=0.0), lambda _: None).rounds == 1
    assert bench.measure("acl-1k", made, Effort(100, 5, 0.0), lambda _: None).rounds == 5


def test_growth_is_drawn_by_family(tmp_path: Path) -> None:
    sizes = [("1k", 1_000), ("10k", 10_000)]
    found = [
        measured(f"{kind}-{name}-node", size, 9.0) for kind in ("labels", "other") for name, size in sizes
    ]
    draw(found, str(tmp_path / "growth.svg"))
    texts = re.findall("<!-- (.*) -->", (tmp_path / "growth.svg").read_text())
    assert [text for text in texts if text.startswith("labels")] == [
        "labels-node, one", "labels-node, batch", "labels-node",
    ]  # fmt: skip


def test_a_table_that_is_asked_in_several_ways_is_drawn_as_built_once(tmp_path: Path) -> None:
    found = [measured(f"labels-1k-{view}", 1_000, 9.0) for view in ("node", "between")]
    draw(found, str(tmp_path / "growth.svg"))
    texts = re.findall("<!-- (labels.*) -->", (tmp_path / "growth.svg").read_text())
    assert texts == [
        "labels-node, one", "labels-node, batch",
        "labels-between, one", "labels-between, batch",
        "labels-node",
    ]  # fmt: skip


def test_packets_between_workloads_are_judged_by_both() -> None:
    def check(name: str) -> Any:
        return json.loads(_core.Bench(f"labels-1k-{name}", seed=7, questions=20_000).check())

    checked = {name: check(name) for name in ("egress", "between", "between-v6")}
    found = {(one["mismatches"], one["linear"], one["naive"]) for one in checked.values()}
    assert found == {(0, 20_000, 20_000)}
    assert checked["between"]["verdicts"]["allow"] < checked["egress"]["verdicts"]["allow"]


@pytest.mark.parametrize(
    ("target", "why"),
    [("nowhere/x", "No such file or directory"), ("/dev/full", "No space left on device")],
)
def test_a_plot_that_cannot_be_written(
    target: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "measure", lambda name, *_: measured(name, 10, 5.0))
    plot = tmp_path / "growth.svg"
    plot.symlink_to(target)
    result = small("--workload", "acl-1k", "--plot", str(plot))
    assert result.exit_code == 3, result.output
    assert "acl-1k" in result.stdout
    assert result.stderr.endswith(f"Error: {plot}: {why}\n")


def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with bench.one_core() as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


class Stop(Exception):
    pass


@pytest.fixture
def stopped_soon() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    yield
    timer.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("stopped_soon")
def test_signals_are_heard_while_the_core_works() -> None:
    with pytest.raises(Stop):
        _core.Bench("labels-10k-cluster", seed=1, questions=1_000_000)
