"""How long `labelgate diff` takes on 1,000 policies and an edit: `python benches/diff.py`.

A cluster of 1,000 workloads in 20 namespaces on 2 nodes, with a host endpoint each, and 1,000 policies by
label, as block YAML of one file. Five edits, each of one document. The bar: the whole command, a process of
its own that starts Python, reads both files and writes all changes as JSON, takes less than --most seconds
from start to end for each of them. Its processor time, and the time of the comparison alone (two snapshots
to changes), are told beside it. Medians of --rounds; --scale makes everything larger, without a bar.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from labelgate.analysis.diff import diff
from labelgate.snapshot import Snapshot
from labelgate.sources.states import load_states

WORKLOADS, POLICIES, NODES, NAMESPACES = 1000, 1000, 2, 20
CALICO = "projectcalico.org/v3"
Document = dict[str, Any]


def document(kind: str, name: str, spec: Document, **metadata: Any) -> Document:
    return {"apiVersion": CALICO, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def documents(scale: int = 1) -> Iterator[Document]:
    for index in range(WORKLOADS * scale):
        spec = {
            "orchestrator": "k8s", "workload": f"w{index}", "node": f"n{index % NODES}", "endpoint": "eth0",
            "interfaceName": f"cali{index}", "ipNetworks": [f"10.65.{index // 250}.{index % 250 + 1}/32"],
            "profiles": ["projectcalico-default-allow"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8000 + index % 3}],
        }  # fmt: skip
        labels = {"app": f"a{index % 200}", "zone": f"z{index % 7}", "team": f"t{index % 31}"}
        yield document(
            "WorkloadEndpoint", f"w{index}", spec, namespace=f"ns{index % NAMESPACES}", labels=labels
        )
    for index in range(NODES):
        spec = {"node": f"n{index}", "interfaceName": "eth0", "expectedIPs": [f"192.0.2.{index + 1}"]}
        yield document("HostEndpoint", f"h{index}", spec, labels={"role": "node"})
    host = [{"action": "Allow", "protocol": "TCP", "source": {"nets": ["10.65.0.0/16"]}}]
    yield document("GlobalNetworkPolicy", "hosts", {"selector": "role == 'node'", "ingress": host})
    for index in range(POLICIES * scale - 1):
        yield document("GlobalNetworkPolicy", f"p{index}", policy(index))


def policy(index: int) -> Document:
    peer = {"selector": f"app == 'a{(index * 7) % 200}' && zone != 'z{index % 7}'"}
    ports = [8000 + index % 50, "http", f"{9000 + index % 90}:{9010 + index % 90}"]
    rules = [
        {"action": "Allow", "protocol": "TCP", "source": peer, "destination": {"ports": ports}},
        {"action": "Allow", "protocol": "UDP", "source": {"nets": [f"10.{index % 60}.0.0/16"]}},
        {"action": "Deny", "source": {"selector": f"team == 't{index % 31}'"}},
    ]
    out = [{"action": "Allow", "destination": {"selector": f"app == 'a{(index * 3) % 200}'"}}]
    return {
        "selector": f"app == 'a{index % 200}'", "order": index, "ingress": rules, "egress": out,
        "types": ["Ingress", "Egress"],
    }  # fmt: skip


def edits(before: list[Document]) -> Iterator[tuple[str, list[Document]]]:
    """Each with what it edits."""
    by_name = {one["metadata"]["name"]: at for at, one in enumerate(before)}

    def edited(name: str) -> tuple[list[Document], Document]:
        after = list(before)
        after[by_name[name]] = copy.deepcopy(before[by_name[name]])
        return after, after[by_name[name]]

    after, one = edited("p17")
    one["spec"]["ingress"][0]["destination"]["ports"] = [443]
    yield "ports of one policy", after
    after, one = edited("p0")
    one["spec"]["selector"] = "all()"
    yield "one policy comes to select all", after
    yield "one policy removed", [one for one in before if one["metadata"]["name"] != "p500"]
    after, one = edited("w0")
    one["metadata"]["labels"]["team"] = "t9"
    yield "a label of one workload", after
    after, one = edited("hosts")
    one["spec"]["ingress"][0]["source"]["nets"] = ["10.0.0.0/8"]
    yield "policy of every host endpoint", after


def text(found: list[Document]) -> str:
    return yaml.dump_all(found, Dumper=yaml.CSafeDumper, sort_keys=False)


def children_seconds() -> float:
    used = os.times()
    return used.children_user + used.children_system


def command_seconds(paths: list[str]) -> tuple[float, float]:
    """Of the whole command, from start to end, and of processors."""
    used, started = children_seconds(), time.perf_counter()
    command = [sys.executable, "-m", "labelgate", "diff", *paths, "-o", "json"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=1800)
    if done.returncode not in (1, 4):
        raise SystemExit(f"labelgate diff ended with {done.returncode}, expected changes")
    return time.perf_counter() - started, children_seconds() - used


def comparison_seconds(paths: list[str]) -> tuple[float, int]:
    """Of the comparison alone, and how many changes there are."""
    old, new = map(Snapshot.of, load_states(*paths))
    started = time.perf_counter()
    found = diff(old, new)
    return time.perf_counter() - started, len(found.changes)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--most", type=float, default=2.0, help="seconds that the whole command may take")
    options.add_argument("--scale", type=int, default=1, help="times as many policies and workloads")
    asked = options.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} before, {os.cpu_count()} processors", flush=True)
    before, slow = list(documents(asked.scale)), []
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("old.yaml", "new.yaml")]
        Path(paths[0]).write_text(text(before))
        for name, after in edits(before):
            Path(paths[1]).write_text(text(after))
            seconds = measured(name, paths, asked.rounds)
            if seconds > asked.most:
                slow.append(f"{name} ({seconds:.2f} s)")
    if slow and asked.scale == 1:
        raise SystemExit(f"the whole command takes more than {asked.most} s: {', '.join(slow)}")


def measured(name: str, paths: list[str], rounds: int) -> float:
    """Prints what an edit takes; the seconds of the whole command."""
    wholes = [command_seconds(paths) for _ in range(rounds)]
    whole, processors = (statistics.median(one) for one in zip(*wholes, strict=True))
    compared = [comparison_seconds(paths) for _ in range(rounds)]
    alone, count = statistics.median(seconds for seconds, _ in compared), compared[0][1]
    print(
        f"{name:32} {count:5} changes, command {whole:5.2f} s ({processors:5.2f} s of processors), "
        f"comparison alone {alone:5.2f} s",
        flush=True,
    )
    return whole


if __name__ == "__main__":
    main()
