"""Endpoints whose interface is there, but whose packets no rule can tell as those of this interface."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from labelgate.links import Links
from labelgate.printable import printable
from labelgate.snapshot import Snapshot
from labelgate.table import DecisionTable


def out_of_reach(snapshot: Snapshot, node: str, links: Links, table: DecisionTable) -> tuple[str, ...]:
    """Those of the node, whose table on these interfaces this is, with the reason and what to do; sorted."""
    return tuple(sorted((*_by_name(snapshot, node, links), *_by_master(links, table))))


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


_HOST = "name `{}` in interfaceName"
_WORKLOAD = "let the host route to it, without `{}` (docs/operations.md, VMs on bridges)"


def _by_master(links: Links, table: DecisionTable) -> Iterator[str]:
    """The kernel has a packet of a port come in by the bridge (or bond, or team) before any of our hooks."""
    masters = {link.name: link.master for link in links.links if link.master}
    facts = table.rule_facts() if masters else {"hosts": (), "workloads": ()}
    owned = [(host["endpoint"], name, _HOST) for host in facts["hosts"] for name in host["interfaces"]]
    owned += [(workload["endpoint"], workload["interface"], _WORKLOAD) for workload in facts["workloads"]]
    for endpoint, name, mend in owned:
        if master := masters.get(name):
            shown = printable(master.name)
            yield f"{endpoint}: `{name}` {_seen(master.kind, shown)}; {mend.format(shown)}"


def _seen(kind: str, name: str) -> str:
    """In a VRF a packet passes the hooks before routing by the interface, and by the VRF's device."""
    if kind == "vrf":
        return f"is in VRF `{name}`, which rules see, too, or in its place"
    return f"is a port of {kind} `{name}`, which rules see in its place: it is not enforced".replace(
        "  ", " "
    )
