"""Questions by column are answered as single ones, whatever is a column and whatever is one value for all."""

from __future__ import annotations

import copy
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.resources import files
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from typing import Any

import labelgate
import numpy as np
import pytest
from cases import Case, load_cases
from labelgate.flow import CT_STATES, HOOKS, INTERFACES, VERDICTS, Hook, Packet, missing_interfaces
from labelgate.resources import load_text
from labelgate.snapshot import Snapshot
from labelgate.table import Decision, DecisionTable
from random_world import HOST, Dice, aims
from test_engine_equals_reference import interfaces_of

CASES = load_cases()
WORLDS, PACKETS = 60, 60
CHUNK = 1 << 14
"""Flows that a thread takes at a time, as `src/python/batch.rs` has it."""
BLOCK = 32
"""Packets that are answered together, as `src/table/batch.rs` has it."""
PORTS, ICMP = {6, 17, 132, 136}, {1, 58}


def groups(packets: Iterable[Packet]) -> Iterator[tuple[Hook, list[Packet]]]:
    """By hook and IP version: what one batch can ask."""
    found: dict[tuple[Hook, int], list[Packet]] = defaultdict(list)
    for packet in packets:
        found[packet.hook, packet.src.version].append(packet)
    for (hook, _), group in found.items():
        yield hook, group


def second_key(packet: Packet) -> int:
    if packet.protocol in ICMP and packet.icmp_type is not None:
        return packet.icmp_type << 8 | (packet.icmp_code or 0)
    return packet.dport or 0


def is_opaque(packet: Packet) -> bool:
    """What `decide` is not told, a batch is told to be unreadable."""
    return (
        packet.fragment
        or (packet.protocol in PORTS and packet.dport is None)
        or (packet.protocol in ICMP and packet.icmp_type is None)
    )


def address_column(addresses: list[Any]) -> np.ndarray:
    if addresses[0].version == 4:
        return np.array([int(address) for address in addresses], np.uint32)
    return np.frombuffer(b"".join(address.packed for address in addresses), np.uint8).reshape(-1, 16)


def columns(table: DecisionTable, packets: list[Packet]) -> dict[str, Any]:
    """Every field as a column."""
    return {
        "src": address_column([packet.src for packet in packets]),
        "dst": address_column([packet.dst for packet in packets]),
        "protocol": np.array([packet.protocol for packet in packets], np.uint8),
        "sport": np.array([packet.sport or 0 for packet in packets], np.uint16),
        "dport": np.array([second_key(packet) for packet in packets], np.uint16),
        "in_": table.interface_ids([packet.in_ for packet in packets]),
        "out": table.interface_ids([packet.out for packet in packets]),
        "ct": np.array([CT_STATES.index(packet.ct) for packet in packets], np.uint8),
        "accepted": np.array([packet.accepted for packet in packets]),
        "dnatted": np.array([packet.dnatted for packet in packets]),
        "fragment": np.array([is_opaque(packet) for packet in packets]),
    }


def values(packet: Packet) -> dict[str, Any]:
    """Every field as one value for all."""
    return {
        "src": packet.src,
        "dst": str(packet.dst),
        "protocol": packet.protocol,
        "sport": packet.sport or 0,
        "dport": second_key(packet),
        "in_": packet.in_,
        "out": packet.out,
        "ct": packet.ct,
        "accepted": packet.accepted,
        "dnatted": packet.dnatted,
        "fragment": is_opaque(packet),
    }


def assert_same(table: DecisionTable, verdict: int, outcome: int, decision: Decision) -> None:
    assert (VERDICTS[verdict], outcome) == (decision.verdict, decision.outcome)
    row = table.outcomes[outcome]
    assert row["reason"] == decision.reason
    assert row["action"] == decision.action
    assert (row["tier"], row["policy"], row["rule"]) == (
        decision.tier, decision.policy, -1 if decision.rule is None else decision.rule,
    )  # fmt: skip


