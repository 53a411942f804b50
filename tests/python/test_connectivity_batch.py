"""Connections by column are answered as `connectivity` answers one, and both gates of each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from ipaddress import ip_address
from typing import Any

import labelgate
import numpy as np
import pytest
from cases import Case, load_cases, load_connection_cases
from labelgate.flow import VERDICTS, Gate, Packet
from labelgate.resources import load_text
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable
from random_world import Dice, aims
from test_batch import CHUNK, Interrupted, columns, groups, values
from test_engine_equals_reference import interfaces_of

WORLDS, PACKETS = 60, 60
NAMES = ("src", "dst", "protocol", "sport", "dport", "fragment")
PART = 1024
"""Flows whose owners are looked up at a time, as `src/table/connectivity.rs` has it."""
Seen = set[tuple[str, str, int]]


def asked(table: DecisionTable, packets: list[Packet]) -> dict[str, Any]:
    found = columns(table, packets)
    return {name: found[name] for name in NAMES}


def assert_same(table: DecisionTable, packets: list[Packet], found: Any, seen: Seen) -> None:
    for row, packet in enumerate(packets):
        one, steps = table.connectivity(packet), table.connectivity_trace(packet)
        for place, gate, trace, (verdicts, outcomes) in zip(
            ("egress", "ingress"), (one.egress, one.ingress), steps, found, strict=True
        ):
            said, why = VERDICTS[verdicts[row]], table.outcomes[outcomes[row]]
            seen.add((place, said, packet.src.version))
            if gate is None:
                assert (said, why["reason"], why["policy"]) == ("continue", "no endpoint here (E-39)", None)
                continue
            rule = None if why["rule"] < 0 else why["rule"]
            assert Gate(said, why["tier"], why["policy"], rule) == gate, (place, packet)
            assert trace is not None
            assert (why["action"], why["reason"]) == (trace[-1].action, trace[-1].reason)


def whole(packets: list[Packet]) -> Iterator[list[Packet]]:
    """By IP version; of a later fragment `connectivity` is told the ports that it has."""
    for version in (4, 6):
        found = [
            replace(one, fragment=False, hook="filter-forward")
            for one in packets
            if one.src.version == version
        ]
        for _, group in groups(found):
            yield group


def of_cases() -> Iterator[tuple[DecisionTable, list[Packet]]]:
    for case in load_cases():
        table = case.snapshot().compile(node=None, settings=case.settings, staged=case.staged)
        yield table, [question.packet for question in case.questions]
    for case in load_connection_cases():
        yield case.snapshot().compile(node=None), [one.packet for one in case.connections]


def of_worlds() -> Iterator[tuple[DecisionTable, list[Packet]]]:
    for seed in range(WORLDS):
        dice = Dice(seed)
        world = dice.world()
        snapshot = world.snapshot()
        names, aimed = interfaces_of(snapshot), tuple(aims(world.documents))
        budgets = labelgate.Budgets.LINEAR if seed % 3 == 0 else None
        table = snapshot.compile(node=None, settings=world.settings, budgets=budgets)
        yield table, [dice.packet(names, aimed) for _ in range(PACKETS)]


@pytest.mark.parametrize("tables", [of_cases, of_worlds], ids=["cases", "worlds"])
def test_columns_are_answered_as_single_connections(tables: Any) -> None:
    seen: Seen = set()
    for table, packets in tables():
        for group in whole(packets):
            assert_same(table, group, table.connectivity_batch(**asked(table, group)), seen)
    sides, words = ("egress", "ingress"), ("allow", "deny", "continue")
    assert seen == {(side, word, version) for side in sides for word in words for version in (4, 6)}


@pytest.mark.parametrize("case", load_cases()[::5], ids=lambda case: case.name)
def test_a_value_holds_for_all(case: Case) -> None:
    """Each field in turn is the only column."""
    table = case.snapshot().compile(node=None, settings=case.settings, staged=case.staged)
    for index, question in enumerate(case.questions):
        packet = replace(question.packet, fragment=False)
        name = NAMES[index % len(NAMES)]
        given = {key: value for key, value in values(packet).items() if key in NAMES}
        column = np.concatenate([asked(table, [packet])[name]] * 3)
        found = table.connectivity_batch(**(given | {name: column}))
        assert_same(table, [packet] * 3, found, set())


# One table and batches of any size.

POLICY = str(files("labelgate") / "examples" / "01-workload.yaml")
WEB_ALONE = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop}
spec: {node: edge1, interfaceName: cali1, ipNetworks: [10.65.0.2/32]}
"""
WEB, DB, OUTSIDE = "10.65.0.2", "10.65.0.3", "203.0.113.7"


@pytest.fixture(scope="module")
def table() -> DecisionTable:
    return labelgate.load(POLICY).compile(node=None)


