"""The world of the demo and of the kernel tests: an edge node, two pods, an outside and an inside host.

```
 outside 203.0.113.7 (client), 192.0.2.5 (stranger)          web 10.65.0.2    db 10.65.0.3
    |                                                            |                |
    eth0 198.51.100.10 ---------------- edge ---------------- cali111          cali222
                                          |
                                        eth1 10.9.0.10 ------ inside 10.9.0.50, 10.9.1.1, 10.9.66.4
```

Every IPv4 address has an IPv6 twin: `twin("10.9.0.50")`. Nothing here reaches out of the namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from labelgate.demo.namespaces import Namespaces, batch

EDGE, OUTSIDE, INSIDE, WEB, DB = "edge", "outside", "inside", "web", "db"
HOSTS = (EDGE, OUTSIDE, INSIDE, WEB, DB)

CLIENT, CLIENT_REFUSED, STRANGER = "203.0.113.7", "203.0.113.99", "192.0.2.5"
EDGE_OUTSIDE, EDGE_INSIDE = "198.51.100.10", "10.9.0.10"
INSIDE_HOST, RESOLVER_CLIENT, BANNED = "10.9.0.50", "10.9.1.1", "10.9.66.4"
WEB_POD, DB_POD = "10.65.0.2", "10.65.0.3"

ADDRESSES: dict[str, tuple[str, ...]] = {
    EDGE: (EDGE_OUTSIDE, EDGE_INSIDE),
    OUTSIDE: ("198.51.100.1", CLIENT, CLIENT_REFUSED, STRANGER, "192.0.2.53", "8.8.8.8"),
    INSIDE: (INSIDE_HOST, RESOLVER_CLIENT, "10.9.1.9", BANNED, "10.8.0.1"),
    WEB: (WEB_POD,),
    DB: (DB_POD,),
}
"""Who has which address."""

PODS = {WEB: "cali111", DB: "cali222"}
"""Pod to its interface on the edge node."""

INTERFACE_OF: dict[str, str | None] = {EDGE: None, OUTSIDE: "eth0", INSIDE: "eth1", **PODS}
"""The edge node's interface towards each host."""

_V4 = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?:/(\d{1,2}))?(?![\w.])")


def twin(address: str) -> str:
    """The IPv6 twin of an IPv4 address: the same 32 bits behind `2001:db8::/96`.

    >>> twin("10.65.0.2")
    '2001:db8::a41:2'
    """
    return str(IPv6Address((0x2001_0DB8 << 96) | int(IPv4Address(address))))


def twin_text(text: str) -> str:
    """Every IPv4 address and prefix in a text replaced by its twin.

    >>> twin_text("nets: [10.9.0.0/16, 192.0.2.5]")
    'nets: [2001:db8::a09:0/112, 2001:db8::c000:205]'
    """

    def replace(match: re.Match[str]) -> str:
        length = "" if match[2] is None else f"/{96 + int(match[2])}"
        return twin(match[1]) + length

    return _V4.sub(replace, text)


class World(Namespaces):
    """The namespaces of the five hosts, with their links, addresses and routes."""

    def __init__(self) -> None:
        super().__init__(HOSTS)

    def build(self) -> None:
        """Links, addresses and routes."""
        batch(None, self._links())
        for host in HOSTS:
            self.write_sysctls(host)
            batch(self.namespace(host), _ADDRESSING[host]())

    def _links(self) -> list[str]:
        def link(host: str, name: str, number: int) -> str:
            edge, other = self.namespace(EDGE), self.namespace(host)
            return (
                f"link add {name} netns {edge} address {_mac(EDGE, number)} type veth "
                f"peer name eth0 netns {other} address {_mac(host, number)}"
            )

        return [
            link(OUTSIDE, "eth0", 0),
            link(INSIDE, "eth1", 1),
            link(WEB, "cali111", 2),
            link(DB, "cali222", 3),
        ]

    def write_sysctls(self, host: str) -> None:
        """Forwarding on the edge node; no address detection delays and no source checks anywhere."""
        values = {
            "net/ipv4/ip_forward": "1" if host == EDGE else "0",
            "net/ipv6/conf/all/forwarding": "1" if host == EDGE else "0",
            "net/ipv4/conf/all/rp_filter": "0",
            "net/ipv4/conf/default/rp_filter": "0",
            "net/ipv6/conf/all/accept_dad": "0",
            "net/ipv6/conf/default/accept_dad": "0",
            "net/ipv4/icmp_ratelimit": "0",
            "net/ipv4/ping_group_range": "0 2147483647",
        }

        self.set_sysctls(host, values)


