"""The minimiser of random worlds."""

from __future__ import annotations

from dataclasses import replace

from minimal import minimal, shown
from random_world import Dice
from reference_world import packet


def test_only_what_fails_is_left() -> None:
    documents = [{"kind": "A"}, {"kind": "B", "spec": {"x": [1, 2, 3], "y": {}}, "z": 1}, {"kind": "C"}]
    question = replace(packet("filter-input", in_="eth0", ct="invalid"), fragment=True)

    def fails(documents, packet) -> bool:
        return packet.in_ == "eth0" and any(2 in found.get("spec", {}).get("x", []) for found in documents)

    found, plain = minimal(documents, question, fails)
    assert found == [{"spec": {"x": [2]}}]
    assert plain == replace(question, ct="new", fragment=False, sport=0)
    assert shown(found, plain) == f"spec:\n  x:\n  - 2\n{plain}"


def test_a_world_is_small_when_anything_fails() -> None:
    assert minimal(Dice(7).documents(), packet("filter-input"), lambda *_: True)[0] == []
