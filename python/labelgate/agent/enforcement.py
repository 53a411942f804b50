"""One generation in force in the kernel: the packet loop that answers, and the rules that lead to it."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from labelgate import _core
from labelgate.agent.events import EventLog
from labelgate.agent.generation import AgentError, Generation
from labelgate.agent.interfaces import OutOfReach
from labelgate.agent.kernel_counts import KernelCounts
from labelgate.agent.others import RulesOfOthers
from labelgate.agent.panics import faults_refused, panics_refused
from labelgate.agent.process import StopMode
from labelgate.agent.pulse import HUNG_SECONDS, Pulse
from labelgate.agent.queues import Passed, Queues, QueueState, answered_queues, free_block, read_queues
from labelgate.agent.rate_limit import RateLimited
from labelgate.agent.rules import RuleCounts
from labelgate.agent.shadow import Shadow
from labelgate.config import Config
from labelgate.flow import HOOKS, Hook
from labelgate.handlers import BindLoop, PacketLoop
from labelgate.links import Links
from labelgate.netfilter.apply import ApplyError, Netfilter, Tables, clean
from labelgate.netfilter.conntrack import tcp_loose
from labelgate.netfilter.facts import FAMILIES, Marks, RulesetFacts
from labelgate.netfilter.readback import Hazard, hazards
from labelgate.netfilter.routing import mark_readers, read_routing_rules
from labelgate.netfilter.rules import Ruleset
from labelgate.netfilter.ruleset import ruleset
from labelgate.netfilter.transition import between
from labelgate.netfilter.watch import RuleWatch
from labelgate.processors import QUEUES_EACH, Workers, pin

NEVER_PASSED = frozenset(_core.never_passed())
"""Kinds of packets that `malformed: accept` does not accept: a sender chooses how long its headers are."""
DRAIN_SECONDS = 5.0
"""How long a planned stop waits at most for packets that are queued already: nothing new comes any more."""
FOLLOW_SECONDS = 0.5
"""How long workers are waited for, to take up a table, before somebody looks whether they can."""
LATE_FOLLOW_SECONDS = 2.0
"""After this it is told."""
RULES_SECONDS = 60.0
"""Rules that nobody has looked at for longer are not known to be there; usually it is five seconds."""
LAST_LOOKS = 20
"""At most, at counters that no rule is to use any more: nft lets go of rules some time after they are gone,
and the look behind the one that finds it takes what they have counted last."""
LATE_SECONDS = 0.02
"""Longer than any packet takes through rules."""
_NOT_REPEATED = "warning: answered without repeating packets: {}"


class Enforcement:
    """Swaps the table first, then the rules; swaps back if the rules cannot be applied.

    At the start the queues are bound and a table is in place before the first rule exists.
    """

    def __init__(
        self,
        first: Generation,
        say: Callable[[str], None],
        wait: Callable[[float], None],
        *,
        bind: BindLoop | None = None,
        beside_another: bool = False,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        """`wait` waits so many seconds; `step` is called behind each step of what may take long."""
        self.current = first
        """The generation in force."""
        self._say = say
        self._wait, self._step = wait, step
        self._make: BindLoop = bind or _core.Enforcer
        self._enforcer: PacketLoop
        self.pulse: Pulse
        """Of the workers."""
        self._warn = RateLimited(say, "changes of our rules")
        self.others = RulesOfOthers(say)
        self.out_of_reach = OutOfReach(say)
        self._restored = 0
        self._passed = Passed()
        self._kernel_queues = Queues()
        self._rules_missing: str | None = "not yet applied"
        self._rules_seen = time.monotonic()
        self._netfilter = Netfilter(first.config.backend, say, step)
        # Before the first look at the rules: nothing that changes behind it is missed.
        try:
            self.rules = RuleWatch(self._netfilter.tools.variant)
        except OSError as error:
            raise AgentError(f"rules cannot be watched: {error} (is this root?)") from None
        led_to = self._netfilter.queues_led_to()
        if not beside_another:
            self._refuse_beside_another(led_to)
        # What an earlier daemon left closed stays closed if this start fails.
        self._must_stay_closed = self._netfilter.is_installed()
        self._without_repeat = self._hooks_without_repeat(first)
        self._shadow: Shadow | None = None
        self._workers = self._planned(first.config, has_one_thread=bind is not None)
        self._base = self._free_base(led_to, first.config.queue_base, beside_another=beside_another)
        self._kernel_counts = KernelCounts(say, is_wanted=first.config.kernel_counters)
        self.rule_counts: RuleCounts
        """How often rules were met."""
        self.events: EventLog | None = None
        """What was denied or logged, where it is told."""
        self._is_in_force = False
        self._applied: RulesetFacts
        """What the rules in the kernel were made from: the same need not be written, nor read, again."""
        self._rules: Ruleset
        """These rules: to make them takes longer than to put them back, where endpoints are many."""

    @property
    def variant(self) -> str:
        """Which iptables writes the rules."""
        return self._netfilter.tools.variant

    def start(self, open_things: ExitStack, leave: Callable[[], None], go_on: Callable[[], None]) -> None:
        """Queues, then rules; `leave` is called at the end, while the packet loop still answers.

        `go_on` is called last before the first rule is written; what it raises, or the wait, leaves the
        rules as they were found.

        Raises:
            AgentError: queues are taken, or are not permitted.
            ApplyError, ValueError: the rules cannot be written.
        """
        first = self.current
        open_things.callback(self.rules.close)
        ruleset(self._facts(first))  # Before anything is touched: what cannot be written is said.
        self._enforcer = self._bind(first)
        open_things.callback(self._enforcer.stop)
        self.pulse = Pulse(self._enforcer.turns)
        self._warn_of_kernel()
        if first.config.shadow:
            self._shadow = Shadow(self._enforcer, first, self._say)
            open_things.callback(self._shadow.stop)
        self.rule_counts = RuleCounts(self._enforcer, first, self._kernel_counts)
        self._stage(1, first, first.links)
        if first.config.event_rate or first.config.recorded:
            self.events = EventLog(self._enforcer, first, self._say)
            open_things.callback(self.events.stop)
        self._place_workers(first.config)
        with ExitStack() as undo:
            undo.callback(self._undo_settling)
            self._settle(first)
            if not self._enforcer.is_alive():  # Rules would lead to queues that nobody answers.
                raise AgentError(f"the packet loop has ended: {self._enforcer.failure()}")
            facts = self._facts(first)
            rules = ruleset(facts)
            go_on()
            undo.pop_all()
        open_things.callback(leave)
        self._apply(first, facts, rules)
        self._is_in_force = self._must_stay_closed = True
        self._rules_missing, self._rules_seen = None, time.monotonic()
        self.out_of_reach.look(first)

    @faults_refused()
    def follow_indexes(self, links: Links) -> None:
        """Has packets judged by the names that interfaces have now, before anything else is made anew.

        A new interface that got the index of one that has gone would else be judged as that one.
        """
        self._swap(self.current, links)

    @faults_refused(ApplyError)
    def put_in_force(self, generation: Generation) -> None:
        """Puts another generation in the place of the current one.

        Raises:
            ApplyError, ValueError: the rules cannot be applied; the current generation is in force as before.
        """
        before, applied = self.current, self._applied
        try:
            facts = self._facts(generation)
            # Before anything is touched: what cannot be written is said.
            rules = None if facts == self._applied else ruleset(facts)
            is_reload = generation.number != before.number
            if is_reload and not before.table.governs_something:
                self._settle(generation)
            if rules is not None:
                self._bridge(generation, facts, rules)
            if not self._swap(generation, generation.links):
                raise ValueError(f"the packet loop does not take up a new table: {self.failure()}")
            if self._applied is not applied and facts != (now := self._facts(generation)):
                facts, rules = now, ruleset(now)  # Other hooks have chains, or nothing is counted any more.
            if rules is not None and facts != self._applied:
                self._apply(generation, facts, rules)
        except BaseException:
            self._swap(before, generation.links)
            self._go_back(applied)
            raise
        self.current = generation
        self.out_of_reach.look(generation)

    def _bridge(self, generation: Generation, facts: RulesetFacts, rules: Ruleset) -> None:
        """Brings rules into the kernel that hold with both tables, where there are rules already."""
        if self._applied.is_empty:
            return
        both = between(self._applied, facts)
        if both == facts:
            self._apply(generation, facts, rules)
        elif both != self._applied:
            self._write(both, ruleset(both))
            self._applied = replace(both, kept=self._netfilter.entered)

    def _go_back(self, applied: RulesetFacts) -> None:
        """From the rules between two policies to those of the one that stays."""
        if self._applied == applied:
            return
        try:
            applied = replace(applied, kept=self._netfilter.entered)
            self._write(applied, ruleset(applied))
            self._applied = applied
        except ApplyError as error:
            self._say(f"warning: {error}: more packets are queued than need be, until the next change")

    def _apply(
        self, generation: Generation, facts: RulesetFacts, rules: Ruleset, now: Tables | None = None
    ) -> None:
        """Brings rules into the kernel; ApplyError: all is as before.

        Without counters from when this kernel, or this iptables, turns out to know none: counting never
        stands in the way of a policy.
        """
        try:
            self._apply_counted(facts, rules, now)
        except ApplyError as error:
            if not facts.counters or self._netfilter.can_count(min(facts.counters)):
                raise
            self._kernel_counts.give_up(str(error))
            facts = self._facts(generation, is_open=facts.open)
            self._apply_counted(facts, ruleset(facts))

    def _apply_counted(self, facts: RulesetFacts, rules: Ruleset, now: Tables | None = None) -> None:
        self._make_counters(facts)
        self._write(facts, rules, now)
        self._kernel_counts.in_force(facts.counters, rules.uncounted)
        self._applied = replace(facts, kept=self._netfilter.entered)

    def _write(self, facts: RulesetFacts, rules: Ruleset, now: Tables | None = None) -> None:
        try:
            self._netfilter.apply(rules, now)
        except ApplyError:
            # A counter that was there may have been removed meanwhile: by the daemon that this one replaces,
            # whose rules have not counted with it for a while.
            if not self._make_counters(facts):
                raise
            self._netfilter.apply(rules)
        self._rules = rules

    def _make_counters(self, facts: RulesetFacts) -> bool:
        """False if all were there."""
        try:
            return self._kernel_counts.make(facts.counters)
        except OSError as error:
            raise ApplyError("all", "v4", f"counters cannot be made: {error}") from None

    @property
    def descriptors(self) -> list[int]:
        """Readable when the packet loop has ended."""
        return [self._enforcer.fileno()]

    def is_answering(self) -> bool:
        """Whether a table is in force and the packet loop runs."""
        return self._is_in_force and self._enforcer.is_alive()

    def failure(self) -> str | None:
        """Why the packet loop ended by itself, or answers no more; None: it does."""
        if not self._enforcer.is_alive():
            return self._enforcer.failure() or "it was stopped"
        if (worker := self.pulse.hung()) is not None:
            return f"worker {worker} has not come round for {HUNG_SECONDS:g} s"
        return None

    def counters(self) -> dict[str, Any]:
        """All counters of the packet loop, what the kernel dropped, how often rules were put back."""
        queues = self._kernel_queues.read()  # First: see `Passed`.
        counters: dict[str, Any] = json.loads(self._enforcer.counters())
        for hook in HOOKS:
            counters["hooks"][hook] |= self._kernel_counters(hook, queues, counters["hooks"][hook])
        counters["rulesRestored"] = self._restored
        if self._shadow:
            counters["shadow"] = self._shadow.counters()
        return counters

    def _kernel_counters(
        self, hook: Hook, queues: Mapping[int, QueueState], counted: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What is not counted by the packet loop itself."""
        numbers = [number for family in FAMILIES for number in self._applied.queues(hook, family)]
        states = [queues[number] for number in numbers if number in queues]
        config = self.current.config
        passed = {"malformed": 0, "socket_full": 0}
        if config.malformed == "accept":
            kinds = counted["malformed"].items()
            passed["malformed"] = sum(count for kind, count in kinds if kind not in NEVER_PASSED)
        if hook in config.fail_open:
            answered = counted["packets"] + (counted["unreadable_messages"] or 0)
            passed["socket_full"] = self._passed.of(hook, states, answered)
        return {
            "queue_dropped": sum(state.dropped for state in states),
            "socket_dropped": sum(state.undelivered for state in states),
            "fail_open": passed,
        }

    def queues(self) -> list[dict[str, Any]]:
        """What the kernel says of the queues, by hook and IP version."""
        found = self._kernel_queues.read()
        rows: list[dict[str, Any]] = []
        for hook, family in itertools.product(HOOKS, FAMILIES):
            numbers = self._applied.queues(hook, family)
            states = [found[number] for number in numbers if number in found]
            rows.append({
                "hook": hook,
                "family": family,
                "numbers": [numbers[0], numbers[-1]],
                "unbound": [number for number in numbers if number not in found],
                # Of the fullest one: a processor's packets have one queue, however empty the others are.
                "room": self.current.config.queue_maxlen,
                "waiting": max((state.waiting for state in states), default=0),
                "packets": sum(state.packets for state in states),
                "queueDropped": sum(state.dropped for state in states),
                "socketDropped": sum(state.undelivered for state in states),
            })  # fmt: skip
        return rows

    def threads(self) -> list[int]:
        """The kernel's numbers of the workers."""
        return self._enforcer.thread_ids()

    def rules_problem(self) -> str | None:
        """Why rules of ours may be missing; None: all were there at the last look, which is not long ago."""
        seconds = time.monotonic() - self._rules_seen
        if seconds > RULES_SECONDS:
            return f"not looked at for {seconds:.0f} s"
        return self._rules_missing

    def restore(self) -> bool:
        """Puts rules back that somebody else has changed, and follows what others put ahead of ours.

        True where there was something to put back: they are to be looked at once more.
        """
        findings: list[str] = []
        self.rule_counts.catch_up()
        self._kernel_queues.read()
        try:
            now = self._netfilter.read()
            findings = self._netfilter.check(now)
            if findings:
                more = len(findings) - 1
                self._rules_missing = findings[0] + (f" (and {more} more)" if more else "")
            for finding in findings:
                self._warn(f"warning: {finding}; our rules are put back")
            self._restored += bool(findings)
            self.others.look(self._netfilter, now, self.current.config)
            hooks = frozenset(hazard.hook for hazard in self._hazards(self.current.config, now))
            if hooks != self._without_repeat:
                self._follow_hazards(hooks, now)
            elif findings or self._applied.keeps_mark == self.others.are_on_output:
                facts = self._facts(self.current)
                rules = self._rules if facts == self._applied else ruleset(facts)
                self._apply(self.current, facts, rules, now)
            self._rules_missing, self._rules_seen = None, time.monotonic()
        except (ApplyError, ValueError, OSError) as error:
            self._rules_missing = self._rules_missing or str(error)
            self._warn(f"warning: rules cannot be checked or put back: {error}")
        self._warn.catch_up()
        self.others.warn.catch_up()
        return bool(findings)

    def leave(self, mode: StopMode, *, is_planned: bool) -> StopMode:
        """Stops in a mode; in `keep` after a fault of ours, which may let nothing pass. Gives the mode."""
        if self._must_stay_closed and not is_planned:
            mode = "keep"
        try:
            if mode == "remove":
                clean()
            elif mode == "open" and self._is_in_force:
                facts = self._facts(self.current, is_open=True)
                self._apply(self.current, facts, ruleset(facts))
        except (ApplyError, ValueError) as error:
            self._say(f"warning: stop: {error}")
        if mode != "keep":
            self.drain()
        if mode == "remove":
            self._kernel_counts.let_go()
            for _ in range(LAST_LOOKS):
                self.rule_counts.catch_up()
                if not self._kernel_counts.has_any:
                    break
                time.sleep(LATE_SECONDS)
        return mode

    def drain(self) -> None:
        """Answers what is queued, now that no rule leads here any more.

        Twice: packets that were on their way through the rules of before come a moment later.
        """
        for _ in range(2):
            if not self._enforcer.drain(DRAIN_SECONDS):
                self._say("warning: not all packets that were queued could be answered")
            time.sleep(LATE_SECONDS)

    def _warn_of_kernel(self) -> None:
        """Says what the queues did not get of what they asked for; it works without."""
        hooks = json.loads(self._enforcer.counters())["hooks"].values()
        wanted, granted = (
            sum(hook[f"receive_buffer_{what}"] for hook in hooks) for what in ("wanted", "granted")
        )
        if granted < wanted:
            self._say(
                f"warning: receive buffers: {granted} of {wanted} bytes were granted (net.core.rmem_max); "
                "bursts are lost before queues are full"
            )
        if any(hook["segmented_queues"] for hook in hooks):
            self._say("warning: the kernel queues segments of large packets: bulk traffic is slow")

    def _planned(self, config: Config, *, has_one_thread: bool) -> Workers:
        """Another loop than the core's has one thread, and needs no more queues."""
        count, cpus = config.queue_workers, config.queue_cpus
        if has_one_thread and count not in (None, 1):
            self._say(f"warning: queues.workers: found {count}, but this handler has one thread: 1 is taken")
        count = 1 if has_one_thread else count
        return Workers.planned(count, config.queue_fanout, cpus, base=config.queue_base)

    def _place_workers(self, config: Config) -> None:
        """AgentError where they cannot run where they were asked to."""
        failures = "; ".join(pin(self._enforcer.thread_ids(), self._workers.places))
        if failures and config.queue_cpus:
            raise AgentError(f"queues.cpus: {failures}")
        if failures:
            self._say(f"warning: {failures}: it runs anywhere, and packets wait longer")

    def _settle(self, generation: Generation) -> None:
        """Before the first rules: sessions that are open become known to conntrack, or they would be NEW."""
        if generation.table.governs_something and self._netfilter.prepare_conntrack():
            seconds = generation.config.settle
            self._say(f"conntrack was off: waiting {seconds:g} s, so that open sessions become known")
            if not tcp_loose():
                self._say(
                    "warning: nf_conntrack_tcp_loose is 0: open TCP sessions stay unknown (INVALID), and "
                    "are denied where an endpoint governs"
                )
            self._wait(seconds)

    def _undo_settling(self) -> None:
        try:
            self._netfilter.undo_conntrack()
        except ApplyError as error:
            self._say(f"warning: the rule that switched conntrack on stays: {error}")

    def _free_base(self, led_to: frozenset[int], wanted: int, *, beside_another: bool) -> int:
        """The first of our queues: none of those that rules of ours lead to already.

        Such rules may mean other hooks by the same numbers, know other bits of the mark, or be of another
        policy: what they lead in, answered by this loop, may pass although either policy denies it.
        """
        taken = set(led_to)
        if taken or beside_another:
            taken |= read_queues().keys()
        size = QUEUES_EACH * self._workers.count
        base = free_block(taken, wanted, size)
        if base != wanted:
            self._say(f"queues {base}..{base + size - 1}: rules that are there lead to those of {wanted}")
        return base

    def _refuse_beside_another(self, led_to: frozenset[int]) -> None:
        """AgentError where rules of ours lead to queues that somebody answers: a daemon with another /run."""
        if answered := answered_queues(led_to):
            raise AgentError(
                f"another process answers queues {answered[0]}..{answered[-1]}, which rules of ours lead to: "
                "a labelgate whose lock is not seen from here (a container with another /run/labelgate?), "
                "or, if one was killed, who has taken its numbers since: stop it first, or share that folder"
            )

    def _hooks_without_repeat(self, generation: Generation) -> frozenset[Hook]:
        """Hooks where rules of others ahead of ours would erase or repeat our mark."""
        config, now = generation.config, self._netfilter.read()
        self.others.look(self._netfilter, now, config)
        found = self._hazards(config, now)
        for reader in mark_readers(read_routing_rules(), Marks.from_mask(config.mark_mask)):
            self._say(
                f"warning: {reader} reads our mark bits: packets of this host that untracked policy was "
                "asked about may be routed by it"
            )
        told = {writer.split(" ", 2)[2] for writer in self.others.mark_writers}  # Behind variant and family.
        for hazard in sorted({str(hazard) for hazard in found if hazard.as_writer not in told}):
            self._say(f"warning: {hazard}")
        hooks = frozenset(hazard.hook for hazard in found)
        if hooks:
            self._say(_NOT_REPEATED.format(", ".join(sorted(hooks))))
        untracked = sorted(hook for hook in hooks if hook.startswith("raw-"))
        if untracked and generation.table.has_untracked_policy:
            raise AgentError(f"untracked policy cannot be enforced at {', '.join(untracked)}: see above")
        return hooks

    def _hazards(self, config: Config, now: Tables) -> list[Hazard]:
        marks, mode = Marks.from_mask(config.mark_mask), config.settings.chain_insert_mode
        return [hazard for tables in now.values() for hazard in hazards(tables, marks, mode)]

    def _bind(self, generation: Generation) -> PacketLoop:
        config, marks = generation.config, Marks.from_mask(generation.config.mark_mask)
        try:
            return self._make(
                generation.table.core,
                generation.links.indexes,
                base=self._base,
                workers=self._workers.count,
                maxlen=config.queue_maxlen,
                marks=(marks.accept, marks.decided, marks.reject),
                fail_open=[hook in config.fail_open for hook in HOOKS],
                malformed_accept=config.malformed == "accept",
                filter_reject=config.settings.filter_deny == "Reject",
                filter_return=config.settings.filter_allow == "Return",
                without_repeat=[hook in self._without_repeat for hook in HOOKS],
                sample_every=config.shadow,
                event_rate=config.event_rate,
                event_policy_rate=config.event_policy_rate,
                recorded=config.recorded,
            )
        except OSError as error:
            last = self._base + QUEUES_EACH * self._workers.count - 1
            raise AgentError(f"queues {self._base}..{last}: {error}") from None

    @panics_refused()
    def _facts(self, generation: Generation, *, is_open: bool = False) -> RulesetFacts:
        config, named = generation.config, self._kernel_counts.named(generation)
        return RulesetFacts.read(
            generation.table.rule_facts(),
            named.chains,
            reasons=named.reasons,
            settings=config.settings,
            marks=Marks.from_mask(config.mark_mask),
            queue_base=self._base,
            workers=self._workers.count,
            by_cpu=self._workers.by_cpu,
            fail_open=config.fail_open,
            without_repeat=self._without_repeat,
            kept=self._netfilter.entered,
            keeps_mark=not self.others.are_on_output,
            open=is_open,
        )

    def _swap(self, generation: Generation, links: Links) -> bool:
        """False where the packet loop has ended, or hangs: some packets may still meet the table before."""
        settings = generation.config.settings
        self._enforcer.set_filter_actions(
            reject=settings.filter_deny == "Reject", returns=settings.filter_allow == "Return"
        )
        number = self._enforcer.swap(generation.table.core, links.indexes)
        self._stage(number, generation, links)
        self.rule_counts.swapped(number, generation)
        if self.events:
            self.events.swapped(number, generation.number, links)
        if self._shadow:
            self._shadow.swapped(number, generation, links.indexes)
        return self._is_followed(number)

    def _is_followed(self, number: int) -> bool:
        """Waits for late workers: what they answer meanwhile must not meet rules of another policy."""
        begun, is_told = time.monotonic(), False
        while not self._enforcer.is_followed(number, FOLLOW_SECONDS):
            if self.failure() is not None:
                return False
            self._step()
            if not is_told and time.monotonic() - begun > LATE_FOLLOW_SECONDS:
                self._say(
                    "warning: workers are late: the rules of before stay until all answer by the new table"
                )
                is_told = True
        return True

    def staged_denials(self) -> int | None:
        """Packets that staged policies would deny; None where nobody asks."""
        return self._enforcer.staged_denials() if self.current.config.event_rate else None

    def _stage(self, number: int, generation: Generation, links: Links) -> None:
        """Behind the swap: packets that are answered in between are not told of."""
        staged = generation.staged
        self._enforcer.stage(number, None if staged is None else staged.on_host(links.host_facts).core)

    def _follow_hazards(self, hooks: frozenset[Hook], now: Tables) -> None:
        """Bit D may be repeated only while rules test it: the loop stops first and begins again last."""
        self.others.warn(_NOT_REPEATED.format(", ".join(sorted(hooks)) or "no hook"))
        before = self._without_repeat
        both = hooks | before
        self._enforcer.set_without_repeat([hook in both for hook in HOOKS])
        self._without_repeat = hooks
        try:
            facts = self._facts(self.current)
            self._apply(self.current, facts, ruleset(facts), now)
        except BaseException:
            self._without_repeat = before  # The next check tries again.
            raise
        self._enforcer.set_without_repeat([hook in hooks for hook in HOOKS])
