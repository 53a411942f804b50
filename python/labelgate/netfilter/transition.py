"""Rules between two policies: right by the table of either, so that tables can be swapped beneath them.

What one policy denies in raw the other one may deny in filter. Were tables and rules changed in turn, packets
would meet neither denial, and a connection that begins so goes on (E-39b); or what both allow is denied.
Here the kernel settles only what it settles alike for both; everything else is asked of the table in force.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from itertools import product

from labelgate.netfilter.facts import (
    FAMILIES,
    ByDirection,
    ByFamily,
    Family,
    HostChains,
    RulesetFacts,
    Services,
    StaticAnswer,
    WorkloadChains,
)
from labelgate.settings import Settings

Net = IPv4Network | IPv6Network
_ASKED = ByFamily("queue", "queue")


def between(before: RulesetFacts, after: RulesetFacts) -> RulesetFacts:
    """What holds while one takes the place of the other; one of them, if that will do.

    Interfaces of workloads that only one knows are denied, as the other one denies them (E-38.3); sources
    that only one lets a workload have are dropped likewise (E-30).
    """
    hosts, workloads = _hosts(before, after), tuple(_workloads(before, after))
    if not hosts and not workloads:  # Where nobody governs there would be no rules at all.
        workloads = tuple(replace(one, sources=(), ingress=_ASKED, egress=_ASKED) for one in before.workloads)
    return replace(
        after,
        hosts=hosts,
        workloads=workloads,
        settings=_settings(before.settings, after.settings),
        reasons=dict(before.reasons.items() & after.reasons.items()),
        kept=before.kept | after.kept,
    )


def _hosts(before: RulesetFacts, after: RulesetFacts) -> tuple[HostChains, ...]:
    old, new = ({name: host for host in facts.hosts for name in host.interfaces} for facts in (before, after))
    groups: dict[HostChains, list[str]] = {}
    # With another `InterfacePrefix` one may be a host's and a workload's: as the latter it is denied.
    workloads = {workload.interface for workload in (*before.workloads, *after.workloads)}
    for name in sorted((old.keys() | new.keys()) - workloads):
        groups.setdefault(_host(old.get(name), new.get(name)), []).append(name)
    every = [next((host for host in facts.hosts if host.any_interface), None) for facts in (before, after)]
    other = None if every == [None, None] else _host(*every)
    if other is not None:
        groups.setdefault(other, [])
    found = [
        replace(host, interfaces=tuple(names), any_interface=host == other) for host, names in groups.items()
    ]
    for same in (after.hosts, before.hosts):
        if set(found) == set(same):
            return same
    return tuple(found)


def _host(old: HostChains | None, new: HostChains | None) -> HostChains:
    """Without interfaces. Who is governed by one of them only is asked about everywhere."""
    known = new or old
    assert known is not None, "somebody governs it"
    a, b = old or _nobody(known), new or _nobody(known)
    return HostChains(
        endpoint=known.endpoint,
        interfaces=(),
        any_interface=False,
        input=_answers(a.input, b.input),
        output=_answers(a.output, b.output),
        forward=_directions(a.forward, b.forward),
        untracked=None if a.untracked is b.untracked is None else _directions(a.untracked, b.untracked),
        prednat=None if a.prednat is b.prednat is None else _answers(a.prednat, b.prednat),
        denied_answers=a.denied_answers | b.denied_answers,
    )


def _nobody(other: HostChains) -> HostChains:
    """Another answer than any that the kernel gives."""
    asked = ByDirection(_ASKED, _ASKED)
    return replace(other, input=_ASKED, output=_ASKED, forward=asked, untracked=None, prednat=None)


def _directions(a: ByDirection | None, b: ByDirection | None) -> ByDirection:
    if a is None or b is None:
        return ByDirection(_ASKED, _ASKED)
    return ByDirection(_answers(a.ingress, b.ingress), _answers(a.egress, b.egress))


def _answers(a: ByFamily | None, b: ByFamily | None) -> ByFamily:
    """Those that both give, and count alike."""
    if a is None or b is None:
        return _ASKED

    def same(family: Family) -> tuple[StaticAnswer, str, Services | None]:
        found, other = ((one.of(family), one.counter(family), one.services_of(family)) for one in (a, b))
        return found if found == other else ("queue", "", None)

    (v4, counter4, services4), (v6, counter6, services6) = map(same, FAMILIES)
    return ByFamily(v4, v6, (counter4, counter6), (services4, services6))


def _workloads(before: RulesetFacts, after: RulesetFacts) -> Iterator[WorkloadChains]:
    old = {workload.interface: workload for workload in before.workloads}
    for new in after.workloads:
        if known := old.get(new.interface):
            yield replace(
                new,
                sources=tuple(_in_both(known.sources, new.sources)),
                ingress=_answers(known.ingress, new.ingress),
                egress=_answers(known.egress, new.egress),
            )


def _in_both(a: tuple[Net, ...], b: tuple[Net, ...]) -> Iterator[Net]:
    if a == b:
        yield from b
        return
    found = {
        max(x, y, key=lambda net: net.prefixlen)
        for x, y in product(a, b)
        if x.version == y.version and x.overlaps(y)
    }
    yield from sorted(found, key=lambda net: (net.version, net))


def _settings(a: Settings, b: Settings) -> Settings:
    """What spares a packet policy is what spares it in both; interfaces of workloads are those of either."""
    if a == b:
        return b
    return replace(
        b,
        failsafe_inbound=tuple(entry for entry in b.failsafe_inbound if entry in a.failsafe_inbound),
        failsafe_outbound=tuple(entry for entry in b.failsafe_outbound if entry in a.failsafe_outbound),
        invalid_check=a.invalid_check or b.invalid_check,
        exempt_loopback=a.exempt_loopback and b.exempt_loopback,
        workload_prefixes=tuple(dict.fromkeys((*b.workload_prefixes, *a.workload_prefixes))),
    )
