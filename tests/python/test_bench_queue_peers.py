"""`labelgate bench queue` beside others: peers, least rules, denied packets; how sure its ratios are."""

from __future__ import annotations

import importlib
import math
import os
import random
import shutil
from pathlib import Path
from statistics import median
from typing import Any

import labelgate
import pytest
from click.testing import CliRunner
from labelgate.cli import cli
from labelgate.cli.queue_figures import denials, ratios_table
from labelgate.queue_bench import policies
from labelgate.queue_bench.cases import ALLOW_MARK, LEAST, QUEUE, Denied, Least, Selection, cases, peer
from labelgate.queue_bench.denied import NOTED, Miscounted, NotingBench
from labelgate.queue_bench.measures import Checked, Cores
from labelgate.queue_bench.ratios import NOTED_WORDS, Ratio, confidence, ratios
from labelgate.queue_bench.rounds import Found, Report

verb = importlib.import_module("labelgate.cli.bench_queue")


def found(name: str, rules: int = 10, *, is_peer: bool = False, **samples: Any) -> Found:
    return Found(name, rules, samples, Checked(), is_peer)


def medians(*ones: Found) -> dict[str, tuple[float, str]]:
    return {
        ratio.name: (pytest.approx(ratio.value.median), ratio.bar) for ratio in ratios(Report([*ones], [], 1))
    }


def through(name: str, per_second: float, gbit: float, **more: Any) -> Found:
    return found(name, connections=[{"perSecond": per_second}], bulk=[{"gbit": gbit}], **more)


def test_peers_are_measured_and_compared_with_streams_and_connections() -> None:
    for name in ("connections", "bulk"):
        assert name in peer("a=b").measures
        assert name not in peer("a=b", "marks").measures
    made = medians(
        through("conntrack only", 1000, 10),
        through("null verdict", 800, 8),
        through("labelgate 10", 600, 6),
        through("mine", 750, 12, is_peer=True),
    )
    assert made == {
        "labelgate 10 / conntrack only: one TCP stream": (0.6, ">= 0.90"),
        "null verdict / conntrack only: one TCP stream": (0.8, ""),
        "mine / conntrack only: one TCP stream": (1.2, ""),
        "labelgate 10 / null verdict: one TCP stream": (0.75, ""),
        "labelgate 10 / null verdict: connections": (0.75, ""),
        "labelgate 10 / mine: one TCP stream": (0.5, ""),
        "labelgate 10 / mine: connections": (0.8, ""),
    }


def test_tracked_connections_are_compared_with_the_least_rules() -> None:
    made = medians(
        through("conntrack only", 1000, 10),
        through(f"{LEAST}mine", 800, 10),
        through("labelgate, tracked, one hook", 760, 10),
        through("labelgate, tracked, two hooks", 600, 10),
    )
    assert made == {
        "labelgate, tracked, one hook / conntrack only: connections": (0.76, ">= 0.78"),
        "labelgate, tracked, two hooks / conntrack only: connections": (0.6, ">= 0.62"),
        f"{LEAST}mine / conntrack only: connections": (0.8, ""),
        f"labelgate, tracked, one hook / {LEAST}mine: connections": (0.95, ""),
        f"labelgate, tracked, two hooks / {LEAST}mine: connections": (0.75, ""),
    }


def test_the_least_rules_are_answered_by_the_null_verdict_and_the_first_peer() -> None:
    chosen = Selection([10], [], ["nft"], False, False, peers=["a=b {queue}", "c=d"])
    least = {case.name: case for case in cases(chosen) if isinstance(case, Least)}
    assert [*least] == [f"{LEAST}null verdict", f"{LEAST}a"]
    assert least[f"{LEAST}a"].command == ("b", "{queue}")
    one, two = policies.least_rules(range(QUEUE, QUEUE + 1)), policies.least_rules(range(QUEUE, QUEUE + 2))
    assert f"--queue-num {QUEUE}\n" in one
    assert f"--queue-balance {QUEUE}:{QUEUE + 1} --queue-cpu-fanout\n" in two
    assert f"--mark {ALLOW_MARK:#x}/{ALLOW_MARK:#x} " in one


@pytest.mark.parametrize("is_there", [True, False])
def test_what_lists_of_rules_add_is_told_beside_the_first_peer_or_the_null_verdict(is_there: bool) -> None:
    ones = [
        found("no rule", burst=[{"cpu": 1000.0}]),
        found("null verdict", burst=[{"cpu": 2000.0}]),
        found("labelgate 1,000", 1000, burst=[{"cpu": 3000.0}]),
        found("nft rules 1,000", 1000, burst=[{"cpu": 15_000.0}]),
    ]
    if is_there:
        peers = {"mine": 1500.0, "yours": 1250.0}
        ones += [found(name, is_peer=True, burst=[{"cpu": cpu}]) for name, cpu in peers.items()]
    made = medians(*ones)
    assert made["nft rules 1,000 / labelgate 1,000: added to no rule"] == (7.0, ">= 6")
    least = {"nft rules 1,000 / mine: added to no rule": (28.0, "")}
    if not is_there:
        least = {"nft rules 1,000 / null verdict: added to no rule": (14.0, "")}
    beside = {name: value for name, value in made.items() if name.endswith("added to no rule")}
    assert beside == {"nft rules 1,000 / labelgate 1,000: added to no rule": (7.0, ">= 6"), **least}


# Denied packets.


