"""What replay says of recorded flows against the way that each packet takes by itself."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import labelgate
from cases import Case, load_cases
from labelgate.analysis.node import NodeJudge
from labelgate.analysis.recorded import Recorded, packed
from labelgate.analysis.replay import DENIED, NO_ENDPOINT, SPOOFED, STATES, ClusterJudge, _packet
from labelgate.analysis.whereabouts import Whereabouts
from labelgate.flow import CT_STATES, HOOKS, Gate, Packet
from labelgate.path import LOOP, Destination, walk
from labelgate.table import DecisionTable

WAYS = [("eth0", None), (None, "eth0"), ("eth0", "cali111"), ("cali222", "eth1"), (None, "lo")]
CASES = [case for case in load_cases() if case.questions]


def block_of(case: Case, version: int, dice: random.Random) -> Recorded | None:
    """Flows between the addresses that a case speaks of, at the ports that it speaks of."""
    packets = [question.packet for question in case.questions]
    addresses = sorted(
        {side for packet in packets for side in (packet.src, packet.dst) if side.version == version}
    )
    ports = sorted({port for packet in packets for port in (packet.sport, packet.dport) if port})
    if not addresses or not ports:
        return None
    rows: list[dict[str, Any]] = [
        {
            "src": dice.choice(addresses), "dst": dice.choice(addresses),
            "protocol": dice.choice([6, 17, 1 if version == 4 else 58]),
            "sport": dice.choice(ports), "dport": dice.choice(ports), "packets": 1,
            "ct": dice.choice([0, 0, 0, 2, 3]),
        }
        for _ in range(60)
    ]  # fmt: skip
    for row in rows[::2]:
        row["target"] = dice.choice(addresses)
        if row["protocol"] in (6, 17):
            row["target_port"] = dice.choice(ports)
    return packed(rows)


def test_a_node_judges_as_each_packet_is_judged() -> None:
    dice, asked = random.Random(8), 0
    for case in CASES:
        table = labelgate.load(case.policy).compile(
            node=case.node, host=case.host, settings=case.settings, staged=case.staged
        )
        for version in (4, 6):
            if (block := block_of(case, version, dice)) is None:
                continue
            in_, out = dice.choice(WAYS)
            judge = NodeJudge(table, Whereabouts(), in_=in_, out=out)
            judged = judge.judge(block)
            for row in range(len(block)):
                assert_same(table, judge, judged, block, row, (in_, out))
                asked += 1
    assert asked > 1000


def test_a_cluster_judges_as_each_connection_is_judged() -> None:
    dice, states = random.Random(9), Counter()
    for case in CASES:
        table = labelgate.load(case.policy).compile(node=None, settings=case.settings, staged=case.staged)
        for version in (4, 6):
            if (block := block_of(case, version, dice)) is None:
                continue
            judge = ClusterJudge(table)
            judged = judge.judge(block)
            for row in range(len(block)):
                assert_connection(table, judge, judged, block, row)
            states.update(STATES[state] for state in judged.state)
    assert set(states) == {"allowed", "denied", "no endpoint"}
    assert states["allowed"] > 100
    assert states["denied"] > 100


def assert_connection(
    table: DecisionTable, judge: ClusterJudge, judged: Any, block: Recorded, row: int
) -> None:
    one = table.connectivity(_packet(block.behind_dnat(), row, "filter-forward"))
    gates = {"egress": one.egress, "ingress": one.ingress}
    passed = {
        why.place: Gate(why.verdict, why.tier, why.policy, why.rule)
        for rows, numbers in judged.visits
        for why in [judge.reasons.all[number] for number in numbers[rows == row]]
    }
    ours = {place: gate for place, gate in gates.items() if gate is not None}
    ct, decider = CT_STATES[block.ct[row]], judged.decider[row]
    state = STATES[judged.state[row]]
    if not ours:
        assert (state, decider, passed) == ("no endpoint", -1, {})
    elif ct == "related":
        assert (state, decider, passed) == ("allowed", -1, {})
    elif ct == "invalid":
        assert (state, judge.reasons.all[decider].reason, passed) == ("denied", "invalid (E-20.2)", {})
    else:
        assert (state, passed) == ("denied" if one.verdict == "deny" else "allowed", ours)
        why = judge.reasons.all[decider]
        first = next((place for place, gate in ours.items() if gate.verdict == "deny"), [*ours][-1])
        assert (why.place, Gate(why.verdict, why.tier, why.policy, why.rule)) == (first, ours[first])


def assert_same(
    table: DecisionTable, judge: NodeJudge, judged: Any, block: Recorded, row: int, way: tuple[Any, Any]
) -> None:
    packet = _packet(block, row, HOOKS[0])
    fields = {name: getattr(packet, name) for name in packet.__dataclass_fields__}
    fields |= {"in_": way[0], "out": way[1], "ct": CT_STATES[block.ct[row]]}
    to = Destination(block.address(block.target, row), int(block.target_port[row]))
    dnat = to if block.translated[row] else None
    visits = list(walk(table.decide_packet, Packet(**fields), dnat, way[1]))
    denied = visits[-1].answer.verdict == "deny"
    assert (judged.state[row] in (DENIED, SPOOFED)) == denied
    why = judge.reasons.all[judged.decider[row]]
    assert (judged.state[row] == SPOOFED) == (why.reason == "source is not the workload's (E-30)")
    said = [visit for visit in visits if visit.answer.verdict != "continue"]
    asking = next(visit for visit in visits if visit.packet.hook.startswith("filter") or visit in said)
    if asking.packet.dnatted or way == LOOP:  # E-37, E-47
        asking = visits[-1]
    decisive = said[-1] if said else asking
    answer = decisive.answer
    assert why == (
        decisive.packet.hook, answer.verdict, answer.tier, answer.policy, answer.rule, answer.reason
    )  # fmt: skip
    if judged.state[row] == NO_ENDPOINT:
        assert answer.endpoint is None
