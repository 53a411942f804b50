"""Which ICMP messages pass the chains of an endpoint: those of neighbour discovery, errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labelgate.analysis.lint.coverage import ALLOW, UNDECIDED, Steps, Walk
from labelgate.analysis.lint.parts import Box, Budget, Part, parts
from labelgate.analysis.program import Chain, ProgramContents, Rule, RuleList


@dataclass(frozen=True, slots=True)
class Message:
    """One that hosts do not do without."""

    word: str
    """As findings call it."""
    rule: Rule
    """What matches it: a protocol, a type, one IP version."""


def cut(
    contents: ProgramContents,
    chains: Sequence[Chain],
    messages: Sequence[Message],
    family: int,
    budget: Budget,
) -> list[Message] | None:
    """Those of a family of which nothing passes; None: over budget.

    What an earlier chain allows no later one judges (E-48), and what it denies none can allow.
    """
    numbers = {number for chain in chains for tier in chain.tiers for number in tier.lists}
    numbers |= {number for chain in chains for number in chain.profiles}
    lists = {number: _concerned(contents.lists[number], messages) for number in sorted(numbers)}
    several = [Steps.of(chain, lists) for chain in chains]
    rules = [rule for steps in several for rule in steps.rules]
    asked = parts(rules, family, budget, [message.rule for message in messages])
    if asked is None:
        return None
    passing = {message.word for part in asked for message in _passing(part, several, messages)}
    return [message for message in messages if message.word not in passing]


def _passing(part: Part, several: Sequence[Steps], messages: Sequence[Message]) -> Iterator[Message]:
    """The messages of which something passes in a part of the packets."""
    boxes = [(message, Box.of(part.partition, message.rule)) for message in messages]
    if not any(len(box) for _, box in boxes):
        return
    left = np.ones(part.partition.shape, np.bool_)
    passing = np.zeros(part.partition.shape, np.bool_)
    offset = 0
    for steps in several:
        decided = Walk.of(part, steps, offset).decided
        passing |= left & (decided == ALLOW)
        left &= decided == UNDECIDED
        offset += len(steps.rules)
    yield from (message for message, box in boxes if (passing[box.index] & box.inside).any())


def _concerned(found: RuleList, messages: Sequence[Message]) -> RuleList:
    """Without the rules that match no message: they would only cut the packets further."""
    kept = (rule for rule in found.rules if any(_may_match(rule, message.rule) for message in messages))
    return replace(found, rules=tuple(kept))


def _may_match(rule: Rule, message: Rule) -> bool:
    is_protocol = rule.protocol in (None, message.protocol) and rule.not_protocol != message.protocol
    has_type = rule.icmp is None or message.icmp is None or rule.icmp[0] == message.icmp[0]
    return is_protocol and has_type and any(map(bool.__and__, rule.families, message.families))
