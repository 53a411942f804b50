"""Rules as text, facts, the dispatch tree, what is read back and what others do ahead of ours."""

from __future__ import annotations

import os
import random
from ipaddress import ip_address
from pathlib import Path

import pytest
from labelgate.netfilter.dispatch import Dispatch
from labelgate.netfilter.facts import Marks, RulesetFacts
from labelgate.netfilter.readback import (
    EMPTY_TABLE,
    SavedTable,
    hazards,
    misplaced,
    parse_save,
)
from labelgate.netfilter.render import describe, put_back, transaction
from labelgate.netfilter.routing import RoutingRule, mark_readers
from labelgate.netfilter.rules import Jump, Rule, TableRules
from labelgate.netfilter.ruleset import CONNTRACK_ONLY, ruleset
from labelgate.settings import Settings
from rules_interpreter import Interpreter, KernelPacket
from ruleset_examples import EXAMPLES, example, host, many_pods, workload

GOLDEN = Path(__file__).parents[1] / "golden" / "rulesets"


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_rulesets(name: str) -> None:
    text = describe(ruleset(example(name)))
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_golden_ruleset_of_settings() -> None:
    settings = Settings(
        filter_allow="Return",
        filter_deny="Reject",
        endpoint_to_host="Accept",
        chain_insert_mode="append",
        exempt_loopback=True,
        invalid_check=False,
    )
    facts = example(
        "apply-on-forward-any",
        settings=settings,
        marks=Marks.from_mask(0x0007_0000),
        queue_base=100,
        fail_open=frozenset({"filter-input"}),
        without_repeat=frozenset({"filter-output"}),
    )
    text = describe(ruleset(facts))
    file = GOLDEN / "settings.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_nobody_governs_no_rules() -> None:
    assert ruleset(RulesetFacts((), ())).tables == {}


def test_facts_in_any_order_make_the_same_rules() -> None:
    facts = many_pods(50)
    shuffled = list(facts.workloads)
    random.Random(1).shuffle(shuffled)
    assert describe(ruleset(RulesetFacts((), tuple(shuffled)))) == describe(ruleset(facts))


