"""`labelgate bench queue` without a packet: its cases, their meaning, its figures, and what it refuses."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import labelgate
import pytest
from click.testing import CliRunner, Result
from labelgate.bench import Spread
from labelgate.cli import cli
from labelgate.cli.queue_plot import draw
from labelgate.netfilter.facts import RulesetFacts
from labelgate.queue_bench import measures, policies
from labelgate.queue_bench.cache import Cache
from labelgate.queue_bench.cases import SINGLE, Answers, Labelgate, Measure, Other, Selection, cases, peer
from labelgate.queue_bench.measures import Checked, busiest, percentiles
from labelgate.queue_bench.ratios import PEER_BARS, SLOWER_BARS, Ratio, ratios
from labelgate.queue_bench.rounds import Found, Report, spreads
from labelgate.settings import HostFacts

verb = importlib.import_module("labelgate.cli.bench_queue")
HOST = HostFacts({"eth0": ("10.71.0.1",), "eth1": ("10.72.0.254",)})


def queue(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "queue", *arguments])


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/sbin/{name}")


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = queue("--quick")
    assert (result.exit_code, "run it as root" in result.output) == (3, True)


@pytest.mark.parametrize(
    ("absent", "said"), [("ip", "Debian: iproute2"), ("iptables", "iptables-nft is not installed")]
)
def test_without_tools_it_says_which(
    monkeypatch: pytest.MonkeyPatch, root: None, absent: str, said: str
) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name.startswith(absent) else found(name))
    result = queue("--quick")
    assert (result.exit_code, said in result.output) == (3, True)


def test_what_is_left_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    monkeypatch.setattr(verb, "_has_netfilterqueue", lambda: False)
    told = " ".join(verb._missing(("nft",)))
    for word in ("other iptables", "ipset", "labelgate[netfilterqueue]", "Debian: memcached, conntrack"):
        assert word in told


def test_a_large_table_of_connections_is_not_filled(monkeypatch: pytest.MonkeyPatch, root: None) -> None:
    monkeypatch.setattr(verb, "most_entries", lambda: 10_000_000)
    assert [cache.is_small for cache in verb._caches(quick=False)] == [False, False]
    assert any("nf_conntrack_max" in note for note in verb._missing(("nft", "legacy")))


def test_cases_are_listed_and_chosen(root: None) -> None:
    names = queue("--list").stdout.splitlines()
    assert names[:3] == ["no rule", "conntrack only", "null verdict"]
    assert {"labelgate 10,000", "nft rules 10,000", "legacy rules 10", "memcached untracked, small"} < {
        *names
    }
    assert queue("--list", "--quick").stdout.count("small") == 0
    result = queue("--case", "nothing like it")
    assert (result.exit_code, "those of --list" in result.output) == (2, True)


@pytest.mark.parametrize("text", ["nfq", "=command", "name="])
def test_a_peer_has_a_name_and_a_command(root: None, text: str) -> None:
    result = queue("--peer", text)
    assert (result.exit_code, "expected NAME=COMMAND" in result.output) == (2, True)


def test_a_peer_learns_queue_room_and_mark() -> None:
    found = peer("mine=./mine {queue} {maxlen} {mark} --fast")
    assert found.command == (str(Path.cwd() / "mine"), "{queue}", "16384", "0x500", "--fast")
    assert found.others == ""


def test_peers_of_mixed_answers_stand_where_labelgate_does() -> None:
    chosen = Selection([10], [], ["nft"], False, False, mixed_peers=["a=b"], mark_peers=["c=d"])
    made = {case.name: case for case in cases(chosen) if case.answers != "same"}
    assert [*made] == ["mixed marks 10", "mixed verdicts 10", "c", "a"]
    for ours, other in (("mixed marks 10", "c"), ("mixed verdicts 10", "a")):
        one, two = made[ours], made[other]
        assert isinstance(one, Labelgate)
        assert isinstance(two, Other)
        assert (one.text, one.measures, one.answers) == (two.text, two.measures, two.answers)
        assert one.others == two.others == policies.MARK_RULES


def test_a_picture_needs_a_known_ending(root: None) -> None:
    result = queue("--plot", "costs.txt")
    assert (result.exit_code, "expected a name that ends in one of" in result.output) == (2, True)


# The meaning of the cases.


def table(tmp_path: Path, text: str) -> labelgate.DecisionTable:
    path = tmp_path / "policies.json"
    path.write_text(text, encoding="utf-8")
    return labelgate.load(str(path)).compile(node=policies.NODE, host=HOST)


def verdict(made: labelgate.DecisionTable, hook: Any, protocol: str, dport: int, **more: Any) -> str:
    flow: dict[str, Any] = {"src": "10.71.0.150", "dst": "10.73.0.1", "sport": 4000, "in_": "eth0", **more}
    return made.decide(hook=hook, protocol=protocol, dport=dport, **flow).verdict


@pytest.mark.parametrize("count", [1, 10, 250])
def test_policies_and_rules_pass_the_same_ports(tmp_path: Path, count: int) -> None:
    made = table(tmp_path, policies.untracked(count))
    ruled = [int(port) for port in re.findall(r"--dport (\d+) -g pass", policies.linear_rules(count))]
    in_set = [int(port) for port in re.findall(r"udp:(\d+)", policies.ipset_entries("ports", count))]
    ports = range(policies.FIRST_PORT - 1, policies.FIRST_PORT + count + 1)
    passed = [port for port in ports if verdict(made, "raw-prerouting", "udp", port) == "allow-notrack"]
    assert passed == ruled[:-1] == in_set
    assert ruled[-1] == policies.ECHO_PORT
    assert {*policies.hit_ports(count)} <= {*passed}
    assert verdict(made, "raw-prerouting", "tcp", 8000) == "allow-notrack"
    assert verdict(made, "raw-prerouting", "udp", ports[0]) == "continue"
    assert verdict(made, "raw-prerouting", "udp", ports[1], src="10.99.0.1") == "continue"


@pytest.mark.parametrize("names_tcp", [True, False])
def test_packets_are_queued_where_the_case_says_so(tmp_path: Path, names_tcp: bool) -> None:
    """Those of the flood and the echo, and TCP, unless it is to go past the queue."""
    made = table(tmp_path, policies.untracked(250, names_tcp=names_tcp))
    hosts = RulesetFacts.read(made.rule_facts()).hosts
    services = [host.untracked.ingress.services_of("v4") for host in hosts if host.untracked]
    assert all(services)
    for found in services:
        protocols = {service.protocol: service for service in found or () if service.side != "source"}
        assert {*protocols} == ({6, 17} if names_tcp else {17})
        assert protocols[17].ports == ((7, 7), (policies.FIRST_PORT, policies.FIRST_PORT + 249))


def test_every_other_packet_is_denied_and_has_the_mark(tmp_path: Path) -> None:
    """What a peer tells by the mark is what policy says."""
    made = table(tmp_path, policies.untracked(20, behind_others=True, denies_half=True))
    (last,) = re.findall(r"--sport 0:(\d+) -j MARK", policies.MARK_RULES)
    for port in policies.hit_ports(20):
        for sport, expected in ((int(last), "deny"), (int(last) + 1, "allow-notrack")):
            assert verdict(made, "raw-prerouting", "udp", port, sport=sport) == expected
    for protocol, port in (("udp", policies.ECHO_PORT), ("tcp", policies.TCP_PORT)):
        assert verdict(made, "raw-prerouting", protocol, port, sport=int(last)) == "allow-notrack"


def test_two_hooks_are_two_questions(tmp_path: Path) -> None:
    """preDNAT policy says nothing about connections that FORWARD allows."""
    forward = {"out": "eth1", "dst": "10.72.0.1"}
    for prednat in (False, True):
        made = table(tmp_path, policies.forwarded(5, prednat=prednat))
        assert verdict(made, "mangle-prerouting", "tcp", 8000) == "continue"
        assert verdict(made, "filter-forward", "tcp", 8000, **forward) == "allow"
        (host,) = made.rule_facts()["hosts"]
        assert (host["prednat"] or ["unmarked"])[0] == ("queue" if prednat else "unmarked")


def test_the_cache_is_open_to_the_sender_only(tmp_path: Path) -> None:
    tracked = table(tmp_path, policies.memcached(is_tracked=True))
    assert verdict(tracked, "filter-input", "tcp", 11211) == "allow"
    assert verdict(tracked, "filter-input", "tcp", 11211, src="10.99.0.1") == "deny"
    assert not tracked.has_untracked_policy
    untracked = table(tmp_path, policies.memcached(is_tracked=False))
    assert verdict(untracked, "raw-prerouting", "tcp", 11211) == "allow-notrack"
    assert verdict(untracked, "raw-prerouting", "tcp", 11211, src="10.99.0.1") == "continue"


def test_cases_follow_the_selection() -> None:
    chosen = Selection(sizes=[10, 100], linear=[100], variants=["legacy"], has_ipset=False,
                       has_netfilterqueue=False, has_mixed=False, has_single=False, has_denied=False,
                       hooks=())  # fmt: skip
    assert [case.name for case in cases(chosen)] == [
        "no rule", "conntrack only", "null verdict", "labelgate 10", "labelgate 100",
        "past the queue 100", "legacy rules 100",
    ]  # fmt: skip


@pytest.mark.parametrize("processors", [1, 2])
def test_one_worker_stands_beside_one_for_each_processor(monkeypatch: Any, processors: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    made = {case.name: case for case in cases(Selection([10, 100], [], ["nft"], False, False))}
    single = {name.removeprefix(SINGLE): case for name, case in made.items() if name.startswith(SINGLE)}
    assert [*single] == (["labelgate 100", "labelgate, tracked, one hook"] if processors > 1 else [])
    for name, case in single.items():
        ours = made[name]
        assert isinstance(case, Labelgate)
        assert isinstance(ours, Labelgate)
        assert (case.text, case.config, ours.config) == (ours.text, "queues: {workers: 1}\n", "")
        assert {*case.measures} == {*ours.measures} - {"drain", "burst"}


def test_one_worker_is_compared_with_one_for_each_processor() -> None:
    name = "labelgate, tracked, one hook"
    ours = found(name, connections=[{"perSecond": 30.0}], bulk=[{"gbit": 4.0}])
    one = found(f"{SINGLE}{name}", connections=[{"perSecond": 20.0}], bulk=[{"gbit": 5.0}])
    assert {ratio.name: ratio.value.median for ratio in ratios(report(ours, one))} == {
        f"{name} / {SINGLE}{name}: connections": 1.5, f"{name} / {SINGLE}{name}: one TCP stream": 0.8,
    }  # fmt: skip


# Figures.


def found(name: str, rules: int = 10, answers: Answers = "same", **samples: list[dict[str, float]]) -> Found:
    measured: Any = samples
    return Found(name, rules, measured, Checked(sent=5, delivered=4, dropped=1), answers=answers)


def report(*cases: Found) -> Report:
    cache = Cache(is_tracked=True, is_small=False)
    sample = {
        "perSecond": 7000.0,
        "cpu": 1e5,
        "lost": 0.0,
        "p50": 1.0,
        "p90": 2.0,
        "p99": 3.0,
        "entries": 9.0,
    }
    cache.samples = [sample, {**sample, "p50": math.nan}]
    return Report(list(cases), [cache], 2)


def drained(name: str, *nanoseconds: float, answers: Answers = "same") -> Found:
    return found(name, answers=answers, drain=[{"handler": each, "near": each / 2} for each in nanoseconds])


def test_ratios_are_of_the_same_round() -> None:
    """The machine may be twice as slow in one round: not the medians are compared."""
    made = ratios(report(drained("null verdict", 100, 200, 400), drained("labelgate 10", 110, 220, 480)))
    assert [ratio.name for ratio in made] == ["labelgate 10 / null verdict: handler"]
    assert made[0].value == Spread(pytest.approx(1.1), pytest.approx(1.1), pytest.approx(1.2))
    assert (made[0].bar, made[0].is_met) == ("<= 1.12", True)


def test_bars_are_of_the_largest_table() -> None:
    ours = [
        drained("labelgate 10", 100),
        drained("labelgate 1,000", 150),
        drained("mixed marks 1,000", 300, answers="marks"),
        drained("mixed verdicts 1,000", 250, answers="verdicts"),
    ]
    others = [drained("null verdict", 100), drained("NetfilterQueue 1,000", 400), drained("mine", 200)]
    made = {ratio.name: (ratio.value.median, ratio.is_met) for ratio in ratios(report(*ours, *others))}
    assert made == {
        "labelgate 1,000 / null verdict: handler": (1.5, False),
        "NetfilterQueue 1,000 / labelgate 1,000: handler": (pytest.approx(2.67, abs=0.01), True),
        "labelgate 1,000 / mine: handler": (0.75, None),
        "mixed marks 1,000 / null verdict: handler": (3.0, None),
        "NetfilterQueue 1,000 / mixed marks 1,000: handler": (pytest.approx(1.33, abs=0.01), False),
        "mixed marks 1,000 / mine: handler": (1.5, None),
        "mixed verdicts 1,000 / null verdict: handler": (2.5, None),
        "NetfilterQueue 1,000 / mixed verdicts 1,000: handler": (1.6, None),
        "mixed verdicts 1,000 / mine: handler": (1.25, None),
    }


def test_peers_have_bars_where_they_give_the_same_answers() -> None:
    ours = [drained("labelgate 10,000", 110), drained("mixed marks 10,000", 200, answers="marks")]
    ours.append(drained("mixed verdicts 10,000", 90, answers="verdicts"))
    peers = [drained("nfq_batch", 100), drained("nfq_library", 165)]
    peers.append(drained("nfq_batch multi", 150, answers="marks"))
    peers.append(drained("nfq_batch drop", 100, answers="verdicts"))
    made = {ratio.name: (ratio.bar, ratio.is_met) for ratio in ratios(report(*ours, *peers))}
    assert made == {
        "labelgate 10,000 / nfq_batch: handler": ("<= 1.12", True),
        "labelgate 10,000 / nfq_batch multi: handler": ("", None),
        "labelgate 10,000 / nfq_batch drop: handler": ("", None),
        "nfq_library / labelgate 10,000: handler": (">= 1.6", False),
        "mixed marks 10,000 / nfq_batch: handler": ("", None),
        "mixed marks 10,000 / nfq_batch multi: handler": ("<= 1.12", False),
        "mixed marks 10,000 / nfq_batch drop: handler": ("", None),
        "nfq_library / mixed marks 10,000: handler": ("", None),
        "mixed verdicts 10,000 / nfq_batch: handler": ("", None),
        "mixed verdicts 10,000 / nfq_batch multi: handler": ("", None),
        "mixed verdicts 10,000 / nfq_batch drop: handler": ("<= 1.12", True),
        "nfq_library / mixed verdicts 10,000: handler": ("", None),
    }


def test_bars_are_of_the_peers_that_are_told_of() -> None:
    text = (Path(__file__).parents[2] / "benches" / "README.md").read_text(encoding="utf-8")
    for name in [*PEER_BARS, *SLOWER_BARS]:
        assert name == "null verdict" or f"'{name}=./nfq_" in text


def test_what_was_not_done_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that could not begin, connections that were refused: no figure, not a huge one."""
    assert measures.per(1_000_000, 4) == 250_000
    monkeypatch.setattr(measures, "stream", lambda *_: 0)
    monkeypatch.setattr(measures, "Processors", SimpleNamespace(nanoseconds=lambda _: time.process_time_ns()))
    bench: Any = SimpleNamespace(_processors=measures.Processors, _pids=[], _rig=None, _router=None)
    sample = measures.Bench._bulk(bench, measures.Effort(0, 0, 0, 0, 0))
    assert sample["gbit"] == 0
    assert math.isnan(sample["cpu"])
    rig: Any = SimpleNamespace(call=lambda *_: ([], 9))
    sample = measures.connections(rig, ["x"], b"", 1.0, bench._processors, [])
    assert (sample["perSecond"], sample["lost"], math.isnan(sample["cpu"])) == (0, 9, True)
    assert spreads([sample])["cpu"] is None
    none, some = [{"cpu": math.nan}], [{"cpu": 5.0}]
    assert ratios(report(found("labelgate 10", burst=none), found("nft rules 10", burst=some))) == []


