"""Recorded flows and what becomes of them, against the way that each packet takes by itself."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import labelgate
import pytest
from cases import Case, load_cases
from click.testing import CliRunner
from labelgate.analysis import recorded
from labelgate.analysis.recorded import Recorded, from_lines, packed
from labelgate.analysis.replay import (
    DENIED,
    NO_ENDPOINT,
    STATES,
    ClusterJudge,
    NodeJudge,
    Whereabouts,
    _packet,
)
from labelgate.cli import cli
from labelgate.flow import CT_STATES, HOOKS, Gate, Packet
from labelgate.lockout.flows import Flow as Tracked
from labelgate.path import walk
from labelgate.table import DecisionTable
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as Bytes
from scapy.utils import wrpcap

POLICY = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0, expectedIPs: [198.51.100.10, "2001:db8::10"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec:
  selector: role == 'edge'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
  - {action: Allow, protocol: ICMP}
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: [5353]}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  {node: edge1, orchestrator: k8s, workload: web, endpoint: eth0, interfaceName: cali1,
   ipNetworks: [10.65.0.2/32]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: app == 'web'
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080]}}]
"""
HOST, OTHER, POD = "198.51.100.10", "192.0.2.5", "10.65.0.2"
UNTRACKED = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0, expectedIPs: [198.51.100.10]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: cache}
spec:
  selector: role == 'edge'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [11211]}}]
"""

FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
"""With addresses: scapy would ask the network for them."""


def tcp(src: str, dst: str, dport: int, flags: str = "S", sport: int = 40000) -> Bytes:
    return FRAME / IP(src=src, dst=dst) / TCP(sport=sport, dport=dport, flags=flags)


PACKETS = [
    tcp(OTHER, HOST, 80), tcp(HOST, OTHER, 40000, "SA", sport=80),  # allowed, with its reply
    tcp(OTHER, HOST, 81), tcp(OTHER, HOST, 81),  # denied, sent again
    tcp(OTHER, HOST, 22),  # failsafe
    FRAME / IP(src=OTHER, dst=HOST) / ICMP(type=8, id=7),
    FRAME / IP(src=HOST, dst=OTHER) / ICMP(type=0, id=7),
    FRAME / IP(src=HOST, dst=OTHER) / UDP(sport=40000, dport=5353),
    FRAME / IP(src=HOST, dst=OTHER) / UDP(sport=40000, dport=5354),  # denied
    FRAME / IPv6(src="2001:db8::5", dst="2001:db8::10") / TCP(sport=40000, dport=80, flags="S"),
    tcp(OTHER, POD, 8080), tcp(OTHER, POD, 8081),
    tcp(OTHER, "203.0.113.1", 80),  # not of this node
    tcp(OTHER, HOST, 9999, "A"),  # under way
    FRAME / ARP(),
]  # fmt: skip


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return str(path)


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = str(tmp_path / "traffic.pcap")
    wrpcap(path, PACKETS)
    return path


def replay(*arguments: str, code: int, text: bytes | None = None) -> Any:
    result = CliRunner().invoke(cli, ["replay", *arguments, "-o", "json"], input=text)
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def fates(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    found = report["fates"].items()
    return {fate: (counts["flows"], counts["packets"]) for fate, counts in found if counts["flows"]}


def test_a_capture_judged_by_a_node(policy: str, capture: str) -> None:
    *flows, report = replay(policy, capture, "--node", "edge1", "--flows", code=1)
    assert fates(report) == {
        "allowed": (6, 8), "denied": (3, 4), "unknown direction": (1, 1), "not of this node": (1, 1),
    }  # fmt: skip
    assert report["read"] == {"packets": 15, "packets: not IP": 1}
    denied = {(flow["dst"], flow["dport"]): flow["by"] for flow in flows if flow["fate"] == "denied"}
    assert {key: (by["place"], by["policy"], by["reason"]) for key, by in denied.items()} == {
        (HOST, 81): ("filter-input", None, "end of tier (E-21)"),
        (OTHER, 5354): ("filter-output", None, "end of tier (E-21)"),
        (POD, 8081): ("filter-forward", None, "end of tier (E-21)"),
    }
    by_rule = {(row["policy"], row["rule"], row["place"]): row["packets"] for row in report["rules"]}
    assert by_rule["GlobalNetworkPolicy/edge", 0, "filter-input"] == 3
    assert by_rule["NetworkPolicy/shop/web", 0, "filter-forward"] == 1


def test_a_capture_judged_by_the_cluster(policy: str, capture: str) -> None:
    (report,) = replay(policy, capture, code=1)
    assert fates(report) == {
        "allowed": (1, 1), "denied": (1, 1), "no endpoint": (8, 11), "unknown direction": (1, 1),
    }  # fmt: skip


def test_from_the_start(policy: str, capture: str) -> None:
    """What was under way is new to conntrack: nothing allows port 9999."""
    (report,) = replay(policy, capture, "--node", "edge1", "--from-start", code=1)
    assert fates(report)["denied"] == (4, 5)


def test_gzip_and_standard_input(policy: str, capture: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labelgate", "replay", policy, "-", "-o", "json"]
    piped = subprocess.run(command, input=Path(capture).read_bytes(), capture_output=True, check=False)
    assert [json.loads(piped.stdout)] == replay(policy, capture, code=piped.returncode)
    zipped = tmp_path / "traffic.pcap.gz"
    zipped.write_bytes(gzip.compress(Path(capture).read_bytes()))
    assert replay(policy, str(zipped), code=1) == replay(policy, capture, code=1)


def test_against_another_policy(policy: str, capture: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.replace("ports: [80]", "ports: [81]"), encoding="utf-8")
    (report,) = replay(policy, capture, "--against", str(other), "--node", "edge1", code=1)
    found = {
        (group["before"]["fate"], group["after"]["fate"]): (
            group["before"]["by"]["policy"], group["after"]["by"]["policy"], group["flows"], group["packets"],
            {example["dport"] for example in group["examples"]},
        )
        for group in report["differences"]
    }  # fmt: skip
    name = "GlobalNetworkPolicy/edge"
    assert found == {
        ("allowed", "denied"): (name, None, 2, 3, {80}),
        ("denied", "allowed"): (None, name, 1, 2, {81}),
    }
    (same,) = replay(policy, capture, "--against", policy, "--node", "edge1", code=0)
    assert same["differences"] == []
    shown = CliRunner().invoke(cli, ["replay", policy, capture, "--against", str(other), "--node", "edge1"])
    assert f"{OTHER} > {HOST} protocol 6 81" in shown.stdout


def test_interfaces_by_route(policy: str, capture: str) -> None:
    """Behind eth1 is no endpoint; the workload's policy stays."""
    (report,) = replay(policy, capture, "--node", "edge1", "--route", "0.0.0.0/0=eth1", code=1)
    assert fates(report) == {
        "allowed": (1, 1), "denied": (1, 1), "no endpoint": (6, 9), "unknown direction": (1, 1),
        "not of this node": (2, 2),
    }  # fmt: skip


