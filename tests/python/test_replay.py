"""Recorded flows and what becomes of them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import labelgate
import pytest
from click.testing import CliRunner
from labelgate.analysis import recorded
from labelgate.analysis.whereabouts import Whereabouts
from labelgate.cli import cli
from labelgate.flow import Packet
from labelgate.lockout.flows import Flow as Tracked
from labelgate.lockout.many import by_column
from labelgate.path import hooks_of, walk
from recorded_traffic import FRAME, HOST, LINES, OTHER, PACKETS, POD, POLICY, fates, replay, tcp
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP
from scapy.packet import Packet as Bytes
from scapy.utils import wrpcap, wrpcapng

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


def test_a_capture_judged_by_a_node(recorded_policy: str, capture: str) -> None:
    *flows, report = replay(recorded_policy, capture, "--node", "edge1", "--flows", code=1)
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


def test_a_capture_judged_by_the_cluster(recorded_policy: str, capture: str) -> None:
    (report,) = replay(recorded_policy, capture, code=1)
    assert fates(report) == {
        "allowed": (1, 1), "denied": (1, 1), "no endpoint": (8, 11), "unknown direction": (1, 1),
    }  # fmt: skip


def test_from_the_start(recorded_policy: str, capture: str) -> None:
    """What was under way is new to conntrack: nothing allows port 9999."""
    (report,) = replay(recorded_policy, capture, "--node", "edge1", "--from-start", code=1)
    assert fates(report)["denied"] == (4, 5)


def test_gzip_and_standard_input(recorded_policy: str, capture: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labelgate", "replay", recorded_policy, "-", "-o", "json"]
    piped = subprocess.run(command, input=Path(capture).read_bytes(), capture_output=True, check=False)
    assert [json.loads(piped.stdout)] == replay(recorded_policy, capture, code=piped.returncode)
    zipped = tmp_path / "traffic.pcap.gz"
    zipped.write_bytes(gzip.compress(Path(capture).read_bytes()))
    assert replay(recorded_policy, str(zipped), code=1) == replay(recorded_policy, capture, code=1)


def test_against_another_policy(recorded_policy: str, capture: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.replace("ports: [80]", "ports: [81]"), encoding="utf-8")
    (report,) = replay(recorded_policy, capture, "--against", str(other), "--node", "edge1", code=1)
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
    (same,) = replay(recorded_policy, capture, "--against", recorded_policy, "--node", "edge1", code=0)
    assert same["differences"] == []
    shown = CliRunner().invoke(
        cli, ["replay", recorded_policy, capture, "--against", str(other), "--node", "edge1"]
    )
    assert f"{OTHER} > {HOST} TCP 81\n" in shown.stdout
    assert "3 flows have another verdict:\n" in shown.stdout


def test_interfaces_by_route(recorded_policy: str, capture: str) -> None:
    """Behind eth1 is no endpoint; the workload's recorded_policy stays."""
    (report,) = replay(recorded_policy, capture, "--node", "edge1", "--route", "0.0.0.0/0=eth1", code=1)
    assert fates(report) == {
        "allowed": (1, 1), "denied": (1, 1), "no endpoint": (6, 9), "unknown direction": (1, 1),
        "not of this node": (2, 2),
    }  # fmt: skip


def test_what_is_dnated_is_not_judged(recorded_policy: str, capture: str) -> None:
    """The pod's flows, one of which would be denied."""
    for place in ((), ("--node", "edge1")):
        (report,) = replay(
            recorded_policy, capture, "--dnated", "10.65.0.0/16", *place, code=1 if place else 3
        )
        assert fates(report)["DNATed"] == (2, 2)
    result = CliRunner().invoke(cli, ["replay", recorded_policy, capture, "--dnated", "10.65.0.1/16"])
    assert (result.exit_code, "--dnated:" in result.output) == (2, True)


PRE_DNAT = (
    POLICY
    + """\
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: guard}
spec:
  selector: role == 'edge'
  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, source: {nets: [192.0.2.6/32]}, destination: {ports: ["30000:32767"]}}
"""
)


