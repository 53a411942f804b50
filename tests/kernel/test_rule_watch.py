"""Changes of rules are noticed: by netlink events (nft), by comparing tables (legacy)."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import wait_until
from labelgate.netfilter.apply import Tools, Variant
from labelgate.netfilter.facts import FAMILIES, Family
from labelgate.netfilter.watch import LegacyWatch, NftWatch, RuleWatch
from namespaces import a_new_one


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    with a_new_one():
        yield


@pytest.fixture(params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest) -> Variant:
    return "nft" if request.param == "nft" else "legacy"


def load(variant: Variant, family: Family, table: str, *lines: str) -> None:
    Tools(variant).write(table, family, "\n".join([f"*{table}", *lines, "COMMIT", ""]))


class Clock:
    """Each look is late enough for another one."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("table", ["raw", "mangle", "filter"])
def test_changes_are_noticed_once(variant: Variant, family: Family, table: str) -> None:
    rule = "PREROUTING -i eth0 -j ACCEPT" if table != "filter" else "INPUT -i eth0 -j ACCEPT"
    watch = NftWatch() if variant == "nft" else LegacyWatch(Clock())
    try:
        assert not watch.has_changed()
        for lines in (
            [f"-A {rule}"],  # in a table that is new
            ["-A " + rule.replace("eth0", "eth1")],
            [
                f"-R {rule.replace(' ', ' 2 ', 1).replace('eth0', 'eth2')}"
            ],  # neither more rules nor fewer bytes
            [":lg-one - [0:0]"],
            ["-D " + rule],
        ):
            load(variant, family, table, *lines)
            assert wait_until(watch.has_changed, 5), lines
            assert not watch.has_changed()
    finally:
        watch.close()


def test_what_does_not_concern_us_is_not_noticed(variant: Variant) -> None:
    load(variant, "v4", "filter", "-A INPUT -i lo -j ACCEPT")
    watch = NftWatch() if variant == "nft" else LegacyWatch(Clock())
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        load(variant, "v4", "nat", "-A PREROUTING -i eth0 -j ACCEPT")
        assert not watch.has_changed()
        # Packets that rules count are no change.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
        assert (
            "[0:0] -A INPUT"
            not in subprocess.run(
                [f"iptables-{variant}-save", "-c", "-t", "filter"], capture_output=True, text=True, check=True
            ).stdout
        )
        assert not watch.has_changed()
    finally:
        watch.close()


def test_looking_makes_no_tables() -> None:
    watch = LegacyWatch(Clock())
    assert not watch.has_changed()
    watch.close()
    assert Path("/proc/thread-self/net/ip_tables_names").read_text() == ""
    load("legacy", "v4", "raw", "-A OUTPUT -o eth9 -j ACCEPT")
    watch = LegacyWatch(Clock())
    assert not watch.has_changed()
    watch.close()
    assert Path("/proc/thread-self/net/ip_tables_names").read_text() == "raw\n"


def test_many_events_are_one_change() -> None:
    """More than the socket holds: the kernel says that events are lost, not which."""
    watch = NftWatch()
    try:
        watch._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        load("nft", "v4", "filter", *(f"-A INPUT -i eth{number} -j ACCEPT" for number in range(500)))
        assert wait_until(watch.has_changed, 5)
        assert not watch.has_changed()
    finally:
        watch.close()


def test_an_event_needs_no_timer() -> None:
    """nft: what wakes the daemon is the change itself, and the look at the rules is due at that instant."""
    now = 0.0
    with RuleWatch("nft", lambda: now) as watch:
        now += RuleWatch.SPACING  # It has been quiet for a moment; from here on the clock stands still.
        assert not watch.is_due()
        assert select.select(watch.descriptors, [], [], 0)[0] == []
        load("nft", "v4", "filter", "-A INPUT -i eth0 -j ACCEPT")
        assert select.select(watch.descriptors, [], [], 30)[0] == list(watch.descriptors)
        assert watch.is_due()


def test_a_table_is_compared_within_a_second() -> None:
    """legacy: so often the daemon wakes by itself, whatever has been heard, and looks each time."""
    now = 0.0
    load("legacy", "v4", "filter", "-A INPUT -i eth0 -j ACCEPT")
    with RuleWatch("legacy", lambda: now) as watch:
        assert watch.descriptors == ()
        for change in ("-A INPUT -i eth1 -j ACCEPT", "-D INPUT -i eth1 -j ACCEPT"):
            assert watch.patience <= 1
            load("legacy", "v4", "filter", change)
            now += watch.patience
            assert watch.is_due()
            watch.done(again=False)
            now += RuleWatch.SPACING
            assert not watch.is_due()
