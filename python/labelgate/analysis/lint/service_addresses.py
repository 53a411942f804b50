"""Remarks on egress rules that name the address of a Service, which packets have before DNAT only (M-34)."""

from __future__ import annotations

from collections.abc import Iterator

from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.selection import Selection
from labelgate.resources import IPNetwork
from labelgate.resources.errors import Path
from labelgate.resources.metadata import Resource


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG408."""
    services = {address: one for one in selection.snapshot.services for address in one.spec.addresses}
    for policy in selection.policies if services else ():
        resource = selection.resource(policy)
        for path, net in () if "untracked" in policy.lists else _destinations(resource):
            service = services.get(net.network_address) if net.num_addresses == 1 else None
            if service is not None:
                place = f"{service.metadata.namespace}/{service.metadata.name}"
                text = (
                    f"{net.network_address} is the address of Service `{place}`: policy sees packets after"
                    " DNAT, when they have the address of a pod behind it (M-34)"
                )
                yield Remark("LG408", resource, path, text, _mend(resource))


def _mend(resource: Resource) -> str:
    if "Kubernetes" in type(resource).__name__:
        return "choose the pods behind the Service by their labels"
    return "name the Service as `services`, or choose the pods behind it by their labels"


def _destinations(resource: Resource) -> Iterator[tuple[Path, IPNetwork]]:
    """The networks that egress rules name, and where."""
    for index, rule in enumerate(resource.spec.egress):  # type: ignore[attr-defined]
        path = ("spec", "egress", index)
        if "Kubernetes" not in type(resource).__name__:
            here = (*path, "destination", "nets")
            yield from (((*here, number), net) for number, net in enumerate(rule.destination.nets))
            continue
        for number, peer in enumerate(rule.to or ()):
            block, nets = getattr(peer, "ip_block", None), getattr(peer, "networks", None)
            if block is not None:
                yield (*path, "to", number, "ipBlock", "cidr"), block.cidr
            yield from (((*path, "to", number, "networks", at), net) for at, net in enumerate(nets or ()))
