"""The daemon's life: start, follow what changes, stop.

A change validates, compiles and builds the table before anything is touched; what is wrong leaves the
generation in force as it is.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from labelgate.agent.asked import Asked, Trial, refuse_unknown
from labelgate.agent.caution import (
    Revocation,
    denied_sessions,
    refuse_lockout,
    refuse_what_is_cut,
    warn_at_start,
)
from labelgate.agent.changes import Reason
from labelgate.agent.enforcement import Enforcement
from labelgate.agent.exporter import exporter
from labelgate.agent.first import first_generation, refuse_what_is_outdated
from labelgate.agent.follower import Follower
from labelgate.agent.generation import AgentError, Generation, Loader, Options
from labelgate.agent.handover import Presence
from labelgate.agent.health import health
from labelgate.agent.interfaces import InterfaceLog, watch_links
from labelgate.agent.notify import ALIVE_SECONDS, ServiceManager
from labelgate.agent.panics import faults_refused, panics_refused
from labelgate.agent.process import LEFT, STOPPING, Signals, ToldToStop, stop_mode
from labelgate.agent.questions import questions
from labelgate.agent.state import Record, StateError
from labelgate.agent.status import Refusal, counters_line, in_force, most_met, now, status
from labelgate.agent.store import Store
from labelgate.config import ConfigError
from labelgate.control import ControlError, ControlServer
from labelgate.links import Links, LinkWatch
from labelgate.lockout import Finding, LockOutError
from labelgate.netfilter.apply import ApplyError
from labelgate.resources import LoadError
from labelgate.sources.cache import IsOpen, as_told
from labelgate.sources.files import STDIN, Progress
from labelgate.sources.watch import FileWatch

RETRY_SECONDS = 1.0
"""How often a rollback that could not be done is tried again."""
PENDING_SECONDS = 0.5
"""Between two looks whether a successor has taken too long."""
MOST_TOLD = 300
"""Characters of why a change was refused, in a line."""
MOST_READINGS = 5
"""So often files that are written again while they are read are read once more."""
_WHILE_OPEN = "read when it is closed; `labelgate reload --force` takes it as it is"


class Agent:
    """Enforces policy in the network namespace of the calling (main) thread."""

    def __init__(
        self,
        options: Options,
        say: Callable[[str], None],
        progress: Progress = lambda done, whole: None,
    ) -> None:
        self._options = options
        self._has_files = STDIN not in options.paths
        self._say = say
        self._tell_links = InterfaceLog(say)
        self._manager = ServiceManager()

        def read(done: int, whole: int) -> None:
            self._keep_up()
            progress(done, whole)

        self._loader = Loader(options, say, read, self._keep_up, self._manager.patience)
        self._enforcement: Enforcement
        self._links: LinkWatch
        self._signals: Signals
        self._store: Store
        self._revocation: Revocation
        self._trial: Trial | None = None
        self._control: ControlServer | None = None
        self._files: FileWatch | None = None
        self._refusal: Refusal | None = None
        """Why the last change is not in force."""
        self._unlinked: Refusal | None = None
        """Why the interfaces as they are now are not in force."""
        self._to_try_again: Generation | None = None
        """The files are right, but their rules could not be applied."""
        self._readings = 0
        """Of files that were written again while they were read, one after the other."""
        self._in_force_since = ""
        self._in_force = ""
        """In a line."""
        self._is_told_to_stop = self._is_told_to_reload = False
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
            self._presence = open_things.enter_context(Presence(self._say, replace=self._options.replace))
            self._signals = open_things.enter_context(Signals())
            self._links = open_things.enter_context(watch_links(self._say))
            try:
                self._start(open_things)
            except ToldToStop:
                self._manager.stopping()
                self._say("stopped before the policy was in force: rules are as they were found")
                return
            self._serve()

    def _start(self, open_things: ExitStack) -> None:
        try:
            config = self._loader.configuration()
            replaces = self._presence.replaces
            self._store = open_things.enter_context(Store(config.state, self._say, is_taken=replaces))
            self._revocation = Revocation(self._say, config.state)
            record = self._store.recover() if self._has_files else None
            first, self._refusal = first_generation(
                self._loader, self._options, config, self._links.links, record, self._say
            )
            self._presence.announce(first.config.mark_mask)
            if replaces and self._has_files:
                refuse_what_is_outdated(first, self._store.recover())
            self._enforcement = Enforcement(
                first,
                self._say,
                self._wait,
                bind=self._options.bind,
                beside_another=replaces,
                step=self._manager.alive,
            )
            warn_at_start(first, self._say)
            self._tell_links.warn_of_nameless(first.links)
            self._enforcement.start(open_things, self._leave, self._go_on)
            if replaces:
                self._presence.take_over()
                self._store.open()
            self._store.keep_counts(self._enforcement.rule_counts)
            self._revocation.follow(first)
        except (ApplyError, ValueError) as error:
            raise AgentError(str(error)) from None
        self._listen(open_things)
        self._watch_files(open_things)
        if listen := first.config.metrics_listen:
            server = exporter(listen, self._measured, lambda: health(self._enforcement), self._say)
            open_things.callback(server.stop)
        if self._has_files:
            self._store.keep_later(Record(first.source))
        self._announce()

    def _wait(self, seconds: float) -> None:
        """As long as somebody has configured: each second of it is a step.

        A stop ends it: ToldToStop at the start; ValueError later, which refuses what was to come.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._signals.wait(min(left, ALIVE_SECONDS))
            self._go_on()
            self._manager.alive()
            if self._signals.is_told_to_stop:
                raise ValueError("labelgate was told to stop while it waited for open sessions")

    def _go_on(self) -> None:
        """ToldToStop where nothing is in force yet, and is not to be any more."""
        if not self._in_force_since and self._signals.is_told_to_stop:
            raise ToldToStop

    def _listen(self, open_things: ExitStack) -> None:
        """Without a control socket the policy is enforced all the same."""
        path = self._enforcement.current.config.socket
        verbs = {
            "status": self._answer_status,
            "reload": self._answer_reload,
            "apply": self._answer_apply,
            "check": self._answer_check,
            "confirm": self._answer_confirm,
            "rollback": self._answer_rollback,
            **questions(self._enforcement),
        }
        try:
            verbs = {name: panics_refused()(verb) for name, verb in verbs.items()}
            self._control = open_things.enter_context(ControlServer(path, verbs, self._say))
        except OSError as error:
            self._say(f"warning: no control socket at {path}: {error}")

    def _watch_files(self, open_things: ExitStack) -> None:
        """Without a watch a reload follows the files."""
        if not self._enforcement.current.config.watch or not self._has_files:
            return
        config_file = self._options.config_file
        try:
            files = [*self._options.paths, *([config_file] if config_file else [])]
            with faults_refused(OSError):
                self._files = open_things.enter_context(FileWatch(files, self._say))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            self._say(f"warning: files are not followed: {why}; use `labelgate reload`")

    def _followers(self) -> list[Follower]:
        """In the order of their turns."""
        say, links, enforcement = self._say, self._links, self._enforcement
        found = [
            Follower("policies cannot be read as told", self._reload_if_told, say),
            Follower("a trial cannot be ended", self._end_trial, say, seconds=self._seconds_of_trial),
            Follower("state cannot be kept", self._store.keep_due, say),
            Follower("interfaces cannot be followed", self._follow_links, say, lambda: [links.fileno()]),
            Follower(
                "rules cannot be looked after", self._follow_rules, say,
                lambda: enforcement.rules.descriptors, lambda: enforcement.rules.patience,
            ),
        ]  # fmt: skip
        if files := self._files:
            found.insert(
                1,
                Follower(
                    "files cannot be followed", lambda: self._follow(files), say,
                    lambda: [files.fileno()], lambda: None if self._trial else files.seconds_left(),
                ),
            )  # fmt: skip
        if control := self._control:
            serve = Follower("nobody can be answered", control.serve, say, lambda: [control.fileno()])
            found.insert(0, serve)
        return found

    def _serve(self) -> None:
        followers = self._followers()
        while (failure := self._enforcement.failure()) is None:
            self._manager.alive()
            others, seconds = [*self._presence.descriptors, *self._enforcement.descriptors], PENDING_SECONDS
            if not self._presence.is_pending:
                others += [number for one in followers for number in one.descriptors]
                seconds = min(one.seconds_left for one in followers)
            for number in self._signals.take(others, seconds):
                if number in STOPPING:
                    self._is_told_to_stop = True
                    self._manager.stopping()
                    return
                if number == signal.SIGHUP:
                    self._is_told_to_reload = True
                elif number == signal.SIGUSR1:
                    self._say(counters_line(self._enforcement))
            if self._presence.is_replaced(is_busy=self._trial is not None):
                self._is_replaced = True
                return
            if self._presence.is_pending:
                continue  # Until it is in force, or has failed.
            for follow in followers:
                if self._signals.is_told_to_stop:
                    break  # Nothing else comes before it.
                follow()
        raise AgentError(f"the packet loop ended ({failure}); our rules stay, what they queue is dropped")

    def _follow_rules(self) -> None:
        """Puts them back, and does what could not be done before."""
        rules, was_changed = self._enforcement.rules, False
        if not rules.is_due():
            return
        try:
            was_changed = self._enforcement.restore()
            if self._enforcement.current.links != self._links.links:
                self._relink(self._links.links)  # It could not be done when they changed.
            if self._to_try_again:
                self._try_again(self._to_try_again)
        finally:
            rules.done(again=was_changed)

    def _keep_up(self) -> None:
        """In the midst of what takes long: the service manager hears of us, and rules of ours stay there."""
        self._manager.alive()
        self._go_on()
        if self._in_force_since and self._enforcement.rules.is_due():
            self._enforcement.rules.done(again=self._enforcement.restore())

    def _answer_status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments)
        return self._status(most_met(self._enforcement.rule_counts))

    def _status(self, hits: dict[str, Any]) -> dict[str, Any]:
        """Reads only; other threads ask, too."""
        refusal, changes = self._refusal or self._unlinked, self._loader.changes
        answer = status(self._enforcement, refusal, self._in_force_since, changes, hits)
        trial = self._trial
        answer["trial"] = trial and {"secondsLeft": round(trial.seconds_left(), 3)}
        answer["state"] = {"problem": self._store.problem}
        open_files = self._files.open_files() if self._files else []
        answer["files"] = {"paths": list(self._options.paths), "open": open_files}
        return answer

    def _measured(self) -> dict[str, Any]:
        """The status with every rule that metrics are wanted of."""
        counts, most = self._enforcement.rule_counts, self._enforcement.current.config.metrics_rules
        rules, denied = counts.met() if most else (None, counts.denied())
        staged = self._enforcement.staged_denials()
        return self._status({"rules": rules and rules[:most], "denied": denied, "stagedDenied": staged})

    def _answer_check(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What policies would deny of that which works now; nothing is changed."""
        asked = Asked.read(arguments)
        before, links = self._enforcement.current, self._links.links
        generation = self._made_of(asked)
        try:
            found = denied_sessions(before, generation, links, asked.session, self._keep_up)
        except LockOutError as error:
            found = list(error.findings)
        return asked.told(found, before, generation)

    def _answer_reload(self, arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments, "force")
        self._refuse_during_trial()
        is_forced = arguments.get("force") is True
        self._reload(is_forced=is_forced, is_open=(lambda *_: False) if is_forced else as_told)
        if self._refusal:
            raise ControlError("refused", self._refusal.message, self._refusal.to_json()["problems"])
        return {"generation": self._enforcement.current.number}

    def _answer_apply(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Puts texts in force; with `confirm` only until so many seconds have passed."""
        asked = Asked.read(arguments)
        self._refuse_during_trial()
        if not self._has_files:
            raise ControlError("state", "the daemon reads standard input: it keeps no state")
        before = self._enforcement.current
        generation = self._made_of(asked)
        try:
            found = self._cautions(generation, asked)
            trial = Record(before.source, generation.source)
            self._store.keep(Record(generation.source) if asked.confirm is None else trial)
        except LockOutError as error:
            raise ControlError("lockout", f"{error}\nnothing is changed without --force") from None
        except StateError as error:
            raise ControlError("state", f"{error}; nothing is changed") from None
        self._put_on_trial(generation, asked.confirm)
        self._refusal = self._to_try_again = None
        self._announce()
        told = asked.told(found, before, generation)
        return {"generation": generation.number, "confirmSeconds": asked.confirm, **told}

    def _put_on_trial(self, generation: Generation, confirm: float | None) -> None:
        """Until so many seconds have passed, or for good; nothing leaves it in force without its end."""
        before = self._enforcement.current
        if confirm is not None:
            self._trial = Trial(before, math.inf)
        try:
            self._enact(generation)
        except Exception as error:
            self._trial = None
            self._store.try_to_keep(Record(before.source))
            if isinstance(error, ApplyError | ValueError):
                raise ControlError("rules", f"{error}; nothing is changed") from None
            raise
        if confirm is not None:
            self._trial = Trial(before, time.monotonic() + confirm)

    def _cautions(self, generation: Generation, asked: Asked) -> list[Finding]:
        """What it would deny; LockOutError unless that may be, or is forced."""
        try:
            before, links = self._enforcement.current, self._links.links
            found = denied_sessions(before, generation, links, asked.session, self._keep_up)
            if not asked.is_forced:
                refuse_what_is_cut(found, generation)
        except LockOutError as error:
            if not asked.is_forced:
                raise
            return list(error.findings)
        return found

    def _made_of(self, asked: Asked) -> Generation:
        """A generation of texts; ControlError if they are not valid."""
        before, links = self._enforcement.current, self._links.links
        try:
            return self._loader.applied(asked.paths, asked.texts, before, links)
        except (LoadError, AgentError, ValueError) as error:
            raise ControlError("invalid", str(error), Refusal.of(error).to_json()["problems"]) from None

    def _answer_confirm(self, arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments)
        if self._trial is None:
            raise ControlError("trial", "no policy is on trial")
        current = self._enforcement.current
        try:
            self._store.keep(Record(current.source))
        except StateError as error:
            raise ControlError("state", f"{error}; the trial goes on") from None
        self._trial = None
        self._say(f"generation {current.number} is confirmed")
        return {"generation": current.number}

    def _answer_rollback(self, arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(arguments)
        if self._trial is None:
            raise ControlError("trial", "no policy is on trial")
        if not self._roll_back("as asked"):
            raise ControlError("rules", "the rules could not be applied; it is tried again")
        return {"generation": self._enforcement.current.number}

    def _refuse_during_trial(self) -> None:
        if self._trial:
            raise ControlError("trial", "a policy is on trial: `labelgate confirm` or `rollback` first")

    def _roll_back(self, why: str) -> bool:
        """Back to what was in force before the trial, on the interfaces as they are now."""
        assert self._trial is not None
        number = self._enforcement.current.number + 1
        try:
            self._enact(replace(self._trial.before.on_links(self._links.links), number=number))
        except (ApplyError, ValueError) as error:
            self._say(
                f"{error}\nthe trial cannot be rolled back: the rules could not be applied; tried again"
            )
            self._trial = replace(self._trial, until=time.monotonic() + RETRY_SECONDS)
            return False
        self._store.try_to_keep(Record(self._trial.before.source))
        self._trial = None
        self._say(f"the policy on trial is rolled back: {why}")
        self._announce()
        return True

    def _seconds_of_trial(self) -> float | None:
        return self._trial.seconds_left() if self._trial else None

    def _end_trial(self) -> None:
        if self._trial and self._trial.is_over():
            self._roll_back("it was not confirmed in time")

    def _follow(self, files: FileWatch) -> None:
        """Puts in force what has been written to the files, once nobody writes any more."""
        files.poll()
        if self._trial or not files.is_due():
            return
        self._readings += 1

        def is_overtaken() -> bool:
            """Whether more has been written meanwhile, or is; who never stops is not waited for for ever."""
            return (files.poll() and self._readings < MOST_READINGS) or files.is_waiting

        self._reload(is_overtaken=is_overtaken, if_changed=True, is_open=files.is_open)
        if not files.has_news or self._readings >= MOST_READINGS:
            self._readings = 0

    def _reload_if_told(self) -> None:
        if self._is_told_to_reload and self._trial:
            self._say("a policy is on trial: nothing is reloaded before it is confirmed or rolled back")
        elif self._is_told_to_reload:
            self._reload()
        self._is_told_to_reload = False

    def _reload(
        self,
        *,
        is_overtaken: Callable[[], bool] = lambda: False,
        if_changed: bool = False,
        is_forced: bool = False,
        is_open: IsOpen = as_told,
    ) -> None:
        """Reads the files anew; anything wrong leaves the current generation in force."""
        before, self._to_try_again = self._enforcement.current, None
        try:
            generation = self._loader.next(before, self._links.links, if_changed=if_changed, is_open=is_open)
        except (LoadError, ConfigError, AgentError, ValueError) as error:
            if not is_overtaken():
                new = "configuration is" if isinstance(error, ConfigError) else "policies are"
                why = _WHILE_OPEN if self._loader.has_open_files else f"the new {new} not valid"
                self._refuse(error, why, "invalid", if_new=if_changed)
            return
        if is_overtaken():
            return  # What was read may be half of an edit; it is read again.
        if generation is None:
            if self._loader.is_of_files(before):
                self._refusal = None  # What was wrong is as it was before.
                self._manager.status(self._in_a_line())
            return
        try:
            if not is_forced:
                self._check_lockout(generation)
        except LockOutError as error:
            self._refuse(
                error, "`labelgate reload --force` does it all the same", "lockout", if_new=if_changed
            )
            if generation.source != before.source:
                self._store.refused = generation.source.files
                self._store.keep_later(Record(before.source))
            return
        self._come_into_force(generation)

    def _come_into_force(self, generation: Generation) -> None:
        if self._put_in_force(generation):
            self._refusal = self._to_try_again = None
            self._store.refused = ""
            self._store.keep_later(Record(generation.source))
            self._announce()
        else:
            self._to_try_again = generation

    def _try_again(self, generation: Generation) -> None:
        """As it was read then: what the files hold now may be half of an edit, or not be asked for."""
        try:
            generation = generation.on_links(self._links.links)
        except ValueError as error:
            self._refuse(error, "the interfaces as they are now", "rules")
            return
        self._come_into_force(generation)

    def _check_lockout(self, generation: Generation) -> None:
        try:
            before, links = self._enforcement.current, self._links.links
            refuse_lockout(before, generation, links, self._say, self._keep_up)
        except LockOutError as error:
            if generation.config.lockout == "refuse":
                raise
            self._say(f"warning: {error}")

    def _refuse(self, error: Exception, why: str, reason: Reason, *, if_new: bool = False) -> None:
        before = self._refusal
        self._refusal = Refusal.of(error, self._loader.digest, before)
        if if_new and self._refusal == before:
            return  # Something else was written beside the files, such as these very words.
        self._loader.changes.refused[reason] += 1
        self._say(f"{error}\ngeneration {self._enforcement.current.number} stays in force: {why}")
        self._manager.status(self._in_a_line())

    def _follow_links(self) -> None:
        links = self._links.poll()
        self._tell_links.catch_up()
        if links is not None:
            self._relink(links)

    def _relink(self, links: Links) -> None:
        """Interfaces or addresses changed: the same program on other interfaces."""
        current = self._enforcement.current
        try:
            self._enforcement.follow_indexes(links)
            after = current.on_links(links)
        except ValueError as error:
            self._say(f"{error}\ngeneration {current.number} stays in force: for the interfaces of before")
            self._unlinked = self._unlinked or Refusal.of(error)
            self._manager.status(self._in_a_line())
            return
        if self._put_in_force(after):
            if self._unlinked:
                self._unlinked = None
                self._manager.status(self._in_a_line())
            self._tell_links(current, after)

    def _enact(self, generation: Generation) -> None:
        """Puts it in force, and cuts what it denies if that is wanted; raises as the enforcement does."""
        is_policy = generation.number != self._enforcement.current.number
        self._enforcement.put_in_force(generation)
        if is_policy:
            self._revoke(generation)

    def _revoke(self, generation: Generation) -> None:
        """The policy is in force by now: what goes wrong here does not make that undone."""
        try:
            self._revocation.follow(generation)
            self._revocation.cut(generation, self._keep_up)
        except Exception as error:
            self._say(f"warning: connections that are denied now may go on: {error!r}")

    def _put_in_force(self, generation: Generation) -> bool:
        try:
            self._enact(generation)
        except (ApplyError, ValueError) as error:
            before = self._refusal
            self._refuse(error, "the rules could not be applied", "rules")
            if generation.number == self._enforcement.current.number:
                self._refusal, self._unlinked = before, self._unlinked or self._refusal
            return False
        return True

    def _leave(self) -> None:
        """The stop mode, while the packet loop still answers."""
        is_succeeded = self._is_told_to_stop and self._presence.is_succeeded()
        if self._is_replaced or is_succeeded:
            # The rules are the successor's, or about to be.
            self._enforcement.drain()
            what = "comes into force: our rules stay for it" if is_succeeded else "is in force"
            self._say(f"stopped: another labelgate {what}")
            return
        mode = stop_mode(self._enforcement.current.config)
        if self._trial and self._is_told_to_stop and mode != "remove":
            self._roll_back("the daemon stops")  # Nobody else would do it in time.
        left = self._enforcement.leave(mode, is_planned=self._is_told_to_stop)
        if left == "remove":
            self._revocation.undo()
        self._say(f"stopped: {LEFT[left]}")

    def _announce(self) -> None:
        self._in_force_since = now()
        text = in_force(self._enforcement)
        self._say(text)
        self._in_force = text.splitlines()[0]
        self._manager.ready(self._in_a_line())

    def _in_a_line(self) -> str:
        """What is in force, behind what was refused."""
        refusal = self._refusal or self._unlinked
        refused = f"REFUSED: {refusal.message.splitlines()[0][:MOST_TOLD]}; " if refusal else ""
        return refused + self._in_force
