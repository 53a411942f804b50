"""What an edit of policy changes: every verdict, of every endpoint, for every packet; nothing is sampled.

`diff` compares what two sets of resources decide, at all seven hooks, about new connections and single
packets. `docs/diff.md` says what it does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.changes import Change, changes_of, forget, merged
from labelgate.analysis.judged import Compiled, Place, States, comparisons, host_places, workload_places
from labelgate.analysis.naming import Names
from labelgate.analysis.spoofing import source_changes
from labelgate.arguments import check_type
from labelgate.model import node_name
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot, check_compile, check_node
from labelgate.sources.files import without_collection
from labelgate.tabular import Tabular


@dataclass(frozen=True)
class SettingChange:
    """A setting that changes verdicts, with another value."""

    name: str
    old: str
    new: str
    widens: bool
    """Whether it may let more through."""
    scope: str
    """The nodes, or `all nodes`, or `other nodes`: those that nothing names."""


@dataclass(frozen=True)
class Difference(Tabular):
    """Everything that changes, widest first. As a table it has one row for each change of verdicts."""

    changes: tuple[Change, ...]
    settings: tuple[SettingChange, ...]
    names: Names
    """Words for the groups in the changes."""

    @property
    def widens(self) -> bool:
        """Whether anything gets through that did not before."""
        return any(change.widens for change in self.changes) or any(one.widens for one in self.settings)

    def __bool__(self) -> bool:
        return bool(self.changes or self.settings)

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """What a line of `labelgate diff` says, part by part; changes of settings are in `settings`."""
        words = [
            (
                one.kind, one.direction, self.names.group(one.endpoints), one.presence,
                None if one.own is None else self.names.peers(one.own), self.names.peers(one.peers),
                one.services.text(), one.old, one.new,
            )
            for one in self.changes
        ]  # fmt: skip
        names = ("kind", "direction", "endpoints", "presence", "own", "peers", "services", "old", "new")
        table = np.array(words, object).reshape(len(words), len(names))
        counts = np.array([len(one.endpoints) for one in self.changes], np.uint32)
        widens = np.array([one.widens for one in self.changes], np.bool_)
        return {**{name: table[:, at] for at, name in enumerate(names)}, "count": counts, "widens": widens}

    def caption(self) -> str:
        """How many changes there are."""
        wider = sum(one.widens for one in self.changes) + sum(one.widens for one in self.settings)
        count = len(self.changes) + len(self.settings)
        if not count:
            return "no verdict changes"
        return f"{count} change{'s' if count > 1 else ''}, {wider} of them let more through"

    def __repr__(self) -> str:
        """One line."""
        return f"Difference({self.caption()})"


SettingsOf = Callable[[Snapshot, str | None], Settings]
"""Of a snapshot the settings of a node; None: of a node that has none of its own."""
_Pairs = Mapping[str | None, tuple[Settings, Settings]]


@without_collection()
def diff(
    old: Snapshot,
    new: Snapshot,
    *,
    node: str | None = None,
    host: HostFacts | None = None,
    settings_of: SettingsOf = Snapshot.settings,
) -> Difference:
    """Compares two snapshots: of one node, or (None) the workloads and host endpoints of every node.

    Each node is judged with its own settings: what the FelixConfiguration documents of the snapshot say,
    if `settings_of` does not say otherwise.
    Without `host` every host endpoint is taken to have its interface, with its expected addresses.

    Raises:
        TypeError: an argument is not what it is to be.
        ValueError: `node` is one that no endpoint of either snapshot is on.

    >>> import labelgate
    >>> from importlib.resources import files
    >>> policy = labelgate.load(files("labelgate") / "examples" / "02-host-endpoint.yaml")
    >>> bool(diff(policy, policy))
    False
    """
    check_type("old", old, Snapshot, "a Snapshot")
    check_type("new", new, Snapshot, "a Snapshot")
    check_compile(host=host)
    node = node_name(node)
    if node is not None:
        check_node(node, old, new)
    nodes: list[str | None] = [None, *sorted(_nodes(old, new))] if node is None else [node]
    pairs = {name: (settings_of(old, name), settings_of(new, name)) for name in nodes}
    compiled = Compiled((old, new), host, node)
    by_settings = _by_settings(compiled.snapshots, pairs) if node is None else {pairs[node]: None}
    for both in by_settings:
        compiled.begin(node, both)
    names = Names(old, new)
    known = names.addresses()
    workloads = [(compiled.states(node, both), chosen) for both, chosen in by_settings.items()]
    if node is None:
        hosts = _hosts(compiled, pairs)
    else:
        hosts = iter([(pair, host_places(pair)) for pair, _ in workloads])
    places = ((pair, workload_places(pair, chosen)) for pair, chosen in workloads)
    changes = [
        change
        for one in comparisons(chain(places, hosts), compiled.numbers)
        for change in changes_of(one, known)
    ]
    forget()
    changes += (change for pair, chosen in workloads for change in source_changes(pair, chosen, known))
    ordered = sorted(merged(changes), key=lambda change: (-change.width(), change.kind, change.direction))
    return Difference(tuple(ordered), tuple(_settings_told(pairs)), names)


def _nodes(*snapshots: Snapshot) -> set[str]:
    """Those of endpoints, and those with settings of their own."""
    own = {
        document.metadata.name.removeprefix("node.")
        for one in snapshots
        for document in one.felix_configurations
        if document.metadata.name.startswith("node.")
    }
    return own.union(*(one.nodes() for one in snapshots))


def _hosts(compiled: Compiled, pairs: _Pairs) -> Iterator[tuple[States, Iterator[Place]]]:
    """Node by node: a table of each is not kept."""
    for name in sorted({one.spec.node for side in compiled.snapshots for one in side.host_endpoints}):
        pair = compiled.states(name, pairs[name])
        yield pair, host_places(pair)


def _by_settings(
    snapshots: tuple[Snapshot, Snapshot], pairs: _Pairs
) -> Mapping[tuple[Settings, Settings], set[str] | None]:
    """Names of workloads by what applies to them then and now: a table of each, and who is asked of it.

    One that moves has in either state the settings of its node then.
    """
    homes = tuple(one.workload_nodes() for one in snapshots)
    by_homes: dict[tuple[str | None, str | None], set[str]] = {}
    for name in homes[0].keys() | homes[1].keys():
        old, new = (home.get(name) for home in homes)
        home = (new if old is None else old) or None, (old if new is None else new) or None
        by_homes.setdefault(home, set()).add(name)
    found: dict[tuple[Settings, Settings], set[str]] = {}
    for (first, second), names in by_homes.items():
        found.setdefault((pairs[first][0], pairs[second][1]), set()).update(names)
    return found


_ORDER: dict[str, tuple[Any, ...]] = {
    "endpoint_to_host": ("Drop", "Return", "Accept"),
    "filter_allow": ("Return", "Accept"),
    "invalid_check": (True, False),
    "forward_unmarked": ("deny", "return", "accept"),
    "exempt_loopback": (False, True),
    "workload_ipip_denied": (True, False),
}
"""From narrow to wide. Any other change may let more through."""
_SHOWN = {"failsafe_inbound", "failsafe_outbound", "workload_vxlan_port", "filter_deny"}
"""Where more gets through, these show as changes of verdicts."""


def _setting_changes(old: Settings, new: Settings) -> list[SettingChange]:
    found: list[SettingChange] = []
    for field in fields(Settings):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            order = _ORDER.get(field.name)
            wider = order.index(after) > order.index(before) if order else field.name not in _SHOWN
            found.append(SettingChange(field.name, _value(before), _value(after), wider, scope=""))
    return found


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _settings_told(pairs: _Pairs) -> Iterator[SettingChange]:
    """Every change of a setting once, with the nodes that have it."""
    scopes: dict[SettingChange, list[str | None]] = {}
    for name, (old, new) in pairs.items():
        for change in _setting_changes(old, new):
            scopes.setdefault(change, []).append(name)
    for change, names in scopes.items():
        nodes = [name for name in names if name is not None]
        scope = "all nodes" if len(names) == len(pairs) > 1 or not pairs.keys() - {None} else ", ".join(nodes)
        yield replace(change, scope=scope or "other nodes")
