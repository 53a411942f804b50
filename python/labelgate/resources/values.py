"""Single values of the policy language: protocols, ports, networks, names, labels, selectors.

Each function takes what a document holds, returns what it means, or raises `Wrong`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from textwrap import dedent
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, PlainSerializer, PlainValidator

from labelgate.resources.errors import Wrong, describe, quote
from labelgate.resources.positions import integer

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "ICMP": ICMP, "ICMPv6": ICMPV6, "SCTP": SCTP, "UDPLite": 136}
WITH_PORTS = frozenset((TCP, UDP, SCTP))


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int

    def as_written(self) -> int | str:
        """As in documents: `80`, or `80:90`."""
        return self.first if self.first == self.last else f"{self.first}:{self.last}"


def is_integer(value: object) -> bool:
    """A whole number; yes-or-no values are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def nearest(text: str, known: Iterable[str], likeness: float = 0.7) -> str | None:
    """The known word that was probably meant; `likeness` is the least, of 0 to 1."""
    folded = {word.lower(): word for word in known}
    close = get_close_matches(text.strip().lower(), folded, n=1, cutoff=likeness)
    return folded[close[0]] if close else None


def did_you_mean(text: str, known: Iterable[str], likeness: float = 0.7) -> str | None:
    """A hint at the nearest of the known words."""
    near = nearest(text, known, likeness)
    return None if near is None or near == text else f"did you mean `{near}`?"


def one_of(code: str, *known: str, hints: Mapping[str, str] | None = None) -> Callable[[Any], str]:
    """A parser of exactly these words; `hints` says what helps with some others, in small letters."""

    def parse(value: Any) -> str:
        if isinstance(value, str) and value in known:
            return value
        hint = None
        if isinstance(value, str):
            hint = (hints or {}).get(value.lower()) or did_you_mean(value, known)
        raise Wrong(code, describe(value), hint=hint)

    return parse


# --- protocols and ports ---------------------------------------------------------------------------------


