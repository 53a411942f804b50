"""A start beside rules that an earlier run has left, while somebody knocks all the time."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import policies
import pytest
from kit import enforce, passing, words
from labelgate.control import ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.world import STRANGER, World
from policies import ALLOWED, MANAGEMENT, REFUSED
from test_daemon import Traffic

ONE = {"queues": {"workers": 1}}
REJECTING = {**ONE, "iptablesFilterDenyAction": "Reject"}
DENIED_IN_RAW = f"""{policies.host()}---{policies.policy("open", "  ingress: [{action: Allow}]")}---{
    policies.policy(
        "closed",
        '''
  doNotTrack: true
  applyOnForward: true
  ingress:
  - {action: Deny, source: {nets: [192.0.2.0/24]}, destination: {ports: [9100]}, protocol: UDP}
''',
    )
}"""


def numbers(daemon: Daemon) -> tuple[int, int]:
    """The first and the last queue that rules of ours lead to, as `status` says."""
    rows = ask(daemon.socket, "status")["queues"]
    return rows[0]["numbers"][0], rows[-1]["numbers"][1]


@pytest.mark.parametrize(
    ("before", "after", "policy"),
    [
        # The queue of filter INPUT would be that of mangle POSTROUTING, where what comes in goes on.
        ({"queues": {"workers": 2}}, ONE, MANAGEMENT),
        (ONE, {"queues": {"workers": 1, "base": 4194}}, MANAGEMENT),
        # Bit R of the new loop would be D of the old rules: what is to be rejected would go on.
        (REJECTING, {**REJECTING, "marks": {"mask": 0x403}}, MANAGEMENT),
        # The old rules ask filter, where the new policy allows; they do not ask raw, where it denies.
        (ONE, ONE, DENIED_IN_RAW),
    ],
    ids=["workers", "base", "mask", "policy"],
)
@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL], ids=["stop", "kill"])
def test_what_is_denied_never_gets_through_a_restart(
    world: World,
    backend: str,
    tmp_path: Path,
    before: dict[str, Any],
    after: dict[str, Any],
    policy: str,
    way: signal.Signals,
) -> None:
    with (
        enforce(world, tmp_path, backend, MANAGEMENT, stop="keep", **before) as first,
        Traffic(world, source=STRANGER) as traffic,
    ):
        first.process.send_signal(way)
        first.exit_code()
        with enforce(world, tmp_path, backend, policy, stop="remove", **after):
            traffic.stop()
            assert traffic.arrived == 0, f"of {traffic.sent}"


def test_queues_change_between_two_blocks(world: World, backend: str, tmp_path: Path) -> None:
    """What rules lead to is left alone, so every other start has the configured numbers; `status` tells."""
    for first in (4200, 4214, 4200):
        with enforce(world, tmp_path, backend, MANAGEMENT, stop="keep", **ONE) as daemon:
            assert numbers(daemon) == (first, first + 13)
            said = [line for line in daemon.log if "rules that are there lead to" in line]
            assert said == (
                [] if first == 4200 else ["queues 4214..4227: rules that are there lead to those of 4200"]
            )
            assert passing(world, ALLOWED, REFUSED) == words(ALLOWED)
