"""Interfaces that come and go: what changed, and which endpoints of this node have one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from labelgate.agent.follower import SAYS
from labelgate.agent.generation import AgentError, Generation
from labelgate.agent.panics import faults_refused
from labelgate.agent.rate_limit import RateLimited
from labelgate.links import Link, Links, LinkWatch
from labelgate.out_of_reach import out_of_reach

MOST_NAMED = 10
"""In one line of the log: a node may have hundreds."""


def watch_links(say: Callable[[str], None]) -> LinkWatch:
    """With none where they cannot be read now: what policy names is governed, and they are asked for again.

    Raises:
        AgentError: the kernel tells of no interfaces at all.
    """
    try:
        with faults_refused(*SAYS):
            return LinkWatch()
    except (ValueError, *SAYS) as error:
        say(f"warning: interfaces cannot be read: {error}; until they can be `expectedIPs` find none")
    try:
        return LinkWatch(reads=False)
    except OSError as error:
        raise AgentError(f"interfaces cannot be followed: {error.strerror}") from None


class Local(NamedTuple):
    """Endpoints of this node that have an interface, by name."""

    hosts: frozenset[str]
    workloads: frozenset[str]


def local_endpoints(generation: Generation) -> Local:
    """Of those that rules are there for; a rule may be there ahead of its interface."""
    facts, names = generation.table.rule_facts(), {link.name for link in generation.links.links}
    return Local(
        frozenset(
            host["endpoint"]
            for host in facts["hosts"]
            if host["any"] or not names.isdisjoint(host["interfaces"])
        ),
        frozenset(one["endpoint"] for one in facts["workloads"] if one["interface"] in names),
    )


class InterfaceLog:
    """Says what became of interfaces, and of endpoints by that; each only so often."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._of_links = RateLimited(say, "changes of interfaces")
        self._of_endpoints = RateLimited(say, "changes of endpoints by interfaces")
        self._nameless: frozenset[str] = frozenset()

    def __call__(self, before: Generation, after: Generation) -> None:
        """The same policy on other interfaces."""
        self.warn_of_nameless(after.links)
        if changed := list(_changes(before.links, after.links)):
            self._of_links(f"interfaces: {_some(changed)}")
        was, now = (frozenset().union(*local_endpoints(one)) for one in (before, after))
        if lost := sorted(was - now):
            self._of_endpoints(f"without an interface now: {_some(lost)}")
        if found := sorted(now - was):
            self._of_endpoints(f"with an interface now: {_some(found)}")

    def warn_of_nameless(self, links: Links) -> None:
        """Once, as long as they are there."""
        found = frozenset(link.name for link in links.links if not link.can_be_named)
        if new := sorted(found - self._nameless):
            self._of_links(
                f"warning: names that rules cannot hold: {_some(new)}: only a `*` host endpoint governs them"
            )
        self._nameless = found

    def catch_up(self) -> None:
        """To be called from time to time: says how much was left out."""
        self._of_links.catch_up()
        self._of_endpoints.catch_up()


class OutOfReach:
    """Endpoints of this node that rules do not reach: told when they come, and known as long as they are."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._warn = RateLimited(say, "endpoints that rules do not reach")
        self.known: tuple[str, ...] = ()

    def look(self, generation: Generation) -> None:
        """To be called for each that has come into force."""
        node, table = generation.config.node, generation.table
        found = out_of_reach(generation.snapshot, node, generation.links, table)
        for text in found:
            if text not in self.known:
                self._warn(f"warning: {text}")
        self.known = found


def _changes(before: Links, after: Links) -> Iterator[str]:
    was, now = ({link.index: link for link in links.links} for links in (before, after))
    for index in sorted(was.keys() | now.keys()):
        if index not in was:
            yield f"{now[index].name} is new"
        elif index not in now:
            yield f"{was[index].name} is gone"
        elif was[index] != now[index]:
            yield _change(was[index], now[index])


def _change(was: Link, now: Link) -> str:
    gained = [f"+{address}" for address in now.addresses if address not in was.addresses]
    lost = [f"-{address}" for address in was.addresses if address not in now.addresses]
    name = now.name if now.name == was.name else f"{was.name} is {now.name}"
    return " ".join([name, *filter(None, (_some(gained), _some(lost), _membership(was, now)))])


def _membership(was: Link, now: Link) -> str:
    if was.master == now.master:
        return ""
    return f"joins {now.master.name}" if now.master else f"leaves {was.master and was.master.name}"


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
