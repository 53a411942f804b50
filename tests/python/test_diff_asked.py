"""`labelgate diff` as it is asked: nodes, host facts, odd input; tables; endpoints without labels."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner
from labelgate.analysis import changes
from labelgate.analysis.diff import Difference, diff
from labelgate.analysis.judged import Comparison
from labelgate.analysis.reach import port_service, reach
from labelgate.cli import cli
from labelgate.resources import LoadError, load_text
from labelgate.snapshot import Snapshot
from random_world import Dice
from test_diff import edited
from test_diff_scopes import PAIR, calico, host, hosts_policy, snapshot, text, workload

NODES = (host("h1", "n1", "192.0.2.1"), host("h2", "n2", "192.0.2.2"))


@pytest.fixture
def run(tmp_path):
    def run(old, new, *options, facts=None):
        paths = [tmp_path / name for name in ("old.yaml", "new.yaml", "host.yaml")]
        for path, documents in zip(paths, (old, new), strict=False):
            path.write_text(documents if isinstance(documents, str) else text(documents))
        if facts is not None:
            paths[2].write_text(json.dumps(facts))
            options = (*options, "--host", str(paths[2]))
        return CliRunner().invoke(cli, ["diff", *map(str, paths[:2]), "--no-examples", *options])

    return run


OLD, NEW = (*NODES, *PAIR, hosts_policy(80)), (*NODES, *PAIR, hosts_policy(80, 443))


def test_node_asks_about_its_endpoints_only(run):
    assert run(OLD, NEW).stdout.splitlines()[0].startswith("+ all host endpoints gain ingress")
    alone = run(OLD, NEW, "--node", "n2")
    assert alone.stdout.splitlines()[0].startswith("+ HostEndpoint/h2 gains ingress")
    assert "h1" not in alone.stdout
    moved = (workload("w1", "n2", ["10.65.0.2/32"]), PAIR[1])
    assert "Pod" not in run(PAIR, moved, "--node", "n2").stdout
    assert "WorkloadEndpoint/shop/w1 (only in NEW)" in run(PAIR, moved, "--node", "n2").stdout
    assert "WorkloadEndpoint/shop/w1 (only in OLD)" in run(PAIR, moved, "--node", "n1").stdout


def test_a_node_that_nobody_is_on_is_a_mistake(run):
    result = run(OLD, NEW, "--node", "n3")
    assert result.exit_code == 2
    mistake = "node: found `n3`, expected one that an endpoint is on: n1, n2"
    assert mistake in result.output
    with pytest.raises(ValueError, match=f"^{mistake}$"):
        diff(snapshot(*OLD), snapshot(*NEW), node="n3")
    with pytest.raises(ValueError, match="found `n1`, expected one that an endpoint is on: none"):
        diff(snapshot(), snapshot(hosts_policy(80)), node="n1")


def test_host_facts_say_which_interfaces_there_are(run):
    bare = (NODES[1], host("h1", "n1", "192.0.2.1", interface=None))
    by_address = [(*bare, hosts_policy(*ports)) for ports in ((80,), (80, 443))]
    facts = {"node": "n1", "interfaces": {"ens5": ["192.0.2.1"]}}
    found = json.loads(run(*by_address, "-o", "json", facts=facts).stdout)["changes"]
    assert {one["example"]["packet"]["in"] for one in found} == {"ens5"}
    assert [one["endpoints"] for one in found] == [["HostEndpoint/h1 on ens5"]]
    elsewhere = facts | {"interfaces": {"ens5": ["192.0.2.9"]}}
    assert run(*by_address, facts=elsewhere).stdout == "no verdict changes\n", "nobody has its address"


def test_workload_prefixes_of_host_facts_count(run):
    tap = host("h1", "n1", "192.0.2.1", interface="tap0")
    named = [(tap, hosts_policy(port)) for port in (80, 81)]
    facts = {"node": "n1", "interfaces": {"tap0": ["192.0.2.1"]}}
    assert run(*named, facts=facts).exit_code == 4
    assert run(*named, facts=facts | {"workloadPrefixes": ["tap"]}).exit_code == 0


def test_host_facts_need_a_node(run):
    result = run(OLD, NEW, facts={"interfaces": {}})
    assert result.exit_code == 2
    assert "--host is of one node" in result.output


def test_what_is_empty_is_told_of(run):
    result = run(OLD, "")
    assert "new.yaml has no resources: is it the right path?" in result.stderr
    assert result.exit_code == 1 or "+" in result.stdout
    alone = run([hosts_policy(80)], [hosts_policy(443)])
    assert "there is no endpoint in OLD or NEW" in alone.stderr
    assert (alone.exit_code, alone.stdout) == (0, "no verdict changes\n")
    assert run(OLD, NEW).stderr == ""


def test_broken_states_are_told_with_their_place(run):
    result = run(OLD, "kind: [")
    assert isinstance(result.exception, LoadError)
    assert "new.yaml:1:" in str(result.exception)


def test_standard_input_is_one_state():
    result = CliRunner().invoke(cli, ["diff", "-", "-"])
    assert result.exit_code == 2
    assert "OLD and NEW are both `-`" in result.output


def test_a_difference_is_a_table():
    found = diff(snapshot(*OLD), snapshot(*NEW))
    rows = found.to_numpy()
    (row,) = rows
    assert (rows.dtype["widens"], rows.dtype["count"]) == (np.bool_, np.uint32)
    assert row["endpoints"] == "all host endpoints"
    assert (row["services"], row["old"], row["new"]) == ("tcp 443", "deny", "allow")
    assert (row["count"], row["widens"], row["own"]) == (2, True, None)
    assert found.to_pandas().loc[0, "services"] == "tcp 443"
    assert "tcp 443" in found._repr_html_()
    assert repr(found) == "Difference(1 change, 1 of them let more through)"


def test_no_difference_is_an_empty_table():
    found = diff(snapshot(*OLD), snapshot(*OLD))
    assert len(found.to_numpy()) == 0
    assert len(found.to_pandas()) == 0
    assert "no verdict changes" in found._repr_html_()


def test_reach_is_a_table():
    found = reach(snapshot(*PAIR), services=port_service(6, 80))
    rows = {(row["from"], row["to"]): row["services"] for row in found.to_numpy()}
    assert rows["WorkloadEndpoint/shop/w1", "WorkloadEndpoint/shop/w2"] == "tcp 80"
    assert len(found.to_pandas()) == len(rows) == int(found.allowed.any(axis=2).sum())
    assert "WorkloadEndpoint/shop/w1" in found._repr_html_()
    assert "of 6 pairs of 3 peers reach each other" in repr(found)


def without_labels(action):
    """A rule about peers that have no label `app`: also w1, never an address outside (M-20)."""
    rule = {"action": action, "protocol": "TCP", "source": {"selector": "!has(app)"}}
    spec = {"selector": "!has(app)", "types": ["Ingress"], "ingress": [rule]}
    return calico("GlobalNetworkPolicy", "bare", spec)


BARE = (
    workload("w1", "n1", ["10.65.0.2/32"]),
    workload("w2", "n2", ["10.65.0.3/32"], app="web"),
    workload("w3", "n2", ["10.65.0.4/32"]),
)


def test_endpoints_without_labels_are_selected_and_addresses_outside_are_not():
    old, new = (snapshot(*BARE, without_labels(action)) for action in ("Deny", "Allow"))
    (change,) = diff(old, new).changes
    assert change.endpoints == {"WorkloadEndpoint/shop/w1", "WorkloadEndpoint/shop/w3"}
    assert [str(net) for net in change.peers.networks] == ["10.65.0.2/32", "10.65.0.4/32"]
    found = reach(new, services=port_service(6, 80))
    names = [one.name.rpartition("/")[2] for one in found.peers]
    reached = {names[to]: {names[at] for at in np.flatnonzero(found.allowed[:, to, 0])} for to in range(3)}
    assert reached["w1"] - {"w1"} == {"w3"}
    assert reached["w3"] - {"w3"} == {"w1"}
    assert len(reached["w2"] - {"w2"}) == len(names) - 1, "no policy selects it"


def said(found: Difference) -> list[tuple[object, ...]]:
    """What is said of host endpoints, one by one."""
    return sorted(
        (
            name, one.kind, one.direction, one.presence, one.old, one.new, one.services.text(),
            str(one.own and one.own.networks), str(one.peers.networks),
        )
        for one in found.changes if one.kind not in ("workload", "spoof") for name in one.endpoints
    )  # fmt: skip


def both_states(dice):
    """Of a world and an edit of it; some worlds are refused, and drawn again."""
    for _ in range(100):
        first = dice.world().documents
        with suppress(LoadError):
            return [Snapshot.of(load_text(text(documents))) for documents in (first, edited(dice, first))]
    raise AssertionError("a hundred worlds were refused")


@pytest.mark.parametrize("seed", range(8))
def test_a_cluster_is_its_nodes(seed):
    """Host endpoints are judged alike with all nodes at once and node by node."""
    both = both_states(Dice(Random(seed)))
    nodes = sorted({*both[0].nodes(), *both[1].nodes()})
    apart = [row for node in nodes for row in said(diff(*both, node=node))]
    assert said(diff(*both)) == sorted(apart)


def test_changes_share_the_pieces_of_their_services(monkeypatch):
    """Each has most of them: made for each change they would be as many as both multiplied, and be kept."""

    def policy(action):
        rules = [
            {
                "action": action,
                "protocol": "TCP",
                "source": {"nets": [f"10.0.{number}.0/24"]},
                "destination": {"notPorts": [number * 3 + 1]},
            }
            for number in range(20)
        ]
        return calico(
            "GlobalNetworkPolicy", "in", {"selector": "all()", "types": ["Ingress"], "ingress": rules}
        )

    asked, found = Comparison.changes, []
    monkeypatch.setattr(Comparison, "changes", lambda self: found.append(asked(self)) or found[-1])
    assert len(diff(*(snapshot(*PAIR, policy(action)) for action in ("Allow", "Deny"))).changes) == 20
    [some] = found
    pieces = [piece for change in some for piece in change[5]]
    assert len(pieces) > 15 * len(set(pieces))
    assert len(set(map(id, pieces))) == len(set(pieces))
    kept = (changes._region, changes._services, changes._piece)
    assert not any(one.cache_info().currsize for one in kept)
