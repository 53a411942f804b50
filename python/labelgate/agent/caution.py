"""Before a change: who would be locked out. After it: which connections are cut."""

from __future__ import annotations

from collections.abc import Callable

from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from labelgate.agent.generation import Generation
from labelgate.agent.loose import LooseNote
from labelgate.agent.panics import panics_refused
from labelgate.agent.state import StateError
from labelgate.links import Links
from labelgate.lockout import (
    Finding,
    Flow,
    Host,
    LockOutError,
    findings,
    forget_connections,
    is_ssh_exempt,
    open_sessions,
    read_connections,
)
from labelgate.netfilter.conntrack import set_tcp_loose, tcp_loose

MOST_NAMED = 10
"""Connections that are named in one message."""


Step = Callable[[], None]
"""Called now and then where there are many connections."""
UNREADABLE = (OSError, NetlinkError, ValueError, LookupError)
"""What comes of a kernel that does not tell what it is asked, or tells it in another way."""


def warn_at_start(first: Generation, say: Callable[[str], None]) -> None:
    """Says what the first policy denies that a host is managed by; refuses nothing."""
    if not first.table.governs_something:
        return
    try:
        with panics_refused():
            found = findings(None, first.table, Host(first.links), open_sessions())
    except UNREADABLE as error:
        say(f"warning: who is locked out cannot be told: {error!r}")
        return
    for finding in found:
        if finding.is_lockout:
            say(f"warning: {finding}")


def refuse_lockout(
    before: Generation, after: Generation, links: Links, say: Callable[[str], None], step: Step
) -> None:
    """For a change that nobody waits for: sessions over SSH, and what the host cannot do without.

    Where the kernel does not tell, the change is made: policy must not depend on that.

    Raises:
        LockOutError: some would be denied that are not now.
    """
    try:
        # The kernel takes long to list its sockets; failsafe ports are judged anyway.
        sessions = [] if is_ssh_exempt(after.table) else open_sessions()
        with panics_refused():
            found = findings(before.table, after.table, Host(links, step), sessions)
    except UNREADABLE as error:
        say(f"warning: who is locked out cannot be told: {error!r}")
        return
    if lockouts := [finding for finding in found if finding.is_lockout]:
        raise LockOutError(lockouts)


def denied_sessions(
    before: Generation, after: Generation, links: Links, mine: Flow | None, step: Step
) -> list[Finding]:
    """For a change that somebody asks for: all sessions that are alive, tracked or not.

    Raises:
        LockOutError: the kernel does not tell.
    """
    try:
        sessions, tracked, host = open_sessions(), read_connections(), Host(links, step)
        with panics_refused():
            return findings(before.table, after.table, host, sessions, tracked, mine=mine)
    except UNREADABLE as error:
        raise LockOutError(
            [Finding("the check itself", repr(error), "nobody knows", is_lockout=True)]
        ) from None


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

    def __init__(self, say: Callable[[str], None], state: str) -> None:
        """`state` is the folder where what we change is noted, for the daemon after this one."""
        self._say = say
        self._note = LooseNote(state)
        self._before: bool | None = None
        """What nf_conntrack_tcp_loose was before we, or a daemon that was killed, changed it."""

    def follow(self, generation: Generation) -> None:
        """Sets the kernel as this generation needs it."""
        wants_strict = generation.config.revoke == "deny-now"
        if wants_strict and self._before is None:
            self._before = tcp_loose() or self._note.is_there()
            if not self._before:
                self._say("nf_conntrack_tcp_loose is 0 already: a stop leaves it so")
            else:
                self._switch_off()
        elif not wants_strict:
            self.undo()

    def _switch_off(self) -> None:
        try:
            self._note.leave()
        except StateError as error:
            self._say(f"warning: a kill would leave nf_conntrack_tcp_loose at 0: {error}")
        if not set_tcp_loose(False):
            self._say("warning: nf_conntrack_tcp_loose cannot be set: TCP that is cut may go on")

    def undo(self) -> None:
        """Sets the kernel as it was, also where a daemon before this one changed it."""
        try:
            if not self._note.restore() and self._before:
                set_tcp_loose(True)
        except OSError as error:
            self._say(f"warning: {error}")
        self._before = None

    def cut(self, generation: Generation, step: Step) -> None:
        """Cuts what this generation denies, in the direction of its first packet; nothing else."""
        if generation.config.revoke != "deny-now":
            return
        from labelgate.lockout.many import denials, flow_of

        try:
            with panics_refused():
                host = Host(generation.links, step)
                denied = [
                    flow_of(flows, row)
                    for flows in read_connections(in_any_state=True)
                    for row in denials(generation.table, flows, host)
                ]
            cut = forget_connections(denied)
        except UNREADABLE as error:
            self._say(f"warning: connections that are denied now go on: {error!r}")
            return
        if cut:
            more = f" and {len(cut) - MOST_NAMED} more" if len(cut) > MOST_NAMED else ""
            self._say(f"cut, as denied now: {', '.join(map(str, cut[:MOST_NAMED]))}{more}")
