"""What the configuration changes for real packets: actions, failsafes, `*`, addresses that move."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import policies
import pytest
from kit import add_rules, enforce, passing, told, twins, wait_until, words
from labelgate.demo.traffic import Probe
from labelgate.demo.world import (
    CLIENT,
    DB_POD,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE_HOST,
    STRANGER,
    WEB_POD,
    World,
    twin,
)

NOTHING_MUCH = """
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [1]}}
"""
GUARDED_WEB = policies.policy("web", NOTHING_MUCH).replace("role == 'edge'", "app == 'web'")
GUARDED_OUT = policies.policy("out", NOTHING_MUCH.replace("Ingress", "Egress").replace("ingress", "egress"))


@pytest.mark.parametrize("action", ["Drop", "Reject"])
def test_reject(world: World, backend: str, action: str, tmp_path: Path) -> None:
    """M-55: with Reject a sender gets an error: a reset, or UDP an unreachable."""
    text = "---".join((policies.MANAGEMENT, policies.PODS, GUARDED_WEB, GUARDED_OUT))
    probes = [
        Probe(protocol, src, dst, 7777)  # type: ignore[arg-type]
        for protocol in ("tcp", "udp")
        for src, dst in (
            (STRANGER, EDGE_OUTSIDE),  # by the engine
            (EDGE_OUTSIDE, STRANGER),
            (INSIDE_HOST, WEB_POD),
            (DB_POD, EDGE_INSIDE),  # by a rule (E-50)
        )
    ]
    with enforce(world, tmp_path, backend, text, iptablesFilterDenyAction=action):
        every = twins(*probes)
        with ThreadPoolExecutor(len(every)) as pool:
            errors = list(pool.map(lambda probe: told(world, probe), every))
        wanted = "ECONNREFUSED" if action == "Reject" else None
        assert dict(zip(map(str, every), errors, strict=True)) == dict.fromkeys(map(str, every), wanted)


@pytest.mark.parametrize("action", ["Drop", "Accept", "Return"])
def test_endpoint_to_host(world: World, backend: str, action: str, tmp_path: Path) -> None:
    """E-50: what a pod's policy allows to its host is denied, accepted, or left to the base chain."""
    add_rules(world, backend, "filter", "-A INPUT -p tcp -m tcp --dport 81 -j DROP")
    open_, guarded = Probe("tcp", WEB_POD, EDGE_INSIDE, 80), Probe("tcp", WEB_POD, EDGE_INSIDE, 81)
    passes = {"Drop": [], "Accept": [open_, guarded], "Return": [open_]}[action]
    with enforce(world, tmp_path, backend, policies.PODS, defaultEndpointToHostAction=action):
        assert passing(world, *twins(open_, guarded)) == words(*twins(*passes))


def test_failsafes_of_a_net(world: World, backend: str, tmp_path: Path) -> None:
    """E-41: inbound restricts the source, outbound the destination, in the family of the net only."""
    nets = {"v4": "192.0.2.0/24", "v6": "[2001:db8::c000:200/120]"}
    given = {
        "failsafeInboundHostPorts": [f"tcp:{net}:22" for net in nets.values()],
        "failsafeOutboundHostPorts": [f"tcp:{nets['v4']}:23"],
    }
    inbound, not_inbound = Probe("tcp", STRANGER, EDGE_OUTSIDE, 22), Probe("tcp", CLIENT, EDGE_OUTSIDE, 22)
    default = Probe("tcp", STRANGER, EDGE_OUTSIDE, 6443)
    outbound, not_outbound = Probe("tcp", EDGE_OUTSIDE, STRANGER, 23), Probe("tcp", EDGE_OUTSIDE, CLIENT, 23)
    with enforce(world, tmp_path, backend, policies.MANAGEMENT, **given):
        probes = twins(inbound, not_inbound, default, outbound, not_outbound)
        assert passing(world, *probes) == words(*twins(inbound), outbound)


@pytest.mark.parametrize("exempt", [False, True])
def test_any_interface_and_loopback(world: World, backend: str, exempt: bool, tmp_path: Path) -> None:
    """E-47: a `*` host endpoint governs `lo` unless it is exempt, and forwarding from and to pods."""
    forward = policies.policy(
        "forward",
        """
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
  egress:
  - {action: Allow, protocol: TCP, destination: {ports: [80, 81]}}
""",
        more="  applyOnForward: true\n",
    )
    text = "---".join((policies.host("any", "*"), policies.PODS, forward))
    local = Probe("tcp", EDGE_INSIDE, EDGE_INSIDE, 82)
    to_pod, pod_out = Probe("tcp", INSIDE_HOST, WEB_POD, 80), Probe("tcp", WEB_POD, INSIDE_HOST, 80)
    others = [Probe("tcp", INSIDE_HOST, WEB_POD, 81), Probe("tcp", WEB_POD, INSIDE_HOST, 81)]
    with enforce(world, tmp_path, backend, text, exemptLoopback=exempt):
        passes = [local] if exempt else []
        seen = passing(world, *twins(local, to_pod, pod_out, *others))
        assert seen == words(*twins(*passes, to_pod, pod_out))


def test_host_endpoint_follows_its_address(world: World, backend: str, tmp_path: Path) -> None:
    """E-45: bound by `expectedIPs`, it goes with its address to another interface."""
    bound = policies.host("by-address", more=", expectedIPs: [10.9.0.99]").replace(
        'interfaceName: "eth0", ', ""
    )
    text = f"{bound}---{policies.policy('some', policies.ALLOW_9100)}"
    outside, inside = Probe("tcp", STRANGER, EDGE_OUTSIDE, 7000), Probe("tcp", INSIDE_HOST, EDGE_INSIDE, 7000)
    for address in ("10.9.0.99/32", f"{twin('10.9.0.99')}/128"):
        world.run(EDGE, "ip", "address", "add", address, "dev", "eth1", *(("nodad",) * (":" in address)))
    with enforce(world, tmp_path, backend, text):
        assert passing(world, *twins(outside, inside)) == words(*twins(outside))
        for address in ("10.9.0.99/32", f"{twin('10.9.0.99')}/128"):
            world.run(EDGE, "ip", "address", "delete", address, "dev", "eth1")
        world.run(EDGE, "ip", "address", "add", "10.9.0.99/32", "dev", "eth0")
        # Several changes may be followed one by one.
        assert wait_until(lambda: passing(world, *twins(outside, inside)) == words(*twins(inside)))
