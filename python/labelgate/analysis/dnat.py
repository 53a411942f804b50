"""Where DNAT sends recorded flows, as far as somebody has said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgate.analysis.recorded import BEGUN, DNATED, Recorded
from labelgate.columns import address_column
from labelgate.flow import PROTOCOLS, SCTP, TCP, UDP, UDPLITE, FieldError, IPAddress
from labelgate.path import Destination, read_destination

_WITH_PORTS = (TCP, UDP, SCTP, UDPLITE)


@dataclass(frozen=True, slots=True)
class DnatRule:
    """Flows to a destination are sent to another one, as by `iptables -t nat`."""

    of: Destination
    """Without a port: whatever the port, and protocols that have none."""
    protocol: int | None
    """None: all; with a port, all that have ports."""
    to: Destination

    @property
    def for_captures(self) -> tuple[int | None, IPAddress, int | None, IPAddress, int | None]:
        """As `labelgate._core.Capture` takes it."""
        return self.protocol, self.of.address, self.of.port, self.to.address, self.to.port


def read_dnat_rule(text: str) -> DnatRule:
    """`ADDRESS[:PORT][/PROTOCOL]=ADDRESS[:PORT]`, IPv6 addresses with a port in brackets.

    >>> rule = read_dnat_rule("198.51.100.10:30080/tcp=10.65.0.2:8080")
    >>> rule.of.port, rule.protocol, rule.to.port
    (30080, 6, 8080)

    Raises:
        FieldError: it cannot be read.
    """
    sent, equals, to = text.partition("=")
    sent, slash, name = sent.partition("/")
    if not equals:
        raise FieldError(
            "dnat", f"found `{text}`, expected ADDRESS[:PORT][/PROTOCOL]=ADDRESS[:PORT], "
            "for example 198.51.100.10:30080/tcp=10.65.0.2:8080",
        )  # fmt: skip
    if slash and name.lower() not in PROTOCOLS:
        raise FieldError("dnat", f"found protocol `{name}`, expected one of {', '.join(PROTOCOLS)}")
    rule = DnatRule(read_destination(sent), PROTOCOLS[name.lower()] if slash else None, read_destination(to))
    if rule.of.address.version != rule.to.address.version:
        raise FieldError("dnat", f"found `{text}`, expected addresses of one IP version")
    if rule.of.port is None and rule.to.port is not None:
        raise FieldError("dnat", f"found `{text}`, expected a port on the left, too")
    if rule.of.port is not None and rule.protocol not in (None, *_WITH_PORTS):
        raise FieldError("dnat", f"found `{text}`, expected a protocol that has ports")
    return rule


def translated(block: Recorded, rules: Sequence[DnatRule]) -> Recorded:
    """The same with the destinations that the rules give; of several that fit, the first counts."""
    target, port = block.target.copy(), block.target_port.copy()
    left = (block.begin == BEGUN) & ~block.translated
    has_ports = np.isin(block.protocol, _WITH_PORTS)
    for rule in rules:
        if rule.of.address.version != block.version:
            continue
        fits = left & _fits(block, rule)
        target[fits] = address_column([rule.to.address])[0]
        if rule.to.port is not None:
            port[fits & has_ports] = rule.to.port
        left &= ~fits
    return replace(block, target=target, target_port=port)


def _fits(block: Recorded, rule: DnatRule) -> NDArray[np.bool_]:
    """The flows of the rule's IP version that are to its destination."""
    fits = _is(block.dst, rule.of)
    if rule.protocol is not None:
        fits &= block.protocol == rule.protocol
    if rule.of.port is not None:
        fits &= np.isin(block.protocol, _WITH_PORTS) & (block.dport == rule.of.port)
    return fits


def unknown(block: Recorded, rules: Sequence[DnatRule]) -> Recorded:
    """The same with `DNATED` where the rules may send a flow elsewhere, whither is not known."""
    may = np.zeros(len(block), np.bool_)
    for rule in rules:
        if rule.of.address.version == block.version:
            may |= _fits(block, rule)
    may &= (block.begin == BEGUN) & ~block.translated
    return replace(block, begin=np.where(may, DNATED, block.begin).astype(np.uint8))


def _is(side: NDArray[Any], destination: Destination) -> NDArray[np.bool_]:
    same = side == address_column([destination.address])[0]
    found: NDArray[np.bool_] = same if side.ndim == 1 else same.all(1)
    return found


def marked(block: Recorded, nets: Sequence[IPv4Network | IPv6Network]) -> Recorded:
    """The same with `DNATED` where the destination is in one of the nets, and no rule says the other."""
    keys = block.dst if block.version == 4 else block.dst.view("V16")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found = [any(block.address(block.dst, int(row)) in net for net in nets) for row in first]
    is_dnated = np.array(found, np.bool_)[inverse.reshape(-1)] & (block.begin == BEGUN) & ~block.translated
    return replace(block, begin=np.where(is_dnated, DNATED, block.begin).astype(np.uint8))
