"""How long `reach` takes over a cluster: processor seconds, beside the same questions asked one by one.

`.venv/bin/python benches/reach.py [--pods 300] [--policies 100] [--least QUESTIONS_A_SECOND]`. All services
that rules tell apart, then one port alone. Of the questions one by one, --sampled are asked, and every answer
is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import numpy as np
from labelgate.analysis.reach import Reach, port_service, reach
from labelgate.flow import Packet
from labelgate.resources import load_text
from labelgate.snapshot import Snapshot

NAMESPACES, APPS, TCP = 10, 30, 6
CALICO = "projectcalico.org/v3"


def cluster(pods: int, policies: int) -> Iterator[dict[str, Any]]:
    """Each application lets in another one at a few ports, and a network; it asks a third one."""
    for n in range(pods):
        nets = [f"10.65.{n >> 8}.{n & 255}/32"]
        spec = {"node": f"n{n % 4}", "interfaceName": f"cali{n}", "ipNetworks": nets}
        labels = {"app": f"a{n % APPS}", "tier": f"t{n % 3}"}
        metadata = {"name": f"w{n}", "namespace": f"ns{n % NAMESPACES}", "labels": labels}
        yield {"apiVersion": CALICO, "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}
    for n in range(policies):
        asks, asked = f"app == 'a{n * 7 % APPS}'", f"app == 'a{n * 11 % APPS}'"
        ports = {"ports": [8000 + n % 20, f"{9000 + n}:{9004 + n}"]}
        ingress = [
            {"action": "Allow", "protocol": "TCP", "source": {"selector": asks}, "destination": ports},
            {"action": "Allow", "protocol": "UDP", "source": {"nets": [f"192.0.{n % 50}.0/24"]}},
        ]
        egress = [{"action": "Allow", "destination": {"selector": f"{asked} || tier == 't{n % 3}'"}}]
        spec = {"selector": f"app == 'a{n % APPS}'", "order": n, "ingress": ingress, "egress": egress}
        kind = {"apiVersion": CALICO, "kind": "GlobalNetworkPolicy"}
        yield {**kind, "metadata": {"name": f"p{n}"}, "spec": spec}


def packet(found: Reach, source: int, destination: int, service: int) -> Packet:
    """The question that an answer is of."""
    sample = found.services.samples[service]
    src, dst = (ip_address(found.peers[at].addresses[4]) for at in (source, destination))
    protocol, sport, dport = (int(sample[name]) for name in ("protocol", "sport", "dport"))
    shown: dict[str, Any] = {"sport": sport, "dport": dport}
    if sample["fragment"]:
        shown = {}
    elif protocol in (1, 58):
        shown = {"icmp_type": dport >> 8, "icmp_code": dport & 255}
    return Packet(hook="filter-forward", src=src, dst=dst, protocol=protocol, **shown)


def one_by_one(snapshot: Snapshot, found: Reach, sampled: int) -> float:
    """Seconds for a question, of some between workloads; exits where an answer differs."""
    dice, table = np.random.default_rng(1), snapshot.compile(node=None)
    workloads = [at for at, one in enumerate(found.peers) if one.kind == "workload"]
    asked = [
        (int(source), int(destination), int(dice.integers(len(found.services))))
        for source, destination in dice.choice(workloads, (sampled, 2))
        if source != destination
    ]
    packets = [packet(found, *one) for one in asked]
    begun = time.process_time()
    answers = [table.connectivity(one) for one in packets]
    seconds = time.process_time() - begun
    for one, answer in zip(asked, answers, strict=True):
        if (answer.verdict == "allow") != found.allowed[one]:
            sys.exit(f"{packet(found, *one)}: reach says {found.allowed[one]}, the table {answer}")
    return seconds / len(asked)


def main() -> None:
    """Loads the cluster, asks about all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pods", type=int, default=300)
    parser.add_argument("--policies", type=int, default=100)
    parser.add_argument("--sampled", type=int, default=20_000)
    parser.add_argument("--least", type=float, default=0, help="questions a second, all services")
    asked = parser.parse_args()
    snapshot = Snapshot.of(load_text("\n---\n".join(map(json.dumps, cluster(asked.pods, asked.policies)))))
    print(f"load average {os.getloadavg()[0]:.1f}, {asked.pods} pods, {asked.policies} policies", flush=True)
    rates = []
    for name, services in (("all services", None), ("one port", port_service(TCP, 8000))):
        begun = time.process_time()
        found = reach(snapshot, services=services)
        seconds, questions = time.process_time() - begun, found.allowed.size
        each = one_by_one(snapshot, found, asked.sampled)
        rates.append(questions / seconds)
        print(
            f"{name:13} {len(found.peers)} peers x {len(found.services)} classes of services: "
            f"{seconds:.2f} s, {questions / seconds:,.0f} questions/s; "
            f"one by one {1 / each:,.0f}/s ({each * questions:,.0f} s)",
            flush=True,
        )
    if rates[0] < asked.least:
        sys.exit(f"expected at least {asked.least:,.0f} questions a second")


if __name__ == "__main__":
    main()
