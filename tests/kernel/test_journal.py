"""Events in a real journal: systemd-journald, and nothing else of systemd, with a /run of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import policies
import pytest
from labelgate.agent.journal import PATH, Journal
from labelgate.control import ask
from labelgate.demo.daemon import Daemon
from labelgate.demo.namespaces import end
from labelgate.demo.world import CLIENT, EDGE, EDGE_OUTSIDE, OUTSIDE, World
from scapy.layers.inet import UDP

JOURNALD = Path("/lib/systemd/systemd-journald")
SETTINGS = "[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=\\nRateLimitBurst=0\\n"
PREPARE = f"""
mount -t tmpfs none /run && mkdir -p /run/systemd/journald.conf.d &&
printf '{SETTINGS}' > /run/systemd/journald.conf.d/test.conf && echo ready && exec sleep infinity
"""

pytestmark = pytest.mark.skipif(not JOURNALD.exists(), reason=f"no {JOURNALD} (Debian: systemd)")


class Journald:
    """In the edge node, in a mount namespace that is there before it, and stays when it ends."""

    def __init__(self, world: World, keeper: int) -> None:
        self._world = world
        self.inside = ["nsenter", f"--mount=/proc/{keeper}/ns/mnt"]
        """Before a command: it sees this journal."""
        self.socket = Path(f"/proc/{keeper}/root{PATH}")

    def start(self) -> None:
        """Starts it, and returns when it takes entries."""
        self._process = self._world.start(EDGE, *self.inside, str(JOURNALD))
        assert kit.wait_until(lambda: self._sync() == 0)

    def stop(self) -> None:
        """Ends it; its socket stays, and nobody is behind it."""
        assert end(self._process) == 0

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """What it has of us, oldest first."""
        read = [
            *self.inside,
            "journalctl",
            "--output=json",
            "--all",
            "--quiet",
            "SYSLOG_IDENTIFIER=labelgate",
        ]
        assert self._sync() == 0
        out = subprocess.run([*read, *matches], capture_output=True, text=True, check=True).stdout
        return [json.loads(line) for line in out.splitlines()]

    def _sync(self) -> int:
        """Has it read what was sent to it; the exit code."""
        return subprocess.run([*self.inside, "journalctl", "--sync"], capture_output=True).returncode


@pytest.fixture
def journald(world: World) -> Iterator[Journald]:
    # Not by `ip netns exec`, which puts another /sys over the one with control groups.
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", PREPARE], stdout=subprocess.PIPE) as keeper:
        try:
            assert keeper.stdout
            assert keeper.stdout.readline() == b"ready\n"
            yield Journald(world, keeper.pid)
        finally:
            keeper.terminate()


def deny(world: World, port: int) -> None:
    """A packet that no rule allows."""
    kit.inject(world, OUTSIDE, kit.ip(CLIENT, EDGE_OUTSIDE) / UDP(sport=5001, dport=port))


def test_denials_are_entries_also_where_the_journal_was_away(
    world: World, journald: Journald, tmp_path: Path
) -> None:
    policy, config = tmp_path / "policy.yaml", tmp_path / "config.yaml"
    policy.write_text(policies.MANAGEMENT, encoding="utf-8")
    config.write_text("events: {journal: true}\n", encoding="utf-8")
    daemon = Daemon(world, policy, backend="nft", options=("--config", str(config)))
    daemon._command[:0] = journald.inside
    with daemon:
        deny(world, 7001)
        daemon.wait_for("events.journal: No such file or directory; events are lost")
        for port in (7002, 7004):
            journald.start()
            deny(world, port)
            assert kit.wait_until(lambda port=port: journald.entries(f"LABELGATE_DPORT={port}"))
            (entry,) = journald.entries(f"LABELGATE_DPORT={port}", "LABELGATE_KIND=deny")
            (event,) = (event for event in ask(daemon.socket, "events")["events"] if event["dport"] == port)
            fields = {name: value for name, value in event.items() if value is not None}
            fields |= {"interface_in": fields.pop("in")}
            assert {name: entry[f"LABELGATE_{name.upper()}"] for name in fields} == {
                name: str(value) for name, value in fields.items()
            }
            assert event["policy"] is None
            assert "LABELGATE_POLICY" not in entry
            assert (entry["PRIORITY"], entry["_PID"]) == ("5", str(daemon.process.pid))
            assert f"{CLIENT}:5001 > {EDGE_OUTSIDE}:{port} eth0>-" in entry["MESSAGE"]
            journald.stop()
            deny(world, port + 1)
            assert daemon.wait_for("events.journal: ").endswith("; events are lost")
        journald.start()
        found = {entry.get("LABELGATE_DPORT") for entry in journald.entries()}
        assert found & {str(port) for port in range(7001, 7006)} == {"7002", "7004"}


def test_none_of_a_burst_is_lost_nor_cut(world: World, journald: Journald) -> None:
    """As many as come in one turn, into a socket that holds ten; long values, and values of two lines."""
    journald.start()
    journal = Journal(str(journald.socket), patience=60)
    event = {
        "time": 0, "kind": "log", "src": "::1", "sport": None, "dst": "::2", "dport": 80, "protocol": 6,
        "icmp": None, "in": "eth0", "out": None, "hook": "filter-input", "endpoint": None, "tier": None,
        "policy": "two\nlines", "direction": None, "rule": 0, "reason": "x",
    }  # fmt: skip
    long = "0f" * 50_000
    journal.write({**event, "rule": rule} for rule in range(1000))
    journal.write([{**event, "rule": 1000, "header": long}])
    journal.close()
    entries = journald.entries("PRIORITY=6")
    assert [entry["LABELGATE_RULE"] for entry in entries] == [str(rule) for rule in range(1001)]
    assert {entry["LABELGATE_POLICY"] for entry in entries} == {"two\nlines"}
    assert entries[-1]["LABELGATE_HEADER"] == long