def protocol(value: Any) -> int:
    """V-12, V-13: a protocol by name or number, as its number."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
        value = integer(value.lstrip("0") or "0")
    if is_integer(value):
        if 1 <= value <= 255:
            return int(value)
        raise Wrong("protocol-number", describe(value))
    if isinstance(value, str) and value in PROTOCOLS:
        return PROTOCOLS[value]
    hint = did_you_mean(value, PROTOCOLS) if isinstance(value, str) else None
    raise Wrong("protocol-name", describe(value), hint=hint)


def port_number(code: str) -> Callable[[Any], int]:
    """A parser of one port number, 1 to 65535."""

    def parse(value: Any) -> int:
        if is_integer(value) and 1 <= value <= 65535:
            return int(value)
        raise Wrong(code, describe(value))

    return parse


_PORT_WORD = re.compile(r"[a-zA-Z0-9_.-]{1,128}\Z")
_PORT_NAME = re.compile(r"(?=[0-9-]*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*\Z")


def is_port_name(text: str) -> bool:
    """V-20."""
    return len(text) <= 15 and _PORT_NAME.match(text) is not None


def port(value: Any) -> PortRange | str:
    """V-17..V-20: a number, a range `a:b`, or a name."""
    if is_integer(value):
        return _range(value, value, value)
    if isinstance(value, str):
        if match := re.fullmatch(r"([0-9]+)(?::([0-9]+))?", value):
            first, last = (integer(digits.lstrip("0") or "0") for digits in (match[1], match[2] or match[1]))
            return _range(first, last, value)
        if _PORT_WORD.match(value):
            return _port_name(value)
    raise Wrong("port-text", describe(value))


def _range(first: int, last: int, value: object) -> PortRange:
    if not (1 <= first <= 65535 and 1 <= last <= 65535):
        raise Wrong("port-range", describe(value))
    if first > last:
        raise Wrong("port-reversed", describe(value), first=last, last=first)
    return PortRange(first, last)


def _port_name(text: str) -> str:
    if is_port_name(text):
        return text
    hint = None
    if match := re.fullmatch(r"([0-9]+)-([0-9]+)", text):
        hint = f"write a range as `{match[1]}:{match[2]}`"
    raise Wrong("port-name", describe(text), hint=hint)


def endpoint_port_name(value: Any) -> str:
    """V-64."""
    if isinstance(value, str) and is_port_name(value):
        return value
    raise Wrong("endpoint-port-name", describe(value))


def endpoint_protocol(value: Any) -> int:
    """V-64: a protocol that has ports."""
    number = protocol(value)
    if number not in WITH_PORTS:
        raise Wrong("endpoint-port-protocol", describe(value))
    return number


# --- networks --------------------------------------------------------------------------------------------

_MASK = re.compile(r"[0-9]{1,3}\Z")


def _network(code: str, value: Any) -> tuple[IPAddress, IPNetwork, bool]:
    """The address as written, its network, and whether a mask was given.

    `ipaddress` also knows masks like `/255.0.0.0` and zones like `fe80::1%eth0`; they are refused.
    """
    if isinstance(value, str) and "%" not in value:
        address, slash, mask = value.partition("/")
        if not slash or _MASK.match(mask):
            try:
                found = ip_address(address)
                kind = IPv4Network if found.version == 4 else IPv6Network
                # From the number: a large set is read much faster than with its texts read twice.
                return found, kind((int(found), int(mask or found.max_prefixlen)), strict=False), bool(slash)
            except ValueError:
                pass
    raise Wrong(code, describe(value))


def network(value: Any) -> IPNetwork:
    """V-26, V-27: a network with its mask and without host bits."""
    address, net, masked = _network("net", value)
    if not masked:
        raise Wrong("net-no-mask", describe(value), host=net)
    if address != net.network_address:
        raise Wrong("net-host-bits", describe(value), net=net, host=ip_network(address))
    return net


def not_network(value: Any) -> IPNetwork:
    """V-30: a network as above, but not the one of all addresses."""
    net = network(value)
    if net.prefixlen == 0:
        raise Wrong("not-nets-all", describe(value))
    return net


def loose_network(code: str) -> Callable[[Any], IPNetwork]:
    """A parser of a network or a bare address; host bits are masked away."""
    return lambda value: _network(code, value)[1]


def masked_network(code: str) -> Callable[[Any], IPNetwork]:
    """A parser of a network with its mask; host bits are masked away, as the Kubernetes API does."""

    def parse(value: Any) -> IPNetwork:
        _, net, masked = _network(code, value)
        if not masked:
            raise Wrong(code, describe(value), hint=f"add the mask; this address alone is `{net}`")
        return net

    return parse


def host_network(value: Any) -> IPNetwork:
    """V-65: a network of one address."""
    _, net, _ = _network("workload-network", value)
    if net.num_addresses != 1:
        raise Wrong("workload-network", describe(value))
    return net


def address(code: str) -> Callable[[Any], IPAddress]:
    """A parser of an address without a mask."""

    def parse(value: Any) -> IPAddress:
        found, _, masked = _network(code, value)
        if masked:
            raise Wrong(code, describe(value), hint=f"leave out the mask: `{found}`")
        return found

    return parse


_Value = TypeVar("_Value")


def merged(values: list[_Value]) -> list[_Value]:
    """V-74: the same value twice counts once."""
    return list(dict.fromkeys(values))


# --- names and labels ------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}\Z")


def is_subdomain(text: str) -> bool:
    """DNS-1123: lower-case labels with dots between, at most 253 characters."""
    return len(text) <= 253 and _SUBDOMAIN.match(text) is not None


def reference(text: str) -> str:
    """V-73: the name of something else; empty is none."""
    if text and not is_subdomain(text):
        raise Wrong("name-reference", describe(text))
    return text


def is_label_key(text: str) -> bool:
    """V-6: `name` or `prefix/name`."""
    prefix, slash, name = text.rpartition("/")
    if slash and not is_subdomain(prefix):
        return False
    return len(name) <= 63 and _QUALIFIED.match(name) is not None


def is_label_value(text: str) -> bool:
    """V-6."""
    return not text or (len(text) <= 63 and _QUALIFIED.match(text) is not None)


# --- selectors -------------------------------------------------------------------------------------------

MAX_SELECTOR = 1024


@lru_cache(maxsize=4096)
def _selector_complaint(text: str) -> str | None:
    from labelgate import _core  # the core is loaded when the first selector is met

    try:
        _core.check_selector(text)
    except ValueError as error:
        return str(error)
    return None


def selector(text: str) -> str:
    """V-35, V-48: a selector that can be read."""
    if len(text) > MAX_SELECTOR:
        raise Wrong("selector-length", quote(text), count=len(text), limit=MAX_SELECTOR)
    if (complaint := _selector_complaint(text)) is not None:
        reason, _, picture = complaint.partition("\n")
        raise Wrong("selector", dedent(picture), reason=reason, hint=_selector_hint(text, reason))
    return text


def _selector_hint(text: str, reason: str) -> str | None:
    if "line break" in reason:
        return "write it on one line, or fold it with `>-`, which leaves no line break at the end"
    if re.search(r"[^=!]=[^=~]", re.sub(r"'[^']*('|$)|\"[^\"]*(\"|$)", "''", text)):
        return "compare with `==` or `!=`"
    return None


def selector_without_global(text: str) -> str:
    """V-35: as Calico judges it, by the text `global(`."""
    if "global(" in text:
        raise Wrong("selector-global", quote(text))
    return selector(text)


def namespace_selector(text: str) -> str:
    """V-36: `global()` alone, or not at all."""
    if "global(" in selector(text) and text.replace(" ", "").replace("\t", "") != "global()":
        raise Wrong("selector-global-combined", quote(text))
    return text


Protocol = Annotated[int, PlainValidator(protocol, json_schema_input_type=int | str)]
Port = Annotated[
    PortRange | str,
    PlainValidator(port, json_schema_input_type=int | str),
    PlainSerializer(lambda port: port.as_written() if isinstance(port, PortRange) else port),
]
Net = Annotated[IPNetwork, PlainValidator(network, json_schema_input_type=str)]
NotNet = Annotated[IPNetwork, PlainValidator(not_network, json_schema_input_type=str)]
SetNet = Annotated[IPNetwork, PlainValidator(loose_network("set-net"), json_schema_input_type=str)]
Address = Annotated[IPAddress, PlainValidator(address("address"), json_schema_input_type=str)]
Reference = Annotated[str, AfterValidator(reference)]
Selector = Annotated[str, AfterValidator(selector)]
SelectorWithoutGlobal = Annotated[str, AfterValidator(selector_without_global)]
NamespaceSelector = Annotated[str, AfterValidator(namespace_selector)]
