"""The daemon: load, compile, swap, rules, watch; in this order at every change, and back again if one fails.

A change validates, compiles and builds the table before anything is touched. Then the table is swapped in,
then the rules follow; if they cannot be applied, the old table is swapped back. At start the queues are bound
and a table is in place before the first rule exists.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from labelgate import _core
from labelgate.config import Config, ConfigError, load_config
from labelgate.engines import summary
from labelgate.flow import HOOKS, Hook
from labelgate.handlers import BindLoop, PacketLoop
from labelgate.links import Links, LinkWatch
from labelgate.netfilter.apply import ApplyError, Netfilter, clean
from labelgate.netfilter.facts import Marks, RulesetFacts
from labelgate.netfilter.readback import Hazard, hazards
from labelgate.netfilter.routing import accept_readers, read_routing_rules
from labelgate.netfilter.ruleset import ruleset
from labelgate.resources import LoadError
from labelgate.snapshot import Snapshot
from labelgate.sources.files import STDIN, Progress, load_documents
from labelgate.table import DecisionTable

CHECK_SECONDS = 5.0
"""How often the rules in the kernel are compared with what was applied."""
ALIVE_SECONDS = 1.0
"""How often the packet loop is looked at."""
DRAIN_SECONDS = 0.3
"""How long a planned stop waits for packets that are queued already."""

StopMode = Literal["remove", "keep", "open"]

FIXED_KEYS = (
    "node",
    "policies",
    "backend",
    "marks.mask",
    "queues.base",
    "queues.maxlen",
    "queues.workers",
    *(f"fail.{hook}" for hook in HOOKS),
    "malformed",
)
"""Who this is, what the queues are bound with, where rules and policies are: a reload cannot change these."""


class AgentError(Exception):
    """The daemon cannot start or go on: the environment, not the policy, is in the way."""


@dataclass(frozen=True)
class Options:
    """What `labelgate run` was asked for."""

    paths: tuple[str, ...]
    node: str | None = None
    """None: as the configuration says."""
    config_file: str | None = None
    allow_empty: bool = False
    flags: Mapping[str, Any] = field(default_factory=dict)
    bind: BindLoop | None = None
    """Who answers the queues; None: the core's own loop."""


@dataclass(frozen=True)
class Generation:
    """One policy in force."""

    number: int
    snapshot: Snapshot
    config: Config
    table: DecisionTable
    links: Links


