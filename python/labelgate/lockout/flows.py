"""Connections that are alive here, as the kernel knows them, and which interfaces they pass."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket  # type: ignore[import-untyped]

from labelgate.flow import ICMP, ICMPV6, PROTOCOLS, TCP, IPAddress
from labelgate.links import Links

# Of this thread, which may be in another network namespace than the process was started in.
_NET = Path("/proc/thread-self/net")
_ESTABLISHED, _LISTENING = "01", "0A"  # net/tcp_states.h
_OVER = ("TIME_WAIT", "CLOSE")


_PROTOCOLS = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection, in the direction of its first packet."""

    protocol: int
    src: IPAddress
    dst: IPAddress
    """As the first packet had it, before DNAT."""
    sport: int = 0
    dport: int = 0
    target: IPAddress | None = None
    """Where DNAT sent it; None: to `dst`."""
    target_port: int = 0
    icmp: tuple[int, int, int] | None = None
    """Type, code and id."""
    answered: bool = field(default=True, compare=False)
    """Whether the other side has sent anything: it may do so at any time, and the flow is the same."""

    def __str__(self) -> str:
        name = _PROTOCOLS.get(self.protocol, str(self.protocol))
        if self.icmp:
            return f"{name} {self.src} > {self.dst} type {self.icmp[0]}"
        return f"{name} {_with_port(self.src, self.sport)} > {_with_port(self.dst, self.dport)}"


