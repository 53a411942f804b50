"""Rules of other programs in the same tables: both keep their say, marks included, and ours come back."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import policies
import pytest
from kit import (
    ACCEPT,
    DECIDED,
    PROGRAMS,
    REJECT,
    Ear,
    add_rules,
    count,
    echo_server,
    enforce,
    hits,
    labelgate,
    passing,
    restore,
    saved,
    twins,
    wait_until,
    words,
)
from labelgate.agent.rate_limit import RateLimited
from labelgate.demo.traffic import Probe, family
from labelgate.demo.world import (
    CLIENT,
    EDGE,
    EDGE_INSIDE,
    EDGE_OUTSIDE,
    INSIDE,
    INSIDE_HOST,
    STRANGER,
    WEB_POD,
    World,
    twin,
)

FAST = policies.policy(
    "fast",
    """
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: UDP, source: {nets: [203.0.113.0/24]}, destination: {ports: [9300, 9301]}}
  - {action: Deny, protocol: UDP, destination: {ports: [9302]}}
  egress:
  - {action: Allow, protocol: UDP, source: {ports: [9300]}, destination: {nets: [203.0.113.0/24]}}
""",
    more="  doNotTrack: true\n  applyOnForward: true\n",
)
"""Of each hook's ports the first is allowed by all, the second is denied by the rules of others."""
EARLY = policies.policy(
    "early",
    """
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, source: {nets: [203.0.113.0/24]}, destination: {ports: [9400, 9401]}}
  - {action: Deny, protocol: UDP, destination: {ports: [9402]}}
""",
    more="  preDNAT: true\n  applyOnForward: true\n",
)
USUAL = policies.policy(
    "usual",
    """
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: UDP, source: {nets: [203.0.113.0/24]}, destination: {ports: ["80:81"]}}
  - {action: Allow, protocol: UDP, source: {nets: [203.0.113.0/24]}, destination: {ports: ["9100:9101"]}}
  egress:
  - {action: Allow, protocol: UDP, destination: {nets: [203.0.113.0/24], ports: [9500]}}
""",
    order=20,
    more="  applyOnForward: true\n",
)
EVERYTHING = "---".join((policies.PODS, policies.host(), FAST, EARLY, USUAL))


def udp(port: int, src: str = CLIENT, dst: str = EDGE_OUTSIDE) -> Probe:
    return Probe("udp", src, dst, port)


PASS = [udp(9300), udp(9400), udp(9100), udp(80, dst=WEB_POD)]
THEIRS = [udp(9301), udp(9401), udp(9101), udp(81, dst=WEB_POD)]
OURS = [udp(9302), udp(9402), udp(9100, STRANGER), udp(82, dst=WEB_POD)]
THEIR_CHAINS = {
    "raw": [("PREROUTING", 9300)],
    "mangle": [("PREROUTING", 9400)],
    "filter": [("INPUT", 9100), ("FORWARD", 80)],
}


def rules_of_another(world: World, backend: str) -> None:
    for table, chains in THEIR_CHAINS.items():
        for chain, port in chains:
            match = "-p udp -m udp --dport"
            add_rules(
                world, backend, table,
                count(chain, f"seen-{port}", f"{match} {port}"),
                count(chain, f"denied-{port}", f"{match} {port + 1}", "DROP"),
            )  # fmt: skip


