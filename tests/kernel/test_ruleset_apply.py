"""Rules into a real kernel and out again, with both variants, each test in a network namespace of its own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from kit import wait_until
from labelgate.flow import HOOKS
from labelgate.netfilter import apply
from labelgate.netfilter.apply import VARIANTS, ApplyError, Netfilter, Tools, Variant, clean, detect_variant
from labelgate.netfilter.conntrack import conntrack_in_use
from labelgate.netfilter.facts import FAMILIES, ByFamily, Family, Marks, RulesetFacts
from labelgate.netfilter.readback import hazards
from labelgate.netfilter.rules import Rule, Ruleset
from labelgate.netfilter.ruleset import ruleset
from labelgate.settings import Settings
from namespaces import a_new_one


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    with a_new_one():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param  # type: ignore[no-any-return]


def facts(pods: int = 2, **settings: Any) -> RulesetFacts:
    """One of everything: both host endpoint policies that need the queue, a `*` host endpoint, pods."""
    queue, both = ["queue", "queue"], {"ingress": ["queue", "queue"], "egress": ["queue", "unmarked"]}
    denies = {"ingress": [True, False], "egress": [False, False]}
    chains = {"input": queue, "output": ["queue", "deny"], "forward": both, "prednat": queue,
              "untracked_denies": denies}  # fmt: skip
    hosts = [
        {"endpoint": "HostEndpoint/a", "interfaces": ["eth0"], "any": False, "untracked": both, **chains},
        {"endpoint": "HostEndpoint/b", "interfaces": [], "any": True, "untracked": None, **chains},
    ]
    workloads = [
        {
            "endpoint": f"Pod/shop/{number}",
            "interface": f"cali{number:05x}",
            "sources": [f"10.65.0.{number + 1}/32", f"fd00:65::{number + 1:x}/128"],
            "ingress": queue,
            "egress": ["allow", "deny"],
        }
        for number in range(pods)
    ]
    made = Settings(failsafe_outbound=(), **settings)
    return RulesetFacts.read({"hosts": hosts, "workloads": workloads}, settings=made)


def printed(variant: Variant) -> dict[Family, str]:
    """What iptables-save says, without what changes by itself."""
    texts: dict[Family, str] = {}
    for family in FAMILIES:
        program = Tools(variant).program(family, "save")
        assert program is not None
        text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
        lines = [line.split(" [")[0] for line in text.splitlines() if not line.startswith("#")]
        texts[family] = without_empty_tables("\n".join(lines))
    return texts


def without_empty_tables(text: str) -> str:
    kept = [
        t
        for t in text.split("COMMIT")
        if "\n-A " in t or any(" - " in f"{x} " for x in t.split("\n") if x[:1] == ":")
    ]
    return "COMMIT".join(sorted(table.strip() for table in kept))


def load(variant: Variant, text: str, families: tuple[Family, ...] = FAMILIES) -> None:
    for family in families:
        Tools(variant).write("test", family, text)


OTHERS = """\
*filter
:DOCKER - [0:0]
-A INPUT -m comment --comment "of \\"others\\"" -p tcp --dport 9999 -j DROP
-A FORWARD -j DOCKER
-A DOCKER -s {net} -j DROP
COMMIT
*mangle
-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*nat
-A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 8080
COMMIT
"""


def load_others(variant: Variant) -> None:
    load(variant, OTHERS.format(net="10.1.0.0/16"), ("v4",))
    load(variant, OTHERS.format(net="fd01::/64"), ("v6",))


def jumps(netfilter: Netfilter, table: str, base: str) -> dict[Family, list[str]]:
    return {family: list(tables[table].chains[base]) for family, tables in netfilter.read().items()}


def test_applied_once_and_cleaned_away(variant: Variant) -> None:
    load_others(variant)
    before = printed(variant)
    netfilter = Netfilter(variant)
    assert netfilter.apply(ruleset(facts()))
    assert netfilter.check(netfilter.read()) == []
    applied = printed(variant)
    assert not netfilter.apply(ruleset(facts())), "unchanged rules were loaded again"
    assert Netfilter(variant).apply(ruleset(facts())), "another process cannot know that they are in force"
    assert printed(variant) == applied
    assert sorted(clean()) == sorted(
        f"{variant} {f} {t}" for f in FAMILIES for t in ("raw", "mangle", "filter")
    )
    assert printed(variant) == before
    assert clean() == []


def test_jumps_are_first_or_last_once(variant: Variant) -> None:
    load_others(variant)
    of_others = '-p tcp -m comment --comment "of \\"others\\"" -m tcp --dport 9999 -j DROP'
    netfilter = Netfilter(variant)
    netfilter.apply(ruleset(facts()))
    assert jumps(netfilter, "filter", "INPUT") == {key: ["-j lg-INPUT", of_others] for key in FAMILIES}
    expected = ["-j lg-FORWARD", "-j DOCKER", "-j lg-FORWARD-end"]
    assert jumps(netfilter, "filter", "FORWARD") == dict.fromkeys(FAMILIES, expected)
    netfilter.apply(ruleset(facts(chain_insert_mode="append")))
    expected = ["-j DOCKER", "-j lg-FORWARD", "-j lg-FORWARD-end"]
    assert jumps(netfilter, "filter", "FORWARD") == dict.fromkeys(FAMILIES, expected)
    netfilter.apply(ruleset(facts(filter_allow="Return")))
    assert jumps(netfilter, "filter", "FORWARD") == {key: ["-j lg-FORWARD", "-j DOCKER"] for key in FAMILIES}
    assert netfilter.check(netfilter.read()) == []


def test_meddling_is_seen_and_undone(variant: Variant) -> None:
    netfilter = Netfilter(variant)
    netfilter.apply(ruleset(facts()))
    in_force = printed(variant)
    load(
        variant,
        "*filter\n-I INPUT 1 -p tcp -j ACCEPT\n-A FORWARD -p udp -j DROP\n-A INPUT -j lg-INPUT\nCOMMIT\n",
        ("v4",),
    )
    load(variant, "*raw\n-F lg-PREROUTING\nCOMMIT\n", ("v6",))
    assert netfilter.check(netfilter.read()) == [
        "v6 raw lg-PREROUTING: not as it was installed",
        "v4 filter FORWARD: `-j lg-FORWARD-end` is rule 2, which it should not be",
        "v4 filter FORWARD: rule 3 is not `-j lg-FORWARD-end`, as it should be",
        "v4 filter INPUT: `-j lg-INPUT` is rule 2, which it should not be",
        "v4 filter INPUT: `-j lg-INPUT` is rule 3, which it should not be",
        "v4 filter INPUT: rule 1 is not `-j lg-INPUT`, as it should be",
    ]
    assert netfilter.apply(ruleset(facts()))
    assert netfilter.check(netfilter.read()) == []
    assert jumps(netfilter, "filter", "INPUT")["v4"] == ["-j lg-INPUT", "-p tcp -j ACCEPT"]
    assert jumps(netfilter, "filter", "FORWARD")["v4"] == [
        "-j lg-FORWARD",
        "-p udp -j DROP",
        "-j lg-FORWARD-end",
    ]
    load(variant, "*filter\n-D INPUT -p tcp -j ACCEPT\n-D FORWARD -p udp -j DROP\nCOMMIT\n", ("v4",))
    assert printed(variant) == in_force


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("table", "chain", "change"),
    [
        ("filter", "lg-INPUT", "-F lg-INPUT"),
        ("filter", "lg-INPUT", "-D INPUT -j lg-INPUT\n-F lg-INPUT\n-X lg-INPUT"),
        ("raw", "lg-PREROUTING", "-I lg-PREROUTING -j ACCEPT"),
    ],
)
def test_meddling_while_rules_are_written(
    variant: Variant, table: str, chain: str, change: str, is_first: bool
) -> None:
    """It is not taken for what was asked for: neither in a table that is written, nor in another one."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps -= 1
        if steps == 0:
            load(variant, f"*{table}\n{change}\nCOMMIT\n", ("v4",))

    netfilter, rules = Netfilter(variant, step=step), ruleset(facts())
    if is_first:
        steps = len(FAMILIES) + len(rules.tables)
    else:
        netfilter.apply(rules)
        load(variant, "*filter\n-F lg-INPUT\nCOMMIT\n", ("v4",))
        steps = len(FAMILIES) + 1
    netfilter.apply(rules)
    assert f"v4 {table} {chain}: not as it was installed" in netfilter.check(netfilter.read())
    assert netfilter.apply(rules)
    assert netfilter.check(netfilter.read()) == []
    assert not netfilter.apply(rules)