def test_dnat_is_played(tmp_path: Path) -> None:
    """E-70: the node port ahead of DNAT, the pod's behind it, the way by where that is."""
    path, capture = tmp_path / "policy.yaml", str(tmp_path / "outer.pcap")
    path.write_text(PRE_DNAT, encoding="utf-8")
    wrpcap(capture, [
        tcp(OTHER, HOST, 30080), tcp(HOST, OTHER, 40000, "SA", sport=30080), tcp(OTHER, HOST, 30081),
        tcp("192.0.2.6", HOST, 30080), tcp(OTHER, "203.0.113.1", 80), tcp(OTHER, "203.0.113.1", 8081),
        FRAME / IP(src=OTHER, dst="203.0.113.1") / ICMP(type=8, id=7), tcp(OTHER, HOST, 80),
    ])  # fmt: skip
    dnat = [f"{HOST}:30080/tcp={POD}:8080", f"{HOST}:30081={POD}:8081", f"{HOST}:80/udp={POD}",
            f"203.0.113.1:80={POD}:8080", f"203.0.113.1={POD}"]  # fmt: skip
    options = [option for rule in dnat for option in ("--dnat", rule)]
    *flows, report = replay(str(path), capture, "--node", "edge1", *options, "--flows", code=1)
    found = {
        (flow["src"], flow["dst"], flow.get("dport", "icmp")): (
            flow.get("dnat"), flow["fate"], flow["by"]["place"], flow["by"]["policy"]
        )
        for flow in flows
    }  # fmt: skip
    web, guard = "NetworkPolicy/shop/web", "GlobalNetworkPolicy/guard"
    assert found == {
        (OTHER, HOST, 30080): (f"{POD}:8080", "allowed", "filter-forward", web),
        (OTHER, HOST, 30081): (f"{POD}:8081", "denied", "filter-forward", None),
        ("192.0.2.6", HOST, 30080): (f"{POD}:8080", "denied", "mangle-prerouting", guard),
        (OTHER, "203.0.113.1", 80): (f"{POD}:8080", "allowed", "filter-forward", web),
        (OTHER, "203.0.113.1", 8081): (POD, "denied", "filter-forward", None),
        (OTHER, "203.0.113.1", "icmp"): (POD, "denied", "filter-forward", None),
        (OTHER, HOST, 80): (None, "allowed", "filter-input", "GlobalNetworkPolicy/edge"),
    }
    # Workloads of a cluster are judged by what is behind DNAT, and nothing is left of what --dnated says.
    (report,) = replay(str(path), capture, *options, "--dnated", f"{HOST}/32", code=1)
    assert fates(report) == {"allowed": (3, 4), "denied": (3, 3), "DNATed": (1, 1)}


def test_dnat_back_out_of_the_same_interface(tmp_path: Path) -> None:
    """E-72: a node port whose backend is where clients come in; a pod's own service."""
    path, capture, elsewhere = tmp_path / "policy.yaml", str(tmp_path / "hairpin.pcap"), "192.0.2.99"
    path.write_text(PRE_DNAT, encoding="utf-8")
    wrpcap(capture, [
        tcp("192.0.2.6", HOST, 30080), tcp(OTHER, HOST, 30080), tcp(POD, "203.0.113.1", 80),
        tcp(OTHER, "203.0.113.2", 80), tcp("192.0.2.6", elsewhere, 30080),
    ])  # fmt: skip
    dnat = [
        f"{HOST}:30080/tcp={elsewhere}:8080",
        f"203.0.113.1:80={POD}:8081",
        f"203.0.113.2:80={elsewhere}:80",
    ]
    options = [option for rule in dnat for option in ("--dnat", rule)]
    *flows, _ = replay(str(path), capture, "--node", "edge1", *options, "--flows", code=1)
    found = {(flow["src"], flow["dst"]): (flow["fate"], flow["by"] and flow["by"]["place"]) for flow in flows}
    assert found == {
        ("192.0.2.6", HOST): ("denied", "mangle-prerouting"),
        (OTHER, HOST): ("allowed", "filter-forward"),
        (POD, "203.0.113.1"): ("denied", "filter-forward"),
        (OTHER, "203.0.113.2"): ("allowed", "filter-forward"),
        ("192.0.2.6", elsewhere): ("not of this node", None),  # Nobody translates it: neighbours talk.
    }