def table_of(case: Case, budgets: labelgate.Budgets | None = None) -> DecisionTable:
    return case.snapshot().compile(
        node=case.node, host=case.host, settings=case.settings, staged=case.staged, budgets=budgets
    )


@pytest.mark.parametrize("budgets", [None, labelgate.Budgets.LINEAR], ids=["default", "linear"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_columns_are_answered_as_single_questions(case: Case, budgets: labelgate.Budgets | None) -> None:
    table = table_of(case, budgets)
    for hook, packets in groups(question.packet for question in case.questions):
        verdicts, outcomes = table.decide_batch(hook, **columns(table, packets))
        for packet, verdict, outcome in zip(packets, verdicts, outcomes, strict=True):
            assert_same(table, verdict, outcome, table.decide_packet(packet))


def test_all_hooks_are_asked_in_both_families() -> None:
    asked = {(question.packet.hook, question.packet.src.version) for c in CASES for question in c.questions}
    assert asked == {(hook, version) for hook in HOOKS for version in (4, 6)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_value_holds_for_all(case: Case) -> None:
    """Each field in turn is the only column."""
    table = table_of(case)
    for index, question in enumerate(case.questions):
        packet = question.packet
        in_columns, name = columns(table, [packet]), list(columns(table, [packet]))[index % 11]
        column = np.concatenate([in_columns[name]] * 3)
        verdicts, outcomes = table.decide_batch(packet.hook, **(values(packet) | {name: column}))
        decision = table.decide_packet(packet)
        assert verdicts.tolist() == [VERDICTS.index(decision.verdict)] * 3
        assert outcomes.tolist() == [decision.outcome] * 3


def test_random_worlds_are_answered_as_single_questions() -> None:
    asked = 0
    for seed in range(WORLDS):
        dice = Dice(seed)
        world = dice.world()
        snapshot = world.snapshot()
        names, aimed = interfaces_of(snapshot), tuple(aims(world.documents))
        packets = [dice.packet(names, aimed) for _ in range(PACKETS)]
        budgets = labelgate.Budgets.LINEAR if seed % 3 == 0 else None
        table = snapshot.compile(node="edge1", host=HOST, settings=world.settings, budgets=budgets)
        for hook, group in groups(packets):
            asked_of = columns(table, group)
            verdicts, outcomes = table.decide_batch(hook, **asked_of)
            for packet, verdict, outcome in zip(group, verdicts, outcomes, strict=True):
                assert_same(table, verdict, outcome, table.decide_packet(packet))
                asked += 1
            assert_answers(
                table.decide_batch(hook, **in_blocks(asked_of)),
                [np.repeat(column, BLOCK) for column in (verdicts, outcomes)],
            )
    assert asked == WORLDS * PACKETS


def in_blocks(asked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each packet as often as the engines answer packets together."""
    return {name: np.repeat(column, BLOCK, axis=0) for name, column in asked.items()}


@pytest.mark.parametrize("budgets", [None, labelgate.Budgets.LINEAR], ids=["default", "linear"])
def test_a_node_without_policy_has_no_chain_to_look_at(budgets: labelgate.Budgets | None) -> None:
    table = Snapshot.of([]).compile(node="edge1", host=HOST, budgets=budgets)
    names = ("eth0", "cali9", "lo", None)
    for hook, into, out in product(HOOKS, names, names):
        packets = [
            Packet(hook, address, address, 6, 40000, 80, in_=into, out=out)
            for address in map(ip_address, ("203.0.113.7", "2001:db8::7"))
        ]
        if missing_interfaces(packets[0]):
            continue
        for _, group in groups(packets):
            asked = columns(table, group)
            one = table.decide_batch(hook, **asked)
            assert_same(table, one[0][0], one[1][0], table.decide_packet(group[0]))
            assert_answers(table.decide_batch(hook, **in_blocks(asked)), [np.repeat(c, BLOCK) for c in one])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outcomes_tell_the_log_rules_passed(case: Case) -> None:
    table = table_of(case)
    assert table.describe()["others"] == [], "`linear` does not tell them"
    for question in case.questions:
        steps = table.answer(question.packet).trace
        last = steps[-1]
        expected = [
            (step.policy, step.rule)
            for step in steps[:-1]
            if step.action == "Log" and (step.stage, step.endpoint) == (last.stage, last.endpoint)
        ]
        logs = table.outcomes[table.decide_packet(question.packet).outcome]["logs"]
        rows = table.outcomes[list(logs)]
        assert list(zip(rows["policy"], rows["rule"], strict=True)) == expected, question.id
        assert set(rows["action"]) <= {"Log"}


def test_log_rules_are_told_in_order() -> None:
    text = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out}
spec: {node: edge1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: loud}
spec:
  ingress: [{action: Log}, {action: Log, protocol: UDP}, {action: Log, protocol: TCP}, {action: Allow}]
"""
    table = Snapshot.of(load_text(text)).compile(node="edge1")
    _, outcomes = table.decide_batch("filter-input", *QUESTIONS, DPORTS[1:], in_="eth0")
    (outcome,) = set(outcomes.tolist())
    row = table.outcomes[outcome]
    assert (row["action"], row["policy"], row["rule"]) == ("Allow", "GlobalNetworkPolicy/loud", 3)
    assert table.outcomes[list(row["logs"])]["rule"].tolist() == [0, 2]


# One table and batches of any size.

POLICY = files("labelgate") / "examples" / "02-host-endpoint.yaml"
QUESTIONS = ("203.0.113.7", "198.51.100.10", "tcp", 40000)
DPORTS = np.array([22, 80, 9100, 443], np.uint16)


@pytest.fixture(scope="module")
def table() -> DecisionTable:
    return labelgate.load(str(POLICY)).compile(node="edge1")


def many(count: int) -> np.ndarray:
    """Ports in an order without a period that a chunk could hide."""
    return DPORTS[np.arange(count) ** 2 // 7 % len(DPORTS)]


def answers_of(table: DecisionTable, dports: np.ndarray) -> list[np.ndarray]:
    """Expected verdicts and outcome ids, port by port."""
    asked = [
        table.decide(hook="filter-input", src=QUESTIONS[0], dst=QUESTIONS[1], protocol="tcp", sport=40000,
                     dport=int(port), in_="eth0")
        for port in DPORTS
    ]  # fmt: skip
    number = {int(port): index for index, port in enumerate(DPORTS)}
    rows = np.array([number[int(port)] for port in dports], int)
    return [
        np.array([VERDICTS.index(decision.verdict) for decision in asked], np.uint8)[rows],
        np.array([decision.outcome for decision in asked], np.uint32)[rows],
    ]


def assert_answers(found: tuple[np.ndarray, np.ndarray], expected: list[np.ndarray]) -> None:
    assert [column.dtype for column in found] == [np.uint8, np.uint32]
    for column, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(column, wanted)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [*range(66), CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 77])
def test_batches_of_any_size(table: DecisionTable, count: int, threads: int) -> None:
    dports = many(count)
    found = table.decide_batch("filter-input", *QUESTIONS, dports, in_="eth0", threads=threads)
    assert_answers(found, answers_of(table, dports))


@pytest.mark.parametrize("sides", [("src",), ("dst",), ("src", "dst")], ids="-".join)
def test_sixteen_small_addresses_are_no_ipv6_address(table: DecisionTable, sides: tuple[str, ...]) -> None:
    for count in (15, 16, 17):
        addresses: dict[str, Any] = dict.fromkeys(("src", "dst"), "203.0.113.7")
        addresses |= dict.fromkeys(sides, np.arange(count, dtype=np.uint32))
        found = table.decide_batch(
            "filter-input", addresses["src"], addresses["dst"], "tcp", 1, 22, in_="eth0"
        )
        for row in range(count):
            one = {
                side: ip_address(int(value[row])) if side in sides else value
                for side, value in addresses.items()
            }
            asked = table.decide(
                hook="filter-input",
                src=one["src"],
                dst=one["dst"],
                protocol="tcp",
                sport=1,
                dport=22,
                in_="eth0",
            )
            assert (VERDICTS[found[0][row]], found[1][row]) == (asked.verdict, asked.outcome)


def test_answers_are_written_into_given_arrays(table: DecisionTable) -> None:
    dports = many(1000)
    into = np.full(1000, 9, np.uint8), np.full(1000, 9, np.uint32)
    found = table.decide_batch("filter-input", *QUESTIONS, dports, in_="eth0", into=into)
    assert found[0] is into[0]
    assert found[1] is into[1]
    assert_answers(into, answers_of(table, dports))


def test_parts_of_arrays_are_columns_and_answers(table: DecisionTable) -> None:
    """As a stream through one buffer needs it."""
    dports = many(1000)
    verdicts, outcomes = np.full(1000, 9, np.uint8), np.full(1000, 9, np.uint32)
    for first in range(0, 1000, 333):
        part = slice(first, first + 333)
        into = verdicts[part], outcomes[part]
        table.decide_batch("filter-input", *QUESTIONS, dports[part], in_="eth0", into=into)
    assert_answers((verdicts, outcomes), answers_of(table, dports))


def test_given_arrays_say_how_many(table: DecisionTable) -> None:
    into = np.full(3, 9, np.uint8), np.full(3, 9, np.uint32)
    table.decide_batch("filter-input", *QUESTIONS, 80, in_="eth0", into=into)
    assert_answers(into, answers_of(table, np.array([80, 80, 80])))


def test_read_only_and_mapped_columns(table: DecisionTable, tmp_path: Path) -> None:
    dports = many(100)
    dports.tofile(tmp_path / "dports")
    mapped = np.memmap(tmp_path / "dports", np.uint16, "r")
    found = table.decide_batch("filter-input", *QUESTIONS, mapped, in_="eth0")
    assert_answers(found, answers_of(table, dports))


def test_numbers_of_numpy_are_numbers(table: DecisionTable) -> None:
    sport, tcp, no = np.uint16(40000), np.uint8(6), np.False_
    found = table.decide_batch("filter-input", *QUESTIONS[:2], tcp, sport, many(10), in_="eth0", accepted=no)
    assert_answers(found, answers_of(table, many(10)))
    src, dst, *_ = QUESTIONS
    one = table.decide(
        hook="filter-input", src=src, dst=dst, protocol=tcp, sport=sport, dport=np.uint16(80), in_="eth0"
    )
    assert one.verdict == "deny"
    table.decide_batch("filter-input", *QUESTIONS, many(10), in_="eth0", threads=np.int64(2))


def test_ids_of_interfaces(table: DecisionTable) -> None:
    ids = table.interface_ids([None, "eth0", "cali1", "eth7", "cali2"])
    assert ids.dtype == np.uint32
    assert ids[0] == 0
    assert ids[2] == ids[4], "workload interfaces that nobody knows are one"
    assert len(set(ids.tolist())) == 4


# What does not fit.

FIRST = np.array([int(ip_address(QUESTIONS[0]))] * 4, np.uint32)
V6 = np.zeros((4, 16), np.uint8)
WIDE = np.zeros(8, np.uint32)


def unaligned() -> np.ndarray:
    return np.frombuffer(bytes(9), np.uint16, 4, offset=1)


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"hook": "input"}, ValueError, "hook: found 'input', expected one of raw-prerouting, raw-output"),
    ({"src": FIRST.tolist()}, TypeError, "src: found a list, expected an address, or a column of uint32"),
    ({"src": FIRST.astype(int)}, TypeError,
     "src: found a column of int64, expected an address, ... (IPv6); src.astype(np.uint32) converts it, if"),
    ({"src": FIRST.astype(">u4")}, TypeError, "src: found a column of >u4, expected an address"),
    ({"src": np.array(["10.0.0.1"] * 4)}, TypeError,
     "src: found a column of <U8, expected an address, ... (IPv6); "
     "labelgate.columns.address_column([ipaddress.ip_address(one) for one in src]) makes one"),
    ({"dst": np.array(["10.0.0.1"] * 4, object)}, TypeError,
     "dst: found a column of object, expected an address, ... (IPv6); labelgate.columns.address_column("),
    ({"src": FIRST.reshape(4, 1)}, ValueError, "src: found shape (4, 1), expected (n,)"),
    ({"src": np.array(7, np.uint32)}, ValueError, "src: found shape (), expected (n,)"),
    ({"src": V6[:, :4].copy()}, ValueError, "src: found shape (4, 4), expected (n, 16)"),
    ({"src": V6[0]}, ValueError, "src: found shape (16,), expected (n, 16)"),
    ({"src": np.asfortranarray(V6), "dst": V6}, ValueError,
     "src: found values that are not side by side in memory (strides (1, 4)), expected a C-contiguous "
     "column; src.copy() makes one"),
    ({"src": np.ma.masked_array(FIRST)}, TypeError, "src: found a MaskedArray, expected an address"),
    ({"src": "10.0.0"}, ValueError, "src: found `10.0.0`, expected an IPv4 or IPv6 address"),
    ({"dst": WIDE[::2]}, ValueError, "dst: found values that are not side by side in memory (strides (8,))"),
    ({"dst": V6}, ValueError, "dst: found IPv6, expected IPv4 as in src"),
    ({"src": "::1"}, ValueError, "dst: found IPv4, expected IPv6 as in src"),
    ({"dst": None}, TypeError, "dst: found None, expected an address"),
    ({"protocol": "tcq"}, ValueError, "protocol: found `tcq`, expected a number 0..255 or one of icmp, tcp"),
    ({"protocol": 256}, ValueError, "protocol: found `256`, expected a number 0..255"),
    ({"protocol": DPORTS}, TypeError, "protocol: found a column of uint16, expected a name, a number 0..255"),
    ({"sport": 65536}, ValueError, "sport: found 65536, expected a number 0..65535, or a column of uint16"),
    ({"sport": -1}, ValueError, "sport: found -1, expected a number 0..65535"),
    ({"sport": True}, TypeError, "sport: found True, expected a number 0..65535"),
    ({"sport": "80"}, TypeError, "sport: found '80', expected a number 0..65535"),
    ({"dport": DPORTS.astype(np.int32)}, TypeError,
     "dport: found a column of int32, expected a number 0..65535, or a column of uint16; "
     "dport.astype(np.uint16) converts it, if all values fit"),
    ({"dport": unaligned()}, ValueError,
     "dport: found values that do not begin at a multiple of 2 in memory, expected an aligned column; "
     "dport.copy() makes one"),
    ({"dport": np.zeros(4, "u1, u2")["f1"]}, ValueError,
     "dport: found values that are not side by side in memory (strides (3,))"),
    ({"dport": DPORTS[:3], "src": FIRST}, ValueError, "dport: found 3 values, expected 4 as in src"),
    ({"dport": 80}, ValueError, "found no column, expected at least one; `decide` answers single questions"),
    ({"in_": b"eth0"}, TypeError, "in_: found a bytes, expected the name of an interface, None, or a column"),
    ({"out": np.arange(4)}, TypeError, "out: found a column of int64, expected ... `interface_ids`); "),
    ({"ct": "fresh"}, ValueError, "ct: found 'fresh', expected one of new, established, related, invalid"),
    ({"ct": 0}, TypeError, "ct: found 0, expected one of new"),
    ({"ct": np.array([0, 4, 5, 0], np.uint8)}, ValueError, "ct: found 5 at index 2, expected 0..4"),
    ({"accepted": 1}, TypeError, "accepted: found 1, expected True, False, or a column of bool"),
    ({"dnatted": np.zeros(4, np.uint8)}, TypeError, "dnatted: found a column of uint8, expected True"),
    ({"fragment": np.zeros(5, bool)}, ValueError, "fragment: found 5 values, expected 4 as in dport"),
    ({"threads": 0}, ValueError, "threads: found 0, expected 1..1024"),
    ({"threads": 1025}, ValueError, "threads: found 1025, expected 1..1024"),
    ({"threads": True}, TypeError, "threads: found True, expected a number 1..1024"),
    ({"into": np.zeros(4, np.uint8)}, TypeError, "into: found a ndarray, expected a pair (verdicts, out"),
    ({"into": (np.zeros(4, np.int8), np.zeros(4, np.uint32))}, TypeError,
     "into[0]: found a column of int8, expected an array of uint8"),
    ({"into": (np.zeros(4, np.uint32), np.zeros(4, np.uint8))}, TypeError,
     "into[0]: found a column of uint32, expected an array of uint8"),
    ({"into": (np.zeros(4, np.uint8), [0] * 4)}, TypeError, "into[1]: found a list, expected an array"),
    ({"into": (np.zeros(4, np.uint8), np.zeros(5, np.uint32))}, ValueError,
     "into[1]: found 5 values, expected 4 as in dport"),
    ({"into": (np.zeros(4, np.uint8), WIDE[::2])}, ValueError, "into[1]: found values that are not"),
    ({"into": (np.frombuffer(bytes(4), np.uint8), np.zeros(4, np.uint32))}, ValueError,
     "into[0]: found a read-only array, expected one that can be written to"),
    ({"src": WIDE[:4], "into": (np.zeros(4, np.uint8), WIDE[3:7])}, ValueError,
     "into[1]: found an array that is read or written by this call or another one"),
    ({"into": (WIDE[:1].view(np.uint8), WIDE[:4])}, ValueError, "into[1]: found an array that is read or"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_what_does_not_fit_is_said(
    table: DecisionTable, given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    src, dst, protocol, sport = QUESTIONS
    fitting = {"hook": "filter-input", "src": src, "dst": dst, "protocol": protocol, "sport": sport}
    with pytest.raises(kind) as caught:
        table.decide_batch(**(fitting | {"dport": DPORTS, "in_": "eth0"} | given))
    beginning, _, later = message.partition(" ... ")
    assert str(caught.value).startswith(beginning)
    assert later in str(caught.value)
    assert "into" not in given or not re.search(r"astype|copy", str(caught.value)), (
        "nobody would see answers there"
    )


class Series:
    """What pandas, polars and pyarrow have."""

    def to_numpy(self) -> np.ndarray:
        return DPORTS


def test_columns_of_frames_are_told_how_to_become_arrays(table: DecisionTable) -> None:
    series: Any = Series()
    with pytest.raises(TypeError, match=re.escape("or a column of uint16; dport.to_numpy() makes a column")):
        table.decide_batch("filter-input", *QUESTIONS, series, in_="eth0")
    table.decide_batch("filter-input", *QUESTIONS, series.to_numpy(), in_="eth0")


INCOMING, OUTGOING = (
    tuple(hook for hook in HOOKS if INTERFACES[hook] == (field,)) for field in ("in_", "out")
)
NOWHERE = [
    *(
        (hook, other, "in_: missing: a packet at {} has one")
        for hook in INCOMING
        for other in ({}, {"out": "eth0"})
    ),
    *(
        (hook, other, "out: missing: a packet at {} has one")
        for hook in OUTGOING
        for other in ({}, {"in_": "eth0"})
    ),
    ("filter-forward", {}, "in_: missing: say where the packet is seen by `in_`, `out` or both"),
]


@pytest.mark.parametrize(("hook", "given", "said"), NOWHERE)
def test_a_question_has_the_interface_of_its_hook(
    table: DecisionTable, hook: Hook, given: dict[str, str], said: str
) -> None:
    """Nobody governs where there is none, which would read as "not denied"; also where it is in a column."""
    src, dst, protocol, sport = QUESTIONS
    one: dict[str, Any] = {
        "hook": hook,
        "src": src,
        "dst": dst,
        "protocol": protocol,
        "sport": sport,
        **given,
    }
    packet = Packet(hook, ip_address(src), ip_address(dst), 6, sport, 22, **given)
    nowhere = {field: table.interface_ids(["eth0"] * 3 + [None]) for field in INTERFACES[hook]}
    for ask in (
        lambda: table.decide(**one, dport=22),
        lambda: table.decide_packet(packet),
        lambda: table.answer(packet),
        lambda: table.decide_batch(**one, dport=DPORTS),
        lambda: table.decide_batch(**{**one, **nowhere}, dport=DPORTS),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said.format(hook))}$"):
            ask()


@pytest.mark.parametrize("name", ["", "\ud800"])
@pytest.mark.parametrize("field", ["in_", "out"])
def test_a_name_that_no_interface_has_is_said(table: DecisionTable, field: str, name: str) -> None:
    names = {"in_": "eth0", "out": "eth0", field: name}
    with pytest.raises(ValueError, match=f"^{field}: (found .*, expected the name|missing: a)"):
        table.decide_batch(("filter-input", "filter-output")[field == "out"], *QUESTIONS, DPORTS, **names)
    with pytest.raises(
        ValueError, match=f"^{field}: (found .*, expected the name of an interface|missing: a)"
    ):
        table.decide(hook=("filter-input", "filter-output")[field == "out"], src=QUESTIONS[0],
                     dst=QUESTIONS[1], protocol="tcp", **names)  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS)
def test_ids_are_those_of_the_table(table: DecisionTable, hook: Hook) -> None:
    listed = table.interface_ids(["eth0", "eth7", "cali2", "eth1", "lo"])
    for field in INTERFACES[hook]:
        for wrong in (int(table.interface_ids([*table.host.interfaces, "lo"]).max()) + 1, 2**32 - 1):
            ids = listed.copy()
            table.decide_batch(hook, *QUESTIONS, **{field: ids})
            ids[3] = wrong
            with pytest.raises(ValueError, match=f"^{field}: found the id {wrong}, expected ids that"):
                table.decide_batch(hook, *QUESTIONS, **{field: ids})


def test_forwarded_packets_have_one_interface_of_two(table: DecisionTable) -> None:
    src, dst, protocol, sport = QUESTIONS
    ids = table.interface_ids(["eth0", None, None, "cali2"])
    both = {"in_": ids, "out": table.interface_ids([None, "eth0", "eth0", "cali1"])}
    for named in (
        {"in_": "eth0"},
        {"out": "eth0"},
        {"in_": "eth0", "out": ids},
        {"in_": ids, "out": "lo"},
        both,
    ):
        table.decide_batch("filter-forward", *QUESTIONS, DPORTS, **named)
    table.decide(hook="filter-forward", src=src, dst=dst, protocol=protocol, sport=sport, out="eth0")
    both["out"][2] = 0
    with pytest.raises(ValueError, match=r"^in_: missing: say where"):
        table.decide_batch("filter-forward", *QUESTIONS, DPORTS, **both)


def test_names_of_interfaces_are_text(table: DecisionTable) -> None:
    with pytest.raises(TypeError):
        table.interface_ids([7])  # type: ignore[list-item]
    with pytest.raises(
        TypeError, match=re.escape("found the text 'eth0', expected a sequence of names: ['eth0']")
    ):
        table.interface_ids("eth0")


@pytest.mark.parametrize("address", [3405803783, b"\xcb\0\x71\7", None, np.uint32(7), "10.0.0"])
def test_what_is_no_address_is_said(table: DecisionTable, address: Any) -> None:
    with pytest.raises(ValueError, match=r"src: found .*, expected an IPv4 or IPv6 address"):
        table.decide(hook="filter-input", src=address, dst="10.0.0.1", protocol="tcp", in_="eth0")


@pytest.mark.parametrize("addresses", ["198.51.100.10", ("198.51.100.10/24",), ("eth1",)], ids=str)
def test_what_is_no_address_of_a_host_is_said(addresses: Any) -> None:
    with pytest.raises(ValueError, match=r"interfaces: eth0: found .*, expected a tuple of addresses"):
        labelgate.HostFacts({"eth0": addresses})


def test_a_list_of_paths_is_no_path() -> None:
    with pytest.raises(TypeError, match="list"):
        labelgate.load(["policy.yaml"])  # type: ignore[arg-type]


def test_tables_are_not_pickled_but_snapshots_are(table: DecisionTable) -> None:
    with pytest.raises(TypeError, match=r"neither pickled nor copied: .*pickle its Snapshot"):
        pickle.dumps(table)
    with pytest.raises(TypeError, match="neither pickled nor copied: it never changes"):
        copy.copy(table)
    snapshot = labelgate.load(str(POLICY))
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_an_error_writes_nothing(table: DecisionTable) -> None:
    count = CHUNK + 1
    into, states = (np.full(count, 9, np.uint8), np.full(count, 9, np.uint32)), np.zeros(count, np.uint8)
    states[CHUNK] = 7
    with pytest.raises(ValueError, match=f"ct: found 7 at index {CHUNK}, expected 0..4"):
        table.decide_batch("filter-input", *QUESTIONS, in_="eth0", dport=80, ct=states, into=into)
    assert set(into[0].tolist()) == {9}


# Long batches.


class Interrupted(Exception):
    pass


def test_a_signal_ends_a_long_batch() -> None:
    """It arrives, for the GIL is free, and most flows are left unanswered."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    table, count = slow_table(), 2_000_000
    dports, into = many(count), (np.full(count, 9, np.uint8), np.empty(count, np.uint32))
    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Interrupted):
            table.decide_batch("filter-input", *QUESTIONS, dports, in_="eth0", threads=2, into=into)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert np.count_nonzero(into[0] == 9) > count // 2


def slow_table() -> DecisionTable:
    """Two thousand rules that match nothing, without any fast engine: some microseconds a flow."""
    rule = "{action: Allow, protocol: TCP, source: {nets: [192.0.2.0/24]}, destination: {ports: [1]}}"
    policies = "".join(
        f"""
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: long{number}}}
spec:
  ingress: [{", ".join([rule] * 500)}]
