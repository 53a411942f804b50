"""What `iptables-save` tells: our chains and jumps as they are, and what others do to the marks that we read.

Pure: text in, values out.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from labelgate.flow import Hook
from labelgate.netfilter.facts import Marks
from labelgate.netfilter.rules import HOOKS_OF, PREFIX, Jump, TableRules

_QUEUE = re.compile(r"-j NFQUEUE .*?--queue-(?:num|balance) (\d+)(?::(\d+))?")
_INTO_OURS = re.compile(rf"(?:^|\s)-[jg] {re.escape(PREFIX)}\S+")
_NUMBER = r"(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)"
_MARK_JUMP = re.compile(rf"-m mark (! )?--mark (! )?{_NUMBER}(?:/{_NUMBER})? (-[jg] \S+)")
_ALL_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class SavedTable:
    """One table as `iptables-save` prints it, without counters."""

    chains: Mapping[str, tuple[str, ...]]
    """Each chain's rules in order, without `-A CHAIN`."""

    @property
    def ours(self) -> dict[str, tuple[str, ...]]:
        """Our chains."""
        return {name: rules for name, rules in self.chains.items() if name.startswith(PREFIX)}

    @property
    def jumps(self) -> tuple[PlacedJump, ...]:
        """Rules in chains of others that lead into ours."""
        return tuple(
            PlacedJump(name, index, _as_written(rule))
            for name, rules in self.chains.items()
            if not name.startswith(PREFIX)
            for index, rule in enumerate(rules, 1)
            if _INTO_OURS.search(rule)
        )

    @property
    def queues(self) -> frozenset[int]:
        """Numbers of the queues that our chains lead to."""
        found = filter(None, map(_QUEUE.search, self.queueing))
        ranges = ((int(one[1]), int(one[2] or one[1])) for one in found)
        return frozenset(number for first, last in ranges for number in range(first, last + 1))

    @property
    def queueing(self) -> list[str]:
        """Rules of our chains that queue packets."""
        return [rule for rules in self.ours.values() for rule in rules if _QUEUE.search(rule)]

    @property
    def is_ours(self) -> bool:
        """Something of ours is here."""
        return bool(self.ours or self.jumps)


@dataclass(frozen=True, slots=True)
class PlacedJump:
    """A jump into our chains, where it is."""

    chain: str
    """The chain of others that it is in."""
    number: int
    """As iptables counts, from 1."""
    rule: str


def _as_written(jump: str) -> str:
    """A jump of one mark match, all that ours have, as `TableBuilder` writes it; any other one as it is.

    How a program prints negation and numbers is its own affair: what it means is compared.
    """
    found = _MARK_JUMP.fullmatch(jump)
    if found is None or (found[1] and found[2]):
        return jump
    value, mask = int(found[3], 0), int(found[4], 0) if found[4] else _ALL_BITS
    negation = " !" if found[1] or found[2] else ""
    return f"-m mark{negation} --mark {value:#x}/{mask:#x} {found[5]}"


EMPTY_TABLE = SavedTable({})


def parse_save(text: str) -> dict[str, SavedTable]:
    """All tables of one family, by name."""
    tables: dict[str, dict[str, list[str]]] = {}
    chains: dict[str, list[str]] = {}
    # Comments of others may hold all that `splitlines` takes for the end of a line.
    for line in text.split("\n"):
        if line.startswith("*"):
            chains = tables.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].partition(" ")[0], [])
        elif line.startswith("-A "):
            chain, _, rule = line[3:].partition(" ")  # A rule may have neither match nor target.
            chains.setdefault(chain, []).append(rule)
    return {
        table: SavedTable({name: tuple(rules) for name, rules in of_table.items()})
        for table, of_table in tables.items()
    }


def rules_of_others(saved: SavedTable, base: str) -> tuple[str, ...]:
    """Those of a base chain that do not lead to us."""
    return tuple(rule for rule in saved.chains.get(base, ()) if not _INTO_OURS.search(rule))


def placed(saved: SavedTable, rules: TableRules) -> tuple[PlacedJump, ...]:
    """The jumps where they should be, among the rules of others that are there now."""
    jumps: list[PlacedJump] = []
    for base in dict.fromkeys(jump.base for jump in (*rules.first, *rules.last)):
        first, last = ([j for j in jumps_of if j.base == base] for jumps_of in (rules.first, rules.last))
        others = len(rules_of_others(saved, base))
        jumps += _numbered(first, 1)
        jumps += _numbered(last, 1 + len(first) + others)
    return tuple(jumps)


def _numbered(jumps: Iterable[Jump], start: int) -> Iterator[PlacedJump]:
    return (PlacedJump(jump.base, number, str(jump)) for number, jump in enumerate(jumps, start))


def printed(saved: SavedTable, rules: TableRules) -> dict[str, tuple[str, ...]]:
    """Our chains as they were read back behind the transaction that wrote these rules.

    One that has not as many rules as were written was changed in between: it counts as it was asked for,
    which what is there is not.
    """
    asked = {name: tuple(map(str, chain)) for name, chain in rules.chains.items()}
    found = {name: chain for name, chain in saved.ours.items() if len(chain) == len(asked.get(name, ()))}
    return {name: found.get(name, chain) for name, chain in asked.items()}


