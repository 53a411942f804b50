"""Documents with a place changed: bytes changed at random seldom leave a document that loads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import yaml
from document_target import plain
from minimal import without

PLAIN_SHARE = 0.3
"""How often bytes are changed all the same."""

DEEPER = 0.85
"""How often a change goes a level deeper, where there is one."""

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 4, 6, 58, 80, 255, 256, 65535, 65536, 2**31, 2**64, 10**30, 0.5, -0.0, 1e300,
    float("inf"), float("nan"), "", " ", "*", "0", "080", "-1", "1:0", "0x10", "1e3", "yes", "null", "é",
    "\u2028", "\0", "\ud800", "a" * 300, "all()", "global()", "!has(a)", "a in {", "0.0.0.0/0", "::/0",
    "10.0.0.1/8", "::ffff:10.0.0.1/128", "fe80::1%eth0", "01.2.3.4", [], {}, [None], {"": ""},
    {"a": None}, [[]],
)  # fmt: skip
"""Values that are at the edge of something."""


class Mutator:
    """Changes places of documents; values come from the same field of other documents, or are odd ones."""

    def __init__(self, seeds: Iterable[bytes], change_bytes: Callable[[bytes, int], bytes]) -> None:
        self._change_bytes = change_bytes
        self._documents: list[Any] = [document for seed in seeds for document in plain(seed)]
        self._by_field: dict[str, list[Any]] = {}
        for document in self._documents:
            self._learn(document)
        self._fields = sorted(self._by_field)

    def _learn(self, node: Any) -> None:
        """Every value of every field; each entry of a list counts as one, too."""
        if isinstance(node, list):
            for inner in node:
                self._learn(inner)
        elif isinstance(node, dict):
            for field, value in node.items():
                self._by_field.setdefault(field, []).append(value)
                self._learn(value)

    def __call__(self, content: bytes, most: int, seed: int) -> bytes:
        """As libFuzzer asks for it."""
        random = Random(seed)
        documents = plain(content) if random.random() > PLAIN_SHARE else []
        if not documents:
            return self._change_bytes(content, most)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            documents = self._changed(documents, random)
        written = self._written(documents, random)
        return written if len(written) <= most else self._change_bytes(content, most)

    def _changed(self, documents: list[Any], random: Random) -> list[Any]:
        place = any_place(documents, random)
        if not place or random.random() < 0.15:
            return [*documents, random.choice(self._documents)]
        match random.randrange(6):
            case 0:
                return without(documents, place)
            case 1:
                return put(documents, place, random.choice(ODD))
            case 2:
                return put(documents, place, self._grown(at(documents, place), random))
            case _:
                field = next((step for step in reversed(place) if isinstance(step, str)), None)
                values = self._by_field.get(field or "")
                return put(documents, place, random.choice(values or ODD))

    def _grown(self, node: Any, random: Random) -> Any:
        """A field or an entry more."""
        if isinstance(node, list):
            return [*node, random.choice(node)] if node else [random.choice(ODD)]
        field = random.choice(self._fields)
        value = random.choice(self._by_field[field])
        return {**node, field: value} if isinstance(node, dict) else value

    def _written(self, documents: list[Any], random: Random) -> bytes:
        if random.random() < 0.5:
            try:
                return yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=False).encode()
            except (yaml.YAMLError, UnicodeError):
                pass  # what YAML cannot write
        return "\n---\n".join(map(json.dumps, documents)).encode()


def any_place(node: Any, random: Random) -> tuple[Any, ...]:
    """A path into the documents, long or short; empty where there is nothing."""
    place: tuple[Any, ...] = ()
    while isinstance(node, dict | list) and node and (not place or random.random() < DEEPER):
        step = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        place, node = (*place, step), node[step]
    return place


def at(node: Any, place: tuple[Any, ...]) -> Any:
    """The value there."""
    for step in place:
        node = node[step]
    return node


def put(node: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with this value there."""
    if not place:
        return value
    copy = node.copy()
    copy[place[0]] = put(node[place[0]], place[1:], value)
    return copy
