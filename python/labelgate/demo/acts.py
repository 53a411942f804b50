"""The demonstration: each option's example in force, real traffic, what was expected and what was seen.

The deciding rule of each row is what the decision table says about that packet on its way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from labelgate.demo.daemon import NODE, READY_SECONDS, Daemon
from labelgate.demo.traffic import Probe, ask, conntrack_entries, owner, send
from labelgate.demo.world import (
    BANNED,
    CLIENT,
    CLIENT_REFUSED,
    DB_POD,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE_HOST,
    INTERFACE_OF,
    RESOLVER_CLIENT,
    STRANGER,
    WEB,
    WEB_POD,
    World,
    WorldError,
    end,
)
from labelgate.flow import ICMP, TCP, UDP, Packet
from labelgate.path import Destination, walk
from labelgate.settings import HostFacts
from labelgate.snapshot import load
from labelgate.table import DecisionTable

EXAMPLES = Path(__file__).parents[1] / "examples"

_HOST = HostFacts({"eth0": (EDGE_OUTSIDE,), "eth1": (EDGE_INSIDE,)})
_NUMBERS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}
PASSES, DENIED = "passes", "denied"
NODE_PORT, POD_PORT, CACHE_PORT = 30080, 8080, 11211


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the demonstration."""

    option: str
    traffic: str
    expected: str
    seen: str
    rule: str
    """What decided."""

    @property
    def is_right(self) -> bool:
        """Seen as expected."""
        return self.seen == self.expected


@dataclass(frozen=True)
class Stage:
    """An example in force in a world."""

    option: str
    world: World
    backend: str
    table: DecisionTable

    def row(self, who: str, probe: Probe, expected: str, how: Callable[[World, Probe], object] = send) -> Row:
        """Sends a probe and says what came of it."""
        seen = PASSES if how(self.world, probe) else DENIED
        what = probe.protocol if probe.protocol == "icmp" else f"{probe.protocol} {probe.dport}"
        return Row(self.option, f"{who}, {what}", expected, seen, self._rule(probe))

    def count(self, what: str, expected: int, seen: int, why: str) -> Row:
        """How often something has happened."""
        return Row(self.option, what, str(expected), str(seen), why)

    def _rule(self, probe: Probe) -> str:
        """The step that decided: the denial, else the last step that named a policy, else the last of all."""
        dnat = probe.arrives_at and Destination(ip_address(probe.arrives_at[0]), probe.arrives_at[1])
        source, target = owner(probe.src), owner(probe.arrives_at[0] if probe.arrives_at else probe.dst)
        packet = Packet(
            hook="filter-input",
            src=ip_address(probe.src),
            dst=ip_address(probe.dst),
            protocol=_NUMBERS[probe.protocol],
            sport=40000 if probe.dport else None,
            dport=probe.dport or None,
            icmp_type=8 if probe.protocol == "icmp" else None,
            in_=INTERFACE_OF[source],
            out=INTERFACE_OF[target],
        )
        steps = [visit.answer.trace[-1] for visit in walk(self.table.answer, packet, dnat)]
        named = [step for step in steps if step.policy or step.stage == "failsafe"]
        step = named[-1] if named and steps[-1].action != "Deny" else steps[-1]
        name = step.policy or step.endpoint
        rule = f"rule {step.rule}" if step.rule is not None else step.reason
        return f"{name} {rule}" if name else rule


def perform(backend: str, say: Callable[[str], None]) -> Iterator[Row]:
    """All five options in a world of their own; what is left of it is removed on any way out."""
    for option, file, act in ACTS:
        say(f"{option}: {file}")
        policy = EXAMPLES / file
        table = load(policy).compile(node=NODE, host=_HOST)
        with World() as world, Daemon(world, policy, backend=backend):
            yield from act(Stage(option, world, backend, table))


