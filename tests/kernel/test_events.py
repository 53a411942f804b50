"""What the daemon counts and tells of real packets: `labelgate rules` and `labelgate events`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import kit
import policies
from labelgate.control import ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.world import CLIENT, EDGE, EDGE_OUTSIDE, OUTSIDE, STRANGER, WEB_POD, World, twin
from labelgate.events import parse
from labelgate.processors import Workers
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, PadN
from scapy.utils import rdpcap

RULES = """
  ingress:
  - {action: Log, protocol: UDP, destination: {ports: [7000]}}
  - {action: Deny, protocol: UDP, destination: {ports: [7000, 7001]}}
  - {action: Deny, protocol: UDP, destination: {ports: [7002]}}
  - {action: Pass, protocol: UDP, destination: {ports: [7003]}}
"""
POLICY = f"{policies.host()}---{policies.policy('guard', RULES)}"
STAGED = f"""{POLICY.rstrip()}
  - {{action: Allow, protocol: UDP, destination: {{ports: [7005]}}}}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {{name: tight}}
spec:
  order: 5
  selector: role == 'edge'
  ingress:
  - {{action: Deny, protocol: UDP, destination: {{ports: [7005]}}}}
"""
FLOOD, SECOND, PASSED = 600, 400, 150
RECORDED = 700
END = "end of tier (E-21)"


def counts(daemon: Daemon) -> dict[tuple[str | None, int | None, str], tuple[int | None, str | None]]:
    """Packets and why they are not all counted, by policy, rule and reason."""
    return {
        (rule["policy"], rule["rule"], rule["reason"]): (rule["packets"], rule["uncounted"])
        for rule in ask(daemon.socket, "rules")["rules"]
    }


def told(daemon: Daemon, expression: str = "generation=1") -> list[dict[str, Any]]:
    """What `labelgate events` shows."""
    answer = ask(daemon.socket, "events")
    assert answer["next"] == len(answer["events"])
    return list(filter(parse(expression), answer["events"]))


def flood(world: World, port: int, number: int) -> None:
    """UDP datagrams, not faster than the queues take them."""

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((STRANGER, 5000))
            for left in range(number):
                sender.sendto(b"", (EDGE_OUTSIDE, port))
                if left % 50 == 0:
                    time.sleep(0.005)

    world.call(OUTSIDE, work)


def metrics() -> str:
    """Asked on the edge node itself."""
    with urllib.request.urlopen("http://127.0.0.1:9199/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_counts_are_exact_over_a_reload(world: World, tmp_path: Path) -> None:
    guard = "GlobalNetworkPolicy/guard"
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    with Daemon(world, path, backend="nft") as daemon:
        flood(world, 7000, FLOOD)
        flood(world, 7003, PASSED)
        kit.inject(world, OUTSIDE, kit.ip(CLIENT, EDGE_OUTSIDE) / UDP(sport=5000, dport=7777))
        assert kit.wait_until(lambda: daemon.verdicts("filter-input").get("deny", 0) > FLOOD + PASSED)
        found = counts(daemon)
        # What a tier passes is for the profiles, of which there are none; so is what the host sends, and it
        # solicits routers.
        assert (found.pop((None, None, "no profile allows (E-25)"))[0] or 0) >= PASSED
        # Nor are the neighbours quiet.
        assert (found.pop((None, None, END))[0] or 0) >= 1
        assert found == {
            (guard, 0, "rule (M-53)"): (FLOOD, None),
            (guard, 1, "rule (M-51)"): (FLOOD, None),
            (guard, 2, "rule (M-51)"): (0, None),
            (guard, 3, "rule (M-52)"): (PASSED, None),
        }
        # A rule more at the top, one less, and one that is another one now.
        changed = RULES.replace("- {action: Log", "- {action: Deny, protocol: SCTP}\n  - {action: Log", 1)
        changed = changed.replace("ports: [7002]", "ports: [7002, 7004]")
        path.write_text(f"{policies.host()}---{policies.policy('guard', changed)}", encoding="utf-8")
        daemon.reload()
        flood(world, 7001, SECOND)
        assert kit.wait_until(lambda: counts(daemon)[guard, 2, "rule (M-51)"][0] == FLOOD + SECOND)
        found = counts(daemon)
        assert found[guard, 0, "rule (M-51)"] == (0, None)
        assert found[guard, 1, "rule (M-53)"] == (FLOOD, None)
        assert found[guard, 3, "rule (M-51)"] == (0, None)
        code, out, _ = kit.labelgate(daemon, "rules", "--unused", "0s")
        assert (code, out.count("rule 0"), out.count("rule 3")) == (1, 1, 1)
        assert kit.labelgate(daemon, "rules", "--unused", "1d")[0] == 0, "not counted for so long"
        assert kit.labelgate(daemon, "rules", "--unused", "long")[0] == 2
        assert f"{FLOOD + SECOND}" in kit.labelgate(daemon, "rules", "--top", "1")[1]


def test_a_flood_hides_nothing(world: World, tmp_path: Path) -> None:
    path, file, pcap = tmp_path / "policy.yaml", tmp_path / "events.jsonl", tmp_path / "denied.pcapng"
    path.write_text(STAGED, encoding="utf-8")
    options = ("--config", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text(
        f"events: {{rate: 5, recorder: {RECORDED}, file: {file}}}\nmetrics: {{listen: '127.0.0.1:9199'}}\n",
        encoding="utf-8",
    )
    with Daemon(world, path, backend="nft", options=options) as daemon:
        flood(world, 7000, FLOOD)
        kit.inject(world, OUTSIDE, kit.ip(CLIENT, EDGE_OUTSIDE) / UDP(sport=5001, dport=7002))
        flood(world, 7000, FLOOD)
        kit.inject(world, OUTSIDE, kit.ip(CLIENT, EDGE_OUTSIDE) / UDP(sport=5002, dport=7777))
        assert kit.wait_until(lambda: len(told(daemon, "dport=7777")) == 1)

        (rare,) = told(daemon, f"dport=7002 and src={CLIENT}/24")
        assert {name: rare[name] for name in ("kind", "verdict", "hook", "in", "out", "generation")} == {
            "kind": "deny", "verdict": "deny", "hook": "filter-input", "in": "eth0", "out": None,
            "generation": 1,
        }  # fmt: skip
        assert (rare["endpoint"], rare["tier"]) == ("HostEndpoint/edge1-out", "default")
        assert (rare["policy"], rare["direction"], rare["rule"]) == (
            "GlobalNetworkPolicy/guard",
            "Ingress",
            2,
        )
        (end,) = told(daemon, "kind=deny and dport=7777")
        assert (end["policy"], end["rule"], end["reason"]) == (None, None, END)
        logged, denied = (told(daemon, f"dport=7000 and kind={kind}") for kind in ("log", "deny"))
        assert {event["rule"] for event in logged} == {0}
        assert {event["rule"] for event in denied} == {1}
        assert 5 <= len(denied) < FLOOD

        kit.inject(world, OUTSIDE, kit.ip(CLIENT, EDGE_OUTSIDE) / UDP(sport=5004, dport=7005))
        assert kit.wait_until(lambda: len(told(daemon, "dport=7005")) == 1)
        (staged,) = told(daemon, "kind=staged-deny")
        assert (staged["policy"], staged["rule"], staged["verdict"], staged["endpoint"]) == (
            "StagedGlobalNetworkPolicy/tight", 0, "allow", "HostEndpoint/edge1-out",
        )  # fmt: skip
        assert "labelgate_staged_would_deny_total 1.0\n" in world.call(EDGE, metrics)

        everything = told(daemon)
        lines = file.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines][: len(everything)] == everything
        assert kit.labelgate(daemon, "events", "--pcap", str(pcap), "--filter", "protocol=udp")[0] == 0
        # All that was denied lately, told or not, and as much of what came before as there is room for.
        packets = rdpcap(str(pcap))
        ports = Counter(packet[UDP].dport for packet in packets)
        assert {port for port in ports if port >= 7000} == {7000, 7002, 7777}
        assert (ports[7002], ports[7777]) == (1, 1)
        assert FLOOD <= ports[7000] <= RECORDED * Workers.planned(None, "cpu", ()).count
        (kept,) = (packet for packet in packets if packet[UDP].dport == 7002)
        assert (kept.src, kept.dst, kept[UDP].sport) == (CLIENT, EDGE_OUTSIDE, 5001)
        assert b"GlobalNetworkPolicy/guard Ingress rule 2" in pcap.read_bytes()

        # Who sends it chooses how much lies ahead of its ports: here more than is kept of it.
        far = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(92))]) / UDP(sport=5006, dport=7010)
        kit.inject(world, OUTSIDE, kit.ip(twin(CLIENT), twin(EDGE_OUTSIDE)) / far)
        assert kit.wait_until(lambda: len(told(daemon, "dport=7010")) == 1)
        wanted = ("events", "--pcap", str(pcap), "--filter", f"src={twin(CLIENT)} and dport=7010")
        assert kit.labelgate(daemon, *wanted)[0] == 0
        assert len(rdpcap(str(pcap))) == 1
        assert f" udp [{twin(CLIENT)}]:5006 > [{twin(EDGE_OUTSIDE)}]:7010 ".encode() in pcap.read_bytes()

        code, _, err = kit.labelgate(daemon, "events", "--filter", "port=80")
        assert (code, "found `port`, expected a field" in err) == (2, True)
        assert "not told since the daemon started" in kit.labelgate(daemon, "events")[2]
        file.rename(tmp_path / "moved")
        daemon.reload()
        kit.inject(world, OUTSIDE, kit.ip(CLIENT, EDGE_OUTSIDE) / UDP(sport=5003, dport=7002))
        assert kit.wait_until(lambda: "5003" in (file.read_text(encoding="utf-8") if file.exists() else ""))


BOTH = f"""{policies.PODS}---{policies.host()}---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: both}}
spec:
  selector: has(role) || has(app)
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {{action: Log, protocol: UDP, destination: {{ports: [7000]}}}}
  - {{action: Allow, protocol: UDP, destination: {{ports: [7000]}}}}