def test_rules_are_compared_with_as_many_policies() -> None:
    made = ratios(
        report(
            found("no rule", burst=[{"cpu": 1000.0}]),
            found("labelgate 1,000", 1000, burst=[{"cpu": 3000.0}]),
            found("legacy rules 1,000", 1000, burst=[{"cpu": 15_000.0}]),
            found("nft rules 100", 100, burst=[{"cpu": 9000.0}]),
        )
    )
    assert [(ratio.name, ratio.value.median, ratio.bar) for ratio in made] == [
        ("legacy rules 1,000 / labelgate 1,000: processor time a packet", 5.0, ""),
        ("legacy rules 1,000 / labelgate 1,000: added to no rule", 7.0, ">= 7"),
    ]
    assert made[1].is_met


def test_connections_and_streams_are_compared_with_tracking_alone() -> None:
    def through(name: str, per_second: float, gbit: float) -> Found:
        samples: dict[Measure, Any] = {"connections": [{"perSecond": per_second}], "bulk": [{"gbit": gbit}]}
        return Found(name, 10, samples, Checked())

    made = ratios(
        report(
            through("conntrack only", 1000, 10),
            through("labelgate 10", 500, 9.5),
            through("past the queue 10", 990, 9.9),
            through("labelgate, tracked, one hook", 800, 10),
            through("labelgate, tracked, two hooks", 600, 10),
        )
    )
    assert [(ratio.value.median, ratio.is_met) for ratio in made] == [
        (0.95, True), (0.99, None), (0.99, None), (0.8, True), (0.6, False),
    ]  # fmt: skip