def many(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources, of which some are nobody's, and ports, in orders without a period that a part could hide."""
    ends = np.array([int(ip_address(end)) for end in (WEB, OUTSIDE, DB)], np.uint32)
    ports = np.array([5432, 443], np.uint16)
    order = np.arange(count) ** 2 // 7
    return ends[order % 3], ports[order // 3 % 2]


def expected(table: DecisionTable, count: int) -> np.ndarray:
    """Verdicts of egress and ingress, (2, n)."""
    sources, ports = many(count)
    known: dict[tuple[int, int], list[int]] = {}
    for source, port in {(int(one), int(two)) for one, two in zip(sources, ports, strict=True)}:
        packet = Packet("filter-forward", ip_address(source), ip_address(DB), 6, sport=40000, dport=port)
        one = table.connectivity(packet)
        words = (gate.verdict if gate else "continue" for gate in (one.egress, one.ingress))
        known[source, port] = [VERDICTS.index(word) for word in words]
    found = [known[int(one), int(two)] for one, two in zip(sources, ports, strict=True)]
    return np.array(found, np.uint8).reshape(-1, 2).T


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 31, 33, PART - 1, PART, PART + 1, CHUNK + PART + 77])
def test_batches_of_any_size(table: DecisionTable, count: int, threads: int) -> None:
    sources, ports = many(count)
    into: Any = [(np.full(count, 9, np.uint8), np.full(count, 2**32 - 1, np.uint32)) for _ in range(2)]
    found = table.connectivity_batch(sources, DB, "tcp", 40000, ports, threads=threads, into=tuple(into))
    for side, (verdicts, outcomes) in enumerate(found):
        assert verdicts is into[side][0]
        assert outcomes is into[side][1]
        np.testing.assert_array_equal(verdicts, expected(table, count)[side])
        assert set(np.unique(outcomes).tolist()) <= set(range(len(table.outcomes)))
    fresh = table.connectivity_batch(sources, DB, "tcp", 40000, ports)
    for side in range(2):
        for one, two in zip(fresh[side], found[side], strict=True):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)


def test_nobody_is_asked_where_there_is_no_workload() -> None:
    table = Snapshot().compile(node=None)
    for verdicts, outcomes in table.connectivity_batch(*many(100)[:1], DB, "tcp"):
        assert set(verdicts.tolist()) == {VERDICTS.index("continue")}
        assert set(table.outcomes[outcomes]["reason"]) == {"no endpoint here (E-39)"}


def long_policies() -> str:
    """Of one workload, a thousand rules for each direction that match nothing."""
    rule = "{action: Allow, protocol: TCP, source: {nets: [192.0.2.0/24]}, destination: {ports: [1]}}"
    rules = ", ".join([rule] * 500)
    policies = (
        f"""
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: long{number}, namespace: shop}}
spec: {{types: [Ingress, Egress], ingress: [{rules}], egress: [{rules}]}}
"""
        for number in range(2)
    )
    return WEB_ALONE + "".join(policies)


def test_the_gil_is_free_meanwhile_and_a_signal_ends_it() -> None:
    """A thread of Python sends it, and the ingress gates are left unanswered."""
    table = Snapshot.of(load_text(long_policies())).compile(node=None, budgets=labelgate.Budgets.LINEAR)
    count = 200_000
    into: Any = [(np.full(count, 9, np.uint8), np.empty(count, np.uint32)) for _ in range(2)]

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Interrupted):
            table.connectivity_batch(WEB, WEB, "tcp", many(count)[1], threads=2, into=tuple(into))
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert into[1][0][-1] == 9


# What does not fit.

SOURCES, PORTS = many(4)
PAIR = (np.zeros(4, np.uint8), np.zeros(4, np.uint32))
OTHER = (np.zeros(4, np.uint8), np.zeros(4, np.uint32))
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"src": SOURCES.astype(int)}, TypeError, "src: found a column of int64, expected an address"),
    ({"dst": "::1"}, ValueError, "dst: found IPv6, expected IPv4 as in src"),
    ({"dport": PORTS[:3].copy()}, ValueError, "dport: found 3 values, expected 4 as in src"),
    ({"fragment": 1}, TypeError, "fragment: found 1, expected True, False, or a column of bool"),
    ({"src": WEB, "dport": 80}, ValueError, "found no column, expected at least one"),
    ({"threads": 0}, ValueError, "threads: found 0, expected 1..1024"),
    ({"into": PAIR[0]}, TypeError, "into: found a ndarray, expected a pair (egress, ingress) of pairs"),
    ({"into": PAIR}, TypeError, "into[0]: found a ndarray, expected a pair (verdicts, outcomes)"),
    ({"into": (PAIR, (OTHER[0], [0] * 4))}, TypeError, "into[1][1]: found a list, expected an array"),
    ({"into": (PAIR, (OTHER[0][:3], OTHER[1]))}, ValueError, "into[1][0]: found 3 values, expected 4"),
    ({"into": (PAIR, PAIR)}, ValueError, "into[1][0]: found an array that is read or written by this call"),
    ({"into": ((PAIR[0], SOURCES), OTHER)}, ValueError, "into[0][1]: found an array that is read or"),
    ({"into": (PAIR, (np.frombuffer(bytes(4), np.uint8), OTHER[1]))}, ValueError,
     "into[1][0]: found a read-only array"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_what_does_not_fit_is_said(
    table: DecisionTable, given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    fitting = {"src": SOURCES, "dst": DB, "protocol": "tcp", "sport": 40000, "dport": PORTS}
    with pytest.raises(kind) as caught:
        table.connectivity_batch(**(fitting | given))
    assert str(caught.value).startswith(message)
