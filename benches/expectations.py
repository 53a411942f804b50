"""Policy tests a second on one core, from YAML to results: between workloads, and on the whole way through a node.

.venv/bin/python benches/expectations.py [--count 3000] [--least 1000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from time import process_time

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


def main() -> None:
    """Prints both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--least", type=float, default=0, help="fail below so many a second")
    given = parser.parse_args()
    for name, policy, make in (
        ("between workloads", "01-workload.yaml", workloads),
        ("through a node", "04-pre-dnat.yaml", node),
    ):
        rate = measured(policy, list(map(make, range(given.count))))
        print(f"{name:20} {rate:10,.0f} expectations a second")
        if rate < given.least:
            sys.exit(f"{name}: below {given.least:,.0f} a second")


if __name__ == "__main__":
    main()
