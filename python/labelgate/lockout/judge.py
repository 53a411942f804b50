"""Connections asked of a table as if they were new: at each hook that their first packets would pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from labelgate.flow import CT_STATES, VERDICTS, Packet
from labelgate.lockout.flows import Flow, flow_of
from labelgate.lockout.host import Host
from labelgate.path import Destination, hooks_of, walk
from labelgate.table import Decision, DecisionTable
from labelgate.ways import Flows, Interfaces, Walk, groups

_NEW, _DENY = CT_STATES.index("new"), VERDICTS.index("deny")


def denials(table: DecisionTable, flows: Flows, host: Host) -> dict[int, str]:
    """Rows whose first packet would be denied, where and why; none where no route is known."""
    found: dict[int, str] = {}
    for way, rows in host.ways(flows):
        left = [row for row in rows.tolist() if row not in found]
        for index, reason in _denied(table, flows.pick(np.array(left, np.intp)), way):
            found[left[index]] = reason
    return dict(sorted(found.items()))


def _denied(table: DecisionTable, flows: Flows, way: Interfaces) -> Iterator[tuple[int, str]]:
    """The same of flows that all take one way."""
    hooks = Walk(table, flows, np.full(len(flows), _NEW, np.uint8))
    rows = np.arange(len(flows))
    for hook in hooks_of(*way):
        if not len(rows):
            return
        verdicts, outcomes = hooks.ask(hook, rows, way)
        is_denied = verdicts == _DENY
        for same in groups(outcomes[is_denied]):
            alike = rows[is_denied][same].tolist()
            # An outcome has one reason.
            reason = denied_at(table, flow_of(flows, alike[0]), *way)
            assert reason is not None
            yield from ((row, reason) for row in alike)
        rows = rows[~is_denied]


def denied_at(table: DecisionTable, flow: Flow, in_: str | None, out: str | None) -> str | None:
    """Where and why the first packet would be denied between these interfaces; None if it would pass."""
    has_ports = flow.icmp is None
    packet = Packet(
        hooks_of(in_, out)[0], flow.src, flow.dst, flow.protocol,
        sport=flow.sport if has_ports else None, dport=flow.dport if has_ports else None,
        icmp_type=flow.icmp and flow.icmp[0], icmp_code=flow.icmp and flow.icmp[1], in_=in_, out=out,
    )  # fmt: skip
    dnat = Destination(flow.target, flow.target_port or None) if flow.target else None
    *_, last = walk(table.decide_packet, packet, dnat)
    if last.answer.verdict != "deny":
        return None
    where = " ".join(part for part in (f"in {in_}" if in_ else "", f"out {out}" if out else "") if part)
    return f"{where}, {last.packet.hook}: {_because(last.answer)}"


def _because(decision: Decision) -> str:
    """What decided, in words."""
    rule = "" if decision.rule is None else f" rule {decision.rule}"
    return f"{decision.policy}{rule}: {decision.reason}" if decision.policy else decision.reason
