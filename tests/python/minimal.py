"""The smallest world and the plainest packet on which two engines still disagree, as YAML and text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import yaml
from labelgate.flow import Packet

Documents = list[dict[str, Any]]
Fails = Callable[[Documents, Packet], bool]

PLAIN: tuple[dict[str, Any], ...] = (
    {"ct": "new"},
    {"accepted": False},
    {"dnatted": False},
    {"fragment": False},
    {"sport": 0},
    {"in_": None},
    {"out": None},
)


def minimal(documents: Documents, packet: Packet, fails: Fails) -> tuple[Documents, Packet]:
    """Leaves out documents, fields and entries of lists, one at a time, as long as it still fails."""
    for plain in PLAIN:
        plainer = replace(packet, **plain)
        packet = plainer if fails(documents, plainer) else packet
    found = True
    while found:
        found = False
        for path in list(paths(documents)):
            smaller = without(documents, path)
            if smaller is not None and fails(smaller, packet):
                documents, found = smaller, True
    return documents, packet


def paths(node: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in the documents, the last entries first, so that earlier ones keep their numbers."""
    entries = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
    for step, inner in reversed(entries):
        yield (step,)
        if isinstance(inner, dict | list):
            yield from ((step, *rest) for rest in paths(inner))


def without(node: Any, path: tuple[Any, ...]) -> Any:
    """A copy without this place; None where it is gone already."""
    step, *rest = path
    if not (step in node if isinstance(node, dict) else step < len(node)):
        return None
    copy = node.copy()
    if not rest:
        del copy[step]
        return copy
    inner = without(node[step], tuple(rest)) if isinstance(node[step], dict | list) else None
    if inner is None:
        return None
    copy[step] = inner
    return copy


def shown(documents: Documents, packet: Packet) -> str:
    """What to put into a case."""
    return f"{yaml.safe_dump_all(documents, sort_keys=False)}{packet}"
