"""The packet that a question is about, and the answer: the words of JSON lines, cases and traces.

`packet_from_json` and `answer_to_json` speak the JSON lines of `labelgate explain` (README, "JSON lines").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from numbers import Integral
from typing import Any, Literal

from labelgate.errors import Portable
from labelgate.printable import printable

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
_IN, _OUT = ("in_",), ("out",)
INTERFACES: Mapping[Hook, tuple[str, ...]] = {
    "raw-prerouting": _IN,
    "raw-output": _OUT,
    "mangle-prerouting": _IN,
    "filter-input": _IN,
    "filter-forward": (*_IN, *_OUT),
    "filter-output": _OUT,
    "mangle-postrouting": _OUT,
}
"""The fields of `Packet` that say which interface a packet at a hook has; in FORWARD one of both will do."""
Verdict = Literal["deny", "allow", "allow-notrack", "allow-skip-hep", "continue"]
VERDICTS: tuple[Verdict, ...] = ("deny", "allow", "allow-notrack", "allow-skip-hep", "continue")
"""By the number that stands for each in a column."""
CtState = Literal["new", "established", "related", "invalid", "untracked"]
CT_STATES: tuple[CtState, ...] = ("new", "established", "related", "invalid", "untracked")
"""By the number that stands for each in a column."""
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
_ADDRESSES = (IPv4Address, IPv6Address)

ICMP, TCP, UDP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 58, 132, 136
PROTOCOLS: Mapping[str, int] = {
    "icmp": ICMP,
    "tcp": TCP,
    "udp": UDP,
    "icmpv6": ICMPV6,
    "sctp": SCTP,
    "udplite": UDPLITE,
}
"""IP protocol names that questions may use, in lower case; any case is accepted."""


class FieldError(Portable, ValueError):
    """A question cannot be read: which field, what was found, what was expected."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


_NUMBERS = ("protocol", "sport", "dport", "icmp_type", "icmp_code")


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet at one hook: what the bytes tell, and where and in which state it was seen.

    >>> here, there = ip_address("198.51.100.10"), ip_address("192.0.2.5")
    >>> Packet("filter-input", there, here, TCP, sport=40000, dport=22, in_="eth0").ct
    'new'

    Raises:
        FieldError: src or dst is no address (`ipaddress.ip_address` makes one of text), or their IP versions
            differ; or True or False is given as a number.
    """

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

    def __post_init__(self) -> None:
        for field, address in (("src", self.src), ("dst", self.dst)):
            if not isinstance(address, _ADDRESSES):
                found = f"text {shown(address)}" if isinstance(address, str) else shown(address)
                raise FieldError(field, f"found {found}, expected an IPv4Address or IPv6Address")
        if self.src.version != self.dst.version:
            raise FieldError("dst", f"found `{self.dst}`, expected the IP version of src `{self.src}`")
        numbers = (self.protocol, self.sport, self.dport, self.icmp_type, self.icmp_code)
        if bool in map(type, numbers):
            field = _NUMBERS[list(map(type, numbers)).index(bool)]
            raise FieldError(field, f"found {getattr(self, field)}, expected a number")
        # Where one port is known the other counts as 0, which no policy can name; likewise the ICMP code.
        if self.sport is None and self.dport is not None:
            object.__setattr__(self, "sport", 0)
        if self.dport is None and self.sport is not None:
            object.__setattr__(self, "dport", 0)
        if self.icmp_type is not None and self.icmp_code is None:
            object.__setattr__(self, "icmp_code", 0)


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


@dataclass(frozen=True, slots=True)
class Gate:
    """What the policy of one workload says about a new connection, in one direction."""

    verdict: Literal["allow", "deny"]
    tier: str | None
    policy: str | None
    """`Kind/namespace/name` or `Kind/name`; None where no rule decided."""
    rule: int | None
    """Counts from 0 within its direction."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Whether one workload reaches another: both gates must allow, a missing one does."""

    egress: Gate | None
    """Of the workload that owns the source; None: no workload does."""
    ingress: Gate | None
    """Of the workload that owns the destination; None: no workload does."""

    @property
    def verdict(self) -> Literal["allow", "deny"]:
        """Any deny wins (E-39a)."""
        gates = (self.egress, self.ingress)
        return "deny" if any(gate and gate.verdict == "deny" for gate in gates) else "allow"


def missing_interfaces(packet: Packet) -> tuple[str, ...]:
    """The fields that say which interface a packet at its hook has, where none of them does (E-45).

    Nobody governs such a packet, and the answer to it would read as "not denied".
    """
    fields = INTERFACES.get(packet.hook, ())
    is_there = (packet.in_ and "in_" in fields) or (packet.out and "out" in fields)
    return () if is_there else fields


NOWHERE = "missing: say where the packet is seen by `{}`, `{}` or both"


def check_interfaces(packet: Packet) -> None:
    """FieldError where a question has no interface although a packet at its hook has one."""
    match missing_interfaces(packet):
        case (field,):
            raise FieldError(field, f"missing: a packet at {packet.hook} has one")
        case (one, other):
            raise FieldError(one, NOWHERE.format(one, other))