@pytest.mark.parametrize("mode", ["insert", "append"])
def test_rules_of_another_program(world: World, backend: str, mode: str, tmp_path: Path) -> None:
    """Behind ours (insert) and ahead of ours (append): their deny holds and our deny holds, in each table."""
    # In INPUT an accept of ours is final, unless it returns (`FilterAllowAction`).
    given = {"chainInsertMode": mode, "iptablesFilterAllowAction": "Return" if mode == "insert" else "Accept"}
    rules_of_another(world, backend)
    before = saved(world, backend)
    with enforce(world, tmp_path, backend, EVERYTHING, **given) as daemon:
        assert passing(world, *twins(*PASS, *THEIRS, *OURS)) == words(*twins(*PASS))
        seen = hits(world, backend, "raw") | hits(world, backend, "mangle") | hits(world, backend, "filter")
        # Ahead of ours they also see what we deny, and twice what comes back from the queue.
        expected = {f"seen-{port}": (1, 1) for port in (9300, 9400, 9100, 80)}
        if mode == "append":
            expected = {"seen-9300": (2, 2), "seen-9400": (2, 2), "seen-9100": (2, 2), "seen-80": (2, 2)}
        assert {name: counts for name, counts in seen.items() if name.startswith("seen")} == expected
        denied = {name: counts for name, counts in seen.items() if name.startswith("denied")}
        assert denied == {f"denied-{port}": (1, 1) for port in (9300, 9400, 9100, 80)}
        warnings = [line for line in daemon.log if line.startswith("warning")]
        assert [line for line in warnings if "IPv6 neighbour discovery" not in line] == []
        daemon.stop()
        assert saved(world, backend) == before


def test_rules_of_the_other_variant_are_passed_once(world: World, backend: str, tmp_path: Path) -> None:
    """The kernel repeats our part of a hook alone: nothing of theirs comes between the two passes."""
    other = {"nft": "legacy", "legacy": "nft"}[backend]
    rules_of_another(world, other)
    with enforce(world, tmp_path, backend, EVERYTHING, chainInsertMode="append"):
        assert passing(world, *twins(*PASS)) == words(*twins(*PASS))
        seen = hits(world, other, "raw") | hits(world, other, "mangle") | hits(world, other, "filter")
        assert {name: counts for name, counts in seen.items() if name.startswith("seen")} == {
            f"seen-{port}": (1, 1) for port in (9300, 9400, 9100, 80)
        }


RESTORE = "-j CONNMARK --restore-mark"


def test_others_that_erase_our_mark(world: World, backend: str, tmp_path: Path) -> None:
    """A mark restored ahead of ours would send a packet round for ever: that hook goes without REPEAT."""
    for table, chain in (("mangle", "PREROUTING"), ("filter", "INPUT"), ("filter", "FORWARD")):
        add_rules(world, backend, table, f"-A {chain} {RESTORE}")
    text = "---".join((policies.PODS, policies.host(), EARLY, USUAL))
    with enforce(world, tmp_path, backend, text, chainInsertMode="append") as daemon:
        hooks = "filter-forward, filter-input, mangle-prerouting"
        assert f"warning: answered without repeating packets: {hooks}" in daemon.log
        # Each of them once, with what it does besides.
        assert sorted(line.split(" ")[3:6] for line in daemon.log if "our mark bits" in line) == sorted(
            [f"{table}:", "`-A", chain]
            for table, chain in (("mangle", "PREROUTING"), ("filter", "INPUT"), ("filter", "FORWARD"))
            for _family in ("v4", "v6")
        )
        probes = [udp(9400), udp(9100), udp(80, dst=WEB_POD), udp(9402), udp(9100, STRANGER)]
        # The mark of an allowed preDNAT packet is erased by the rule in INPUT, which is not ours to prevent.
        assert passing(world, *twins(*probes[1:])) == words(*twins(*probes[1:3]))
        # One that went round would be counted by the thousand.
        assert max(hook["packets"] for hook in daemon.counters()["hooks"].values()) < 1000


IN, THROUGH = udp(9100, STRANGER), udp(9100, STRANGER, INSIDE_HOST)
OUT = Probe("udp", EDGE_OUTSIDE, STRANGER, 9500)
FORGES = "-p udp -m udp --dport 9000:9999 -j MARK --set-xmark 0x100/0xffffffff"


FORGED = {
    "raw PREROUTING": (IN, THROUGH),
    "mangle PREROUTING": (IN, THROUGH),
    "nat PREROUTING": (IN, THROUGH),
    "mangle INPUT": (IN,),
    "mangle FORWARD": (THROUGH,),
    "mangle OUTPUT": (OUT,),
    "nat OUTPUT": (OUT,),
}
"""By where it stands: what that rule lets pass, which policy denies."""


