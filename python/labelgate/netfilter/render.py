"""Rules of ours as text: what `iptables-restore --noflush` reads, and what people and golden tests read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labelgate.netfilter.readback import EMPTY_TABLE, SavedTable, placed
from labelgate.netfilter.rules import Ruleset, TableRules


def describe(ruleset: Ruleset) -> str:
    """All tables, each as it is loaded where nothing is yet, under a line that names its family."""
    return "\n".join(
        f"# {family}\n{transaction(table, EMPTY_TABLE, rules)}"
        for (table, family), rules in ruleset.tables.items()
    )


def transaction(table: str, now: SavedTable, rules: TableRules) -> str:
    """Turns our part of the table as it is now into these rules."""
    chains = {name: tuple(map(str, chain)) for name, chain in rules.chains.items()}
    # Ends rather than numbers: others may have added rules since the table was read.
    first = [f"-I {jump.base} 1 {jump}" for jump in rules.first]
    last = [f"-A {jump.base} {jump}" for jump in rules.last]
    in_place = set(placed(now, rules)) == set(now.jumps)
    return _replace(table, now, chains, [] if in_place else [*_removals(now), *first, *last])


def put_back(table: str, now: SavedTable, before: SavedTable) -> str:
    """Turns our part of the table as it is now into what it was before."""
    insertions = [f"-I {jump.chain} {jump.number} {jump.rule}" for jump in before.jumps]
    return _replace(table, now, before.ours, [*_removals(now), *insertions])


def _removals(now: SavedTable) -> list[str]:
    return [f"-D {jump.chain} {jump.rule}" for jump in now.jumps]


def _replace(table: str, now: SavedTable, chains: Mapping[str, Iterable[str]], jumps: Iterable[str]) -> str:
    stale = [name for name in now.ours if name not in chains]
    # A chain that exists is emptied by its declaration.
    declared = [f":{name} - [0:0]" for name in (*chains, *stale)]
    rules = [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]
    removed = [f"-X {name}" for name in stale]
    return "\n".join([f"*{table}", *declared, *rules, *jumps, *removed, "COMMIT", ""])
