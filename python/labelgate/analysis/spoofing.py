"""Changes of the source check: which sources the packets of a workload may have, then and now (E-30)."""

from __future__ import annotations

from collections.abc import Container, Iterator
from ipaddress import ip_network

import numpy as np

from labelgate.analysis.addresses import IPV4, IPV6, Edges, combine, edges_of_networks, everything, none
from labelgate.analysis.changes import Change, Example, Judgement, address_text, example_address
from labelgate.analysis.judged import States, workloads_of
from labelgate.analysis.program import Endpoint
from labelgate.analysis.regions import Region, Services

_DENIED = Judgement("deny", None, None, None, "source is not the workload's (E-30)")
_PASSED = Judgement("continue", None, None, None, "workload interface, no untracked policy (E-30)")
_EXEMPT = edges_of_networks(IPV6, [ip_network("fe80::/10"), ip_network("::/128")])
"""IPv6 sources that are not checked."""
_EVERY_SERVICE = Services(()).rest()


def source_changes(pair: States, names: Container[str] | None, known: dict[int, Edges]) -> Iterator[Change]:
    """Of every workload that both states have, or of those with these names; `known` as in `changes_of`.

    One that a state lacks is told by what its policy lets through.
    """
    found = [workloads_of(state) for state in pair]
    for name in sorted(found[0].keys() & found[1].keys()):
        old, new = (side[name] for side in found)
        if old.sources == new.sources or (names is not None and name not in names):
            continue
        before, after = _sources(old), _sources(new)
        gained, lost = _without(after, before), _without(before, after)
        if gained.families:
            yield _change(new, gained, (_DENIED, _PASSED), known)
        if lost.families:
            yield _change(new, lost, (_PASSED, _DENIED), known)


def _sources(endpoint: Endpoint) -> Region:
    nets = [ip_network(net) for net in endpoint.sources]
    v6 = combine(edges_of_networks(IPV6, nets), _EXEMPT, np.logical_or)
    return Region(edges_of_networks(IPV4, nets), v6)


def _without(one: Region, other: Region) -> Region:
    """What is in one and not in the other."""
    return Region(*(combine(one.edges[family], other.edges[family], np.greater) for family in (IPV4, IPV6)))


def _change(
    endpoint: Endpoint, sources: Region, judged: tuple[Judgement, Judgement], known: dict[int, Edges]
) -> Change:
    family = sources.families[0]
    src = example_address(family, sources.edges[family], known[family])
    dst = example_address(family, everything(family), known[family], apart=src)
    packet = {
        "src": address_text(family, src), "dst": address_text(family, dst),
        "protocol": "tcp", "sport": 40000, "dport": 80,
    }  # fmt: skip
    if endpoint.interface is not None:
        packet["in"] = endpoint.interface
    peers = Region(*(everything(one) if one in sources.families else none(one) for one in (IPV4, IPV6)))
    old, new = judged
    return Change(
        frozenset((endpoint.name,)), "both", "spoof", "egress", ("raw-prerouting",), sources, peers,
        _EVERY_SERVICE, old.verdict, new.verdict, lambda: Example("raw-prerouting", packet, old, new),
    )  # fmt: skip
