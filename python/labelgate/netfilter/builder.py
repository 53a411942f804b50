"""What the chains of the three tables share: the way back from the queue, marks, dispatch, failsafes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import ClassVar, Literal

from labelgate.flow import Hook
from labelgate.netfilter.dispatch import LISTED, Dispatch
from labelgate.netfilter.facts import ByFamily, Family, HostChains, RulesetFacts, Service, StaticAnswer
from labelgate.netfilter.rules import INVALID, PREFIX, Jump, Rule, Rules, TableRules
from labelgate.settings import Failsafe

# Protocols whose ports the multiport match reads; a failsafe of another protocol can match nothing.
_WITH_PORTS = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}
_MULTIPORT_MAX = 15

FAILSAFE = "failsafe (E-40)"
RETURN_HALF = "failsafe, return half (E-43)"
INVALID_PACKET = "invalid (E-20.2)"
INVALID_IN_MANGLE = "invalid (E-34)"
TO_HOST = "endpoint to host action (E-50)"
ENCAPSULATED = "encapsulation from a workload (E-20.5)"
REASONS = (FAILSAFE, RETURN_HALF, INVALID_PACKET, INVALID_IN_MANGLE, TO_HOST, ENCAPSULATED)
"""Why the engine, too, would answer as kernel rules do without any chain: what these count for."""


class TableBuilder(ABC):
    """What the three tables share."""

    hooks: ClassVar[Mapping[str, Hook]]
    """Base chains of the table that we enter, with our word for each."""

    def __init__(self, facts: RulesetFacts, family: Family) -> None:
        self.facts, self.family, self.settings, self.marks = facts, family, facts.settings, facts.marks
        prefixes = facts.settings.workload_prefixes
        # A prefix that continues another one says nothing new.
        self.prefixes = tuple(
            sorted({p for p in prefixes if not any(p != q and p.startswith(q) for q in prefixes)})
        )
        self.workloads = [w for w in facts.workloads if w.interface.startswith(self.prefixes)]
        self.any = next((host for host in facts.hosts if host.any_interface), None)
        self.chains: dict[str, Rules] = {}
        self.uncounted: set[str] = set()
        """Counters of which not every packet is counted here."""
        self._numbers: defaultdict[str, dict[object, int]] = defaultdict(dict)

    def rules(self) -> TableRules:
        """The finished table."""
        bodies = {base: rules for base, rules in self.bodies().items() if rules}
        # If one match is all that a chain has, only packets of that are led there.
        matches = {base: rules[0].match if len(rules) == 1 else "" for base, rules in bodies.items()}
        jumps = tuple(Jump(base, PREFIX + base, match) for base, match in matches.items())
        chains = {PREFIX + base: rules for base, rules in bodies.items()} | self.chains
        is_last = self.settings.chain_insert_mode == "append"
        return TableRules(
            chains,
            first=() if is_last else jumps,
            last=jumps if is_last else (),
            uncounted=frozenset(self.uncounted),
        )

    @abstractmethod
    def bodies(self) -> dict[str, Rules]:
        """The rules of each base chain's chain; none: nothing leads there."""

    @abstractmethod
    def decided(self) -> Rules:
        """What a packet does that comes back with D."""

    def headed(self, hook: Hook, rules: Rules) -> Rules:
        """A hook's chain: what answers packets that come back, then these rules.

        None without rules, unless there has been a queue (`kept`) or rules of others can write D.
        """
        if not rules and hook not in self.facts.kept | self.facts.without_repeat:
            return ()
        return (self.head(hook), *rules)

    def may_repeat(self, hook: Hook) -> bool:
        """Whether packets come back with D."""
        return hook not in self.facts.without_repeat

    def head(self, hook: Hook) -> Rule:
        """What answers packets that come back from the queue."""
        if not self.may_repeat(hook):
            # The engine answers without D here; whoever wrote it, it must not pass for a verdict.
            return Rule("", self.clear(self.marks.decided | self.marks.reject))
        return self.return_decided()

    def return_decided(self) -> Rule:
        """The goto that ends our part for packets that carry D."""
        name = self.chain("decided", self.decided())
        return Rule(self.has(self.marks.decided), f"-g {name}")

    def chain(self, name: str, rules: Iterable[Rule]) -> str:
        """Adds a chain; its whole name."""
        self.chains[PREFIX + name] = tuple(rules)
        return PREFIX + name

    def chain_of(self, name: str, answers: ByFamily, answer: StaticAnswer, rules: Iterable[Rule]) -> str:
        """Adds a chain for all with this answer to the same packets, counted alike; its whole name.

        They are numbered as they come, by the names of endpoints. A table is written as a whole, whichever of
        its chains differ: names by content would spare that only where an endpoint takes another name.
        """
        numbers = self._numbers[f"{name}-{answer}"]
        same = answers.counter(self.family), answers.services_of(self.family)
        number = numbers.setdefault(same, len(numbers) + 1)
        return self.chain(f"{name}-{answer}" + (f"-{number}" if number > 1 else ""), rules)

    def asked(self, name: str, answers: ByFamily, rules: Rules) -> Rules:
        """Rules for packets that a chain asks the engine about; it has nothing to say to others (E-22)."""
        services = answers.services_of(self.family)
        if services is None:
            return rules
        return tuple(Rule(_match(service), f"-g {self.chain(name, rules)}") for service in services)

    def not_counted(self, answers: ByFamily) -> None:
        """Some packets that these answer are counted nowhere."""
        if counter := answers.counter(self.family):
            self.uncounted.add(counter)

    @property
    def exempts_on_output(self) -> bool:
        """Whether packets may leave raw OUTPUT with bit `exempt`."""
        return any(host.untracked for host in self.facts.hosts) or "raw-output" in self.facts.kept

    @property
    def knows_local_dnat(self) -> bool:
        """E-37: bit R tells mangle POSTROUTING which DNATed packets are new and of this host.

        Nothing else has it there. Only counters need it; the engine sees their in-interface.
        """
        counts = any(host.output.counter(self.family) for host in self.facts.hosts)
        return (counts or bool(self.facts.reasons)) and "mangle-postrouting" not in self.facts.without_repeat

    def reason(self, reason: str) -> str:
        """The counter of what is answered for this reason."""
        return self.facts.reasons.get(reason, "")

    def dispatch(self, dispatch: Dispatch) -> str:
        """Adds the chains of a dispatch; the name of the first."""
        self.chains.update(dispatch.chains())
        return dispatch.chain

    def drop(self) -> str:
        """A deny where the kernel knows no REJECT (M-55)."""
        return "-j DROP"

    def has(self, bits: int) -> str:
        """The match for packets that carry all these bits."""
        return f"-m mark --mark {bits:#x}/{bits:#x}"

    def has_any(self, bits: int) -> str:
        """The match for packets that carry one of these bits, or more."""
        return f"-m mark ! --mark 0x0/{bits:#x}"

    def has_none(self, bits: int) -> str:
        """The match for packets that carry none of these bits."""
        return f"-m mark --mark 0x0/{bits:#x}"

    def clear(self, bits: int) -> str:
        """The target that takes these bits away."""
        return f"-j MARK --set-xmark 0x0/{bits:#x}"

    def set(self, bits: int) -> str:
        """The target that gives these bits."""
        return f"-j MARK --set-xmark {bits:#x}/{bits:#x}"

    def only(self, bits: int) -> str:
        """The target that leaves these of our bits."""
        return f"-j MARK --set-xmark {bits:#x}/{self.marks.mask:#x}"

    def queue(self, hook: Hook) -> Rule:
        """To the engine."""
        if self.facts.open:
            return Rule("", "-j RETURN")
        numbers = self.facts.queues(hook, self.family)
        which = f"--queue-num {numbers[0]}"
        if len(numbers) > 1:
            which = f"--queue-balance {numbers[0]}:{numbers[-1]}"
        bypass = " --queue-bypass" if hook in self.facts.fail_open else ""
        fanout = " --queue-cpu-fanout" if self.facts.by_cpu and len(numbers) > 1 else ""
        return Rule("", f"-j NFQUEUE {which}{bypass}{fanout}")

    def from_workload(self, target: str, match: str = "") -> Rules:
        """For packets from workload interfaces."""
        return tuple(Rule(f"-i {prefix}+ {match}".rstrip(), target) for prefix in self.prefixes)

    def to_workload(self, target: str) -> Rules:
        """For packets to workload interfaces."""
        return tuple(Rule(f"-o {prefix}+", target) for prefix in self.prefixes)

    def invalid(self, deny: Callable[[], str], reason: str = INVALID_PACKET) -> Rules:
        """E-20.2, E-34."""
        return (Rule(INVALID, deny()).counted(self.reason(reason)),) if self.settings.invalid_check else ()

    def host_dispatch(
        self,
        name: str,
        side: Literal["-i", "-o"],
        goal: Callable[[HostChains, str | None], str | None],
        match: str = "",
        *,
        comes_back: bool = False,
    ) -> Rules:
        """Leads each interface into the chain that `goal` gives for its host endpoint (E-45..E-47).

        `goal` gets the host endpoint and the interface, None for all others. None as a chain: nothing to
        decide.
        Only packets of this `match` are led; `comes_back`: to the rule behind these.
        """
        option = "-j" if comes_back else "-g"
        default = None if self.any is None else goal(self.any, None)
        goals = {
            interface: goal(host, interface) for host in self.facts.hosts for interface in host.interfaces
        }
        if self.settings.exempt_loopback:
            goals.setdefault("lo", None)
        if default is None:
            goals = {interface: chain for interface, chain in goals.items() if chain is not None}
            if len(goals) <= LISTED:
                # No chain in between: every packet meets these rules, and most have nothing to do with them.
                return tuple(
                    Rule(f"{side} {interface} {match}".rstrip(), f"{option} {chain}")
                    for interface, chain in sorted(goals.items())
                )
        leaves = {
            interface: (Rule("", "-j RETURN" if chain is None else f"-g {chain}"),)
            for interface, chain in goals.items()
            if chain != default
        }
        ends = () if default is None else (Rule("", f"-g {default}"),)
        return (Rule(match, f"{option} {self.dispatch(Dispatch(PREFIX + name, side, leaves, ends))}"),)

    def failsafes(
        self,
        entries: Iterable[Failsafe],
        ports: str,
        remote: str,
        target: str,
        reason: str = FAILSAFE,
    ) -> Iterator[Rule]:
        """E-40..E-43: `ports` is `--dports` or `--sports`; `remote` is the option for the remote net."""
        version = 4 if self.family == "v4" else 6
        usable = [
            entry
            for entry in entries
            if entry.protocol in _WITH_PORTS and (entry.net is None or entry.net.version == version)
        ]

        def owner(entry: Failsafe) -> tuple[int, str]:
            return entry.protocol, "" if entry.net is None else f"{remote} {entry.net} "

        for (protocol, net), group in groupby(sorted(usable, key=owner), owner):
            numbers = sorted({entry.port for entry in group})
            for start in range(0, len(numbers), _MULTIPORT_MAX):
                listed = ",".join(map(str, numbers[start : start + _MULTIPORT_MAX]))
                match = f"{net}-p {_WITH_PORTS[protocol]} -m multiport {ports} {listed}"
                yield Rule(match, target).counted(self.reason(reason))


def _match(service: Service) -> str:
    protocol = _WITH_PORTS.get(service.protocol, service.protocol)
    if service.side is None:
        return f"-p {protocol}"
    ports = ",".join(f"{first}:{last}" if first < last else str(first) for first, last in service.ports)
    return f"-p {protocol} -m multiport --{service.side[0]}ports {ports}"
