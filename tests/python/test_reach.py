"""`labelgate reach` against the reference: every pair of ends, addresses outside among them, one by one."""

from __future__ import annotations

import json
from ipaddress import ip_address
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner
from labelgate.analysis.addresses import contains, points
from labelgate.analysis.reach import port_service, reach
from labelgate.analysis.reach_report import Grid, _shares, grid
from labelgate.cli import cli
from labelgate.flow import Packet
from labelgate.path import walk
from labelgate.reference import Reference
from labelgate.resources import load_text
from labelgate.settings import HostFacts
from labelgate.snapshot import Snapshot
from random_world import V4, V6, Dice
from test_diff import PODS, SPACE, pod

WORLDS = 25
PROBES = {4: [*map(ip_address, V4), ip_address("8.8.8.8")], 6: [*map(ip_address, V6), ip_address("2a00::1")]}


def worlds():
    for seed in range(WORLDS):
        world = Dice(Random(seed)).world()
        yield Snapshot.of(load_text("\n---\n".join(map(json.dumps, world.documents)))), world.settings


def ends(found):
    """Every workload whose address is its own alone, and probes that nobody has: (peer, address)."""
    addresses = [(at, address) for at, one in enumerate(found.peers) for address in everyone(one)]
    known = [address for _, address in addresses]
    yield from (
        (at, address)
        for at, address in addresses
        if found.peers[at].kind == "workload" and known.count(address) == 1
    )
    for family, probes in PROBES.items():
        for probe in probes:
            inside = [
                at
                for at, one in enumerate(found.peers)
                if contains(one.region.edges[family], points(family, [int(probe)]))[0]
            ]
            outside = [at for at in inside if found.peers[at].kind == "outside"]
            assert len(outside) <= 1, "classes outside are disjoint"
            if inside == outside and outside:
                yield outside[0], probe


def everyone(peer):
    if peer.kind != "outside":
        for family, number in peer.addresses.items():
            yield ip_address(number) if family == 4 else ip_address(number.to_bytes(16, "big"))


@pytest.mark.parametrize("port", [80, 443])
def test_every_pair_is_answered_as_the_reference_does(port):
    asked = {True: 0, False: 0}
    for snapshot, settings in worlds():
        found = reach(snapshot, services=port_service(6, port), settings_of=lambda node, one=settings: one)
        literal = Reference(snapshot, "", HostFacts({}), settings)
        answers = {}
        for source, src in ends(found):
            for destination, dst in ends(found):
                kinds = {found.peers[source].kind, found.peers[destination].kind}
                if src.version != dst.version or source == destination or kinds == {"outside"}:
                    continue
                packet = Packet("filter-forward", src, dst, 6, sport=40000, dport=port)
                verdict = literal.connectivity(packet).verdict == "allow"
                answers.setdefault((source, destination), []).append(verdict)
        for pair, verdicts in answers.items():
            if "workload" in {found.peers[at].kind for at in pair} and is_whole(found, pair, verdicts):
                assert found.allowed[*pair, 0] == any(verdicts)
                asked[any(verdicts)] += 1
    assert all(asked.values()), asked


def is_whole(found, pair, verdicts):
    """Whether both families that two ends have in common were asked, or one says yes."""
    common = set.intersection(*(set(found.peers[at].addresses) for at in pair))
    return any(verdicts) or len(verdicts) >= len(common)


HOST_WORLD = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0, expectedIPs: [198.51.100.10]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec:
  selector: role == 'edge'
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: [9100]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early}
spec:
  selector: role == 'edge'
  preDNAT: true
  applyOnForward: true
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [192.0.2.0/24]}, destination: {ports: [30000]}}
  - {action: Deny, protocol: TCP, source: {nets: [203.0.113.7/32]}}