@pytest.mark.parametrize("place", FORGED)
def test_others_that_write_our_mark_behind_ours(
    world: World, backend: str, place: str, tmp_path: Path
) -> None:
    """Denied packets pass as accepted, which rules cannot help: log, status and doctor say who does that."""
    table, chain = place.split()
    probes, text = twins(IN, THROUGH, OUT), "---".join((policies.host(), USUAL))
    with enforce(world, tmp_path, backend, text) as daemon:
        assert passing(world, *probes) == []
        add_rules(
            world, backend, table, f"-A {chain} -j MARK --set-xmark 0x4000/0x4000", f"-A {chain} {FORGES}"
        )
        writers = [
            f"iptables-{backend} {family} {table}: `-A {chain} {FORGES}` can write our mark bits"
            for family in ("v4", "v6")
        ]
        daemon.wait_for(f"warning: {writers[-1]}")
        assert [line.partition(": packets may")[0] for line in daemon.log if "our mark bits" in line] == [
            f"warning: {writer}" for writer in writers
        ]
        assert passing(world, *probes) == words(*twins(*FORGED[place]))
        status = json.loads(labelgate(daemon, "status", "-o", "json")[1])
        assert status["rules"] == {"variant": backend, "otherVariant": None, "markWriters": writers}
        said = world.run(EDGE, "sh", "-c", '"$@"; true', "-", sys.executable, "-m", "labelgate", "doctor")
        assert [line for line in said.splitlines() if "our mark bits" in line] == [
            f"warning  rules of others: {writer.removeprefix('iptables-')}" for writer in writers
        ]


def test_a_flush_and_others_that_write_our_mark(world: World, backend: str, tmp_path: Path) -> None:
    """What there is to say of the flush is more than the log takes in a minute."""
    with enforce(world, tmp_path, backend, EVERYTHING) as daemon:
        for name in PROGRAMS:
            restore(world, backend, name, "filter", "-F")
        for _ in range(RateLimited.MOST):
            daemon.wait_for("our rules are put back")
        add_rules(world, backend, "nat", f"-A PREROUTING {FORGES}")
        daemon.wait_for("our mark bits")


def test_untracked_policy_needs_the_second_pass(world: World, backend: str, tmp_path: Path) -> None:
    add_rules(world, backend, "raw", "-A PREROUTING -j MARK --set-xmark 0x0/0xffffffff")
    daemon = enforce(world, tmp_path, backend, EVERYTHING, chainInsertMode="append")
    before = saved(world, backend)
    daemon.start()
    assert "untracked policy cannot be enforced at raw-prerouting" in daemon.wait_for("untracked policy")
    assert daemon.exit_code() == 3
    assert saved(world, backend) == before


def test_our_rules_are_put_back(world: World, backend: str, tmp_path: Path) -> None:
    """A jump deleted, a chain flushed, a rule of others ahead of ours: in order again at the next check."""
    with enforce(world, tmp_path, backend, EVERYTHING) as daemon:
        rules = saved(world, backend)
        for name in PROGRAMS:
            restore(world, backend, name, "filter", "-D INPUT -j lg-INPUT", "-D FORWARD -j lg-FORWARD-end")
            restore(world, backend, name, "raw", "-F lg-PREROUTING")
        restore(world, backend, "v4", "mangle", "-I PREROUTING -j RETURN")
        # A check may fall in between: then two checks find what is wrong.
        for finding in (
            "v6 filter INPUT: rule 1 is not `-j lg-INPUT`, as it should be",
            "v4 raw lg-PREROUTING: not as it was installed",
            "v4 mangle PREROUTING: rule 1 is not `-j lg-PREROUTING`, as it should be",
        ):
            if not any(finding in line for line in daemon.log):
                daemon.wait_for(finding)
        assert wait_until(lambda: not without_theirs(saved(world, backend), rules))
        assert passing(world, *twins(*PASS, *OURS)) == words(*twins(*PASS))