@pytest.mark.parametrize(
    ("hosts", "workloads", "message"),
    [
        ([host("a", "eth0"), host("b", "eth0")], [], "eth0 is claimed by HostEndpoint/a and HostEndpoint/b"),
        ([host("a", "*"), host("b", "*")], [], "more than one"),
        ([], [workload("w", "cali+", 2, ["deny"] * 2, ["deny"] * 2)], "'cali\\+' cannot be written"),
        ([], [workload("w", "cali1\n-A INPUT", 2, ["deny"] * 2, ["deny"] * 2)], "cannot be written"),
        ([], [workload("w", "cali567890123456", 2, ["deny"] * 2, ["deny"] * 2)], "cannot be written"),
    ],
)
def test_facts_that_cannot_be_rules(hosts: list[object], workloads: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RulesetFacts.read({"hosts": hosts, "workloads": workloads})


@pytest.mark.parametrize("mask", [0, 0x0500, 0x1D00, 0x7_0000_0000])
def test_a_mark_mask_has_three_bits(mask: int) -> None:
    with pytest.raises(ValueError, match="exactly 3 of the low 32"):
        Marks.from_mask(mask)


@pytest.mark.parametrize(
    ("interfaces", "ct", "has_prednat", "most"),
    [
        (("eth0", "eth1"), "established", False, 7),
        (("eth1", "eth0"), "established", False, 11),
        (("eth1", "eth2"), "established", False, 10),
        (("eth0", "eth1"), "established", True, 9),
        (("eth0", "eth1"), "new", False, 9),
    ],
)
def test_a_forwarded_packet_meets_few_rules(
    interfaces: tuple[str, str], ct: str, has_prednat: bool, most: int
) -> None:
    """With policy on eth0 in FORWARD, or there and before DNAT; jumps included."""
    queue = ["queue", "queue"]
    chains = {"forward": {"ingress": queue, "egress": queue}, "prednat": queue if has_prednat else None}
    tables = ruleset(RulesetFacts.read({"hosts": [host("a", "eth0", **chains)], "workloads": []})).tables
    looked_at = 0
    for table, base in (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("filter", "FORWARD")):
        interpreter = Interpreter(transaction(table, EMPTY_TABLE, tables[table, "v4"]))
        packet = KernelPacket(
            src=ip_address("192.0.2.5"),
            dst=ip_address("203.0.113.1"),
            protocol=6,
            in_=interfaces[0],
            out=None if base == "PREROUTING" else interfaces[1],
            ct=ct,
            mark=0,
        )
        looked_at += interpreter.enter(base, packet).rules
    assert looked_at == most


def test_200_pods_cost_no_linear_scan() -> None:
    facts = many_pods(200)
    tables = ruleset(facts).tables
    interpreters = {
        table: Interpreter(transaction(table, EMPTY_TABLE, tables[table, "v4"]))
        for table in ("raw", "filter")
    }
    looked_at = {"raw": 0, "filter": 0}
    for pod in facts.workloads:
        for table, chain, word in (("raw", "lg-PREROUTING", "return"), ("filter", "lg-FORWARD", "queue")):
            packet = KernelPacket(
                src=pod.sources[0][0],
                dst=ip_address("203.0.113.1"),
                protocol=6,
                in_=pod.interface,
                out=None if table == "raw" else "eth0",
                ct="new",
                mark=0,
            )
            outcome = interpreters[table].run(chain, packet)
            assert outcome.word == word
            looked_at[table] = max(looked_at[table], outcome.rules)
    assert max(looked_at.values()) <= 35
    assert max(len(name) for t in tables.values() for name in t.chains) <= 28


def test_dispatch_tells_apart_a_name_that_begins_another() -> None:
    names = ["eth1", *(f"eth1{digit}" for digit in range(10)), "wg0", "verylongname1", "verylongname123"]
    leaves = {name: (Rule("", f"-g to-{name}"),) for name in names}
    dispatch = Dispatch("lg-x", "-i", leaves, (Rule("", "-j DROP"),))
    lines = [f":{name} - [0:0]" for name, _ in dispatch.chains()] + [f":to-{name} - [0:0]" for name in names]
    lines += [f"-A {chain} {rule}" for chain, rules in dispatch.chains() for rule in rules]
    lines += [f"-A lg-{name} -j ACCEPT" for name in names]
    text = "\n".join(lines).replace("to-", "lg-").replace("-A lg-lg-", "-A lg-")
    interpreter = Interpreter(text)

    def ends(name: str) -> str:
        packet = KernelPacket(ip_address("::1"), ip_address("::1"), 6, name, None, "new", 0)
        return interpreter.run("lg-x", packet).word

    assert {name: ends(name) for name in names} == dict.fromkeys(names, "accept")
    others = ["eth", "eth2", "eth1a", "eth100", "wg", "wg01", "verylongname", "verylongname12"]
    assert {name: ends(name) for name in others} == dict.fromkeys(others, "drop")


SAVED = """\
# Generated by iptables-nft-save v1.8.9 (nf_tables)
*filter
:INPUT ACCEPT [10:840]
:DOCKER - [0:0]
:lg-INPUT - [0:0]
:lg-old - [0:0]
-A INPUT -j lg-INPUT
-A INPUT -m comment --comment "the \\"first\\" rule" -j ACCEPT
-A DOCKER -j RETURN
-A lg-INPUT -m mark --mark 0x400/0x400 -g lg-old
-A lg-old -j RETURN
COMMIT
# Completed
*nat
:PREROUTING ACCEPT [0:0]
COMMIT
"""
RULES = TableRules({"lg-INPUT": (Rule("", "-j DROP"),)}, first=(Jump("INPUT", "lg-INPUT"),))


def test_reading_back() -> None:
    tables = parse_save(SAVED)
    assert list(tables) == ["filter", "nat"]
    saved = tables["filter"]
    assert saved.chains["INPUT"] == ("-j lg-INPUT", '-m comment --comment "the \\"first\\" rule" -j ACCEPT')
    assert saved.ours == {
        "lg-INPUT": ("-m mark --mark 0x400/0x400 -g lg-old",),
        "lg-old": ("-j RETURN",),
    }
    assert not tables["nat"].is_ours
    assert misplaced("filter", saved, RULES) == []


def test_a_transaction_keeps_a_jump_in_place_and_removes_stale_chains() -> None:
    saved = parse_save(SAVED)["filter"]
    assert transaction("filter", saved, RULES).splitlines() == [
        "*filter",
        ":lg-INPUT - [0:0]",
        ":lg-old - [0:0]",
        "-A lg-INPUT -j DROP",
        "-X lg-old",
        "COMMIT",
    ]


def test_a_transaction_moves_jumps_and_removes_doubles() -> None:
    text = SAVED.replace("-A DOCKER -j RETURN", "-A INPUT -j lg-INPUT\n-A DOCKER -i x -g lg-old")
    saved = parse_save(text)["filter"]
    assert misplaced("filter", saved, RULES) == [
        "filter DOCKER: `-i x -g lg-old` is rule 1, which it should not be",
        "filter INPUT: `-j lg-INPUT` is rule 3, which it should not be",
    ]
    assert transaction("filter", saved, RULES).splitlines()[4:] == [
        "-D INPUT -j lg-INPUT",
        "-D INPUT -j lg-INPUT",
        "-D DOCKER -i x -g lg-old",
        "-I INPUT 1 -j lg-INPUT",
        "-X lg-old",
        "COMMIT",
    ]


MARKED = TableRules(
    {"lg-OUTPUT": (Rule("-m mark ! --mark 0x0/0x1500", "-j RETURN"),)},
    first=(Jump("OUTPUT", "lg-OUTPUT", "-m mark ! --mark 0x0/0x1500"),),
)


def with_jump(jump: str) -> SavedTable:
    return parse_save(f"*raw\n:OUTPUT ACCEPT [0:0]\n:lg-OUTPUT - [0:0]\n-A OUTPUT {jump}\nCOMMIT\n")["raw"]


@pytest.mark.parametrize(
    "jump",
    [
        "-m mark ! --mark 0x0/0x1500 -j lg-OUTPUT",  # iptables-save of 1.8.9, nft and legacy.
        "-m mark --mark ! 0x0/0x1500 -j lg-OUTPUT",  # How negation stood before 1.4.3, and in ebtables.
        "-m mark ! --mark 0/5376 -j lg-OUTPUT",
        "-m mark ! --mark 0X0/0x00001500 -j lg-OUTPUT",
    ],
)
def test_a_jump_is_what_it_means_however_it_is_printed(jump: str) -> None:
    saved = with_jump(jump)
    assert misplaced("raw", saved, MARKED) == []
    assert " OUTPUT " not in transaction("raw", saved, MARKED)
    assert "-D OUTPUT -m mark ! --mark 0x0/0x1500 -j lg-OUTPUT" in transaction("raw", saved, TableRules({}))


@pytest.mark.parametrize(
    "jump",
    [
        "-m mark --mark 0x0/0x1500 -j lg-OUTPUT",
        "-m mark ! --mark ! 0x0/0x1500 -j lg-OUTPUT",
        "-m mark ! --mark 0x0 -j lg-OUTPUT",
        "-m mark ! --mark 0x0/0x1501 -j lg-OUTPUT",
        "-m mark ! --mark 0x100/0x1500 -j lg-OUTPUT",
        "-m mark ! --mark 0x0/01500 -j lg-OUTPUT",  # Octal.
        "-m connmark ! --mark 0x0/0x1500 -j lg-OUTPUT",
        "-m mark ! --mark 0x0/0x1500 -g lg-OUTPUT",
        "-m mark ! --mark 0x0/0x1500 -j lg-output",
        "-o eth0 -m mark ! --mark 0x0/0x1500 -j lg-OUTPUT",
        "-m mark ! --mark 0x0/0x1500 -m limit --limit 1/sec -j lg-OUTPUT",
        "-j lg-OUTPUT",
    ],
)
def test_a_jump_that_means_something_else(jump: str) -> None:
    saved = with_jump(jump)
    assert len(misplaced("raw", saved, MARKED)) == 2  # What is there, and what is missing.
    lines = transaction("raw", saved, MARKED).splitlines()
    assert "-I OUTPUT 1 -m mark ! --mark 0x0/0x1500 -j lg-OUTPUT" in lines


def test_what_was_there_is_put_back_where_it_was() -> None:
    before = parse_save(SAVED.replace("-A INPUT -j lg-INPUT\n", "") + "")["filter"]
    now = parse_save(SAVED)["filter"]
    assert put_back("filter", now, before).splitlines() == [
        "*filter",
        ":lg-INPUT - [0:0]",
        ":lg-old - [0:0]",
        "-A lg-INPUT -m mark --mark 0x400/0x400 -g lg-old",
        "-A lg-old -j RETURN",
        "-D INPUT -j lg-INPUT",
        "COMMIT",
    ]


def found(mode: str, *rules: str, table: str = "mangle") -> list[str]:
    text = "\n".join([f"*{table}", ":PREROUTING ACCEPT [0:0]", ":FOO - [0:0]", *rules, "COMMIT"])
    return [str(hazard) for hazard in hazards(parse_save(text), Marks(), mode)]


@pytest.mark.parametrize("odd", ["\x0c", "\x85", "\u2028"])
def test_a_rule_is_a_line_of_the_kernel(odd: str) -> None:
    rule = f'-m comment --comment "a{odd}-A INPUT b" -j DROP'
    assert parse_save(f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n")["filter"].chains == {
        "INPUT": (rule,)
    }


def test_a_rule_without_match_and_target() -> None:
    saved = parse_save("*filter\n:\n:ACCT - [0:0]\n-A ACCT\n-A INPUT\n-A INPUT -j lg-INPUT\nCOMMIT\n")
    assert saved["filter"].chains == {"": (), "ACCT": ("",), "INPUT": ("", "-j lg-INPUT")}
    assert found("append", "-A PREROUTING", "-A PREROUTING -j FOO", "-A FOO") == []


@pytest.mark.parametrize(
    "rule", ['-m comment --comment "first line', "-j MARK --set-xmark many/bits"], ids=["words", "numbers"]
)
def test_a_rule_that_cannot_be_read_is_a_hazard(rule: str) -> None:
    theirs, ours = f"-A PREROUTING {rule}", "-A PREROUTING -j lg-PREROUTING"
    assert found("insert", theirs, ours) == [f"mangle-prerouting: `{theirs}` cannot be read"]
    assert found("insert", ours, theirs) == []


WRITES, ENDS = "can write our mark bits", "can end the table in one pass and not in the other"


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("-j MARK --set-xmark 0x1/0xffffffff", WRITES),
        ("-j MARK --set-xmark 0x4000/0x4000", None),
        ("-j MARK --set-xmark 0x400/0x0", WRITES),
        ("-j MARK --or-mark 0x1", None),
        ("-j MARK --and-mark 0xffffeaff", WRITES),
        ("-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", WRITES),
        ("-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", None),
        ("-j CONNMARK --restore-mark", WRITES),
        ("-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff", None),
        ("-p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1", None),
        ("-m mark --mark 0x400/0x400 -j ACCEPT", ENDS),
        ("-m mark ! --mark 0x0 -j ACCEPT", ENDS),
        ("-m mark --mark 0x4000/0x4000 -j ACCEPT", None),
        ("-m limit --limit 5/sec -j DROP", ENDS),
        ("-m statistic --mode random --probability 0.5 -j RETURN", ENDS),
        ("-m limit --limit 5/sec -j LOG", None),
        ("-s 10.0.0.0/8 -j DROP", None),
        ("-j NFQUEUE --queue-num 0", ENDS),
    ],
)
def test_rules_ahead_of_ours(rule: str, reason: str | None) -> None:
    expected = [] if reason is None else [f"mangle-prerouting: `-A PREROUTING {rule}` {reason}"]
    assert found("append", f"-A PREROUTING {rule}") == expected
    assert found("insert", f"-A PREROUTING {rule}") == []
    assert found("insert", f"-A PREROUTING {rule}", "-A PREROUTING -j lg-PREROUTING") == expected
    assert found("append", "-A PREROUTING -j lg-PREROUTING", f"-A PREROUTING {rule}") == []


