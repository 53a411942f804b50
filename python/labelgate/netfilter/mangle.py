"""mangle: before DNAT preDNAT policy; behind it locally made flows that nat OUTPUT has turned (E-37)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from labelgate.flow import Hook
from labelgate.netfilter.builder import FAILSAFE, INVALID_IN_MANGLE, TableBuilder
from labelgate.netfilter.facts import ByFamily, HostChains, StaticAnswer
from labelgate.netfilter.rules import ESTABLISHED, Rule, Rules


class Mangle(TableBuilder):
    """The chains of the mangle table."""

    hooks: ClassVar[Mapping[str, Hook]] = {
        "PREROUTING": "mangle-prerouting",
        "POSTROUTING": "mangle-postrouting",
    }

    def decided(self) -> Rules:
        """Whatever it was, it is not our last word here."""
        return (Rule("", self.clear(self.marks.decided)),)

    def bodies(self) -> dict[str, Rules]:
        """E-33, E-37.

        Without preDNAT policy, too, no packet takes D from here to filter, whoever wrote it: there it would
        pass for a verdict.
        """
        return {
            "PREROUTING": (self.head("mangle-prerouting"), *self._prednat()),
            "POSTROUTING": self._dnatted(),
        }

    def _prednat(self) -> Rules:
        """E-33, E-34."""
        fallback = None if self.any is None else self.any.prednat

        def goal(host: HostChains, interface: str | None) -> str | None:
            # The `*` host endpoint also guards interfaces whose own one has no preDNAT policy (E-47),
            # except `lo` where that is exempt.
            exempt = self.settings.exempt_loopback and interface == "lo"
            return self._prednat_chain(host.prednat or (None if exempt else fallback))

        dispatch = self.host_dispatch("prednat", "-i", goal)
        if not dispatch:
            return ()
        return (
            Rule(ESTABLISHED, "-j RETURN"),
            Rule(self.has(self.marks.accept), "-j RETURN"),
            *dispatch,
        )

    def _prednat_chain(self, answers: ByFamily | None) -> str | None:
        if answers is None:
            return None
        answer, counter = answers.of(self.family), answers.counter(self.family)
        ends: dict[StaticAnswer, Rules] = {
            "queue": self.asked("prednat-asked", answers, (self.queue("mangle-prerouting"),)),
            "allow": (Rule("", self.set(self.marks.accept)).counted(counter),),
            "deny": (Rule("", self.drop()).counted(counter),),
            "unmarked": (),
        }
        if answer == "unmarked":
            self.not_counted(answers)
        rules = (
            *self.invalid(self.drop, INVALID_IN_MANGLE),
            *self.failsafes(self.settings.failsafe_inbound, "--dports", "-s", "-j RETURN"),
            *ends[answer],
        )
        return self.chain_of("prednat", answers, answer, rules)

    def _dnatted(self) -> Rules:
        local = self._local() if self.knows_local_dnat else ()
        if not self.knows_local_dnat:
            for host in self.facts.hosts:
                if host.output.of(self.family) == "allow":
                    self.not_counted(host.output)

        def goal(host: HostChains, _: str | None) -> str | None:
            if host.output.of(self.family) == "allow":
                return None
            # A static deny is queued, too: forwarded packets pass here as well and must go on; rules
            # cannot tell them from locally made ones, but the engine sees their in-interface. INVALID
            # packets never have the DNAT state, so they do not come this far.
            return self._asking("dnatted-queue", reason="")

        dispatch = self.host_dispatch("dnatted", "-o", goal)
        hook: Hook = "mangle-postrouting"
        if dispatch:
            return self.headed(hook, (*local, *self._others(), *dispatch))
        if not local or not self.may_repeat(hook):
            return self.headed(hook, local)
        marked = self.chain("marked", (self.head(hook), *local))
        return (Rule(self.has_any(self.marks.decided | self.marks.reject), f"-g {marked}"),)

    def _others(self) -> Rules:
        """What is not judged here."""
        return (
            Rule("-m conntrack ! --ctstate DNAT", "-j RETURN"),
            Rule(ESTABLISHED, "-j RETURN"),
            *self.to_workload("-j RETURN"),
        )

    def _local(self) -> Rules:
        """New DNATed packets of this host, as bit R says: the same answers, and these are counted."""

        def goal(host: HostChains, _: str | None) -> str | None:
            if host.output.of(self.family) != "allow":
                return self._asking("local-queue")
            met = Rule("", "-j RETURN").counted(host.output.counter(self.family))
            return self.chain_of("local", host.output, "allow", (*self._outbound(), met))

        dispatch = self.host_dispatch("local", "-o", goal)
        if not dispatch:
            return ()
        # Who may set marks could have forged it.
        rules = (Rule("", self.clear(self.marks.reject)), *self._others(), *dispatch)
        return (Rule(self.has(self.marks.reject), f"-g {self.chain('dnatted-here', rules)}"),)

    def _asking(self, name: str, **reason: str) -> str:
        return self.chain(name, (*self._outbound(**reason), self.queue("mangle-postrouting")))

    def _outbound(self, reason: str = FAILSAFE) -> Iterator[Rule]:
        return self.failsafes(self.settings.failsafe_outbound, "--dports", "-d", "-j RETURN", reason)
