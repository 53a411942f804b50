"""Rules of others that can write our mark bits before ours read them: which of them, and where they stand."""

from __future__ import annotations

import pytest
from labelgate.agent.others import RulesOfOthers
from labelgate.agent.rate_limit import RateLimited
from labelgate.config import load_config
from labelgate.netfilter.facts import Marks
from labelgate.netfilter.readback import mark_writers, parse_save

SETS = "-i eth0 -j MARK --set-xmark 0x100/0xffffffff"
OURS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
INSTALLED = {f"{table} {base}": f"-A {base} -j lg-{base}" for table, bases in OURS.items() for base in bases}


def writers(table: str, *rules: str, mode: str | None = "insert") -> list[str]:
    text = "\n".join([f"*{table}", ":FOO - [0:0]", ":UNUSED - [0:0]", *rules, "COMMIT"])
    return list(mark_writers(parse_save(text), Marks(), mode))


def told(table: str, base: str, rule: str = SETS) -> list[str]:
    return [f"{table}: `-A {base} {rule}` can write our mark bits"]


ALWAYS = [
    *(("mangle", base) for base in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT")),
    *(("nat", base) for base in ("PREROUTING", "OUTPUT")),
    *(("filter", "OUTPUT"), ("security", "OUTPUT")),
]
BEHIND_ONLY = [("raw", "PREROUTING"), ("raw", "OUTPUT")]
AHEAD_ONLY = [("filter", "INPUT"), ("mangle", "POSTROUTING")]
NEVER = [
    *(("nat", base) for base in ("INPUT", "POSTROUTING")),
    *(("security", base) for base in ("INPUT", "FORWARD")),
]


@pytest.mark.parametrize("place", ALWAYS + BEHIND_ONLY + AHEAD_ONLY + NEVER, ids=" ".join)
def test_where_ours_read_what_they_write(place: tuple[str, str]) -> None:
    """Behind raw, where ours clear what has come, and before the last of ours on a packet's way."""
    table, base = place
    jump, theirs = INSTALLED.get(f"{table} {base}"), f"-A {base} {SETS}"
    expected = told(table, base)
    behind = expected if place in ALWAYS + BEHIND_ONLY else []
    ahead = expected if place in ALWAYS + AHEAD_ONLY else []
    assert writers(table, *filter(None, (jump, theirs))) == behind
    assert writers(table, *filter(None, (theirs, jump))) == ahead
    # Where ours are not there yet, and in the other variant, where nobody knows.
    assert writers(table, theirs, mode="insert") == behind
    assert writers(table, theirs, mode="append") == ahead
    assert writers(table, theirs, mode=None) == ([] if place in NEVER else expected)


def test_before_the_rule_that_ends_forward() -> None:
    """What has A there is accepted. With `iptablesFilterAllowAction: Return` there is no such rule."""
    theirs, ours = f"-A FORWARD {SETS}", "-A FORWARD -j lg-FORWARD"
    end = "-A FORWARD -j lg-FORWARD-end"
    assert writers("filter", ours, theirs, end) == told("filter", "FORWARD")
    assert writers("filter", theirs, ours, end) == told("filter", "FORWARD")
    assert writers("filter", ours, end, theirs) == []
    assert writers("filter", ours, theirs) == []
    assert writers("filter", theirs) == told("filter", "FORWARD")


@pytest.mark.parametrize("mode", ["insert", "append", None])
@pytest.mark.parametrize(
    ("rule", "writes"),
    [
        ("-j MARK --set-xmark 0x1/0xffffffff", True),
        ("-j MARK --set-xmark 0x100/0x100", True),
        ("-j MARK --set-xmark 0x400/0x0", True),
        ("-j MARK --set-xmark 0x4000/0x4000", False),
        ("-j MARK --set-xmark 0x0/0xff", False),
        ("-j MARK --or-mark 0x1000", True),
        ("-j MARK --or-mark 0x800", False),
        ("-j MARK --and-mark 0xffffeaff", True),
        ("-j MARK --and-mark 0xfffffeff", True),
        ("-j MARK --and-mark 0xffffff00", False),
        ("-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", True),
        ("-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", False),
        ("-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff", False),
        ("-j CONNMARK --set-xmark 0x100/0xffffffff", False),
        ("-p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x100/0x100", True),
        ("-p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1", False),
        ("-j HMARK --hmark-tuple src --hmark-mod 1 --hmark-offset 256 --hmark-rnd 0x0", True),
        ("-j SET --map-set there src --map-mark", True),
        ("-m mark --mark 0x100/0x100 -j ACCEPT", False),
        ("-m comment --comment \"let's -j MARK all\" -j DROP", False),
    ],
)  # fmt: skip
def test_rules_that_write(rule: str, writes: bool, mode: str | None) -> None:
    expected = told("mangle", "INPUT", rule) if writes else []
    assert writers("mangle", f"-A INPUT {rule}", mode=mode) == expected


@pytest.mark.parametrize(
    "rule", ['-m comment --comment "first line', "-j MARK --set-xmark many/bits"], ids=["words", "numbers"]
)
def test_a_rule_that_cannot_be_read_may_write(rule: str) -> None:
    assert writers("nat", f"-A PREROUTING {rule}") == [f"nat: `-A PREROUTING {rule}` cannot be read"]


def test_chains_that_are_led_to() -> None:
    theirs = f"-A FOO {SETS}"
    assert writers("nat", "-A PREROUTING -p tcp -j FOO", theirs) == told("nat", "FOO")
    assert writers("nat", "-A PREROUTING -g BAR", "-A BAR -g FOO", theirs) == told("nat", "FOO")
    assert writers("nat", "-A POSTROUTING -j FOO", theirs) == []
    assert writers("nat", f"-A UNUSED {SETS}") == []
    assert writers("nat", "-A PREROUTING -j FOO", "-A FOO -j FOO", "-A FOO -j PREROUTING", theirs) == told(
        "nat", "FOO"
    )
    # Ahead of ours and behind: in raw only what leads there from behind counts.
    ahead, ours = "-A PREROUTING -j FOO", "-A PREROUTING -j lg-PREROUTING"
    assert writers("raw", ahead, ours, theirs) == []
    assert writers("raw", ours, ahead, theirs) == told("raw", "FOO")


def test_rules_of_ours_are_none_of_others() -> None:
    clears = "-A lg-PREROUTING -j MARK --set-xmark 0x0/0x400"
    assert writers("mangle", "-A PREROUTING -j lg-PREROUTING", clears, f"-A lg-a {SETS}") == []
    through = ("-A PREROUTING -j lg-PREROUTING", "-A lg-PREROUTING -j UNUSED", f"-A UNUSED {SETS}")
    assert writers("mangle", *through) == []


class Tables:
    """Of a kernel that never was."""

    tools = type("Tools", (), {"variant": "nft"})

    def other_variant(self) -> None:
        return None


def test_a_rule_is_told_when_it_comes() -> None:
    """Once, whichever way it came; again where it has been away."""
    others = RulesOfOthers((said := []).append)
    marking, none = (parse_save(f"*nat\n-A PREROUTING {rule}\nCOMMIT\n") for rule in (SETS, "-j ACCEPT"))

    def look(tables: object) -> int:
        others.look(Tables(), {"v6": tables}, load_config(None, environ={}))
        return len(said)

    assert [look(tables) for tables in (none, marking, marking, none, marking)] == [0, 1, 1, 1, 2]
    writer = f"iptables-nft v6 {told('nat', 'PREROUTING')[0]}"
    assert others.mark_writers == (writer,)
    assert said[0].startswith(f"warning: {writer}: packets may be judged twice, or pass as judged")


def test_what_the_log_has_no_room_for_is_known() -> None:
    others = RulesOfOthers((said := []).append)
    rules = "\n".join(f"-A PREROUTING -s 10.0.0.{number} -j MARK --or-mark 0x100" for number in range(25))
    others.look(Tables(), {"v4": parse_save(f"*nat\n{rules}\nCOMMIT\n")}, load_config(None, environ={}))
    assert (len(said), len(others.mark_writers)) == (RateLimited.MOST, 25)
