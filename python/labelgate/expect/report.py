"""Results for people: what was expected, what was found, what decided, and what would have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from labelgate.expect.judge import Answered, Passed, Result
from labelgate.expect.near import near_misses, of_policy
from labelgate.expect.places import PlacedRule, placed_rules
from labelgate.expect.world import World

MOST = 3
"""So many wrong answers of one expectation are shown."""


def text(result: Result, world: World) -> str:
    """Why an expectation does not hold, in some lines."""
    head = f"{result.place}: {result.test.metadata.name}[{result.index}]: {result.title}"
    if result.error is not None:
        return f"{head}\n  cannot be asked: {result.error}"
    lines = [head, f"  expected: {_expected(result)}"]
    for answer in result.failures[:MOST]:
        lines += _answer(result, answer, world)
    shown = len(result.failures[:MOST])
    if result.wrong > shown:
        lines.append(f"  and {result.wrong - shown} more of {result.asked} questions")
    return "\n".join(lines)


def _expected(result: Result) -> str:
    wanted = result.expectation.decided_by
    if wanted is None:
        return result.expectation.expect
    direction = "" if wanted.direction is None else f" {wanted.direction}"
    rule = direction + ("" if wanted.rule is None else f" rule {wanted.rule}")
    tier = "" if wanted.tier is None else f" tier {wanted.tier}"
    return f"{result.expectation.expect}, decided by {wanted.policy or ''}{rule}{tier}".replace("by  ", "by ")


def _answer(result: Result, answer: Answered, world: World) -> Iterator[str]:
    packet = answer.question.packet
    port = "" if packet.dport is None else f" port {packet.dport}"
    icmp = "" if packet.icmp_type is None else f" type {packet.icmp_type} code {packet.icmp_code}"
    asked = (
        f"{answer.question.source} -> {answer.question.destination}, protocol {packet.protocol}{port}{icmp}"
    )
    where = "" if answer.hook is None else f" at {answer.hook}"
    yield f"  found:    {answer.verdict}{where}: {asked}"
    for passed in answer.deciding:
        yield f"  decided:  {_decided(passed, world)}"
    yield from _would(result, answer, world)


def _decided(passed: Passed, world: World) -> str:
    step = passed.step
    where = [step.endpoint] if step.endpoint else []
    where += [f"tier {step.tier}"] if step.tier else []
    suffix = f" [{', '.join(where)}]" if where else ""
    if step.policy is None or step.rule is None:
        return f"{step.policy or 'no rule'}: {step.reason}, {passed.direction}{suffix}"
    place = _places(world).get((step.policy, passed.direction, step.rule))
    at = f" at {place.place}" if place else ""
    return f"{step.policy} {passed.direction} rule {step.rule}{at}: {step.action}, {step.reason}{suffix}"


def _would(result: Result, answer: Answered, world: World) -> Iterator[str]:
    """The rules that come nearest to deciding as expected."""
    expectation = result.expectation
    wanted = expectation.decided_by
    if (answer.verdict == "deny") != (expectation.expect == "deny"):
        action = "Deny" if expectation.expect == "deny" else "Allow"
        misses, none = near_misses(world, answer, action), f"no rule here has action {action}"
    elif wanted is not None and wanted.policy is not None:
        misses = of_policy(world, answer, wanted)
        none = f"{wanted.policy} has no such rule where this packet is judged"
    else:
        return
    if not misses:
        yield f"  would match: {none}"
    for miss in misses:
        place = _places(world).get((miss.policy, miss.direction, miss.rule))
        at = f" at {place.place}" if place else ""
        but = f"but for: {', '.join(miss.unmet)}" if miss.unmet else "but another decides"
        yield f"  would match: {miss.policy} {miss.direction} rule {miss.rule}{at}, {but}"


@lru_cache(maxsize=4)
def _places(world: World) -> dict[tuple[str, str, int], PlacedRule]:
    found = placed_rules(world.snapshot, world.settings)
    return {(rule.policy, rule.direction, rule.number): rule for rule in found}
