"""The packet that a question is about, and the answer: the words of JSON lines, cases and traces.

The field names of `Packet` and `Answer` as JSON are those of the interface description in `docs/reference.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

Hook = Literal[
    "raw-prerouting",
    "raw-output",
    "mangle-prerouting",
    "filter-input",
    "filter-forward",
    "filter-output",
    "mangle-postrouting",
]
HOOKS: tuple[Hook, ...] = (
    "raw-prerouting",
    "raw-output",
    "mangle-prerouting",
    "filter-input",
    "filter-forward",
    "filter-output",
    "mangle-postrouting",
)
Verdict = Literal["deny", "allow", "allow-notrack", "allow-skip-hep", "continue"]
CtState = Literal["new", "established", "related", "invalid", "untracked"]
Action = Literal["Allow", "Deny", "Pass", "Log"]
Stage = Literal[
    "untracked",
    "prednat",
    "normal",
    "from-hep",
    "workload-egress",
    "workload-ingress",
    "to-hep",
    "workload-to-host",
    "conntrack",
    "failsafe",
    "interface",
    "spoof",
]
IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet at one hook: what the bytes tell, and where and in which state it was seen."""

    hook: Hook
    src: IPAddress
    dst: IPAddress
    protocol: int
    """IP protocol number."""
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    in_: str | None = None
    """In-interface by name."""
    out: str | None = None
    """Out-interface by name."""
    ct: CtState = "new"
    accepted: bool = False
    """Accept mark on arrival (E-48)."""
    dnatted: bool = False
    """The flow was DNATed in nat OUTPUT (E-37)."""
    fragment: bool = False
    """A later fragment: ports, ICMP type and code cannot be read, whatever is given (M-19)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an evaluation, in the order passed."""

    stage: Stage
    endpoint: str | None
    """`Kind/namespace/name` or `Kind/name`."""
    tier: str | None
    policy: str | None
    rule: int | None
    """Counts from 0 within its direction."""
    action: Action | None
    reason: str
    """One short phrase with the rule id, for example `end of tier (E-21)`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one hook answers to one packet."""

    verdict: Verdict
    failsafe: bool
    accepted: bool
    """Accept mark after our last rule of this hook."""
    trace: tuple[Step, ...]