def misplaced(table: str, saved: SavedTable, rules: TableRules) -> list[str]:
    """What is wrong with our jumps, in words."""
    wanted = placed(saved, rules)
    findings = [
        f"{table} {jump.chain}: `{jump.rule}` is rule {jump.number}, which it should not be"
        for jump in saved.jumps
        if jump not in wanted
    ]
    findings += [
        f"{table} {jump.chain}: rule {jump.number} is not `{jump.rule}`, as it should be"
        for jump in wanted
        if jump not in saved.jumps
    ]
    return sorted(findings)


@dataclass(frozen=True, slots=True)
class Hazard:
    """A rule of others ahead of ours that a repeated pass, or bit D, does not survive."""

    hook: Hook
    chain: str
    rule: str
    reason: str

    def __str__(self) -> str:
        return f"{self.hook}: `-A {self.chain} {self.rule}` {self.reason}"

    @property
    def as_writer(self) -> str:
        """As `mark_writers` tells of the rule, if it does."""
        return f"{self.hook.partition('-')[0]}: `-A {self.chain} {self.rule}` {self.reason}"

    @property
    def is_mended_behind_ours(self) -> bool:
        """It does no harm where it comes behind our jump."""
        return self.reason != _WRITES


def hooks_entered(tables: Mapping[str, SavedTable]) -> frozenset[Hook]:
    """Hooks that have a chain of ours."""
    return frozenset(
        hook
        for (table, base), hook in HOOKS_OF.items()
        if PREFIX + base in tables.get(table, EMPTY_TABLE).chains
    )


def hazards(tables: Mapping[str, SavedTable], marks: Marks, insert_mode: str) -> tuple[Hazard, ...]:
    """Rules of others ahead of ours because of which a hook has to be answered without REPEAT.

    Where our jump is not there yet, `insert_mode` (`insert` or `append`) says where it will be.
    """
    found: list[Hazard] = []
    for (table, base), hook in HOOKS_OF.items():
        saved = tables.get(table, EMPTY_TABLE)
        ahead = saved.chains.get(base, ())[: _ahead(saved, base, insert_mode)]
        walk = _Walk(saved.chains, marks.mask)
        found += [Hazard(hook, *finding) for finding in walk.rules(base, ahead, tainted=False, is_base=True)]
    return tuple(found)


def _ahead(saved: SavedTable, base: str, insert_mode: str) -> int:
    """How many rules of a base chain come, or would come, before our jump."""
    rules = saved.chains.get(base, ())
    for number, rule in enumerate(rules):
        if _INTO_OURS.search(rule) and PREFIX + base in rule.split():
            return number
    return len(rules) if insert_mode == "append" else 0


_BEFORE_OURS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "OUTPUT"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("OUTPUT",),
}
"""By table: base chains that packets come through, or through a part, before they come to a rule of ours."""
_ENDING = frozenset({("filter", "INPUT"), ("filter", "FORWARD"), ("mangle", "POSTROUTING")})
"""Those behind whose last jump of ours no rule of ours comes."""


def mark_writers(tables: Mapping[str, SavedTable], marks: Marks, insert_mode: str | None) -> tuple[str, ...]:
    """Rules of others that can write our mark bits between where raw clears them and a rule that reads them.

    What they write is read as ours. `insert_mode` is that of `hazards`; None: the tables are of the iptables
    variant that is not ours. Rules of that one cannot come between the two passes of a repeated packet, as
    `hazards` do: the kernel repeats our part of a hook alone. But whether they come ahead of ours or behind,
    where both have a chain, is not known.
    """
    found: list[str] = []
    for table, bases in _BEFORE_OURS.items():
        saved = tables.get(table, EMPTY_TABLE)
        writers = [
            (chain, rule, reason)
            for chain, rules in saved.chains.items()
            if not chain.startswith(PREFIX)
            for rule in rules
            if (reason := _written(rule, marks.mask))
        ]
        if not writers:
            continue
        read = {base: _read_later(table, saved, base, insert_mode) for base in bases}
        reached = _reached(saved.chains, itertools.chain(*read.values()))
        found += [
            f"{table}: `-A {chain} {rule}` {reason}"
            for chain, rule, reason in writers
            if chain in reached or rule in read.get(chain, ())
        ]
    return tuple(dict.fromkeys(found))


def _read_later(table: str, saved: SavedTable, base: str, insert_mode: str | None) -> tuple[str, ...]:
    """The rules of a base chain behind which a rule of ours reads the bits that they may have written."""
    rules = saved.chains.get(base, ())
    if insert_mode is None:
        return rules
    ahead = _ahead(saved, base, insert_mode)
    if table == "raw":  # Ours clears what is written ahead.
        return rules[ahead:]
    if (table, base) not in _ENDING:
        return rules
    ours = [number for number, rule in enumerate(rules, 1) if _INTO_OURS.search(rule)]
    # Not there yet: the rule that ends FORWARD will be the last one.
    return rules[: max(ours, default=len(rules) if base == "FORWARD" else ahead)]