def shown(value: object) -> str:
    """A decoded JSON value as the line wrote it, cut where it is long.

    >>> shown(True), shown("eth0"), shown(None)
    ('`true`', '`eth0`', '`null`')
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = printable(text)
    return f"`{text if len(text) <= 80 else text[:80] + '...'}`"


def protocol_number(value: object, field: str = "protocol") -> int:
    """The IP protocol number of a name in any case or of a number.

    >>> protocol_number("tcp"), protocol_number("SCTP"), protocol_number(47)
    (6, 132, 47)
    """
    if isinstance(value, str):
        if value.lower() in PROTOCOLS:
            return PROTOCOLS[value.lower()]
        if value.isascii() and value.isdigit() and int(value) <= 255:
            return int(value)
    elif isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) <= 255:
        return int(value)  # numpy's, too
    raise FieldError(
        field, f"found {shown(value)}, expected a number 0..255 or one of {', '.join(PROTOCOLS)}"
    )


def _number(limit: int) -> Any:
    def read(value: object, field: str) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit:
            return value
        raise FieldError(field, f"found {_with_kind(value)}, expected a number 0..{limit}")

    return read


def _with_kind(value: object) -> str:
    return f"text `{value}`" if isinstance(value, str) else shown(value)


def _flag(value: object, field: str) -> bool:
    if isinstance(value, bool):
        return value
    raise FieldError(field, f"found {_with_kind(value)}, expected true or false")


def is_text(value: str) -> bool:
    """Whether it can be a name: one half of a surrogate pair is no text."""
    return bool(value) and (value.isascii() or not re.search("[\ud800-\udfff]", value))


def _text(value: object, field: str) -> str:
    if isinstance(value, str) and is_text(value):
        return value
    raise FieldError(field, f"found {shown(value)}, expected an interface name")


def _word(words: tuple[str, ...]) -> Any:
    def read(value: object, field: str) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise FieldError(field, f"found {shown(value)}, expected one of {', '.join(words)}")

    return read


@lru_cache(maxsize=1 << 16)
def _address(text: str) -> IPAddress | None:
    """Addresses of questions in bulk repeat; reading one again is most of the time that a question takes."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def read_address(value: object, field: str) -> IPAddress:
    """An IPv4 or IPv6 address from text."""
    # A zone (`fe80::1%eth0`) says where a packet was seen: that is what `in` and `out` are for.
    found = _address(value) if isinstance(value, str) and "%" not in value else None
    if found is not None:
        return found
    raise FieldError(field, f"found {shown(value)}, expected an IPv4 or IPv6 address")


_FIELDS: Mapping[str, tuple[str, Any]] = {
    "hook": ("hook", _word(HOOKS)),
    "src": ("src", read_address),
    "dst": ("dst", read_address),
    "protocol": ("protocol", protocol_number),
    "sport": ("sport", _number(65535)),
    "dport": ("dport", _number(65535)),
    "icmpType": ("icmp_type", _number(255)),
    "icmpCode": ("icmp_code", _number(255)),
    "in": ("in_", _text),
    "out": ("out", _text),
    "ct": ("ct", _word(CT_STATES)),
    "accepted": ("accepted", _flag),
    "dnatted": ("dnatted", _flag),
    "fragment": ("fragment", _flag),
}


def packet_from_json(line: object) -> Packet:
    """A packet from one decoded JSON line; `id` is the caller's. Absent and null are the same.

    >>> packet_from_json({"hook": "filter-input", "in": "eth0", "src": "192.0.2.5", "dst": "198.51.100.10",
    ...                   "protocol": "tcp", "sport": 40000, "dport": 22}).dport
    22

    Raises:
        FieldError: a field is missing, unknown or cannot be read.
    """
    return Packet(**_read(line, _FIELDS, ("hook", "src", "dst", "protocol")))


_CONNECTION_FIELDS = {
    name: _FIELDS[name] for name in ("src", "dst", "protocol", "sport", "dport", "icmpType", "icmpCode")
}


def connection_from_json(line: object) -> Packet:
    """The first packet of a connection between workloads, from one decoded JSON line.

    >>> connection_from_json({"src": "10.65.0.2", "dst": "10.65.0.3", "protocol": "tcp", "dport": 80}).dport
    80

    Raises:
        FieldError: a field is missing, unknown or cannot be read.
    """
    return Packet(hook="filter-forward", **_read(line, _CONNECTION_FIELDS, ("src", "dst", "protocol")))


def _read(line: object, fields: Mapping[str, tuple[str, Any]], required: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(line, dict):
        raise FieldError("", f"found {shown(line)}, expected an object")
    values = {}
    for name, value in line.items():
        if value is None or name == "id":
            continue
        if name not in fields:
            raise FieldError(name, f"unknown field, expected one of id, {', '.join(fields)}")
        attribute, read = fields[name]
        values[attribute] = read(value, name)
    for name in required:
        if name not in values:
            raise FieldError(name, "missing")
    return values


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """An answer as the object of a JSON line, without `id`."""
    return {
        "verdict": answer.verdict,
        "failsafe": answer.failsafe,
        "accepted": answer.accepted,
        "trace": [
            {
                "stage": step.stage,
                "endpoint": step.endpoint,
                "tier": step.tier,
                "policy": step.policy,
                "rule": step.rule,
                "action": step.action,
                "reason": step.reason,
            }
            for step in answer.trace
        ],
    }


def connection_to_json(connection: Connection) -> dict[str, Any]:
    """A connection's answer as the object of a JSON line, without `id`."""
    return {
        "verdict": connection.verdict,
        "egress": _gate_to_json(connection.egress),
        "ingress": _gate_to_json(connection.ingress),
    }


def _gate_to_json(gate: Gate | None) -> dict[str, Any] | None:
    if gate is None:
        return None
    return {"verdict": gate.verdict, "tier": gate.tier, "policy": gate.policy, "rule": gate.rule}
