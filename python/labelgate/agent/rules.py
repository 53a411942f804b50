"""How often rules were met, over all tables that the daemon has put in force, and those of before.

The packet loop counts by table; here counts of tables that are over are added up, and what the kernel counts
where its rules answer (`kernel_counts`). A rule is the same one as
long as its policy, direction and content are: rules that come or go above it do not matter.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labelgate import _core
from labelgate.agent.clock import Clock
from labelgate.agent.clock import now as _now
from labelgate.agent.contents import Contents
from labelgate.agent.generation import Generation
from labelgate.agent.hits import KEY_WORDS, Key, hit_row, name_of
from labelgate.agent.kernel_counts import KernelCounts
from labelgate.handlers import PacketLoop
from labelgate.resources import Resource
from labelgate.snapshot import Snapshot

MOST_KEPT = 100_000
"""Rules whose counts are kept; of more, those that were met last."""
MOST_NAMES = 4_000
"""Who denied, by name; who comes later is one of `OTHERS`."""
OTHERS = "(others)"
MOST_GAP = 600_000
"""Milliseconds between two daemons for which `since` goes on."""


@dataclass
class _Count:
    packets: int = 0
    last_hit: int = 0
    """Milliseconds since 1970."""

    def add(self, packets: int, last_hit: int) -> None:
        self.packets += packets
        self.last_hit = max(self.last_hit, last_hit)


@dataclass(frozen=True)
class _Swap:
    """A table that was put in force, and when."""

    number: int
    snapshot: Snapshot
    core: _core.Table
    time: int


@dataclass(frozen=True, eq=False)
class _Policies:
    """What a table was made from; the table itself is not kept."""

    snapshot: Snapshot
    resources: Mapping[str, Resource]


class RuleCounts:
    """Adds up what the packet loop counts. It gives the last words of a table once: there is one of these."""

    def __init__(self, loop: PacketLoop, first: Generation, kernel: KernelCounts | None = None) -> None:
        """`kernel`: what rules of the kernel count; None: nothing."""
        self._loop, self._kernel = loop, kernel
        self._lock = threading.Lock()
        """For all that follows but `_swaps`: a change waits for nobody who reads."""
        self._swaps: deque[_Swap] = deque()
        self._sums: defaultdict[Key, _Count] = defaultdict(_Count)
        """Of tables that are over, and of the kernel."""
        self._met: dict[Key, None] = {}
        """Rules in the order in which they were met first."""
        self._denied: Counter[str] = Counter()
        """Packets of tables that are over, by who denied, in the order in which that was seen first."""
        self._contents = Contents()
        self._clock = Clock()
        self._policies: dict[int, _Policies] = {}
        """By the loop's number of a table, until its counts are over."""
        self._told, self._changes = 0, 0
        """A checksum of what the packet loop has told last; and how often anything was another one."""
        self._began, self._latest = _now(), 1
        self._follow(_Swap(1, first.snapshot, first.table.core, self._began))

    def swapped(self, number: int, generation: Generation) -> None:
        """The packet loop answers by this generation; `number` is the loop's own."""
        self._swaps.append(_Swap(number, generation.snapshot, generation.table.core, _now()))

    def catch_up(self) -> None:
        """Takes over the counts of tables that are over, so that these can go; waits for nobody."""
        if self._lock.acquire(blocking=False):
            try:
                if self._swaps or len(self._policies) > 1:
                    self._read()
                else:
                    self._take_from_kernel()
            finally:
                self._lock.release()

    def rows(self) -> dict[str, Any]:
        """The rules in force, and what else packets met, as `labelgate rules -o json` prints it."""
        with self._lock:
            counted = self._read()[0]
            rows = self._rows(json.loads(self._core.rules()), counted)
            return {"since": self._clock.mended(self._began), "rules": [row for _, row in rows]}

    def met(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Of `rows` those that packets met, in the order in which they were met first; and `denied`."""
        with self._lock:
            counted, denied = self._read()
            policies = {key[1] for key in counted}
            rules = [rule for rule in json.loads(self._core.rules()) if rule["policy"] in policies]
            found = {key: row for key, row in self._rows(rules, counted) if row["packets"]}
            return [hit_row(found[key], key) for key in self._met if key in found], denied

    def denied(self) -> dict[str, int]:
        """Packets that were denied, by policy or by what denied without one, also by rules that are gone.

        The sums never go back, and who denied first stays first.
        """
        with self._lock:
            return self._read()[1]

    def changes(self) -> tuple[int, int]:
        """Another number whenever `saved` would give something else than before; and the time now."""
        with self._lock:
            self._read()
            return self._changes + (self._kernel.changes if self._kernel else 0), _now()

    def saved(self) -> dict[str, Any]:
        """All counts, for the daemon that comes after this one."""
        with self._lock:
            counted = self._read()[0]
            names = {rule["policy"] for rule in json.loads(self._core.rules())}
            policies = [(name, self._policies[self._latest].resources.get(name)) for name in names]
            mended = self._clock.mended
            return {
                "time": _now(),
                "began": mended(self._began),
                "rules": [[key, count.packets, mended(count.last_hit)] for key, count in counted.items()],
                "policies": {
                    name: [self._contents.digest(policy), mended(self._contents.since(policy))]
                    for name, policy in policies
                    if policy is not None
                },
                "kernel": self._kernel.saved(mended) if self._kernel else None,
            }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Goes on where the daemon before this one has ended; what that saw is known by what it is.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: not what `saved` gives; nothing has changed.
        """
        rules = [(_key_of(key), _natural(packets), _natural(last)) for key, packets, last in saved["rules"]]
        policies = {
            str(name): (str(digest), _natural(since)) for name, (digest, since) in saved["policies"].items()
        }
        until, began = _natural(saved["time"]), _natural(saved["began"])
        kernel = saved.get("kernel")
        counted = None if kernel is None else _kernel_counts(kernel)
        with self._lock:
            if self._kernel and counted:
                self._kernel.restore(*counted)
            self._take_swaps()
            for key, packets, last in rules:
                self._met.setdefault(key)
                self._sums[key].add(packets, last)
            if self._began - until > MOST_GAP:
                return  # Nobody knows what would have met them meanwhile.
            self._began = min(self._began, began)
            for name, (digest, since) in policies.items():
                policy = self._policies[self._latest].resources.get(name)
                if policy is not None and digest == self._contents.digest(policy):
                    self._contents.set_since(policy, since)

    def _follow(self, swap: _Swap) -> None:
        latest = self._policies.get(self._latest)
        if latest is None or swap.snapshot is not latest.snapshot:
            latest = _Policies(swap.snapshot, {found.key: found for found in swap.snapshot.resources()})
            self._contents.see(latest.resources.values(), swap.time)
        self._policies[swap.number] = latest
        self._latest, self._core = swap.number, swap.core

    def _read(self) -> tuple[dict[Key, _Count], dict[str, int]]:
        """All counts now, by rule and by who denied."""
        text = self._loop.rule_counts()
        tables = json.loads(text)
        # After that: a table that is over was followed by another, and so has been told of.
        fresh = self._take_swaps()
        told = zlib.crc32(text.encode())
        self._changes += bool(fresh) or told != self._told
        self._told = told
        now: defaultdict[Key, _Count] = defaultdict(_Count)
        denied: Counter[str] = Counter()
        over, alive = set[int](), set[int]()
        for table in tables:
            number, is_over = table["generation"], table["isOver"]
            (over if is_over else alive).add(number)
            # Else it is being put in force this moment, and counted the next time.
            if policies := self._policies.get(number):
                self._add(table["rules"], policies, self._sums if is_over else now)
                self._add_denied(table["rules"], self._denied if is_over else denied)
        # The one in force may be counted under the number of one that had the same program.
        kept = {self._latest} | ((alive | fresh) - over)
        self._policies = {number: found for number, found in self._policies.items() if number in kept}
        self._take_from_kernel()
        self._cut(now)
        for key, count in self._sums.items():
            now[key].add(count.packets, count.last_hit)
        return dict(now), {name: count + denied[name] for name, count in self._denied.items()}

    def _take_from_kernel(self) -> None:
        """Whenever it was that packets came since the last look, they are seen now."""
        self._changes += self._clock.look()
        now = _now()
        for meaning, packets in self._kernel.take() if self._kernel else ():
            self._changes += 1
            for key in meaning:
                self._met.setdefault(key)
                self._sums[key].add(packets, now)
                tier, policy, _, reason, *_, action = key
                if action == "Deny":
                    self._add_denial(name_of(policy, reason, tier), packets, self._denied)

    def _take_swaps(self) -> set[int]:
        """The numbers of tables that were put in force since the last time."""
        fresh = set()
        while self._swaps:
            swap = self._swaps.popleft()
            self._follow(swap)
            fresh.add(swap.number)
        return fresh

    def _add(self, rules: Iterable[Any], policies: _Policies, into: defaultdict[Key, _Count]) -> None:
        for rule in rules:
            key = self._key(rule, policies)
            self._met.setdefault(key)
            into[key].add(rule["packets"], rule["lastHit"])

    def _add_denied(self, rules: Iterable[Any], into: Counter[str]) -> None:
        for rule in rules:
            if rule["action"] == "Deny":
                name = name_of(rule["policy"], rule["reason"], rule["tier"])
                self._add_denial(name, rule["packets"], into)

    def _add_denial(self, name: str, packets: int, into: Counter[str]) -> None:
        if name not in self._denied and len(self._denied) >= MOST_NAMES:
            name = OTHERS
        self._denied.setdefault(name, 0)
        into[name] += packets

    def _cut(self, now: Mapping[Key, _Count]) -> None:
        if len(self._sums) > MOST_KEPT:
            latest = sorted(self._sums, key=lambda key: self._sums[key].last_hit)[-MOST_KEPT:]
            self._sums = defaultdict(_Count, {key: self._sums[key] for key in latest})
            self._met = {key: None for key in self._met if key in self._sums or key in now}

    def _rows(
        self, rules: Iterable[dict[str, Any]], counted: Mapping[Key, _Count]
    ) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Of these rules in force, and of what stands in the place of rules."""
        policies, seen = self._policies[self._latest], set()
        for rule in rules:
            key = self._key(rule, policies)
            seen.add(key)
            yield key, self._row(rule, key, counted.get(key), policies)
        for key, count in counted.items():
            if key not in seen and key[4] is None:
                yield key, self._row(_reason(key), key, count, policies)

    def _row(
        self, rule: dict[str, Any], key: Key, count: _Count | None, policies: _Policies
    ) -> dict[str, Any]:
        """One rule; `packets` is null where nothing is counted, `lastHit` where nothing has been met."""
        uncounted, since, mended = rule["uncounted"], 0, self._clock.mended
        if self._kernel:
            since = self._kernel.since(key)
            if uncounted in ("kernel", None) and not self._kernel.is_off:
                uncounted = None if self._kernel.counts_all(key) else "kernel"
        fields = ("tier", "policy", "direction", "rule", "action", "reason")
        resource = policies.resources.get(rule["policy"])
        return {
            **{name: rule[name] for name in fields},
            "uncounted": uncounted,
            "packets": count.packets if count else None if uncounted else 0,
            "lastHit": mended(count.last_hit) if count else None,
            "since": mended(max(since, self._began if resource is None else self._contents.since(resource))),
            "inKernel": since > 0,
        }

    def _key(self, rule: Mapping[str, Any], policies: _Policies) -> Key:
        return self._contents.key(rule, policies.resources.get(rule["policy"]))


def _natural(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("no number of packets, and no time")
    return value


def _key_of(value: Any) -> Key:
    if not isinstance(value, list) or len(value) != KEY_WORDS:
        raise ValueError("no key of a rule")
    return tuple(None if word is None else str(word) for word in value)


def _kernel_counts(saved: Any) -> tuple[dict[str, tuple[int, tuple[Key, ...]]], dict[Key, int]]:
    """What `KernelCounts.saved` gives."""
    counters = {
        str(name): (_natural(taken), tuple(_key_of(key) for key in meaning))
        for name, taken, meaning in saved["counters"]
    }
    return counters, {_key_of(key): _natural(since) for key, since in saved["since"]}


def _reason(key: Key) -> dict[str, Any]:
    """What stands in the place of a rule, from its key."""
    tier, policy, direction, reason, _, _, action = key
    return {
        "tier": tier, "policy": policy, "direction": direction, "rule": None, "action": action,
        "reason": reason, "uncounted": None,
    }  # fmt: skip