def _workload(stage: Stage) -> Iterator[Row]:
    yield stage.row("client to web", Probe("tcp", CLIENT, WEB_POD, 443), PASSES)
    yield stage.row("refused client to web", Probe("tcp", CLIENT_REFUSED, WEB_POD, 443), DENIED)
    yield stage.row("client to web", Probe("tcp", CLIENT, WEB_POD, 80), DENIED)
    yield stage.row("web to db", Probe("tcp", WEB_POD, DB_POD, 5432), PASSES)
    yield stage.row("web to the internet", Probe("udp", WEB_POD, "8.8.8.8", 53), DENIED)
    yield stage.row("client to db", Probe("tcp", CLIENT, DB_POD, 5432), DENIED)


def _host_endpoint(stage: Stage) -> Iterator[Row]:
    yield stage.row("client to the host", Probe("tcp", CLIENT, EDGE_OUTSIDE, 9100), PASSES)
    yield stage.row("stranger to the host", Probe("tcp", STRANGER, EDGE_OUTSIDE, 9100), DENIED)
    yield stage.row("stranger to ssh", Probe("tcp", STRANGER, EDGE_OUTSIDE, 22), PASSES)
    yield stage.row("stranger pings", Probe("icmp", STRANGER, EDGE_OUTSIDE), PASSES)
    yield stage.row("the host calls out", Probe("tcp", EDGE_OUTSIDE, STRANGER, 443), PASSES)
    yield stage.row("the host calls out", Probe("tcp", EDGE_OUTSIDE, STRANGER, 25), DENIED)
    yield stage.row("inside host, no endpoint there", Probe("tcp", INSIDE_HOST, EDGE_INSIDE, 8080), PASSES)


def _forward(stage: Stage) -> Iterator[Row]:
    yield stage.row("client through the host", Probe("tcp", CLIENT, INSIDE_HOST, 80), PASSES)
    yield stage.row("client through the host", Probe("tcp", CLIENT, INSIDE_HOST, 445), DENIED)
    yield stage.row("stranger through the host", Probe("tcp", STRANGER, INSIDE_HOST, 80), DENIED)
    yield stage.row("inside host calls out", Probe("udp", INSIDE_HOST, "8.8.8.8", 53), PASSES)
    yield stage.row("banned inside host calls out", Probe("udp", BANNED, "8.8.8.8", 53), DENIED)


def _pre_dnat(stage: Stage) -> Iterator[Row]:
    """A real HTTP server in the pod, behind the rules that kube-proxy makes for a NodePort."""
    world, at = stage.world, (WEB_POD, POD_PORT)
    _write_node_port(world, stage.backend)
    server = (
        sys.executable,
        "-m",
        "http.server",
        str(POD_PORT),
        "--bind",
        WEB_POD,
        "--directory",
        "/proc/net",
    )
    with _server(world, WEB, *server, probe=Probe("tcp", CLIENT, *at)):
        yield stage.row(
            "stranger to the NodePort", Probe("tcp", STRANGER, EDGE_OUTSIDE, NODE_PORT, 0, at), DENIED, _get
        )
        hits = _dnat_hits(world, stage.backend)
        yield stage.count("packets at the DNAT rule so far", 0, hits, "denied before DNAT (M-34)")
        entries = conntrack_entries(world, EDGE, f"dport={NODE_PORT}")
        yield stage.count("conntrack entries so far", 0, entries, "denied before they are confirmed")
        yield stage.row(
            "client to the NodePort", Probe("tcp", CLIENT, EDGE_OUTSIDE, NODE_PORT, 0, at), PASSES, _get
        )
        hits = _dnat_hits(world, stage.backend)
        yield stage.count("packets at the DNAT rule now", 1, hits, "allowed before DNAT (E-70)")
        yield stage.row("client to another NodePort", Probe("tcp", CLIENT, EDGE_OUTSIDE, 30999), DENIED)
        yield stage.row("stranger to ssh", Probe("tcp", STRANGER, EDGE_OUTSIDE, 22), PASSES)


