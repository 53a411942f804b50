"""What the doctor makes of what it sees: each ailment is named, with its meaning and its mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from labelgate.config import load_config
from labelgate.doctor import Diagnosis, kernel, rules
from labelgate.netfilter.readback import parse_save
from labelgate.netfilter.routing import RoutingRule

CONFIG = load_config(None, environ={})
MARKING = """*filter
:INPUT ACCEPT [0:0]
-A INPUT -j MARK --set-xmark 0x0/0xffffffff
-A INPUT -j lg-INPUT
COMMIT
"""


def states(*found: Diagnosis) -> list[str]:
    for diagnosis in found:
        assert (diagnosis.meaning != "") == (diagnosis.mend != "") == (diagnosis.state != "ok")
    return [diagnosis.state for diagnosis in found]


@pytest.mark.parametrize(
    ("release", "state"),
    [("6.18.44-fc", "ok"), ("5.7.0", "ok"), ("5.6.19", "failure"), ("4.19.0-27-amd64", "failure")],
)
def test_kernels(release: str, state: str) -> None:
    assert states(kernel.kernel_version(release)) == [state]


def test_capabilities() -> None:
    assert states(*kernel.capabilities("CapEff:\t0000000000003000\n")) == ["ok", "ok"]
    assert states(*kernel.capabilities("CapEff:\t0000000000001000\n")) == ["ok", "failure"]
    assert states(*kernel.capabilities("CapEff:\t0000000000000000\n")) == ["failure", "failure"]


def test_conntrack(tmp_path: Path) -> None:
    assert states(*kernel.conntrack(tmp_path)) == ["note"]
    (tmp_path / "nf_conntrack_max").write_text("1000\n")
    for count, state in ((10, "ok"), (799, "ok"), (801, "warning")):
        (tmp_path / "nf_conntrack_count").write_text(f"{count}\n")
        assert states(*kernel.conntrack(tmp_path)) == [state]


def test_reverse_path() -> None:
    """`all` counts where it is above the interface's own; loose (2) is no trouble."""
    assert states(kernel.reverse_path({"all": 0, "eth0": 0, "eth1": 2})) == ["ok"]
    assert kernel.reverse_path({"all": 1, "eth0": 0, "eth1": 2}).found == "strict on eth0"
    assert kernel.reverse_path({"all": 0, "default": 1, "lo": 1}).state == "ok"


def test_mixed_variants() -> None:
    tables = {"v4": parse_save("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n")}
    assert states(*rules.variants({"nft": tables, "legacy": {}})) == ["ok"]
    assert states(*rules.variants({"nft": tables, "legacy": tables})) == ["warning"]
    assert states(*rules.variants({})) == ["failure"]


def test_rules_of_others_that_write_our_bits() -> None:
    tables = {"v4": parse_save(MARKING)}
    (found,) = rules.foreign_rules({"nft": tables}, CONFIG)
    assert (found.state, "filter-input" in found.found) == ("warning", True)
    spared = {"v4": parse_save(MARKING.replace("0xffffffff", "0xff"))}
    assert states(*rules.foreign_rules({"nft": spared}, CONFIG)) == ["ok"]


def test_routing_rules_that_read_our_bit() -> None:
    assert states(*rules.routing([RoutingRule(4, 100, 0xCA6C, 0xFFFFFFFF)], CONFIG)) == ["warning"]
    assert states(*rules.routing([RoutingRule(4, 100, 1, 0xFF)], CONFIG)) == ["ok"]


QUEUES = "  100  77     0 2   128     0     0        5  1\n 4200  4711  0 2   128     0     0        0  1\n"


def test_queue_numbers() -> None:
    assert rules.queue_numbers("", CONFIG, None).found == "free"
    taken = rules.queue_numbers(QUEUES, CONFIG, None)
    assert (taken.state, taken.found.startswith("4200 taken (netlink port 4711")) == ("failure", True)
    assert states(rules.queue_numbers(QUEUES, CONFIG, daemon=4711)) == ["ok"]


def test_native_tables() -> None:
    text = """{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "ip", "name": "filter"}},
    {"table": {"family": "inet", "name": "firewalld"}}]}"""
    assert rules.foreign_tables(text) == ["inet firewalld"]