"""


def reached(ports, text):
    """Who reaches the host on a port."""
    found = {}
    for port in ports:
        answers = reach(Snapshot.of(load_text(text)), services=port_service(6, port))
        (host,) = answers.matching("HostEndpoint/edge")
        found[port] = {peer.name for at, peer in enumerate(answers.peers) if answers.allowed[at, host, 0]}
    return found


def test_a_host_is_judged_at_every_hook_on_the_way():
    everyone = {"192.0.2.0/24", "203.0.113.7", "rest of the world (IPv4)"}
    found = reached((22, 9100, 30000, 80), HOST_WORLD)
    nets = next(name for name in found[9100])
    assert found[22] >= everyone, "a failsafe port"
    assert found[9100] == {nets}
    assert nets.startswith("203.0.113.0"), "all of its net but the denied one"
    assert found[30000] == {"192.0.2.0/24"}, "preDNAT policy goes ahead of normal policy (E-48)"
    assert found[80] == set()


@pytest.mark.parametrize(
    ("cidrs", "names"),
    [
        (["224.0.0.0/3"], {"224.0.0.0/3", "rest of the world (IPv4)"}),
        (["255.255.255.255/32"], {"255.255.255.255", "rest of the world (IPv4)"}),
        (["0.0.0.0/0", "224.0.0.0/3"], {"224.0.0.0/3", "rest of the world (IPv4)"}),
        (["0.0.0.0/1", "128.0.0.0/1"], {"every IPv4 address but 128.0.0.0/1, Pod/shop/web-1", "128.0.0.0/1"}),
    ],
)
def test_the_rest_of_the_world_is_what_no_rule_names(cidrs, names):
    policy = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k, namespace: shop}\nspec:\n"
    )
    policy += "  podSelector: {}\n  egress:\n"
    for port, cidr in enumerate(cidrs, 1):
        policy += f"  - {{to: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: {port}}}]}}\n"
    text = "\n---\n".join([SPACE, pod("web-1", "web", "10.65.0.2"), policy])
    found = reach(Snapshot.of(load_text(text)), services=port_service(6, 80))
    assert {peer.name for peer in found.peers if peer.kind == "outside"} == names


def test_a_host_reaches_its_own_workloads_and_they_reach_it_as_a_setting_says():
    deny = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: closed}\n"
    deny += "spec: {selector: app == 'web', types: [Ingress]}\n"
    text = "\n---\n".join([HOST_WORLD, SPACE, pod("web-1", "web", "10.65.0.2"), deny])
    found = reach(Snapshot.of(load_text(text)), services=port_service(6, 80))
    (host,), (web,) = found.matching("HostEndpoint/edge"), found.matching("shop/web-1")
    assert found.allowed[host, web, 0], "E-36"
    assert not found.allowed[web, host, 0], "E-50"
    felix = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: node.edge1}\n"
    felix += "spec: {defaultEndpointToHostAction: Accept}\n"
    found = reach(Snapshot.of(load_text(f"{text}\n---\n{felix}")), services=port_service(6, 80))
    (host,), (web,) = found.matching("HostEndpoint/edge"), found.matching("shop/web-1")
    assert found.allowed[web, host, 0], "what its node's documents say"


GUARDED = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: all, labels: {role: node}}
spec:
  {node: edge1, interfaceName: "*", expectedIPs: [192.0.2.1, "2001:db8::1"],
   profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: inner}
spec:
  {node: edge1, interfaceName: eth1, expectedIPs: [192.0.2.2, "2001:db8::2"],
   profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: guard}
spec:
  selector: role == 'node'
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [9100]}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: app == 'web'
  types: [Egress]
  egress: [{action: Deny, protocol: TCP, destination: {ports: [25]}}, {action: Allow}]
---
"""


def on_one_node(action):
    """A `*` host endpoint with preDNAT policy, another one, and a pod."""
    felix = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n"
    felix += f"spec: {{defaultEndpointToHostAction: {action}}}"
    web = pod("web-1", "web", "10.65.0.2").replace("[{ip: 10.65.0.2}]", "[{ip: 10.65.0.2}, {ip: 'fd00::2'}]")
    return Snapshot.of(load_text(GUARDED + "\n---\n".join([SPACE, web, felix])))


def is_delivered(literal, ways, ends, sample):
    """Whether each part of the way lets a packet through, as the reference judges it."""
    shown = {"sport": int(sample["sport"]), "dport": int(sample["dport"])}
    if sample["protocol"] in (1, 58):
        shown = {"icmp_type": shown["dport"] >> 8, "icmp_code": shown["dport"] & 255}
    if sample["fragment"] or sample["protocol"] not in (1, 6, 17, 58, 132, 136):
        shown = {}
    src, dst = ends
    packets = (
        Packet("filter-input", src, dst, int(sample["protocol"]), in_=in_, out=out,
               fragment=bool(sample["fragment"]), **shown)
        for in_, out in ways
    )  # fmt: skip
    return all(visit.answer.verdict != "deny" for packet in packets for visit in walk(literal.answer, packet))


