"""Packets a second that `labelgate replay` reads, puts to flows and judges, on one core: by a node, by a cluster.

    .venv/bin/python benches/replay.py [--least PACKETS_A_SECOND] [--packets N]

The capture is made here: TCP connections of 20 packets, interleaved as on a busy server, one in five denied.
Every count is checked.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import sys
import tempfile
import time
from pathlib import Path

import labelgate
from labelgate.analysis.node import NodeJudge
from labelgate.analysis.recorded import from_capture
from labelgate.analysis.replay import ALLOWED, DENIED, ClusterJudge, Judge, Tally
from labelgate.analysis.whereabouts import Whereabouts
from labelgate.snapshot import Snapshot

PACKETS_OF_FLOW, AT_A_TIME = 20, 1000
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
POLICY = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0, expectedIPs: [198.51.100.10]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec:
  selector: role in {'edge', 'web'}
  ingress: [{action: Allow, protocol: TCP, destination: {ports: ["8000:8003"]}}]
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {role: web}}
spec: {node: edge2, interfaceName: cali1, ipNetworks: [198.51.100.10/32]}
"""


def frame(flow: int, step: int) -> bytes:
    """One packet of a connection: 74 bytes of Ethernet."""
    client, server = 0x0A000000 + flow, 0xC633640A
    sport, dport = 1024 + flow % 60000, 8000 + flow % 5
    flags = SYN if step == 0 else SYN_ACK if step == 1 else ACK
    ends = (client, server, sport, dport) if step % 2 == 0 else (server, client, dport, sport)
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 60, 0, 0x4000, 64, 6, 0, ends[0], ends[1])
    return bytes(12) + b"\x08\0" + ip + struct.pack(">HHIIBB", *ends[2:], 0, 0, 0xA0, flags) + bytes(26)


def capture(packets: int) -> bytes:
    """A pcap file of so many packets, a microsecond apart."""
    parts = [struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    number = 0
    for first in range(0, packets // PACKETS_OF_FLOW, AT_A_TIME):
        flows = range(first, min(first + AT_A_TIME, packets // PACKETS_OF_FLOW))
        for step in range(PACKETS_OF_FLOW):
            for flow in flows:
                data = frame(flow, step)
                parts.append(struct.pack("<IIII", *divmod(number, 10**6), len(data), len(data)) + data)
                number += 1
    return b"".join(parts)


def replayed(path: Path, judge: Judge) -> tuple[Tally, float]:
    """The counts, and the processor time of it all."""
    begun, tally = time.process_time(), Tally()
    for block in from_capture(str(path)).blocks:
        tally.add(block, judge.judge(block))
    return tally, time.process_time() - begun


def judges(snapshot: Snapshot) -> dict[str, Judge]:
    """With `--node`, and without."""
    return {
        "node": NodeJudge(snapshot.compile(node="edge1"), Whereabouts(), in_="eth0"),
        "cluster": ClusterJudge(snapshot.compile(node=None)),
    }


def rate(path: Path, judge: Judge, flows: int, rounds: int) -> float:
    """Packets a second, the best of some rounds; exits if a count is wrong."""
    seconds = []
    for _ in range(rounds):
        tally, took = replayed(path, judge)
        counts = [int(tally.states[state][0]) for state in (ALLOWED, DENIED)]
        expected = [flows - flows // 5, flows // 5]
        if counts != expected or tally.states[:, 1].sum() != flows * PACKETS_OF_FLOW:
            sys.exit(f"{path.name}: {counts}: not what the capture holds")
        seconds.append(took)
    return flows * PACKETS_OF_FLOW / min(seconds)


def main() -> None:
    """Makes the capture, replays it, checks and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--least", type=float, default=0, help="fail below so many packets a second (plain)")
    parser.add_argument("--packets", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    flows = options.packets // PACKETS_OF_FLOW
    with tempfile.TemporaryDirectory() as folder:
        policy, plain, zipped = (
            Path(folder) / name for name in ("policy.yaml", "plain.pcap", "plain.pcap.gz")
        )
        policy.write_text(POLICY, encoding="utf-8")
        plain.write_bytes(capture(options.packets))
        zipped.write_bytes(gzip.compress(plain.read_bytes(), 6))
        rates = {}
        for place, judge in judges(labelgate.load(policy)).items():
            for path in (plain, zipped):
                rates[place, path.suffix] = found = rate(path, judge, flows, options.rounds)
                print(f"{place}, {path.name}: {found:,.0f} packets a second ({flows:,} flows)")
    if min(found for (_, suffix), found in rates.items() if suffix == ".pcap") < options.least:
        sys.exit(f"below {options.least:,.0f}")


if __name__ == "__main__":
    main()
