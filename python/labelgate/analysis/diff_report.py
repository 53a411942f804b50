"""A difference as people read it, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from labelgate.analysis.changes import Change, Example, Judgement
from labelgate.analysis.diff import Difference
from labelgate.analysis.naming import Names

_PRESENCE = {"both": "", "old": " (only in OLD)", "new": " (only in NEW)"}


def lines(difference: Difference, *, examples: bool = True) -> Iterator[str]:
    """`+` where more gets through, `-` where less does, `~` where it does in another way."""
    for setting in difference.settings:
        sign = "+" if setting.widens else "~"
        scope = _few(setting.scope)
        yield f"{sign} {scope}: setting {setting.name} changes from {setting.old} to {setting.new}"
    for change in difference.changes:
        yield line(change, difference.names)
        if examples:
            yield f"    {_example_text(change.example)}"
    yield difference.caption()


def _few(scope: str) -> str:
    """The first of many nodes."""
    names = scope.split(", ")
    return scope if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def line(change: Change, names: Names) -> str:
    """One change, for example `- pods app=web lose egress to 10.9.0.0/16 tcp 5432`."""
    width = change.width()
    sign, verb = ("+", "gain") if width > 0 else ("-", "lose") if width < 0 else ("~", "change")
    if len(change.endpoints) == 1:
        verb += "s"
    subject = names.group(change.endpoints) + _PRESENCE[change.presence]
    toward = "from" if change.direction == "ingress" else "to"
    own = ""
    if change.own is not None:
        own = f" {'at' if change.direction == 'ingress' else 'as'} {names.peers(change.own)}"
    text = f"{sign} {subject} {verb} {change.direction}{own} {toward} {names.peers(change.peers)}"
    stage = "" if change.kind == "workload" else f" ({_stage(change)}: {change.old} -> {change.new})"
    return f"{text} {change.services.text()}{stage}"


def _stage(change: Change) -> str:
    return "applyOnForward" if change.kind == "forward" else change.kind


def _example_text(example: Example) -> str:
    packet = dict(example.packet)
    parts = [f"{packet.pop('src')} -> {packet.pop('dst')}", str(packet.pop("protocol"))]
    packet.pop("sport", None)
    if "dport" in packet:
        parts.append(str(packet.pop("dport")))
    parts += [f"{key} {value}" if value is not True else key for key, value in packet.items()]
    return f"{' '.join(parts)}: {_judgement_text(example.old)} -> {_judgement_text(example.new)}"


def _judgement_text(judged: Judgement) -> str:
    if judged.policy is not None and judged.rule is not None:
        return f"{judged.verdict} by {judged.policy} rule {judged.rule}"
    where = f" of tier {judged.tier}" if judged.tier else ""
    return f"{judged.verdict} by {judged.policy or judged.reason}{where}"


def to_json(difference: Difference) -> dict[str, Any]:
    """Everything in full: every endpoint, net and port."""
    return {
        "widened": difference.widens,
        "settings": [asdict(setting) for setting in difference.settings],
        "changes": [_change_json(change, difference.names) for change in difference.changes],
    }


def _change_json(change: Change, names: Names) -> dict[str, Any]:
    return {
        "text": line(change, names),
        "widened": change.widens,
        "old": change.old,
        "new": change.new,
        "kind": _stage(change),
        "direction": change.direction,
        "hooks": list(change.hooks),
        "presence": change.presence,
        "endpoints": sorted(change.endpoints),
        "ownNets": None if change.own is None else [str(net) for net in change.own.networks],
        "peerNets": [str(net) for net in change.peers.networks],
        "peerEndpoints": names.owners_in(change.peers),
        "services": [
            {
                "protocols": [list(span) for span in group.protocols],
                "fragmentsAndPortless": group.opaque,
                "ports": [
                    {"source": [first, last], "destination": [list(span) for span in spans]}
                    for first, last, spans in group.rows
                ],
            }
            for group in change.services.groups
        ],
        "example": {
            "packet": {"hook": change.example.hook, **change.example.packet},
            "old": asdict(change.example.old),
            "new": asdict(change.example.new),
        },
    }
