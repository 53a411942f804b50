"""The daemon's life: start, follow what changes, stop.

A change validates, compiles and builds the table before anything is touched; what is wrong leaves the
generation in force as it is.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from labelgate.agent.enforcement import Enforcement
from labelgate.agent.generation import AgentError, Generation, Loader, Options
from labelgate.agent.process import STOPPING, Signals, StopMode, alone, stop_mode
from labelgate.config import ConfigError
from labelgate.engines import summary
from labelgate.links import Links, LinkWatch
from labelgate.netfilter.apply import ApplyError
from labelgate.resources import LoadError
from labelgate.sources.files import Progress

CHECK_SECONDS = 5.0
"""How often the rules in the kernel are compared with what was applied."""
ALIVE_SECONDS = 1.0
"""How often the packet loop is looked at."""


class Agent:
    """Enforces policy in the network namespace of the calling (main) thread."""

    def __init__(
        self,
        options: Options,
        say: Callable[[str], None],
        progress: Progress = lambda done, whole: None,
    ) -> None:
        self._say = say
        self._loader = Loader(options, say, progress)
        self._enforcement: Enforcement
        self._links: LinkWatch
        self._signals: Signals
        self._is_told_to_stop = False

    def run(self) -> None:
        """Enforces until SIGTERM or SIGINT; then stops in the configured mode.

        Raises:
            LoadError: the policies are not valid; nothing was touched.
            ConfigError: the configuration is not valid; nothing was touched.
            AgentError: queues or rules are in the way.
        """
        with ExitStack() as open_things:
            open_things.enter_context(alone())
            self._signals = open_things.enter_context(Signals())
            self._links = open_things.enter_context(LinkWatch())
            self._start(open_things)
            self._serve()

    def _start(self, open_things: ExitStack) -> None:
        try:
            first = self._loader.first(self._links.links)
            self._enforcement = Enforcement(first, self._say, self._signals.wait)
            self._enforcement.start(open_things, self._leave)
        except (ApplyError, ValueError) as error:
            raise AgentError(str(error)) from None
        self._announce()

    def _serve(self) -> None:
        checked = time.monotonic()
        while self._enforcement.is_alive():
            for number in self._signals.take([self._links.fileno()], ALIVE_SECONDS):
                if number in STOPPING:
                    self._is_told_to_stop = True
                    return
                if number == signal.SIGHUP:
                    self._reload()
                elif number == signal.SIGUSR1:
                    self._say(self._enforcement.counters())
            if (links := self._links.poll()) is not None:
                self._relink(links)
            if time.monotonic() - checked >= CHECK_SECONDS:
                if self._enforcement.current.links != self._links.links:
                    self._relink(self._links.links)  # It could not be done when they changed.
                self._enforcement.restore()
                checked = time.monotonic()
        failure = self._enforcement.failure()
        raise AgentError(f"the packet loop ended ({failure}); our rules stay, what they queue is dropped")

    def _reload(self) -> None:
        """Reads the files anew; anything wrong leaves the current generation in force."""
        before = self._enforcement.current
        try:
            generation = self._loader.next(before, self._links.links)
        except (LoadError, ConfigError, AgentError, ValueError) as error:
            self._say(f"{error}\ngeneration {before.number} stays in force: the new policies are not valid")
            return
        if self._put_in_force(generation):
            self._announce()

    def _relink(self, links: Links) -> None:
        """Interfaces or addresses changed: the same program on other interfaces."""
        current = self._enforcement.current
        table = current.table.on_host(links.host_facts)
        if self._put_in_force(Generation(current.number, current.snapshot, current.config, table, links)):
            names = ", ".join(link.name for link in links.links)
            self._say(f"interfaces are now {names}")

    def _put_in_force(self, generation: Generation) -> bool:
        before = self._enforcement.current
        try:
            self._enforcement.put_in_force(generation)
        except (ApplyError, ValueError) as error:
            self._say(f"{error}\ngeneration {before.number} stays in force: the rules could not be applied")
            return False
        return True

    def _leave(self) -> None:
        """The stop mode, while the packet loop still answers."""
        mode = stop_mode(self._enforcement.current.config)
        left = self._enforcement.leave(mode, is_planned=self._is_told_to_stop)
        self._say(f"stopped: {_LEFT[left]}")

    def _announce(self) -> None:
        current = self._enforcement.current
        facts = current.table.rule_facts()
        self._say(
            f"generation {current.number} in force: node {current.config.node}, "
            f"{len(facts['hosts'])} host endpoints, {len(facts['workloads'])} workloads with interfaces, "
            f"{self._enforcement.variant} rules\n{summary(current.table.describe())}"
        )


_LEFT: Mapping[StopMode, str] = {
    "remove": "our rules are removed",
    "keep": "our rules stay, what they queue is dropped",
    "open": "our rules stay, what they would queue passes",
}
