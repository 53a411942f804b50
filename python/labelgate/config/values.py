"""Readers of values: text or a YAML value in, a typed value out; ValueError says what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from labelgate.flow import PROTOCOLS
from labelgate.resources.values import loose_network
from labelgate.settings import Failsafe


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a server listens.

    >>> str(Listen("::1", 9091))
    '[::1]:9091'
    """

    address: str
    port: int

    def __str__(self) -> str:
        """As the configuration has it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def word(*words: str) -> Callable[[Any], str]:
    """One of these, in whatever case."""
    folded = {word.lower(): word for word in words}

    def read(value: Any) -> str:
        if isinstance(value, str) and value.lower() in folded:
            return folded[value.lower()]
        raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}")

    return read


def number(low: int, high: int) -> Callable[[Any], int]:
    """A whole number, decimal or with `0x`; both ends are allowed."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]{1,12}|[0-9]{1,12}", value):
            value = int(value, 0 if value[:2].lower() == "0x" else 10)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"expected a number {low}..{high}")

    return read


def flag(value: Any) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("expected true or false")


def mask(value: Any) -> int:
    """Three bits of 32."""
    bits = number(1, 0xFFFF_FFFF)(value)
    if bits.bit_count() != 3:
        raise ValueError("expected a mask of exactly three bits, such as 0x1500")
    return bits


_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}


def read_duration(value: Any) -> float:
    """Seconds of a text such as `2s`, `500ms`, `1m` or `2`; ValueError says what was expected."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|)", str(value))
    if match is None:
        raise ValueError("expected a duration such as 2s, 500ms or a number of seconds")
    return float(match[1]) * _UNITS[match[2]]


def texts(value: Any) -> tuple[str, ...]:
    """Names, as a list or parted by commas; at least one."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list | tuple) and parts:
        names = tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())
        if len(names) == len(parts):
            return names
    raise ValueError("expected a name or a list of names")


def prefixes(value: Any) -> tuple[str, ...]:
    """What names of interfaces begin with, as iptables can be told."""
    found = texts(value)
    for prefix in found:
        if not re.fullmatch(r"[A-Za-z0-9_.:@-]{1,14}", prefix):
            raise ValueError(f"found `{prefix}`, expected at most 14 letters, digits and `_.:@-`")
    return found


def text(value: Any) -> str:
    """A name."""
    if isinstance(value, str) and value:
        return value
    raise ValueError("expected a name")


def path(value: Any) -> str:
    """An absolute path."""
    if isinstance(value, str) and value.startswith("/"):
        return value
    raise ValueError("expected an absolute path")


def any_text(value: Any) -> str:
    """Whatever text, the empty one too."""
    if isinstance(value, str):
        return value
    raise ValueError("expected text")


def listen(value: Any) -> Listen | None:
    """`PORT` (of 127.0.0.1), `ADDRESS:PORT`, `[ADDRESS]:PORT`, or `none`."""
    if isinstance(value, Listen) or value == "none":
        return None if value == "none" else value
    match = re.fullmatch(r"(?:(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[0-9.]+)):)?(?P<port>[0-9]+)", str(value))
    try:
        if match is None:
            raise ValueError
        address = ip_address(match["v6"] or match["v4"] or "127.0.0.1")
        return Listen(str(address), number(1, 65535)(match["port"]))
    except ValueError:
        raise ValueError("expected a port, ADDRESS:PORT, [ADDRESS]:PORT or none") from None


def workers(value: Any) -> int | None:
    """How many; None: `auto`."""
    if value == "auto":
        return None
    try:
        return number(1, 64)(value)
    except ValueError:
        raise ValueError("expected auto, or a number 1..64") from None


def cpus(value: Any) -> tuple[int, ...]:
    """Numbers of processors, as a list or parted by commas."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    parts = [parts] if isinstance(parts, int) else parts
    if isinstance(parts, list | tuple) and parts:
        return tuple(map(number(0, 8191), parts))
    raise ValueError("expected numbers of processors, such as 2,3")


# --- failsafe ports (E-41) -------------------------------------------------------------------------------

_FAILSAFE_TEXT = re.compile(
    r"(?:(?P<protocol>[A-Za-z]+):(?:(?:\[(?P<v6>[^\]]*:[^\]]*)\]|(?P<v4>[0-9./]+)):)?)?(?P<port>[0-9]+)"
)
_FAILSAFE_PROTOCOLS = {name: PROTOCOLS[name] for name in ("tcp", "udp", "sctp")}


def failsafes(default: tuple[Failsafe, ...]) -> Callable[[Any], tuple[Failsafe, ...]]:
    """`proto:cidr:port`, `proto:port`, `port`; `none` empties, the empty text is the default."""

    def read(value: Any) -> tuple[Failsafe, ...]:
        if isinstance(value, str):
            if not value.strip():
                return default
            if value.strip().lower() == "none":
                return ()
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list | tuple):
            raise ValueError("expected `none` or a list such as tcp:22, udp:10.0.0.0/8:53")
        return tuple(dict.fromkeys(map(_failsafe, value)))

    return read


def _failsafe(entry: Any) -> Failsafe:
    if isinstance(entry, Failsafe):
        return entry
    try:
        if isinstance(entry, Mapping):
            return _failsafe_of(**entry)
        match = _FAILSAFE_TEXT.fullmatch(str(entry))
        if match is None:
            raise ValueError
        return _failsafe_of(match["port"], match["protocol"] or "", match["v6"] or match["v4"] or "")
    except (TypeError, ValueError):
        expected = "proto:cidr:port, proto:port or port with tcp, udp or sctp, an IPv6 CIDR in brackets"
        raise ValueError(f"found `{shown(entry)}`, expected {expected}") from None


def _failsafe_of(port: Any, protocol: str = "", net: str = "") -> Failsafe:
    """One entry from its parts; raises ValueError or TypeError without words."""
    known = _FAILSAFE_PROTOCOLS.get(str(protocol or "tcp").lower())
    if known is None:
        raise ValueError
    return Failsafe(known, number(1, 65535)(port), _net(net) if net else None)


_net: Callable[[Any], IPv4Network | IPv6Network] = loose_network("felix-failsafe-net")


def shown(value: Any) -> str:
    """A value as messages have it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
