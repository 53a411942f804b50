"""Values that change verdicts, under the names they have here; Felix's names are in `config`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

from labelgate.arguments import check_type, shown

INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
"""Names of interfaces that rules can hold: without `+`, which is any ending, and signs of iptables' own."""
_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}


def _check_number(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name}: found {shown(value)}, expected a number {least}..{most}")


def _check_several(name: str, items: object, kind: type, expected: str) -> None:
    if not isinstance(items, tuple | list):
        raise TypeError(f"{name}: found {shown(items)}, expected {expected}")
    for number, item in enumerate(items):
        check_type(f"{name}[{number}]", item, kind, f"{expected} only")


@dataclass(frozen=True, slots=True)
class Failsafe:
    """One failsafe port (E-41).

    Raises:
        TypeError, ValueError: a value is none that it may be.
    """

    protocol: int
    """IP protocol number."""
    port: int
    net: IPv4Network | IPv6Network | None = None
    """Remote side; with it the entry exists only in that family."""

    def __post_init__(self) -> None:
        _check_number("protocol", self.protocol, 0, 255)
        _check_number("port", self.port, 1, 65535)
        expected = "an IPv4Network or IPv6Network, or None"
        check_type("net", self.net, IPv4Network | IPv6Network | None, expected)

    def __str__(self) -> str:
        """As the configuration has it."""
        name = _NAMES.get(self.protocol, str(self.protocol))
        if self.net is None:
            return f"{name}:{self.port}"
        return f"{name}:{self.net if self.net.version == 4 else f'[{self.net}]'}:{self.port}"


def _failsafes(*entries: tuple[int, int]) -> tuple[Failsafe, ...]:
    return tuple(Failsafe(protocol, port) for protocol, port in entries)


_TCP, _UDP = 6, 17
_CLUSTER = ((_TCP, 179), (_TCP, 2379), (_TCP, 2380), (_TCP, 5473), (_TCP, 6443), (_TCP, 6666), (_TCP, 6667))
DEFAULT_FAILSAFE_INBOUND = _failsafes((_TCP, 22), (_UDP, 68), *_CLUSTER)
DEFAULT_FAILSAFE_OUTBOUND = _failsafes((_UDP, 53), (_UDP, 67), *_CLUSTER)


@dataclass(frozen=True, slots=True)
class Settings:
    """Felix's values that change verdicts, and three of our own.

    >>> Settings(filter_deny="Reject", failsafe_inbound=(Failsafe(6, 22),)).workload_prefixes
    ('cali',)

    Raises:
        TypeError, ValueError: a value is none that it may be.
    """

    endpoint_to_host: Literal["Drop", "Accept", "Return"] = "Drop"
    """`DefaultEndpointToHostAction` (E-50)."""
    filter_allow: Literal["Accept", "Return"] = "Accept"
    """`IptablesFilterAllowAction`."""
    filter_deny: Literal["Drop", "Reject"] = "Drop"
    """`IptablesFilterDenyAction` (M-55)."""
    invalid_check: bool = True
    """Not `DisableConntrackInvalidCheck` (E-20.2)."""
    chain_insert_mode: Literal["insert", "append"] = "insert"
    """`ChainInsertMode` (P-1)."""
    failsafe_inbound: tuple[Failsafe, ...] = DEFAULT_FAILSAFE_INBOUND
    """E-40."""
    failsafe_outbound: tuple[Failsafe, ...] = DEFAULT_FAILSAFE_OUTBOUND
    """E-40."""
    workload_prefixes: tuple[str, ...] = ("cali",)
    """`InterfacePrefix`: interface names with these prefixes are workload interfaces."""
    workload_vxlan_port: int | None = 4789
    """UDP port denied from workloads (E-20.5); None where `AllowVXLANPacketsFromWorkloads`."""
    workload_ipip_denied: bool = True
    """E-20.5; False where `AllowIPIPPacketsFromWorkloads`."""
    forward_unmarked: Literal["return", "accept", "deny"] = "return"
    """E-27."""
    exempt_loopback: bool = False
    """E-47: a `*` host endpoint leaves `lo` alone."""

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if (found := getattr(self, name)) not in words:
                raise ValueError(f"{name}: found {shown(found)}, expected one of {', '.join(words)}")
        for name in ("invalid_check", "workload_ipip_denied", "exempt_loopback"):
            check_type(name, getattr(self, name), bool, "True or False")
        for name in ("failsafe_inbound", "failsafe_outbound"):
            _check_several(name, getattr(self, name), Failsafe, "a tuple of Failsafe")
        _check_several("workload_prefixes", self.workload_prefixes, str, _PREFIXES)
        if not all(self.workload_prefixes) or not self.workload_prefixes:
            raise ValueError(f"workload_prefixes: found {self.workload_prefixes!r}, expected {_PREFIXES}")
        if self.workload_vxlan_port is not None:
            _check_number("workload_vxlan_port", self.workload_vxlan_port, 1, 65535)


_PREFIXES = "a tuple of beginnings of names, one at least"
_WORDS = {
    "endpoint_to_host": ("Drop", "Accept", "Return"),
    "filter_allow": ("Accept", "Return"),
    "filter_deny": ("Drop", "Reject"),
    "chain_insert_mode": ("insert", "append"),
    "forward_unmarked": ("return", "accept", "deny"),
}
"""Of the fields of `Settings` that have one of some words."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the host looks like: interface names to their addresses (text, without prefix length or zone).

    >>> HostFacts({"eth0": ("198.51.100.10", "2001:db8::10"), "eth1": ()}).interfaces["eth1"]
    ()

    Raises:
        TypeError: `interfaces` is no mapping, or something else than a name is in it.
        ValueError: an interface has something else than addresses.
    """

    interfaces: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        expected = "names with tuples of addresses"
        check_type("interfaces", self.interfaces, Mapping, expected)
        for name, addresses in self.interfaces.items():
            check_type("interfaces", name, str, expected)
            if not isinstance(addresses, tuple | list) or not all(map(_is_address, addresses)):
                expected = "a tuple of addresses without prefix length"
                raise ValueError(f"interfaces: {name}: found {addresses!r}, expected {expected}")
        own = {name: tuple(addresses) for name, addresses in self.interfaces.items()}
        object.__setattr__(self, "interfaces", own)

    def __hash__(self) -> int:
        return hash(frozenset(self.interfaces.items()))


def _is_address(text: object) -> bool:
    """Whether it is the text of one; a zone (`fe80::1%eth0`) is what the interface says already."""
    if not isinstance(text, str) or "%" in text:
        return False
    try:
        return bool(ip_address(text))
    except ValueError:
        return False
