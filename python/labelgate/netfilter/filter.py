"""filter: normal and forward policy of host endpoints, and workload policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from labelgate.flow import Hook
from labelgate.netfilter.builder import ENCAPSULATED, TO_HOST, TableBuilder
from labelgate.netfilter.dispatch import Dispatch
from labelgate.netfilter.facts import ByFamily, HostChains, WorkloadChains
from labelgate.netfilter.rules import ESTABLISHED, PREFIX, UNTRACKED, Jump, Rule, Rules, TableRules

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
        return replace(table, chains=chains, last=(*table.last, Jump("FORWARD", end)))

    def decided(self) -> Rules:
        """R: deny; else to the rules of others.

        R is answered under Drop too: a verdict that is under way when the action changes must not pass.
        """
        return (Rule(self.has(self.marks.reject), self.deny()), Rule("", self.clear(self.marks.decided)))

    def bodies(self) -> dict[str, Rules]:
        """E-35, E-36, E-38."""
        return {
            "INPUT": self.headed("filter-input", self._input()),
            "FORWARD": self._forward(),
            "OUTPUT": self._output(),
        }

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

    def _end(self, answers: ByFamily, hook: Hook, allow: Rules, before_deny: Rules = ()) -> Rules:
        """The end of a chain that is never left unmarked."""
        answer = answers.of(self.family)
        if answer == "queue":
            return (self.queue(hook),)
        if answer == "deny":
            return (*before_deny, Rule("", self.deny()).counted(answers.counter(self.family)))
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
        if not dispatch:
            return workload
        return (*workload, Rule(self.has(self.marks.accept), self.accept()), *dispatch)

    def _discovery(self, otherwise: str) -> str:
        kinds = [
            Rule(f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind}", self.accept())
            for kind in _NEIGHBOUR_DISCOVERY
        ]
        return self.chain("discovery", (*kinds, Rule("", f"-g {otherwise}")))

    def _host_in(self, host: HostChains, _: str | None) -> str:
        failsafes = self.failsafes(self.settings.failsafe_inbound, "--dports", "-s", self.accept())
        return self._host("host-in", host.input, failsafes, "filter-input")

    def _host(self, name: str, answers: ByFamily, failsafes: Iterator[Rule], hook: Hook) -> str:
        allow = Rule("", self.accept()).counted(answers.counter(self.family))
        rules = (
            Rule(ESTABLISHED, self.accept()),
            *self.invalid(self.deny),
            *failsafes,
            *self._end(answers, hook, (allow,)),
        )
        return self.chain_of(name, answers, answers.of(self.family), rules)

    def _output(self) -> Rules:
        """E-36."""
        dispatch = self.host_dispatch("host-out", "-o", self._host_out)
        if not dispatch:
            return self.headed("filter-output", ())
        accepted, others = self._exempt()
        return (
            *accepted,
            self.head("filter-output"),
            *others,
            Rule(self.has(self.marks.accept), self.accept()),
            *self.to_workload("-j RETURN"),
            # E-37: only mangle POSTROUTING sees the right out-interface.
            Rule("-m conntrack --ctstate DNAT", self._dnatted()),
            *dispatch,
        )

    def _exempt(self) -> tuple[Rules, Rules]:
        """What untracked policy has accepted of this host's packets; behind the head, what it has not.

        Also where bit A says so: raw may come to keep marks, or no longer, ahead of this table.
        """
        if not self.exempts_on_output:
            return (), ()
        exempt = self.marks.exempt
        # A packet that comes back to be rejected has D as well.
        accepted = f"-m mark --mark {exempt:#x}/{exempt | self.marks.decided:#x} {UNTRACKED}"
        return (Rule(accepted, self.accept()),), (Rule(self.has(exempt), self.clear(exempt)),)

    def _dnatted(self) -> str:
        """E-37: what is judged in mangle POSTROUTING, where it has to be known from what is forwarded."""
        if not self.knows_local_dnat:
            return "-j RETURN"
        local = Rule("", self.set(self.marks.reject))
        return f"-g {self.chain('dnatted-out', (Rule(ESTABLISHED, '-j RETURN'), local))}"

    def _host_out(self, host: HostChains, _: str | None) -> str:
        failsafes = self.failsafes(self.settings.failsafe_outbound, "--dports", "-d", self.accept())
        return self._host("host-out", host.output, failsafes, "filter-output")

    def _workload_dispatch(
        self,
        name: str,
        side: Literal["-i", "-o"],
        goal: Callable[[WorkloadChains], str],
        before_deny: Rules = (),
    ) -> str:
        """Workload interfaces that nobody has are denied (E-38.3), also when ESTABLISHED."""
        leaves = {workload.interface: (Rule("", f"-g {goal(workload)}"),) for workload in self.workloads}
        return self.dispatch(Dispatch(PREFIX + name, side, leaves, (*before_deny, Rule("", self.deny()))))

    def _workload_to_host(self, workload: WorkloadChains) -> str:
        """E-50."""
        answers = workload.egress
        to_host = self.reason(TO_HOST)
        allow = Rule("", self._endpoint_to_host()).counted(answers.counter(self.family), to_host)
        rules = (
            Rule(ESTABLISHED, self.accept()),
            *self.invalid(self.deny),
            *self._from_workload_end(answers, "filter-input", (allow,)),
        )
        return self.chain_of("wl-host", answers, answers.of(self.family), rules)

    def _endpoint_to_host(self) -> str:
        action = self.settings.endpoint_to_host
        if action == "Drop":
            return self.deny()
        return self.accept() if action == "Accept" else "-j RETURN"

    def _from_workload_end(self, answers: ByFamily, hook: Hook, allow: Rules) -> Rules:
        """Where all is denied it matters only to counters why."""
        encapsulation = self._encapsulation()
        is_counted = bool(answers.counter(self.family))
        return self._end(answers, hook, (*encapsulation, *allow), encapsulation if is_counted else ())

    def _encapsulation(self) -> Rules:
        """E-20.5, where the queue does not see to it."""
        port = self.settings.workload_vxlan_port
        vxlan = [] if port is None else [Rule(f"-p udp -m udp --dport {port}", self.deny())]
        ipip = [Rule("-p 4", self.deny())] if self.settings.workload_ipip_denied else []
        return tuple(rule.counted(self.reason(ENCAPSULATED)) for rule in (*vxlan, *ipip))

    def _forward(self) -> Rules:
        """E-38.

        A packet is queued by the first stage that needs it; the engine then judges FORWARD from the
        first stage on. The static stages before have the same answer there. One of them may have set
        bit A since the packet arrived, so that the engine leaves out from-HEP; but then that stage was
        static, too, or left out here.
        """
        met = self._met_from_workloads()
        unmarked = self.has_none(self.marks.accept | self.marks.decided)
        from_hep = self.host_dispatch("from-hep", "-i", self._from_hep, unmarked, comes_back=True)
        stages: list[Rules] = []
        if self.prefixes:
            from_workload = self._workload_dispatch("from-wl", "-i", self._from_workload)
            to_workload = self._workload_dispatch(
                "to-wl", "-o", lambda workload: self._to_workload(workload, met), met
            )
            stages += [(rule,) for rule in self.from_workload(f"-j {from_workload}")]
            stages += [(rule,) for rule in self.to_workload(f"-j {to_workload}")]
        stages.append(
            self.host_dispatch("to-hep", "-o", lambda host, _: self._to_hep(host, met), comes_back=True)
        )
        decided = (self.return_decided(),) if self.settings.filter_allow == "Return" else ()
        later = (rule for stage in stages if stage for rule in (*stage, *decided))
        return (*self._entry(from_hep, decided), *later, *met)

    def _entry(self, from_hep: Rules, decided: Rules) -> Rules:
        """The first stage and the head; behind it, since packets that come back have D, which it skips."""
        head = self.head("filter-forward")
        if self.may_repeat("filter-forward"):
            return (*from_hep, head)
        return (head, *from_hep, *decided) if from_hep else (head,)

    def _met_from_workloads(self) -> Rules:
        """Counts the packets that rules from workloads have let go on, once it is known that no later stage
        queues them: the engine counts what is queued, in every stage."""
        leaves = {
            workload.interface: (Rule("", "-j RETURN").counted(counter),)
            for workload in self.workloads
            if workload.egress.of(self.family) == "allow"
            and (counter := workload.egress.counter(self.family))
        }
        if not leaves:
            return ()
        return self.from_workload(f"-j {self.dispatch(Dispatch(f'{PREFIX}met', '-i', leaves, ()))}")

    def _from_hep(self, host: HostChains, _: str | None) -> str:
        answers = host.forward.ingress
        if answers.of(self.family) != "deny" and not self._asks(answers):
            # Whether a later stage queues the packet, which is then counted there, is not known here; nor is
            # behind that whether it came this way.
            self.not_counted(answers)
        return self._hep_stage("from-hep", answers, self._marked(), ())

    def _to_hep(self, host: HostChains, met: Rules) -> str:
        answers = host.forward.egress
        counter = answers.counter(self.family)
        clear = Rule("", self.clear(self.marks.accept)).counted(counter)
        (marked,) = self._marked()
        return self._hep_stage("to-hep", answers, (marked.counted(counter),), (clear,), met)

    def _hep_stage(
        self, name: str, answers: ByFamily, allow: Rules, unmarked: Rules, before_deny: Rules = ()
    ) -> str:
        answer = answers.of(self.family)
        if answer == "unmarked" and self.settings.forward_unmarked != "return":
            answer = "queue"  # The engine knows whether this is the last stage (E-27).
            end: Rules = (self.queue("filter-forward"),)
        elif answer == "unmarked":
            end = unmarked
        else:
            end = self._end(answers, "filter-forward", allow, before_deny)
        return self.chain_of(name, answers, answer, (*self._forward_settled(), *end))

    def _from_workload(self, workload: WorkloadChains) -> str:
        answers = workload.egress
        end = self._from_workload_end(answers, "filter-forward", self._marked())
        return self.chain_of("from-wl", answers, answers.of(self.family), (*self._forward_settled(), *end))

    def _to_workload(self, workload: WorkloadChains, met: Rules) -> str:
        answers = workload.ingress
        (marked,) = self._marked()
        if self.any is not None and self._asks(self.any.forward.egress):
            self.not_counted(answers)  # The last stage may queue the packet, and it is counted there.
        else:
            marked = marked.counted(answers.counter(self.family))
        end = self._end(answers, "filter-forward", (marked,), met)
        return self.chain_of("to-wl", answers, answers.of(self.family), (*self._forward_settled(), *end))

    def _asks(self, answers: ByFamily) -> bool:
        """Whether a stage of a host endpoint in FORWARD queues packets."""
        answer = answers.of(self.family)
        return answer == "queue" or (answer == "unmarked" and self.settings.forward_unmarked != "return")

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
