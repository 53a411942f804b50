"""Rows of the cases as packets of a kernel: which a packet can show, and what brings it into its state.

A row asks one hook about a packet in a certain state. On its way to that hook a real packet passes others;
what they answer is known from the reference. It shows the row if none of them denies it, and if it can be
brought into the state of the row: conntrack state, accept mark, DNAT. Below stands why some are not shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address

from cases import Case, Question
from labelgate.flow import ICMP, ICMPV6, Hook, Packet
from labelgate.path import Judge, hooks_of
from labelgate.reference import Reference

STAND_IN = {4: ip_address("198.18.0.1"), 6: ip_address("2001:2::1")}
"""Where a packet is sent that DNAT leads to the destination of its row (RFC 2544, RFC 5180)."""
LOOPBACK = "lo"
NEW_ICMP = {(ICMP, 4): (8, 13, 15, 17), (ICMPV6, 6): (128, 139)}
"""By protocol and IP version, the types of messages that begin a flow for conntrack."""

SENT = "sent"
STAGED = "staged policies are not in force"
EXPECTED = "a connection that another one has announced takes a conntrack helper"
FRAGMENT = "conntrack puts fragments together before any hook sees them"
NOT_NEW = "conntrack never calls such an ICMP message new"
UNTRANSLATED = "conntrack translates no invalid packet"
MARKED = "no packet comes from a wire with a mark"
DENIED = "an earlier hook denies it"
TAKEN_OUT = "an earlier hook takes it out of conntrack"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a case, and what brings a packet into its state on the way to its hook."""

    question: Question
    sent: Packet
    """As it enters the host, or leaves a process."""
    notrack: bool = False
    """A rule of others takes it out of conntrack."""
    mark: bool | None = None
    """A rule of others sets or clears the accept mark before the hook; None: it is as it should be."""

    @property
    def packet(self) -> Packet:
        """As the hook sees it."""
        return self.question.packet


@dataclass(frozen=True, slots=True)
class Left:
    """A row that no packet shows."""

    question: Question
    why: str


def rows_of(case: Case) -> list[Row | Left]:
    """Every row of a case, in order."""
    judge = Reference(case.snapshot(), case.node, case.host, case.settings).answer
    return [_row(case, question, judge) for question in case.questions]


def _row(case: Case, question: Question, judge: Judge) -> Row | Left:
    packet = question.packet
    if reason := _impossible(case, packet):
        return Left(question, reason)
    sent = replace(packet, dst=STAND_IN[packet.dst.version]) if packet.dnatted else packet
    raw, *others = way(packet)
    if not others:
        return Row(question, sent)
    answer = judge(replace(sent, hook=raw, out=None if packet.in_ else packet.out, ct="new"))
    untracked, accepted = answer.verdict == "allow-notrack", answer.accepted
    if untracked and packet.ct != "untracked":
        return Left(question, TAKEN_OUT)
    for hook in others:
        if answer.verdict == "deny":
            return Left(question, DENIED)
        if hook != packet.hook:
            answer = judge(_at(hook, packet, sent, accepted))
            accepted = answer.accepted
    mark = None if accepted == packet.accepted else packet.accepted
    return Row(question, sent, notrack=packet.ct == "untracked" and not untracked, mark=mark)


def _at(hook: Hook, packet: Packet, sent: Packet, accepted: bool) -> Packet:
    """The packet of a row at a hook on its way behind raw."""
    before_routing = hook == "mangle-prerouting"
    seen, out = (sent, None) if before_routing else (packet, packet.out)
    return replace(seen, hook=hook, out=out, accepted=accepted, dnatted=packet.dnatted and not before_routing)


def way(packet: Packet) -> tuple[Hook, ...]:
    """The hooks up to that of the packet."""
    hooks = hooks_of(packet.in_, packet.out)
    if packet.hook == "mangle-postrouting" and packet.in_:
        hooks = (*hooks, packet.hook)
    return hooks[: hooks.index(packet.hook) + 1]


def _impossible(case: Case, packet: Packet) -> str | None:
    """What forbids it, whatever the policy."""
    if case.staged:
        return STAGED
    if packet.fragment:
        return FRAGMENT
    if packet.ct == "related" and packet.protocol not in (ICMP, ICMPV6):
        return EXPECTED
    if packet.hook.startswith("raw"):
        return MARKED if packet.accepted and packet.in_ not in (None, LOOPBACK) else None
    begins = NEW_ICMP.get((packet.protocol, packet.src.version), ())
    if packet.protocol in (ICMP, ICMPV6) and packet.ct == "new" and packet.icmp_type not in begins:
        return NOT_NEW
    return UNTRANSLATED if packet.ct == "invalid" and packet.dnatted else None
