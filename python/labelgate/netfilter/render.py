"""Rules of ours as text: what `iptables-restore --noflush` reads, and what people and golden tests read."""

from __future__ import annotations

from collections.abc import Iterator

from labelgate.netfilter.rules import Jump, Ruleset, Table, TableRules


def render(table: Table, rules: TableRules) -> str:
    """One transaction that makes these chains from nothing, with their jumps."""
    return "\n".join(
        [
            f"*{table}",
            *chain_lines(rules),
            *map(_insert, rules.first),
            *map(_append, rules.last),
            "COMMIT",
            "",
        ]
    )


def chain_lines(rules: TableRules) -> Iterator[str]:
    """Declares and fills our chains; a chain that exists is emptied by its declaration."""
    for name in rules.chains:
        yield f":{name} - [0:0]"
    for name, chain in rules.chains.items():
        for rule in chain:
            yield f"-A {name} {rule}"


def _insert(jump: Jump) -> str:
    return f"-I {jump.base} 1 {jump}"


def _append(jump: Jump) -> str:
    return f"-A {jump.base} {jump}"


def describe(ruleset: Ruleset) -> str:
    """All tables of a ruleset, each under a line that names its family."""
    parts = [f"# {family}\n{render(table, rules)}" for (table, family), rules in ruleset.tables.items()]
    return "\n".join(parts)
