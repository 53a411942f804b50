"""The words of a ruleset: rules, chains and jumps of ours, per table and family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from labelgate.netfilter.facts import Family

Table = Literal["raw", "mangle", "filter"]
TABLES: tuple[Table, ...] = ("raw", "mangle", "filter")
"""In the order to install: nothing may read bit A before raw clears it. Removal goes backwards."""

PREFIX = "lg-"
"""Every chain of ours begins with it, and no other should."""
CONNTRACK_CHAIN = f"{PREFIX}conntrack"
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
INVALID = "-m conntrack --ctstate INVALID"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, in the words of iptables."""

    match: str
    """May be empty: every packet."""
    target: str
    """With `-j` or `-g`."""

    def __str__(self) -> str:
        return f"{self.match} {self.target}" if self.match else self.target


Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a base chain that leads into a chain of ours."""

    base: str
    chain: str

    def __str__(self) -> str:
        return f"-j {self.chain}"


@dataclass(frozen=True, slots=True)
class TableRules:
    """Our part of one table in one family."""

    chains: Mapping[str, Rules]
    first: tuple[Jump, ...] = ()
    """These begin their base chains."""
    last: tuple[Jump, ...] = ()
    """These end them, in this order."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All our rules; without tables: none."""

    tables: Mapping[tuple[Table, Family], TableRules]
