"""`labelgate diff` over nodes: whose settings apply, which sources may be used, who is named and asked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from click.testing import CliRunner
from labelgate.analysis import changes
from labelgate.analysis.addresses import complement, contains, edges_of_networks, points
from labelgate.analysis.diff import diff
from labelgate.analysis.diff_report import lines
from labelgate.analysis.naming import Names
from labelgate.analysis.regions import Region
from labelgate.cli import cli
from labelgate.flow import VERDICTS
from labelgate.resources import load_text
from labelgate.settings import Failsafe, Settings
from labelgate.snapshot import Snapshot

CALICO = "projectcalico.org/v3"


def calico(kind, name, spec, **metadata):
    return {"apiVersion": CALICO, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def workload(name, node, nets, spoofed=(), **labels):
    spec = {
        "orchestrator": "k8s", "workload": name, "node": node, "endpoint": "eth0",
        "interfaceName": f"cali{name}", "ipNetworks": list(nets),
        "allowSpoofedSourcePrefixes": list(spoofed), "profiles": ["projectcalico-default-allow"],
    }  # fmt: skip
    return calico("WorkloadEndpoint", name, spec, namespace="shop", labels=labels)


def host(name, node, *addresses, interface="eth0"):
    spec = {"node": node, "expectedIPs": list(addresses)}
    spec |= {"interfaceName": interface} if interface else {}
    return calico("HostEndpoint", name, spec, labels={"role": "edge"})


def felix(name, **spec):
    return calico("FelixConfiguration", name, spec)


def hosts_policy(*ports):
    rule = {"action": "Allow", "protocol": "TCP", "destination": {"ports": list(ports)}}
    spec = {"selector": "role == 'edge'", "types": ["Ingress"], "ingress": [rule]}
    return calico("GlobalNetworkPolicy", "hosts", spec)


def text(documents):
    return "\n---\n".join(map(json.dumps, documents))


def snapshot(*documents):
    return Snapshot.of(load_text(text(documents)))


def told(old, new):
    return list(lines(diff(snapshot(*old), snapshot(*new)), examples=False))[:-1]


@pytest.fixture
def run(tmp_path):
    def run(old, new, *options):
        for name, documents in (("old.yaml", old), ("new.yaml", new)):
            (tmp_path / name).write_text(text(documents))
        arguments = ["diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), "--no-examples"]
        return CliRunner().invoke(cli, [*arguments, *options])

    return run


PAIR = (workload("w1", "n1", ["10.65.0.2/32"]), workload("w2", "n2", ["10.65.0.3/32"]))


def test_settings_of_one_node_change_its_workloads_and_no_others(run):
    result = run(PAIR, [*PAIR, felix("node.n2", vxlanPort=9999)])
    assert result.stdout.splitlines() == [
        "~ n2: setting workload_vxlan_port changes from 4789 to 9999",
        "+ WorkloadEndpoint/shop/w2 gains egress to every IPv4 address udp 4789",
        "- WorkloadEndpoint/shop/w2 loses egress to every IPv4 address udp 9999",
        "3 changes, 1 of them let more through",
    ]
    assert result.exit_code == 4


def test_what_changes_for_every_node_but_one_is_told_of_the_others(run):
    own = felix("node.n1", vxlanPort=9999)
    old, new = [*PAIR, own], [*PAIR, own, felix("default", vxlanPort=9999)]
    assert run(old, new).stdout.splitlines()[:2] == [
        "~ n2: setting workload_vxlan_port changes from 4789 to 9999",
        "+ WorkloadEndpoint/shop/w2 gains egress to every IPv4 address udp 4789",
    ]


def test_a_node_without_endpoints_has_settings_too(run):
    result = run(PAIR, [*PAIR, felix("node.n3", defaultEndpointToHostAction="Accept")])
    assert result.stdout.splitlines()[0] == "+ n3: setting endpoint_to_host changes from Drop to Accept"
    assert result.exit_code == 4


def test_a_workload_that_moves_has_the_settings_of_its_node_then_and_now(run):
    own = felix("node.n2", vxlanPort=9999)
    moved = workload("w1", "n2", ["10.65.0.2/32"])
    assert run([*PAIR, own], [moved, PAIR[1], own]).stdout.splitlines()[:2] == [
        "+ WorkloadEndpoint/shop/w1 gains egress to every IPv4 address udp 4789",
        "- WorkloadEndpoint/shop/w1 loses egress to every IPv4 address udp 9999",
    ]


def test_settings_of_the_machine_it_runs_on_are_not_those_of_the_cluster(run, monkeypatch):
    monkeypatch.setattr("labelgate.config.host_name", lambda: "n1")
    nowhere = workload("w0", "n9", ["10.65.0.9/32"])
    result = run([nowhere], [nowhere, felix("node.n1", vxlanPort=9999)])
    assert result.stdout.splitlines() == [
        "~ n1: setting workload_vxlan_port changes from 4789 to 9999",
        "1 change, 0 of them let more through",
    ]


SOURCES = {
    4: [*map(ip_address, ("10.65.0.2", "10.65.0.3", "10.9.0.1", "10.200.0.1", "8.8.8.8"))],
    6: [*map(ip_address, ("::", "::1", "fe80::1", "febf::1", "fec0::1", "fd00::2", "fd00:9::1", "2a00::1"))],
}


@pytest.mark.parametrize("node", [None, "n1"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((["10.65.0.2/32"], []), (["10.65.0.2/32"], ["10.0.0.0/8"])),
        ((["10.65.0.2/32"], ["10.9.0.0/16", "8.0.0.0/8"]), (["10.65.0.3/32"], ["10.200.0.0/16"])),
        ((["10.65.0.2/32", "fd00::2/128"], ["::/0"]), (["10.65.0.2/32", "fd00::2/128"], ["fd00:9::/64"])),
    ],
)
def test_every_change_of_the_sources_that_a_workload_may_use(old, new, node):
    sides = [snapshot(workload("w1", "n1", *one)) for one in (old, new)]
    found = [one for one in diff(*sides, node=node).changes if one.kind == "spoof"]
    for family, addresses in SOURCES.items():
        numbers = points(family, [int(one) for one in addresses])
        denied = []
        for side in sides:
            if family == 4:
                src = numbers.astype(np.uint32)
            else:
                src = np.array([list(one.packed) for one in addresses], np.uint8)
            ones = np.ones(len(addresses), np.uint16)
            verdicts, _ = side.compile(node="n1").decide_batch(
                "raw-prerouting", src, src, np.full(len(ones), 6, np.uint8), ones, ones, in_="caliw1"
            )
            denied.append([VERDICTS[one] == "deny" for one in verdicts])
        for index, (before, after) in enumerate(zip(*denied, strict=True)):
            here = [one.new for one in found if contains(one.own.edges[family], numbers)[index]]
            expected = [] if before == after else ["deny" if after else "continue"]
            assert here == expected, addresses[index]
    assert found


def test_a_wider_source_check_is_told(run):
    spoofing = workload("w1", "n1", ["10.65.0.2/32"], ["10.0.0.0/8"])
    result = run(PAIR, [spoofing, PAIR[1]])
    assert result.stdout.splitlines()[0] == (
        "+ WorkloadEndpoint/shop/w1 gains egress as 10.0.0.0/8 but WorkloadEndpoint/shop/w1 "
        "to every IPv4 address every protocol (spoof: deny -> continue)"
    )
    assert result.exit_code == 4


def test_a_name_stands_for_all_addresses_that_it_has():
    apps = {"w1": "web", "w2": "web", "w3": "db"}
    names = Names(snapshot(*(
        workload(name, "n1", [f"10.65.0.{at}/32", f"fd00::{at}/128"], app=app)
        for at, (name, app) in enumerate(apps.items(), 1)
    )))  # fmt: skip

    def peers(*nets):
        return names.peers(Region(*(edges_of_networks(one, map(ip_network, nets)) for one in (4, 6))))

    assert peers("10.65.0.3/32", "fd00::3/128") == "WorkloadEndpoint/shop/w3"
    assert peers("10.65.0.3/32") == "WorkloadEndpoint/shop/w3 (10.65.0.3)"
    assert peers("fd00::3/128") == "WorkloadEndpoint/shop/w3 (fd00::3)"
    assert peers("10.65.0.1/32", "10.65.0.2/32") == "workloads app=web (IPv4 addresses)"
    assert peers("10.65.0.1/32", "10.65.0.2/32", "fd00::1/128", "fd00::2/128") == "workloads app=web"
    assert peers("10.65.0.1/32", "fd00::1/128", "fd00::2/128") == (
        "WorkloadEndpoint/shop/w1, WorkloadEndpoint/shop/w2 (fd00::2)"
    )


def test_each_of_a_list_has_its_family():
    """At the end alone it was that of the last one."""
    names = Names(snapshot(*(
        workload(f"w{at}", "n1", [f"10.65.0.{at}/32", f"fd00::{at}/128"], app="one" if at < 3 else f"app{at}")
        for at in range(1, 8)
    )))  # fmt: skip

    def peers(*last):
        return names.peers(
            Region.of(4, edges_of_networks(4, [ip_network(f"10.65.0.{at}/32") for at in last]))
        )

    w3, w4, w5 = (f"WorkloadEndpoint/shop/w{at} (IPv4 addresses)" for at in (3, 4, 5))
    assert peers(3, 4) == f"{w3}, {w4}"
    assert peers(3, 4, 5, 6, 7) == f"{w3}, {w4}, {w5} and 2 more (IPv4 addresses)"


def test_some_of_the_addresses_of_a_family_are_listed():
    names = Names(snapshot(workload("w1", "n1", ["10.65.0.1/32", "10.65.0.7/32"])))
    region = Region.of(4, edges_of_networks(4, [ip_network("10.65.0.7/32")]))
    assert names.peers(region) == "WorkloadEndpoint/shop/w1 (10.65.0.7)"


def test_what_is_left_out_of_one_family_needs_no_addresses():
    names = Names(snapshot(workload("w1", "n1", ["10.65.0.1/32", "fd00::1/128"])))
    rest = Region.of(4, edges_of_networks(4, [ip_network("10.65.0.1/32")])).rest()
    assert names.peers(rest) == "every IPv4 address but WorkloadEndpoint/shop/w1"


def test_what_is_left_out_of_everywhere_has_its_addresses_where_it_is_part_of_it():
    """Its other family gains, too: without its address the line would say that it does not."""
    names = Names(snapshot(workload("w1", "n1", ["10.65.0.1/32", "fd00::1/128"])))
    v4, v6 = (
        edges_of_networks(one.version, [one]) for one in map(ip_network, ("10.65.0.1/32", "fd00::1/128"))
    )
    but_v6 = Region(edges_of_networks(4, [ip_network("0.0.0.0/0")]), complement(v6))
    assert names.peers(but_v6) == "everywhere but WorkloadEndpoint/shop/w1 (fd00::1)"
    assert names.peers(Region(complement(v4), complement(v6))) == "everywhere but WorkloadEndpoint/shop/w1"


def test_examples_come_from_addresses_that_the_workload_may_use():
    """E-30: a class of addresses has those of others too, and the first one of a net may lie in another."""

    def policy(action):
        first = {"action": action, "source": {"nets": ["1.0.0.0/8", "10.9.5.0/24"]}}
        spec = {"selector": "all()", "types": ["Egress"], "egress": [first, {"action": "Allow"}]}
        return calico("GlobalNetworkPolicy", "out", spec)

    one = workload("w1", "n1", ["10.65.0.2/32"], ["10.9.0.0/16"])
    [change] = diff(snapshot(one, policy("Allow")), snapshot(one, policy("Deny"))).changes
    assert ip_address(change.example.packet["src"]) in ip_network("10.9.5.0/24")


def example_ends(old, new):
    """Source and destination of the first example."""
    packet = diff(snapshot(*old), snapshot(*new)).changes[0].example.packet
    return packet["src"], packet["dst"]


def test_examples_have_addresses_that_a_host_could_have():
    old, new = hosts_policy(80), hosts_policy(443)
    assert example_ends([ANY, old], [ANY, new]) == ("198.51.100.1", "192.0.2.1")
    assert example_ends([ANY, INNER, old], [ANY, old]) == ("192.0.2.1", "10.9.0.10")
    alone = host("h1", "n1", "10.9.0.10")
    assert example_ends([alone, old], [alone, new]) == ("192.0.2.1", "10.9.0.10"), "not to itself"
    spoofing = workload("w1", "n1", ["10.65.0.2/32"], ["10.0.0.0/8"])
    denied = calico("GlobalNetworkPolicy", "out", {"selector": "all()", "types": ["Egress"]})
    assert example_ends([spoofing], [spoofing, denied]) == ("10.65.0.2", "192.0.2.1")


@pytest.mark.parametrize(
    ("net", "address"),
    [("10.65.0.0/31", "10.65.0.1"), ("10.9.0.0/16", "10.9.0.1"), ("0.0.0.0/0", "192.0.2.1")],
)
def test_an_example_of_a_net_is_a_host_in_it(net, address):
    rule = {"action": "Allow", "source": {"nets": [net]}}
    spec = {"selector": "role == 'edge'", "types": ["Ingress"], "ingress": [rule]}
    alone = host("h1", "n1", "10.9.0.10")
    assert example_ends([alone], [alone, calico("GlobalNetworkPolicy", "in", spec)])[0] == address


def test_a_host_endpoint_without_interface_is_the_same_with_other_addresses():
    old, new = (
        [host("h1", "n1", one, interface=None), hosts_policy(443)] for one in ("10.0.0.1", "10.0.0.9")
    )
    assert told(old, new) == []
    assert told(old, [new[0], hosts_policy(80)]) == [
        "+ HostEndpoint/h1 gains ingress from everywhere tcp 80 (normal: deny -> allow)",
        "- HostEndpoint/h1 loses ingress from everywhere tcp 443 (normal: allow -> deny)",
    ]


def test_host_endpoints_that_swap_addresses_are_all_asked_about():
    def world(first, second, port):
        return [host("h1", "n1", first, interface=None), host("h2", "n1", second, interface=None),
                hosts_policy(port)]  # fmt: skip

    ends = ("10.0.0.1", "10.0.0.9")
    found = diff(snapshot(*world(*ends, 443)), snapshot(*world(*reversed(ends), 80)))
    assert {name for one in found.changes for name in one.endpoints} == {
        "HostEndpoint/h1 on the interface with 10.0.0.9",
        "HostEndpoint/h2 on the interface with 10.0.0.1",
    }


ANY = host("any", "n1", interface="*")
UNNAMED = {"node": "n1", "expectedIPs": ["10.9.0.10"]}
INNER = calico("HostEndpoint", "inner", UNNAMED, labels={"role": "inner"})


def prednat(name, role, port):
    rule = {"action": "Deny", "protocol": "TCP", "destination": {"ports": [port]}}
    spec = {"selector": f"role == '{role}'", "preDNAT": True, "applyOnForward": True, "types": ["Ingress"],
            "ingress": [rule]}  # fmt: skip
    return calico("GlobalNetworkPolicy", name, spec)


def test_an_interface_known_by_its_address_is_named_where_another_comes_to_govern_it(run):
    old, new = (ANY, INNER, hosts_policy(80)), (ANY, hosts_policy(80))
    where = "HostEndpoint/any on the interface with 10.9.0.10"
    assert told(old, new) == [f"+ {where} gains ingress from everywhere tcp 80 (normal: deny -> allow)"]
    [change] = json.loads(run(old, new, "-o", "json").stdout)["changes"]
    assert change["endpoints"] == [where]
    assert change["example"]["packet"]["in"] == "the interface with 10.9.0.10"
    assert told(new, old)[0].startswith("- HostEndpoint/inner ")


def test_places_of_one_host_endpoint_that_change_in_other_ways_are_told_apart():
    assert told([ANY, INNER, hosts_policy(80)], [ANY, hosts_policy(80, 443)]) == [
        "+ HostEndpoint/any gains ingress from everywhere tcp 443 (normal: deny -> allow)",
        "+ HostEndpoint/any on the interface with 10.9.0.10 gains ingress from everywhere tcp 80,443 "
        "(normal: deny -> allow)",
    ]


def test_prednat_policy_of_all_interfaces_takes_over_where_there_is_none_of_its_own():
    """E-47."""
    everywhere, own = prednat("everywhere", "edge", 9100), prednat("own", "inner", 9200)
    where = "HostEndpoint/any on the interface with 10.9.0.10"
    assert told([ANY, INNER, everywhere, own], [ANY, INNER, everywhere]) == [
        f"+ {where} gains ingress from everywhere tcp 9200 (preDNAT: deny -> continue)",
        f"- {where} loses ingress from everywhere tcp 9100 (preDNAT: continue -> deny)",
    ]


def test_a_host_endpoint_for_all_interfaces_is_there_before_it_has_prednat_policy():
    guard = prednat("guard", "edge", 9100)
    change = "HostEndpoint/any {} ingress from everywhere tcp 9100 (preDNAT: {})"
    assert told([ANY], [ANY, guard]) == ["- " + change.format("loses", "continue -> deny")]
    assert told([ANY, guard], [ANY]) == ["+ " + change.format("gains", "deny -> continue")]


def presences(old, new):
    found = diff(snapshot(*old), snapshot(*new)).changes
    return {(name, one.presence) for one in found for name in one.endpoints}


def test_presence_is_of_the_host_endpoint_and_not_of_who_governs_an_interface():
    policy = hosts_policy(80)
    eth0, eth1 = (host("h1", "n1", interface=name) for name in ("eth0", "eth1"))
    assert presences([eth0], [eth1]) == {
        ("HostEndpoint/h1 on eth0", "both"),
        ("HostEndpoint/h1 on eth1", "both"),
    }
    assert presences([eth0], []) == {("HostEndpoint/h1", "old")}
    assert presences([ANY, INNER, policy], [ANY, policy]) == {
        ("HostEndpoint/any on the interface with 10.9.0.10", "both")
    }
    assert presences([ANY, policy], [ANY, INNER, policy]) == {("HostEndpoint/inner", "new")}


@pytest.fixture
def asked(monkeypatch):
    """How many places are cut into classes, of both families."""
    found = []
    cut = changes.changes_of
    monkeypatch.setattr(
        "labelgate.analysis.diff.changes_of", lambda one, known: found.append(one) or cut(one, known)
    )
    return found


def test_equal_host_endpoints_of_many_nodes_are_asked_about_once(asked):
    hosts = [host(f"h{at}", f"n{at}", f"10.0.0.{at}") for at in range(1, 6)]
    found = told([*hosts, hosts_policy(443)], [*hosts, hosts_policy(80)])
    assert found[0] == "+ all host endpoints gain ingress from everywhere tcp 80 (normal: deny -> allow)"
    assert len(asked) == 1


def test_nodes_with_other_settings_are_asked_about_apart(asked):
    hosts = [host(f"h{at}", f"n{at}", f"10.0.0.{at}") for at in range(1, 4)]
    settings = [Settings(), Settings(failsafe_inbound=(Failsafe(6, 80),)), Settings()]
    found = diff(
        snapshot(*hosts, hosts_policy(443)),
        snapshot(*hosts, hosts_policy(80)),
        settings_of=lambda _, node: settings[1] if node == "n2" else settings[0],
    )
    assert len(asked) == 2
    gains = [one for one in found.changes if one.widens]
    assert {name for one in gains for name in one.endpoints} == {"HostEndpoint/h1", "HostEndpoint/h3"}


def test_failsafe_ports_with_nets_are_the_same_in_both_states(asked):
    one = snapshot(host("h1", "n1", "10.0.0.1"))
    entry = Failsafe(6, 22, ip_network("10.0.0.0/8"))
    settings = replace(Settings(), failsafe_inbound=(entry,))
    assert not diff(one, one, settings_of=lambda *_: settings)
    assert asked == []


def test_labels_of_one_endpoint_alone_cost_nothing(monkeypatch):
    many = [
        workload(f"w{at}", "n1", [f"10.65.{at // 250}.{at % 250 + 1}/32"], app=f"a{at % 3}", own=f"o{at}")
        for at in range(300)
    ]
    names = Names(snapshot(*many))
    looked_up = []
    having = Names._having
    monkeypatch.setattr(
        Names, "_having", lambda self, *found: looked_up.append(found) or having(self, *found)
    )
    wanted = [f"WorkloadEndpoint/shop/w{at}" for at in range(300) if at % 3 < 2]
    assert names.group(wanted) == "workloads app=a0 or app=a1"
    assert len(looked_up) < 10


def test_a_child_process_compares_too() -> None:
    """Threads that its parent has compared with are not there."""
    code = """
import os, signal
from importlib.resources import files
import labelgate
from labelgate.analysis.diff import diff

policy = labelgate.load(files("labelgate") / "examples" / "02-host-endpoint.yaml")
assert not diff(policy, policy)
if (child := os.fork()) == 0:
    signal.alarm(60)  # It does not outlive who asks.
    os._exit(7 if not diff(policy, policy) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
