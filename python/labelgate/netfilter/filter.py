"""filter: normal and forward policy of host endpoints, and workload policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from labelgate.flow import Hook
from labelgate.netfilter.builder import TableBuilder
from labelgate.netfilter.dispatch import Dispatch
from labelgate.netfilter.facts import HostChains, StaticAnswer, WorkloadChains
from labelgate.netfilter.rules import ESTABLISHED, PREFIX, Jump, Rule, Rules, TableRules

_NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 135, 136)


class Filter(TableBuilder):
    """The chains of the filter table."""

    hooks: ClassVar[Mapping[str, Hook]] = {
        "INPUT": "filter-input",
        "FORWARD": "filter-forward",
        "OUTPUT": "filter-output",
    }

    def rules(self) -> TableRules:
        """Also the rule that is kept last in FORWARD."""
        table = super().rules()
        if self.settings.filter_allow == "Return":
            # The base chain judges what we allowed; bit A tells it which packets those are.
            return table
        # E-39: ends the packets that we allowed, behind all rules of others.
        end = self.chain("FORWARD-end", (Rule(self.has(self.marks.accept), "-j ACCEPT"),))
        chains = {**table.chains, end: self.chains[end]}
        return TableRules(chains, table.first, (*table.last, Jump("FORWARD", end)))

    def decided(self) -> Rules:
        """R: deny; else to the rules of others.

        R is answered under Drop too: a verdict that is under way when the action changes must not pass.
        """
        return (Rule(self.has(self.marks.reject), self.deny()), Rule("", self.clear(self.marks.decided)))

    def bodies(self) -> dict[str, Rules]:
        """E-35, E-36, E-38."""
        return {"INPUT": self._input(), "FORWARD": self._forward(), "OUTPUT": self._output()}

    def accept(self) -> str:
        """A final accept (`FilterAllowAction`)."""
        return f"-j {'ACCEPT' if self.settings.filter_allow == 'Accept' else 'RETURN'}"

    def deny(self) -> str:
        """A deny (`FilterDenyAction`)."""
        if self.settings.filter_deny == "Drop":
            return "-j DROP"
        # Cleared first: the kernel may copy the packet's mark to the one it answers with (fwmark_reflect).
        name = self.chain(
            "reject",
            (
                Rule("", self.clear(self.marks.decided | self.marks.reject)),
                Rule("-p tcp", "-j REJECT --reject-with tcp-reset"),
                Rule("", "-j REJECT"),
            ),
        )
        return f"-g {name}"

    def _end(self, answer: StaticAnswer, hook: Hook, allow: Rules) -> Rules:
        """The end of a chain that is never left unmarked."""
        if answer == "queue":
            return (self.queue(hook),)
        if answer == "deny":
            return (Rule("", self.deny()),)
        if answer == "allow":
            return allow
        raise ValueError(f"a normal chain cannot end unmarked (E-20.8), but that is its answer at {hook}")

    def _input(self) -> Rules:
        """E-35, E-50."""
        workload: Rules = ()
        if self.prefixes:
            to_host = self._workload_dispatch("wl-host", "-i", self._workload_to_host)
            if self.family == "v6":
                workload = self.from_workload(f"-g {self._discovery(to_host)}", "-p ipv6-icmp")
            workload += self.from_workload(f"-g {to_host}")
        dispatch = self.host_dispatch("host-in", "-i", self._host_in)
        if dispatch is None:
            return workload
        return (*workload, Rule(self.has(self.marks.accept), self.accept()), Rule("", f"-g {dispatch}"))

    def _discovery(self, otherwise: str) -> str:
        kinds = [
            Rule(f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind}", self.accept())
            for kind in _NEIGHBOUR_DISCOVERY
        ]
        return self.chain("discovery", (*kinds, Rule("", f"-g {otherwise}")))

    def _host_in(self, host: HostChains, _: str | None) -> str:
        answer = host.input.of(self.family)
        rules = (
            Rule(ESTABLISHED, self.accept()),
            *self.invalid(self.deny),
            *self.failsafes(self.settings.failsafe_inbound, "--dports", "-s", self.accept()),
            *self._end(answer, "filter-input", (Rule("", self.accept()),)),
        )
        return self.chain(f"host-in-{answer}", rules)

    def _output(self) -> Rules:
        """E-36."""
        dispatch = self.host_dispatch("host-out", "-o", self._host_out)
        if dispatch is None:
            return ()
        return (
            Rule(self.has(self.marks.accept), self.accept()),
            *self.to_workload("-j RETURN"),
            # E-37: only mangle POSTROUTING sees the right out-interface.
            Rule("-m conntrack --ctstate DNAT", "-j RETURN"),
            Rule("", f"-g {dispatch}"),
        )

    def _host_out(self, host: HostChains, _: str | None) -> str:
        answer = host.output.of(self.family)
        rules = (
            Rule(ESTABLISHED, self.accept()),
            *self.invalid(self.deny),
            *self.failsafes(self.settings.failsafe_outbound, "--dports", "-d", self.accept()),
            *self._end(answer, "filter-output", (Rule("", self.accept()),)),
        )
        return self.chain(f"host-out-{answer}", rules)

    def _workload_dispatch(
        self, name: str, side: Literal["-i", "-o"], goal: Callable[[WorkloadChains], str]
    ) -> str:
        """Workload interfaces that nobody has are denied (E-38.3), also when ESTABLISHED."""
        leaves = {workload.interface: (Rule("", f"-g {goal(workload)}"),) for workload in self.workloads}
        return self.dispatch(Dispatch(PREFIX + name, side, leaves, (Rule("", self.deny()),)))

    def _workload_to_host(self, workload: WorkloadChains) -> str:
        """E-50."""
        answer = workload.egress.of(self.family)
        allow = Rule("", self._endpoint_to_host())
        rules = (
            Rule(ESTABLISHED, self.accept()),
            *self.invalid(self.deny),
            *self._end(answer, "filter-input", (*self._encapsulation(), allow)),
        )
        return self.chain(f"wl-host-{answer}", rules)

    def _endpoint_to_host(self) -> str:
        action = self.settings.endpoint_to_host
        if action == "Drop":
            return self.deny()
        return self.accept() if action == "Accept" else "-j RETURN"

    def _encapsulation(self) -> Rules:
        """E-20.5, where the queue does not see to it."""
        port = self.settings.workload_vxlan_port
        vxlan = [] if port is None else [Rule(f"-p udp -m udp --dport {port}", self.deny())]
        ipip = [Rule("-p 4", self.deny())] if self.settings.workload_ipip_denied else []
        return (*vxlan, *ipip)

    def _forward(self) -> Rules:
        """E-38.

        A packet is queued by the first stage that needs it; the engine then judges FORWARD from the
        first stage on. The static stages before have the same answer there. One of them may have set
        bit A since the packet arrived, so that the engine leaves out from-HEP; but then that stage was
        static, too, or left out here.
        """
        stages: list[Rule] = []
        if from_hep := self.host_dispatch("from-hep", "-i", self._from_hep):
            accept = self.marks.accept
            stages.append(Rule(f"-m mark ! --mark {accept:#x}/{accept:#x}", f"-j {from_hep}"))
        if self.prefixes:
            stages += self.from_workload(
                f"-j {self._workload_dispatch('from-wl', '-i', self._from_workload)}"
            )
            stages += self.to_workload(f"-j {self._workload_dispatch('to-wl', '-o', self._to_workload)}")
        if to_hep := self.host_dispatch("to-hep", "-o", self._to_hep):
            stages.append(Rule("", f"-j {to_hep}"))
        if self.settings.filter_allow == "Accept":
            return tuple(stages)
        return tuple(rule for stage in stages for rule in (stage, self.return_decided()))

    def _from_hep(self, host: HostChains, _: str | None) -> str:
        return self._hep_stage("from-hep", host.forward.ingress.of(self.family), ())

    def _to_hep(self, host: HostChains, _: str | None) -> str:
        clear = Rule("", self.clear(self.marks.accept))
        return self._hep_stage("to-hep", host.forward.egress.of(self.family), (clear,))

    def _hep_stage(self, name: str, answer: StaticAnswer, unmarked: Rules) -> str:
        if answer == "unmarked" and self.settings.forward_unmarked != "return":
            answer = "queue"  # The engine knows whether this is the last stage (E-27).
        end = unmarked if answer == "unmarked" else self._end(answer, "filter-forward", self._marked())
        return self.chain(f"{name}-{answer}", (*self._forward_settled(), *end))

    def _from_workload(self, workload: WorkloadChains) -> str:
        answer = workload.egress.of(self.family)
        end = self._end(answer, "filter-forward", (*self._encapsulation(), *self._marked()))
        return self.chain(f"from-wl-{answer}", (*self._forward_settled(), *end))

    def _to_workload(self, workload: WorkloadChains) -> str:
        answer = workload.ingress.of(self.family)
        end = self._end(answer, "filter-forward", self._marked())
        return self.chain(f"to-wl-{answer}", (*self._forward_settled(), *end))

    def _marked(self) -> Rules:
        """This stage accepts; the next one may still deny (E-39a)."""
        return (Rule("", self.set(self.marks.accept)),)

    def _forward_settled(self) -> Rules:
        """E-20.2. ESTABLISHED is final for FORWARD (E-39b).

        Where accepted packets are returned, A tells the base chain that this one is, and D, here only within
        our own chains, that no further stage is asked.
        """
        if self.settings.filter_allow == "Accept":
            established = self.accept()
        else:
            final = Rule("", self.set(self.marks.accept | self.marks.decided))
            established = f"-g {self.chain('established', (final,))}"
        return (Rule(ESTABLISHED, established), *self.invalid(self.deny))
