"""Endpoints whose interface is there, but whose packets no rule can tell as those of this interface."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from labelgate.links import Links
from labelgate.printable import printable
from labelgate.snapshot import Snapshot


def out_of_reach(snapshot: Snapshot, node: str, links: Links) -> tuple[str, ...]:
    """Those of the node, each with the reason and what to do; sorted."""
    return tuple(sorted(_by_name(snapshot, node, links)))


def _by_name(snapshot: Snapshot, node: str, links: Links) -> Iterator[str]:
    """Only addresses lead to a name that no rule can hold: none can be written as `interfaceName` (V-62)."""
    odd = [link for link in links.links if not link.can_be_named]
    hosts = [endpoint for endpoint in snapshot.host_endpoints if endpoint.spec.node == node]
    has_any = any(endpoint.spec.interface_name == "*" for endpoint in hosts)
    governed = "the `*` host endpoint governs it instead" if has_any else "no endpoint governs it"
    for endpoint in hosts if odd else ():
        expected = frozenset() if endpoint.spec.interface_name else frozenset(endpoint.spec.expected_ips)
        for link in odd:
            if found := sorted(text for text in link.addresses if ip_address(text) in expected):
                yield (
                    f"{endpoint.key}: `{printable(link.name)}` has {', '.join(found)}, and a name that rules "
                    f"cannot hold: {governed}; give it another name"
                )
