"""What calls from Python cost, by pytest-benchmark.

`python -m pytest -p pytest_benchmark.plugin benches/calls.py`; its options keep a run and compare the next
one with it (`--benchmark-autosave`, `--benchmark-compare`). How much of a batch is Python's is the affair of
`boundary.py`, which asks Rust the same in turn.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import boundary
import labelgate
import numpy as np
import pytest
from labelgate.table import DecisionTable

HOOK, SNAPSHOT, DRAW = boundary.questions()["workloads"]
SIZES = (1, 64, 1024, 65_536, boundary.FLOWS)


@pytest.fixture(scope="module")
def table() -> DecisionTable:
    return SNAPSHOT.compile(node="edge1")


@pytest.fixture(scope="module")
def columns(table: DecisionTable) -> boundary.Columns:
    return DRAW(table, np.random.default_rng(1))


@pytest.fixture(scope="module")
def expected(table: DecisionTable, columns: boundary.Columns) -> np.ndarray:
    return table.decide_batch(HOOK, **columns)[1]


@pytest.mark.parametrize("size", SIZES)
def test_decide_batch(
    benchmark: Any, table: DecisionTable, columns: boundary.Columns, expected: np.ndarray, size: int
) -> None:
    asked = {name: column[:size] for name, column in columns.items()}
    benchmark.extra_info["flows"] = size
    _, outcomes = benchmark(table.decide_batch, HOOK, **asked)
    assert (outcomes == expected[:size]).all()


@pytest.mark.parametrize("size", SIZES)
def test_decide_batch_into(
    benchmark: Any, table: DecisionTable, columns: boundary.Columns, expected: np.ndarray, size: int
) -> None:
    asked = {name: column[:size] for name, column in columns.items()}
    into = np.empty(size, np.uint8), np.empty(size, np.uint32)
    benchmark.extra_info["flows"] = size
    benchmark(table.decide_batch, HOOK, **asked, into=into)
    assert (into[1] == expected[:size]).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_decide_batch_threads(
    benchmark: Any, table: DecisionTable, columns: boundary.Columns, expected: np.ndarray, threads: int
) -> None:
    _, outcomes = benchmark(table.decide_batch, HOOK, **columns, threads=threads)
    assert (outcomes == expected).all()


SRC, DST = "10.65.0.1", "10.65.0.2"
FLOW: dict[str, Any] = {"protocol": "tcp", "sport": 40000, "dport": 443, "in_": "cali0", "out": "cali1"}
PACKET = labelgate.Packet(HOOK, ip_address(SRC), ip_address(DST), **{**FLOW, "protocol": 6})


def test_decide(benchmark: Any, table: DecisionTable) -> None:
    decision = benchmark(lambda: table.decide(hook=HOOK, src=SRC, dst=DST, **FLOW))
    assert decision == table.decide_packet(PACKET)


def test_decide_packet(benchmark: Any, table: DecisionTable) -> None:
    decision = benchmark(table.decide_packet, PACKET)
    assert decision == table.decide(hook=HOOK, src=SRC, dst=DST, **FLOW)


def test_answer(benchmark: Any, table: DecisionTable) -> None:
    answer = benchmark(table.answer, PACKET)
    assert answer.verdict == table.decide_packet(PACKET).verdict


def test_connectivity_batch(benchmark: Any, table: DecisionTable, columns: boundary.Columns) -> None:
    asked = {name: columns[name] for name in ("src", "dst", "protocol", "sport", "dport")}
    egress, ingress = benchmark(table.connectivity_batch, **asked)
    assert len(egress[0]) == len(ingress[0]) == boundary.FLOWS


def test_compile(benchmark: Any, columns: boundary.Columns, expected: np.ndarray) -> None:
    compiled: DecisionTable = benchmark(SNAPSHOT.compile, node="edge1")
    assert (compiled.decide_batch(HOOK, **columns)[1] == expected).all()