def test_rules_that_say_little_or_cannot_be_read(world: World, backend: str, tmp_path: Path) -> None:
    """A bare rule, and a comment of two lines: neither ends the daemon, at its start or later."""
    for name in PROGRAMS:
        restore(world, backend, name, "filter", ":ACCT - [0:0]", "-A ACCT", "-A INPUT", "-A FORWARD -j ACCT")
    before = saved(world, backend)
    with enforce(world, tmp_path, backend, EVERYTHING, chainInsertMode="append", stop="keep") as daemon:
        rules = saved(world, backend)
        two_lines = ["-m", "comment", "--comment", 'first\n"second']
        world.run(EDGE, f"iptables-{backend}", "-w", "20", "-I", "INPUT", *two_lines)
        daemon.wait_for("without repeating packets: filter-input")
        world.run(EDGE, f"iptables-{backend}", "-w", "20", "-D", "INPUT", *two_lines)
        daemon.wait_for("without repeating packets: no hook")
        for name in PROGRAMS:
            restore(world, backend, name, "filter", "-F lg-INPUT")
        assert wait_until(lambda: saved(world, backend) == rules)
        assert passing(world, *twins(*PASS, *OURS)) == words(*twins(*PASS))
        assert daemon.stop() == 0
        world.run(EDGE, sys.executable, "-m", "labelgate", "clean")
        assert saved(world, backend) == before


def without_theirs(now: list[str], rules: list[str]) -> list[str]:
    """What differs, but for the rule of others, which stays behind ours."""
    return sorted(({*now} ^ {*rules}) - {"iptables mangle -A PREROUTING -j RETURN"})


FOREIGN = 0x0020_0003
"""Bits of another program."""


def test_marks(world: World, backend: str, tmp_path: Path) -> None:
    """Bits of others survive every verdict; D and R are gone where our part ends, A where it says nothing."""
    for table, chain in (("raw", "PREROUTING"), ("raw", "OUTPUT")):
        add_rules(world, backend, table, f"-A {chain} -j MARK --set-xmark {FOREIGN:#x}/{FOREIGN:#x}")
    exact = {"clean": FOREIGN, "accepted": FOREIGN | ACCEPT}
    chains = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
    places = [(table, chain) for table in ("mangle", "nat") for chain in chains]
    places.remove(("nat", "FORWARD"))
    for table, chain in places:
        rules = [
            count(
                chain, f"{chain}-{name}-{table}", f"-p udp -m udp --dport 9000:9999 -m mark --mark {mark:#x}"
            )
            for name, mark in exact.items()
        ]
        # Ahead of ours in mangle PREROUTING, D is still there in the repeated pass.
        ours = [
            count(chain, f"{chain}-{bit:#x}-{table}", f"-m mark --mark {bit:#x}/{bit:#x}")
            for bit in (DECIDED, REJECT)
            if (table, chain) != ("mangle", "PREROUTING")
        ]
        add_rules(world, backend, table, *rules, *ours)
    add_rules(world, backend, "filter", count("FORWARD", "forward", "-p udp -m udp --dport 9600"))
    text = f"{EVERYTHING.replace('80:81', '9600')}"
    probes = [udp(9300), udp(9400), udp(9100), udp(9600, dst=WEB_POD)]
    out = [Probe("udp", EDGE_OUTSIDE, CLIENT, 9500)]
    with (
        enforce(world, tmp_path, backend, text, chainInsertMode="append", iptablesFilterDenyAction="Reject"),
    ):
        assert passing(world, *twins(*probes, *out)) == words(*twins(*probes, *out))
        seen = hits(world, backend, "mangle") | hits(world, backend, "nat")
    assert {name: counts for name, counts in seen.items() if counts != (0, 0)} == {
        # The untracked one has A here; what preDNAT policy allows comes back with A and D.
        "PREROUTING-accepted-mangle": (1, 1),
        "PREROUTING-clean-mangle": (3, 3),
        "PREROUTING-accepted-nat": (1, 1),
        "PREROUTING-clean-nat": (2, 2),
        "INPUT-accepted-mangle": (2, 2),
        "INPUT-clean-mangle": (1, 1),
        "INPUT-accepted-nat": (1, 1),
        "INPUT-clean-nat": (1, 1),
        "FORWARD-clean-mangle": (1, 1),
        "OUTPUT-clean-mangle": (1, 1),
        "OUTPUT-clean-nat": (1, 1),
        "POSTROUTING-accepted-mangle": (1, 1),
        "POSTROUTING-accepted-nat": (1, 1),
        "POSTROUTING-clean-mangle": (1, 1),
        "POSTROUTING-clean-nat": (1, 1),
    }