def captured(path: str, interface: str, way: int, packet: Bytes) -> str:
    """A pcapng file of an interface; `way`: 0 not told, 1 in, 2 out."""
    packet.sniffed_on, packet.direction = interface, way
    wrpcapng(path, packet)
    return path


ANYBODY = tcp(OTHER, "203.0.113.9", 80)


@pytest.mark.parametrize(
    ("interface", "way", "packet", "fate"),
    [
        ("cali1", 1, ANYBODY, "spoofed source"),
        ("cali1", 0, ANYBODY, "spoofed source"),
        ("cali1", 1, tcp(HOST, OTHER, 80), "spoofed source"),
        ("cali1", 0, tcp(HOST, OTHER, 80), "denied"),  # The node may have sent it: it is judged so.
        ("cali1", 1, tcp(OTHER, POD, 8080), "spoofed source"),
        ("cali1", 0, tcp(OTHER, POD, 8080), "allowed"),
        ("cali1", 2, tcp(OTHER, POD, 8080), "allowed"),
        ("cali1", 1, tcp(POD, OTHER, 8080), "denied"),
        ("cali9", 1, ANYBODY, "not of this node"),
        ("eth0", 1, ANYBODY, "not of this node"),
    ],
)
def test_what_a_workload_sends_with_the_source_of_somebody_else(
    recorded_policy: str, tmp_path: Path, interface: str, way: int, packet: Bytes, fate: str
) -> None:
    """E-30, where the capture tells the interface: by its name in the file, or by the option."""
    path = captured(str(tmp_path / "named.pcapng"), interface, way, packet.copy())
    node, code = ["--node", "edge1"], {"allowed": 0, "not of this node": 3}.get(fate, 1)
    (report,) = replay(recorded_policy, path, *node, code=code)
    assert fates(report) == {fate: (1, 1)}
    if way == 0:
        wrpcap(path, [packet])
        assert replay(recorded_policy, path, *node, "--captured-on", interface, code=code) == [report]
        # Without a name addresses alone decide.
        unnamed = CliRunner().invoke(cli, ["replay", recorded_policy, path, *node, "-o", "json"])
        assert "spoofed source" not in fates(json.loads(unnamed.stdout.splitlines()[0]))


def test_one_hook(recorded_policy: str, capture: str) -> None:
    (report,) = replay(
        recorded_policy, capture, "--node", "edge1", "--in", "eth0", "--hook", "filter-input", code=1
    )
    assert {row["place"] for row in report["rules"]} == {"filter-input"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--in", "eth0"), "say which by --node"),
        (("--captured-on", "cali1"), "say which by --node"),
        (("--node", "nobody"), "node: found `nobody`, expected one that an endpoint is on: edge1"),
        (
            ("--node", "edge1", "--captured-on", "cali9"),
            "--captured-on: found `cali9`, expected an interface that endpoints of the node, --host, "
            "--route, --in or --out name: cali1, eth0",
        ),
        (("--node", "edge1", "--hook", "filter-input"), "--hook needs"),
        (("--node", "edge1", "--route", "eth0"), "found `eth0`, expected NET=INTERFACE"),
        (("--flows",), "--flows needs -o json"),
        (("--dnat", HOST), f"--dnat: found `{HOST}`, expected ADDRESS[:PORT][/PROTOCOL]=ADDRESS[:PORT]"),
        (("--dnat", f"{HOST}:0={POD}"), "--dnat: found port `0`, expected a number 1..65535"),
        (("--dnat", f"{HOST}/tpc={POD}"), "--dnat: found protocol `tpc`, expected one of icmp, tcp"),
        (("--dnat", f"{HOST}:80/icmp={POD}"), "expected a protocol that has ports"),
        (("--dnat", f"{HOST}={POD}:80"), "expected a port on the left, too"),
        (("--dnat", f"{HOST}=::1"), "expected addresses of one IP version"),
    ],
)
def test_usage(recorded_policy: str, capture: str, arguments: Sequence[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["replay", recorded_policy, capture, *arguments])
    assert (result.exit_code, message in result.output) == (2, True), result.output


@pytest.mark.parametrize("name", ["-", "flows.log"])
def test_what_is_no_capture_may_have_another_format(recorded_policy: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}\n")
    path = name if name == "-" else str(tmp_path / name)
    command = [sys.executable, "-P", "-m", "labelgate", "replay", recorded_policy, path]
    done = subprocess.run(command, input="{}\n", capture_output=True, text=True, timeout=60, check=False)
    text = "found neither pcap nor pcapng (plain or gzip); `--format jsonl` or `csv` reads flow logs"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, f"Error: {path}: {text}")


