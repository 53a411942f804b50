"""A tiny netfilter: runs packets through the text of our transactions; it knows no words but ours."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136, "ipv6-icmp": 58}


@dataclass(frozen=True)
class KernelPacket:
    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    protocol: int
    in_: str | None
    out: str | None
    ct: str
    mark: int
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    dnatted: bool = False
    notrack: bool = False


@dataclass(frozen=True)
class Outcome:
    """`word`: accept, drop, reject, queue, or return (our chains are done with the packet)."""

    word: str
    packet: KernelPacket
    queue: int | None = None
    rules: int = 0
    """How many rules were looked at."""
    counted: tuple[str, ...] = ()
    """Counters of rules that matched."""


Match = Callable[[KernelPacket], bool]


@dataclass(frozen=True)
class ParsedRule:
    matches: tuple[Match, ...]
    jump: str | None
    goto: str | None
    options: dict[str, str]
    counters: tuple[str, ...]


class Interpreter:
    def __init__(self, transaction: str) -> None:
        self.chains: dict[str, list[ParsedRule]] = {}
        self.jumps: dict[str, ParsedRule] = {}
        """Into our chain of each hook, by base chain."""
        for line in transaction.splitlines():
            if line.startswith(":"):
                self.chains[line[1:].split()[0]] = []
        for line in transaction.splitlines():
            words = shlex.split(line)
            if line.startswith("-A lg-"):
                self.chains[words[1]].append(parse(words[2:]))
            elif line.startswith(("-I ", "-A ")):
                rule = parse(words[3 if line.startswith("-I ") else 2 :])
                if rule.jump == f"lg-{words[1]}":
                    self.jumps[words[1]] = rule

    def enter(self, base: str, packet: KernelPacket) -> Outcome:
        """From the base chain on, as far as it leads to us."""
        jump = self.jumps.get(base)
        if jump is None or not all(match(packet) for match in jump.matches):
            return Outcome("return", packet, rules=int(jump is not None))
        outcome = self.run(f"lg-{base}", packet)
        return replace(outcome, rules=outcome.rules + 1)

    def run(self, chain: str, packet: KernelPacket) -> Outcome:
        """From our chain of a base chain to the verdict, or back."""
        stack: list[tuple[str, int]] = []
        position, index, looked = chain, 0, 0
        counted: tuple[str, ...] = ()
        for _ in range(10_000):
            rules = self.chains[position]
            if index >= len(rules):
                if not stack:
                    return Outcome("return", packet, rules=looked, counted=counted)
                position, index = stack.pop()
                continue
            rule, index, looked = rules[index], index + 1, looked + 1
            if not all(match(packet) for match in rule.matches):
                continue
            counted += rule.counters
            if rule.goto is not None:
                position, index = rule.goto, 0
            elif rule.jump in self.chains:
                stack.append((position, index))
                position, index = rule.jump, 0
            elif rule.jump == "RETURN":
                index = len(rules)
            elif rule.jump == "MARK":
                value, mask = (int(part, 16) for part in rule.options["--set-xmark"].split("/"))
                packet = replace(packet, mark=(packet.mark & ~mask) ^ value)
            elif rule.jump == "CT":
                packet = replace(packet, notrack=True, ct="untracked")
            elif rule.jump == "NFQUEUE":
                return Outcome("queue", packet, int(rule.options["--queue-num"]), looked, counted)
            else:
                assert rule.jump in {"ACCEPT", "DROP", "REJECT"}, rule
                return Outcome(rule.jump.lower(), packet, rules=looked, counted=counted)
        raise AssertionError(f"no end from {chain}")


def parse(words: list[str]) -> ParsedRule:
    matches: list[Match] = []
    options: dict[str, str] = {}
    counters: list[str] = []
    jump = goto = None
    negated = False
    rest = iter(words)
    for word in rest:
        if word == "!":
            negated = True
            continue
        if word == "-m" or word in {"--notrack", "--queue-bypass"}:
            if word == "-m":
                next(rest)
            continue
        value = next(rest)
        if word == "-j":
            jump = value
        elif word == "-g":
            goto = value
        elif word == "--nfacct-name":
            assert not negated, "a counter counts what has matched"
            counters.append(value)
        elif word in {"--set-xmark", "--queue-num", "--reject-with"}:
            options[word] = value
        else:
            matches.append(inverted(MATCHES[word](value)) if negated else MATCHES[word](value))
            negated = False
    assert not negated, words
    return ParsedRule(tuple(matches), jump, goto, options, tuple(counters))


def inverted(match: Match) -> Match:
    return lambda packet: not match(packet)


def interface(side: str) -> Callable[[str], Match]:
    def make(pattern: str) -> Match:
        def match(packet: KernelPacket) -> bool:
            name = getattr(packet, side) or ""
            return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern

        return match

    return make


def address(side: str) -> Callable[[str], Match]:
    def make(net: str) -> Match:
        network = ip_network(net)
        return lambda packet: getattr(packet, side) in network

    return make


def ports(side: str) -> Callable[[str], Match]:
    def make(listed: str) -> Match:
        ranges = [[int(number) for number in part.split(":")] for part in listed.split(",")]
        assert sum(map(len, ranges)) <= 15

        def match(packet: KernelPacket) -> bool:
            port = getattr(packet, side)
            return port is not None and any(ends[0] <= port <= ends[-1] for ends in ranges)

        return match

    return make


def mark(text: str) -> Match:
    value, mask = (int(part, 16) for part in text.split("/"))
    return lambda packet: packet.mark & mask == value


def ctstate(text: str) -> Match:
    states = set(text.lower().split(","))
    # As xt_conntrack: an INVALID packet has no entry, so never the DNAT state.
    return lambda packet: bool(
        {packet.ct, "dnat" if packet.dnatted and packet.ct != "invalid" else ""} & states
    )


MATCHES: dict[str, Callable[[str], Match]] = {
    "-i": interface("in_"),
    "-o": interface("out"),
    "-s": address("src"),
    "-d": address("dst"),
    "-p": lambda name: lambda packet: packet.protocol == (PROTOCOLS.get(name) or int(name)),
    "--mark": mark,
    "--ctstate": ctstate,
    # What has a connection that is not confirmed yet is sent by the kernel (tests/kernel/test_answers.py).
    "--ctstatus": lambda status: lambda packet: {"CONFIRMED": True}[status],
    "--dports": ports("dport"),
    "--sports": ports("sport"),
    "--dport": ports("dport"),
    "--icmpv6-type": lambda kind: lambda packet: packet.icmp_type == int(kind),
}