"""


def test_each_chain_that_has_the_rule_is_told_and_events_are_followed(world: World, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(BOTH, encoding="utf-8")
    with Daemon(world, path, backend="nft") as daemon:
        command = [sys.executable, "-m", "labelgate", "events", "--follow", "-o", "json"]
        command += ["--filter", "kind=log and dport=7000", "--socket", daemon.socket]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            try:
                for sport in (5001, 5002):
                    packet = kit.ip(CLIENT, WEB_POD) / UDP(sport=sport, dport=7000)
                    kit.inject(world, OUTSIDE, packet)
                    lines = [json.loads(follower.stdout.readline()) for _ in range(2)]
                    met = {(line["endpoint"], line["stage"], line["sport"], line["rule"]) for line in lines}
                    assert met == {
                        ("HostEndpoint/edge1-out", "from-hep", sport, 0),
                        ("WorkloadEndpoint/shop/web", "workload-ingress", sport, 0),
                    }
                follower.send_signal(signal.SIGINT)
                assert follower.communicate(timeout=60) == ("", "")
                assert follower.returncode == 0
            finally:
                follower.kill()
        found = counts(daemon)
        assert found["GlobalNetworkPolicy/both", 0, "rule (M-53)"] == (4, None)
        assert found["GlobalNetworkPolicy/both", 1, "rule (M-50)"] == (4, None)


def test_counts_outlive_the_daemon(world: World, tmp_path: Path) -> None:
    guard, path = "GlobalNetworkPolicy/guard", tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")

    def denied(daemon: Daemon) -> int | None:
        return counts(daemon)[guard, 1, "rule (M-51)"][0]

    with Daemon(world, path, backend="nft") as daemon:
        flood(world, 7001, 100)
        assert kit.wait_until(lambda: denied(daemon) == 100)
        since = ask(daemon.socket, "rules")["since"]
    with Daemon(world, path, backend="nft") as daemon:
        assert denied(daemon) == 100
        flood(world, 7001, 20)
        assert kit.wait_until(lambda: denied(daemon) == 120)
        with Daemon(world, path, backend="nft", options=("--replace",)) as successor:
            assert kit.wait_until(lambda: daemon.process.poll() is not None)
            flood(world, 7001, 3)
            assert kit.wait_until(lambda: denied(successor) == 123)
            assert ask(successor.socket, "rules")["since"] == since
            assert kit.labelgate(successor, "rules", "--unused", "1h")[0] == 0, "not counted for so long"