def test_routing_rules_that_read_our_mark(world: World, backend: str, tmp_path: Path) -> None:
    """As wg-quick makes them: untracked packets of the host may be routed otherwise, which is said."""
    world.run(EDGE, *["ip", "rule", "add", "not", "fwmark", "0xca6c", "table", "51820", "priority", "32000"])
    world.run(EDGE, *["ip", "rule", "add", "fwmark", "0x4000/0x4000", "table", "51821", "priority", "32001"])
    with (
        enforce(world, tmp_path, backend, policies.RESOLVER) as daemon,
        echo_server(world, EDGE, EDGE_INSIDE, 5353),
    ):
        assert [line for line in daemon.log if "fwmark" in line] == [
            "warning: IPv4 rule 32000: fwmark 0xca6c/0xffffffff reads our mark bits: packets of this host "
            "that untracked policy was asked about may be routed by it"
        ]


def test_forged_accept_marks(world: World, backend: str, tmp_path: Path) -> None:
    """A with SO_MARK is cleared before anything reads it, where packets are made and where `lo` brings them.

    Together with D it is believed (README, "not supported"): so is shown that A is read at all, and that `lo`
    would bring it.
    """

    def forge(address: str, port: int, mark: int) -> None:
        with socket.socket(family(address), socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            sender.sendto(b"x", (address, port))

    from_lo, accepted = "-i lo -p udp -m udp --dport 7002", f"--mark {ACCEPT:#x}/{ACCEPT:#x}"
    add_rules(
        world, backend, "raw",
        count("PREROUTING", "accepted", f"{from_lo} -m mark {accepted}"),
        count("PREROUTING", "cleared", f"{from_lo} -m mark ! {accepted}"),
    )  # fmt: skip
    with (
        enforce(world, tmp_path, backend, f"{policies.host('any', '*')}---{USUAL}---{FAST}"),
        Ear(world, EDGE, 4, socket.IPPROTO_UDP) as here,
        Ear(world, EDGE, 6, socket.IPPROTO_UDP) as here6,
        Ear(world, INSIDE, 4, socket.IPPROTO_UDP) as there,
        Ear(world, INSIDE, 6, socket.IPPROTO_UDP) as there6,
    ):
        for address in (EDGE_INSIDE, INSIDE_HOST):
            for either in (address, twin(address)):
                world.call(EDGE, forge, either, 7001, ACCEPT)
                world.call(EDGE, forge, either, 7002, ACCEPT | DECIDED | REJECT)
        assert [ear.ports() for ear in (here, here6, there, there6)] == [[], [], [7002], [7002]]
        assert hits(world, backend, "raw") == {"accepted": (0, 0), "cleared": (1, 1)}


@pytest.mark.parametrize("killed", [False, True])
def test_clean_leaves_what_others_have(world: World, backend: str, killed: bool, tmp_path: Path) -> None:
    """`labelgate clean`, also behind a daemon that was killed, and with the other variant's rules there."""
    rules_of_another(world, backend)
    other = {"nft": "legacy", "legacy": "nft"}[backend]
    add_rules(world, other, "filter", count("INPUT", "other-variant", "-p udp -m udp --dport 1"))
    before = [saved(world, variant) for variant in (backend, other)]
    with enforce(world, tmp_path, backend, EVERYTHING, stop="keep") as daemon:
        if killed:
            daemon.process.kill()
        daemon.stop()
        assert saved(world, backend) != before[0]
        world.run(EDGE, sys.executable, "-m", "labelgate", "clean")
        assert [saved(world, variant) for variant in (backend, other)] == before
