"""Queue numbers are told in the rules by one module, and bound by another one: they must mean the same."""

from __future__ import annotations

import itertools

import pytest
from labelgate import _core
from labelgate.flow import HOOKS
from labelgate.netfilter.facts import FAMILIES, RulesetFacts


@pytest.mark.parametrize(("base", "workers"), [(4200, 1), (4200, 3), (64640, 64)])
def test_rules_lead_to_the_queues_that_the_loop_binds(base: int, workers: int) -> None:
    facts = RulesetFacts((), (), queue_base=base, workers=workers)
    for hook, family in itertools.product(HOOKS, FAMILIES):
        bound = [
            _core.queue_number(hook, 4 if family == "v4" else 6, worker, base=base, workers=workers)
            for worker in range(workers)
        ]
        assert bound == list(facts.queues(hook, family))


def test_queues_that_cannot_be() -> None:
    with pytest.raises(OSError, match="leaves no room for 14 queues"):
        _core.queue_number("filter-input", 4, 0, base=65535, workers=1)
    with pytest.raises(ValueError, match="worker 1 of 1"):
        _core.queue_number("filter-input", 4, 1, base=4200, workers=1)
    with pytest.raises(ValueError, match="no hook `input`"):
        _core.queue_number("input", 4, 0, base=4200, workers=1)  # type: ignore[arg-type]
