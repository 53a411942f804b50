"""Brings rules into the kernel and takes them out again, through iptables-restore of either variant.

Each table of each family is one transaction, `--noflush`, so that rules of others stay and hooks are never
unregistered (packets waiting in a queue would be lost). All subprocesses of rules are started here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labelgate.errors import Portable
from labelgate.flow import Hook
from labelgate.netfilter.conntrack import conntrack_in_use
from labelgate.netfilter.facts import FAMILIES, Family
from labelgate.netfilter.raw import conntrack_chain
from labelgate.netfilter.readback import (
    EMPTY_TABLE,
    SavedTable,
    hooks_entered,
    misplaced,
    parse_save,
    printed,
)
from labelgate.netfilter.render import put_back, transaction
from labelgate.netfilter.rules import (
    CONNTRACK_CHAIN,
    PREFIX,
    TABLES,
    Rule,
    Ruleset,
    TableRules,
)
from labelgate.netfilter.ruleset import CONNTRACK_ONLY

Variant = Literal["nft", "legacy"]
Tables = Mapping[Family, Mapping[str, SavedTable]]
"""Tables by family and name."""
VARIANTS: tuple[Variant, ...] = ("nft", "legacy")

_SECONDS = 30
_WAIT_FOR_LOCK = 10
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_NO_RULES = TableRules({})


class ApplyError(Portable):
    """Rules could not be read, or not be brought into the kernel; what was there before is there again."""

    def __init__(self, table: str, family: Family, stderr: str) -> None:
        super().__init__(f"netfilter table {table} ({family}): {stderr.strip()}")
        self.table, self.family, self.stderr = table, family, stderr


@dataclass(frozen=True, slots=True)
class Tools:
    """The iptables programs of one variant."""

    variant: Variant

    def program(self, family: Family, verb: str) -> str | None:
        """The full path, or None if it is not installed. `verb` is `save` or `restore`."""
        return shutil.which(f"{_FRONT[family]}-{self.variant}-{verb}", path=_SEARCH)

    @property
    def installed(self) -> bool:
        """Both verbs for IPv4."""
        return all(self.program("v4", verb) for verb in ("save", "restore"))

    def read(self, family: Family) -> dict[str, SavedTable]:
        """All tables that exist; reading creates none."""
        return parse_save(self._run("all", family, "save"))

    def write(self, table: str, family: Family, text: str) -> None:
        """One transaction."""
        self._run(table, family, "restore", "--noflush", f"--wait={_WAIT_FOR_LOCK}", text=text)

    def _run(self, table: str, family: Family, verb: str, *options: str, text: str = "") -> str:
        program = self.program(family, verb)
        if program is None:
            raise ApplyError(table, family, f"{_FRONT[family]}-{self.variant}-{verb} is not installed")
        try:
            done = subprocess.run(
                [program, *options], input=text, capture_output=True, encoding="utf-8",
                errors="surrogateescape", timeout=_SECONDS, check=False,
                start_new_session=True,  # A second Ctrl-C, which is for us, must not end it half way.
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ApplyError(table, family, f"{program} did not end within {_SECONDS} s") from None
        except OSError as error:  # No process, no memory, no descriptor left; or it cannot be executed.
            raise ApplyError(table, family, f"{program} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            raise ApplyError(table, family, done.stderr or f"{program} ended with {done.returncode}")
        return done.stdout


_FRONT: Mapping[Family, str] = {"v4": "iptables", "v6": "ip6tables"}


def families() -> tuple[Family, ...]:
    """Those that the kernel has: IPv6 may be switched off at boot."""
    return FAMILIES if Path("/proc/net/if_inet6").exists() else ("v4",)


def detect_variant() -> Variant:
    """The variant that has our rules; else the one with more rules; else what `iptables` itself is.

    ApplyError if neither is installed.
    """
    installed = [variant for variant in VARIANTS if Tools(variant).installed]
    if not installed:
        raise ApplyError("all", "v4", "neither iptables-nft nor iptables-legacy is installed")
    counted = {variant: _weight(Tools(variant)) for variant in installed}
    best = max(counted.values())
    leaders = [variant for variant in installed if counted[variant] == best]
    return leaders[0] if len(leaders) == 1 else _default_variant()


_LEGACY_TABLES: Mapping[Family, str] = {"v4": "ip_tables_names", "v6": "ip6_tables_names"}
_NET = Path("/proc/thread-self/net")


def _rules_of(tools: Tools) -> Tables | None:
    """All tables of a variant; None where it has no rules, or cannot be read."""
    if not tools.installed or (tools.variant == "legacy" and not any(map(legacy_tables, FAMILIES))):
        return None
    try:
        found = {family: tools.read(family) for family in families()}
    except ApplyError:
        return None
    chains = (
        rules for tables in found.values() for table in tables.values() for rules in table.chains.values()
    )
    return found if any(chains) else None


def legacy_tables(family: Family) -> list[str]:
    """Those that the legacy variant has here; it makes one where a rule is first written, or tried."""
    try:
        return (_NET / _LEGACY_TABLES[family]).read_text(encoding="ascii").split()
    except OSError:
        return []


def _weight(tools: Tools) -> tuple[bool, int]:
    """One that cannot be read has the least."""
    try:
        tables = [table for family in families() for table in tools.read(family).values()]
    except ApplyError:
        return False, -1
    return any(table.is_ours for table in tables), sum(len(r) for t in tables for r in t.chains.values())


def _default_variant() -> Variant:
    program = shutil.which("iptables", path=_SEARCH)
    if program is None:
        return "nft"
    try:
        version = subprocess.run(
            [program, "-V"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return "nft"
    return "legacy" if "legacy" in version.stdout else "nft"


@dataclass(frozen=True, slots=True)
class _Installed:
    """What was asked for, and our chains as the kernel printed them then."""

    rules: TableRules
    printed: Mapping[str, tuple[str, ...]]


Key = tuple[str, Family]


class Netfilter:
    """Our rules in the network namespace of the calling thread."""

    def __init__(
        self,
        backend: Variant | Literal["auto"] = "auto",
        warn: Callable[[str], None] = lambda text: None,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        """`step` is called whenever a program that reads or writes rules has done so."""
        self._warn, self._step = warn, step
        self.tools = Tools(detect_variant() if backend == "auto" else backend)
        self.families = families()
        self._installed: dict[Key, _Installed] = {}
        self._prepared: dict[Family, SavedTable] = {}
        """Families that conntrack was switched on for, each with its raw table as it was."""
        self._covered: tuple[Family, ...] | None = None
        """Families that have our rules; None where there are to be none."""
        self.entered: frozenset[Hook] = frozenset()
        """Hooks that have had a chain of ours meanwhile: verdicts of their queues may be under way."""

    def read(self) -> dict[Family, dict[str, SavedTable]]:
        """All tables, ours and those of others; of IPv6 too, if the kernel has it by now."""
        self.families = families()
        now = {family: self._read(family) for family in self.families}
        self.entered |= {hook for tables in now.values() for hook in hooks_entered(tables)}
        return now

    def _read(self, family: Family) -> dict[str, SavedTable]:
        tables = self.tools.read(family)
        self._step()
        return tables

    def _write(self, table: str, family: Family, text: str) -> None:
        self.tools.write(table, family, text)
        self._step()

    def is_installed(self) -> bool:
        """Whether rules of ours are there, whoever put them."""
        return any(table.is_ours for tables in self.read().values() for table in tables.values())

    def queues_led_to(self) -> frozenset[int]:
        """Queues that rules of ours lead to, whoever put them, in either variant."""
        _, others = self.other_variant() or (None, {})
        tables = [table for found in (self.read(), others) for f in found.values() for table in f.values()]
        return frozenset(number for table in tables for number in table.queues)

    def apply(self, ruleset: Ruleset, now: Tables | None = None) -> bool:
        """Makes the kernel's rules be these; False if they were already.

        `now` is what `read` found just before: what others change behind it is left for the next `check` to
        tell. ApplyError if one transaction fails, or cannot be read back; what was written has been put back.
        """
        now = now or self.read()
        is_first = not self._installed
        wanted = self._wanted(ruleset, now)
        changes = [key for key in wanted if not self._is_in_force(key, wanted[key], _at(now, key))]
        self._transact({key: wanted[key] for key in changes}, now)
        if changes:
            try:
                now = self.read()
            except BaseException as error:
                self._put_back(changes, now, error)
                raise
        # Not what was read back of the rest: what others did to it meanwhile is still to be found.
        self._installed = {
            key: _Installed(rules, printed(_at(now, key), rules)) if key in changes else self._installed[key]
            for key, rules in wanted.items()
        }
        self._covered = self.families if ruleset.tables else None
        if is_first:
            self._leave_other_variant()
        return bool(changes)

    def check(self, now: Tables) -> list[str]:
        """What of the tables that `read` found is not as `apply` left it; empty while all is in force."""
        uncovered = [] if self._covered is None else [f for f in now if f not in self._covered]
        findings = [f"{family} has appeared: it has no rules of ours" for family in uncovered]
        for key, installed in self._installed.items():
            (table, family), saved = key, _at(now, key)
            findings += [f"{family} {finding}" for finding in misplaced(table, saved, installed.rules)]
            before, after = installed.printed, saved.ours
            changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
            if changed:
                # In one line: whoever empties a table changes all of them.
                more = f" (and {len(changed) - 1} more chains)" if len(changed) > 1 else ""
                findings.append(f"{family} {table} {changed[0]}{more}: not as it was installed")
        return findings

    def other_variant(self) -> tuple[Variant, Tables] | None:
        """The iptables that is not ours, and its tables, where it has rules; None where it cannot be read."""
        for variant in VARIANTS:
            if variant != self.tools.variant and (found := _rules_of(Tools(variant))):
                return variant, found
        return None

    def prepare_conntrack(self) -> bool:
        """Switches conntrack on where it is off; True if it was off in a family.

        The caller then waits (`settle`): sessions that send both ways meanwhile become known.
        """
        was_off = False
        for family in self.families:
            raw = self._read(family).get("raw", EMPTY_TABLE)
            if CONNTRACK_CHAIN not in raw.chains and not conntrack_in_use(family):
                self._write("raw", family, transaction("raw", raw, TableRules(conntrack_chain())))
                self._prepared[family] = raw
                was_off = True
        return was_off

    def undo_conntrack(self) -> None:
        """Takes back what `prepare_conntrack` wrote; nothing else has been written meanwhile."""
        while self._prepared:
            family, before = self._prepared.popitem()
            now = self._read(family).get("raw", EMPTY_TABLE)
            self._write("raw", family, put_back("raw", now, before))

    def can_count(self, counter: str) -> bool:
        """Whether rules can count with this counter, which is there: a chain that nothing leads to tries.

        ApplyError where rules cannot be written at all, now, whatever they are.
        """
        chain = f"{PREFIX}probe"
        made, counting = SavedTable({chain: ()}), TableRules({chain: (Rule("", "").counted(counter),)})
        for family in self.families:
            self._write("raw", family, transaction("raw", EMPTY_TABLE, TableRules({chain: ()})))
            try:
                self._write("raw", family, transaction("raw", made, counting))
            except ApplyError:
                return False
            finally:
                self._write("raw", family, transaction("raw", made, _NO_RULES))
        return True

    def _wanted(self, ruleset: Ruleset, now: Tables) -> dict[Key, TableRules]:
        """Rules for every table that is or shall be ours, in the order of the transactions."""
        ours = [(table, f) for table in TABLES for f in self.families if _at(now, (table, f)).is_ours]
        if ruleset.tables:
            return {key: rules for key, rules in ruleset.tables.items() if key[1] in self.families}
        # Our last policy went. Conntrack stays on: removing its last rule loses packets that wait in a queue.
        return {key: CONNTRACK_ONLY.tables.get(key, _NO_RULES) for key in reversed(ours)}

    def _is_in_force(self, key: Key, rules: TableRules, saved: SavedTable) -> bool:
        installed = self._installed.get(key)
        if installed is None or installed.rules != rules or installed.printed != saved.ours:
            return False
        return not misplaced(key[0], saved, rules)

    def _transact(self, wanted: Mapping[Key, TableRules], now: Tables) -> None:
        done: list[Key] = []
        try:
            for (table, family), rules in wanted.items():
                text = transaction(table, _at(now, (table, family)), rules)
                self._write(table, family, text)
                done.append((table, family))
        except BaseException as error:
            self._put_back(done, now, error)
            raise

    def _put_back(self, done: list[Key], before: Tables, error: BaseException) -> None:
        for table, family in reversed(done):
            try:
                now = self._read(family).get(table, EMPTY_TABLE)
                text = put_back(table, now, _at(before, (table, family)))
                self._write(table, family, text)
            except ApplyError as second:
                error.add_note(f"and what was there before could not be put back: {second}")

    def _leave_other_variant(self) -> None:
        """Rules of an earlier run with the other variant would judge every packet twice.

        Ours are in force by now: what cannot be removed is told.
        """
        resist: list[ApplyError] = []
        for variant in VARIANTS:
            if variant != self.tools.variant and Tools(variant).installed:
                _clean(Tools(variant), resist)
        for error in resist:
            self._warn(f"warning: rules of the other iptables variant are left as they are: {error}")


def _at(tables: Tables, key: Key) -> SavedTable:
    table, family = key
    return tables[family].get(table, EMPTY_TABLE)


def clean() -> list[str]:
    """Removes everything of ours, in both variants; what was removed, as `variant family table`.

    ApplyError if a table resists, or cannot be read; the others are clean then.
    """
    removed: list[str] = []
    resist: list[ApplyError] = []
    for variant in VARIANTS:
        if Tools(variant).installed:
            removed += _clean(Tools(variant), resist)
    if resist:
        for error in resist[1:]:
            resist[0].add_note(str(error))
        raise resist[0]
    return removed


def _clean(tools: Tools, resist: list[ApplyError]) -> list[str]:
    """What was removed; errors go to `resist`."""
    removed: list[str] = []
    for family in families():
        try:
            tables = tools.read(family)
        except ApplyError as error:
            resist.append(error)
            continue
        for table, saved in _readers_first(tables):
            if saved.is_ours:
                try:
                    tools.write(table, family, transaction(table, saved, _NO_RULES))
                    removed.append(f"{tools.variant} {family} {table}")
                except ApplyError as error:
                    resist.append(error)
    return removed


def _readers_first(tables: Mapping[str, SavedTable]) -> Iterator[tuple[str, SavedTable]]:
    """Who gives the bits that others read goes behind these, and raw, which clears them, last."""
    order: dict[str, int] = {table: place for place, table in enumerate(TABLES)}
    yield from sorted(tables.items(), key=lambda item: order.get(item[0], len(order)), reverse=True)
