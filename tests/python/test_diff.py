"""`labelgate diff` against brute force: all packets of a small universe, asked one by one of either state."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner
from labelgate.analysis.addresses import complement, contains, edges_of_networks, points
from labelgate.analysis.diff import diff
from labelgate.analysis.naming import Names
from labelgate.analysis.regions import Region, Services
from labelgate.analysis.services import WITH_PORTS, WITH_TYPES, Piece
from labelgate.cli import cli
from labelgate.columns import Flows
from labelgate.flow import VERDICTS
from labelgate.resources import LoadError, load_text
from labelgate.snapshot import Snapshot
from random_world import HOST, NETS4, V4, V6, Dice

WORLDS = int(os.environ.get("LABELGATE_WORLDS", "30"))
ADDRESSES = {
    4: [*map(ip_address, V4), ip_address("10.65.0.1"), ip_address("8.8.8.8")],
    6: [*map(ip_address, V6), ip_address("fd00:65::99"), ip_address("2a00::1")],
}
PORTS = (0, 22, 53, 60, 80, 85, 179, 443, 4789, 40000)
SERVICES = [
    *((number, sport, dport, False) for number in (6, 17, 132) for sport in (53, 40000) for dport in PORTS),
    *((number, 0, kind << 8 | code, False) for number in (1, 58) for kind in (0, 8, 135) for code in (0, 1)),
    *((protocol, 0, 0, protocol in WITH_PORTS + WITH_TYPES) for protocol in (1, 4, 6, 17, 47, 58, 132)),
]  # fmt: skip
PLACES = (
    ("normal", "ingress", "filter-input", {}),
    ("normal", "egress", "filter-output", {}),
    ("normal", "egress", "mangle-postrouting", {"dnatted": True}),
    ("forward", "ingress", "filter-forward", {}),
    ("forward", "egress", "filter-forward", {}),
    ("untracked", "ingress", "raw-prerouting", {}),
    ("untracked", "egress", "raw-output", {}),
    ("preDNAT", "ingress", "mangle-prerouting", {}),
)


def universe(family):
    """Columns of every (source, destination, service)."""
    count = len(ADDRESSES[family])
    source, destination, service = (
        grid.reshape(-1)
        for grid in np.meshgrid(np.arange(count), np.arange(count), np.arange(len(SERVICES)), indexing="ij")
    )
    if family == 4:
        addresses = np.array([int(one) for one in ADDRESSES[4]], np.uint32)
    else:
        addresses = np.array([list(one.packed) for one in ADDRESSES[6]], np.uint8)
    rows = np.array(SERVICES, np.int64)[service]
    columns = {
        "src": np.ascontiguousarray(addresses[source]),
        "dst": np.ascontiguousarray(addresses[destination]),
        "protocol": rows[:, 0].astype(np.uint8),
        "sport": rows[:, 1].astype(np.uint16),
        "dport": rows[:, 2].astype(np.uint16),
        "fragment": rows[:, 3].astype(np.bool_),
    }
    return columns, source, destination, service


UNIVERSE = {family: universe(family) for family in (4, 6)}


def in_services(services, service):
    """Whether one service is among those of a change."""
    protocol, sport, dport, fragment = service
    opaque = fragment or protocol not in WITH_PORTS + WITH_TYPES
    for group in services.groups:
        if any(first <= protocol <= last for first, last in group.protocols):
            return (
                group.opaque
                if opaque
                else any(
                    (protocol in WITH_TYPES or first <= sport <= last)
                    and any(low <= dport <= high for low, high in spans)
                    for first, last, spans in group.rows
                )
            )
    return False


def told(changes, family, direction):
    """Of every packet what the changes say: old and new verdict, or -1; and how many say it."""
    _, source, destination, service = UNIVERSE[family]
    own, peer = (destination, source) if direction == "ingress" else (source, destination)
    numbers = points(family, [int(one) for one in ADDRESSES[family]])
    old, new, count = (np.full(len(source), start, np.int64) for start in (-1, -1, 0))
    for change in changes:
        inside = contains(change.peers.edges[family], numbers)[peer]
        if change.own is not None:
            inside &= contains(change.own.edges[family], numbers)[own]
        inside &= np.array([in_services(change.services, one) for one in SERVICES])[service]
        old[inside], new[inside] = VERDICTS.index(change.old), VERDICTS.index(change.new)
        count += inside
    return old, new, count


def edited(dice, documents):
    """Other documents of the same kinds and names: some as they were, some drawn anew, some gone."""
    fresh = {(one["kind"], one["metadata"]["name"]): one for one in dice.documents()}
    found = []
    for document in documents:
        key = (document["kind"], document["metadata"]["name"])
        if dice.chance(15) and key in fresh:
            found.append(fresh[key])
        elif not dice.chance(5) or document["kind"] in ("Namespace", "Tier"):
            found.append(document)
    return found


def early(dice):
    """Untracked and preDNAT policy for all, and a host endpoint for it: random worlds rarely have them."""
    for name, field, directions in (
        ("raw", "doNotTrack", ("ingress", "egress")),
        ("pre", "preDNAT", ("ingress",)),
    ):
        rules = [
            {
                "action": dice.choice(("Allow", "Deny")),
                "protocol": dice.choice(("TCP", "UDP")),
                "source": {"nets": [dice.choice(NETS4)]},
                "destination": {"ports": [dice.choice((53, 80, "50:90"))]},
            }
            for _ in range(dice.randrange(3))
        ]
        spec = {
            "selector": "all()",
            field: True,
            "applyOnForward": True,
            "types": [*map(str.title, directions)],
        }
        yield {
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": name},
            "spec": {**spec, **dict.fromkeys(directions, rules)},
        }  # fmt: skip
    spec = {"node": "edge1", "interfaceName": dice.choice(("eth0", "eth1"))}
    yield {
        "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": {"name": "0"}, "spec": spec
    }  # fmt: skip


def worlds():
    """Pairs of snapshots, with settings of each."""
    for seed in range(WORLDS):
        dice = Dice(Random(seed))
        first = dice.world()
        second = edited(dice, first.documents)
        try:
            old, new = (
                Snapshot.of(load_text("\n---\n".join(map(json.dumps, one))))
                for one in ([*first.documents, *early(Random(seed))], [*second, *early(Random(seed + 1))])
            )
        except LoadError:
            continue
        settings = first.settings
        other = replace(dice.settings(), workload_prefixes=settings.workload_prefixes)
        yield old, new, (settings, other if dice.chance(20) else settings)


def told_as(tables, hosts, settings, interface, kind):
    """The name under which a change at an interface is told, by E-45..E-47; None: no policy there."""
    owns, anybodies = [], []
    for side in (0, 1):
        by_name = sorted(hosts[side], key=lambda one: one.metadata.name)
        carried = set(HOST.interfaces.get(interface, ()))
        own = [
            one
            for one in by_name
            if one.spec.interface_name == interface
            or (not one.spec.interface_name and {str(ip) for ip in one.spec.expected_ips} & carried)
        ]
        exempt = interface == "lo" and settings[side].exempt_loopback
        everywhere = [one for one in by_name if one.spec.interface_name == "*" and not exempt]
        owns.append(next(iter(own), None))
        anybodies.append(next(iter(everywhere), None))
    governors = [governor(tables[side], owns[side], anybodies[side], kind) for side in (0, 1)]
    told = governors[1] or governors[0]
    if told is None:
        return None
    differs = interface == "lo" and settings[0].exempt_loopback != settings[1].exempt_loopback
    is_plain = told.spec.interface_name == interface or (owns == [None, None] and not differs)
    has_moved = len({one.spec.interface_name for side in hosts for one in side if one.key == told.key}) > 1
    where = "*" if owns == [None, None] and not differs else interface
    return told.key if is_plain and not has_moved else f"{told.key} on {where}"


def governor(table, own, anybody, kind):
    if kind == "untracked":
        return own
    if kind == "preDNAT":
        return next((one for one in (own, anybody) if one is not None and has_prednat(table, one)), own)
    return own or anybody


def has_prednat(table, host):
    text = str(table.program)
    start = text.index(f"\nendpoint {host.key} ")
    return "preDNAT ingress chain" in text[start : text.find("\n\n", start + 1)]


@pytest.fixture(scope="module")
def compared():
    found = []
    for old, new, (before, after) in worlds():
        of = lambda snapshot, node, pair=(old, before, after): pair[1 if snapshot is pair[0] else 2]  # noqa: E731
        found.append((old, new, (before, after), diff(old, new, node="edge1", host=HOST, settings_of=of)))
    assert len(found) > WORLDS / 2
    return found


def test_every_change_at_host_endpoints_and_no_other(compared):
    seen = {kind: 0 for kind, *_ in PLACES}
    for old, new, settings, found in compared:
        tables = [
            one.compile(node="edge1", host=HOST, settings=setting)
            for one, setting in zip((old, new), settings, strict=True)
        ]
        hosts = [[one for one in side.host_endpoints if one.spec.node == "edge1"] for side in (old, new)]
        for interface in ("eth0", "eth1", "eth2", "eth9", "lo"):
            if interface.startswith(settings[0].workload_prefixes):
                continue
            for kind, direction, hook, state in PLACES:
                name = told_as(tables, hosts, settings, interface, kind)
                changes = [
                    one for one in found.changes
                    if one.kind == kind and one.direction == direction and hook in one.hooks
                    and name in one.endpoints
                ]  # fmt: skip
                for family in (4, 6):
                    seen[kind] += check(tables, changes, family, interface, (direction, hook, state))
    assert all(seen.values()), seen


def check(tables, changes, family, interface, place):
    """Compares at one interface and hook; how many packets change."""
    direction, hook, state = place
    columns, *_ = UNIVERSE[family]
    sides = {"in_": interface} if direction == "ingress" else {"out": interface}
    old, new = (table.decide_batch(hook, **columns, **sides, **state)[0].astype(np.int64) for table in tables)
    before, after, count = told(changes, family, direction)
    differs = old != new
    assert ((count > 0) == differs).all(), (interface, place, [str(one)[:400] for one in changes])
    assert count.max(initial=0) <= 1
    if hook != "mangle-postrouting":
        assert (before[differs] == old[differs]).all()
        assert (after[differs] == new[differs]).all()
    return int(differs.sum())


def test_every_change_at_workloads_and_no_other(compared):
    packets = 0
    for old, new, settings, found in compared:
        tables = [
            one.compile(node="edge1", host=HOST, settings=setting)
            for one, setting in zip((old, new), settings, strict=True)
        ]
        numbers = [{name: at for at, name in enumerate(table.program.endpoints)} for table in tables]
        owns = [dict(table.core.workloads()) for table in tables]
        names = {name for table in owns for name in table}
        for name in sorted(names):
            own = {ip_address(one) for side in owns for one in side.get(name, ())}
            for direction in ("ingress", "egress"):
                changes = [
                    one for one in found.changes
                    if one.kind == "workload" and one.direction == direction and name in one.endpoints
                ]  # fmt: skip
                for family in (4, 6):
                    asked = [numbers[side].get(name) for side in (0, 1)]
                    packets += check_workload(tables, asked, changes, family, direction, own)
    assert packets


def check_workload(tables, numbers, changes, family, direction, own):
    columns, source, destination, _ = UNIVERSE[family]
    mine = source if direction == "egress" else destination
    is_own = np.isin(mine, [at for at, one in enumerate(ADDRESSES[family]) if one in own])
    answers = []
    for table, number in zip(tables, numbers, strict=True):
        verdicts, outcomes = np.zeros(len(mine), np.uint8), np.zeros(len(mine), np.uint32)
        if number is not None:
            flows = Flows.read(
                table.core, hook="filter-forward", in_=None, out=None, ct="new", accepted=False,
                dnatted=False, **columns,
            )  # fmt: skip
            asked = np.full(len(mine), number, np.uint32)
            table.core.gate_batch(direction == "egress", asked, flows, verdicts, outcomes)
        answers.append(verdicts.astype(np.int64))
    before, after, count = told(changes, family, direction)
    differs = (answers[0] != answers[1]) & is_own
    assert ((count > 0) & is_own == differs).all()
    assert count[is_own].max(initial=0) <= 1
    assert (before[differs] == answers[0][differs]).all()
    assert (after[differs] == answers[1][differs]).all()
    return int(differs.sum())


POLICY = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: app == 'web'
  types: [Egress]
  egress:
  - {action: Allow, protocol: TCP, destination: {nets: [10.9.0.0/16], ports: [PORTS]}}
"""


