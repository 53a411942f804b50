"""A packet's way through a node: the hooks that it meets, in order, each with its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from labelgate.flow import Answer, FieldError, Hook, IPAddress, Packet, Verdict, answer_to_json, read_address

Judge = Callable[[Packet], Answer]
Interfaces = tuple[str | None, str | None]
"""In- and out-interface."""


class Judged(Protocol):
    """What a hook says of a packet, with or without the steps that led to it."""

    @property
    def verdict(self) -> Verdict:
        """What its evaluation ends in."""

    @property
    def accepted(self) -> bool:
        """Accept mark after our last rule of this hook (E-48)."""


A = TypeVar("A", bound=Judged)


@dataclass(frozen=True, slots=True)
class Visit(Generic[A]):
    """One hook on the way."""

    packet: Packet
    """As this hook sees it."""
    answer: A


def hooks_of(in_: str | None, out: str | None) -> tuple[Hook, ...]:
    """The hooks that judge a packet that comes in, goes out or passes through (semantics 4.3).

    >>> hooks_of("eth0", None)
    ('raw-prerouting', 'mangle-prerouting', 'filter-input')
    """
    if in_ and out:
        return ("raw-prerouting", "mangle-prerouting", "filter-forward")
    if in_:
        return ("raw-prerouting", "mangle-prerouting", "filter-input")
    return ("raw-output", "filter-output", "mangle-postrouting")


STEPS = 3
"""Hooks on any way."""
LOOP: Interfaces = None, "lo"
"""The way of what stays on the host: what goes out there comes in again."""
BACK: Interfaces = "lo", None
"""The way of the same packet from then on."""


def ahead_of_dnat(behind: Interfaces, out_before_dnat: str | None) -> Interfaces:
    """The way to the destination before DNAT, as `walk` knows it, by the one to that behind it."""
    in_, out = behind
    return in_, out_before_dnat or (None if in_ else out)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where DNAT sends a packet."""

    address: IPAddress
    port: int | None = None
    """None leaves the port as it is."""


def read_destination(value: object, field: str = "dnat") -> Destination:
    """`ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.

    >>> read_destination("10.65.0.2:8080").port
    8080
    >>> str(read_destination("[fd00::2]:8080").address)
    'fd00::2'

    Raises:
        FieldError: it cannot be read.
    """
    expected = "expected ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT"
    if not isinstance(value, str):
        raise FieldError(field, f"found `{value}`, {expected}")
    address, colon, port = value.rpartition(":")
    if value.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif value.count(":") != 1:
        address, colon = value, ""
    try:
        found = read_address(address, field)
    except FieldError:
        raise FieldError(field, f"found `{value}`, {expected}") from None
    if not colon:
        return Destination(found)
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise FieldError(field, f"found port `{port}`, expected a number 1..65535")
    return Destination(found, int(port))


def walk(
    judge: Callable[[Packet], A],
    packet: Packet,
    dnat: Destination | None = None,
    out_before_dnat: str | None = None,
) -> Iterator[Visit[A]]:
    """The answers at every hook on the way, until one denies.

    `packet.hook` is ignored. The accept mark travels on (E-48), an untracked packet is untracked from then on
    (E-60), and the out-interface is not known before routing. `dnat` is the destination that nat PREROUTING
    gives an incoming packet (E-70), or nat OUTPUT a packet of the host itself, which mangle POSTROUTING then
    judges (E-37); `packet.out` is the interface towards it. `out_before_dnat` is the one towards
    `packet.dst`, which raw OUTPUT sees (E-32), and by which an untracked packet goes, as it passes no NAT
    (E-62). Where it is None, an incoming packet is taken to be addressed to the host, and one of the host's
    own to go by `packet.out`. What goes out over `lo` is judged a second time, as it comes in there (E-47).
    """
    behind = packet.in_, packet.out
    ahead = behind if dnat is None else ahead_of_dnat(behind, out_before_dnat)
    current = packet
    for step in range(STEPS):
        is_ahead = step == 0 or current.ct == "untracked"
        way = ahead if is_ahead else behind
        hook = hooks_of(*way)[step]
        current = replace(current, hook=hook, out=None if hook.endswith("prerouting") else way[1])
        if dnat is not None and hook.startswith("filter") and not is_ahead:
            current = _translated(current, dnat)
        answer = judge(current)
        yield Visit(current, answer)
        if answer.verdict == "deny":
            return
        ct = "untracked" if answer.verdict == "allow-notrack" else current.ct
        current = replace(current, accepted=answer.accepted, ct=ct)
    if (current.in_, current.out) == LOOP:
        yield from _come_back(judge, current)


def _come_back(judge: Callable[[Packet], A], packet: Packet) -> Iterator[Visit[A]]:
    """What has gone out over `lo`: without our marks (E-30), as NAT has left it.

    Conntrack knows the packet: its state stays, and no rule takes it out of there any more.
    """
    in_, out = BACK
    current = replace(packet, in_=in_, out=out, accepted=False)
    for hook in hooks_of(in_, out):
        current = replace(current, hook=hook)
        answer = judge(current)
        yield Visit(current, answer)
        if answer.verdict == "deny":
            return
        current = replace(current, accepted=answer.accepted)


def _translated(packet: Packet, to: Destination) -> Packet:
    if to.address.version != packet.dst.version:
        raise FieldError("dnat", f"found `{to.address}`, expected the IP version of dst `{packet.dst}`")
    # An ICMP message, or a fragment, has no port to translate.
    port = packet.dport if to.port is None or packet.dport is None else to.port
    local = packet.hook == "filter-output"
    return replace(packet, dst=to.address, dport=port, dnatted=packet.dnatted or local)


def path_to_json(visits: list[Visit[Answer]]) -> dict[str, Any]:
    """A whole way as the object of a JSON line, without `id`: how it ends, where, and every hook's answer."""
    last = visits[-1]
    return {
        "outcome": "denied" if last.answer.verdict == "deny" else "delivered",
        "at": last.packet.hook,
        "hooks": [
            {
                "hook": visit.packet.hook,
                "dst": str(visit.packet.dst),
                "dport": visit.packet.dport,
                **answer_to_json(visit.answer),
            }
            for visit in visits
        ],
    }
