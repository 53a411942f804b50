"""Counters of the kernel: what is taken of them, when they go, and what a daemon finds that comes later."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_nfacct import FakeNfacct
from labelgate import Snapshot
from labelgate.agent import kernel_counts, rules
from labelgate.agent.generation import Generation
from labelgate.agent.kept_counts import FILE, VERSION, KeptCounts
from labelgate.agent.kernel_counts import KernelCounts
from labelgate.agent.rules import MOST_GAP, RuleCounts
from labelgate.agent.state import framed, write_whole
from labelgate.cli.rules import _is_unused, _lines
from labelgate.handlers import PacketLoop
from labelgate.netfilter.builder import FAILSAFE
from labelgate.resources import load_text
from labelgate.snapshot import HostFacts
from test_events import Loop

MINUTE = 60_000
HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: n, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: open}
spec:
  selector: role == 'edge'
  types: [Ingress, Egress]
  egress:
  - {action: Allow}
  - {action: Deny}
"""
EGRESS, UNREACHED = ("Egress", 0), ("Egress", 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Milliseconds since 1970."""
    now = [MINUTE]
    monkeypatch.setattr(rules, "_now", lambda: now[0])
    monkeypatch.setattr(kernel_counts, "_now", lambda: now[0])
    return now


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeNfacct:
    """Of no kernel."""
    fake = FakeNfacct()
    monkeypatch.setattr(kernel_counts, "nfacct", fake)
    return fake


class Daemon:
    """What counts, of one that has these policies in force."""

    def __init__(self, kernel: FakeNfacct, text: str = HOST, *, is_wanted: bool = True) -> None:
        self.said: list[str] = []
        self._kernel = kernel
        self.counts = KernelCounts(self.said.append, is_wanted=is_wanted)
        self.generation = generation(text)
        self.rules = RuleCounts(cast(PacketLoop, Loop()), self.generation, self.counts)
        self.reload(text)

    def reload(self, text: str, number: int = 1, uncounted: tuple[str, ...] = ()) -> None:
        """As the enforcement does; rules use their counters then."""
        made = self.generation if number == 1 else generation(text)
        named = self.counts.named(made)
        names = frozenset(_names(named.chains)) | frozenset(named.reasons.values())
        self.counts.make(names)
        self._kernel.used = set(names)
        if number > 1:
            self.rules.swapped(number, made)
        self.counts.in_force(names, frozenset(self.name(word) for word in uncounted))
        self.names = named

    def name(self, which: str) -> str:
        """The counter of the failsafes, or of the chain of a host endpoint."""
        if which == "failsafe":
            return self.names.reasons[FAILSAFE]
        assert self.names.chains is not None
        found: str = self.names.chains["hosts"][0][which][0]
        return found

    def meet(self, which: str, packets: int) -> None:
        self._kernel.packets[self.name(which)] += packets

    def rows(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        rows = self.rules.rows()["rules"]
        return {(row["direction"], row["rule"]) if row["policy"] else (row["reason"],): row for row in rows}

    def packets(self, *key: Any) -> int | None:
        found: int | None = self.rows()[key]["packets"]
        return found

    def keep(self, folder: Path) -> list[str]:
        """The file is opened and written at once; what is said."""
        kept = KeptCounts(str(folder), self.said.append)
        kept.open(self.rules)
        kept.close()
        return self.said

    def save(self, folder: Path) -> None:
        """What it has counted until now."""
        write_whole(folder / FILE, framed(self.rules.saved(), VERSION))


def _names(chains: Any) -> set[str]:
    if isinstance(chains, str):
        return {chains} - {""}
    parts = chains.values() if isinstance(chains, dict) else chains if isinstance(chains, list) else ()
    return set().union(*map(_names, parts))


def generation(text: str) -> Generation:
    snapshot = Snapshot.of(load_text(text))
    table = snapshot.compile(node="n", host=HostFacts({"eth0": ("192.0.2.1",)}))
    return cast(Generation, SimpleNamespace(number=1, snapshot=snapshot, table=table))


def test_what_the_kernel_counts_is_taken_once(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel)
    assert daemon.packets(*EGRESS) == 0
    daemon.meet("output", 5)
    daemon.meet("failsafe", 7)
    clock[0] = 2 * MINUTE
    row = daemon.rows()[EGRESS]
    assert (row["packets"], row["lastHit"], row["uncounted"], row["inKernel"]) == (5, 2 * MINUTE, None, True)
    assert daemon.packets(FAILSAFE) == 7
    clock[0] = 3 * MINUTE
    assert (daemon.packets(*EGRESS), daemon.rows()[EGRESS]["lastHit"]) == (5, 2 * MINUTE)
    hits = {hit["rule"]: hit["packets"] for hit in daemon.rules.met()[0]}
    assert hits == {None: 7, 0: 5}
    # Behind a rule that ends all there is nothing to count.
    assert (daemon.packets(*UNREACHED), daemon.rows()[UNREACHED]["inKernel"]) == (0, False)
    assert any("Z*" in line for line in _lines(list(daemon.rows().values())))


def test_denials_of_the_kernel_are_denials(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel)
    daemon.meet("input", 4)
    assert daemon.rules.denied() == {"(end of tier (E-21), tier default)": 4}
    assert daemon.rules.denied() == {"(end of tier (E-21), tier default)": 4}


def test_counts_go_on_over_reloads_and_counters_go_with_their_rules(
    kernel: FakeNfacct, clock: list[int]
) -> None:
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    other = HOST.replace("- {action: Allow}", "- {action: Allow, protocol: TCP}")
    before = daemon.name("output")
    daemon.reload(other, 2)
    kernel.packets[before] += 1  # It was on its way through the rules of before.
    daemon.rules.rows()
    kernel.packets[before] += 1  # And so was another one, when we looked.
    for _ in range(3):
        daemon.rules.rows()
    assert before not in kernel.packets
    daemon.reload(HOST, 3)
    assert daemon.name("output") != before
    daemon.meet("output", 2)
    assert daemon.packets(*EGRESS) == 9
    assert daemon.said == []


def test_a_counter_that_cannot_be_removed_loses_nothing(
    kernel: FakeNfacct, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(kernel)
    before = daemon.name("output")
    daemon.reload(HOST.replace("- {action: Allow}", "- {action: Allow, protocol: TCP}"), 2)
    daemon.rules.rows()
    kernel.packets[before] += 1
    daemon.meet("failsafe", 2)
    with monkeypatch.context() as refused:
        refused.setattr(kernel, "remove", refuse)
        assert daemon.packets(FAILSAFE) == 2
    assert before in kernel.packets
    daemon.rules.rows()
    assert before not in kernel.packets


def refuse(_: str) -> bool:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_of_two_counters_of_the_same_none_is_lost(
    kernel: FakeNfacct, clock: list[int], tmp_path: Path
) -> None:
    """It was killed when a rule was back, and the counter of before was not gone yet."""
    other = HOST.replace("- {action: Allow}", "- {action: Allow, protocol: TCP}")
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    before = daemon.name("output")
    daemon.reload(other, 2)
    daemon.reload(HOST, 3)
    assert daemon.name("output") != before
    daemon.meet("output", 2)
    daemon.save(tmp_path)
    kernel.packets[before] += 1
    daemon.meet("output", 1)
    later = Daemon(kernel)
    assert later.keep(tmp_path) == []
    assert later.packets(*EGRESS) == 9
    for _ in range(3):
        later.rules.rows()
    assert before not in kernel.packets


def test_a_counter_that_was_found_and_has_gone_does_not_come_back(
    kernel: FakeNfacct, clock: list[int], tmp_path: Path
) -> None:
    Daemon(kernel).keep(tmp_path)
    later = Daemon(kernel)
    later.keep(tmp_path)
    found = later.name("output")
    later.reload(HOST.replace("- {action: Allow}", "- {action: Allow, protocol: TCP}"), 2)
    for _ in range(3):
        later.rules.rows()
    later.reload(HOST, 3)
    assert later.name("output") != found


def test_who_comes_later_goes_on(kernel: FakeNfacct, clock: list[int], tmp_path: Path) -> None:
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    assert daemon.keep(tmp_path) == []
    daemon.meet("output", 3)  # It was killed, and its rules count on.
    clock[0] += MINUTE
    later = Daemon(kernel)
    later.meet("output", 1)
    assert later.name("output") == daemon.name("output")
    assert later.keep(tmp_path) == []
    assert later.packets(*EGRESS) == 9
    assert later.rows()[EGRESS]["since"] == MINUTE
    # Its successor counts beside it, until it has ended.
    third = Daemon(kernel)
    later.meet("output", 10)
    later.save(tmp_path)
    third.meet("output", 10)
    assert third.keep(tmp_path) == []
    assert third.packets(*EGRESS) == 29


def test_a_counter_that_goes_before_rules_count_with_it_is_made_anew(
    kernel: FakeNfacct, clock: list[int], tmp_path: Path
) -> None:
    """The daemon that is replaced has not counted with it for a while, and removes it then."""
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    daemon.reload(HOST.replace("- {action: Allow}", "- {action: Allow, protocol: TCP}"), 2)
    daemon.rules.rows()
    successor = KernelCounts(daemon.said.append)
    names = frozenset(_names(successor.named(generation(HOST)).chains))
    assert not names <= kernel.used
    assert not successor.make(names), "all are there"
    daemon.rules.rows()
    assert not names <= kernel.packets.keys()
    assert successor.make(names)
    assert names <= kernel.packets.keys()
    assert daemon.said == []


def test_a_counter_made_anew_is_another_one(kernel: FakeNfacct, clock: list[int], tmp_path: Path) -> None:
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    daemon.keep(tmp_path)
    kernel.packets.clear()  # The machine was restarted.
    later = Daemon(kernel)
    later.meet("output", 6)
    later.keep(tmp_path)
    assert later.packets(*EGRESS) == 11


def test_without_a_file_nobody_knows_what_was_counted(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    later = Daemon(kernel)
    assert later.packets(*EGRESS) == 0
    later.meet("output", 1)
    assert later.packets(*EGRESS) == 1


def test_a_file_of_a_version_that_knew_no_counters(
    kernel: FakeNfacct, clock: list[int], tmp_path: Path
) -> None:
    """It was in force while these were there: what they hold may be counted already."""
    Daemon(kernel).meet("output", 5)
    (tmp_path / FILE).write_bytes(framed({"time": 1, "began": 1, "rules": [], "policies": {}}, VERSION))
    later = Daemon(kernel)
    assert later.keep(tmp_path) == []
    assert later.packets(*EGRESS) == 0


def test_unused_is_said_only_of_what_was_counted_for_so_long(
    kernel: FakeNfacct, clock: list[int], tmp_path: Path
) -> None:
    kernel.is_there = False
    daemon = Daemon(kernel)
    assert "not counted (no nfacct): [Errno 22]" in daemon.said[0]
    row = daemon.rows()[EGRESS]
    assert (row["packets"], row["uncounted"], row["inKernel"]) == (None, "kernel", False)
    daemon.keep(tmp_path)
    kernel.is_there = True
    clock[0] += MINUTE
    later = Daemon(kernel)
    later.keep(tmp_path)
    row = later.rows()[EGRESS]
    assert (row["packets"], row["since"]) == (0, 2 * MINUTE), "the policy is older than its counter"
    assert not _is_unused(row, MINUTE)
    assert _is_unused(row, 2 * MINUTE)
    later.meet("output", 1)
    assert not _is_unused(later.rows()[EGRESS], MINUTE)
    clock[0] += MOST_GAP + MINUTE
    assert Daemon(kernel).keep(tmp_path) == []


def test_what_is_not_wholly_counted_is_said(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel)
    before, _ = daemon.rules.changes()
    assert daemon.rules.changes()[0] == before
    daemon.reload(HOST, 1, uncounted=("output",))
    assert daemon.rules.changes()[0] != before, "since when all are counted is to be kept"
    row = daemon.rows()[EGRESS]
    assert (row["uncounted"], row["inKernel"]) == ("kernel", False)
    daemon.reload(HOST, 1)
    clock[0] += MINUTE
    assert daemon.rows()[EGRESS]["uncounted"] is None


def test_too_many_counters_are_none(
    kernel: FakeNfacct, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules would not be written in time."""
    monkeypatch.setattr(kernel_counts, "MOST_COUNTERS", 2)
    daemon = Daemon(kernel)
    assert daemon.said == [
        "warning: packets that kernel rules answer are not counted (too many counters): 3, and 2 are the most"
    ]
    assert (daemon.packets(*EGRESS), daemon.rows()[EGRESS]["uncounted"]) == (None, "kernel")
    assert kernel.packets == {}


def test_what_somebody_takes_away_is_said(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    assert daemon.packets(*EGRESS) == 5
    kernel.packets[daemon.name("output")] = 2
    assert daemon.packets(*EGRESS) == 7
    (said,) = daemon.said
    assert "somebody set counter" in said
    kernel.packets.clear()
    assert daemon.packets(*EGRESS) == 7
    daemon.reload(HOST, 1)
    daemon.meet("output", 1)
    assert daemon.packets(*EGRESS) == 8
    assert "somebody removed counter" in daemon.said[1]


def test_what_is_gone_and_not_missed_is_forgotten(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    before = daemon.name("output")
    daemon.rules.rows()
    daemon.reload(HOST.replace("- {action: Allow}", "- {action: Allow, protocol: TCP}"), 2)
    del kernel.packets[before]
    daemon.rules.rows()
    assert before not in {name for name, *_ in daemon.counts.saved(int)["counters"]}
    assert daemon.said == []


def test_nothing_is_counted_where_that_is_not_wanted(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel, is_wanted=False)
    assert (kernel.packets, daemon.packets(*EGRESS), daemon.said) == ({}, None, [])


def test_what_nobody_can_read_is_read_the_next_time(kernel: FakeNfacct, clock: list[int]) -> None:
    daemon = Daemon(kernel)
    daemon.meet("output", 5)
    kernel.is_there = False
    assert daemon.packets(*EGRESS) == 0
    kernel.is_there = True
    assert daemon.packets(*EGRESS) == 5


@pytest.mark.parametrize(
    "wrong", [1, {}, {"counters": [["a", -1, []]], "since": []}, {"counters": [], "since": [1]}]
)
def test_a_file_that_is_wrong_is_set_aside(
    kernel: FakeNfacct, clock: list[int], tmp_path: Path, wrong: Any
) -> None:
    content = {"time": 1, "began": 1, "rules": [], "policies": {}, "kernel": wrong}
    (tmp_path / FILE).write_bytes(framed(content, VERSION))
    daemon = Daemon(kernel)
    assert "rules are counted from 0" in daemon.keep(tmp_path)[0]