def _with_port(address: IPAddress, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


class Host:
    """Addresses and routes of the network namespace of the calling thread."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.addresses = {ip_address(address) for link in links.links for address in link.addresses}
        self._names = {link.index: link.name for link in links.links}
        self._routes: dict[IPAddress, str | None] = {}
        self._netlink = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def is_local(self, address: IPAddress) -> bool:
        """Whether it is one of the host's own."""
        return address.is_loopback or address in self.addresses

    def interface(self, address: IPAddress) -> str | None:
        """The interface towards an address, by the routes as they are; None where there is none."""
        if address not in self._routes:
            self._routes[address] = self._names.get(self._route(str(address)) or 0)
        return self._routes[address]

    def _route(self, address: str) -> int | None:
        try:
            (found,) = self._netlink.route("get", dst=address)
        except (NetlinkError, ValueError):
            return None
        index: int | None = found.get_attr("RTA_OIF")
        return index

    def interfaces(self, flow: Flow) -> Iterator[tuple[str | None, str | None]]:
        """In- and out-interface of the flow's first packet; of both of its passes if it stays on the host.

        What comes in is taken to come from where the route back leads. Nothing where no route leads.
        """
        target = flow.target or flow.dst
        if self.is_local(flow.src):
            out = "lo" if self.is_local(target) else self.interface(target)
            if out:
                yield None, out
            if out == "lo":
                yield "lo", None
            return
        in_ = self.interface(flow.src)
        out = None if self.is_local(target) else self.interface(target)
        if in_ and (out or self.is_local(target)):
            yield in_, out


def read_flows(*, in_any_state: bool = False) -> list[Flow]:
    """Tracked connections that both sides have a part in; of TCP those that are established.

    `in_any_state`: all that conntrack would let something pass of, so also those that begin or end.
    """
    try:
        text = (_NET / "nf_conntrack").read_text(encoding="ascii")
    except OSError:
        return read_flows_by_netlink(in_any_state=in_any_state)
    lines = (line.split() for line in text.splitlines() if in_any_state or "[UNREPLIED]" not in line)
    return [flow for words in lines if (flow := _tracked(words, in_any_state)) is not None]


def _tracked(words: list[str], in_any_state: bool) -> Flow | None:
    """One line of /proc/net/nf_conntrack; None if that connection is not alive, or in a zone of its own."""
    protocol = int(words[3])
    if protocol == TCP and (words[5] in _OVER if in_any_state else words[5] != "ESTABLISHED"):
        return None
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    if found.get("zone", ["0"]) != ["0"]:
        return None
    sports, dports = found.get("sport", ["0", "0"]), found.get("dport", ["0", "0"])
    icmp = None
    if protocol in (ICMP, ICMPV6):
        icmp = (int(found["type"][0]), int(found["code"][0]), int(found["id"][0]))
    return _flow(
        protocol, found["src"][0], found["dst"][0], int(sports[0]), int(dports[0]), found["src"][1],
        int(sports[1]), icmp, "[UNREPLIED]" not in words,
    )  # fmt: skip


def _flow(
    protocol: int, src: str, dst: str, sport: int, dport: int, target: str, target_port: int,
    icmp: tuple[int, int, int] | None, answered: bool,
) -> Flow:  # fmt: skip
    is_translated = target != dst or (target_port != dport and icmp is None)
    return Flow(
        protocol, ip_address(src), ip_address(dst), sport, dport,
        ip_address(target) if is_translated else None, target_port if is_translated else 0, icmp, answered,
    )  # fmt: skip


_SEEN_REPLY = 1 << 1  # IPS_SEEN_REPLY, linux/netfilter/nf_conntrack_common.h
_TCP_ESTABLISHED = 3  # TCP_CONNTRACK_ESTABLISHED, linux/netfilter/nf_conntrack_tcp.h
_TCP_OVER = (7, 8)  # TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE


def read_flows_by_netlink(*, in_any_state: bool = False) -> list[Flow]:
    """Where the kernel has no /proc/net/nf_conntrack: the same, thirty times slower."""
    flows = []
    only = {} if in_any_state else {"status": _SEEN_REPLY, "status_mask": _SEEN_REPLY}
    for family in (socket.AF_INET, socket.AF_INET6):
        with NFCTSocket(nfgen_family=family) as netlink:
            for message in netlink.dump(**only):
                info = message.get_attr("CTA_PROTOINFO")
                tcp = info and info.get_attr("CTA_PROTOINFO_TCP")
                state = tcp and tcp.get_attr("CTA_PROTOINFO_TCP_STATE")
                if tcp and (state in _TCP_OVER if in_any_state else state != _TCP_ESTABLISHED):
                    continue
                if message["nfgen_family"] == family and not message.get_attr("CTA_ZONE"):
                    there = NFCTAttrTuple.from_netlink(family, message.get_attr("CTA_TUPLE_ORIG"))
                    back = NFCTAttrTuple.from_netlink(family, message.get_attr("CTA_TUPLE_REPLY"))
                    answered = bool(message.get_attr("CTA_STATUS") & _SEEN_REPLY)
                    flows.append(_flow_of(there, back, answered))
    return flows


def _flow_of(there: NFCTAttrTuple, back: NFCTAttrTuple, answered: bool) -> Flow:
    is_icmp = there.proto in (ICMP, ICMPV6)
    icmp = (there.icmp_type, there.icmp_code, there.icmp_id) if is_icmp else None
    return _flow(
        there.proto, there.saddr, there.daddr, there.sport or 0, there.dport or 0, back.saddr,
        back.sport or 0, icmp, answered,
    )  # fmt: skip


def delete_flows(flows: Iterable[Flow]) -> list[Flow]:
    """Has conntrack forget connections; those that it still knew."""
    deleted: list[Flow] = []
    by_version: dict[int, list[Flow]] = {}
    for flow in flows:
        by_version.setdefault(flow.src.version, []).append(flow)
    for version, group in by_version.items():
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with NFCTSocket(nfgen_family=family) as netlink:
            for flow in group:
                try:
                    netlink.entry("del", tuple_orig=NFCTAttrTuple(family=family, **_words(flow)))
                except NetlinkError:  # It has ended meanwhile.
                    continue
                deleted.append(flow)
    return deleted


def _words(flow: Flow) -> dict[str, str | int]:
    """As pyroute2 names them."""
    words: dict[str, str | int] = {"saddr": str(flow.src), "daddr": str(flow.dst), "proto": flow.protocol}
    if flow.icmp:
        return words | dict(zip(("icmp_type", "icmp_code", "icmp_id"), flow.icmp, strict=True))
    return words | {"sport": flow.sport, "dport": flow.dport}


def open_sessions() -> list[Flow]:
    """TCP connections that others have made to servers of this host, whether they are tracked or not."""
    return [*_accepted("tcp"), *_accepted("tcp6")]


def _accepted(name: str) -> Iterable[Flow]:
    try:
        rows = [line.split()[1:4] for line in (_NET / name).read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return
    served = {local.rpartition(":")[2] for local, _, state in rows if state == _LISTENING}
    for local, remote, state in rows:
        if state == _ESTABLISHED and local.rpartition(":")[2] in served:
            (dst, dport), (src, sport) = _endpoint(local), _endpoint(remote)
            yield Flow(TCP, src, dst, sport, dport)


def _endpoint(text: str) -> tuple[IPAddress, int]:
    """Address and port as /proc/net/tcp has them: words of 32 bits in the host's order.

    >>> _endpoint("0A6433C6:0016")
    (IPv4Address('198.51.100.10'), 22)
    """
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8)]
    if len(words) == 1:
        return IPv4Address(words[0]), int(port, 16)
    found = IPv6Address(b"".join(words))
    return found.ipv4_mapped or found, int(port, 16)