@pytest.mark.parametrize("action", ["Drop", "Accept", "Return"])
def test_ends_of_one_node_are_judged_on_the_way_that_packets_take(action):
    """E-36, E-47, E-50: by every service that rules tell apart."""
    snapshot = on_one_node(action)
    found = reach(snapshot)
    literal = Reference(snapshot, "edge1", HostFacts({}), snapshot.settings("edge1"))
    web, other, inner = (found.matching(name)[0] for name in ("shop/web-1", "all", "inner"))
    cali, lo = found.peers[web].interface, [(None, "lo"), ("lo", None)]
    ways = {
        (web, other): [(cali, None)],
        (other, web): [(None, cali)],
        (other, inner): lo,
        (inner, other): lo,
    }
    asked = set()
    for (source, destination), way in ways.items():
        peers = found.peers[source], found.peers[destination]
        for at, sample in enumerate(found.services.samples):
            pairs = zip(*map(everyone, peers), strict=True)
            expected = any(is_delivered(literal, way, pair, sample) for pair in pairs)
            assert found.allowed[source, destination, at] == expected, (peers, sample)
            asked.add((source, destination, expected))
    assert len(asked) == 7


def test_what_the_hooks_of_a_node_say_to_its_own_pods_and_over_lo():
    found = {action: reach(on_one_node(action)) for action in ("Accept", "Drop")}
    for action, text in (
        ("Accept", "every protocol but protocol 4 and tcp 25,9100 and udp 4789"),
        ("Drop", "icmpv6 type 130-133,type 135-136"),
    ):
        (web,), (host,) = found[action].matching("shop/web-1"), found[action].matching("all")
        assert found[action].services_text(web, host) == text
    # `lo` is governed by the `*` one only, whatever governs the interface that carries an address.
    (inner,), (star,) = found["Drop"].matching("inner"), found["Drop"].matching("all")
    assert found["Drop"].services_text(star, inner) == "every protocol but tcp 9100"


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "policy.yaml"
    rule = "{action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [5432]}}"
    policy = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n"
    policy += f"spec:\n  selector: app == 'db'\n  ingress:\n  - {rule}\n"
    path.write_text("\n---\n".join([SPACE, *PODS, policy]))
    return lambda *options: CliRunner().invoke(cli, ["reach", "-f", str(path), *options])


def test_who_reaches_a_label_and_on_what(run):
    assert run("--to", "app=db").stdout == "Pod/shop/db-1 is reached by pods app=web: tcp 5432\n"
    assert run("--to", "10.65.0.3", "--port", "80").stdout == "Pod/shop/db-1 is reached by nobody\n"


def test_no_way_from_here_to_there_ends_with_1(run):
    assert run("--from", "shop/web-1", "--to", "app=db", "--port", "5432").exit_code == 0
    assert run("--from", "shop/web-1", "--to", "app=db", "--port", "80").exit_code == 1
    assert run("--from", "nobody").exit_code == 2


def test_a_grid_and_its_graph(run):
    rows = run("--port", "5432", "-o", "grid").stdout.splitlines()
    assert rows[1].split() == ["1", "shop/db-1", "-", "yes", "yes", "yes"]
    assert rows[4].split() == ["4", "rest", "of", "the", "world", "(IPv4)", ".", "yes", "yes", "-"]
    graph = run("--port", "5432", "-o", "dot").stdout
    assert 'n1 [label="shop/web-1"];' in graph
    assert "n1 -> n0;" in graph
    assert "n3 -> n0" not in graph
    grouped = run("--port", "80", "-o", "grid", "--by", "label:app").stdout.splitlines()
    assert grouped[1].split() == ["1", "app=db", "-", "yes", "yes"]


def test_json_has_every_pair(run):
    found = json.loads(run("--port", "5432", "-o", "json").stdout)
    pairs = {(one["from"], one["to"]) for one in found["reach"]}
    assert ("Pod/shop/web-1", "Pod/shop/db-1") in pairs
    assert ("rest of the world (IPv4)", "Pod/shop/db-1") not in pairs


