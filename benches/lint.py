"""How long `labelgate lint` takes over the policies of a cluster: processor seconds.

`.venv/bin/python benches/lint.py [--policies 1000] [--pods 2000] [--selected]`. Each policy has five rules by
labels, namespaces, nets and ports; 20 namespaces, 50 apps. Each namespace has pods of a few apps, so that nine of
ten policies select nothing; with `--selected` of all apps, and each policy selects some.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from labelgate.analysis.lint import lint, read

NAMESPACES, APPS = 20, 50
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns{0}, labels: {{team: t{1}}}}}\n"
POD = """apiVersion: v1
kind: Pod
metadata: {{name: pod{0}, namespace: ns{1}, labels: {{app: a{2}, pod: w{3}}}}}
spec: {{nodeName: n{2}}}
status: {{phase: Running, podIP: 10.{4}.{5}.{6}}}
"""
POLICY = """apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: p{0}, namespace: ns{1}}}
spec:
  order: {0}
  selector: app == 'a{2}'
  ingress:
  - {{action: Allow, protocol: TCP, source: {{selector: app == 'a{3}'}}, destination: {{ports: [{4}]}}}}
  - {{action: Allow, protocol: TCP, source: {{namespaceSelector: team == 't{5}'}}, destination: {{ports: [443]}}}}
  - {{action: Allow, protocol: UDP, source: {{nets: [10.{6}.0.0/16]}}, destination: {{ports: ["5000:{7}"]}}}}
  egress:
  - {{action: Allow, destination: {{selector: app == 'a{8}'}}}}
  - {{action: Deny, destination: {{nets: [172.16.0.0/12]}}}}
"""


def cluster(policies: int, pods: int, *, is_selected: bool) -> Iterator[str]:
    """The documents."""
    for number in range(NAMESPACES):
        yield NAMESPACE.format(number, number % 5)
    for n in range(pods):
        app = n // NAMESPACES % APPS if is_selected else n % APPS
        yield POD.format(n, n % NAMESPACES, app, n % 7, n // 65536, n // 256 % 256, n % 256)
    for n in range(policies):
        app = n // NAMESPACES % APPS
        yield POLICY.format(
            n, n % NAMESPACES, app, n * 7 % APPS, 8000 + n % 40, n % 5, n % 200, 5000 + n, n * 3 % APPS
        )


def main() -> None:
    """Writes the cluster, reads it, judges it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--selected", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cluster.yaml"
        file.write_text(
            "---\n".join(cluster(chosen.policies, chosen.pods, is_selected=chosen.selected)), encoding="utf-8"
        )
        start = time.process_time()
        snapshot, places = read([str(file)])
        loaded = time.process_time()
        found = lint(snapshot, places=places)
        end = time.process_time()
    print(f"{chosen.policies} policies, {chosen.pods} pods: {len(found)} findings")
    print(f"loading {loaded - start:.1f} s, judging {end - loaded:.1f} s of one processor")


if __name__ == "__main__":
    main()
