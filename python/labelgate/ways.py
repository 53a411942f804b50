"""Flows by column, and their way through a node: what `path` is for one packet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from labelgate.flow import CT_STATES, VERDICTS, Hook, IPAddress
from labelgate.path import Interfaces
from labelgate.table import DecisionTable

Rows = NDArray[np.intp]

_UNTRACKED = CT_STATES.index("untracked")
_NOTRACK, _MARKED = (VERDICTS.index(word) for word in ("allow-notrack", "allow-skip-hep"))


@dataclass(frozen=True, slots=True)
class Flows:
    """Flows of one IP version, each in the direction of who began it; every array has n values."""

    src: NDArray[Any]
    """uint32 (n,) or uint8 (n, 16)."""
    dst: NDArray[Any]
    target: NDArray[Any]
    """The destination behind DNAT: `dst` where nothing translates it."""
    protocol: NDArray[np.uint8]
    sport: NDArray[np.uint16]
    """ICMP: the id."""
    dport: NDArray[np.uint16]
    """ICMP: `type << 8 | code`."""
    target_port: NDArray[np.uint16]
    """`dport` behind DNAT."""
    answered: NDArray[np.bool_]
    """The other side has sent something."""

    def __len__(self) -> int:
        return len(self.protocol)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self.src.ndim == 1 else 6

    def address(self, side: NDArray[Any], row: int) -> IPAddress:
        """The address of a row of `src`, `dst` or `target`."""
        value = side[row]
        return IPv4Address(int(value)) if self.version == 4 else IPv6Address(value.tobytes())

    def pick(self, rows: NDArray[Any]) -> Self:
        """Those of these rows."""
        columns = {one.name: getattr(self, one.name) for one in fields(self)}
        picked = {
            name: np.ascontiguousarray(column[rows])
            for name, column in columns.items()
            if isinstance(column, np.ndarray)
        }
        return replace(self, **picked)

    @property
    def translated(self) -> NDArray[np.bool_]:
        """Those that DNAT gives another destination, which is known."""
        differs = self.target != self.dst
        moved = differs if self.version == 4 else differs.any(1)
        found: NDArray[np.bool_] = moved | (self.target_port != self.dport)
        return found

    def behind_dnat(self) -> Self:
        """The same flows as they are seen once DNAT has translated them."""
        return replace(self, dst=self.target, dport=self.target_port)


def groups(keys: NDArray[Any]) -> Iterator[Rows]:
    """The rows of each key, in order of the keys.

    >>> [rows.tolist() for rows in groups(np.array([7, 3, 7]))]
    [[1], [0, 2]]
    """
    if len(keys):
        order = np.argsort(keys, kind="stable")
        begins = np.flatnonzero(np.diff(keys[order])) + 1
        yield from np.split(order, begins)


class Walk:
    """What each hook says of the first packets of flows, and what of it the next one has to know."""

    def __init__(self, table: DecisionTable, flows: Flows, ct: NDArray[np.uint8]) -> None:
        """`ct` are the states of the packets, as in `labelgate.flow.CT_STATES`."""
        self.flows = flows
        self.ct = ct.copy()
        """Untracked where a hook before has said so (E-60)."""
        self._table = table
        self._accepted = np.zeros(len(flows), np.bool_)
        self._is_back = np.zeros(len(flows), np.bool_)
        self._translated = flows.translated

    def is_translated(self, hook: Hook, rows: Rows) -> NDArray[np.bool_]:
        """Those that DNAT sends elsewhere before the hook sees them (E-70): no untracked ones (E-62)."""
        is_behind = self._is_back[rows] | (hook.startswith("filter") or hook == "mangle-postrouting")
        found: NDArray[np.bool_] = is_behind & self._translated[rows] & (self.ct[rows] != _UNTRACKED)
        return found

    def come_back(self, rows: Rows) -> None:
        """They have gone out over `lo`, and come in there, as `labelgate.path.walk` has it."""
        self._is_back[rows], self._accepted[rows] = True, False

    def ask(self, hook: Hook, rows: Rows, way: Interfaces) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """Verdicts and outcome ids, as of `DecisionTable.decide_batch`."""
        flows, (in_, out) = self.flows, way
        moved = self.is_translated(hook, rows)
        by_address = moved if flows.version == 4 else moved[:, np.newaxis]
        verdicts, outcomes = self._table.decide_batch(
            hook,
            np.ascontiguousarray(flows.src[rows]),
            np.where(by_address, flows.target[rows], flows.dst[rows]),
            flows.protocol[rows],
            flows.sport[rows],
            np.where(moved, flows.target_port[rows], flows.dport[rows]),
            in_=in_,
            # It is not known before routing.
            out=None if hook.endswith("prerouting") else out,
            ct=self.ct[rows],
            accepted=self._accepted[rows],
            dnatted=moved if in_ is None else np.zeros(len(rows), np.bool_),
        )
        # The accept mark travels on (E-48).
        self._accepted[rows] |= (verdicts == _NOTRACK) | (verdicts == _MARKED)
        self.ct[rows[(verdicts == _NOTRACK) & ~self._is_back[rows]]] = _UNTRACKED
        return verdicts, outcomes
