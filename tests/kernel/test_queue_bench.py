"""`labelgate bench queue`: it ends in time, every packet is accounted for, and nothing is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit import stopped
from labelgate import _core
from labelgate.bench import Spread
from labelgate.queue_bench.cases import ALLOW_MARK, MAXLEN, QUEUE, Labelgate, Place, Rules, null
from labelgate.queue_bench.measures import BURST, BURSTS, Bench, Cores, Effort, Processors, stream
from labelgate.queue_bench.policies import ECHO_PORT, TCP_PORT, linear_rules, untracked
from labelgate.queue_bench.rig import RECEIVER, SENDER, Rig, Router

COMMAND = (sys.executable, "-m", "labelgate", "bench", "queue", "--quick", "-o", "json")
EFFORT = Effort(flood=0.05, latency=20, connections=0.1, bulk=0.1, noting=0.1)


def namespaces(pid: int) -> list[str]:
    """Those that a process has made."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(f"lg-{pid}-")]


def inside(names: list[str]) -> set[int]:
    """The processes in namespaces."""
    found = [subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True) for name in names]
    return {int(pid) for one in found for pid in one.stdout.split()}


@pytest.fixture(scope="module")
def report() -> Any:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        output, errors = process.communicate(timeout=110)
    assert process.returncode == 0, errors
    assert namespaces(process.pid) == []
    return json.loads(output)


def test_quick_has_a_round(report: Any) -> None:
    assert report["rounds"] >= 1


def test_every_case_has_delivered_its_packets(report: Any) -> None:
    cases = {case["name"]: case for case in report["cases"]}
    assert {"no rule", "conntrack only", "null verdict", "labelgate 1,000", "nft rules 1,000"} <= cases.keys()
    for name, case in cases.items():
        packets = case["packets"]
        if "flood" in case:
            assert packets["delivered"] > 0, name
            assert packets["sent"] == packets["delivered"] + packets["dropped"], name
        for measure in ("flood", "burst", "drain", "latency", "connections", "bulk", "noting", "denials"):
            for figure, spread in case.get(measure, {}).items():
                assert 0 <= spread["min"] <= spread["median"] <= spread["max"], (name, measure, figure)


def test_the_handlers_figure_is_there_where_there_is_one(report: Any) -> None:
    with_handler = {case["name"] for case in report["cases"] if "drain" in case}
    assert with_handler >= {"null verdict", "labelgate 1,000"}
    names = {ratio["name"] for ratio in report["ratios"]}
    assert "labelgate 1,000 / null verdict: handler" in names
    for ratio in report["ratios"]:
        assert (ratio["met"] is None) == (ratio["bar"] is None)


def test_memcached_tracked_leaves_entries_and_untracked_none(report: Any) -> None:
    found = {cache["name"]: cache for cache in report["memcached"]}
    tracked, untracked_ = found["memcached tracked, ordinary"], found["memcached untracked, ordinary"]
    assert tracked["perSecond"]["min"] > 0
    assert untracked_["perSecond"]["min"] > 0
    assert tracked["entries"]["min"] > 0
    assert untracked_["entries"]["max"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(started := inside(namespaces(process.pid))) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert len(started) >= 3, "daemons and servers were running"
    assert process.returncode == 128 + number
    assert namespaces(process.pid) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


def bench(rig: Rig, case: Any, folder: Path, backend: Any) -> Bench:
    place = Place(rig, rig.routers[0], folder, backend)
    case.begin(place)
    case.finish(place)
    return Bench(case, place, Cores(), Processors())


def test_verdicts_are_those_of_the_packets_sent(backend: str, tmp_path: Path) -> None:
    """The daemon counts what the source sent and the receiver got."""
    case = Labelgate("labelgate", (), 20, text=untracked(20))
    with Rig([Router(0)]) as rig:
        measured = bench(rig, case, tmp_path, backend)
        checked = measured.checked
        for measure in ("burst", "drain"):
            assert all(value > 0 for value in measured.measure(measure, EFFORT).values())
        assert checked.answered == checked.delivered == checked.sent > BURST * BURSTS, "a drain, and more"
        before = checked.sent
        assert all(value > 0 for value in measured.measure("flood", EFFORT).values())
        measured.close()
    assert checked.unexplained == 0
    assert checked.answered == checked.delivered
    # A flood fills the queue of a handler that does not get its processor at once.
    flood = checked.sent - before
    assert flood - checked.dropped >= min(flood, MAXLEN), "dropped while there was room"


def test_rules_of_the_same_meaning_let_the_same_pass(backend: str, tmp_path: Path) -> None:
    """Linear rules deliver the flood, the echo, connections and a stream, and track none of them."""
    case = Rules("rules", (), 20, variant=backend, text=linear_rules(20))  # type: ignore[arg-type]
    with Rig([Router(0)]) as rig:
        measured = bench(rig, case, tmp_path, backend)
        servers = [
            rig.call(RECEIVER, _core.LoadServer, f"0.0.0.0:{port}", answer)
            for port, answer in ((ECHO_PORT, "echo"), (TCP_PORT, "greet"))
        ]
        measured.measure("flood", EFFORT)
        assert measured.measure("latency", EFFORT)["lost"] == 0
        assert measured.measure("connections", EFFORT)["perSecond"] > 0
        assert stream(rig, rig.routers[0], 0.1) > 0
        entries = rig.run("r0", "conntrack", "-L")
        for server in servers:
            server.stop()
        measured.close()
    assert measured.checked.sent == measured.checked.delivered > 0
    assert entries == ""


def test_the_null_verdict_does_not_look(tmp_path: Path) -> None:
    """It lets pass what policy has been asked about and is silent about, too, without connection tracking."""
    case, policy = null(), json.loads(untracked(10))
    policy["items"][-1]["spec"]["ingress"].append({"action": "Deny", "source": {"nets": ["192.0.2.1/32"]}})
    with Rig([Router(0)]) as rig:
        measured = bench(rig, replace(case, text=json.dumps(policy)), tmp_path, "nft")
        server = rig.call(RECEIVER, _core.LoadServer, "0.0.0.0:9", "echo")
        found, lost = rig.call(SENDER, _core.exchange, rig.routers[0].client, "10.72.0.1:9", 5, 5.0)
        entries = rig.run("r0", "conntrack", "-L")
        server.stop()
        measured.close()
    assert (len(found), lost, entries) == (5, 0, "")


def test_a_full_queue_is_counted(tmp_path: Path) -> None:
    """More than has room while nobody answers: the rest is dropped, and none is unexplained."""
    with Rig([Router(0)]) as rig:
        case = null()
        measured = bench(rig, case, tmp_path, "nft")

        def work() -> int:
            measured._cores.pin_source()  # All into the queue of one processor.
            return measured._flooding.send(MAXLEN + 1000, 5.0)

        with measured._counting(measured._watch.received) as counted, stopped(case.pids[0]):
            counted.sent = sent = rig.call(SENDER, work)
        measured.close()
    assert sent == MAXLEN + 1000
    assert (counted.delivered, counted.dropped, counted.unexplained) == (MAXLEN, 1000, 0)


def test_the_mark_is_what_the_rules_know() -> None:
    assert (QUEUE, ALLOW_MARK) == (4200, 0x0400 | 0x0100)
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
