"""The doctor on a host that is well, and on one that is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import policies
from kit import add_rules
from labelgate.demo.daemon import Daemon
from labelgate.demo.world import EDGE, World


def examine(world: World, *arguments: str) -> dict[str, dict[str, Any]]:
    """What it finds in the edge node that is not well, by subject."""
    command = [sys.executable, "-m", "labelgate", "doctor", "-o", "json", *arguments]
    said = world.run(EDGE, "sh", "-c", '"$@"; true', "-", *command)
    found = {item["subject"]: item for item in json.loads(said) if item["state"] != "ok"}
    if "--config" not in arguments:
        assert found.pop("files")["found"].startswith("none was looked at")
    return found


def test_a_daemon_that_is_well(world: World, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policies.MANAGEMENT, encoding="utf-8")
    with Daemon(world, path, backend=backend) as daemon:
        assert examine(world, "--socket", daemon.socket) == {}
        # Without its socket these are its queues all the same.
        found = examine(world, "--socket", str(tmp_path / "none"))
        assert found.keys() == {"daemon"}
        assert found["daemon"]["found"].startswith(f"labelgate runs (pid {daemon.process.pid})")
        daemon.process.kill()
        daemon.process.wait()
        left = examine(world, "--socket", daemon.socket)["our rules"]
        assert left["state"] == "failure"
        assert left["meaning"] == "what they queue, mostly new connections, is dropped"
        world.run(EDGE, sys.executable, "-m", "labelgate", "clean")
    assert not any(name.startswith("queues ") for name in examine(world, "--socket", str(tmp_path / "none")))


def test_ailments(world: World, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    assert set(examine(world, "--socket", none)) <= {"daemon", "conntrack"}
    for names in ("ip_tables_names", "ip6_tables_names"):
        assert world.run(EDGE, "cat", f"/proc/thread-self/net/{names}") == "", "it has made tables"
    for backend in ("nft", "legacy"):
        add_rules(world, backend, "filter", "-A INPUT -j MARK --set-xmark 0x0/0xffffffff")
    world.run(EDGE, "ip", "rule", "add", "fwmark", "0xca6c", "table", "100")
    world.set_sysctls(EDGE, {"net/ipv4/conf/eth0/rp_filter": "1"})
    (tmp_path / "config.yaml").write_text("chainInsertMode: append", encoding="utf-8")
    found = examine(world, "--socket", none, "--config", str(tmp_path / "config.yaml"))
    assert {"iptables", "rules of others", "ip rule", "rp_filter"} <= set(found)
    assert all(item["meaning"] and item["mend"] for item in found.values())