def test_rules_ahead_of_ours_in_chains() -> None:
    limited = "-A PREROUTING -m limit --limit 1/sec -j FOO"
    assert found("append", limited, "-A FOO -s 10.0.0.1/32 -j DROP") == [
        f"mangle-prerouting: `-A FOO -s 10.0.0.1/32 -j DROP` {ENDS}"
    ]
    returning = ("-A PREROUTING -j FOO", "-A FOO -m limit --limit 1/sec -j RETURN", "-A FOO -j DROP")
    assert found("append", *returning) == [f"mangle-prerouting: `-A FOO -j DROP` {ENDS}"]
    assert found("append", "-A PREROUTING -j FOO", "-A FOO -s 10.0.0.1/32 -j DROP") == []
    assert found("append", "-A PREROUTING -j FOO", "-A FOO -j FOO") == []
    assert found("append", "-A PREROUTING -j MARK --set-mark 1", table="nat") == []


def test_routing_rules_that_read_the_accept_mark() -> None:
    wg_quick = RoutingRule(4, 32764, 0xCA6C, 0xFFFFFFFF)
    assert mark_readers([RoutingRule(4, 100, 0x4000, 0x4000), wg_quick], Marks()) == (wg_quick,)
    assert str(wg_quick) == "IPv4 rule 32764: fwmark 0xca6c/0xffffffff"


def test_conntrack_only_leads_no_packet_anywhere() -> None:
    assert {key: (rules.first, rules.last) for key, rules in CONNTRACK_ONLY.tables.items()} == {
        ("raw", "v4"): ((), ()),
        ("raw", "v6"): ((), ()),
    }