class Agent:
    """Enforces policy in the network namespace of the calling (main) thread."""

    def __init__(
        self,
        options: Options,
        say: Callable[[str], None],
        progress: Progress = lambda done, whole: None,
    ) -> None:
        self._options = options
        self._say = say
        self._progress = progress
        self._current: Generation
        self._enforcer: PacketLoop
        self._netfilter: Netfilter
        self._links: LinkWatch
        self._signals: Signals
        self._without_repeat: frozenset[Hook] = frozenset()
        self._must_stay_closed = False
        self._is_in_force = False
        self._is_told_to_stop = False

    def run(self) -> None:
        """Enforces until SIGTERM or SIGINT; then stops in the configured mode.

        Raises:
            LoadError: the policies are not valid; nothing was touched.
            ConfigError: the configuration is not valid; nothing was touched.
            AgentError: queues or rules are in the way.
        """
        with ExitStack() as open_things:
            open_things.enter_context(_alone())
            self._signals = open_things.enter_context(Signals())
            self._links = open_things.enter_context(LinkWatch())
            self._start(open_things)
            self._serve()

    def _start(self, open_things: ExitStack) -> None:
        try:
            first = self._current = self._load(1)
            self._require_endpoints(first)
            self._netfilter = Netfilter(first.config.backend)
            # What an earlier daemon left closed stays closed if this start fails.
            self._must_stay_closed = self._netfilter.is_installed()
            self._without_repeat = self._hooks_without_repeat(first)
            rules = ruleset(self._facts(first))
            self._enforcer = self._bind(first)
            open_things.callback(self._enforcer.stop)
            open_things.callback(self._leave)
            self._settle(first)
            self._netfilter.apply(rules)
        except (ApplyError, ValueError) as error:
            raise AgentError(str(error)) from None
        self._is_in_force = self._must_stay_closed = True
        self._announce()

    def _settle(self, generation: Generation) -> None:
        """Before the first rules: sessions that are open become known to conntrack, or they would be NEW."""
        if generation.table.governs_something and self._netfilter.prepare_conntrack():
            seconds = generation.config.settle
            self._say(f"conntrack was off: waiting {seconds:g} s, so that open sessions become known")
            self._signals.wait(seconds)

    def _load(self, number: int) -> Generation:
        """A generation that is ready to be put in force; touches nothing."""
        snapshot = Snapshot.of(load_documents(self._options.paths, self._progress))
        config = load_config(
            self._options.config_file,
            snapshot.felix_configurations,
            self._options.node,
            flags=self._options.flags,
        )
        links = self._links.links
        table = snapshot.compile(node=config.node, host=links.host_facts, settings=config.settings)
        for warning in (*snapshot.warnings, *table.warnings):
            self._say(f"warning: {warning}")
        return Generation(number, snapshot, config, table, links)

    def _require_endpoints(self, generation: Generation) -> None:
        nodes, node = generation.snapshot.nodes(), generation.config.node
        if node not in nodes and not self._options.allow_empty:
            found = ", ".join(nodes) or "none"
            raise AgentError(
                f"no endpoint names node `{node}` (nodes found: {found}); set --node, or --allow-empty"
            )

    def _hooks_without_repeat(self, generation: Generation) -> frozenset[Hook]:
        """Hooks where rules of others ahead of ours would erase or repeat our mark."""
        found = self._hazards(generation.config)
        for reader in accept_readers(read_routing_rules(), Marks.from_mask(generation.config.mark_mask)):
            self._say(f"warning: {reader} reads our accept mark: it routes untracked packets of this host")
        for hazard in sorted(set(map(str, found))):
            self._say(f"warning: {hazard}; that hook is answered without repeating packets")
        hooks = frozenset(hazard.hook for hazard in found)
        untracked = sorted(hook for hook in hooks if hook.startswith("raw-"))
        if untracked and generation.table.has_untracked_policy:
            raise AgentError(f"untracked policy cannot be enforced at {', '.join(untracked)}: see above")
        return hooks

    def _hazards(self, config: Config) -> list[Hazard]:
        marks, mode = Marks.from_mask(config.mark_mask), config.settings.chain_insert_mode
        tables = self._netfilter.read().values()
        return [hazard for family in tables for hazard in hazards(family, marks, mode)]

    def _bind(self, generation: Generation) -> PacketLoop:
        config, marks = generation.config, Marks.from_mask(generation.config.mark_mask)
        bind = self._options.bind or _core.Enforcer
        try:
            return bind(
                generation.table.core,
                generation.links.indexes,
                base=config.queue_base,
                maxlen=config.queue_maxlen,
                marks=(marks.accept, marks.decided, marks.reject),
                fail_open=[hook in config.fail_open for hook in HOOKS],
                malformed_accept=config.malformed == "accept",
                filter_reject=config.settings.filter_deny == "Reject",
                filter_return=config.settings.filter_allow == "Return",
                without_repeat=[hook in self._without_repeat for hook in HOOKS],
            )
        except OSError as error:
            last = config.queue_base + 2 * len(HOOKS) - 1
            raise AgentError(
                f"queues {config.queue_base}..{last} cannot be bound: {error} "
                "(another program on these numbers? is this root?)"
            ) from None

    def _facts(self, generation: Generation, *, is_open: bool = False) -> RulesetFacts:
        config = generation.config
        return RulesetFacts.read(
            generation.table.rule_facts(),
            settings=config.settings,
            marks=Marks.from_mask(config.mark_mask),
            queue_base=config.queue_base,
            fail_open=config.fail_open,
            without_repeat=self._without_repeat,
            open=is_open,
        )

    def _serve(self) -> None:
        checked = time.monotonic()
        while self._enforcer.is_alive():
            for number in self._signals.take([self._links.fileno()], ALIVE_SECONDS):
                if number in _STOPPING:
                    self._is_told_to_stop = True
                    return
                if number == signal.SIGHUP:
                    self._reload()
                elif number == signal.SIGUSR1:
                    self._say(self.counters())
            if (links := self._links.poll()) is not None:
                self._relink(links)
            if time.monotonic() - checked >= CHECK_SECONDS:
                if self._current.links != self._links.links:
                    self._relink(self._links.links)  # It could not be done when they changed.
                self._restore()
                checked = time.monotonic()
        failure = self._enforcer.failure()
        raise AgentError(f"the packet loop ended ({failure}); our rules stay, what they queue is dropped")

    def _reload(self) -> None:
        """Reads the files anew; anything wrong leaves the current generation in force."""
        before = self._current
        try:
            if STDIN in self._options.paths:
                raise AgentError("standard input cannot be read twice: use files to be able to reload")
            generation = self._load(before.number + 1)
            _refuse_changes(before.config, generation.config)
            self._require_endpoints(generation)
        except (LoadError, ConfigError, AgentError, ValueError) as error:
            self._say(f"{error}\ngeneration {before.number} stays in force: the new policies are not valid")
            return
        if self._put_in_force(generation):
            self._announce()

    def _relink(self, links: Links) -> None:
        """Interfaces or addresses changed: the same program on other interfaces."""
        current = self._current
        table = current.table.on_host(links.host_facts)
        if self._put_in_force(Generation(current.number, current.snapshot, current.config, table, links)):
            names = ", ".join(link.name for link in links.links)
            self._say(f"interfaces are now {names}")

    def _put_in_force(self, generation: Generation) -> bool:
        """Swaps the table, then the rules; swaps back if the rules cannot be applied."""
        before = self._current
        try:
            rules = ruleset(self._facts(generation))
            is_reload = generation.number != before.number
            if is_reload and not before.table.governs_something:
                self._settle(generation)
            self._swap(generation, generation.links)
            self._netfilter.apply(rules)
        except (ApplyError, ValueError) as error:
            self._swap(before, generation.links)
            self._say(f"{error}\ngeneration {before.number} stays in force: the rules could not be applied")
            return False
        self._current = generation
        return True

    def _swap(self, generation: Generation, links: Links) -> None:
        settings = generation.config.settings
        self._enforcer.set_filter_actions(
            reject=settings.filter_deny == "Reject", returns=settings.filter_allow == "Return"
        )
        self._enforcer.swap(generation.table.core, links.indexes)

    def _restore(self) -> None:
        """Puts rules back that somebody else has changed, and follows what others put ahead of ours."""
        try:
            findings = self._netfilter.check()
            for finding in findings:
                self._say(f"warning: {finding}; our rules are put back")
            hooks = frozenset(hazard.hook for hazard in self._hazards(self._current.config))
            if hooks != self._without_repeat:
                self._follow_hazards(hooks)
            elif findings:
                self._netfilter.apply(ruleset(self._facts(self._current)))
        except ApplyError as error:
            self._say(f"warning: rules cannot be checked or put back: {error}")

    def _follow_hazards(self, hooks: frozenset[Hook]) -> None:
        """Bit D may be repeated only while rules test it: the loop stops first and begins again last."""
        self._say(f"warning: answered without repeating packets: {', '.join(sorted(hooks)) or 'no hook'}")
        before = self._without_repeat
        both = hooks | before
        self._enforcer.set_without_repeat([hook in both for hook in HOOKS])
        self._without_repeat = hooks
        try:
            self._netfilter.apply(ruleset(self._facts(self._current)))
        except ApplyError:
            self._without_repeat = before  # The next check tries again.
            raise
        self._enforcer.set_without_repeat([hook in hooks for hook in HOOKS])

    def _leave(self) -> None:
        """The stop mode, while the packet loop still answers."""
        # Nothing may pass because of a fault of ours.
        is_fault = self._must_stay_closed and not self._is_told_to_stop
        mode = "keep" if is_fault else stop_mode(self._current.config)
        try:
            if mode == "remove":
                clean()
            elif mode == "open" and self._is_in_force:
                self._netfilter.apply(ruleset(self._facts(self._current, is_open=True)))
        except ApplyError as error:
            self._say(f"warning: stop: {error}")
        if mode != "keep":
            self._enforcer.drain(DRAIN_SECONDS)
        self._say(f"stopped: {_LEFT[mode]}")

    def counters(self) -> str:
        """All counters of the packet loop, as one JSON line."""
        return json.dumps(json.loads(self._enforcer.counters()), separators=(",", ":"))

    def _announce(self) -> None:
        current = self._current
        facts = current.table.rule_facts()
        self._say(
            f"generation {current.number} in force: node {current.config.node}, "
            f"{len(facts['hosts'])} host endpoints, {len(facts['workloads'])} workloads with interfaces, "
            f"{self._netfilter.tools.variant} rules\n{summary(current.table.describe())}"
        )


