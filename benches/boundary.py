"""What asking from Python costs over asking in Rust: `python benches/boundary.py`.

A million flows through a world of 200 workloads and 100 policies (that of `answers.py`), and a million to a
host with one policy. The same columns are answered by `benches/batch.rs`, a process of its own that waits for
its turn, by `decide_batch` with new arrays for the answers, and by `decide_batch` with given ones: rounds in
turn, on one core, all answers compared. Prints medians: nanoseconds per flow, and how many times as long as
Rust took in the same round. Fails above --most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import answers
import labelgate
import numpy as np
from labelgate.flow import VERDICTS
from labelgate.model import core_model
from labelgate.resources import load_text
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable

FLOWS = 1_000_000
Columns = dict[str, np.ndarray]
Question = tuple[str, Snapshot, Callable[[DecisionTable, np.random.Generator], Columns]]


def workloads(table: DecisionTable, dice: np.random.Generator) -> Columns:
    addresses = [int(ip_address(answers.address(index))) for index in range(answers.WORKLOADS)]
    interfaces = table.interface_ids([f"cali{index}" for index in range(answers.WORKLOADS)])
    source, destination = dice.integers(answers.WORKLOADS, size=(2, FLOWS))
    return {
        "src": np.array(addresses, np.uint32)[source],
        "dst": np.array(addresses, np.uint32)[destination],
        "protocol": dice.choice(np.array([6, 17], np.uint8), FLOWS),
        "sport": dice.integers(1024, 65536, FLOWS, np.uint16),
        "dport": dice.choice(np.array([53, 443, 8000, 8001], np.uint16), FLOWS),
        "in_": interfaces[source],
        "out": interfaces[destination],
    }


def host(table: DecisionTable, dice: np.random.Generator) -> Columns:
    partner = int(ip_address("203.0.113.0"))
    return {
        "src": dice.integers(partner - 256, partner + 512, FLOWS, np.uint32),
        "dst": np.full(FLOWS, int(ip_address("198.51.100.10")), np.uint32),
        "protocol": dice.choice(np.array([1, 6, 17], np.uint8), FLOWS),
        "sport": dice.integers(1024, 65536, FLOWS, np.uint16),
        "dport": dice.choice(np.array([22, 443, 9100], np.uint16), FLOWS),
        "in_": np.repeat(table.interface_ids(["eth0"]), FLOWS),
        "out": np.zeros(FLOWS, np.uint32),
    }


def questions() -> dict[str, Question]:
    example = str(files("labelgate") / "examples" / "02-host-endpoint.yaml")
    world = Snapshot.of(load_text("\n---\n".join(map(json.dumps, answers.documents()))))
    return {
        "workloads": ("filter-forward", world, workloads),
        "host": ("filter-input", labelgate.load(example), host),
    }


def built() -> str:
    """The program that `benches/batch.rs` is built to."""
    command = ["cargo", "bench", "--quiet", "--bench", "batch", "--no-run", "--message-format=json"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    made = [message.get("executable") for message in map(json.loads, done.stdout.splitlines())]
    return next(path for path in made if path)


def rust(
    program: str, hook: str, snapshot: Snapshot, columns: Columns, folder: Path
) -> subprocess.Popen[str]:
    """The process that answers in Rust whenever it is sent a line."""
    (folder / "model.json").write_bytes(core_model(snapshot, Settings(), staged=False))
    facts = {"interfaces": {}, "workload_prefixes": Settings().workload_prefixes}
    (folder / "host.json").write_text(json.dumps(facts))
    for name, column in columns.items():
        column.tofile(folder / name)
    return subprocess.Popen(
        [program, str(folder), hook], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def nanoseconds(ask: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter_ns()
    answered = ask()
    return (time.perf_counter_ns() - began) / FLOWS, answered


def measure(name: str, question: Question, program: str, rounds: int) -> float:
    """Prints a line; the worst of the ratios."""
    hook, snapshot, draw = question
    table = snapshot.compile(node="edge1")
    columns = draw(table, np.random.default_rng(1))
    into = np.empty(FLOWS, np.uint8), np.empty(FLOWS, np.uint32)
    times: dict[str, list[float]] = {"rust": [], "new arrays": [], "given arrays": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        rust(program, hook, snapshot, columns, Path(folder)) as other,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in range(rounds):
            other.stdin.write("\n")
            each, *sums = other.stdout.readline().split()
            times["rust"].append(float(each))
            for way, given in (("new arrays", None), ("given arrays", into)):
                each, found = nanoseconds(lambda given=given: table.decide_batch(hook, **columns, into=given))
                times[way].append(each)
                if [int(column.sum(dtype=np.uint64)) for column in found] != list(map(int, sums)):
                    sys.exit(f"{name}: Rust and Python answer differently")
        other.stdin.close()
    counts = {VERDICTS[index]: int(count) for index, count in enumerate(np.bincount(into[0])) if count}
    ratios = {
        way: statistics.median(each / base for each, base in zip(taken, times["rust"], strict=True))
        for way, taken in times.items()
    }
    shown = (f"{way} {statistics.median(taken):.1f} ns ({ratios[way]:.2f})" for way, taken in times.items())
    print(f"{name:<10} {', '.join(shown)}, {counts}")
    return max(ratios.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--most", type=float, default=1.15, help="fail above this ratio")
    arguments = parser.parse_args()
    program = built()
    worst = [measure(name, asked, program, arguments.rounds) for name, asked in questions().items()]
    if max(worst) > arguments.most:
        sys.exit(f"above {arguments.most} times the time of Rust")


if __name__ == "__main__":
    main()
