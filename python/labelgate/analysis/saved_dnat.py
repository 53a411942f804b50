"""DNAT rules out of what `iptables-save` or `ip6tables-save` prints: those that say all of where a flow goes.

A rule is read if the packet's destination, protocol and port decide: `-d ADDRESS`, `-p`, `--dport PORT`,
`-m addrtype --dst-type LOCAL` where the node's addresses are known, and `-j DNAT --to-destination
ADDRESS[:PORT]`, in nat PREROUTING or OUTPUT or a chain that these lead to. What else may send a flow
elsewhere, or past the rules behind it, is told of with its line, and rules behind it from which it may take
flows are not read either: nothing is guessed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from labelgate.analysis.dnat import DnatRule, read_dnat_rule
from labelgate.flow import FieldError, IPAddress

_HARMLESS = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", None})
"""Targets after which the chain goes on; None: a rule without any."""
_MOST_RULES = 100_000
"""Rules met, those of chains that are led to from several places once for each."""
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class _Match:
    """What a rule, and those that lead to its chain, ask for."""

    address: str | None = None
    protocol: str | None = None
    port: str | None = None

    def excludes(self, other: _Match) -> bool:
        """Whether no packet matches both, as far as it is plain to see."""
        return any(
            None not in pair and pair[0] != pair[1] and _are_plain(*pair) for pair in self._with(other)
        )

    def and_(self, other: _Match) -> _Match | None:
        """Both; None if that cannot be said by one."""
        if any(None not in pair and pair[0] != pair[1] for pair in self._with(other)):
            return None
        return _Match(*(own or its for own, its in self._with(other)))

    def _with(self, other: _Match) -> tuple[tuple[str | None, str | None], ...]:
        return (self.address, other.address), (self.protocol, other.protocol), (self.port, other.port)

    def to(self, destination: str) -> DnatRule:
        """A rule that sends what matches there.

        Raises:
            FieldError: it is no such rule.
        """
        address = f"[{self.address}]" if ":" in f"{self.address}" and self.port else self.address
        port, protocol = f":{self.port}" if self.port else "", f"/{self.protocol}" if self.protocol else ""
        return read_dnat_rule(f"{address}{port}{protocol}={destination}")

    @property
    def destination(self) -> DnatRule | None:
        """What matches at most, if that can be said."""
        for match in (self, _Match(self.address)):
            with suppress(FieldError):
                return match.to(f"{self.address}")
        return None


def _are_plain(*words: str | None) -> bool:
    """Whether both are addresses, names or numbers, which mean the same only if they are the same."""
    return any(all(map(test, map(str, words))) for test in (str.isalpha, str.isdigit, _is_address))


def _is_address(word: str) -> bool:
    return "." in word or (":" in word and not word.replace(":", "").isdigit())


_ANYTHING = _Match()


@dataclass(frozen=True, slots=True)
class _Line:
    """One rule as it is written."""

    number: int
    text: str
    match: _Match
    target: str | None
    to: str | None
    unknown: str | None
    """A match that is not read."""
    is_local: bool = False
    """It asks for an address of the node, whichever."""


@dataclass
class SavedDnat:
    """What was read of a file, and what was not."""

    rules: list[DnatRule] = field(default_factory=list)
    unknown: list[DnatRule] = field(default_factory=list)
    """Destinations that may have others behind DNAT, which are not known: sent to themselves here."""
    unread: list[str] = field(default_factory=list)
    """`line N: why: the rule`."""


def read_saved(text: str, local: Iterable[IPAddress] = ()) -> SavedDnat:
    """The rules of the nat table, in the order in which packets meet them; `local` are the node's addresses.

    Raises:
        ValueError: there is no nat table.
    """
    chains = _chains(text)
    if chains is None:
        raise ValueError("found no line `*nat`, expected the output of iptables-save or ip6tables-save")
    found = SavedDnat()
    walk = _Chains(chains, tuple(sorted(map(str, local))))
    incoming, outgoing = (_of_chain(walk, name, found) for name in ("PREROUTING", "OUTPUT"))
    for rule, line in {**outgoing, **incoming}.items():
        found.rules.append(rule)
        if (rule in incoming) != (rule in outgoing):
            name, whose = (
                ("PREROUTING", "of the node itself") if rule in incoming else ("OUTPUT", "from outside")
            )
            found.unread.append(
                f"line {line.number}: is in {name} only, but counts for flows {whose}, too: `{line.text}`"
            )
    found.unread = list(dict.fromkeys(found.unread))
    return found


def _of_chain(chains: _Chains, name: str, found: SavedDnat) -> dict[DnatRule, _Line]:
    """The rules that are met for certain; what is not read is noted."""
    rules: dict[DnatRule, _Line] = {}
    open_: list[tuple[_Match, _Line]] = []
    for count, (line, match, rule) in enumerate(chains.followed(name)):
        if count == _MOST_RULES:
            raise ValueError(f"more than {_MOST_RULES} rules are met in {name}")
        before = next((own for known, own in open_ if not match.excludes(known)), None)
        if isinstance(rule, DnatRule) and before is None:
            rules.setdefault(rule, line)
            continue
        why = rule if isinstance(rule, str) else f"line {before.number} may take its flows" if before else ""
        found.unread.append(f"line {line.number}: {why}: `{line.text}`")
        open_.append((match, line))
        if unknown := match.destination:
            found.unknown.append(unknown)
    return rules


def _chains(text: str) -> dict[str, list[_Line]] | None:
    chains: dict[str, list[_Line]] | None = None
    is_nat = False
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith(":") and is_nat and chains is not None:
            chains.setdefault(line[1:].split()[0], [])
        elif line.startswith("*"):
            is_nat = line == "*nat"
            if is_nat and chains is None:
                chains = {}
        elif is_nat and chains is not None and (at := line.find("-A ")) >= 0 and line[:1] in "-[":
            name, found = _line(number, line[at:])
            chains.setdefault(name, []).append(found)
    return chains


def _line(number: int, text: str) -> tuple[str, _Line]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        return text.split()[1], _Line(number, text, _Match(), "?", None, f"cannot be read ({error})")
    found = _Line(number, text, _Match(), None, None, None)
    rest: Sequence[str] = words[2:]
    while rest:
        found, rest = _word(found, rest)
    return words[1], found


def _word(line: _Line, words: Sequence[str]) -> tuple[_Line, Sequence[str]]:
    word, value = words[0], words[1] if len(words) > 1 else ""
    match line.match, word:
        case _, "!":  # What stands behind it is not what the rule asks for: it may take anything.
            return replace(line, unknown=line.unknown or f"`! {value}` is not read"), words[2:]
        case match, "-d":
            address, _, length = value.partition("/")
            if length not in ("", "32" if ":" not in address else "128"):
                return replace(line, unknown="a net as destination"), words[2:]
            try:
                return replace(line, match=replace(match, address=str(ip_address(address)))), words[2:]
            except ValueError:
                return replace(line, unknown="a destination that is no address"), words[2:]
        case match, "-p":
            return replace(line, match=replace(match, protocol=None if value == "all" else value)), words[2:]
        case match, "--dport":
            return replace(line, match=replace(match, port=value)), words[2:]
        case _, "-m" if value in ("tcp", "udp", "sctp", "comment", "addrtype"):
            return line, words[2:]
        case _, "--dst-type" if value == "LOCAL":
            return replace(line, is_local=True), words[2:]
        case _, "--comment":
            return line, words[2:]
        case _, "-j":
            return replace(line, target=value), words[2:]
        case _, "-g":
            return replace(line, target=word, unknown="`-g` is not read"), words[2:]
        case _, "--to-destination":
            return replace(line, to=value), words[2:]
    if line.target is None or line.target not in _HARMLESS:  # Options of those change nothing here.
        unread = " ".join(words[:2]) if word == "-m" else word
        return replace(line, unknown=line.unknown or f"`{unread}` is not read"), words[1:]
    return line, words[1:]


@dataclass(frozen=True, slots=True)
class _Chains:
    """The nat table of a node."""

    lines: dict[str, list[_Line]]
    local: tuple[str, ...]
    """The node's addresses, as far as they are known."""

    def followed(
        self, name: str, given: _Match = _ANYTHING, above: tuple[str, ...] = ()
    ) -> Iterator[tuple[_Line, _Match, DnatRule | str]]:
        """The rules of a chain and those it leads to, what each matches at most, or why it is not read."""
        for line in self.lines.get(name, ()):
            if line.target in _HARMLESS or (line.target in self.lines and not self._sends(line.target, ())):
                continue
            if not line.is_local:
                yield from self._line(line, given, (*above, name))
            elif not self.local:
                yield line, given, "which addresses are LOCAL is not known without --node or --host"
            for address in self.local if line.is_local else ():
                if (match := given.and_(_Match(address))) is not None:
                    yield from self._line(line, match, (*above, name))

    def _line(
        self, line: _Line, given: _Match, above: tuple[str, ...]
    ) -> Iterator[tuple[_Line, _Match, DnatRule | str]]:
        match, is_chain = line.match.and_(given), line.target in self.lines
        if match is None:
            if not line.match.excludes(given):
                yield line, given, "what it asks for is not read together with what leads to its chain"
        elif line.unknown is not None and (is_chain or line.target in ("DNAT", "-g", "?")):
            yield line, match, line.unknown
        elif not is_chain:
            yield line, match, _rule(line, match)
        elif line.target in above or len(above) > _DEEPEST:
            yield line, match, "it leads in a circle"
        else:
            yield from self.followed(f"{line.target}", match, above)

    def _sends(self, name: str | None, above: tuple[str | None, ...]) -> bool:
        """Whether a chain may send packets elsewhere, or past what follows where it is led to from."""
        if name in above:
            return True
        return any(
            line.target not in (*_HARMLESS, "RETURN")
            and (line.target not in self.lines or self._sends(line.target, (*above, name)))
            for line in self.lines.get(f"{name}", ())
        )


def _rule(line: _Line, match: _Match) -> DnatRule | str:
    if line.target != "DNAT" or line.to is None:
        return f"the target {line.target} is not read"
    if match.address is None:
        return "it names no destination (-d)"
    try:
        return match.to(line.to)
    except FieldError as error:
        return error.message
