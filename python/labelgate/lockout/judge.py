"""A connection asked of a table as if it were new: at each hook that its first packet would pass."""

from __future__ import annotations

from labelgate.flow import Packet
from labelgate.lockout.flows import Flow
from labelgate.lockout.host import Host
from labelgate.path import Destination, hooks_of, walk
from labelgate.table import Decision, DecisionTable


def denial(table: DecisionTable, flow: Flow, host: Host) -> str | None:
    """Where and why its first packet would be denied; None if it would pass, or if no route is known."""
    for before, way in host.both_ways(flow):
        if (reason := denied_at(table, flow, *way, before)) is not None:
            return reason
    return None


def denied_at(
    table: DecisionTable,
    flow: Flow,
    in_: str | None,
    out: str | None,
    out_before_dnat: str | None = None,
) -> str | None:
    """Where and why the first packet would be denied between these interfaces; None if it would pass.

    `out_before_dnat` is as in `labelgate.path.walk`.
    """
    has_ports = flow.icmp is None
    packet = Packet(
        hooks_of(in_, out)[0], flow.src, flow.dst, flow.protocol,
        sport=flow.sport if has_ports else None, dport=flow.dport if has_ports else None,
        icmp_type=flow.icmp and flow.icmp[0], icmp_code=flow.icmp and flow.icmp[1], in_=in_, out=out,
    )  # fmt: skip
    dnat = Destination(flow.target, flow.target_port or None) if flow.target else None
    *_, last = walk(table.decide_packet, packet, dnat, out_before_dnat)
    if last.answer.verdict != "deny":
        return None
    if not last.packet.hook.endswith("prerouting") or last.packet.in_ != in_:
        # Those that the hook sees: ahead of DNAT, or back over `lo`.
        in_, out = last.packet.in_, last.packet.out
    where = " ".join(part for part in (f"in {in_}" if in_ else "", f"out {out}" if out else "") if part)
    return f"{where}, {last.packet.hook}: {_because(last.answer)}"


def _because(decision: Decision) -> str:
    """What decided, in words."""
    rule = "" if decision.rule is None else f" rule {decision.rule}"
    return f"{decision.policy}{rule}: {decision.reason}" if decision.policy else decision.reason
