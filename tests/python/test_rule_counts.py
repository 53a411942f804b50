"""Counts of rules over many tables: what is read when, what is kept, and what never goes back."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest
from labelgate import Settings, Snapshot
from labelgate.agent import clock, contents, rules
from labelgate.agent.generation import Generation
from labelgate.agent.queues import Passed, Queues, QueueState
from labelgate.agent.rules import RuleCounts
from labelgate.handlers import PacketLoop
from labelgate.resources import Resource
from test_events import SCTP, TCP, UDP, Loop, generation, met


def counting(first: Generation) -> tuple[Loop, RuleCounts]:
    loop = Loop()
    return loop, RuleCounts(cast(PacketLoop, loop), first)


def table(number: int, *rows: dict[str, Any], over: bool = False) -> dict[str, Any]:
    return {"generation": number, "isOver": over, "rules": list(rows)}


def made_of(number: int, *resources: Resource) -> Generation:
    """A generation that keeps these objects."""
    snapshot = Snapshot.of(resources)
    config = SimpleNamespace(settings=Settings())
    fields = {"number": number, "snapshot": snapshot, "config": config, "table": snapshot.compile(node="n")}
    return cast(Generation, SimpleNamespace(**fields))


def hits(counts: RuleCounts) -> list[tuple[str, int, int]]:
    return [(row["direction"], row["rule"], row["packets"]) for row in counts.met()[0]]


def test_a_table_that_is_being_put_in_force_is_counted_the_next_time() -> None:
    loop, counts = counting(generation(1, TCP, UDP))
    loop.tables = [table(1, met("Ingress", 0, 5)), table(2, met("Ingress", 1, 3))]
    assert hits(counts) == [("Ingress", 0, 5)]
    counts.swapped(2, generation(2, UDP, TCP))
    assert hits(counts) == [("Ingress", 1, 8)]


def test_a_change_waits_for_nobody_who_reads() -> None:
    loop, counts = counting(generation(1, TCP))
    following = generation(2, UDP, TCP)
    with counts._lock:  # Somebody reads.
        thread = threading.Thread(target=counts.swapped, args=(2, following), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        counts.catch_up()
    loop.tables = [table(1, met("Ingress", 0, 5), over=True), table(2, met("Ingress", 1, 1))]
    counts.catch_up()
    assert hits(counts) == [("Ingress", 1, 6)]


def test_only_what_was_edited_and_met_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = generation(1, TCP), generation(1, UDP).snapshot.global_network_policies[0]
    other = other.model_copy(update={"metadata": other.metadata.model_copy(update={"name": "other"})})
    loop, counts = counting(first)
    read: list[str] = []
    real = contents._read
    monkeypatch.setattr(contents, "_read", lambda resource: read.append(resource.key) or real(resource))
    for number in (2, 3, 4):
        counts.swapped(number, made_of(number, *first.snapshot.resources(), other))
        loop.tables = [table(number, met("Ingress", 0, 5))]
        assert hits(counts) == [("Ingress", 0, 5)]
    assert read == ["GlobalNetworkPolicy/web"]
    counts.rows()
    assert read == ["GlobalNetworkPolicy/web", "GlobalNetworkPolicy/other"]


def test_what_is_over_is_not_kept() -> None:
    first = generation(1, TCP)
    snapshot, policy = weakref.ref(first.snapshot), weakref.ref(first.snapshot.global_network_policies[0])
    core = weakref.ref(first.table)
    loop, counts = counting(first)
    counts.swapped(2, generation(2, UDP))
    del first
    loop.tables = [table(1, met("Ingress", 0, 5), over=True), table(2)]
    counts.catch_up()
    gc.collect()
    assert (snapshot(), policy(), core()) == (None, None, None)
    counts.swapped(3, generation(3, TCP))
    loop.tables = [table(3)]
    assert hits(counts) == [("Ingress", 0, 5)]


def test_rules_are_known_by_what_they_are_and_those_met_first_come_first() -> None:
    loop, counts = counting(generation(1, TCP, UDP, SCTP))
    loop.tables = [table(1, met("Ingress", 2, 1))]
    (sctp,) = counts.met()[0]
    loop.tables = [table(1, *(met("Ingress", rule, 2) for rule in range(3)))]
    first, tcp, udp = counts.met()[0]
    assert (first["rule"], tcp["rule"], udp["rule"]) == (2, 0, 1)
    counts.swapped(2, generation(2, UDP, SCTP))
    loop.tables[0]["isOver"] = True
    loop.tables.append(table(2))
    rows = counts.met()[0]
    assert [(row["id"], row["rule"]) for row in rows] == [(sctp["id"], 1), (udp["id"], 0)]
    assert len({sctp["id"], tcp["id"], udp["id"]}) == 3


def denial(policy: str, packets: int) -> dict[str, Any]:
    return met("Ingress", 0, packets) | {"action": "Deny", "policy": policy}


def test_denials_never_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where rules are forgotten, and where there are more names than are kept."""
    monkeypatch.setattr(rules, "MOST_KEPT", 1)
    monkeypatch.setattr(rules, "MOST_NAMES", 2)
    loop, counts = counting(generation(1, TCP))
    rows = [denial(f"NetworkPolicy/{number}", number) for number in (1, 2, 3, 4)]
    expected = {"NetworkPolicy/1": 1, "NetworkPolicy/2": 2, "(others)": 7}
    loop.tables = [table(1, *rows)]
    assert counts.denied() == expected
    counts.swapped(2, generation(2, UDP))
    loop.tables = [table(1, *rows, over=True), table(2)]
    assert counts.denied() == counts.denied() == expected
    loop.tables = [table(2, denial("NetworkPolicy/4", 1), denial("NetworkPolicy/1", 1))]
    assert counts.denied() == {"NetworkPolicy/1": 2, "NetworkPolicy/2": 2, "(others)": 8}
    assert len(counts._sums) == 1


