"""How long it takes from writing a policy to its being in force: 1,000 policies, one file each, one edited.

    python benches/live.py [--policies N] [--edits N] [--most SECONDS]

Root: the daemon runs in a network namespace of its own. Fails if the median is above `--most`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from labelgate.demo.daemon import Daemon
from labelgate.demo.world import World

HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out, labels: {role: edge}}
spec: {node: edge1, interfaceName: eth0}
"""


def policy(number: int, port: int) -> str:
    """One of many, for the host endpoint."""
    return f"""
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: p{number}}}
spec:
  order: {number}
  selector: role == 'edge'
  ingress:
  - {{action: Allow, protocol: TCP, source: {{nets: [10.{number % 256}.0.0/16]}}, destination: {{ports: [{port}]}}}}
"""


def cpu_seconds(pid: int) -> float:
    """That a process and the children that it has waited for have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(policies: int, edits: int) -> tuple[list[float], float]:
    """Seconds of each edit, and the processor's seconds of one."""
    with tempfile.TemporaryDirectory() as place, World() as world:
        folder = Path(place)
        (folder / "host.yaml").write_text(HOST)
        for number in range(policies):
            (folder / f"p{number:04}.yaml").write_text(policy(number, 80))
        with Daemon(world, folder, backend="nft", watch=True) as daemon:
            taken: list[float] = []
            before = cpu_seconds(daemon.process.pid)
            for edit in range(edits):
                text = policy(edit * 7 % policies, 1000 + edit)
                began = time.monotonic()
                (folder / f"p{edit * 7 % policies:04}.yaml").write_text(text)
                daemon.wait_for(f"generation {edit + 2} in force")
                taken.append(time.monotonic() - began)
                time.sleep(0.1)  # Edits that are closer to each other are one.
            return taken, (cpu_seconds(daemon.process.pid) - before) / edits


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--most", type=float, default=0.1)
    options = parser.parse_args()
    taken, cpu = measure(options.policies, options.edits)
    p50, p90 = statistics.median(taken), statistics.quantiles(taken, n=10)[-1]
    print(
        f"{options.policies} policies, {len(taken)} edits: p50 {p50 * 1e3:.0f} ms, p90 {p90 * 1e3:.0f} ms, "
        f"processor {cpu * 1e3:.0f} ms each"
    )
    sys.exit(p50 > options.most)


if __name__ == "__main__":
    main()
