"""A decision table that follows its resources: an edit compiles only what it touches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeVar

from labelgate import _core
from labelgate.arguments import check_type
from labelgate.engines import Budgets
from labelgate.model import core_model, core_parts, node_name
from labelgate.resources import EndpointSlice, Namespace, Profile, Resource, ServiceAccount
from labelgate.resources.grouped import FIELDS
from labelgate.resources.values import did_you_mean
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot, check_compile
from labelgate.table import DecisionTable

_T = TypeVar("_T")
_Parts = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class _State:
    """All that an edit changes: one of another takes its place at once, and nothing in it is ever edited."""

    core: _core.Compiler | None
    """None: it is being asked, or was when something went wrong. It may be anything then."""
    settings: Settings
    resources: dict[str, Resource]
    groups: dict[str, dict[str, Resource]]
    table: DecisionTable


class Compiler:
    """Keeps the resources of a snapshot, and the table of them as they are now.

    Answers are those of `Snapshot.compile` with the same resources, whatever was there before. Tables of
    before stay what they are: whoever asks one is never stopped. Outcome ids are those of the table that
    gave them. Several threads may call it: edits wait for each other. One that is interrupted, or fails, has
    changed everything or nothing.

    >>> import labelgate
    >>> compiler = labelgate.Compiler(labelgate.Snapshot(), node="edge1")
    >>> compiler.apply(remove=["NetworkPolicy/shop/web"]) is compiler.table
    True
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        node: str | None,
        host: HostFacts | None = None,
        settings: Settings | None = None,
        staged: bool = False,
        budgets: Budgets | None = None,
    ) -> None:
        """Compiles the snapshot; the arguments, and what may be wrong, are those of `Snapshot.compile`.

        Without `settings` an edit of FelixConfiguration documents that changes them compiles everything.
        """
        check_type("snapshot", snapshot, Snapshot, "a Snapshot")
        check_compile(host, settings, budgets, staged)
        self.host = host or HostFacts({})
        """What the next tables are bound to."""
        self._follows_settings = settings is None
        self._node, self._staged, self._budgets = node, staged, budgets
        self._editing = Lock()
        self._state = self._begun(snapshot, settings or snapshot.settings(node))

    @property
    def table(self) -> DecisionTable:
        """The decisions of the resources as they are now."""
        return self._state.table

    @property
    def settings(self) -> Settings:
        """What the tables are made by."""
        return self._state.settings

    @property
    def snapshot(self) -> Snapshot:
        """The resources as they are now."""
        return Snapshot.of(self._state.resources.values())

    def apply(self, *, put: Iterable[Resource] = (), remove: Iterable[Resource | str] = ()) -> DecisionTable:
        """Takes resources out, then puts resources in the place of those of one key; gives the new table.

        `remove` takes resources, or keys as `Resource.key` has them (`KubernetesNetworkPolicy/shop/web`); one
        that is not there is no error.

        Raises:
            TypeError: one text or resource is passed where several are expected, or something else in them.
            ValueError: a key is none, or of an unknown kind; or the core refuses what validation let pass:
                nothing has changed. Or `host` cannot be read: the resources have changed, `table` has not.

        >>> import labelgate
        >>> from importlib.resources import files
        >>> snapshot = labelgate.load(str(files("labelgate") / "examples" / "02-host-endpoint.yaml"))
        >>> compiler = labelgate.Compiler(labelgate.Snapshot(), node="edge1")
        >>> compiler.apply(put=snapshot.resources()).governs_something
        True
        >>> table = compiler.apply(remove=["GlobalNetworkPolicy/edge-host"])
        >>> compiler.snapshot
        Snapshot(host_endpoints: 1)
        """
        changed: dict[str, Resource | None] = {_key(item): None for item in _several("remove", remove)}
        changed |= _by_key("put", put)
        with self._editing:
            return self._edit(changed)

    def follow(self, resources: Iterable[Resource]) -> DecisionTable:
        """Makes these the resources; gives the new table. One that is the same object costs nothing.

        Raises:
            TypeError, ValueError: as `apply`.

        >>> import labelgate
        >>> from importlib.resources import files
        >>> compiler = labelgate.Compiler(labelgate.Snapshot(), node="edge1")
        >>> later = labelgate.load(str(files("labelgate") / "examples" / "02-host-endpoint.yaml"))
        >>> table = compiler.follow(later.resources())
        >>> compiler.snapshot == later
        True
        """
        wanted = _by_key("resources", resources)
        with self._editing:
            before = self._state.resources
            changed: dict[str, Resource | None] = dict.fromkeys(before.keys() - wanted.keys())
            return self._edit(
                changed | {key: one for key, one in wanted.items() if before.get(key) is not one}
            )

    def _edit(self, changed: Mapping[str, Resource | None]) -> DecisionTable:
        """What has changed by key, None where it is gone."""
        state = self._state
        resources = state.resources.copy()
        for key, new in changed.items():
            resources.pop(key, None)
            if new is not None:
                resources[key] = new
        if self._follows_settings and any(key.startswith(_SETTINGS) for key in changed):
            documents = (one for key, one in resources.items() if key.startswith(_SETTINGS))
            settings = Snapshot.of(documents).settings(self._node)
            if settings != state.settings:
                self._state = self._begun(Snapshot.of(resources.values()), settings)
                return self._state.table
        touched = _touched(state, changed)
        core = state.core or self._made_core(Snapshot.of(state.resources.values()), state.settings)
        changes = [change for name, group in touched.items() for change in self._changes(state, name, group)]
        groups = state.groups.copy()
        for name, group in touched.items():
            groups[name] = group
            if not group:
                del groups[name]
        # Should anything go wrong now, the core may have changed or not: the next edit makes it anew.
        self._state = replace(state, core=None)
        program = core.apply(json.dumps(changes).encode())
        edited = replace(state, core=core, resources=resources, groups=groups)
        try:
            table = DecisionTable(program, self.host, state.settings)
        except ValueError:
            self._state = edited
            raise
        self._state = replace(edited, table=table)
        return table

    def _begun(self, snapshot: Snapshot, settings: Settings) -> _State:
        """A state that owes nothing to one of before."""
        core = self._made_core(snapshot, settings)
        resources = {resource.key: resource for resource in snapshot.resources()}
        groups: dict[str, dict[str, Resource]] = {}
        for key, resource in resources.items():
            groups.setdefault(_group(resource), {})[key] = resource
        table = DecisionTable(core.apply(b"[]"), self.host, settings)
        return _State(core, settings, resources, groups, table)

    def _made_core(self, snapshot: Snapshot, settings: Settings) -> _core.Compiler:
        model = core_model(snapshot, settings, staged=self._staged)
        budgets = self._budgets.json() if self._budgets else None
        return _core.Compiler(model, node_name(self._node), budgets)

    def _changes(self, state: _State, name: str, group: Mapping[str, Resource]) -> Iterable[dict[str, Any]]:
        """From the parts of the model that a group had to those that it has; what is built in comes back."""
        old, new = self._parts(state.groups.get(name, {}), state), self._parts(group, state)
        for key in old.keys() - new.keys():
            yield {"remove": key}
        for key, part in new.items():
            if old.get(key) != part:
                yield {"put": part}

    def _parts(self, group: Mapping[str, Resource], state: _State) -> _Parts:
        return core_parts(Snapshot.of(group.values()), state.settings, staged=self._staged)