def denied(*told: float) -> Found:
    blocks = [{"nothing": 1000.0, "told": value, "recorded": 1100.0, "again": 1000.0} for value in told]
    flood = {f"{name} kpps": 300.0 for name in NOTED} | dict.fromkeys(NOTED, 2000.0)
    return found("denied", 100, noting=blocks, denials=[flood])


def test_what_noting_costs_has_a_bar_for_counters_and_events() -> None:
    made = medians(denied(1010.0, 1020.0, 1040.0))
    assert made == {
        "denied, counters and events / nothing: handler": (1.02, "<= 1.03"),
        "denied, counters, events, flight recorder / nothing: handler": (1.1, ""),
        "denied, nothing again / nothing: handler": (1.0, ""),
        **{
            f"denied, {words} / nothing: handler in a flood": (1.0, "")
            for figure, words in NOTED_WORDS.items()
            if figure != "nothing"
        },
    }
    figures = denials(denied(1010.0, 1030.0))
    assert ("counters and events", "1,020", "2,000 ±0", "300.0 ±0.0") in figures.rows
    assert "2 times" in figures.title


def test_every_rule_denies_what_the_others_let_pass(tmp_path: Path) -> None:
    path = tmp_path / "policies.json"
    path.write_text(policies.denying(20), encoding="utf-8")
    table = labelgate.load(str(path)).compile(node=policies.NODE)
    flow: Any = {"src": "10.71.0.150", "dst": "10.74.0.1", "sport": 4000, "in_": "eth0", "protocol": "udp"}
    for port in policies.hit_ports(20):
        decision = table.decide(hook="raw-prerouting", dport=port, **flow)
        assert (decision.verdict, decision.policy) == ("deny", f"GlobalNetworkPolicy/port-{port}")
    (case,) = (case for case in cases(Selection([10], [], ["nft"], False, False)) if isinstance(case, Denied))
    assert case.text == policies.denying(case.rules)


class Switch:
    """A case that counts as it is told; `over` packets more than it should."""

    def __init__(self, over: int = 0) -> None:
        self.words: list[str] = []
        self.counted, self.over = 0, over

    def note(self, word: str) -> int:
        self.words.append(word)
        return self.counted

    def drain(self, bursts: int, processor: int) -> tuple[int, int]:
        self.counted += 0 if self.words[-1] == "nothing" else bursts + self.over
        return 5000 * bursts, bursts


def noting_bench(switch: Switch) -> NotingBench:
    bench = NotingBench.__new__(NotingBench)
    bench.case, bench.drained = switch, switch.drain  # type: ignore[assignment,method-assign]
    bench._cores = Cores()
    return bench


def test_turns_change_places_so_that_each_is_everywhere_as_often() -> None:
    switch = Switch()
    bench, rounds = noting_bench(switch), 2 * len(NOTED)
    order: list[list[str]] = []
    for _ in range(rounds):
        order.append([*bench._block(bench._drained, None)])  # type: ignore[arg-type]
    for place in zip(*order, strict=True):
        assert {name: place.count(name) for name in NOTED} == dict.fromkeys(NOTED, 2)
    assert switch.words[-1] == "nothing", "what is between turns is not counted"
    assert {*switch.words} == {"nothing", "told", "recorded"}


def test_a_switch_that_does_not_hold_is_an_error() -> None:
    bench = noting_bench(Switch(over=1))
    with pytest.raises(Miscounted, match="rules have counted 3 packets, expected 2"):
        bench._block(bench._drained, None)  # type: ignore[arg-type]


def test_counting_wrongly_is_a_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> Report:
        raise Miscounted("denied, told: rules have counted 1 packets, expected 2")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/sbin/{name}")
    monkeypatch.setattr(verb, "run", run)
    result = CliRunner().invoke(cli, ["bench", "queue"])
    assert (result.exit_code, "counted 1 packets, expected 2" in result.output) == (4, True)


# How sure it is.


@pytest.mark.parametrize(("count", "expected"), [(5, None), (6, (1, 6)), (9, (2, 8)), (100, (40, 61))])
def test_the_interval_is_that_of_the_tables_of_the_sign_test(
    count: int, expected: tuple[float, float] | None
) -> None:
    """Conover, Practical Nonparametric Statistics: exact for 9, normal approximation for 100."""
    values = [float(number) for number in range(1, count + 1)]
    random.Random(1).shuffle(values)
    assert confidence(values) == expected


def test_it_holds_the_median_of_what_is_drawn_from_in_95_of_100() -> None:
    dice, hits = random.Random(7), 0
    for _ in range(1000):
        interval = confidence([dice.lognormvariate(0, 0.3) for _ in range(15)])
        assert interval is not None
        hits += interval[0] <= 1 <= interval[1]
    assert 950 <= hits <= 985, "96.5 of 100 for 15: fewer cannot be left off"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.00, 1.01, 1.01, 1.02, 1.02, 1.02], "met"),
        ([1.00, 1.01, 1.01, 1.02, 1.02, 1.09], "not shown"),
        ([1.04, 1.05, 1.05, 1.06, 1.06, 1.07], "missed"),
        ([1.00, 1.01], "not shown"),
    ],
)
def test_a_bar_within_the_interval_is_not_shown(values: list[float], said: str) -> None:
    ratio = Ratio.of("x", values, "<= 1.03")
    assert ratios_table([ratio]).rows[0][-1] == said
    body = ratio.to_json()
    assert (body["met"], body["pairs"]) == (median(values) <= 1.03, len(values))
    assert body["shown"] == (said != "not shown")
    assert Ratio.of("x", [math.pi]).to_json()["shown"] is None
