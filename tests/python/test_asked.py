"""Requests to put policies in force: what is not as expected is refused in words, whatever it is."""

from __future__ import annotations

import json
import random
from ipaddress import ip_address
from typing import Any

import pytest
from labelgate.agent.asked import Asked, read_session
from labelgate.control import ControlError
from labelgate.flow import TCP
from labelgate.lockout import Flow

GOOD: dict[str, Any] = {"paths": ["a"], "texts": [["a.yaml", "kind: \udcff"]]}


def test_what_is_expected() -> None:
    asked = Asked.read({**GOOD, "confirm": 60, "force": True, "session": "192.0.2.5 40000 198.51.100.10 22"})
    session = Flow(TCP, ip_address("192.0.2.5"), ip_address("198.51.100.10"), 40000, 22)
    assert asked == Asked(("a",), (("a.yaml", b"kind: \xff"),), 60, True, session)
    assert Asked.read(GOOD) == Asked(("a",), (("a.yaml", b"kind: \xff"),), None, False, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"texts": 1},
        {"texts": "ab"},
        {"texts": [["a"]]},
        {"texts": [["a", 1]]},
        {"texts": [["a", "\ud800"]]},
        {"paths": None},
        {"paths": [1]},
        {"confirm": 0},
        {"confirm": -1},
        {"confirm": float("nan")},
        {"confirm": float("inf")},
        {"confirm": True},
        {"confirm": "60s"},
        {"session": ""},
        {"session": 5},
        {"session": "192.0.2.5 40000 198.51.100.10"},
        {"session": "192.0.2.5 0 198.51.100.10 22"},
        {"session": "192.0.2.5 40000 198.51.100.10 65536"},
        {"session": "192.0.2.5 40000 2001:db8::1 22"},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_not(wrong: dict[str, Any]) -> None:
    with pytest.raises(ControlError):
        Asked.read(GOOD | wrong)


def test_any_json() -> None:
    """Nothing but a refusal in words comes of it."""
    dice = random.Random(2)
    values: list[Any] = [None, True, -1, 1e99, "", "a b c d", [], {}, [[]], [["a", "b"]], {"a": [1]}]
    keys = ["paths", "texts", "confirm", "force", "session", "more"]
    refused = 0
    for _ in range(5000):
        arguments = {key: dice.choice(values) for key in dice.sample(keys, dice.randrange(6))}
        try:
            Asked.read(json.loads(json.dumps(arguments)))
        except ControlError:
            refused += 1
    assert 3000 < refused < 5000


def test_sessions_with_a_zone() -> None:
    found = read_session("fe80::1%eth0 40000 fe80::2%eth0 22")
    assert (str(found.src), str(found.dst)) == ("fe80::1", "fe80::2")
