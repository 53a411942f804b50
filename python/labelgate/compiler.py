"""A decision table that follows its resources: an edit compiles only what it touches."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from labelgate import _core
from labelgate.arguments import check_type
from labelgate.engines import Budgets
from labelgate.model import core_model, core_parts, node_name
from labelgate.resources import EndpointSlice, Namespace, Profile, Resource, ServiceAccount
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot, check_compile
from labelgate.table import DecisionTable

_T = TypeVar("_T")
_Parts = dict[str, dict[str, dict[str, Any]]]


class Compiler:
    """Keeps the resources of a snapshot, and the table of them as they are now.

    Answers are those of `Snapshot.compile` with the same resources, whatever was there before. Tables of
    before stay what they are: whoever asks one is never stopped. Outcome ids are those of the table that
    gave them.

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
        check_compile(host, settings, budgets)
        self.host = host or HostFacts({})
        """What the next tables are bound to."""
        self.settings = settings or snapshot.settings(node)
        """What the tables are made by."""
        self._follows_settings = settings is None
        self._node, self._staged, self._budgets = node, staged, budgets
        model = core_model(snapshot, self.settings, staged=staged)
        self._core = _core.Compiler(model, node_name(node), budgets.json() if budgets else None)
        self._resources = {resource.key: resource for resource in snapshot.resources()}
        self._groups: dict[str, dict[str, Resource]] = {}
        for key, resource in self._resources.items():
            self._groups.setdefault(_group(resource), {})[key] = resource
        self.table = self._bound(self._compiled([]))
        """The decisions of the resources as they are now."""

    @property
    def snapshot(self) -> Snapshot:
        """The resources as they are now."""
        return Snapshot.of(self._resources.values())

    def apply(self, *, put: Iterable[Resource] = (), remove: Iterable[Resource | str] = ()) -> DecisionTable:
        """Takes resources out, then puts resources in the place of those of one key; gives the new table.

        `remove` takes resources, or keys as `Resource.key` has them; one that is not there is no error.

        Raises:
            TypeError: one text or resource is passed where several are expected, or something else in them.
            ValueError: a key is none; or the core refuses what validation let pass: nothing has changed. Or
                `host` cannot be read: the resources have changed, `table` has not.
        """
        changed: dict[str, Resource | None] = {_key(item): None for item in _several("remove", remove)}
        for resource in _several("put", put):
            if not isinstance(resource, Resource):
                raise TypeError(f"put: expected resources, found {type(resource).__name__}")
            changed[resource.key] = resource
        if self._follows_settings and any(key.startswith(_SETTINGS) for key in changed):
            resources = {key: one for key, one in {**self._resources, **changed}.items() if one is not None}
            settings = Snapshot.of(
                one for key, one in resources.items() if key.startswith(_SETTINGS)
            ).settings(self._node)
            if settings != self.settings:
                return self._begin_anew(Snapshot.of(resources.values()))
        groups: dict[str, dict[str, Resource]] = {}
        for key, new in changed.items():
            old = self._resources.get(key)
            if old is not None:
                del groups.setdefault(_group(old), dict(self._groups[_group(old)]))[key]
            if new is not None:
                groups.setdefault(_group(new), dict(self._groups.get(_group(new), {})))[key] = new
        program = self._compiled(
            [change for name, group in groups.items() for change in self._changes(name, group)]
        )
        for name, group in groups.items():
            self._groups[name] = group
            if not group:
                del self._groups[name]
        for key, new in changed.items():
            self._resources.pop(key, None)
            if new is not None:
                self._resources[key] = new
        self.table = self._bound(program)
        return self.table

    def follow(self, resources: Iterable[Resource]) -> DecisionTable:
        """Makes these the resources; gives the new table. One that is the same object costs nothing.

        Raises:
            ValueError: as `apply`.
        """
        wanted = {resource.key: resource for resource in resources}
        put = [resource for key, resource in wanted.items() if self._resources.get(key) is not resource]
        return self.apply(put=put, remove=self._resources.keys() - wanted.keys())

    def _begin_anew(self, snapshot: Snapshot) -> DecisionTable:
        """With the settings that the snapshot has; nothing has changed if that fails."""
        other = Compiler(
            snapshot, node=self._node, host=self.host, staged=self._staged, budgets=self._budgets
        )
        vars(self).update(vars(other))
        return self.table

    def _compiled(self, changes: list[dict[str, Any]]) -> _core.Program:
        return self._core.apply(json.dumps(changes).encode())

    def _bound(self, program: _core.Program) -> DecisionTable:
        return DecisionTable(program, self.host, self.settings)

    def _changes(self, name: str, group: dict[str, Resource]) -> Iterable[dict[str, Any]]:
        """From the parts of the model that a group had to those that it has; what is built in comes back."""
        old, new = self._parts(self._groups.get(name, {})), self._parts(group)
        for key in old.keys() - new.keys():
            yield {"remove": key}
        for key, part in new.items():
            if old.get(key) != part:
                yield {"put": part}

    def _parts(self, group: dict[str, Resource]) -> _Parts:
        return core_parts(Snapshot.of(group.values()), self.settings, staged=self._staged)


_SETTINGS = "FelixConfiguration/"
"""What keys of documents with settings begin with."""


def _several(name: str, items: Iterable[_T]) -> Iterable[_T]:
    """A text is an iterable, too, of letters: none of them would be a key that is there."""
    if isinstance(items, str | Resource | Snapshot) or not isinstance(items, Iterable):
        raise TypeError(f"{name}: expected a list of resources, found one {type(items).__name__}")
    return items


def _key(item: Resource | str) -> str:
    if isinstance(item, Resource):
        return item.key
    if not isinstance(item, str):
        raise TypeError(f"remove: expected resources or keys, found {type(item).__name__}")
    if "/" not in item:
        raise ValueError(f"remove: expected a key such as `Tier/name`, found `{item}`")
    return item


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
