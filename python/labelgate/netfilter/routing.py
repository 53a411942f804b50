"""Routing rules that look at the packet mark, which we change."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from labelgate.netfilter.facts import Marks

_ALL_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """An `ip rule` that looks at the packet mark."""

    family: int
    """4 or 6."""
    priority: int
    mark: int
    mask: int

    def __str__(self) -> str:
        return f"IPv{self.family} rule {self.priority}: fwmark {self.mark:#x}/{self.mask:#x}"


def mark_readers(rules: Iterable[RoutingRule], marks: Marks) -> tuple[RoutingRule, ...]:
    """Rules that read the bits which packets of this host may carry where they are routed again."""
    return tuple(rule for rule in rules if rule.mask & (marks.accept | marks.exempt))


def read_routing_rules() -> tuple[RoutingRule, ...]:
    """All rules with a mark, in the network namespace of the calling thread."""
    found: list[RoutingRule] = []
    with IPRoute() as netlink:
        for family, number in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            for message in netlink.get_rules(family=number):
                mark, mask = message.get_attr("FRA_FWMARK"), message.get_attr("FRA_FWMASK")
                if mark is None and mask is None:
                    continue
                priority = message.get_attr("FRA_PRIORITY") or 0
                found.append(RoutingRule(family, priority, mark or 0, _ALL_BITS if mask is None else mask))
    return tuple(found)
