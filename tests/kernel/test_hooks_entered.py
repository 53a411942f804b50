"""Hooks that get policy, and lose it, while packets wait in the queues of others; and bit D between them."""

from __future__ import annotations

from pathlib import Path

import policies
from kit import DECIDED, add_rules
from labelgate.demo.daemon import Daemon
from labelgate.demo.traffic import send
from labelgate.demo.world import World
from policies import ALLOWED, GUARD, REFUSED
from test_daemon import Traffic


def test_a_hook_comes_and_goes_under_traffic(world: World, backend: str, management: Path) -> None:
    """No packet is lost, and none passes that should not."""
    with Daemon(world, management, backend=backend) as daemon, Traffic(world) as traffic:
        traffic.wait_for_arrivals(50)
        for number, guard in enumerate((GUARD, "", GUARD, ""), 2):
            management.write_text(policies.MANAGEMENT + guard, encoding="utf-8")
            assert f"generation {number} in force" in daemon.reload()
            traffic.wait_for_arrivals(50)
            assert not send(world, REFUSED)
        traffic.stop()
        assert traffic.arrived == traffic.sent
        assert send(world, ALLOWED)
        queued = {hook: counts["packets"] for hook, counts in daemon.counters()["hooks"].items()}
        assert queued["mangle-prerouting"] >= 100
        assert queued["filter-input"] >= traffic.sent


def test_who_writes_d_behind_a_hook_opens_no_other(world: World, backend: str, management: Path) -> None:
    """Without preDNAT policy, too, mangle PREROUTING takes D from what others have marked behind raw."""
    with Daemon(world, management, backend=backend):
        add_rules(world, backend, "raw", f"-A PREROUTING -j MARK --set-xmark {DECIDED:#x}/{DECIDED:#x}")
        assert send(world, ALLOWED)
        assert not send(world, REFUSED)