def test_what_is_no_capture(recorded_policy: str, tmp_path: Path) -> None:
    for content in (b"no capture", b"\xd4\xc3\xb2\xa1" + bytes(4)):
        path = tmp_path / "broken"
        path.write_bytes(content)
        result = CliRunner().invoke(cli, ["replay", recorded_policy, str(path)])
        assert (result.exit_code, "found neither pcap nor pcapng" in result.output) == (3, True)
    result = CliRunner().invoke(cli, ["replay", recorded_policy, str(tmp_path / "nothing")])
    assert (result.exit_code, "No such file" in result.output) == (3, True)


def test_what_was_read_of_a_damaged_capture_counts(
    recorded_policy: str, capture: str, tmp_path: Path
) -> None:
    """Flows that were under way where it breaks off, too; a file that ends in a packet is no damage."""
    whole, path = Path(capture).read_bytes(), tmp_path / "damaged.pcap"
    (counted,) = replay(recorded_policy, capture, code=1)
    path.write_bytes(whole + b"\xff" * (1 << 23))
    for more in ([], ["--from-start"], ["--max-flows", "2"]):
        result = CliRunner().invoke(cli, ["replay", recorded_policy, str(path), "-o", "json", *more])
        report = json.loads(result.stdout)
        assert (result.exit_code, report["read"]["packets"]) == (3, len(PACKETS))
        assert report["broken"].startswith("behind packet 15: byte ")
        assert f"Error: {path}: {report['broken']}; what was read before is counted above" in result.stderr
        if not more:
            assert fates(report) == fates(counted)
    path.write_bytes(gzip.compress(whole)[:-9])
    result = CliRunner().invoke(cli, ["replay", recorded_policy, str(path)])
    assert (result.exit_code, f"Error: {path}: behind packet " in result.output) == (3, True)
    path.write_bytes(whole + whole[24:60])
    (cut,) = replay(recorded_policy, str(path), code=1)
    words = "packets: the file ends inside one; all before it count"
    assert (cut["read"][words], fates(cut)) == (1, fates(counted))


def test_interfaces_and_sections_of_one_file(recorded_policy: str, tmp_path: Path) -> None:
    """A pcapng file after the other is one of two sections; each numbers its interfaces anew."""
    path, parts = tmp_path / "joined.pcapng", []
    for interface, packet in (("cali1", ANYBODY), ("eth0", tcp(OTHER, POD, 8080)), ("cali1", ANYBODY)):
        captured(str(path), interface, 1, packet.copy())
        parts.append(path.read_bytes())
    path.write_bytes(gzip.compress(parts[0]) + gzip.compress(parts[1]) + gzip.compress(parts[2]))
    (report,) = replay(recorded_policy, str(path), "--node", "edge1", code=1)
    assert fates(report) == {"spoofed source": (1, 2), "allowed": (1, 1)}


