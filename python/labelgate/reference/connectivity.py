"""Whether workloads reach each other, wherever they live: both normal chains of E-20, no hook, no host."""

from __future__ import annotations

from dataclasses import replace

from labelgate.flow import Connection, Gate, IPAddress, Packet, Stage
from labelgate.reference.chains import Chain, End, Passage
from labelgate.reference.cluster import Cluster
from labelgate.reference.interfaces import smallest
from labelgate.reference.labels import Workload
from labelgate.reference.policies import Direction
from labelgate.settings import Settings


def connection(cluster: Cluster, settings: Settings, packet: Packet) -> Connection:
    """Egress of the workload that owns the source, ingress of the one that owns the destination."""
    new = replace(packet, ct="new", fragment=False)
    passage = Passage(cluster, settings, new, accepted=False)
    return Connection(
        egress=_gate(passage, _owner(cluster, packet.src), "egress", "workload-egress"),
        ingress=_gate(passage, _owner(cluster, packet.dst), "ingress", "workload-ingress"),
    )


def _owner(cluster: Cluster, address: IPAddress) -> Workload | None:
    """The workload that has the address; where several have it, the smallest name."""
    return smallest(
        member
        for member in cluster.members
        if isinstance(member, Workload) and any(address in net for net in member.nets)
    )


def _gate(passage: Passage, workload: Workload | None, direction: Direction, stage: Stage) -> Gate | None:
    if workload is None:
        return None
    end = passage.run(Chain(workload, "normal", direction, stage))
    last = passage.steps[-1]
    return Gate("allow" if end is End.ACCEPT else "deny", last.tier, last.policy, last.rule)
