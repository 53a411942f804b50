"""From files to a generation that is ready to be put in force; nothing here touches the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from labelgate.agent.changes import Changes
from labelgate.agent.panics import faults_refused
from labelgate.agent.process import start_mode
from labelgate.agent.state import Record, Source
from labelgate.agent.unheard import unheard
from labelgate.compiler import Compiler
from labelgate.config import Config, ConfigError, config_of, host_name, kept_texts, load_config
from labelgate.engines import Budgets, ClassesBudget
from labelgate.flow import HOOKS
from labelgate.handlers import BindLoop
from labelgate.links import Links
from labelgate.printable import printable
from labelgate.regular import open_for_writing, read_and_tell
from labelgate.resources import LoadError, Loading
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from labelgate.sources.cache import FileCache, IsOpen, as_told
from labelgate.sources.files import STDIN, Progress
from labelgate.table import DecisionTable

FIXED_KEYS = (
    "node",
    "policies",
    "backend",
    "marks.mask",
    "queues.base",
    "queues.maxlen",
    "queues.workers",
    "queues.fanout",
    "queues.cpus",
    *(f"fail.{hook}" for hook in HOOKS),
    "malformed",
    "shadow",
    "kernelCounters",
    "events.rate",
    "events.file",
    "watch",
    "metrics.listen",
    "socket",
    "state",
)
"""Who this is, what the queues are bound with, where rules and policies are: a reload cannot change these."""

_COUNTING = Budgets(classes=ClassesBudget(passes=4 << 20))
"""Of the table in force: it tells the Pass rules passed, so that they are counted."""


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
    replace: bool = False
    """Take the place of the daemon that is in force, without losing a packet."""
    bind: BindLoop | None = None
    """Who answers the queues; None: the core's own loop."""
    last_config: Config | None = None
    """The configuration in force last, where what there is now is not valid."""
    is_configured: bool = False
    """`paths` are those of the configuration."""


@dataclass(frozen=True)
class Generation:
    """One policy in force."""

    number: int
    snapshot: Snapshot
    config: Config
    table: DecisionTable
    links: Links
    source: Source
    """Where the snapshot is from."""
    files: Loading
    """What the files held; the same object as long as they hold the same."""
    staged: DecisionTable | None = None
    """Staged policies are in force in it too; None where there are none, or nobody would be told."""

    @faults_refused()
    def on_links(self, links: Links) -> Generation:
        """The same program on other interfaces; ValueError if it cannot be bound to them."""
        return replace(self, table=self.table.on_host(links.host_facts), links=links)


