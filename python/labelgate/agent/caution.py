"""Before a change: who would be locked out. After it: which connections are cut."""

from __future__ import annotations

from collections.abc import Callable

from labelgate.agent.generation import Generation
from labelgate.links import Links
from labelgate.lockout import (
    Finding,
    Flow,
    Host,
    LockOutError,
    delete_flow,
    denial,
    findings,
    open_sessions,
    read_flows,
)
from labelgate.netfilter.conntrack import set_tcp_loose, tcp_loose

MOST_NAMED = 10
"""Connections that are named in one message."""


def warn_at_start(first: Generation, say: Callable[[str], None]) -> None:
    """Says what the first policy denies that a host is managed by; refuses nothing."""
    if first.table.governs_something:
        for finding in findings(None, first.table, Host(first.links), open_sessions()):
            if finding.is_lockout:
                say(f"warning: {finding}")


def refuse_lockout(before: Generation, after: Generation, links: Links) -> None:
    """For a change that nobody waits for: sessions over SSH, and what the host cannot do without.

    Raises:
        LockOutError: some would be denied that are not now.
    """
    found = findings(before.table, after.table, Host(links), open_sessions())
    if lockouts := [finding for finding in found if finding.is_lockout]:
        raise LockOutError(lockouts)


def denied_sessions(before: Generation, after: Generation, links: Links, mine: Flow | None) -> list[Finding]:
    """For a change that somebody asks for: all sessions that are alive, tracked or not."""
    sessions = dict.fromkeys([*open_sessions(), *read_flows()])
    return findings(before.table, after.table, Host(links), sessions, mine=mine)


def refuse_what_is_cut(found: list[Finding], after: Generation) -> None:
    """LockOutError where somebody would be locked out, or a session would be cut at once."""
    if cut := [finding for finding in found if finding.is_lockout or after.config.revoke == "deny-now"]:
        raise LockOutError(cut)


class Revocation:
    """`revoke: deny-now`: connections that the policy in force denies are cut once, when it comes into force.

    Conntrack forgets them. Their next packet is then judged as the first of a connection; TCP in the middle
    of one must not count as such, or the side that may begin connections would go on with it:
    nf_conntrack_tcp_loose is off, and conntrack calls it INVALID, which every endpoint denies (E-20.2).
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._before: bool | None = None
        """What nf_conntrack_tcp_loose was before we changed it."""

    def follow(self, generation: Generation) -> None:
        """Sets the kernel as this generation needs it."""
        wants_strict = generation.config.revoke == "deny-now"
        if wants_strict and self._before is None:
            self._before = tcp_loose()
            if self._before and not set_tcp_loose(False):
                self._say("warning: nf_conntrack_tcp_loose cannot be set: TCP that is cut may go on")
        elif not wants_strict:
            self.undo()

    def undo(self) -> None:
        """Sets the kernel as it was."""
        if self._before:
            set_tcp_loose(True)
        self._before = None

    def cut(self, generation: Generation) -> None:
        """Cuts what this generation denies, in the direction of its first packet; nothing else."""
        if generation.config.revoke != "deny-now":
            return
        host = Host(generation.links)
        denied = [flow for flow in read_flows() if denial(generation.table, flow, host) is not None]
        if cut := [str(flow) for flow in denied if delete_flow(flow)]:
            more = f" and {len(cut) - MOST_NAMED} more" if len(cut) > MOST_NAMED else ""
            self._say(f"cut, as denied now: {', '.join(cut[:MOST_NAMED])}{more}")
