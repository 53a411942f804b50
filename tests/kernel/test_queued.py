"""Only what needs deciding is queued: one packet of a connection, and all where policy is untracked."""

from __future__ import annotations

import socket
from pathlib import Path

import policies
from kit import enforce
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import Probe, send
from labelgate.demo.world import (
    CLIENT,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE,
    INSIDE_HOST,
    OUTSIDE,
    RESOLVER_CLIENT,
    WEB,
    WEB_POD,
    World,
)

EXCHANGES = 20

WEB_POLICY = policies.policy(
    "web",
    """
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
""",
).replace("role == 'edge'", "app == 'web'")


def talk(world: World, server: str, client: str, src: str, dst: str, port: int) -> None:
    """A connection over which bytes go there and back again and again."""

    def listen() -> socket.socket:
        return socket.create_server((dst, port))

    def connect() -> socket.socket:
        return socket.create_connection((dst, port), timeout=30, source_address=(src, 0))

    with (
        world.call(server, listen) as listener,
        world.call(client, connect) as here,
        listener.accept()[0] as there,
    ):
        there.settimeout(30)
        for _ in range(EXCHANGES):
            for one, other in ((here, there), (there, here)):
                one.sendall(b"x")
                assert other.recv(1) == b"x"


def queued(daemon: Daemon) -> dict[str, int]:
    """Packets of each hook, without zeros."""
    hooks = daemon.counters()["hooks"]
    return {name: hook["packets"] for name, hook in hooks.items() if hook["packets"]}


def no_ipv6(world: World) -> None:
    """Hosts would send of themselves."""
    for host in (EDGE, OUTSIDE, INSIDE, WEB):
        world.run(host, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")


def test_a_connection_is_queued_once_by_each_hook(world: World, backend: str, tmp_path: Path) -> None:
    """To the host: preDNAT policy and its own. To a pod: preDNAT policy and forwarding."""
    no_ipv6(world)
    text = f"{policies.MANAGEMENT}---{policies.PODS}---{WEB_POLICY}{policies.GUARD}"
    with enforce(world, tmp_path, backend, text) as daemon:
        talk(world, EDGE, OUTSIDE, CLIENT, EDGE_OUTSIDE, 9100)
        assert queued(daemon) == {"mangle-prerouting": 1, "filter-input": 1}
        talk(world, WEB, OUTSIDE, CLIENT, WEB_POD, 80)
        assert queued(daemon) == {"mangle-prerouting": 2, "filter-input": 1, "filter-forward": 1}


def test_every_packet_is_queued_where_policy_is_untracked(world: World, backend: str, tmp_path: Path) -> None:
    """At eth1; a connection through eth0, which has no untracked policy, is queued once, in filter."""
    no_ipv6(world)
    resolver = policies.RESOLVER.replace("role: edge", "role: dns").replace("role == 'edge'", "role == 'dns'")
    text = f"{resolver}---{policies.MANAGEMENT}"
    with enforce(world, tmp_path, backend, text) as daemon:
        talk(world, EDGE, OUTSIDE, CLIENT, EDGE_OUTSIDE, 9100)
        assert queued(daemon) == {"filter-input": 1}
        for _ in range(3):
            assert send(world, Probe("udp", RESOLVER_CLIENT, EDGE_INSIDE, 5353, sport=5000))
        # A is set: INPUT does not ask again.
        assert queued(daemon) == {"filter-input": 1, "raw-prerouting": 3}
        assert not send(world, Probe("udp", INSIDE_HOST, EDGE_INSIDE, 5354))
        assert queued(daemon) == {"filter-input": 1, "raw-prerouting": 4}, "denied in raw"


def test_what_no_rule_can_match_goes_past_the_queue(world: World, backend: str, tmp_path: Path) -> None:
    """E-22: untracked and preDNAT policy for UDP say nothing of TCP, which needs no daemon there."""
    no_ipv6(world)
    rules = """
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [5353]}}]
  egress: [{action: Log, protocol: UDP, source: {ports: [5353]}}]
"""
    guard = "  types: [Ingress]\n  ingress: [{action: Deny, protocol: UDP, destination: {ports: [9999]}}]\n"
    text = "---".join(
        (
            policies.MANAGEMENT,
            policies.policy("dns", rules, order=1, more="  doNotTrack: true\n  applyOnForward: true\n"),
            policies.policy("guard", guard, order=2, more="  preDNAT: true\n  applyOnForward: true\n"),
        )
    )

    def listen() -> socket.socket:
        return socket.create_server((EDGE_OUTSIDE, 9100))

    def connect() -> socket.socket:
        return socket.create_connection((EDGE_OUTSIDE, 9100), timeout=30, source_address=(CLIENT, 0))

    with (
        enforce(world, tmp_path, backend, text) as daemon,
        world.call(EDGE, listen) as listener,
        world.call(OUTSIDE, connect) as here,
        listener.accept()[0] as there,
    ):
        assert queued(daemon) == {"filter-input": 1}
        assert send(world, Probe("udp", CLIENT, EDGE_OUTSIDE, 5353))
        assert queued(daemon) == {"filter-input": 1, "raw-prerouting": 1}
        daemon.process.kill()
        daemon.process.wait()
        there.settimeout(30)
        for _ in range(EXCHANGES):
            for one, other in ((here, there), (there, here)):
                one.sendall(b"x")
                assert other.recv(1) == b"x"
        assert not send(world, Probe("udp", CLIENT, EDGE_OUTSIDE, 5353))