def pod(name, app, address):
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}
spec: {{nodeName: edge1, containers: []}}
status: {{podIPs: [{{ip: {address}}}]}}
"""


PODS = [pod("web-1", "web", "10.65.0.2"), pod("web-2", "web", "10.65.0.9"), pod("db-1", "db", "10.65.0.3")]
SPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"


def world(ports, pods=PODS):
    return "\n---\n".join([SPACE, *pods, POLICY.replace("PORTS", ports)])


@pytest.fixture
def run(tmp_path):
    def run(old, new, *options):
        for name, text in (("old.yaml", old), ("new.yaml", new)):
            (tmp_path / name).write_text(text)
        arguments = ["diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), *options]
        return CliRunner().invoke(cli, arguments)

    return run


def test_a_narrower_policy_ends_with_1_and_is_told_in_words(run):
    result = run(world("5432, 80"), world("80"), "--no-examples")
    assert result.stdout.splitlines() == [
        "- pods app=web lose egress to 10.9.0.0/16 tcp 5432",
        "1 change, 0 of them let more through",
    ]
    assert result.exit_code == 1


def test_a_wider_policy_ends_with_4_and_shows_a_packet_with_both_rules(run):
    result = run(world("80"), world("80, 5432"))
    assert result.stdout.splitlines()[:2] == [
        "+ pods app=web gain egress to 10.9.0.0/16 tcp 5432",
        "    10.65.0.2 -> 10.9.0.1 tcp 5432: deny by end of tier (E-21) of tier default -> "
        "allow by NetworkPolicy/shop/web rule 0",
    ]
    assert result.exit_code == 4


def test_the_same_in_other_words_ends_with_0(run):
    result = run(world("80, 81, 82"), world('"80:82"'))
    assert (result.exit_code, result.stdout) == (0, "no verdict changes\n")


def test_a_pod_that_comes_to_be_is_told_apart(run):
    result = run(world("80", PODS[:2]), world("80"), "--no-examples", "--node", "edge1")
    assert result.stdout.splitlines() == [
        "+ Pod/shop/db-1 (only in NEW) gains egress to every IPv4 address every protocol but "
        "protocol 4 and udp 4789",
        "+ Pod/shop/db-1 (only in NEW) gains ingress from every IPv4 address every protocol",
        "2 changes, 2 of them let more through",
    ]


def test_json_has_every_endpoint_net_and_port(run):
    result = run(world("80"), world('80, "90:92"'), "-o", "json")
    (change,) = json.loads(result.stdout)["changes"]
    assert change["endpoints"] == ["Pod/shop/web-1", "Pod/shop/web-2"]
    assert change["peerNets"] == ["10.9.0.0/16"]
    assert change["services"] == [
        {
            "protocols": [[6, 6]],
            "fragmentsAndPortless": False,
            "ports": [{"source": [0, 65535], "destination": [[90, 92]]}],
        }
    ]
    assert change["example"]["packet"]["dport"] == 90
    assert change["example"]["new"]["policy"] == "NetworkPolicy/shop/web"
    assert json.loads(result.stdout)["widened"] is True


def test_a_setting_that_lets_more_through_is_told(run):
    felix = "\n---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n"
    new = world("80") + felix + "spec: {defaultEndpointToHostAction: Accept}\n"
    result = run(world("80"), new)
    assert "+ all nodes: setting endpoint_to_host changes from Drop to Accept" in result.stdout
    assert result.exit_code == 4
    assert run(new, world("80")).exit_code == 1
    old, new = (Snapshot.of(load_text(text)) for text in (world("80"), new))
    assert [one.name for one in diff(old, new).settings] == ["endpoint_to_host"]


def test_what_cannot_be_read_ends_with_3(run):
    assert isinstance(run("kind: Nothing", world("80")).exception, LoadError)


def test_a_later_rule_counts(run):
    more = "  - {action: ACTION, protocol: UDP, destination: {ports: [53]}}\n"
    old, new = (world("80") + more.replace("ACTION", action) for action in ("Deny", "Allow"))
    assert "+ pods app=web gain egress to every IPv4 address udp 53" in run(old, new).stdout


def services(*boxes):
    return Services.of(Piece(frozenset((6,)), False, (0, 65535), box) for box in boxes)


@pytest.mark.parametrize(("version", "own"), [(4, "ICMP"), (6, "ICMPv6")])
def test_an_example_is_of_a_protocol_that_its_family_has(run, version, own):
    host = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge}
spec: {node: edge1, interfaceName: eth0}
"""
    policy = """---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: all}
spec:
  selector: all()
  types: [Ingress]
  ingress: [DENIED {action: Allow, ipVersion: VERSION}]
"""
    ported = ("TCP", "UDP", "SCTP", "UDPLite")
    for denied, shown in (((), own.lower()), (ported, own.lower()), ((*ported, own), 253)):
        rules = "".join(f"{{action: Deny, protocol: {name}}}, " for name in denied)
        new = host + policy.replace("DENIED", rules).replace("VERSION", str(version))
        (change,) = json.loads(run(host, new, "-o", "json").stdout)["changes"]
        assert change["example"]["packet"]["protocol"] == shown