def _untracked(stage: Stage) -> Iterator[Row]:
    """A real memcached."""
    world = stage.world
    port = str(CACHE_PORT)
    server = ("memcached", "-l", EDGE_INSIDE, "-p", port, "-U", port, "-u", "root", "-m", "16")
    inside = Probe("tcp", RESOLVER_CLIENT, EDGE_INSIDE, CACHE_PORT)
    with _server(world, EDGE, *server, probe=inside):
        yield stage.row("inside client stores and reads", inside, PASSES, _store)
        datagram = Probe("udp", RESOLVER_CLIENT, EDGE_INSIDE, CACHE_PORT)
        yield stage.row("inside client asks by datagram", datagram, PASSES, _version)
        entries = conntrack_entries(world, EDGE, f"dport={CACHE_PORT}")
        yield stage.count("conntrack entries for memcached", 0, entries, "untracked (E-60)")
        yield stage.row("banned host", Probe("tcp", BANNED, EDGE_INSIDE, CACHE_PORT), DENIED, _store)
        yield stage.row("inside client, another port", Probe("tcp", RESOLVER_CLIENT, EDGE_INSIDE, 80), DENIED)
        yield stage.row("inside client to ssh", Probe("tcp", RESOLVER_CLIENT, EDGE_INSIDE, 22), PASSES)
        entries = conntrack_entries(world, EDGE, "dport=22")
        yield stage.count("conntrack entries for ssh", 1, entries, "a failsafe is tracked (E-44)")


ACTS: tuple[tuple[str, str, Callable[[Stage], Iterator[Row]]], ...] = (
    ("workload", "01-workload.yaml", _workload),
    ("host endpoint", "02-host-endpoint.yaml", _host_endpoint),
    ("applyOnForward", "03-apply-on-forward.yaml", _forward),
    ("preDNAT", "04-pre-dnat.yaml", _pre_dnat),
    ("doNotTrack", "05-untracked.yaml", _untracked),
)
"""Option, its example, what is shown."""


@contextmanager
def _server(world: World, host: str, *command: str, probe: Probe) -> Iterator[None]:
    """A server process, from the moment it answers on its address."""
    process = world.start(host, *command, stdout=-3, stderr=-3)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while world.run(host, "ss", "-Hltn", f"sport = :{probe.dport}") == "":
            if process.poll() is not None or time.monotonic() > deadline:
                raise WorldError(f"{command[0]} does not listen on port {probe.dport}")
            time.sleep(0.02)
        yield
    finally:
        end(process)


def _get(world: World, probe: Probe) -> bool:
    answer = ask(world, probe, b"GET /dev HTTP/1.0\r\n\r\n")
    return answer is not None and answer.startswith(b"HTTP/1.0 200")


def _store(world: World, probe: Probe) -> bool:
    return ask(world, probe, b"set greeting 0 60 5\r\nhello\r\n") == b"STORED\r\n"


def _version(world: World, probe: Probe) -> bool:
    """memcached's datagrams begin with request id, sequence number, total, and zero (protocol.txt)."""
    answer = ask(world, probe, b"\x00\x01\x00\x00\x00\x01\x00\x00version\r\n")
    return answer is not None and answer[8:].startswith(b"VERSION")


def _write_node_port(world: World, backend: str) -> None:
    """The chains that kube-proxy makes for a NodePort with one ready pod."""
    lines = [
        "*nat",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-NODEPORTS - [0:0]",
        ":KUBE-SEP-WEB - [0:0]",
        "-A PREROUTING -j KUBE-SERVICES",
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        f"-A KUBE-NODEPORTS -p tcp -m tcp --dport {NODE_PORT} -j KUBE-SEP-WEB",
        f"-A KUBE-SEP-WEB -p tcp -m tcp -j DNAT --to-destination {WEB_POD}:{POD_PORT}",
        "COMMIT",
        "",
    ]
    world.run(EDGE, f"iptables-{backend}-restore", "--noflush", "--wait=20", stdin="\n".join(lines))


def _dnat_hits(world: World, backend: str) -> int:
    listed = world.run(EDGE, f"iptables-{backend}", "--wait=20", "-t", "nat", "-nvxL", "KUBE-SEP-WEB")
    return sum(int(line.split()[0]) for line in listed.splitlines() if "DNAT" in line)