_SETTINGS = "FelixConfiguration/"
"""What keys of documents with settings begin with."""


def _several(name: str, items: Iterable[_T]) -> Iterable[_T]:
    """A text is an iterable, too, of letters: none of them would be a key that is there."""
    if isinstance(items, str | Resource | Snapshot) or not isinstance(items, Iterable):
        raise TypeError(f"{name}: expected a list of resources, found one {type(items).__name__}")
    return items


def _by_key(name: str, items: Iterable[Resource]) -> dict[str, Resource]:
    found: dict[str, Resource] = {}
    for resource in _several(name, items):
        if not isinstance(resource, Resource):
            raise TypeError(f"{name}: expected resources, found {type(resource).__name__}")
        found[resource.key] = resource
    return found


def _key(item: Resource | str) -> str:
    if isinstance(item, Resource):
        return item.key
    if not isinstance(item, str):
        raise TypeError(f"remove: expected resources or keys, found {type(item).__name__}")
    if "/" not in item:
        raise ValueError(f"remove: expected a key such as `Tier/name`, found `{item}`")
    kind = item.partition("/")[0]
    if kind not in FIELDS:
        hint = did_you_mean(kind, FIELDS) or f"kinds are {', '.join(FIELDS)}"
        raise ValueError(
            f"remove: found a key of kind `{kind}`, expected one as `Resource.key` has it: {hint}"
        )
    return item


def _touched(state: _State, changed: Mapping[str, Resource | None]) -> dict[str, dict[str, Resource]]:
    """The groups that a change touches, as they are with it; empty where nothing is left."""
    touched: dict[str, dict[str, Resource]] = {}
    for key, new in changed.items():
        old = state.resources.get(key)
        if old is not None:
            del touched.setdefault(_group(old), {**state.groups[_group(old)]})[key]
        if new is not None:
            touched.setdefault(_group(new), {**state.groups.get(_group(new), {})})[key] = new
    return touched


def _group(resource: Resource) -> str:
    """Resources of one group can make the same part of a model; those of different groups never do."""
    metadata = resource.metadata
    match resource:
        case Namespace():
            return f"Profile/kns.{metadata.name}"
        case ServiceAccount():
            return f"Profile/ksa.{metadata.namespace}.{metadata.name}"
        case Profile():
            return f"Profile/{metadata.name}"
        case EndpointSlice() if resource.service:
            return f"Service/{metadata.namespace}/{resource.service}"
    return resource.key