@pytest.mark.parametrize(
    ("form", "text", "found"),
    [
        ("jsonl", "", "no flow"),
        ("csv", "", "no flow"),
        ("jsonl", json.dumps(LINES), "1 lines that cannot be read"),
        ("jsonl", json.dumps(LINES[0] | {"dst": OTHER}), "1 no endpoint"),
        ("capture", "", "no flow"),
        ("capture", "ARP", "no flow"),
        ("capture", "elsewhere", "1 not of this node"),
    ],
)
def test_nothing_judged_is_no_answer(
    recorded_policy: str, tmp_path: Path, form: str, text: str, found: str
) -> None:
    path = tmp_path / "flows"
    path.write_text(text, encoding="utf-8")
    if form == "capture":
        wrpcap(str(path), {"ARP": [FRAME / ARP()], "elsewhere": [PACKETS[12]]}.get(text, []), linktype=1)
    place = ["--node", "edge1"] if text == "elsewhere" else []
    result = CliRunner().invoke(cli, ["replay", recorded_policy, str(path), "--format", form, *place])
    assert (result.exit_code, f"no flow was judged: found {found};" in result.output) == (3, True), (
        result.output
    )


TRACKED = [
    Tracked(6, ip_address(OTHER), ip_address(HOST), 40000, 80),
    Tracked(6, ip_address(OTHER), ip_address(HOST), 40001, 81),
    Tracked(1, ip_address(OTHER), ip_address(HOST), icmp=(8, 0, 7)),
    Tracked(6, ip_address(OTHER), ip_address(HOST), 40001, 30080, ip_address(POD), 8080),
    Tracked(6, ip_address(OTHER), ip_address(HOST), 40001, 30081, ip_address(POD), 8081),
    Tracked(6, ip_address("2001:db8::5"), ip_address("2001:db8::10"), 40000, 80),
]


def test_conntrack(recorded_policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        recorded, "read_connections", lambda in_any_state: by_column(TRACKED if in_any_state else [])
    )
    *flows, report = replay(
        recorded_policy, "conntrack", "--node", "edge1", "--route", "::/0=eth0", "--route", "0.0.0.0/0=eth0",
        "--flows", code=1,
    )  # fmt: skip
    assert fates(report) == {"allowed": (4, 4), "denied": (2, 2)}
    assert [flow["dport"] for flow in flows if flow["fate"] == "denied"] == [81, 30081]
    assert [flow["dnat"] for flow in flows if "dnat" in flow] == [f"{POD}:8080", f"{POD}:8081"]


def test_conntrack_by_the_routes_of_this_host(recorded_policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `lo` is sure to be here: from the host to itself, where no endpoint is."""
    here = by_column([Tracked(6, ip_address("127.0.0.1"), ip_address("127.0.0.2"), 40000, 80)])
    monkeypatch.setattr(recorded, "read_connections", lambda in_any_state: here)
    (report,) = replay(recorded_policy, "conntrack", "--node", "edge1", code=3)
    assert fates(report) == {"no endpoint": (1, 1)}
    assert [row["place"] for row in report["rules"]] == [*hooks_of(None, "lo"), *hooks_of("lo", None)]


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


def test_whereabouts() -> None:
    where = Whereabouts(
        frozenset([ip_address(HOST)]),
        {ip_address(POD): "cali1"},
        ((ip_network("10.0.0.0/8"), "eth1"), (ip_network("0.0.0.0/0"), "eth0")),
    )
    texts = (HOST, POD, "10.9.9.9", OTHER, "224.0.0.1", "::5", "ff02::1")
    found = {text: where.of(ip_address(text)) for text in texts}
    assert found == {
        HOST: (True, "lo"), POD: (False, "cali1"), "10.9.9.9": (False, "eth1"), OTHER: (False, "eth0"),
        "224.0.0.1": (True, "eth0"), "::5": (False, None), "ff02::1": (True, None),
    }  # fmt: skip


def test_a_default_route_does_not_lead_to_link_local_addresses() -> None:
    """Each interface has its own: a neighbour of a workload's is not judged as one of the outer interface."""
    routes = ((ip_network("::/0"), "eth0"), (ip_network("0.0.0.0/0"), "eth0"))
    texts = ("fe80::1", "169.254.1.1", "2001:db8::1")
    found = [Whereabouts(routes=routes).of(ip_address(text)) for text in texts]
    assert found == [(False, None), (False, "eth0"), (False, "eth0")]
    said = Whereabouts(routes=(*routes, (ip_network("fe80::/64"), "eth1")))
    assert said.of(ip_address("fe80::1")) == (False, "eth1")


LOOPBACK = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: all, labels: {role: edge}}
spec: {node: edge1, interfaceName: "*", expectedIPs: [198.51.100.10]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: out}
spec:
  selector: role == 'edge'
  types: [Ingress, Egress]
  ingress: [{action: Allow, destination: {ports: [8081]}, protocol: TCP}]
  egress: [{action: Allow}]
