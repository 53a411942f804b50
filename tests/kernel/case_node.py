"""A node as a case describes it: its interfaces and addresses, and a way for every packet that a row needs.

Each interface is one end of a cable to namespace `far`, which has no address and answers nothing. The upper
half of a packet's mark says what it is: bits 16-27 the number of its row, bits 28-31 the way that routing
gives it. So nobody needs the addresses of a packet, nor a route to them. The lower half is labelgate's.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from case_packets import known_flow, packet_bytes
from case_rows import LOOPBACK, Row
from cases import Case
from kit import ACCEPT, wait_until
from labelgate.demo.namespaces import Namespaces, batch
from labelgate.demo.world import EDGE
from labelgate.flow import TCP, Packet

FAR = "far"
NUMBER, WAY = 16, 28
"""Where the number of a row and its way begin in the mark."""
TO_HOST = 1
"""The way to a process of the node; the others lead out of one interface each."""
SECONDS = 10.0
"""How long packets may take; on cables of memory they take well below a millisecond."""

_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/accept_local": "1",
    "net/ipv4/conf/all/route_localnet": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",
}


class CaseNode(Namespaces):
    """The node, in namespace `edge` as the daemon expects it."""

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        super().__init__((EDGE, FAR))
        self._addresses = {name: found for name, found in sorted(addresses.items()) if name != LOOPBACK}
        self._ways = {name: TO_HOST + 1 + index for index, name in enumerate(self._addresses)}

    @classmethod
    def of(cls, case: Case, packets: Iterable[Packet]) -> CaseNode:
        """With every interface that the case or a packet names."""
        names = {name for packet in packets for name in (packet.in_, packet.out) if name}
        return cls({**dict.fromkeys(names, ()), **case.host.interfaces})

    def build(self) -> None:
        """Cables, addresses, ways."""
        self.set_sysctls(EDGE, _SYSCTLS)
        self.set_sysctls(FAR, {"net/ipv6/conf/default/disable_ipv6": "1"})
        edge, far = self.namespace(EDGE), self.namespace(FAR)
        batch(
            None,
            (
                # Without ARP every neighbour is known, and the node says nothing by itself.
                f"link add {name} netns {edge} address {_mac(way)} type veth peer name {name} netns {far}"
                for name, way in self._ways.items()
            ),
        )
        batch(far, (f"link set {name} up arp off" for name in self._ways))
        batch(edge, self._addressing())
        for family in ("-4", "-6"):
            batch(edge, self._routing(), family)

    def _addressing(self) -> Iterable[str]:
        yield f"link set {LOOPBACK} up"
        for name, addresses in self._addresses.items():
            yield f"link set {name} up arp off"
            yield from (f"address add {address} dev {name}" for address in addresses)

    def _routing(self) -> Iterable[str]:
        """The way by the mark, and only then what is addressed to the node."""
        ways = {TO_HOST: f"local default dev {LOOPBACK}"}
        ways |= {way: f"default dev {name}" for name, way in self._ways.items()}
        for way, route in ways.items():
            yield f"route add {route} table {way}"
            yield f"rule add pref {way} fwmark {way << WAY:#x}/{0xF << WAY:#x} lookup {way}"
        yield "rule add pref 1000 lookup local"
        yield "rule del pref 0"

    def mark(self, row: Row, number: int) -> int:
        """The mark of a row's packet, in the bits that are not labelgate's."""
        to_host = row.packet.hook == "filter-input" or row.packet.out in (None, LOOPBACK)
        way = TO_HOST if to_host else self._ways[str(row.packet.out)]
        return number << NUMBER | way << WAY

    def send(self, rows: Mapping[int, Row]) -> None:
        """Sends the packet of each row, by its number, and waits until all have come in."""
        before = self._received()
        from_cables = {number: row for number, row in rows.items() if row.packet.in_ in self._ways}
        others = {number: row for number, row in rows.items() if number not in from_cables}
        self.call(FAR, self._send, from_cables)
        self.call(EDGE, self._send, others)
        assert wait_until(lambda: self._received() >= before + len(from_cables), SECONDS)

    def _send(self, rows: Mapping[int, Row]) -> None:
        for number, row in rows.items():
            data = packet_bytes(row.sent, length_of(number))
            # Only raw hooks are asked about a mark on arrival: labelgate clears it there (P-22).
            mark = ACCEPT if row.sent.accepted and row.sent.hook.startswith("raw") else 0
            if row.packet.in_:
                self._into(row.packet.in_, data, mark)
            else:
                self._out_of(row, data, mark | self.mark(row, number))

    def _into(self, interface: str, data: bytes, mark: int) -> None:
        """Sends from the far end of a cable; on `lo` as if the node had sent it."""
        way = self._ways.get(interface)
        mac = bytes(6) if way is None else bytes.fromhex(_mac(way).replace(":", ""))
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            wire.sendto(data, (interface, _ETHERTYPE[data[0] >> 4], 0, 0, mac))

    def _out_of(self, row: Row, data: bytes, mark: int) -> None:
        """Sends as a process of the node, with a header of its own."""
        is_v4 = row.sent.src.version == 4
        family = socket.AF_INET if is_v4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as process:
            process.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            process.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, str(row.packet.out).encode())
            with suppress(PermissionError):  # A rule has dropped it, if only the one behind all counters.
                process.sendto(data, (str(row.sent.dst), 0))

    def establish(self, rows: Iterable[Row]) -> None:
        """Has conntrack know the flow of each packet, in both directions, as one that was answered."""
        commands: dict[object, str] = {}
        for row in rows:
            commands.setdefault(_connection(row), _entry(row))
        for command in commands.values():
            self.run(EDGE, *command.split())

    def _received(self) -> int:
        """Packets that came by cable, which the node counts before any hook."""
        lines = self.call(EDGE, Path("/proc/thread-self/net/dev").read_text).splitlines()[2:]
        columns = {
            name.strip(): numbers.split() for name, _, numbers in (line.partition(":") for line in lines)
        }
        return sum(int(columns[name][1]) for name in self._ways)

    def is_idle(self) -> bool:
        """Whether no packet waits in a queue."""
        queues = self.call(EDGE, Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text)
        return all(int(line.split()[2]) == 0 for line in queues.splitlines())


def _connection(row: Row) -> object:
    """The same for all packets of a flow, whichever way they go."""
    flow = known_flow(row.sent)
    ends = frozenset({(flow.src, flow.sport), (flow.dst, flow.dport)})
    return flow.protocol, ends, row.packet.dnatted and endpoint(row.packet)


def _entry(row: Row) -> str:
    """The command that makes the flow known."""
    flow = known_flow(row.sent)
    ends = f"-s {flow.src} -d {flow.dst} --sport {flow.sport} --dport {flow.dport}"
    state = " --state ESTABLISHED" if flow.protocol == TCP else ""
    nat = f" --dst-nat {endpoint(row.packet)}" if row.packet.dnatted else ""
    return f"conntrack -I -p {flow.protocol} {ends} --timeout 600 --status SEEN_REPLY,ASSURED{state}{nat}"


def endpoint(packet: Packet) -> str:
    """Where a packet goes to, as iptables and conntrack write it."""
    return f"{packet.dst}:{packet.dport}" if packet.dst.version == 4 else f"[{packet.dst}]:{packet.dport}"


def length_of(number: int) -> int:
    """The length of the packet of a row, by which a rule knows it when it comes in."""
    return 200 + number


def _mac(way: int) -> str:
    return f"02:00:00:00:00:{way:02x}"
