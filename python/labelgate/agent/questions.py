"""Verbs of the control socket that ask the enforcement, and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelgate.agent.asked import refuse_unknown
from labelgate.agent.enforcement import Enforcement
from labelgate.control import ControlError, Verb


def questions(enforcement: Enforcement) -> Mapping[str, Verb]:
    """By verb, what answers its arguments, or raises ControlError."""

    def events(arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments, "after")
        after = arguments.get("after")
        if after is not None and (not isinstance(after, int) or isinstance(after, bool)):
            raise ControlError("request", "after: expected a number, or null")
        if enforcement.events is None or not enforcement.current.config.event_rate:
            raise ControlError("events", "no events are told: `events.rate` is 0")
        return enforcement.events.answer(after)

    def recorder(arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments)
        if enforcement.events is None or not enforcement.current.config.recorded:
            raise ControlError("recorder", "no packets are recorded: `events.recorder` is 0")
        return enforcement.events.recorded()

    def rules(arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments)
        return enforcement.rule_counts.rows()

    return {"events": events, "recorder": recorder, "rules": rules}