"""


def replayed_on_the_node(tmp_path: Path, policy: str, more: str = "", *, code: int, **flow: object) -> str:
    """What becomes of one flow, and where."""
    path, flows, config = tmp_path / "policy.yaml", tmp_path / "flows.jsonl", tmp_path / "config.yaml"
    path.write_text(policy)
    config.write_text(more)
    flows.write_text(json.dumps({"src": HOST, "dst": HOST, "protocol": 6, "sport": 4, **flow}))
    options = ("--node", "edge1", "--config", str(config), "--flows")
    answer, _ = replay(str(path), str(flows), *options, code=code)
    return f"{answer['fate']} at {answer['by']['place']}" if answer["by"] else answer["fate"]


def test_what_stays_on_the_node_comes_in_over_lo(tmp_path: Path) -> None:
    """E-47: a `*` host endpoint governs what comes in there, too."""
    for address in (HOST, "127.0.0.1"):
        ends: dict[str, object] = {"src": address, "dst": address}
        for dport, fate, code in ((8080, "denied", 1), (8081, "allowed", 0)):
            said = replayed_on_the_node(tmp_path, LOOPBACK, code=code, dport=dport, **ends)
            assert said == f"{fate} at filter-input"
    exempt = replayed_on_the_node(tmp_path, LOOPBACK, "exemptLoopback: true", code=3, dport=8080)
    assert exempt == "no endpoint at filter-input"


def test_multicast_of_the_node_goes_out(tmp_path: Path) -> None:
    policy = LOOPBACK.replace('"*"', "eth0")
    said = replayed_on_the_node(tmp_path, policy, code=0, dst="224.0.0.251", protocol=17, dport=5353)
    assert said == "allowed at filter-output"


@pytest.mark.parametrize("types", ["[Egress]", "[Ingress, Egress]"])
def test_replies_over_lo_take_both_ways_as_well(tmp_path: Path, types: str) -> None:
    """Untracked there: the replies are asked about like what they answer."""
    policy = (
        LOOPBACK.replace('"*"', "lo")
        .replace("types: [Ingress, Egress]", f"types: {types}\n  doNotTrack: true\n  applyOnForward: true")
        .replace("  ingress: [{action: Allow, destination: {ports: [8081]}, protocol: TCP}]\n", "")
    )
    fate = replayed_on_the_node(tmp_path, policy, code=1, dport=8080, replies=1)
    assert fate == "denied at filter-input"
    policy = policy.replace("  egress", "  ingress: [{action: Allow}]\n  egress")
    is_both = "Ingress" in types
    said = replayed_on_the_node(tmp_path, policy, code=0 if is_both else 1, dport=8080, replies=1)
    assert said.partition(" ")[0] == ("allowed" if is_both else "denied")


def test_conntrack_knows_what_comes_back_over_lo(tmp_path: Path) -> None:
    """It is tracked since raw OUTPUT, and no rule takes it out of there; the accept mark counts (E-48)."""
    path = tmp_path / "policy.yaml"
    untracked = UNTRACKED.partition("---")[2].replace("UDP", "TCP")
    path.write_text(LOOPBACK.replace('"*"', "lo") + "---" + untracked)
    table = labelgate.load(path).compile(node="edge1")
    packet = Packet("raw-output", ip_address(HOST), ip_address(HOST), 6, 40000, 11211, out="lo")
    visits = list(walk(table.decide_packet, packet))
    assert [(visit.packet.ct, visit.packet.accepted, visit.answer.verdict) for visit in visits[3:]] == [
        ("new", False, "allow-notrack"), ("new", True, "continue"), ("new", True, "allow"),
    ]  # fmt: skip
