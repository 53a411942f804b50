"""Which rules no expectation exercises."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelgate.expect.judge import Rule
from labelgate.expect.places import PlacedRule, placed_rules
from labelgate.expect.world import World
from labelgate.tabular import Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Coverage(Tabular):
    """Every rule of the policies in force, and whether a question has matched it."""

    rules: tuple[PlacedRule, ...]
    exercised: frozenset[PlacedRule]

    @classmethod
    def of(cls, exercised: Iterable[tuple[World, Collection[Rule]]]) -> Coverage:
        """Of all worlds together, each with the rules that matched in it; one that two share is one."""
        rules: dict[PlacedRule, None] = {}
        matched: set[PlacedRule] = set()
        for world, keys in exercised:
            for rule in placed_rules(world.snapshot, world.settings):
                rules[rule] = None
                if (rule.policy, rule.direction, rule.number) in keys:
                    matched.add(rule)
        return cls(tuple(rules), frozenset(matched))

    def is_exercised(self, rule: PlacedRule) -> bool:
        """Whether a question has matched it."""
        return rule in self.exercised

    @property
    def missed(self) -> list[PlacedRule]:
        """The rules that no question has matched."""
        return [rule for rule in self.rules if not self.is_exercised(rule)]

    @property
    def percent(self) -> float:
        """Of all rules; 100 where there is none."""
        return 100 * (1 - len(self.missed) / len(self.rules)) if self.rules else 100.0

    def __repr__(self) -> str:
        """How many of how many."""
        return f"Coverage({self.caption()})"

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """A row for each rule."""
        import numpy as np

        return {
            "place": np.array([rule.place for rule in self.rules], object),
            "policy": np.array([rule.policy for rule in self.rules], object),
            "direction": np.array([rule.direction for rule in self.rules], object),
            "rule": np.array([rule.number for rule in self.rules], np.uint32),
            "action": np.array([rule.action for rule in self.rules], object),
            "exercised": np.array([self.is_exercised(rule) for rule in self.rules], np.bool_),
        }

    def caption(self) -> str:
        """How many of how many."""
        exercised = len(self.rules) - len(self.missed)
        return f"{exercised} of {len(self.rules)} rules exercised ({self.percent:.1f} %)"
