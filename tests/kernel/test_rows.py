"""The worked examples on real packets: every row that a packet can reproduce, in both variants and families.

The reference says what should become of a packet on its way; the kernel must do it. Two rounds tell an
explicit accept from `continue`: once the base chains of filter accept, once they drop what nobody accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from labelgate.demo.daemon import NODE, Daemon
from labelgate.demo.world import EDGE, World, twin_text
from labelgate.flow import packet_from_json
from labelgate.reference import Reference
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import load
from rows import CASES, Row, arrives, expected, send_rows, sendable

FOLDERS = sorted(folder for folder in CASES.glob("8.*") if not folder.name.endswith("-v6"))
KEYS = {
    "endpoint_to_host": "defaultEndpointToHostAction",
    "exempt_loopback": "exemptLoopback",
    "forward_unmarked": "forwardUnmarked",
}
"""Names of settings in cases, and in the configuration."""
HOST = {"eth0": ("198.51.100.10",), "eth1": ("10.9.0.10",), "cali111": (), "cali222": ()}


def read(folder: Path) -> dict[str, Any]:
    case: dict[str, Any] = yaml.safe_load((folder / "packets.yaml").read_text(encoding="utf-8"))
    return case


def rows_of(case: dict[str, Any]) -> list[Row]:
    return list(sendable((item["id"], packet_from_json(item["packet"])) for item in case["packets"]))


def drop_by_default(world: World, backend: str) -> None:
    """The base chains of filter drop, except what belongs to a known flow."""
    chains = ("INPUT", "FORWARD", "OUTPUT")
    known = [f"-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT" for chain in chains]
    # Neighbour discovery between the node and its pods is not ours to judge.
    found = [
        f"-A {chain} -p icmpv6 --icmpv6-type {kind} -j ACCEPT" for chain in chains for kind in (135, 136)
    ]
    policies = [f":{chain} DROP [0:0]" for chain in chains]
    for program, rules in (("iptables", known), ("ip6tables", known + found)):
        text = "\n".join(["*filter", *policies, *rules, "COMMIT", ""])
        world.run(EDGE, f"{program}-{backend}-restore", "--noflush", stdin=text)


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_rows(world: World, backend: str, family: str, folder: Path, tmp_path: Path) -> None:
    case, text = read(folder), (folder / "policy.yaml").read_text(encoding="utf-8")
    rows, facts = rows_of(case), HOST
    if family == "v6":
        rows, text = [row.twin for row in rows], twin_text(text)
        facts = {name: tuple(map(twin_text, addresses)) for name, addresses in HOST.items()}
    policy, config = tmp_path / "policy.yaml", tmp_path / "config.yaml"
    policy.write_text(text, encoding="utf-8")
    given = case.get("settings") or {}
    config.write_text(yaml.safe_dump({KEYS[name]: value for name, value in given.items()}), encoding="utf-8")
    judge = Reference(load(policy), NODE, HostFacts(facts), Settings(**given)).answer
    answers = {row.id: expected(judge, row) for row in rows}
    assert rows, "the world can send at least some rows of every example"
    with Daemon(world, policy, backend=backend, options=("--config", str(config))):
        for base_drops in (False, True):
            if base_drops:
                drop_by_default(world, backend)
            seen = send_rows(world, rows)
            wanted = {row.id: arrives(answers[row.id], base_drops=base_drops) for row in rows}
            assert seen == wanted, f"base chains {'drop' if base_drops else 'accept'}"