def test_what_is_put_back_is_what_was_told(variant: Variant) -> None:
    """Changes behind the look are found by the next one."""
    netfilter, rules = Netfilter(variant), ruleset(facts())
    netfilter.apply(rules)
    load(variant, "*filter\n-F lg-INPUT\nCOMMIT\n", ("v4",))
    now = netfilter.read()
    load(variant, "*raw\n-F lg-PREROUTING\nCOMMIT\n", ("v6",))
    assert netfilter.check(now) == ["v4 filter lg-INPUT: not as it was installed"]
    netfilter.apply(rules, now)
    assert netfilter.check(netfilter.read()) == ["v6 raw lg-PREROUTING: not as it was installed"]


def test_rules_of_others_ahead_of_ours_are_told(variant: Variant) -> None:
    netfilter = Netfilter(variant)

    def found(insert_mode: str) -> list[str]:
        tables = netfilter.read().values()
        return sorted({str(hazard) for t in tables for hazard in hazards(t, Marks(), insert_mode)})

    ahead = "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"
    load(variant, f"*mangle\n-A PREROUTING {ahead}\nCOMMIT\n")
    assert found("insert") == []
    assert found("append") == [f"mangle-prerouting: `-A PREROUTING {ahead}` can write our mark bits"]
    netfilter.apply(ruleset(facts()))
    assert found("insert") == []
    load(variant, "*filter\n-I FORWARD 1 -m limit --limit 5/sec -j ACCEPT\nCOMMIT\n", ("v6",))
    reason = "can end the table in one pass and not in the other"
    assert found("insert") == [f"filter-forward: `-A FORWARD -m limit --limit 5/sec -j ACCEPT` {reason}"]


