"""From files to a generation that is ready to be put in force; nothing here touches the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelgate.config import Config, ConfigError, load_config
from labelgate.flow import HOOKS
from labelgate.links import Links
from labelgate.snapshot import Snapshot
from labelgate.sources.files import STDIN, Progress, load_documents
from labelgate.table import DecisionTable

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
    "socket",
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


@dataclass(frozen=True)
class Generation:
    """One policy in force."""

    number: int
    snapshot: Snapshot
    config: Config
    table: DecisionTable
    links: Links


class Loader:
    """Makes generations of what the files hold now."""

    def __init__(self, options: Options, say: Callable[[str], None], progress: Progress) -> None:
        self._options = options
        self._say = say
        self._progress = progress

    def first(self, links: Links) -> Generation:
        """Generation 1.

        Raises:
            LoadError, ConfigError, ValueError: the policies or the configuration are not valid.
            AgentError: no endpoint names the node.
        """
        generation = self._load(1, links)
        self._require_endpoints(generation)
        return generation

    def next(self, before: Generation, links: Links) -> Generation:
        """The generation after this one; raises as `first`, and where only a restart may change a key."""
        if STDIN in self._options.paths:
            raise AgentError("standard input cannot be read twice: use files to be able to reload")
        generation = self._load(before.number + 1, links)
        _refuse_changes(before.config, generation.config)
        self._require_endpoints(generation)
        return generation

    def _load(self, number: int, links: Links) -> Generation:
        snapshot = Snapshot.of(load_documents(self._options.paths, self._progress))
        config = load_config(
            self._options.config_file,
            snapshot.felix_configurations,
            self._options.node,
            flags=self._options.flags,
        )
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


def _refuse_changes(before: Config, after: Config) -> None:
    """ConfigError where a reload would change what only a start can."""
    for key in FIXED_KEYS:
        was, given = before.sources[key].value, after.sources[key]
        if given.value != was:
            raise ConfigError(
                f"{given.source}: {key}: found `{given.value}`, expected `{was}` as at the start; "
                "only a restart changes it"
            )
