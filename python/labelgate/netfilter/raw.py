"""raw, before conntrack: bits A and R are cleared, workload sources checked, untracked policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from labelgate.flow import Hook
from labelgate.netfilter.builder import RETURN_HALF, TableBuilder
from labelgate.netfilter.dispatch import Dispatch
from labelgate.netfilter.facts import ByFamily, HostChains, StaticAnswer, WorkloadChains
from labelgate.netfilter.rules import (
    CONNTRACK_CHAIN,
    INVALID,
    PREFIX,
    UNCONFIRMED_ANSWER,
    Rule,
    Rules,
    TableRules,
)


def conntrack_chain() -> dict[str, Rules]:
    """A rule that needs conntrack, for ever.

    No packet comes here. While one rule needs conntrack, conntrack and defragmentation stay on, and no queued
    packet is lost because the last such rule of somebody else goes (that unregisters hooks).
    """
    return {CONNTRACK_CHAIN: (Rule(INVALID, "-j RETURN"),)}


class Raw(TableBuilder):
    """The chains of the raw table."""

    hooks: ClassVar[Mapping[str, Hook]] = {"PREROUTING": "raw-prerouting", "OUTPUT": "raw-output"}

    def rules(self) -> TableRules:
        """Also the rule that keeps conntrack on."""
        table = super().rules()
        return replace(table, chains={**table.chains, **conntrack_chain()})

    def decided(self) -> Rules:
        """D is known here, so A says allow-notrack."""
        return (
            Rule(self.has(self.marks.accept), "-j CT --notrack"),
            Rule("", self.clear(self.marks.decided)),
        )

    def head(self, hook: Hook) -> Rule:
        """A packet of this host leaves raw OUTPUT with the mark that it was queued with (`keeps_mark`).

        One whose mark has changed the kernel looks up in its routes again, without the interface that its
        socket has forced (`IP_PKTINFO`, `IP_UNICAST_IF`): it would leave by one whose policy nobody has
        asked. So it has bit `exempt` from before it is queued, and in filter OUTPUT that says "accepted" of
        what is untracked. Rules of others could leave a packet untracked, end the table or write the mark:
        where there are any, bit A says so, and such sockets have what they ask for only where they are bound.
        """
        if hook != "raw-output" or not self._keeps_mark:
            return super().head(hook)
        unmarked, exempt = self.has_none(self.marks.accept), Rule("", self.only(self.marks.exempt))
        decided = self.chain("decided", self.decided())
        rules = (
            *(Rule(f"{match} {unmarked}", f"-g {decided}") for match in self._untracked_by_others()),
            Rule(self.has(self.marks.accept), "-j CT --notrack"),
            exempt,
        )
        return Rule(self.has(self.marks.decided), f"-g {self.chain('decided-out', rules)}")

    @property
    def _keeps_mark(self) -> bool:
        may_keep = self.facts.keeps_mark and not self.facts.open and self.may_repeat("raw-output")
        return may_keep and self.exempts_on_output

    def _queued(self, hook: Hook) -> Rules:
        """To the queue."""
        queue = self.queue(hook)
        if hook != "raw-output" or not self._keeps_mark:
            return (queue,)
        return (Rule(" ".join(self._untracked_by_others("! ")), self.set(self.marks.exempt)), queue)

    def _untracked_by_others(self, negation: str = "") -> tuple[str, ...]:
        """Matches of packets whose being untracked says nothing of our verdict.

        conntrack leaves neighbour discovery so by itself (nf_conntrack_proto_icmpv6.c).
        """
        by_rules, by_itself = f"-m conntrack {negation}--ctstate UNTRACKED", f"{negation}-p ipv6-icmp"
        return (by_itself, by_rules) if self.family == "v6" else (by_rules,)

    def bodies(self) -> dict[str, Rules]:
        """E-30..E-32."""
        spoof = self.from_workload(f"-g {self.dispatch(self._sources())}") if self.prefixes else ()
        inbound = (*spoof, *self._untracked("raw-in", "-i", "raw-prerouting"))
        outbound = self._untracked("raw-out", "-o", "raw-output")
        return {
            "PREROUTING": self._unmarked("marked-in", "raw-prerouting", inbound),
            "OUTPUT": self._unmarked("marked-out", "raw-output", outbound),
        }

    def _unmarked(self, name: str, hook: Hook, rules: Rules) -> Rules:
        """Hardly a packet has a bit of ours here: one rule finds those that have."""
        clear = Rule("", self.clear(self.marks.accept | self.marks.reject))
        marked = self.chain(name, (self.head(hook), clear, *rules))
        return (Rule(self.has_any(self.marks.mask), f"-g {marked}"), *rules)

    def _sources(self) -> Dispatch:
        """E-30: a known interface returns with one of its own sources; all else from workloads is dropped."""
        return Dispatch(
            f"{PREFIX}spoof",
            "-i",
            {workload.interface: tuple(self._own_sources(workload)) for workload in self.workloads},
            (Rule("", self.drop()),),
        )

    def _own_sources(self, workload: WorkloadChains) -> Iterator[Rule]:
        version = 4 if self.family == "v4" else 6
        exempt = ["fe80::/10", "::/128"] if version == 6 else []
        for net in [str(source) for source in workload.sources if source.version == version] + exempt:
            yield Rule(f"-s {net}", "-j RETURN")

    def _untracked(self, name: str, side: Literal["-i", "-o"], hook: Hook) -> Rules:
        """E-31, E-32."""
        accepted = self.marks.exempt if side == "-o" and self._keeps_mark else self.marks.accept

        def goal(host: HostChains, _: str | None) -> str | None:
            if host.untracked is None:
                return None
            direction = "ingress" if side == "-i" else "egress"
            answers: ByFamily = getattr(host.untracked, direction)
            answer, counter = answers.of(self.family), answers.counter(self.family)
            denies = (direction, self.family) in host.denied_answers
            kind = f"{name}-deny" if denies else name
            ends: dict[StaticAnswer, Rules] = {
                "queue": self.asked(
                    f"{kind}-asked",
                    answers,
                    (*self._unconfirmed_answers(hook, denies=denies), *self._queued(hook)),
                ),
                "allow": (
                    Rule("", self.set(accepted)).counted(counter),
                    Rule("", "-j CT --notrack"),
                ),
                "deny": (Rule("", self.drop()).counted(counter),),
                "unmarked": (),
            }
            if not ends[answer]:
                self.not_counted(answers)
                return None
            return self.chain_of(kind, answers, answer, (*self._failsafes(side), *ends[answer]))

        return self.host_dispatch(name, side, goal)

    def _unconfirmed_answers(self, hook: Hook, *, denies: bool) -> Rules:
        """They pass as by no rule, and as by one that allows them: what has a connection gets no other.

        Where policy may deny some of them, they share the fate of what finds no room in the queue.
        """
        if self.facts.open:
            return ()
        passes = not denies or hook in self.facts.fail_open
        return (Rule(UNCONFIRMED_ANSWER, "-j RETURN" if passes else self.drop()),)

    def _failsafes(self, side: str) -> Iterator[Rule]:
        """E-43: each direction has the return half of the other one's failsafes, too."""
        inbound, outbound = self.settings.failsafe_inbound, self.settings.failsafe_outbound
        if side == "-i":
            yield from self.failsafes(inbound, "--dports", "-s", "-j RETURN")
            yield from self.failsafes(outbound, "--sports", "-s", "-j RETURN", RETURN_HALF)
        else:
            yield from self.failsafes(outbound, "--dports", "-d", "-j RETURN")
            yield from self.failsafes(inbound, "--sports", "-d", "-j RETURN", RETURN_HALF)
