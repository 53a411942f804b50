"""Which interfaces connections pass on this host, by its addresses and routes as they are now."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address

from labelgate.flow import IPAddress
from labelgate.links import Links
from labelgate.lockout.flows import Flow
from labelgate.netlink import ROUTE, Question, ask_all, attribute, attributes
from labelgate.path import Interfaces

# linux/rtnetlink.h
_GETROUTE = 26
_DST, _OIF = 1, 4
_ROUTE_MESSAGE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_LOCAL, _NOWHERE = -1, 0
"""In the place of an interface's index."""
_STEP = 1 << 12
"""Routes of a step: a tenth of a second or so."""


class Host:
    """Addresses and routes of the network namespace of the calling thread."""

    def __init__(self, links: Links, step: Callable[[], None] = lambda: None) -> None:
        """`step` is called now and then while many routes are asked for."""
        self.links = links
        self._step = step
        self.addresses = {ip_address(address) for link in links.links for address in link.addresses}
        self._names = {link.index: link.name for link in links.links}
        self._places: dict[bytes, int] = {address.packed: _LOCAL for address in self.addresses}

    def is_local(self, address: IPAddress) -> bool:
        """Whether it is one of the host's own."""
        return address.is_loopback or address in self.addresses

    def interface(self, address: IPAddress) -> str | None:
        """The interface towards an address, by the routes as they are; None where there is none.

        Raises:
            OSError: the kernel cannot be asked.
        """
        (place,) = self.places([address.packed])
        return self._names.get(place)

    def ways(self, flow: Flow) -> Iterator[Interfaces]:
        """In- and out-interface of the flow's first packet, as it leaves where it begins.

        What comes in is taken to come from where the route back leads. Nothing where no route leads.

        Raises:
            OSError: the kernel cannot be asked.
        """
        source, target = self.places([flow.src.packed, (flow.target or flow.dst).packed])
        yield from self.between(source, target)

    def both_ways(self, flow: Flow) -> Iterator[tuple[str | None, Interfaces]]:
        """As `ways`, each behind the out-interface ahead of DNAT, as `labelgate.path.walk` has both.

        Raises:
            OSError: the kernel cannot be asked.
        """
        addresses = flow.src, flow.dst, flow.target or flow.dst
        source, destination, target = self.places([one.packed for one in addresses])
        yield from self.both_between(source, destination, target)

    def both_between(
        self, source: int, destination: int, target: int
    ) -> Iterator[tuple[str | None, Interfaces]]:
        """The same between places."""
        before = next((out for _, out in self.between(source, destination)), None)
        for way in self.between(source, target):
            yield before, way

    def between(self, source: int, target: int) -> Iterator[Interfaces]:
        """The same between two places."""
        if source == _LOCAL:
            out = "lo" if target == _LOCAL else self._names.get(target)
            if out:
                yield None, out
            return
        in_, out = self._names.get(source), self._names.get(target)
        if in_ and (out or target == _LOCAL):
            yield in_, out

    def places(self, addresses: Sequence[bytes]) -> list[int]:
        """For each address, packed, the index of the interface towards it, or what stands in its place.

        Raises:
            OSError: the kernel cannot be asked.
        """
        unknown = [one for one in addresses if one not in self._places]
        self._places |= {one: _LOCAL for one in unknown if ip_address(one).is_loopback}
        asked = [one for one in unknown if one not in self._places]
        for at in range(0, len(asked), _STEP):
            part = asked[at : at + _STEP]
            self._places |= zip(part, _routes(part), strict=True)
            self._step()
        return [self._places[one] for one in addresses]


def _routes(addresses: Iterable[bytes]) -> Iterator[int]:
    """Of each the index of the interface that the kernel sends packets to it over."""
    for answer in ask_all(ROUTE, map(_route_question, addresses)):
        if isinstance(answer, OSError):
            yield _NOWHERE
            continue
        fields = attributes(answer[_ROUTE_MESSAGE.size :])
        index = next((value for number, value in fields if number == _OIF), None)
        yield _NOWHERE if index is None else struct.unpack("=I", index)[0]


def _route_question(address: bytes) -> Question:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    head = _ROUTE_MESSAGE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
    return _GETROUTE, 0, head + attribute(_DST, address)
