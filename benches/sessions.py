"""How long the check before a change takes on a host with many connections, and how long to cut them.

    python benches/sessions.py [--connections N] [--clients N]

Root: conntrack is told of connections in a network namespace of its own, from so many clients; a table
without policy is followed by one that denies all of them. Seconds by the clock of each step; all of them
must be found.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import labelgate
from labelgate.demo.world import EDGE, EDGE_OUTSIDE, World
from labelgate.links import read_links
from labelgate.lockout import Host, findings, forget_connections, read_connections
from labelgate.lockout.many import denials, flow_of, ways
from labelgate.netlink import ACK, CREATE, NETFILTER, Question, ask_all, attribute, nested
from labelgate.table import DecisionTable

_T = TypeVar("_T")
_FIRST = int(ip_address("10.128.0.0"))
POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: out}
spec: {node: edge1, interfaceName: eth0}
"""


def connections(count: int, clients: int) -> Iterator[Question]:
    """Established ones to one server of this host (linux/netfilter/nfnetlink_conntrack.h)."""
    for number in range(count):
        client = IPv4Address(_FIRST + number % clients)
        ends = client.packed, ip_address(EDGE_OUTSIDE).packed
        ports = [struct.pack("!H", port) for port in (1024 + number // clients, 443)]
        body = struct.pack("=BBH", 2, 0, 0)
        for which, side, numbers in ((1, ends, ports), (2, ends[::-1], ports[::-1])):
            addresses = nested(1, attribute(1, side[0]), attribute(2, side[1]))
            transport = nested(2, attribute(1, b"\6"), attribute(2, numbers[0]), attribute(3, numbers[1]))
            body += nested(which, addresses, transport)
        # Confirmed, seen in both directions, assured; for an hour; TCP that is established.
        body += attribute(3, struct.pack("!I", 0xE)) + attribute(7, struct.pack("!I", 3600))
        body += nested(4, nested(1, attribute(1, b"\3")))
        yield 1 << 8, ACK | CREATE, body


def timed(what: str, count: int, work: Callable[[], _T]) -> _T:
    """Prints a row."""
    begun = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - begun
    print(f"{what:<34}{seconds:>8.2f} s{seconds / count * 1e6:>8.1f} µs each", flush=True)
    return done


def tables() -> tuple[DecisionTable, DecisionTable]:
    """One that governs nothing, and one with a host endpoint that nothing is allowed to."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text("")
        before = labelgate.load(path).compile(node="edge1")
        path.write_text(POLICY)
        return before, labelgate.load(path).compile(node="edge1")


def measure(count: int, clients: int) -> None:
    """In the network namespace of the caller."""
    failed = [answer for answer in ask_all(NETFILTER, connections(count, clients)) if answer]
    assert not failed, f"{len(failed)} connections are not tracked: {failed[0]!r} (nf_conntrack_max?)"
    links = read_links()
    before, after = (table.on_host(links.host_facts) for table in tables())
    flows = timed("read", count, read_connections)
    assert sum(map(len, flows)) == count
    host = Host(links)
    timed("routes", count, lambda: [list(ways(host, part)) for part in flows])
    v4, _ = flows
    denied = timed("judge", count, lambda: denials(after, v4, host))
    assert len(denied) == count
    found = timed("the whole check", count, lambda: findings(before, after, Host(links), [], flows))
    assert any(one.subject == f"{count - 10} more" for one in found)
    gone = timed("cut", count, lambda: forget_connections([flow_of(v4, row) for row in denied]))
    assert len(gone) == count


def main() -> None:
    """Both kinds of hosts unless one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--clients", type=int)
    given = parser.parse_args()
    for clients in [given.clients] if given.clients else [given.connections, given.connections // 50]:
        print(f"{given.connections} connections of {clients} clients")
        with World() as world:
            world.run(EDGE, "ip", "route", "add", "10.128.0.0/9", "dev", "eth0")
            world.call(EDGE, measure, given.connections, clients)


if __name__ == "__main__":
    main()
