"""How many recorded flows a second `suggest` takes in, beside reading them alone, and how long it writes.

`.venv/bin/python benches/suggest.py [--flows 100000] [--pods 600] [--least FLOWS_A_SECOND]`. Flows of a CSV
file between applications of a cluster and from outside. What is suggested must allow every one of them, and
none of them at a port that no flow has.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from labelgate.analysis.flow_logs import from_lines
from labelgate.analysis.recorded import Recorded
from labelgate.analysis.suggest import Observed, suggest
from labelgate.cli.suggested import text
from labelgate.flow import VERDICTS
from labelgate.resources import load_text
from labelgate.snapshot import Snapshot

NAMESPACES, APPS = 10, 30
UNSEEN = 7


def endpoints(pods: int) -> Iterator[dict[str, Any]]:
    """Of each application some pods, in one namespace."""
    for n in range(pods):
        app = n % APPS
        spec = {"node": f"n{n % 4}", "interfaceName": f"cali{n}", "ipNetworks": [f"{address(n)}/32"]}
        metadata = {"name": f"w{n}", "namespace": f"ns{app % NAMESPACES}", "labels": {"app": f"a{app}"}}
        kind = {"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint"}
        yield {**kind, "metadata": metadata, "spec": spec}


def address(pod: int) -> str:
    return f"10.65.{pod >> 8}.{pod & 255}"


def flows(count: int, pods: int) -> str:
    """Each application asks the next one at one of four ports; one flow of ten comes from outside."""
    dice, lines = np.random.default_rng(1), ["src,dst,protocol,sport,dport,packets,replies"]
    for source, port, sport in zip(
        dice.integers(pods, size=count), dice.integers(4, size=count), dice.integers(1024, 65536, size=count),
        strict=True,
    ):  # fmt: skip
        destination = int((source + 1 + APPS * dice.integers(pods // APPS)) % pods)
        src = f"192.0.2.{source % 20}" if sport % 10 == 0 else address(int(source))
        lines.append(f"{src},{address(destination)},tcp,{sport},{8000 + destination % APPS * 4 + port},9,8")
    return "\n".join(lines) + "\n"


def blocks(log: str) -> list[Recorded]:
    return list(from_lines(io.BytesIO(log.encode()), "csv").blocks)


def seconds(action: Any) -> tuple[float, Any]:
    """Of processors, and what came of it."""
    begun = time.process_time()
    found = action()
    return time.process_time() - begun, found


def check(documents: str, suggested: str, recorded: list[Recorded]) -> None:
    """What was seen passes both gates; at a port that nobody asked for, none of it does."""
    table = Snapshot.of(load_text(f"{documents}\n---\n{suggested}")).compile(node=None, staged=True)
    for block in recorded:
        for dport, expected in ((block.dport, "allow"), (np.full_like(block.dport, UNSEEN), "deny")):
            egress, ingress = table.connectivity_batch(
                block.src, block.dst, block.protocol, sport=block.sport, dport=dport
            )
            denied = (egress[0] == VERDICTS.index("deny")) | (ingress[0] == VERDICTS.index("deny"))
            if wrong := int((denied != (expected == "deny")).sum()):
                sys.exit(f"{wrong} of {len(block)} flows: expected {expected}")


def main() -> None:
    """Records, reads, observes, suggests, and asks the policies about all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--pods", type=int, default=600)
    parser.add_argument("--least", type=float, default=0, help="flows a second, reading included")
    asked = parser.parse_args()
    documents = "\n---\n".join(map(json.dumps, endpoints(asked.pods)))
    observed = Observed(Snapshot.of(load_text(documents)))
    log = flows(asked.flows, asked.pods)
    reading, recorded = seconds(lambda: blocks(log))
    observing, _ = seconds(lambda: [observed.add(block) for block in recorded])
    writing, found = seconds(lambda: suggest(observed, prefix={4: 32, 6: 128}))
    shown, suggested = seconds(lambda: text(observed, found))
    check(documents, suggested, recorded)
    rate = asked.flows / (reading + observing)
    rules = sum(len(rules) for one in found for rules in one.rules.values())
    print(
        f"load average {os.getloadavg()[0]:.1f}, {asked.flows:,} flows, {asked.pods} pods: "
        f"{rate:,.0f} flows/s, reading alone {asked.flows / reading:,.0f}/s; {len(found)} policies of {rules} rules in "
        f"{writing:.2f} s, as YAML in {shown:.2f} s"
    )
    if rate < asked.least:
        sys.exit(f"expected at least {asked.least:,.0f} flows a second")


if __name__ == "__main__":
    main()
