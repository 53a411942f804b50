"""The engines behind a table: what they may grow to, which were chosen, and why."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import ClassVar, TypedDict

from labelgate import _core

_DEFAULT = json.loads(_core.default_budgets())


@dataclass(frozen=True, slots=True)
class ClassesBudget:
    """What the `classes` engine may grow to."""

    clauses: int = _DEFAULT["classes"]["clauses"]
    """Of a chain."""
    cells: int = _DEFAULT["classes"]["cells"]
    """Of a chain: answers, 4 bytes each, before equal ones become one, and (source, destination) pairs."""
    classes: int = _DEFAULT["classes"]["classes"]
    """Of IPv4 addresses, of IPv6 addresses, of services and of source ports, each, of all chains together."""
    bytes: int = _DEFAULT["classes"]["bytes"]
    """Of all chains together."""
    direct_maps: int = _DEFAULT["classes"]["direct_maps"]
    """Bytes of the maps from classes to answers while they have no levels; larger ones are given one."""
    flat_maps: int = _DEFAULT["classes"]["flat_maps"]
    """Bytes of the maps while they have one level; larger ones are given two."""
    steps: int = _DEFAULT["classes"]["steps"]
    """Of building all tables, about a nanosecond each."""
    passes: int = _DEFAULT["classes"]["passes"]
    """Bytes that may be added so that outcomes tell the Pass rules passed; 0: they do not."""


@dataclass(frozen=True, slots=True)
class TreeBudget:
    """What the `tree` engine may grow to."""

    wide: int = _DEFAULT["tree"]["wide"]
    """A chain of more clauses is tried here before `classes`: many clauses are mostly five-tuples."""
    kinds: int = _DEFAULT["tree"]["kinds"]
    """But not one whose clauses differ in their addresses and source ports in so few ways."""
    cuboids: int = _DEFAULT["tree"]["cuboids"]
    """Boxes of a chain of one family; 0: no trees at all."""
    bytes_per_cuboid: int = _DEFAULT["tree"]["bytes_per_cuboid"]
    """Of a tree, for each of its boxes."""
    nets: int = _DEFAULT["tree"]["nets"]
    """Boxes from which on a tree says addresses as nets where it can: fewer bytes, more instructions."""
    services: int = _DEFAULT["tree"]["services"]
    """As `nets`, boxes from which on it says ports and protocols by numbers, if few of them differ."""
    bytes: int = _DEFAULT["tree"]["bytes"]
    """Of all trees."""
    steps: int = _DEFAULT["tree"]["steps"]
    """Boxes made for all chains, and ranges of sets read for them."""


@dataclass(frozen=True)
class Budgets:
    """What the tables of a policy may grow to: a chain above it gets a slower engine, never more memory.

    >>> Budgets(classes=ClassesBudget(cells=1024)).classes.bytes == Budgets().classes.bytes
    True
    """

    classes: ClassesBudget = ClassesBudget()
    tree: TreeBudget = TreeBudget()

    LINEAR: ClassVar[Budgets]
    """Nothing for any engine but `linear`, the slow one that all others are compared with."""

    def json(self) -> bytes:
        """As the core reads it."""
        return json.dumps(asdict(self)).encode()


Budgets.LINEAR = Budgets(
    classes=ClassesBudget(clauses=0, cells=0, classes=0, bytes=0, steps=0),
    tree=TreeBudget(cuboids=0, bytes=0, steps=0),
)


class ClassesDescription(TypedDict):
    """The `classes` engine: addresses and services that no policy tells apart are one class."""

    tables: int
    """Chains of a family that it answers for."""
    bytes: int
    ipv4_classes: int
    ipv6_classes: int
    service_classes: int
    """Of (protocol, destination port or ICMP type and code)."""
    source_port_classes: int
    cells: int
    """Answers stored."""
    edits: int
    """Edits since all tables were built anew: `Compiler` changes tables in place."""
    added_bytes: int
    """What those have added; when it is as much as was built anew, everything is built anew."""


class TreeDescription(TypedDict):
    """The `tree` engine: wide lists of five-tuples."""

    tables: int
    """Chains of a family that it answers for."""
    bytes: int


class Other(TypedDict):
    """A chain of a family that another engine answers for."""

    chain: int
    """As in `str(table.program)`."""
    family: int
    """4 or 6."""
    engine: str
    why: str
    """Why not `classes`, and why not `tree`."""


class Description(TypedDict):
    """The engines of a table."""

    chains: int
    """Each has a table for IPv4 and one for IPv6."""
    bytes: int
    """Memory of all tables."""
    classes: ClassesDescription
    tree: TreeDescription
    others: list[Other]
    """The tables that `classes` does not answer for."""


def summary(description: Description) -> str:
    """One line for logs.

    >>> classes = {"tables": 3, "bytes": 2048, "ipv4_classes": 1, "ipv6_classes": 1, "service_classes": 1,
    ...            "source_port_classes": 1, "cells": 3, "edits": 0, "added_bytes": 0}
    >>> other = {"chain": 1, "family": 4, "engine": "linear", "why": "70000 cells, above the budget"}
    >>> summary({"chains": 2, "bytes": 2048, "classes": classes, "tree": {"tables": 0, "bytes": 0},
    ...          "others": [other]})
    'engines: classes for 3 and linear for 1 of 4 tables, 2 KiB'
    """
    tables = Counter({"classes": description["classes"]["tables"]})
    tables.update(other["engine"] for other in description["others"])
    shares = " and ".join(f"{engine} for {count}" for engine, count in tables.items() if count)
    return f"engines: {shares or 'none'} of {tables.total()} tables, {description['bytes'] / 1024:,.0f} KiB"
