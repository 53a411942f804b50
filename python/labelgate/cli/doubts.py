"""What a question about a packet may not have meant: answered all the same, if it has its interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from labelgate.flow import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, FieldError, Packet
from labelgate.path import Destination
from labelgate.table import DecisionTable

_ERRORS = {ICMP: (3, 4, 11, 12), ICMPV6: (1, 2, 3, 4)}
"""RFC 792, RFC 4443."""
_PORTS, _TYPES = (TCP, UDP, SCTP, UDPLITE), (ICMP, ICMPV6)


def doubts(table: DecisionTable, packet: Packet, out_before_dnat: str | None) -> Iterator[str]:
    """Interfaces that nobody knows, and fields that are missing or have no meaning."""
    if packet.hook == "filter-forward" and (packet.in_ is None or packet.out is None):
        missing = "--in" if packet.in_ is None else "--out"
        yield f"no {missing}: a forwarded packet has both interfaces, and policy of the other one is left out"
    governed = _governed(table)
    for name in dict.fromkeys((packet.in_, packet.out, out_before_dnat)):
        if governed is None or name is None or name in governed or name in table.host.interfaces:
            continue
        if not name.startswith(table.settings.workload_prefixes):
            known = ", ".join(sorted(governed)) or "none"
            yield f"no endpoint here is on interface `{name}`: nothing governs it (interfaces found: {known})"
    if packet.fragment:
        return
    if packet.protocol in _PORTS and packet.dport is None:
        yield "no --dport: the packet is judged as one whose ports cannot be read, a later fragment (M-19)"
    if (
        packet.ct == "new"
        and packet.icmp_type in _ERRORS.get(packet.protocol, ())
        and table.has_untracked_policy
    ):
        yield "an ICMP error: what is about packets that untracked policy has allowed is --ct invalid (E-61)"
    if packet.protocol in _TYPES and packet.icmp_type is None:
        yield "no --icmp-type: the packet is judged as one whose type cannot be read, a later fragment (M-19)"
    if packet.protocol not in _PORTS and packet.dport is not None:
        yield f"protocol {packet.protocol} has no ports: --sport and --dport mean nothing"
    if packet.protocol not in _TYPES and packet.icmp_type is not None:
        yield f"protocol {packet.protocol} is not ICMP: --icmp-type and --icmp-code mean nothing"


class LocalWorkloads:
    """Those of the node of a table, by their addresses."""

    def __init__(self, table: DecisionTable) -> None:
        """Asks the table once."""
        interfaces = {one["endpoint"]: one["interface"] for one in table.rule_facts()["workloads"]}
        self._by_address = {
            ip_address(address): (name, interfaces[name])
            for name, addresses in table.workloads().items()
            if name in interfaces
            for address in addresses
        }

    def check(self, packet: Packet, dnat: Destination | None) -> None:
        """FieldError where the way from or to one of them lacks its interface, and with it its policy."""
        ends = (("in", packet.in_, packet.src), ("out", packet.out, dnat.address if dnat else packet.dst))
        for field, interface, address in ends:
            if not interface and address in self._by_address:
                name, own = self._by_address[address]
                raise FieldError(field, f"missing: {address} is an address of {name}, on interface `{own}`")


def _governed(table: DecisionTable) -> set[str] | None:
    """Interfaces that an endpoint governs; None: all of them are, by a `*` host endpoint."""
    facts = table.rule_facts()
    if any(host["any"] for host in facts["hosts"]):
        return None
    names = {name for host in facts["hosts"] for name in host["interfaces"]}
    return names | {workload["interface"] for workload in facts["workloads"]}