def test_stale_chains_go(variant: Variant) -> None:
    netfilter = Netfilter(variant)
    netfilter.apply(ruleset(facts(pods=60)))
    assert any("." in name for name in netfilter.read()["v4"]["filter"].ours)
    netfilter.apply(ruleset(facts(pods=2)))
    assert not any("." in name for name in netfilter.read()["v4"]["filter"].ours)
    fresh = printed(variant)
    clean()
    Netfilter(variant).apply(ruleset(facts(pods=2)))
    assert printed(variant) == fresh


def broken(rules: Ruleset) -> Ruleset:
    """The last transaction fails."""
    tables = dict(rules.tables)
    table = tables["filter", "v6"]
    chains = {**table.chains, "lg-INPUT": (Rule("", "-j NO-SUCH-CHAIN"),)}
    tables["filter", "v6"] = replace(table, chains=chains)
    return Ruleset(tables)


def without_prednat(made: RulesetFacts) -> RulesetFacts:
    """Nothing for mangle PREROUTING; the rest as it was."""
    return replace(made, hosts=tuple(replace(host, prednat=None) for host in made.hosts))


def test_a_hook_is_entered_when_it_is_needed_and_kept(variant: Variant) -> None:
    """A verdict of its queue may be under way whenever rules change."""
    netfilter, full = Netfilter(variant), facts()
    hosts = tuple(replace(host, output=host.input) for host in without_prednat(full).hosts)
    less = replace(full, hosts=tuple(replace(h, output=ByFamily("allow", "allow")) for h in hosts))
    netfilter.apply(ruleset(less))
    assert netfilter.entered == set(HOOKS) - {"mangle-postrouting"}
    assert jumps(netfilter, "mangle", "POSTROUTING") == {key: [] for key in FAMILIES}
    netfilter.apply(ruleset(replace(full, kept=netfilter.entered)))
    assert netfilter.entered == set(HOOKS)
    assert jumps(netfilter, "mangle", "PREROUTING") == {key: ["-j lg-PREROUTING"] for key in FAMILIES}
    netfilter.apply(ruleset(replace(less, kept=netfilter.entered)))
    for base in ("PREROUTING", "POSTROUTING"):
        jump = f"-m mark --mark 0x400/0x400 -j lg-{base}"
        assert jumps(netfilter, "mangle", base) == {key: [jump] for key in FAMILIES}
    assert netfilter.check(netfilter.read()) == []
    another = Netfilter(variant)
    another.read()
    assert another.entered == set(HOOKS), "a daemon that begins where one has ended"


@pytest.mark.parametrize("had_rules", [False, True])
def test_a_failed_transaction_leaves_what_was_there(variant: Variant, had_rules: bool) -> None:
    load_others(variant)
    netfilter = Netfilter(variant)
    if had_rules:
        netfilter.apply(ruleset(facts(chain_insert_mode="append")))
    before = printed(variant)
    with pytest.raises(ApplyError) as raised:
        netfilter.apply(broken(ruleset(facts(pods=20))))
    assert (raised.value.table, raised.value.family) == ("filter", "v6")
    assert "NO-SUCH-CHAIN" in raised.value.stderr
    assert printed(variant) == before
    assert netfilter.check(netfilter.read()) == []


