"""The core's loop as measurements start it, without the daemon around it."""

from __future__ import annotations

from typing import Any

from labelgate import _core
from labelgate.flow import HOOKS
from labelgate.netfilter.facts import Marks
from labelgate.processors import Workers, pin
from labelgate.table import DecisionTable


def layout() -> Workers:
    """What `labelgate run` has by default; all handlers have the same queues, and run where packets are."""
    return Workers.planned(None, "cpu", ())


def started(table: DecisionTable, base: int, maxlen: int, mask: int, **options: Any) -> _core.Enforcer:
    """With the defaults of `labelgate run` but for `options` of `_core.Enforcer`."""
    marks, no = Marks.from_mask(mask), [False] * len(HOOKS)
    workers = layout()
    loop = _core.Enforcer(
        table.core,
        [],
        base=base,
        workers=workers.count,
        maxlen=maxlen,
        marks=(marks.accept, marks.decided, marks.reject),
        fail_open=no,
        malformed_accept=False,
        filter_reject=False,
        filter_return=False,
        without_repeat=no,
        **options,
    )
    pin(loop.thread_ids(), workers.places)
    return loop
