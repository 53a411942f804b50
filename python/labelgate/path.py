"""A packet's way through a node: the hooks that it meets, in order, each with its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from labelgate.flow import Answer, Hook, IPAddress, Packet

Judge = Callable[[Packet], Answer]


@dataclass(frozen=True, slots=True)
class Visit:
    """One hook on the way."""

    packet: Packet
    """As this hook sees it."""
    answer: Answer


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


def walk(judge: Judge, packet: Packet, dnat: tuple[IPAddress, int] | None = None) -> Iterator[Visit]:
    """The answers at every hook on the way, until one denies.

    `packet.hook` is ignored. The accept mark travels on (E-48), an untracked packet is untracked from then on
    (E-60), and the out-interface is not known before routing. `dnat` is the destination that nat PREROUTING
    gives an incoming packet (E-70); `packet.out` is then the interface towards it.
    """
    current = packet
    for hook in hooks_of(packet.in_, packet.out):
        if dnat is not None and hook.startswith("filter"):
            current = replace(current, dst=dnat[0], dport=dnat[1])
        out = None if hook.endswith("prerouting") else packet.out
        current = replace(current, hook=hook, out=out)
        answer = judge(current)
        yield Visit(current, answer)
        if answer.verdict == "deny":
            return
        ct = "untracked" if answer.verdict == "allow-notrack" else current.ct
        current = replace(current, accepted=answer.accepted, ct=ct)
