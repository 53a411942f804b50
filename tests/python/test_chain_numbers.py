"""Programs of many nodes from one compiler, and chains of two programs that decide alike."""

from __future__ import annotations

import json
from random import Random

import pytest
from labelgate import Settings, Snapshot, _core
from labelgate.model import core_model
from labelgate.resources import LoadError, load_text
from random_world import Dice


def snapshots(count: int) -> list[Snapshot]:
    found: list[Snapshot] = []
    for seed in range(count):
        documents = Dice(Random(seed)).world().documents
        try:
            found.append(Snapshot.of(load_text("\n---\n".join(map(json.dumps, documents)))))
        except LoadError:
            continue
    return found


def test_a_compiler_enforces_one_node_after_the_other() -> None:
    """What was enforced before leaves no trace, and edits follow the last."""
    seen = 0
    for snapshot in snapshots(4):
        model = core_model(snapshot, Settings())
        core = _core.Compiler(model, "edge1")
        for node in (None, "edge1", "edge2", "nowhere", None, "edge1"):
            assert str(core.enforce(node)) == str(_core.compile(model, node))
            assert str(core.apply(b"[]")) == str(_core.compile(model, node))
            seen += 1
    assert seen > 6


def test_chains_that_decide_alike_have_one_number() -> None:
    rule = {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}}
    log = {"action": "Log"}

    def numbers(known: _core.ChainNumbers, *rules: object, address: str = "10.0.0.7") -> list[int]:
        policy = {
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "web" if rules else "none"},
            "spec": {"selector": "app == 'db'", "ingress": rules, "types": ["Ingress"]},
        }  # fmt: skip
        pods = [
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
                "spec": {"nodeName": "edge1", "containers": []}, "status": {"podIP": ip},
            }
            for name, ip in (("db", "10.0.0.1"), ("web", address))
        ]  # fmt: skip
        snapshot = Snapshot.of(load_text("\n---\n".join(map(json.dumps, [policy, *pods]))))
        program = snapshot.compile(node=None).program
        found = known.of(program)
        endpoints = json.loads(program.contents())["endpoints"]
        return [found[endpoints[0]["normal"][way]] for way in (0, 1)]

    known = _core.ChainNumbers()
    first = numbers(known, rule)
    assert first == numbers(known, rule) == numbers(known, log, rule), "Log decides nothing"
    for other in (
        numbers(known, rule, {"action": "Deny"}),
        numbers(known, rule | {"action": "Deny"}),
        numbers(known, rule | {"protocol": "UDP"}),
        numbers(known, rule, address="10.0.0.8"),
        numbers(known),
    ):
        assert other[0] != first[0]
        assert other[1] == first[1], "egress is as it was"


def test_chains_name_every_rule_list() -> None:
    program = snapshots(4)[0].compile(node="edge1").program
    contents, lists = json.loads(program.contents()), json.loads(program.rule_lists())
    assert contents["lists"] == len(lists) > 3
    named = {at for chain in contents["chains"] for tier in chain["tiers"] for at in tier["lists"]}
    named |= {at for chain in contents["chains"] for at in chain["profiles"]}
    assert named == {*range(len(lists))}


def test_pairs_of_tables_refuse_what_is_not_there() -> None:
    table = Snapshot().compile(node=None).core
    pair = _core.TablePair(table, table)
    assert pair.interface("normal", False, (None, None), ("filter-input", "eth0")) == []
    with pytest.raises(ValueError, match="chain 0: there are 0"):
        pair.workloads(False, (None, 0), [(None, None)])
    with pytest.raises(ValueError, match="members"):
        pair.workloads(False, (None, None), [(0, None)])
    with pytest.raises(ValueError, match="members"):
        pair.workloads(False, (None, None), [])
    with pytest.raises(ValueError, match="kind: found workload"):
        pair.interface("workload", False, (None, None), ("filter-input", "eth0"))
    with pytest.raises(ValueError, match="nowhere"):
        pair.interface("normal", False, (None, None), ("nowhere", "eth0"))
