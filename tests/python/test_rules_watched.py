"""When rules are looked at: with a clock of the tests."""

from __future__ import annotations

import struct

import pytest
from labelgate.netfilter import watch
from labelgate.netfilter.watch import RuleWatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Changes:
    """A table that others change when the test says so."""

    descriptors = (7,)
    changed = False

    def has_changed(self) -> bool:
        was, self.changed = self.changed, False
        return was


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> Changes:
    changes = Changes()
    monkeypatch.setattr(watch, "NftWatch", lambda: changes)
    return changes


def test_a_change_is_looked_at_at_once(clock: Clock, changes: Changes) -> None:
    rules = RuleWatch("nft", clock)
    clock.now += 1
    assert not rules.is_due()
    changes.changed = True
    assert rules.is_due()
    assert not rules.is_due()


def test_without_changes_rules_are_looked_at_from_time_to_time(clock: Clock, changes: Changes) -> None:
    rules = RuleWatch("nft", clock)
    due = 0
    for _ in range(100):
        clock.now += 1
        if rules.is_due():
            due += 1
            rules.done(again=False)
    assert due == 100 / RuleWatch.EVERY


def test_a_change_behind_a_look_from_time_to_time_need_not_wait(clock: Clock, changes: Changes) -> None:
    """However long that has taken; only what follows another change waits."""
    rules = RuleWatch("nft", clock)
    clock.now += RuleWatch.EVERY
    assert rules.is_due()
    clock.now += 1
    rules.done(again=False)
    changes.changed = True
    assert rules.is_due()
    clock.now += 1
    rules.done(again=False)
    changes.changed = True
    assert not rules.is_due()
    clock.now += 4
    assert rules.is_due()


def test_what_was_put_back_is_looked_at_once_more(clock: Clock, changes: Changes) -> None:
    """A table that somebody changes back at once looks as it did before."""
    rules = RuleWatch("nft", clock)
    clock.now += 1
    changes.changed = True
    assert rules.is_due()
    rules.done(again=True)
    assert not rules.is_due()
    clock.now += RuleWatch.SPACING
    assert rules.is_due()
    rules.done(again=False)
    clock.now += RuleWatch.SPACING
    assert not rules.is_due()


@pytest.mark.parametrize(("takes", "most"), [(0.0, 40), (0.5, 4), (60.0, 1)])
def test_whoever_changes_rules_all_the_time_is_followed_in_bounds(
    clock: Clock, changes: Changes, takes: float, most: int
) -> None:
    """Ten seconds of changes; a check that takes long is made less often, but within some seconds."""
    rules = RuleWatch("nft", clock)
    due, end = 0, clock.now + 10
    while clock.now < end:
        changes.changed = True
        if rules.is_due():
            due += 1
            clock.now += takes
            rules.done(again=False)
            assert rules.descriptors == (7,)
        else:
            assert rules.descriptors == (), "what waits for its time wakes nobody"
            assert 0 < rules.patience <= RuleWatch.EVERY
            clock.now += 0.01
    assert most - 2 <= due <= most


def attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


@pytest.mark.parametrize(
    ("kind", "body", "concerns"),
    [
        (0x0A06, attribute(1, b"filter\0") + attribute(2, b"INPUT\0"), True),  # NFT_MSG_NEWRULE
        (0x0A08, attribute(2, b"raw\0") + attribute(1, b"mangle\0"), True),  # NFT_MSG_DELRULE
        (0x0A02, attribute(1, b"raw\0"), True),  # NFT_MSG_DELTABLE
        (0x0A06, attribute(1, b"nat\0"), False),
        (0x0A0C, attribute(1, b"filter\0"), False),  # NFT_MSG_NEWSETELEM
        (0x0A0F, b"", False),  # NFT_MSG_NEWGEN
        (0x0306, attribute(1, b"filter\0"), False),  # another subsystem
        (0x0A06, b"", True),  # says nothing of a table: better once too often
        (0x0A06, b"\1\0\0\0", True),
    ],
)
def test_only_tables_of_ours_concern_us(kind: int, body: bytes, concerns: bool) -> None:
    message = struct.pack("=IHHII", 16 + 4 + len(body), kind, 0, 0, 0) + bytes(4) + body
    found = list(watch.messages(message * 2))
    assert len(found) == 2
    assert [watch._concerns_us(message) for message in found] == [concerns] * 2