def test_what_is_dnated_is_not_judged(policy: str, capture: str) -> None:
    """The pod's flows, one of which would be denied."""
    for place in ((), ("--node", "edge1")):
        (report,) = replay(policy, capture, "--dnated", "10.65.0.0/16", *place, code=1 if place else 3)
        assert fates(report)["DNATed"] == (2, 2)
    result = CliRunner().invoke(cli, ["replay", policy, capture, "--dnated", "10.65.0.1/16"])
    assert (result.exit_code, "--dnated:" in result.output) == (2, True)


def test_one_hook(policy: str, capture: str) -> None:
    (report,) = replay(policy, capture, "--node", "edge1", "--in", "eth0", "--hook", "filter-input", code=1)
    assert {row["place"] for row in report["rules"]} == {"filter-input"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--in", "eth0"), "say which by --node"),
        (("--node", "edge1", "--hook", "filter-input"), "--hook needs"),
        (("--node", "edge1", "--route", "eth0"), "found `eth0`, expected NET=INTERFACE"),
        (("--flows",), "--flows needs -o json"),
    ],
)
def test_usage(policy: str, capture: str, arguments: Sequence[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["replay", policy, capture, *arguments])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_what_is_no_capture(policy: str, tmp_path: Path) -> None:
    for content in (b"no capture", b"\xd4\xc3\xb2\xa1" + bytes(4)):
        path = tmp_path / "broken"
        path.write_bytes(content)
        result = CliRunner().invoke(cli, ["replay", policy, str(path)])
        assert (result.exit_code, "found neither pcap nor pcapng" in result.output) == (3, True)
    result = CliRunner().invoke(cli, ["replay", policy, str(tmp_path / "nothing")])
    assert (result.exit_code, "No such file" in result.output) == (3, True)


LINES = [
    {"src": OTHER, "dst": POD, "protocol": "tcp", "sport": 40000, "dport": 8080, "packets": 3, "replies": 2},
    {"source_ip": OTHER, "dest_ip": POD, "proto": "tcp", "source_port": 40000, "dest_port": 8081,
     "packets_out": 4, "action": "allow", "dest_name": "web-*"},
    {"src": OTHER, "dst": POD, "protocol": "icmp", "icmpType": 8},
]  # fmt: skip
WRONG = ['{"src": "10.0.0.1"}', "no JSON", '{"src": "10.0.0.1", "dst": "::1", "protocol": 6}']


def test_flow_logs(policy: str, tmp_path: Path) -> None:
    path = tmp_path / "flows.jsonl"
    path.write_text("\n".join([*map(json.dumps, LINES), *WRONG]), encoding="utf-8")
    (report,) = replay(policy, str(path), code=1)
    assert fates(report) == {"allowed": (1, 5), "denied": (2, 5)}
    assert report["read"] == {"lines: cannot be read": 3}
    assert [problem.split(":")[0] for problem in report["problems"]] == ["line 4", "line 5", "line 6"]
    text = ",".join(LINES[1]) + "\n" + ",".join(map(str, LINES[1].values())) + "\n"
    (report,) = replay(policy, "-", "--format", "csv", code=1, text=text.encode())
    assert fates(report) == {"denied": (1, 4)}


HEADER = "src,dst,protocol,dport"
DENIED_ROW, ALLOWED_ROW = f"{OTHER},{POD},tcp,8081", f"{OTHER},{POD},tcp,8080"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_of_spreadsheets(policy: str, end: str, mark: str) -> None:
    text = mark + end.join([HEADER, DENIED_ROW, "", ALLOWED_ROW, ""])
    (report,) = replay(policy, "-", "--format", "csv", code=1, text=text.encode())
    assert (fates(report), report["read"]) == ({"allowed": (1, 1), "denied": (1, 1)}, {})


def test_a_line_that_is_no_csv_is_counted(policy: str) -> None:
    text = "\n".join([HEADER, f"{OTHER},{'x' * 200_000},tcp,1", ALLOWED_ROW])
    (report,) = replay(policy, "-", "--format", "csv", code=0, text=text.encode())
    assert (fates(report), report["read"]) == ({"allowed": (1, 1)}, {"lines: cannot be read": 1})
    assert report["problems"][0].startswith("line 2: not CSV: field larger than field limit")
    result = CliRunner().invoke(cli, ["replay", policy, "-", "--format", "csv"], input="x" * 200_000)
    assert (result.exit_code, "line 1: found `field larger" in result.output) == (3, True), result.output


@pytest.mark.parametrize("name", ["packets", "replies", "bytes", "replyBytes"])
def test_a_number_that_is_no_count(policy: str, name: str) -> None:
    lines = [json.dumps(LINES[0] | {name: 2**53 + more}) for more in (0, 1)]
    (report,) = replay(policy, "-", "--format", "jsonl", code=0, text="\n".join(lines).encode())
    assert (report["fates"]["allowed"]["flows"], report["read"]) == (1, {"lines: cannot be read": 1})
    assert report["problems"] == [f"line 2: {name}: found `{2**53 + 1}`, expected a number 0..{2**53}"]


def test_flow_logs_in_gzip(policy: str, tmp_path: Path) -> None:
    zipped = gzip.compress(json.dumps(LINES[1]).encode())
    for name in ("flows.jsonl.gz", "flows.jsonl"):
        path = tmp_path / name
        path.write_bytes(zipped)
        (report,) = replay(policy, str(path), code=1)
        assert fates(report) == {"denied": (1, 4)}
    for damaged in (zipped[:-9], zipped[:20] + b"\xff" * 20 + zipped[40:]):
        path.write_bytes(damaged)
        result = CliRunner().invoke(cli, ["replay", policy, str(path)])
        assert (result.exit_code, f"Error: {path}: " in result.output) == (3, True), result.output


@pytest.mark.parametrize(
    ("form", "text", "found"),
    [
        ("jsonl", "", "no flow"),
        ("csv", "", "no flow"),
        ("csv", f"a,b\n{OTHER},{POD}\n", "1 lines that cannot be read"),
        ("jsonl", json.dumps(LINES), "1 lines that cannot be read"),
        ("jsonl", json.dumps(LINES[0] | {"dst": OTHER}), "1 no endpoint"),
        ("capture", "", "no flow"),
        ("capture", "ARP", "no flow"),
        ("capture", "elsewhere", "1 not of this node"),
    ],
)
def test_nothing_judged_is_no_answer(policy: str, tmp_path: Path, form: str, text: str, found: str) -> None:
    path = tmp_path / "flows"
    path.write_text(text, encoding="utf-8")
    if form == "capture":
        wrpcap(str(path), {"ARP": [FRAME / ARP()], "elsewhere": [PACKETS[12]]}.get(text, []), linktype=1)
    place = ["--node", "edge1"] if text == "elsewhere" else []
    result = CliRunner().invoke(cli, ["replay", policy, str(path), "--format", form, *place])
    assert (result.exit_code, f"no flow was judged: found {found};" in result.output) == (3, True), (
        result.output
    )


CALICO = {
    "start_time": 1_790_000_000, "source_ip": OTHER, "source_name": "-", "source_name_aggr": "pub",
    "source_port": None, "dest_ip": POD, "dest_name": "web-0", "dest_port": 8081, "dest_type": "wep",
    "proto": "tcp", "action": "deny", "reporter": "src",
    "policies": {"all_policies": ["0|default|default.a|deny|-1"]},
    "packets_in": 2, "packets_out": 5, "bytes_in": 200, "bytes_out": 500, "num_flows": 1,
}  # fmt: skip


def test_flow_logs_of_calico_count_from_the_end_that_reports() -> None:
    found = {}
    for reporter in ("src", "dst"):
        line = json.dumps(CALICO | {"reporter": reporter}).encode()
        (block,) = from_lines(io.BytesIO(line), "jsonl").blocks
        assert (block.sport.tolist(), block.dport.tolist(), block.denied.tolist()) == ([0], [8081], [True])
        columns = (block.packets, block.replies, block.bytes, block.reply_bytes)
        found[reporter] = [int(column[0]) for column in columns]
    assert found == {"src": [5, 2, 500, 200], "dst": [2, 5, 200, 500]}


def test_protocols_of_calicos_flow_logs() -> None:
    words = {"icmp": 1, "tcp": 6, "udp": 17, "ipip": 4, "esp": 50, "icmp6": 58, "sctp": 132, "47": 47}
    lines = "\n".join(json.dumps(CALICO | {"proto": word}) for word in words)
    (block,) = from_lines(io.BytesIO(lines.encode()), "jsonl").blocks
    assert block.protocol.tolist() == list(words.values())


def test_what_calico_has_aggregated_is_not_judged() -> None:
    source = from_lines(io.BytesIO(json.dumps(CALICO | {"source_ip": None}).encode()), "jsonl")
    assert (list(source.blocks), source.problems) == ([], ["line 1: src: missing"])


def test_events_are_flow_logs() -> None:
    """As `labelgate events -o json` writes them."""
    event = {
        "time": 1_790_000_000_000, "kind": "log", "generation": 2, "hook": "filter-input", "verdict": "deny",
        "src": OTHER, "dst": POD, "protocol": 1, "sport": None, "dport": None, "icmp": [8, 0], "in": "eth0",
    }  # fmt: skip
    (block,) = from_lines(io.BytesIO(json.dumps(event).encode()), "jsonl").blocks
    assert (block.dport.tolist(), block.denied.tolist()) == ([8 << 8], [True])


TRACKED = [
    Tracked(6, ip_address(OTHER), ip_address(HOST), 40000, 80),
    Tracked(6, ip_address(OTHER), ip_address(HOST), 40001, 81),
    Tracked(1, ip_address(OTHER), ip_address(HOST), icmp=(8, 0, 7)),
    Tracked(6, ip_address(OTHER), ip_address(HOST), 40001, 30080, ip_address(POD), 8080),
    Tracked(6, ip_address("2001:db8::5"), ip_address("2001:db8::10"), 40000, 80),
]


def test_conntrack(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "read_flows", lambda in_any_state: TRACKED if in_any_state else [])
    *flows, report = replay(
        policy, "conntrack", "--node", "edge1", "--route", "::/0=eth0", "--route", "0.0.0.0/0=eth0",
        "--flows", code=1,
    )  # fmt: skip
    assert fates(report) == {"allowed": (3, 3), "denied": (1, 1), "DNATed": (1, 1)}
    assert [flow["dport"] for flow in flows if flow["fate"] == "denied"] == [81]


def test_conntrack_by_the_routes_of_this_host(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `lo` is sure to be here: from the host to itself, where no endpoint is."""
    here = [Tracked(6, ip_address("127.0.0.1"), ip_address("127.0.0.2"), 40000, 80)]
    monkeypatch.setattr(recorded, "read_flows", lambda in_any_state: here)
    (report,) = replay(policy, "conntrack", "--node", "edge1", code=3)
    assert fates(report) == {"no endpoint": (1, 1)}
    assert [row["place"] for row in report["rules"]] == ["raw-output", "filter-output", "mangle-postrouting"]


def test_replies_of_untracked_flows_are_asked_about(tmp_path: Path) -> None:
    """E-61: the answer of the cache is new to conntrack, and the host endpoint denies it."""
    path, capture = tmp_path / "untracked.yaml", str(tmp_path / "cache.pcap")
    question = FRAME / IP(src=OTHER, dst=HOST) / UDP(sport=40000, dport=11211)
    answer = FRAME / IP(src=HOST, dst=OTHER) / UDP(sport=11211, dport=40000)
    wrpcap(capture, [question, answer])
    path.write_text(UNTRACKED, encoding="utf-8")
    *flows, _ = replay(str(path), capture, "--node", "edge1", "--flows", code=1)
    assert [(flow["fate"], flow["by"]["place"]) for flow in flows] == [("denied", "replies at filter-output")]
    both = UNTRACKED.replace("[Ingress]", "[Ingress, Egress]")
    path.write_text(
        both + "  egress: [{action: Allow, protocol: UDP, source: {ports: [11211]}}]\n", encoding="utf-8"
    )
    (report,) = replay(str(path), capture, "--node", "edge1", code=0)
    assert fates(report) == {"allowed": (1, 2)}


# Against each packet's own way.

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
    rows = [
        {
            "src": dice.choice(addresses), "dst": dice.choice(addresses),
            "protocol": dice.choice([6, 17, 1 if version == 4 else 58]),
            "sport": dice.choice(ports), "dport": dice.choice(ports), "packets": 1,
            "ct": dice.choice([0, 0, 0, 2, 3]),
        }
        for _ in range(60)
    ]  # fmt: skip
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
            in_, out = dice.choice([("eth0", None), (None, "eth0"), ("eth0", "cali111"), ("cali222", "eth1")])
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
    one = table.connectivity(_packet(block, row, "filter-forward"))
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
    visits = list(walk(table.decide_packet, Packet(**fields)))
    denied = visits[-1].answer.verdict == "deny"
    assert (judged.state[row] == DENIED) == denied
    why = judge.reasons.all[judged.decider[row]]
    said = [visit for visit in visits if visit.answer.verdict != "continue"]
    decisive = said[-1] if said else next(visit for visit in visits if visit.packet.hook.startswith("filter"))
    answer = decisive.answer
    assert why == (
        decisive.packet.hook, answer.verdict, answer.tier, answer.policy, answer.rule, answer.reason
    )  # fmt: skip
    if judged.state[row] == NO_ENDPOINT:
        assert answer.endpoint is None


def test_whereabouts() -> None:
    where = Whereabouts(
        frozenset([ip_address(HOST)]),
        {ip_address(POD): "cali1"},
        ((ip_network("10.0.0.0/8"), "eth1"), (ip_network("0.0.0.0/0"), "eth0")),
    )
    found = {text: where.of(ip_address(text)) for text in (HOST, POD, "10.9.9.9", OTHER, "224.0.0.1", "::5")}
    assert found == {
        HOST: (True, None), POD: (False, "cali1"), "10.9.9.9": (False, "eth1"), OTHER: (False, "eth0"),
        "224.0.0.1": (True, None), "::5": (False, None),
    }  # fmt: skip