def _refuse_changes(before: Config, after: Config) -> None:
    """ConfigError where a reload would change what only a start can."""
    for key in FIXED_KEYS:
        was, given = before.sources[key].value, after.sources[key]
        if given.value != was:
            raise ConfigError(
                f"{given.source}: {key}: found `{given.value}`, expected `{was}` as at the start; "
                "only a restart changes it"
            )


_LEFT: Mapping[StopMode, str] = {
    "remove": "our rules are removed",
    "keep": "our rules stay, what they queue is dropped",
    "open": "our rules stay, what they would queue passes",
}


def stop_mode(config: Config, environ: Mapping[str, str] | None = None) -> StopMode:
    """The configured mode; by default `keep` as a service and `remove` otherwise."""
    environ = os.environ if environ is None else environ
    return config.stop or ("keep" if "INVOCATION_ID" in environ else "remove")


_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})


@contextmanager
def _alone() -> Iterator[None]:
    """One daemon per network namespace: two would overwrite each other's chains.

    Names of abstract sockets (unix(7)) belong to the network namespace and go with the process.
    """
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind("\0labelgate")
        except OSError:
            raise AgentError("labelgate is running already in this network namespace") from None
        yield


class Signals:
    """SIGTERM, SIGINT, SIGHUP and SIGUSR1 as something to wait for; main thread only."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._waiting: list[int] = []

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, lambda *_: None) for number in self.NUMBERS}
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def take(self, others: Sequence[int], seconds: float) -> Iterator[int]:
        """Waits for a signal or until one of the other descriptors is readable; yields the signals."""
        if not self._waiting:
            select.select([self._reader.fileno(), *others], [], [], seconds)
        self._read()
        while self._waiting:
            yield self._waiting.pop(0)

    def wait(self, seconds: float) -> None:
        """Waits this long; a signal is kept for `take`, and one that stops ends the wait."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not set(self._waiting) & _STOPPING:
            select.select([self._reader], [], [], left)
            self._read()

    def _read(self) -> None:
        with suppress(BlockingIOError):
            self._waiting += self._reader.recv(4096)
