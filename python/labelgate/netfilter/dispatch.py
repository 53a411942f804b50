"""From an interface name to its rules in a few steps, however many there are: a tree of name prefixes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from labelgate.netfilter.rules import Rule, Rules

# A chain with at most this many interfaces lists them; above, it asks for the next letters first.
LISTED = 8


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Which rules a packet meets, by the name of its in- or out-interface."""

    chain: str
    """Name of the first chain; the others are this, a dot, and the prefix that they stand for."""
    side: Literal["-i", "-o"]
    leaves: Mapping[str, Rules]
    """By interface name. The last rule of a leaf ends the dispatch for every packet of the interface, or is
    followed by the default."""
    default: Rules
    """For every other interface."""

    def chains(self) -> Iterator[tuple[str, Rules]]:
        """The chains with their rules, the first one first; the order of `leaves` does not matter."""
        yield from self._grow(self.chain, "", sorted(self.leaves))

    def _grow(self, chain: str, prefix: str, names: list[str]) -> Iterator[tuple[str, Rules]]:
        if len(names) <= LISTED:
            yield chain, (*(rule for name in names for rule in self._leaf(name)), *self.default)
            return
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            groups[name[len(prefix) : len(prefix) + 1]].append(name)
        rules: list[Rule] = []
        below: list[tuple[str, list[str]]] = []
        for group in groups.values():
            if len(group) == 1:
                rules += self._leaf(group[0])
            else:
                # Two different names of at most 15 letters share at most 14: room for the `+`.
                shared = _shared(group)
                rules.append(Rule(f"{self.side} {shared}+", f"-g {self._branch(shared)}"))
                below.append((shared, group))
        # A branch does not come back here, so each of its chains ends in the default itself.
        yield chain, (*rules, *self.default)
        for shared, group in below:
            yield from self._grow(self._branch(shared), shared, group)

    def _branch(self, prefix: str) -> str:
        return f"{self.chain}.{prefix}"

    def _leaf(self, name: str) -> Rules:
        head = f"{self.side} {name}"
        return tuple(
            Rule(f"{head} {rule.match}" if rule.match else head, rule.target) for rule in self.leaves[name]
        )


def _shared(names: list[str]) -> str:
    """The longest prefix of sorted names."""
    first, last = names[0], names[-1]
    different = (index for index, letter in enumerate(first) if last[index : index + 1] != letter)
    return first[: next(different, len(first))]
