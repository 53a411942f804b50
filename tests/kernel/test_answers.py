"""What the kernel answers to the first packet of a connection, where untracked policy judges what leaves.

No queue takes these answers, a reset or a message of ICMP: their connection is not confirmed yet.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import policies
import pytest
import yaml
from kit import told, twins
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import Probe
from labelgate.demo.world import CLIENT, EDGE_OUTSIDE, World

UNTRACKED = """
  doNotTrack: true
  applyOnForward: true
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [5353]}}
"""
ALLOWING = UNTRACKED + "  egress:\n  - {action: Allow, protocol: UDP, source: {ports: [5353]}}\n"
DENYING = ALLOWING + "  - {action: Deny, protocol: %s}\n"
REJECT = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {iptablesFilterDenyAction: Reject}
"""
PROBES = twins(*(Probe(protocol, CLIENT, EDGE_OUTSIDE, 7777) for protocol in ("tcp", "udp")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("untracked", "fail", "reset", "unreachable"),
    [
        pytest.param(None, "closed", True, True, id="no untracked policy"),
        pytest.param(ALLOWING, "closed", True, True, id="no rule denies"),
        pytest.param(DENYING % "UDP", "closed", True, True, id="none of them"),
        pytest.param(DENYING % "TCP", "closed", False, True, id="resets"),
        pytest.param(DENYING % "TCP", "open", True, True, id="resets, open"),
        pytest.param(ALLOWING + policies.ANY_PACKET, "closed", False, False, id="all of them"),
        pytest.param(ALLOWING + policies.ANY_PACKET, "open", True, True, id="all of them, open"),
    ],
)
def test_rejects_of_first_packets(
    world: World,
    backend: str,
    tmp_path: Path,
    untracked: str | None,
    fail: str,
    reset: bool,
    unreachable: bool,
) -> None:
    """E-22: they pass as what no rule decides; where one may deny them, as `fail` says."""
    policy, config = tmp_path / "policy.yaml", tmp_path / "config.yaml"
    texts = [policies.MANAGEMENT, REJECT]
    texts += [policies.policy("untracked", untracked, order=1)] if untracked else []
    policy.write_text("---".join(texts), encoding="utf-8")
    config.write_text(yaml.dump({"fail": {"raw-output": fail}}), encoding="utf-8")
    with (
        Daemon(world, policy, backend=backend, options=("--config", str(config))),
        ThreadPoolExecutor(len(PROBES)) as pool,
    ):
        errors = dict(zip(PROBES, pool.map(lambda probe: told(world, probe), PROBES), strict=True))
    wanted = {"tcp": reset, "udp": unreachable}
    assert errors == {probe: "ECONNREFUSED" if wanted[probe.protocol] else None for probe in PROBES}