def _mac(host: str, link: int) -> str:
    """Fixed, so that neighbours can be written down: a default-deny host cuts neighbour discovery (E-53)."""
    return f"02:00:00:00:{link:02x}:{HOSTS.index(host) + 1:02x}"


_GATEWAY, _GATEWAY6 = "169.254.1.1", "fe80::1"


def _addresses(device: str, addresses: tuple[str, ...]) -> list[str]:
    v4 = [f"address add {address}/32 dev {device}" for address in addresses]
    v6 = [f"address add {twin(address)}/128 dev {device} nodad" for address in addresses]
    return [*v4, *v6]


def _neighbour(device: str, address: str, mac: str) -> list[str]:
    return [
        f"route add {address}/32 dev {device}",
        f"route add {twin(address)}/128 dev {device}",
        f"neighbour replace {address} dev {device} lladdr {mac} nud permanent",
        f"neighbour replace {twin(address)} dev {device} lladdr {mac} nud permanent",
    ]


def _routes(device: str, gateway: str, nets: tuple[str, ...]) -> list[str]:
    v4 = [f"route add {net} via {gateway} dev {device}" for net in nets]
    v6 = [f"route add {twin_text(net)} via {twin(gateway)} dev {device}" for net in nets]
    return [*v4, *v6]


def _edge() -> list[str]:
    lines = ["link set lo up"]
    for device in ("eth0", "eth1", *PODS.values()):
        lines.append(f"link set {device} up")
    lines += [*_addresses("eth0", (EDGE_OUTSIDE,)), *_addresses("eth1", (EDGE_INSIDE,))]
    lines += _neighbour("eth0", ADDRESSES[OUTSIDE][0], _mac(OUTSIDE, 0))
    lines += _routes("eth0", ADDRESSES[OUTSIDE][0], ("203.0.113.0/24", "192.0.2.0/24", "8.8.8.8/32"))
    lines += _neighbour("eth1", ADDRESSES[INSIDE][0], _mac(INSIDE, 1))
    lines += _routes("eth1", ADDRESSES[INSIDE][0], ("10.9.0.0/16", "10.8.0.0/16"))
    for pod, device in PODS.items():
        (address,) = ADDRESSES[pod]
        lines += [
            f"address add {_GATEWAY}/32 dev {device}",
            f"address add {_GATEWAY6}/64 dev {device} nodad",
            f"route add {address}/32 dev {device}",
            f"route add {twin(address)}/128 dev {device}",
        ]
    return lines


def _host(host: str, gateway: str, link: int) -> list[str]:
    lines = ["link set lo up", "link set eth0 up", *_addresses("eth0", ADDRESSES[host])]
    lines += _neighbour("eth0", gateway, _mac(EDGE, link))
    source, source6 = ADDRESSES[host][0], twin(ADDRESSES[host][0])
    return [
        *lines,
        f"route add default via {gateway} dev eth0 src {source}",
        f"route add ::/0 via {twin(gateway)} dev eth0 src {source6}",
    ]


def _pod(host: str) -> list[str]:
    return [
        "link set lo up",
        "link set eth0 up",
        *_addresses("eth0", ADDRESSES[host]),
        f"route add {_GATEWAY}/32 dev eth0",
        f"route add default via {_GATEWAY} dev eth0",
        f"route add ::/0 via {_GATEWAY6} dev eth0",
    ]


_ADDRESSING: dict[str, Callable[[], list[str]]] = {
    EDGE: _edge,
    OUTSIDE: lambda: _host(OUTSIDE, EDGE_OUTSIDE, 0),
    INSIDE: lambda: _host(INSIDE, EDGE_INSIDE, 1),
    WEB: lambda: _pod(WEB),
    DB: lambda: _pod(DB),
}