def test_a_report_is_json_with_median_and_range() -> None:
    body = report(drained("labelgate 10", 3.0, 1.0, 2.0)).to_json()
    (case,) = json.loads(json.dumps(body, allow_nan=False))["cases"]
    assert case["drain"]["handler"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert case["packets"] == {"sent": 5, "delivered": 4, "dropped": 1, "answered": None}
    assert body["memcached"][0]["p50"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert spreads([{"p50": math.nan}]) == {"p50": None}
    assert Ratio("x", Spread(1.0, 1.0, 1.0)).to_json()["met"] is None


def test_the_table_has_a_cell_for_each_figure(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = [{"kpps": 200.0, "cpu": 2000.0}, {"kpps": 300.0, "cpu": 2200.0}]
    latency = [{"p50": 10.0, "p90": 20.0, "p99": math.nan, "lost": 0.0}] * 2
    case = found("no rule", flood=flood, burst=flood, latency=latency)
    monkeypatch.setattr(verb, "run", lambda *_: report(case))
    result = queue("-o", "markdown")
    row = "| no rule | - | - | 2,100 ±100 | 2,100 ±100 | 250.0 ±50.0 | 10.0 ±0.0 | 20.0 ±0.0 | - | 4 | 1 |"
    assert row in result.stdout.splitlines()
    assert (
        "| memcached tracked, ordinary | 7,000 ±0 | 0 ±0 | 9 ±0 | 1 ±0 | 3 ±0 | 100.0 ±0.0 |" in result.stdout
    )
    assert result.exit_code == 0


def test_a_case_that_lets_only_half_through_has_a_row(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = drained("mixed verdicts 10", 2000.0, answers="verdicts")
    monkeypatch.setattr(verb, "run", lambda *_: report(case))
    rows = queue("-o", "markdown").stdout.splitlines()
    assert "| mixed verdicts 10 | 2,000 ±0 | 1,000 ±0 | - | - | - | - | - | - | 4 | 1 |" in rows


def test_packets_that_nobody_dropped_are_an_error(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Found("labelgate 10", 10, {}, Checked(sent=5, delivered=3, dropped=1))
    monkeypatch.setattr(verb, "run", lambda *_: report(lost))
    result = queue()
    assert (result.exit_code, "1 packets lost that nobody dropped" in result.output) == (4, True)


def test_packets_that_pass_without_a_verdict_are_an_error(
    root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = Found("labelgate 10", 10, {}, Checked(sent=5, delivered=5, answered=3))
    monkeypatch.setattr(verb, "run", lambda *_: report(passed))
    result = queue()
    assert (result.exit_code, "2 packets delivered without a verdict" in result.output) == (4, True)


def test_a_plot_that_cannot_be_written(root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "run", lambda *_: report(found("no rule", burst=[{"cpu": 1000.0}])))
    plot = tmp_path / "nowhere" / "costs.svg"
    result = queue("--plot", str(plot))
    assert (result.exit_code, result.stderr) == (3, f"Error: {plot}: No such file or directory\n")


def test_the_picture_has_lines_and_levels(tmp_path: Path) -> None:
    sized = [found(f"labelgate {size:,}", size, burst=[{"cpu": 3000.0}]) for size in (10, 1000)]
    path = tmp_path / "costs.svg"
    draw(report(found("no rule", burst=[{"cpu": 1000.0}]), *sized), str(path))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert text.count("rules or policies") == 1


def test_samples() -> None:
    assert percentiles([1000 * number for number in range(1, 102)]) == {
        "p50": 51.0,
        "p90": 91.0,
        "p99": 100.0,
    }
    assert all(math.isnan(value) for value in percentiles([7]).values())
    assert busiest({1: 10, 2: 100}, {1: 15, 2: 400, 3: 50}) == 300
    checked = Checked(sent=1, delivered=1)
    checked.add(Checked(sent=9, delivered=5, dropped=3))
    assert (checked.sent, checked.delivered, checked.unexplained) == (10, 6, 1)


def test_null_and_peers_stand_behind_labelgates_rules() -> None:
    chosen = Selection([10], [], ["nft"], False, False, has_denied=False, peers=["a=b"])
    others = [case for case in cases(chosen) if isinstance(case, Other)]
    assert [(case.name, case.is_peer) for case in others] == [("null verdict", False), ("a", True)]
    assert {case.text for case in others} == {policies.untracked(10)}