"""
        for number in range(4)
    )
    endpoint = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out}
spec: {node: edge1, interfaceName: eth0}
"""
    snapshot = Snapshot.of(load_text(endpoint + policies))
    table = snapshot.compile(node="edge1", budgets=labelgate.Budgets.LINEAR)
    assert {other["engine"] for other in table.describe()["others"]} == {"linear"}
    return table


def test_nobody_else_waits_for_numpy() -> None:
    """Its import takes as long as a short command does, and starts threads."""
    program = "import sys, labelgate.agent, labelgate.cli; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


STREAM = """
import resource, sys, tracemalloc
import labelgate, numpy as np
count, (policy,) = 4_000_000, sys.argv[1:]
table = labelgate.load(policy).compile(node="edge1")
src, dst = np.full(count, 1, np.uint32), np.full(count, 2, np.uint32)
sport, dport = np.full(count, 3, np.uint16), np.full(count, 80, np.uint16)
flags, into = np.full(count, False), (np.full(count, 9, np.uint8), np.full(count, 9, np.uint32))
def ask(part):
    table.decide_batch("filter-input", src[part], dst[part], "tcp", sport[part], dport[part], in_="eth0",
                       accepted=flags[part], threads=2, into=(into[0][part], into[1][part]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ask(slice(0, 100_000))
tracemalloc.start()
before = peak()
for first in range(0, count, 1_000_000):
    ask(slice(first, first + 1_000_000))
ask(slice(None))
print(peak() - before, tracemalloc.get_traced_memory()[1] // 1024)
"""


def test_a_stream_needs_no_more_memory() -> None:
    """Neither columns nor answers are copied: of 72 MB, less than 2 MB more than before, in kilobytes."""
    command = [sys.executable, "-c", STREAM, str(POLICY)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    grown, traced = map(int, done.stdout.split())
    assert grown < 2048
    assert traced < 64