def both_versions(name, app, address):
    """A pod that has the IPv6 address with the same last number, too."""
    both = f"[{{ip: {address}}}, {{ip: 'fd00::{address.rpartition('.')[2]}'}}]"
    return pod(name, app, address).replace(f"[{{ip: {address}}}]", both)


ONLY_IPV6 = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: app == 'db'
  ingress:
  - {action: Allow, protocol: TCP, ipVersion: 6, destination: {ports: [80]}}
  - {action: Allow, protocol: TCP, destination: {ports: [5432]}}
"""


@pytest.fixture
def run_both(tmp_path):
    """Of `web-1` and `db-1`, which have both IP versions, and `four` and `six`, which have one each."""
    path = tmp_path / "both.yaml"
    pods = [both_versions("web-1", "web", "10.65.0.2"), both_versions("db-1", "db", "10.65.0.3")]
    six = pod("six", "six", "'fd00::9'")
    path.write_text("\n---\n".join([SPACE, *pods, pod("four", "four", "10.65.0.8"), six, ONLY_IPV6]))
    return lambda *options: CliRunner().invoke(cli, ["reach", "-f", str(path), *options])


@pytest.mark.parametrize(
    ("source", "destination", "code", "text"),
    [
        ("10.65.0.2", "10.65.0.3", 1, "nobody"),
        ("shop/web-1", "10.65.0.3", 1, "nobody"),
        ("10.65.0.2", "shop/db-1", 1, "nobody"),
        ("fd00::2", "fd00::3", 0, "Pod/shop/web-1: tcp 80"),
        ("shop/web-1", "shop/db-1", 0, "Pod/shop/web-1: only v6: tcp 80"),
        ("shop/six", "shop/db-1", 0, "Pod/shop/six: tcp 80"),
    ],
)
def test_an_address_asks_about_its_ip_version(run_both, source, destination, code, text):
    result = run_both("--from", source, "--to", destination, "--port", "80")
    assert (result.exit_code, result.stdout) == (code, f"Pod/shop/db-1 is reached by {text}\n")


def test_addresses_of_two_ip_versions_are_a_mistake(run_both):
    result = run_both("--from", "10.65.0.2", "--to", "fd00::3")
    text = "Error: --from, --to: found an IPv4 and an IPv6 address, expected one IP version"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, text)


def test_services_of_one_ip_version_stand_behind_the_others(run_both):
    result = run_both("--from", "shop/web-1", "--to", "shop/db-1")
    assert result.stdout == "Pod/shop/db-1 is reached by Pod/shop/web-1: tcp 5432; only v6: tcp 80\n"


def test_pairs_without_a_common_ip_version_are_not_asked(run_both):
    rows = run_both("--port", "80", "-o", "grid").stdout.splitlines()
    assert [row.split() for row in rows[2:4]] == [
        ["2", "shop/four", ".", "-", "-", "yes", "yes", "-"],
        ["3", "shop/six", "yes", "-", "-", "yes", "-", "yes"],
    ]
    assert rows[-1].endswith("-: not asked (itself, both outside, or no IP version in common)")
    rows = run_both("--port", "80", "-o", "grid", "--by", "namespace").stdout.splitlines()
    assert rows[1].split()[2] == "9/10", "of 4 pods, without those between `four` and `six`"


def test_lists_of_ports_are_whole_where_programs_read_them(tmp_path):
    ports = ",".join(map(str, range(1, 24, 2)))
    rule = f"{{action: Allow, protocol: TCP, destination: {{ports: [{ports}]}}}}"
    policy = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n"
    policy += f"spec: {{selector: app == 'db', ingress: [{rule}]}}\n"
    path = tmp_path / "policy.yaml"
    path.write_text("\n---\n".join([SPACE, *PODS, policy]))
    whole = f"tcp {ports}"
    words = ("reach", "-f", str(path), "--from", "shop/web-1", "--to", "app=db")
    (pair,) = json.loads(CliRunner().invoke(cli, [*words, "-o", "json"]).stdout)["reach"]
    assert pair["services"] == whole
    assert whole in reach(Snapshot.of(load_text(path.read_text()))).to_numpy()["services"]
    assert CliRunner().invoke(cli, words).stdout.endswith(": tcp 1,3,5,7,9,11,13,15 and 4 more\n")


def test_every_output_has_the_pairs_that_are_named(run):
    asked = ("--from", "shop/web-1", "--to", "shop/", "--port", "80")
    found = json.loads(run(*asked, "-o", "json").stdout)
    assert [one["name"] for one in found["peers"]] == ["Pod/shop/db-1", "Pod/shop/web-1", "Pod/shop/web-2"]
    assert [(one["from"], one["to"]) for one in found["reach"]] == [("Pod/shop/web-1", "Pod/shop/web-2")]
    rows = run(*asked, "-o", "grid").stdout.splitlines()
    assert [row.split()[2:] for row in rows[1:-1]] == [["-", "-", "-"], [".", "-", "yes"], ["-", "-", "-"]]
    graph = run(*asked, "-o", "dot").stdout
    assert [line.strip() for line in graph.splitlines() if "->" in line] == ["n1 -> n2;"]
    only = json.loads(run("--to", "app=db", "--port", "5432", "-o", "json").stdout)
    assert {one["to"] for one in only["reach"]} == {"Pod/shop/db-1"}
    assert len(only["peers"]) == 4


def test_a_picture_has_the_pairs_that_are_named(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("labelgate.cli.reach.picture", lambda shown, *_: drawn.append(shown))
    run("--from", "shop/web-1", "--to", "app=db", "--picture", str(tmp_path / "reach.svg"))
    assert [shown.names for shown in drawn] == [("shop/db-1", "shop/web-1")]
    assert drawn[0].pairs.tolist() == [[0, 0], [1, 0]]


def test_a_protocol_is_of_a_port(run):
    result = run("--protocol", "udp")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: --protocol needs --port")


def test_who_nobody_is_called_is_told_who_there_is(run):
    said = run("--to", "web-1").stderr.splitlines()[-1]
    assert said.endswith("namespace/ or address of a peer: did you mean `shop/web-1`?")
    said = run("--to", "nobody").stderr.splitlines()[-1]
    assert said.endswith("of a peer, such as Pod/shop/db-1, Pod/shop/web-1, Pod/shop/web-2")


@pytest.mark.parametrize("name", ["", "16", "/", "="])
def test_parts_of_names_are_no_peers(tmp_path, name):
    path = tmp_path / "policy.yaml"
    path.write_text(HOST_WORLD.replace("203.0.113.0/24", "10.1.0.0/16"))
    result = CliRunner().invoke(cli, ["reach", "-f", str(path), "--from", name])
    text = (
        f"Error: --from: found `{name}`, expected the name, label key=value, namespace/ or address of a peer,"
        " such as HostEndpoint/edge"
    )
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, text)
    assert CliRunner().invoke(cli, ["reach", "-f", str(path), "--from", "10.1.0.0/16"]).exit_code == 0


@pytest.mark.parametrize("output", ["list", "grid", "json", "dot"])
@pytest.mark.parametrize("option", ["--from", "--to"])
def test_nobody_has_a_name_in_an_empty_world(tmp_path, output, option):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    result = CliRunner().invoke(cli, ["reach", "-f", str(path), option, "a", "-o", output])
    assert result.exit_code == 2
    assert f"{option}: found `a`, expected the name" in result.stderr


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: port_service(6, 70000), ValueError, "port: found 70000, expected 1..65535"),
        (lambda: port_service(6, 0), ValueError, "port: found 0, expected 1..65535"),
        (lambda: port_service(6, "80"), TypeError, "port: found '80', expected 1..65535"),
        (lambda: port_service(999, 80), ValueError,
         "protocol: found 999, expected one that has ports: 6, 17, 132, 136"),
        (lambda: port_service(1, 80), ValueError,
         "protocol: found 1, expected one that has ports: 6, 17, 132, 136"),
        (lambda: reach(Snapshot()).matching(5), TypeError,
         "text: found 5, expected the name, label, namespace or address of a peer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_is_drawn(run, tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"reach.{ending}"
    assert run("--port", "5432", "--picture", str(path)).exit_code == 0
    assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
    assert run("--picture", "reach.txt").exit_code == 2


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_that_cannot_be_written(run, tmp_path, ending):
    pytest.importorskip("matplotlib")
    nowhere, full = tmp_path / "nowhere" / f"reach.{ending}", tmp_path / f"reach.{ending}"
    full.symlink_to("/dev/full")
    for path, why in ((nowhere, "No such file or directory"), (full, "No space left on device")):
        result = run("--port", "5432", "--picture", str(path))
        assert (result.exit_code, result.stderr) == (3, f"Error: {path}: {why}\n")


@pytest.mark.parametrize(("endpoints", "names"), [(50, 51), (51, 2)])
def test_endpoints_stand_for_themselves_up_to_fifty(endpoints, names):
    """What is outside does not count among them."""
    pods = [pod(f"web-{at}", "web", f"10.65.1.{at}") for at in range(endpoints)]
    found = grid(reach(Snapshot.of(load_text("\n---\n".join([SPACE, *pods])))))
    assert len(found.names) == names


def test_a_grid_has_a_row_for_each_of_the_same_name():
    twin = (
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: web-1, namespace: shop}\n"
    )
    twin += "spec: {node: n1, interfaceName: cali1, ipNetworks: [10.65.0.9], profiles: [kns.shop]}\n"
    pods = [pod("web-1", "web", "10.65.0.2"), pod("web-2", "web", "10.65.0.3")]
    found = reach(Snapshot.of(load_text("\n---\n".join([SPACE, *pods, twin]))), services=port_service(6, 80))
    names = grid(found, "endpoint").names
    assert names[:3] == ("Pod/shop/web-1", "WorkloadEndpoint/shop/web-1", "shop/web-2")


def of_namespace(text, namespace):
    return text.replace("namespace: shop", f"namespace: {namespace}").replace(
        "name: shop", f"name: {namespace}"
    )


def test_namespaces_may_be_called_as_what_is_none():
    pods = [pod("p", "web", "10.65.0.2"), pod("q", "web", "10.65.0.3")]
    here, there = (
        [of_namespace(one, name) for one in (SPACE, alone)]
        for name, alone in zip(("hosts", "outside"), pods, strict=True)
    )
    plain = Snapshot.of(load_text("\n---\n".join([HOST_WORLD, SPACE, pods[0]])))
    found = reach(plain, services=port_service(6, 80))
    assert [found.peers[at].kind for at in found.matching("hosts/")] == ["host"]
    assert {found.peers[at].kind for at in found.matching("outside/")} == {"outside"}
    snapshot = Snapshot.of(load_text("\n---\n".join([HOST_WORLD, *here, *there])))
    found = reach(snapshot, services=port_service(6, 80))
    assert grid(found, "namespace").names[:3] == ("hosts", "outside", "(hosts)")
    for text, kind in (
        ("hosts/", "workload"),
        ("outside/", "workload"),
        ("(hosts)/", "host"),
        ("(outside)/", "outside"),
    ):
        assert {found.peers[at].kind for at in found.matching(text)} == {kind}


@pytest.mark.parametrize(
    ("allowed", "pairs", "cell", "text"),
    [
        (3, 6, 0.42, "3/6"),
        (100, 400, 0.42, "100/400"),
        (100, 400, 0.24, "25%"),
        (1, 999_999, 0.24, "1%"),
        (999_998, 999_999, 0.24, "99%"),
    ],
)
def test_shares_fit_their_cells_in_letters_that_can_be_read(allowed, pairs, cell, text):
    shown = Grid(("a",), ("a",), np.array([[pairs]]), np.array([[allowed]]))
    write, size = _shares(shown, shown.allowed > 0, cell)
    assert write(allowed, pairs) == text
    assert size >= 5
    assert size * 0.6 * len(text) <= 72 * cell


def test_nobody_there_is_told_on_standard_error(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    found = CliRunner().invoke(cli, ["reach", "-f", str(path)])
    assert (found.exit_code, found.stdout) == (0, "")
    assert "no endpoints in these files" in found.stderr


@pytest.mark.parametrize(
    ("most", "words", "asked", "helps"),
    [
        (16, (), "17 classes of services are 272", "name a port (--port)"),
        (15, ("--port", "80"), "1 class of services are 16",
         "load fewer endpoints, or ask `labelgate connectivity --matrix --by namespace`"),
    ],
)  # fmt: skip
def test_what_helps_against_too_many_questions(run, monkeypatch, most, words, asked, helps):
    monkeypatch.setattr("labelgate.analysis.reach.MOST_QUESTIONS", most)
    result = run(*words)
    text = f"Error: 4 peers and {asked} questions, and at most {most} are asked: {helps}"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, text)
