"""Plain facts to netfilter rules: what the kernel settles, and which packets it hands to which queue.

The rules only anticipate what the engine would answer, in the order of E-20 and E-38; everything that
depends on policy goes to the queue. Each hook that needs one has a chain of ours, entered by one jump from
the base chain, of packets that it can do anything with. It stays (`kept`) as long as there are rules, because
bit D of a verdict that is under way when they change must be cleared in the table that it was given for: in
a later table it would pass for a verdict of that one. raw and mangle PREROUTING have one for that in any
case, whoever wrote the bit.

The head of a hook chain answers packets that come back from their queue: bit D is set, the engine has
decided. The packet does what the verdict says (no conntrack, reject, or nothing), loses D and returns to
the rules of others. Most packets are of connections that are known: what they meet before they are accepted
is short.
"""

from __future__ import annotations

from labelgate.netfilter.builder import TableBuilder
from labelgate.netfilter.facts import FAMILIES, RulesetFacts
from labelgate.netfilter.filter import Filter
from labelgate.netfilter.mangle import Mangle
from labelgate.netfilter.raw import Raw, conntrack_chain
from labelgate.netfilter.rules import TABLES, Ruleset, Table, TableRules

_BUILDERS: dict[Table, type[TableBuilder]] = {"raw": Raw, "mangle": Mangle, "filter": Filter}

CONNTRACK_ONLY = Ruleset({("raw", family): TableRules(conntrack_chain()) for family in FAMILIES})
"""Keeps conntrack on, nothing else: before enforcement begins (`settle`), and after the last policy went."""


def ruleset(facts: RulesetFacts) -> Ruleset:
    """The rules for these facts; no tables if nobody governs anything."""
    if facts.is_empty:
        return Ruleset({})
    # Opened backwards: filter must not deny what raw and mangle, open by then, give no bit A any more.
    order = reversed(TABLES) if facts.open else TABLES
    return Ruleset(
        {(table, family): _BUILDERS[table](facts, family).rules() for table in order for family in FAMILIES}
    )
