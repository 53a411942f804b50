"""The daemon's life: start, follow what changes, stop.

A change validates, compiles and builds the table before anything is touched; what is wrong leaves the
generation in force as it is.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from labelgate.agent.enforcement import Enforcement
from labelgate.agent.generation import AgentError, Generation, Loader, Options
from labelgate.agent.handover import Presence
from labelgate.agent.process import STOPPING, Signals, StopMode, stop_mode
from labelgate.agent.status import Refusal, now, status
from labelgate.config import ConfigError
from labelgate.control import ControlError, ControlServer
from labelgate.engines import summary
from labelgate.links import Links, LinkWatch
from labelgate.netfilter.apply import ApplyError
from labelgate.resources import LoadError
from labelgate.sources.files import STDIN, Progress
from labelgate.sources.watch import FileWatch


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
        self._loader = Loader(options, say, progress)
        self._enforcement: Enforcement
        self._links: LinkWatch
        self._signals: Signals
        self._control: ControlServer | None = None
        self._files: FileWatch | None = None
        self._refusal: Refusal | None = None
        """Why the last change is not in force."""
        self._is_to_try_again = False
        """The files are right, but their rules could not be applied."""
        self._in_force_since = ""
        self._is_told_to_stop = False
        self._presence: Presence
        self._is_replaced = False

    def run(self) -> None:
        """Enforces until SIGTERM or SIGINT; then stops in the configured mode.

        Raises:
            LoadError: the policies are not valid; nothing was touched.
            ConfigError: the configuration is not valid; nothing was touched.
            AgentError: queues or rules are in the way.
        """
        with ExitStack() as open_things:
            self._presence = open_things.enter_context(Presence(replace=self._options.replace))
            self._signals = open_things.enter_context(Signals())
            self._links = open_things.enter_context(LinkWatch())
            self._start(open_things)
            self._serve()

    def _start(self, open_things: ExitStack) -> None:
        try:
            first = self._loader.first(self._links.links)
            self._presence.announce()
            self._enforcement = Enforcement(
                first, self._say, self._signals.wait, beside_another=self._presence.replaces
            )
            self._enforcement.start(open_things, self._leave)
            self._presence.take_over()
        except (ApplyError, ValueError) as error:
            raise AgentError(str(error)) from None
        self._listen(open_things)
        self._watch_files(open_things)
        self._announce()

    def _listen(self, open_things: ExitStack) -> None:
        """Without a control socket the policy is enforced all the same."""
        path = self._enforcement.current.config.socket
        verbs = {"status": self._answer_status, "reload": self._answer_reload}
        try:
            self._control = open_things.enter_context(ControlServer(path, verbs, self._say))
        except OSError as error:
            self._say(f"warning: no control socket: {error}")

    def _watch_files(self, open_things: ExitStack) -> None:
        """Without a watch a reload follows the files."""
        if not self._enforcement.current.config.watch or STDIN in self._options.paths:
            return
        config_file = self._options.config_file
        try:
            files = [*self._options.paths, *([config_file] if config_file else [])]
            self._files = open_things.enter_context(FileWatch(files))
        except OSError as error:
            self._say(f"warning: files are not followed: {error.strerror}; use `labelgate reload`")

    def _serve(self) -> None:
        heard = [opened.fileno() for opened in (self._links, self._control, self._files) if opened]
        while self._enforcement.is_alive():
            others = [*self._presence.descriptors, *self._enforcement.descriptors]
            if not self._presence.is_pending:
                others += [*heard, *self._enforcement.rules.descriptors]
            for number in self._signals.take(others, self._seconds_to_wait()):
                if number in STOPPING:
                    self._is_told_to_stop = True
                    return
                if number == signal.SIGHUP:
                    self._reload()
                elif number == signal.SIGUSR1:
                    self._say(json.dumps(self._enforcement.counters(), separators=(",", ":")))
            if self._presence.is_replaced():
                self._is_replaced = True
                return
            if self._presence.is_pending:
                continue  # Until it is in force, or has failed.
            if self._control:
                self._control.serve()
            if self._files:
                self._follow(self._files)
            if (links := self._links.poll()) is not None:
                self._relink(links)
            if self._enforcement.rules.is_due():
                if self._enforcement.current.links != self._links.links:
                    self._relink(self._links.links)  # It could not be done when they changed.
                self._enforcement.restore()
                if self._is_to_try_again:
                    self._reload(if_changed=True)
                self._enforcement.rules.done()
        failure = self._enforcement.failure()
        raise AgentError(f"the packet loop ended ({failure}); our rules stay, what they queue is dropped")

    def _answer_status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments)
        return status(self._enforcement, self._options, self._refusal, self._in_force_since)

    def _answer_reload(self, arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments)
        self._reload()
        if self._refusal:
            raise ControlError("refused", self._refusal.message, self._refusal.to_json()["problems"])
        return {"generation": self._enforcement.current.number}

    def _seconds_to_wait(self) -> float:
        left = self._files.seconds_left() if self._files else None
        patience = self._enforcement.rules.patience
        return patience if left is None else min(left, patience)

    def _follow(self, files: FileWatch) -> None:
        """Puts in force what has been written to the files, once nobody writes any more."""
        files.poll()
        if files.is_due():
            self._reload(is_overtaken=files.poll, if_changed=True)

    def _reload(self, *, is_overtaken: Callable[[], bool] = lambda: False, if_changed: bool = False) -> None:
        """Reads the files anew; anything wrong leaves the current generation in force."""
        before, self._is_to_try_again = self._enforcement.current, False
        try:
            generation = self._loader.next(before, self._links.links, if_changed=if_changed)
        except (LoadError, ConfigError, AgentError, ValueError) as error:
            if not is_overtaken():
                self._refuse(error, "the new policies are not valid")
            return
        if is_overtaken():
            return  # What was read may be half of an edit.
        if generation is None:
            self._refusal = None
        elif self._put_in_force(generation):
            self._refusal = None
            self._announce()

    def _refuse(self, error: Exception, why: str) -> None:
        number = self._enforcement.current.number
        refusal = Refusal.of(error)
        if self._refusal is None or self._refusal.message != refusal.message:
            self._refusal = refusal
        self._say(f"{error}\ngeneration {number} stays in force: {why}")

    def _relink(self, links: Links) -> None:
        """Interfaces or addresses changed: the same program on other interfaces."""
        current = self._enforcement.current
        table = current.table.on_host(links.host_facts)
        if self._put_in_force(replace(current, table=table, links=links)):
            names = ", ".join(link.name for link in links.links)
            self._say(f"interfaces are now {names}")

    def _put_in_force(self, generation: Generation) -> bool:
        try:
            self._enforcement.put_in_force(generation)
        except (ApplyError, ValueError) as error:
            self._is_to_try_again = True
            self._refuse(error, "the rules could not be applied")
            return False
        return True

    def _leave(self) -> None:
        """The stop mode, while the packet loop still answers."""
        if self._is_replaced:
            self._enforcement.drain()
            self._say("stopped: another labelgate is in force")
            return
        mode = stop_mode(self._enforcement.current.config)
        left = self._enforcement.leave(mode, is_planned=self._is_told_to_stop)
        self._say(f"stopped: {_LEFT[left]}")

    def _announce(self) -> None:
        self._in_force_since = now()
        current = self._enforcement.current
        facts = current.table.rule_facts()
        self._say(
            f"generation {current.number} in force: node {current.config.node}, "
            f"{len(facts['hosts'])} host endpoints, {len(facts['workloads'])} workloads with interfaces, "
            f"{self._enforcement.variant} rules\n{summary(current.table.describe())}"
        )


def refuse_unknown(arguments: Mapping[str, object], *known: str) -> None:
    """ControlError where a request has arguments that its verb does not."""
    if unknown := sorted(arguments.keys() - set(known)):
        raise ControlError("request", f"unknown argument `{unknown[0]}`")


_LEFT: Mapping[StopMode, str] = {
    "remove": "our rules are removed",
    "keep": "our rules stay, what they queue is dropped",
    "open": "our rules stay, what they would queue passes",
}
