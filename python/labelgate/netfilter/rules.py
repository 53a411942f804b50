"""The words of a ruleset: rules, chains and jumps of ours, per table and family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from labelgate.flow import Hook
from labelgate.netfilter.facts import Family

Table = Literal["raw", "mangle", "filter"]
TABLES: tuple[Table, ...] = ("raw", "mangle", "filter")
"""In the order to install: nothing may read bit A before raw clears it. Removal goes backwards."""

PREFIX = "lg-"
"""Every chain of ours begins with it, and no other should."""
HOOKS_OF: Mapping[tuple[str, str], Hook] = {
    ("raw", "PREROUTING"): "raw-prerouting",
    ("raw", "OUTPUT"): "raw-output",
    ("mangle", "PREROUTING"): "mangle-prerouting",
    ("mangle", "POSTROUTING"): "mangle-postrouting",
    ("filter", "INPUT"): "filter-input",
    ("filter", "FORWARD"): "filter-forward",
    ("filter", "OUTPUT"): "filter-output",
}
"""By table and base chain. The chain of a hook has the name of its base chain behind `PREFIX`."""
CONNTRACK_CHAIN = f"{PREFIX}conntrack"
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
INVALID = "-m conntrack --ctstate INVALID"
UNTRACKED = "-m conntrack --ctstate UNTRACKED"
UNCONFIRMED_ANSWER = "-m conntrack --ctstate RELATED ! --ctstatus CONFIRMED"
"""What the kernel sends in answer to the first packet of a connection, which it rejects or cannot forward.

The answer is of that connection; as it is not the only one, no queue takes it (nfnetlink_queue.c,
nf_ct_drop_unconfirmed).
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, in the words of iptables."""

    match: str
    """May be empty: every packet."""
    target: str
    """With `-j` or `-g`; empty: the packet goes on behind this rule."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.match, self.target)))

    def counted(self, *counters: str) -> Self:
        """Also counts the packets that match, for each of these counters; an empty name is none.

        The match of a counter comes last and is always true (nfacct): it decides nothing.
        """
        names = " ".join(f"-m nfacct --nfacct-name {counter}" for counter in counters if counter)
        return replace(self, match=" ".join(filter(None, (self.match, names))))


Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a base chain that leads into a chain of ours."""

    base: str
    chain: str
    match: str = ""
    """The packets that it leads there; empty: all."""

    def __str__(self) -> str:
        return f"{self.match} -j {self.chain}".lstrip()


@dataclass(frozen=True, slots=True)
class TableRules:
    """Our part of one table in one family."""

    chains: Mapping[str, Rules]
    first: tuple[Jump, ...] = ()
    """These begin their base chains."""
    last: tuple[Jump, ...] = ()
    """These end them, in this order."""
    uncounted: frozenset[str] = frozenset()
    """Counters of which these rules do not count every packet."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All our rules; without tables: none."""

    tables: Mapping[tuple[Table, Family], TableRules]
    """In the order in which they are written."""

    @property
    def uncounted(self) -> frozenset[str]:
        """Counters of which not every packet is counted."""
        return frozenset().union(*(table.uncounted for table in self.tables.values()))