def _reached(chains: Mapping[str, tuple[str, ...]], rules: Iterable[str]) -> set[str]:
    """Chains of others that these rules lead to, by whatever way."""
    seen: set[str] = set()
    left = list(rules)
    while left:
        for target in _LEADS_TO.findall(left.pop()):
            if target in chains and target not in seen and not target.startswith(PREFIX):
                seen.add(target)
                left += chains[target]
    return seen


def _written(rule: str, mask: int) -> str | None:
    """What a rule can do to these bits, in words; None: nothing.

    Only what looks like it is read word by word: tables may have tens of thousands of rules.
    """
    if not _MAY_WRITE.search(rule) and rule.count('"') % 2 == 0:
        return None
    try:
        return _WRITES if _Words(shlex.split(rule)).written_bits() & mask else None
    except ValueError:
        return _UNREADABLE


_LEADS_TO = re.compile(r"(?<!\S)-[jg] (\S+)")
_MAY_WRITE = re.compile(r"-j (?:MARK|CONNMARK|HMARK|TPROXY)(?:\s|$)|--map-mark")
_WRITES, _UNREADABLE = "can write our mark bits", "cannot be read"
_ENDS = "can end the table in one pass and not in the other"
_CHANGES_BETWEEN_PASSES = frozenset({"limit", "hashlimit", "statistic", "recent", "quota", "rateest"})
_GOES_ON = frozenset(
    {"AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "ECN", "HL", "HMARK"}
    | {"IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP"}
    | {"TEE", "TOS", "TRACE", "TTL", "ULOG"}
)


class _Walk:
    """Goes through rules and the chains that they lead to. `tainted`: whether a packet comes here may change
    between the first and the repeated pass."""

    def __init__(self, chains: Mapping[str, tuple[str, ...]], mask: int) -> None:
        self.chains, self.mask = chains, mask
        self.seen: set[tuple[str, bool]] = set()

    def rules(
        self, chain: str, rules: Iterable[str], *, tainted: bool, is_base: bool = False
    ) -> Iterator[tuple[str, str, str]]:
        for rule in rules:
            try:
                words = _Words(shlex.split(rule))
                writes_our_bits = words.written_bits() & self.mask
                unstable = tainted or words.is_unstable(self.mask)
            except ValueError:
                yield chain, rule, _UNREADABLE
                continue
            if writes_our_bits:
                yield chain, rule, _WRITES
            target = words.after("-j", "-g")
            if target is None:
                continue
            if target in self.chains:
                if (target, unstable) not in self.seen and not target.startswith(PREFIX):
                    self.seen.add((target, unstable))
                    yield from self.rules(target, self.chains[target], tainted=unstable)
                tainted = tainted or (unstable and words.after("-g") is not None)
            elif target == "RETURN" and not is_base:
                tainted = unstable
            elif target not in _GOES_ON and (unstable or target == "NFQUEUE"):
                yield chain, rule, _ENDS


class _Words:
    """The words of one rule."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def after(self, *options: str) -> str | None:
        """The word behind the first of these options."""
        for option, value in zip(self.words, self.words[1:], strict=False):
            if option in options:
                return value
        return None

    def written_bits(self) -> int:
        """The bits of the packet mark that the target may change."""
        target = self.after("-j")
        if target == "MARK":
            return self._mark_bits()
        if target == "CONNMARK" and "--restore-mark" in self.words:
            masks = [self.after("--nfmask"), self.after("--ctmask"), self.after("--mask")]
            given = [int(mask, 0) for mask in masks if mask is not None]
            bits = 0
            for mask in given or [_ALL_BITS]:
                bits |= mask
            return bits
        if target == "TPROXY":
            return _value_and_mask(self.after("--tproxy-mark") or "0/0")
        return _ALL_BITS if target == "HMARK" or "--map-mark" in self.words else 0

    def _mark_bits(self) -> int:
        if (kept := self.after("--and-mark")) is not None:
            return ~int(kept, 0) & _ALL_BITS
        if (changed := self.after("--or-mark", "--xor-mark")) is not None:
            return int(changed, 0)
        return _value_and_mask(self.after("--set-xmark", "--set-mark") or str(_ALL_BITS))

    def is_unstable(self, mask: int) -> bool:
        """The rule may match one pass and not the other."""
        matches = {value for option, value in zip(self.words, self.words[1:], strict=False) if option == "-m"}
        if matches & _CHANGES_BETWEEN_PASSES:
            return True
        value = self.after("--mark") if "mark" in matches else None
        return value is not None and bool(_mask(value) & mask)


def _mask(value: str) -> int:
    """Of `value/mask`, or of a bare value: all bits."""
    _, slash, mask = value.partition("/")
    return int(mask, 0) if slash else _ALL_BITS


def _value_and_mask(value: str) -> int:
    return int(value.partition("/")[0], 0) | _mask(value)
