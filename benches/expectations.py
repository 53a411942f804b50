"""Policy tests on one core: how many a second, from YAML to results, and how long whole networks of a cluster take.

.venv/bin/python benches/expectations.py [--count 3000] [--least 1000] [--pods 5000] [--most 10]

Small ones are asked between workloads, and on the whole way through a node. The cluster has a policy for each
application in each of 50 namespaces (1,000 policies at 5,000 pods), and is asked about all addresses and all ports.
Every expectation must hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from time import process_time
from typing import Any

from labelgate.expect.judge import judge
from labelgate.expect.suite import Suite, read_tests

EXAMPLES = Path(str(files("labelgate"))) / "examples"
HEAD = "apiVersion: labelgate/v1\nkind: PolicyTest\nmetadata: {{name: many}}\nspec:\n  policies: [{policy}]\n"


def workloads(number: int) -> str:
    """Whether an address of a network of partners, or of others, reaches the shop."""
    is_partner, port = number % 256 == 113 and number % 250 != 99, 1 + number % 1000
    expected = "allow" if is_partner and port == 443 else "deny"
    return f"{{from: 203.0.{number % 256}.{number % 250}, to: shop/web, port: {port}, expect: {expected}}}"


def node(number: int) -> str:
    """Whether it reaches the pod behind a node port."""
    port = 30000 + number % 2000
    expected = "allow" if number % 256 == 113 and port == 30080 else "deny"
    to = f"to: HostEndpoint/edge1-out, port: {port}, dnat: '10.65.0.2:8080'"
    return f"{{from: 203.0.{number % 256}.{number % 250}, {to}, expect: {expected}}}"


def measured(policy: str, rows: list[str]) -> float:
    """Expectations a second; all must hold."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "many.yaml"
        listed = "".join(f"  - {row}\n" for row in rows)
        file.write_text(HEAD.format(policy=EXAMPLES / policy) + "  expectations:\n" + listed)
        start = process_time()
        results = list(Suite().results(read_tests([file])))
        seconds = process_time() - start
    wrong = [result.place for result in results if not result.is_as_expected]
    if wrong:
        sys.exit(f"not as expected: {wrong[0]} and {len(wrong) - 1} more")
    return len(results) / seconds


NAMESPACES, APPS = 50, 20
WHOLE = (
    (
        "one application from anywhere",
        "{from: 0.0.0.0/0, to: ns0/w0-0, protocol: TCP, port: '1:7999', expect: deny}",
    ),
    ("one port of all workloads", "{from: 0.0.0.0/0, to: {selector: all()}, port: 9000, expect: deny}"),
    (
        "all ports but the open ones",
        "{from: 0.0.0.0/0, to: {selector: all()}, port: ['1:7999', '8020:65535'], expect: deny}",
    ),
    ("a network, every port", "{from: 192.0.2.0/24, to: {selector: all()}, protocol: TCP, expect: deny}"),
    ("who may", "{from: {selector: app == 'a1', namespace: ns0}, to: ns0/w0-0, port: 8000, expect: allow}"),
    (
        "who may not",
        "{from: {selector: app != 'a1'}, to: {selector: app == 'a0'}, protocol: TCP, expect: deny}",
    ),
)


def cluster(pods: int) -> Iterator[dict[str, Any]]:
    """In each namespace each application may be asked by the next one, at a port of its own."""
    calico = "projectcalico.org/v3"
    for number in range(pods):
        namespace, app = f"ns{number % NAMESPACES}", number // NAMESPACES % APPS
        name = f"w{app}-{number // NAMESPACES // APPS}"
        spec = {
            "orchestrator": "k8s", "workload": name, "node": f"n{number % 50}", "endpoint": "eth0",
            "interfaceName": f"cali{number}", "ipNetworks": [f"10.0.{number >> 8}.{number & 255}/32"],
        }  # fmt: skip
        metadata = {"name": name, "namespace": namespace, "labels": {"app": f"a{app}"}}
        yield {"apiVersion": calico, "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}
    for number in range(NAMESPACES * APPS):
        namespace, app = f"ns{number % NAMESPACES}", number // NAMESPACES
        source: dict[str, Any]
        source, ports = {"selector": f"app == 'a{(app + 1) % APPS}'"}, {"ports": [8000 + app]}
        rule = {"action": "Allow", "protocol": "TCP", "source": source, "destination": ports}
        spec = {
            "selector": f"app == 'a{app}'", "types": ["Ingress", "Egress"], "ingress": [rule],
            "egress": [{"action": "Allow"}],
        }  # fmt: skip
        metadata = {"name": f"app{app}", "namespace": namespace}
        yield {"apiVersion": calico, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def whole(pods: int, most: float) -> None:
    """Prints what expectations about whole networks of a cluster take."""
    with tempfile.TemporaryDirectory() as folder:
        policy, file = Path(folder) / "policy.yaml", Path(folder) / "whole.yaml"
        policy.write_text("\n---\n".join(map(json.dumps, cluster(pods))))
        rows = "".join(f"  - {row}\n" for _, row in WHOLE)
        file.write_text(HEAD.format(policy=policy) + "  expectations:\n" + rows)
        start = process_time()
        (test,) = read_tests([file])
        world = Suite().world(test)
        print(f"{pods} pods, {NAMESPACES * APPS} policies: read in {process_time() - start:.1f} s")
        for index, (name, _) in enumerate(WHOLE):
            start = process_time()
            result = judge(world, test, index)
            seconds = process_time() - start
            first = " with tables and rules" if not index else ""
            print(f"{name:30} {result.asked:12,} questions {seconds:8.2f} s{first}")
            if not result.is_as_expected:
                sys.exit(f"not as expected: {result.error or result.failures[0]}")
            if seconds > most:
                sys.exit(f"{name}: above {most:g} s")


def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--least", type=float, default=0, help="fail below so many a second")
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument(
        "--most", type=float, default=1e9, help="fail above so many seconds for one expectation"
    )
    given = parser.parse_args()
    for name, policy, make in (
        ("between workloads", "01-workload.yaml", workloads),
        ("through a node", "04-pre-dnat.yaml", node),
    ):
        rate = measured(policy, list(map(make, range(given.count))))
        print(f"{name:20} {rate:10,.0f} expectations a second")
        if rate < given.least:
            sys.exit(f"{name}: below {given.least:,.0f} a second")
    whole(given.pods, given.most)


if __name__ == "__main__":
    main()