def test_services_are_canonical():
    joined = services((80, 89)) | services((90, 99))
    assert joined == services((80, 99)) == services((80, 95), (85, 99))
    assert joined.text() == "tcp 80-99"
    assert joined.rest().rest() == joined
    assert joined.rest().text() == "every protocol but tcp 80-99"
    assert (joined | joined.rest()).text() == "every protocol"


def test_services_from_several_source_ports_are_told_together():
    found = Services.of(Piece(frozenset((6,)), False, sports, (80, 80)) for sports in ((0, 9), (20, 29)))
    assert found.text() == "tcp 80 from ports 0-9,20-29"


def test_a_label_without_a_value_is_told_as_one():
    pods = [
        pod(name, value, f"10.65.0.{at}")
        for at, (name, value) in enumerate((("a", "''"), ("b", "''"), ("c", "x")), 1)
    ]
    names = Names(Snapshot.of(load_text("\n---\n".join([SPACE, *pods]))))
    assert names.group(["Pod/shop/a", "Pod/shop/b"]) == "pods app="


def test_peers_are_told_by_the_fewest_words():
    names = Names(Snapshot.of(load_text("\n---\n".join([SPACE, *PODS]))))

    def peers(*nets, but=()):
        inside, outside = (edges_of_networks(4, map(ip_network, found)) for found in (nets, but))
        return names.peers(Region.of(4, inside) & Region.of(4, complement(outside)))

    assert peers("10.65.0.2/32", "10.65.0.9/32") == "pods app=web"
    assert peers("10.9.0.0/16", "10.65.0.3/32") == "10.9.0.0/16, Pod/shop/db-1"
    assert peers("10.9.0.0/16", but=["10.9.66.0/24"]) == "10.9.0.0/16 but 10.9.66.0/24"
    assert peers("10.65.0.0/24", but=["10.65.0.3/32"]) == "10.65.0.0/24 but Pod/shop/db-1"
    assert peers("0.0.0.0/0", but=["10.65.0.2/32", "10.65.0.9/32"]) == "every IPv4 address but pods app=web"
