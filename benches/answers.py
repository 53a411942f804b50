"""Answers a second in bulk, from the table, on one core: `python benches/answers.py`.

A world of 200 workloads and 100 policies; every verb is run as people run it, in a process of its own, on the
same 60,000 questions. Prints one line a verb, with the count of each verdict, so that two runs can be compared:
processor time of the answers without that of loading, and wall time with it. Each hook of a way (`--path`) is an answer.
Fails if a verb is below --least.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

WORKLOADS, POLICIES, QUESTIONS = 200, 100, 60_000
CALICO = "projectcalico.org/v3"


def address(index: int) -> str:
    return f"10.65.{index // 250}.{index % 250 + 1}"


def documents() -> Iterator[dict[str, Any]]:
    for index in range(WORKLOADS):
        spec = {
            "orchestrator": "k8s", "workload": f"w{index}", "node": "edge1", "endpoint": "eth0",
            "interfaceName": f"cali{index}", "ipNetworks": [f"{address(index)}/32"],
            "profiles": ["projectcalico-default-allow"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8000 + index % 3}],
        }  # fmt: skip
        labels = {"app": f"a{index % 20}", "zone": f"z{index % 7}"}
        metadata = {"name": f"w{index}", "namespace": f"n{index % 5}", "labels": labels}
        yield {"apiVersion": CALICO, "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}
    for index in range(POLICIES):
        peer = {"selector": f"zone == 'z{index % 7}'"}
        rules = [
            {"action": "Allow", "protocol": "TCP", "source": peer, "destination": {"ports": ["http", 443]}},
            {"action": "Allow", "protocol": "UDP", "source": {"nets": ["10.65.0.0/25"]}},
        ]
        out = [{"action": "Allow", "destination": {"selector": f"app != 'a{index % 20}'"}}]
        spec = {"selector": f"app == 'a{index % 20}'", "order": index, "ingress": rules, "egress": out}
        metadata = {"name": f"p{index}"}
        yield {"apiVersion": CALICO, "kind": "GlobalNetworkPolicy", "metadata": metadata, "spec": spec}


def connection(dice: Random, index: int) -> dict[str, Any]:
    return {
        "id": index, "src": address(dice.randrange(WORKLOADS)), "dst": address(dice.randrange(WORKLOADS)),
        "protocol": dice.choice(("tcp", "udp")), "sport": dice.randrange(1024, 65536),
        "dport": dice.choice((53, 443, 8000, 8001)),
    }  # fmt: skip


def packet(dice: Random, index: int) -> dict[str, Any]:
    interfaces = {"in": f"cali{dice.randrange(WORKLOADS)}", "out": f"cali{dice.randrange(WORKLOADS)}"}
    return {**connection(dice, index), "hook": "filter-forward", **interfaces}


def journey(dice: Random, index: int) -> dict[str, Any]:
    source, destination = dice.randrange(WORKLOADS), dice.randrange(WORKLOADS)
    ends = {
        "src": address(source),
        "dst": address(destination),
        "in": f"cali{source}",
        "out": f"cali{destination}",
    }
    return {**connection(dice, index), **ends}


def selector(dice: Random, index: int) -> dict[str, Any]:
    text = f"app in {{'a{dice.randrange(20)}', 'a1'}} && (has(zone) || zone != 'z{dice.randrange(7)}')"
    return {"id": index, "selector": text, "labels": {"app": f"a{dice.randrange(20)}", "zone": "z1"}}


VERBS = {
    "selector": (selector, ["selector"]),
    "explain": (packet, ["explain", "--node", "edge1", "--engine", "table", "-f", "POLICY", "--packets"]),
    "explain --path": (
        journey,
        ["explain", "--path", "--node", "edge1", "--engine", "table", "-f", "POLICY", "--packets"],
    ),
    "connectivity": (connection, ["connectivity", "--engine", "table", "-f", "POLICY", "--packets"]),
}


def seconds(words: list[str], questions: Path, answers: Path) -> float:
    """Processor time of one run."""
    program = [str(Path(sys.executable).parent / "labelgate"), *words, str(questions)]
    before = os.times()
    with answers.open("wb") as out:
        subprocess.run(program, stdout=out, stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def word(answer: dict[str, Any]) -> str:
    return str(answer.get("verdict", answer.get("outcome", answer.get("match"))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--least", type=int, default=0, help="fail if a verb answers fewer a second")
    least = parser.parse_args().least
    with tempfile.TemporaryDirectory() as name:
        folder, slow = Path(name), []
        policy, questions, none, answers = (folder / file for file in ("p.yaml", "q", "none", "a"))
        policy.write_text("\n---\n".join(map(json.dumps, documents())))
        none.write_text("")
        for verb, (question, words) in VERBS.items():
            dice = Random(1)
            questions.write_text("".join(json.dumps(question(dice, n)) + "\n" for n in range(QUESTIONS)))
            words = [str(policy) if part == "POLICY" else part for part in words]
            start = seconds(words, none, answers)
            began = time.perf_counter()
            whole = seconds(words, questions, answers)
            wall = time.perf_counter() - began
            told = [json.loads(line) for line in answers.open()]
            counts = Counter(map(word, told))
            rate = sum(len(answer.get("hooks", "1")) for answer in told) / (whole - start)
            print(f"{verb:<15} {rate:>8,.0f}/s, loading {start:.2f} s, wall {wall:.2f} s, {dict(counts)}")
            slow += [verb] if rate < least else []
    if slow:
        sys.exit(f"below {least}/s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
