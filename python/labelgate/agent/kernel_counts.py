"""How often rules were met where rules of the kernel answer, and no packet comes to the daemon.

What every packet meets in a chain that gives all the same answer (the rules that it passes, and the one
that decides) is counted by one counter of the kernel. It is named by those rules as they are known for good:
so it goes on over reloads, and over restarts, as who comes later finds it by its name. The other half of the
name is drawn by lot: one that was removed and made anew is another one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelgate.agent.contents import Contents
from labelgate.agent.generation import Generation
from labelgate.agent.hits import Key
from labelgate.netfilter import nfacct
from labelgate.netfilter.builder import REASONS
from labelgate.netfilter.rules import PREFIX
from labelgate.resources import Resource
from labelgate.snapshot import Snapshot

Meaning = tuple[Key, ...]
"""What each packet of a counter counts for."""
MOST_COUNTERS = 2_000
"""The kernel looks for each through all of them whenever a rule with it is written: of 2,000 that takes a
second, and four times as long of twice as many."""
MOST_KNOWN = 100_000
"""Rules of before whose beginning is known still."""


@dataclass(frozen=True)
class Named:
    """The counters of a generation."""

    chains: Mapping[str, Any] | None = None
    """As `rule_facts`, with the name of a counter in the place of each answer; None: nothing is counted."""
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Counter:
    meaning: Meaning
    taken: int | None
    """What was read of it before; None: it was there, and nobody knows how much of it is counted already."""
    is_over: bool = False
    """No rule used it when it was read last."""


class KernelCounts:
    """The counters in the network namespace of the calling thread; any thread may read them."""

    def __init__(self, say: Callable[[str], None], *, is_wanted: bool = True) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._contents = Contents()
        self._names: dict[Meaning, str] = {}
        self._counters: dict[str, _Counter] = {}
        """Those that are ours to read and to remove."""
        self._wanted: frozenset[str] = frozenset()
        """Those that rules use, or are about to."""
        self._uncounted: frozenset[Key] = frozenset()
        self._since: dict[Key, int] = {}
        """Since when all packets of a rule are counted, in milliseconds since 1970."""
        self.problem: str | None = None if is_wanted else "`kernelCounters` is false"
        """Why nothing is counted here."""
        self.changes = 0
        """How often rules were put in force: `saved` may tell another beginning then, with nothing met."""
        self._found: dict[str, str] = {}
        """Counters that were there at the start, by the first half of their names."""
        try:
            self._found = {name.rpartition("-")[0]: name for name in nfacct.counters(PREFIX)}
        except OSError as error:
            if is_wanted:
                self.give_up(str(error))

    def give_up(self, why: str, cause: str = "no nfacct") -> None:
        """From now on nothing is counted here."""
        self.problem, self._since = why, {}
        self._say(f"warning: packets that kernel rules answer are not counted ({cause}): {why.strip()}")

    # What follows is for the thread that changes rules.

    def named(self, generation: Generation) -> Named:
        """The counters of the chains of a generation."""
        if self.is_off:
            return Named()
        settled = generation.table.settled()
        resources = _found(generation.snapshot, {row["policy"] for row in settled["names"].values()} - {None})
        self._contents.see(resources.values(), 0)
        keys = {
            int(number): self._contents.key(row, resources.get(row["policy"]))
            for number, row in settled["names"].items()
        }
        reasons = {row["reason"]: keys[int(number)] for number, row in settled["names"].items()
                   if row["policy"] is None and row["tier"] is None and row["reason"] in REASONS}  # fmt: skip

        used = set[str]()

        def name(numbers: Iterable[int]) -> str:
            meaning = tuple(keys[number] for number in numbers)
            if not meaning:
                return ""
            used.add(self._name(meaning))
            return self._names[meaning]

        with self._lock:
            named = Named(
                _with_names(settled["chains"], name),
                {reason: self._name((key,)) for reason, key in reasons.items()},
            )
        if len(used) > MOST_COUNTERS:
            self.give_up(f"{len(used)}, and {MOST_COUNTERS} are the most", cause="too many counters")
            return Named()
        return named

    def _name(self, meaning: Meaning) -> str:
        if meaning not in self._names:
            digest = hashlib.blake2s(json.dumps(meaning).encode(), digest_size=8).hexdigest()
            begin = f"{PREFIX}{digest}"
            name = self._found.get(begin)
            if name is None:
                name = f"{begin}-{secrets.token_hex(4)}"
            elif name not in self._counters:
                self._counters[name] = _Counter(meaning, None)
            self._names[meaning] = name
        return self._names[meaning]

    def make(self, names: frozenset[str]) -> bool:
        """Before rules that count with these; False if all were there, OSError if one cannot be."""
        if not names:
            return False
        meanings = {name: meaning for meaning, name in self._names.items()}
        with self._lock:
            self._wanted |= names
            # The kernel looks for a name through all of them: only those are made that are not there.
            missing = sorted(names - nfacct.counters(PREFIX).keys())
            for name in missing:
                if nfacct.create(name):
                    known = self._counters.get(name)
                    if known and known.taken:
                        self._say(f"warning: somebody removed counter {name}: what it counted since it was "
                                  "read last is lost")  # fmt: skip
                    self._counters[name] = _Counter(meanings[name], 0)
        return bool(missing)

    def in_force(self, names: frozenset[str], uncounted: frozenset[str]) -> None:
        """The rules count with these, and not all packets of those that are `uncounted`."""
        now = _now()
        with self._lock:
            self._wanted = names
            self.changes += 1
            if self.is_off:
                return
            self._uncounted = frozenset(self._keys(uncounted))
            since = {
                key: self._since.get(key, now) for key in self._keys(names) if key not in self._uncounted
            }
            # A rule that is not static any more is counted by the daemon, and has been all the time.
            others = self._since.items() if len(self._since) < MOST_KNOWN else ()
            self._since = {key: began for key, began in others if key not in self._uncounted} | since
            used = {counter.meaning for name, counter in self._counters.items() if name in names}
            self._names = {meaning: name for meaning, name in self._names.items() if meaning in used}

    def _keys(self, names: Iterable[str]) -> Iterator[Key]:
        return (key for name in names if name in self._counters for key in self._counters[name].meaning)

    # What follows is for any thread.

    @property
    def is_off(self) -> bool:
        """Nothing is counted here."""
        return self.problem is not None

    def counts_all(self, key: Key) -> bool:
        """Whether all packets are counted for which kernel rules answer by this rule."""
        return not self.is_off and key not in self._uncounted

    def since(self, key: Key) -> int:
        """Since when they are; 0: since always, or none are."""
        return self._since.get(key, 0)

    def take(self) -> list[tuple[Meaning, int]]:
        """What has been counted since this was called last, and for what; never twice."""
        with self._lock:
            try:
                now = nfacct.counters(PREFIX) if self._counters else {}
            except OSError:
                return []  # The next time.
            for name in self._counters.keys() - now.keys() - self._wanted:
                del self._counters[name]  # Somebody else has removed it, when no rule used it any more.
            taken = [self._take(name, now[name]) for name in list(self._counters) if name in now]
            return [found for found in taken if found[1]]

    def _take(self, name: str, now: nfacct.Counter) -> tuple[Meaning, int]:
        counter = self._counters[name]
        before = now.packets if counter.taken is None else counter.taken
        if now.packets < before:
            self._say(f"warning: somebody set counter {name} back: what it counted before that, since it was "
                      "read last, is lost")  # fmt: skip
            before = 0
        counter.taken = now.packets
        if now.is_used or name in self._wanted:
            counter.is_over = False
        elif not counter.is_over:
            counter.is_over = True  # It may have counted one more behind its last reading.
        elif _remove(name):
            del self._counters[name]
            # What is made under this name again would be taken for this one.
            self._found = {begin: found for begin, found in self._found.items() if found != name}
        return counter.meaning, now.packets - before

    @property
    def has_any(self) -> bool:
        """Counters that are to be read still."""
        return bool(self._counters)

    def let_go(self) -> None:
        """No rule of ours is left: counters go when they have been read twice more."""
        with self._lock:
            self._wanted = frozenset()

    def saved(self, mended: Callable[[int], int]) -> dict[str, Any]:
        """What has been taken, for the daemon that comes after this one; times as they are `mended`."""
        with self._lock:
            return {
                "counters": [
                    [name, counter.taken, counter.meaning]
                    for name, counter in self._counters.items()
                    if counter.taken is not None
                ],
                "since": [(key, mended(since)) for key, since in self._since.items()],
            }

    def restore(self, counters: Mapping[str, tuple[int, Meaning]], since: Mapping[Key, int]) -> None:
        """Before anything is taken: what the daemon before this one has taken, of which counters."""
        with self._lock:
            try:
                there = set(nfacct.counters(PREFIX))
            except OSError:
                there = set(self._counters)
            for name, (taken, meaning) in counters.items():
                if name in there and (name not in self._counters or self._counters[name].taken is None):
                    self._counters[name] = _Counter(meaning, taken)
            for counter in self._counters.values():
                if counter.taken is None:
                    counter.taken = 0  # It was made behind the last writing.
            for name in there - self._counters.keys():
                _remove(name)  # Nobody knows what it has counted.
            if not self.is_off:
                self._since = {key: since.get(key, began) for key, began in self._since.items()}


def _remove(name: str) -> bool:
    """One that cannot be removed stays, and what was read meanwhile is kept."""
    try:
        return nfacct.remove(name)
    except OSError:
        return False


def _found(snapshot: Snapshot, keys: set[str]) -> dict[str, Resource]:
    """Policies and profiles of these keys; of a large cluster, at every change."""
    names = {key.rpartition("/")[2] for key in keys}
    kinds: tuple[tuple[Resource, ...], ...] = (
        snapshot.global_network_policies, snapshot.network_policies, snapshot.kubernetes_network_policies,
        snapshot.kubernetes_cluster_network_policies, snapshot.profiles,
    )  # fmt: skip
    return {
        found.key: found
        for kind in kinds
        for found in kind
        if found.metadata.name in names and found.key in keys
    }


def _now() -> int:
    return time.time_ns() // 1_000_000


def _with_names(found: Any, name: Callable[[Iterable[int]], str]) -> Any:
    """The same shape, with a name in the place of each list of numbers."""
    if isinstance(found, dict):
        return {key: _with_names(value, name) for key, value in found.items() if key not in _NO_CHAINS}
    if isinstance(found, list):
        if all(isinstance(part, int) for part in found):
            return name(found)
        return [_with_names(part, name) for part in found]
    return found


_NO_CHAINS = frozenset({"endpoint", "interface", "interfaces", "any", "sources", "untracked_denies"})
"""Of what `rule_facts` says of an endpoint."""
