"""Values that change verdicts, under the names they have here; Felix's names are in `config`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

from labelgate.arguments import check_type


@dataclass(frozen=True, slots=True)
class Failsafe:
    """One failsafe port (E-41)."""

    protocol: int
    """IP protocol number."""
    port: int
    net: IPv4Network | IPv6Network | None = None
    """Remote side; with it the entry exists only in that family."""

    def __str__(self) -> str:
        """As the configuration has it."""
        name = {6: "tcp", 17: "udp", 132: "sctp"}[self.protocol]
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
    """Felix's values that change verdicts, and three of our own."""

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


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the host looks like: interface names to their addresses (text, without prefix length).

    >>> HostFacts({"eth0": ("198.51.100.10", "2001:db8::10"), "eth1": ()}).interfaces["eth1"]
    ()

    Raises:
        TypeError: `interfaces` is no mapping.
        ValueError: an interface has something else than addresses.
    """

    interfaces: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        check_type("interfaces", self.interfaces, Mapping, "names with tuples of addresses")
        for name, addresses in self.interfaces.items():
            is_none = isinstance(addresses, str) or not isinstance(addresses, Iterable)
            if is_none or not all(map(_is_address, addresses)):
                expected = "a tuple of addresses without prefix length"
                raise ValueError(f"interfaces: {name}: found {addresses!r}, expected {expected}")


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False