@pytest.mark.parametrize("is_read_between", [False, True])
def test_a_change_that_failed_is_none(monkeypatch: pytest.MonkeyPatch, *, is_read_between: bool) -> None:
    """The policy before it has been in force since it was."""
    now = iter(range(100, 200))
    monkeypatch.setattr(rules, "_now", now.__next__)
    before = generation(1, TCP)
    loop, counts = counting(before)
    counts.swapped(2, generation(2, UDP))
    loop.tables = [table(1, over=True), table(2)]
    if is_read_between:
        assert [row["since"] for row in counts.rows()["rules"]] == [101, 101]
    counts.swapped(3, before)
    assert [row["since"] for row in counts.rows()["rules"]] == [100, 100]


MINUTE, DAY = 60_000, 86_400_000


def test_a_clock_that_is_set_makes_nothing_look_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set forward, what was met a minute ago was met a minute ago; set back again, it is as it was."""
    times = {"wall": 100 * MINUTE, "running": 5 * MINUTE}

    def pass_minutes(minutes: int, *, jump: int = 0) -> None:
        times["running"] += minutes * MINUTE
        times["wall"] += minutes * MINUTE + jump

    for module, name in ((rules, "_now"), (clock, "now")):
        monkeypatch.setattr(module, name, lambda: times["wall"])
    monkeypatch.setattr(clock, "running", lambda: times["running"])
    loop, counts = counting(generation(1, TCP, UDP))
    pass_minutes(10)
    hit = times["wall"]
    loop.tables = [table(1, met("Ingress", 0, 1) | {"lastHit": hit})]

    def ago() -> list[tuple[int, int | None]]:
        """Minutes since counting began, and since each rule was met."""
        return [
            (
                (times["wall"] - row["since"]) // MINUTE,
                row["lastHit"] and (times["wall"] - row["lastHit"]) // MINUTE,
            )
            for row in counts.rows()["rules"]
            if row["direction"] == "Ingress"
        ]

    assert ago() == [(10, 0), (10, None)]
    pass_minutes(1, jump=20_000 * DAY)
    changes = counts.changes()[0]
    assert ago() == [(11, 1), (11, None)]
    pass_minutes(1, jump=DAY)
    assert ago() == [(12, 2), (12, None)]
    assert counts.changes()[0] != changes, "it is to be saved"
    saved = counts.saved()
    assert [times["wall"] - time for time in (saved["began"], saved["rules"][0][2])] == [
        12 * MINUTE,
        2 * MINUTE,
    ]
    assert [times["wall"] - since for _, since in saved["policies"].values()] == [12 * MINUTE]
    later = times["wall"]
    loop.tables = [table(1, met("Ingress", 0, 1) | {"lastHit": later})]
    pass_minutes(3)
    assert ago() == [(15, 3), (15, None)]
    loop.tables = [table(1, met("Ingress", 0, 1) | {"lastHit": hit})]
    pass_minutes(1, jump=-2 * DAY)
    assert ago() == [(16, 6), (16, None)]
    pass_minutes(1, jump=-19_999 * DAY)
    assert ago() == [(17, 7), (17, None)]
    assert counts.rows()["rules"][0]["lastHit"] == hit


def test_counters_of_32_bits_go_on() -> None:
    """Also what passed unjudged is not frozen by one; and another socket on that number counts from 0."""
    told = [QueueState(1, 0, 0, 2**32 - 10, 7), QueueState(1, 2**32 - 1, 0, 90, 7), QueueState(0, 3, 1, 5, 7)]
    told += [QueueState(0, 2, 0, 2, 8)]
    answers = iter([{5: told[0]}, {5: told[1]}, {}, {5: told[2]}, {5: told[3]}])
    queues, passed, found = Queues(lambda: next(answers)), Passed(), list[int]()
    answered = 2**32 - 11
    found.append(passed.of("filter-input", queues.read().values(), answered))
    (state,) = (states := queues.read()).values()
    found.append(passed.of("filter-input", [state], answered + 60))
    assert found == [0, 40]
    assert states == {5: QueueState(1, 2**32 - 1, 0, 2**32 + 90, 7)}
    assert queues.read() == {}, "it cannot be seen"
    assert queues.read() == {5: QueueState(0, 2**32 + 3, 1, 2**33 + 5, 7)}
    assert queues.read() == {5: QueueState(0, 2**32 + 5, 1, 2**33 + 7, 8)}