class Loader:
    """Makes generations of what the files hold now; reads, parses and compiles only what has changed."""

    def __init__(
        self,
        options: Options,
        say: Callable[[str], None],
        progress: Progress,
        step: Callable[[], None] = lambda: None,
        long_step: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`progress` is told of files that are read, `step` that a snapshot, or a table, is made.

        `long_step` is around what tells of no steps and may take long: the core compiles.
        """
        self._options = options
        self._say = say
        self._progress, self._step, self._long_step = progress, step, long_step
        self._cache = FileCache(step)
        self._compiler: Compiler | None = None
        self._compiled_for: tuple[str, Settings] | None = None
        self._staged: tuple[Snapshot, tuple[str, Settings], DecisionTable | None] | None = None
        self._warnings: frozenset[str] = frozenset()
        self._host_name = host_name()
        """As it was at the start: another name later is not another node."""
        self._config_text: bytes | None = None
        """As it was read last."""
        self._is_open: IsOpen = as_told
        self.has_open_files = False
        """Whether the last reading found one that has changed open for writing, which is refused."""
        self.changes = Changes()

    def configuration(self) -> Config:
        """What is set without the policies, or was in force last; raises ConfigError."""
        try:
            return self._config(Snapshot())
        except ConfigError:
            if self._options.last_config is None:
                raise
            return self._options.last_config

    @faults_refused(LoadError, AgentError)
    def first(self, links: Links, record: Record | None) -> Generation:
        """Generation 1: what was applied last, unless the files have changed since.

        Raises:
            LoadError, ConfigError, ValueError: the policies or the configuration are not valid.
            AgentError: no endpoint names the node.
        """
        files = self._read_files()
        if record and record.confirmed.is_applied and record.confirmed.files == self._cache.digest:
            return self._of(record.confirmed, 1, files, links)
        return self._made(1, self._files(), files, Snapshot.of(files.result()), links)

    @faults_refused(LoadError, AgentError)
    def last_good(self, record: Record, links: Links) -> Generation:
        """Generation 1 where the files are not valid: what was in force before; raises as `first`.

        With the configuration as it is now, if that is valid and of one of its nodes; else with the one of
        before, too.
        """
        snapshot, files = _snapshot(record.confirmed), Loading()
        with suppress(LoadError):  # One is open for writing: whatever it holds then is a change.
            files = self._read_files()
        try:
            config = self._config(snapshot)
            is_valid = self._options.allow_empty or config.node in snapshot.nodes()
            if not is_valid and record.confirmed.config:
                self._say("no endpoint names the node: the configuration that was in force last is taken")
        except ConfigError:
            if not record.confirmed.config:
                raise
            is_valid = False
        if not is_valid and record.confirmed.config:
            config = config_in_force_last(record, self._options.node, self._options.flags)
        return self._with(config, 1, record.confirmed, files, snapshot, links)

    @faults_refused(LoadError, AgentError)
    def next(
        self, before: Generation, links: Links, *, if_changed: bool = False, is_open: IsOpen = as_told
    ) -> Generation | None:
        """The generation after this one, of the files; None where only a change counts and there is none.

        Raises as `first` does, and where a key has changed that only a restart changes, or a file that
        `is_open` for writing.
        """
        self._is_open, self.has_open_files = is_open, False
        if STDIN in self._options.paths:
            raise AgentError("standard input cannot be read twice: use files to be able to reload")
        files = self._read_files()
        number = before.number + 1
        if files is not before.files or not if_changed:
            return self._made(number, self._files(), files, Snapshot.of(files.result()), links, before)
        if self._config(before.snapshot) == before.config:
            return None
        return self._made(number, before.source, files, before.snapshot, links, before)

    @property
    def digest(self) -> str:
        """Of what the files held when they were read last."""
        return self._cache.digest

    def is_of_files(self, generation: Generation) -> bool:
        """Whether the files held, when they were read last, what they held when this generation was made."""
        return generation.source.files == self.digest

    @faults_refused(LoadError, AgentError)
    def applied(
        self, paths: tuple[str, ...], texts: tuple[tuple[str, bytes], ...], before: Generation, links: Links
    ) -> Generation:
        """The generation after this one, of texts that somebody applies; raises as `next`."""
        source = Source(paths, True, texts, self._cache.digest)
        # As they were read last, be they in force or refused: only an edit takes their turn again.
        return self._of(source, before.number + 1, self._cache.latest or before.files, links, before)

    def _read_files(self) -> Loading:
        try:
            return self._cache.read(self._options.paths, self._progress, self._is_open)
        finally:
            self.has_open_files = bool(self._cache.open_files)
            for warning in self._cache.warnings:
                self._say(f"warning: {warning}")

    def _files(self) -> Source:
        return Source(self._options.paths, False, self._cache.texts, self._cache.digest)

    def _of(
        self, source: Source, number: int, files: Loading, links: Links, before: Generation | None = None
    ) -> Generation:
        return self._made(number, source, files, _snapshot(source), links, before)

    def _config(self, snapshot: Snapshot) -> Config:
        options = self._options
        felix = snapshot.felix_configurations
        return load_config(
            options.config_file,
            felix,
            options.node,
            flags=options.flags,
            host=self._host_name,
            read=self._read_config,
        )

    def _read_config(self, file: str) -> bytes:
        content, told = read_and_tell(file)
        if content != self._config_text and self._is_open(file, told):
            self.has_open_files = True
            raise open_for_writing(file)
        self._config_text = content
        return content

    def _made(
        self,
        number: int,
        source: Source,
        files: Loading,
        snapshot: Snapshot,
        links: Links,
        before: Generation | None = None,
    ) -> Generation:
        config = self._config(snapshot)
        if before is not None:
            _refuse_changes(before.config, config)
        return self._with(config, number, source, files, snapshot, links)

    def _with(
        self,
        config: Config,
        number: int,
        source: Source,
        files: Loading,
        snapshot: Snapshot,
        links: Links,
    ) -> Generation:
        is_lasting = self._options.is_configured and start_mode(config) == "last-good"
        source = replace(source, config=kept_texts(config), is_lasting=is_lasting)
        self._step()
        begun = time.monotonic()
        with self._long_step():
            table = self._table(snapshot, config, links)
        self.changes.compiled.observe(time.monotonic() - begun)
        self._step()
        staged = self._staged_table(snapshot, config, links)
        warnings = (*snapshot.warnings, *table.warnings, *(unheard(table, staged) if staged else ()))
        for warning in warnings:
            if warning not in self._warnings:
                self._say(f"warning: {warning}")
        self._warnings = frozenset(warnings)
        generation = Generation(number, snapshot, config, table, links, source, files, staged)
        self._require_endpoints(generation)
        return generation

    def _table(self, snapshot: Snapshot, config: Config, links: Links) -> DecisionTable:
        host, compiled_for = links.host_facts, (config.node, config.settings)
        if self._compiler is None or self._compiled_for != compiled_for:
            self._compiler = Compiler(
                snapshot, node=config.node, host=host, settings=config.settings, budgets=_COUNTING
            )
            self._compiled_for = compiled_for
            return self._compiler.table
        compiler, self._compiler = self._compiler, None
        compiler.host = host
        try:
            table = compiler.follow(snapshot.resources())
        except ValueError:
            self._compiler = compiler  # It refused, and is as it was.
            raise
        # One that has panicked, or failed otherwise, may be anything: the next table is made by a new one.
        self._compiler = compiler
        return table

    def _staged_table(self, snapshot: Snapshot, config: Config, links: Links) -> DecisionTable | None:
        """What goes wrong here must not stand in the way of the policy."""
        if not config.event_rate or not snapshot.has_staged_policies:
            return None
        compiled_for = (config.node, config.settings)
        if self._staged is None or self._staged[0] is not snapshot or self._staged[1] != compiled_for:
            try:
                with self._long_step():
                    table = snapshot.compile(
                        node=config.node, host=links.host_facts, settings=config.settings, staged=True
                    )
            except ValueError as error:
                self._say(f"warning: what staged policies would deny is not told: {error}")
                return None
            self._staged = (snapshot, compiled_for, table)
        return self._staged[2]

    def _require_endpoints(self, generation: Generation) -> None:
        nodes, node = generation.snapshot.nodes(), generation.config.node
        if node not in nodes and not self._options.allow_empty:
            found = ", ".join(map(printable, nodes)) or "none"
            raise AgentError(
                f"no endpoint names node `{node}` (nodes found: {found}); set `node`, "
                "or run with --allow-empty"
            )


def config_in_force_last(record: Record, node: str | None, flags: Mapping[str, Any]) -> Config:
    """The configuration that was kept, but for what the command line says; raises ConfigError."""
    source = "the configuration in force last"
    return config_of(record.confirmed.config, source, {"node": node, **flags})


def _snapshot(source: Source) -> Snapshot:
    loading = Loading()
    for name, content in source.texts:
        loading.add(content, name)
    return Snapshot.of(loading.result())


def _refuse_changes(before: Config, after: Config) -> None:
    """ConfigError where a reload would change what only a start can."""
    for key in FIXED_KEYS:
        was, given = before.sources[key].value, after.sources[key]
        if given.value != was:
            raise ConfigError(
                f"{given.source}: {key}: found `{given.value}`, expected `{was}` as at the start; "
                "only a restart changes it"
            )
