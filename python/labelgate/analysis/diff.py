"""What an edit of policy changes: every verdict, of every endpoint, for every packet; nothing is sampled.

`diff` compares what two sets of resources decide, at all seven hooks, about new connections and single
packets. `docs/diff.md` says what it does not see.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Any

from labelgate.analysis.addresses import IPV4, IPV6, points
from labelgate.analysis.changes import Change, changes_of, merged
from labelgate.analysis.judged import comparisons, states
from labelgate.analysis.naming import Names
from labelgate.settings import HostFacts, Settings
from labelgate.snapshot import Snapshot


@dataclass(frozen=True)
class SettingChange:
    """A setting that changes verdicts, with another value."""

    name: str
    old: str
    new: str
    widens: bool
    """Whether it may let more through."""
    scope: str
    """The node, or `all workloads`."""


@dataclass(frozen=True)
class Difference:
    """Everything that changes, widest first."""

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


SettingsOf = Callable[[Snapshot, str | None], Settings]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Two snapshots are a large heap: looking for garbage in it, of which there is none, takes as long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collector()
def diff(
    old: Snapshot,
    new: Snapshot,
    *,
    node: str | None = None,
    host: HostFacts | None = None,
    settings_of: SettingsOf = lambda snapshot, node: Settings(),
) -> Difference:
    """Compares two snapshots: of one node, or (None) all workloads and the host endpoints of every node.

    Without `host` every host endpoint is taken to have its interface, with its expected addresses.

    >>> import labelgate
    >>> from importlib.resources import files
    >>> policy = labelgate.load(files("labelgate") / "examples" / "02-host-endpoint.yaml")
    >>> bool(diff(policy, policy))
    False
    """
    names = Names(old, new)
    known = {
        family: points(family, sorted({int(one) for found in names.endpoints.values()
                                       for one in map(ip_address, found.addresses) if one.version == family}))
        for family in (IPV4, IPV6)
    }  # fmt: skip
    found: list[Change] = []
    others: list[SettingChange] = []
    nodes = {one.spec.node for side in (old, new) for one in side.host_endpoints}
    scopes: list[tuple[str | None, bool]] = [(node, True)]
    scopes += [(name, False) for name in sorted(nodes if node is None else nodes & {node})]
    pairs: dict[str | None, Any] = {}
    models: dict[tuple[int, Settings], bytes] = {}
    for name, workloads in scopes:
        settings = (settings_of(old, name), settings_of(new, name))
        if name not in pairs:
            pairs[name] = states(old, new, name, settings, host, models)
            others += _setting_changes(*settings, name or "all workloads")
        for comparison in comparisons(pairs[name], workloads=workloads):
            found += changes_of(comparison, known)
    ordered = sorted(merged(found), key=lambda change: (-change.width(), change.kind, change.direction))
    return Difference(tuple(ordered), tuple(_once(others)), names)


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


def _setting_changes(old: Settings, new: Settings, scope: str) -> list[SettingChange]:
    found: list[SettingChange] = []
    for field in fields(Settings):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            order = _ORDER.get(field.name)
            wider = order.index(after) > order.index(before) if order else field.name not in _SHOWN
            found.append(SettingChange(field.name, _value(before), _value(after), wider, scope))
    return found


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _once(changes: list[SettingChange]) -> list[SettingChange]:
    """Where all scopes have the same change it is told once."""
    seen: dict[tuple[str, str, str], SettingChange] = {}
    for change in changes:
        seen.setdefault((change.name, change.old, change.new), change)
    return list(seen.values())
