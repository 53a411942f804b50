"""The host's interfaces: names, indexes and addresses as the kernel has them now, and when they change.

Names are bytes to the kernel. What of one is not UTF-8 is shown as `/ff`, byte by byte: no name holds a
slash, so nobody has named that interface.
"""

from __future__ import annotations

import os
import re
import socket
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from labelgate.settings import INTERFACE, HostFacts

_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_RECEIVE = 65536


class Master(NamedTuple):
    """What an interface is a part of."""

    name: str
    kind: str
    """`bridge`, `bond`, `team`, `vrf`, or as the kernel calls it; empty where it does not say."""


@dataclass(frozen=True, slots=True)
class Link:
    """One interface."""

    index: int
    name: str
    addresses: tuple[str, ...]
    """As text without prefix length, sorted."""
    master: Master | None = None

    @property
    def can_be_named(self) -> bool:
        """Whether rules can hold its name: what is not UTF-8, `/ff`, they cannot either."""
        return INTERFACE.fullmatch(self.name) is not None


@dataclass(frozen=True, slots=True)
class Links:
    """All interfaces, by index."""

    links: tuple[Link, ...]

    @property
    def host_facts(self) -> HostFacts:
        """What policies are resolved with: an interface that cannot be named is one of all others."""
        return HostFacts({link.name: link.addresses for link in self.links if link.can_be_named})

    @property
    def indexes(self) -> list[tuple[int, str]]:
        """Index and name of each interface: packets carry the index."""
        return [(link.index, link.name) for link in self.links]


def read_links() -> Links:
    """The interfaces in the network namespace of the calling thread."""
    addresses: defaultdict[int, list[str]] = defaultdict(list)
    with IPRoute() as netlink:
        for message in netlink.get_addr():
            # On a point-to-point link IFA_ADDRESS is the other side.
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if address is not None:
                addresses[message["index"]].append(address)
        messages = {message["index"]: message for message in netlink.get_links()}
    names = {index: _shown(message.get_attr("IFLA_IFNAME")) for index, message in messages.items()}
    return Links(
        tuple(
            Link(index, name, tuple(sorted(addresses[index])), _master(messages[index], names))
            for index, name in sorted(names.items())
        )
    )


def _master(message: Any, names: Mapping[int, str]) -> Master | None:
    """None, too, where it has come to be while all were read: that is told of."""
    name = names.get(message.get_attr("IFLA_MASTER"))
    if name is None:
        return None
    described = message.get_attr("IFLA_LINKINFO")
    return Master(name, (described and described.get_attr("IFLA_INFO_SLAVE_KIND")) or "")


def interface_name(index: int) -> str:
    """The present name of one, in the network namespace of the calling thread; OSError: it is gone."""
    return _shown(os.fsencode(socket.if_indextoname(index)))


def _shown(name: str | bytes) -> str:
    """Bytes where pyroute2 finds no text."""
    text = name if isinstance(name, str) else name.decode(errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda found: f"/{ord(found[0]) - 0xDC00:02x}", text)


class LinkWatch:
    """Follows the interfaces of the network namespace that the creating thread is in.

    `fileno` is readable when something may have changed; `poll` then tells what, in the same namespace.
    """

    def __init__(self, *, reads: bool = True) -> None:
        """If it does not read there are none, until `poll` reads them."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.setblocking(False)
            self._socket.bind((0, _GROUPS))
            # Read after subscribing: nothing is missed in between.
            self.links = read_links() if reads else Links(())
            self._is_stale = not reads
            """What was heard of could not be read yet."""
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For select and poll."""
        return self._socket.fileno()

    def poll(self) -> Links | None:
        """The interfaces, if they are not what they were; does not block.

        OSError where the kernel cannot be asked now; the next call asks again.
        """
        self._is_stale |= self._drain()
        if not self._is_stale:
            return None
        links = read_links()
        self._is_stale = False
        if links == self.links:
            return None
        self.links = links
        return links

    def _drain(self) -> bool:
        """Whether there were events. What they say is read anew: an overrun loses events, not changes."""
        heard = False
        while True:
            try:
                self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return heard
            except OSError:  # ENOBUFS: more events than the socket could hold.
                pass
            heard = True

    def close(self) -> None:
        """Stops following."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
