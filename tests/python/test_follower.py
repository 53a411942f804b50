"""What the daemon follows: where one of them fails it rests, and is tried again."""

from __future__ import annotations

import math

import pytest
from labelgate.agent import follower
from labelgate.agent.follower import Follower


def test_what_fails_rests_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, whether it fails once or for ever; then what else is wrong."""
    now, said, errors = 0.0, list[str](), [OSError("a"), OSError("a"), OSError("b"), None, OSError("b")]
    monkeypatch.setattr(follower.time, "monotonic", lambda: now)

    def follow() -> None:
        if error := errors.pop(0):
            raise error

    one = Follower("x cannot be followed", follow, said.append, lambda: [7], lambda: 5.0)
    assert (one.descriptors, one.seconds_left) == ([7], 5.0)
    told = []
    while errors:
        one()
        one()  # Or nothing would come in between.
        told.append(len(said))
        if not errors:
            break
        if one.descriptors:
            assert one.seconds_left == 5.0
        else:
            assert one.seconds_left == follower.REST_SECONDS
            now += follower.REST_SECONDS
    assert told == [1, 1, 2, 3]
    assert said[0] == "warning: x cannot be followed: a; what is in force stays, it is tried again"
    assert Follower("y", follow, said.append).seconds_left == math.inf