def test_the_last_policy_goes_but_conntrack_stays(variant: Variant) -> None:
    before = printed(variant)
    netfilter = Netfilter(variant)
    assert not netfilter.apply(Ruleset({}))
    assert printed(variant) == before, "a host without policy has rules"
    netfilter.apply(ruleset(facts()))
    netfilter.apply(Ruleset({}))
    left = {
        family: {t: s.ours for t, s in tables.items() if s.is_ours}
        for family, tables in netfilter.read().items()
    }
    rule = {"raw": {"lg-conntrack": ("-m conntrack --ctstate INVALID -j RETURN",)}}
    assert left == dict.fromkeys(FAMILIES, rule)
    assert netfilter.check(netfilter.read()) == []


def test_the_variant_in_use_is_found(variant: Variant) -> None:
    load(variant, "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n", ("v4",))
    assert detect_variant() == variant
    other = next(v for v in VARIANTS if v != variant)
    load(other, "*filter\n-A INPUT -j ACCEPT\n-A OUTPUT -j ACCEPT\nCOMMIT\n", ("v4",))
    assert detect_variant() == other
    Netfilter(variant).apply(ruleset(facts()))
    assert detect_variant() == variant


def test_rules_of_the_other_variant_are_taken_along(variant: Variant) -> None:
    other = next(v for v in VARIANTS if v != variant)
    before = printed(other)
    Netfilter(other).apply(ruleset(facts()))
    Netfilter(variant).apply(ruleset(facts()))
    assert printed(other) == before


def test_conntrack_is_switched_on_once(variant: Variant) -> None:
    assert [conntrack_in_use(family) for family in FAMILIES] == [False, False]
    netfilter = Netfilter(variant)
    assert netfilter.prepare_conntrack()
    assert [conntrack_in_use(family) for family in FAMILIES] == [True, True]
    assert not netfilter.prepare_conntrack()
    netfilter.apply(ruleset(facts()))
    assert not netfilter.prepare_conntrack()
    clean()
    # nf_tables lets go of what removed rules have used some time later.
    assert wait_until(lambda: not any(map(conntrack_in_use, FAMILIES)))


@pytest.mark.parametrize("deny", ["Drop", "Reject"])
def test_every_setting_loads(variant: Variant, deny: str) -> None:
    for allow in ("Accept", "Return"):
        for host in ("Drop", "Accept", "Return"):
            made = facts(filter_allow=allow, filter_deny=deny, endpoint_to_host=host, exempt_loopback=True)
            Netfilter(variant).apply(ruleset(made))


def test_a_static_deny_holds_and_a_reject_answers(variant: Variant) -> None:
    queue = ["queue", "queue"]
    chains = {"input": ["deny"] * 2, "output": ["allow"] * 2, "forward": {"ingress": queue, "egress": queue}}
    any_host = {
        "endpoint": "HostEndpoint/any",
        "interfaces": [],
        "any": True,
        "untracked": None,
        "untracked_denies": {},
        "prednat": None,
    }
    made = RulesetFacts.read(
        {"hosts": [any_host | chains], "workloads": []},
        settings=Settings(filter_deny="Reject", failsafe_inbound=()),
    )
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((address, 0), family=family) as server:
            with socket.create_connection(server.getsockname()[:2], timeout=30):
                pass
            Netfilter(variant).apply(ruleset(made))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(server.getsockname()[:2], timeout=30)
        clean()


def test_a_family_that_appears_gets_its_rules(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 is loaded when somebody first needs it, or was left out at boot."""
    with monkeypatch.context() as patched:
        patched.setattr(apply, "families", lambda: ("v4",))
        netfilter = Netfilter(variant)
        netfilter.apply(ruleset(facts()))
        assert netfilter.check(netfilter.read()) == []
        assert not any(table.is_ours for table in Tools(variant).read("v6").values())
    assert netfilter.check(netfilter.read()) == ["v6 has appeared: it has no rules of ours"]
    assert netfilter.apply(ruleset(facts()))
    assert netfilter.check(netfilter.read()) == []
    assert {name for name, table in Tools(variant).read("v6").items() if table.is_ours} >= {"raw", "filter"}


def test_the_other_variant_is_seen(variant: Variant) -> None:
    """Rules, not tables."""
    other: Variant = "legacy" if variant == "nft" else "nft"
    netfilter = Netfilter(variant)
    netfilter.apply(ruleset(facts()))
    assert netfilter.other_variant() is None
    Tools(other).write("filter", "v6", "*filter\n-A INPUT -i eth7 -j ACCEPT\nCOMMIT\n")
    seen, found = netfilter.other_variant() or (None, {})
    assert seen == other
    assert found["v6"]["filter"].chains["INPUT"] == ("-i eth7 -j ACCEPT",)
    Tools(other).write("filter", "v6", "*filter\n-D INPUT -i eth7 -j ACCEPT\nCOMMIT\n")
    assert netfilter.other_variant() is None
