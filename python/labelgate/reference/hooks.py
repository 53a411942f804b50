"""What each hook does with a packet: E-30 to E-39, E-48 to E-52; one function per hook, in that order."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from labelgate.flow import Action, Hook, Stage, Verdict
from labelgate.reference.chains import Chain, End, Passage
from labelgate.reference.interfaces import Interfaces
from labelgate.reference.labels import Host, Workload
from labelgate.reference.matching import readable_icmp
from labelgate.reference.policies import Direction
from labelgate.reference.reasons import Reason

_ICMPV6 = 58
_NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 135, 136)
_LINK_LOCAL = IPv6Network("fe80::/10")
_UNSPECIFIED = IPv6Address("::")


def raw_prerouting(passage: Passage, interfaces: Interfaces) -> Verdict:
    """E-30, E-31."""
    passage.accepted = False
    name = passage.packet.in_
    if not interfaces.is_workload(name):
        return _untracked(passage, interfaces, name, "ingress")
    workload = interfaces.workload(name)
    if workload is None:
        passage.step("interface", None, Reason.UNKNOWN_WORKLOAD)
        return "deny"
    if not _may_send(workload, passage):
        passage.step("spoof", workload, Reason.SPOOFED_SOURCE)
        return "deny"
    passage.step("interface", workload, Reason.WORKLOAD_IN_RAW)
    return "continue"


def _may_send(workload: Workload, passage: Passage) -> bool:
    """Whether the source is one of the workload's own (E-30)."""
    source = passage.packet.src
    is_exempt = source in _LINK_LOCAL or source == _UNSPECIFIED
    return is_exempt or any(source in net for net in workload.sources)


def raw_output(passage: Passage, interfaces: Interfaces) -> Verdict:
    """E-32."""
    passage.accepted = False
    return _untracked(passage, interfaces, passage.packet.out, "egress")


def _untracked(passage: Passage, interfaces: Interfaces, name: str | None, direction: Direction) -> Verdict:
    host = interfaces.governing(name, "untracked")
    if host is None:
        return _no_policy(passage, interfaces, name, Reason.NO_UNTRACKED_POLICY)
    match passage.run(Chain(host, "untracked", direction, "untracked")):
        case End.ACCEPT:
            return "allow-notrack"
        case End.DENY:
            return "deny"
    return "continue"  # E-22, E-44


def _no_policy(passage: Passage, interfaces: Interfaces, name: str | None, reason: Reason) -> Verdict:
    """Nothing judges the packet before filter: no host endpoint is here, or it has no such policy."""
    host = interfaces.governing(name, "forward")
    passage.step("interface", host, Reason.NO_ENDPOINT if host is None else reason)
    return "continue"


def mangle_prerouting(passage: Passage, interfaces: Interfaces) -> Verdict:
    """E-33, E-34."""
    if passage.is_established:
        passage.step("conntrack", None, Reason.MANGLE_ESTABLISHED)
        return "continue"
    if passage.accepted:
        passage.step("prednat", None, Reason.ACCEPT_MARK)
        return "continue"
    host = interfaces.governing(passage.packet.in_, "prednat")
    if host is None:
        return _no_policy(passage, interfaces, passage.packet.in_, Reason.NO_PREDNAT_POLICY)
    match passage.run(Chain(host, "prednat", "ingress", "prednat")):
        case End.ACCEPT:
            return "allow-skip-hep"
        case End.DENY:
            return "deny"
    return "continue"  # E-22, E-44


def filter_input(passage: Passage, interfaces: Interfaces) -> Verdict:
    """E-35; an allow here does not set the accept mark, so the packet keeps the one it came with."""
    arrival, name = passage.accepted, passage.packet.in_
    if interfaces.is_workload(name):
        verdict = _workload_to_host(passage, interfaces.workload(name))
    elif passage.accepted:  # E-48
        passage.step("normal", None, Reason.ACCEPT_MARK)
        verdict = "allow"
    else:
        verdict = _normal(passage, interfaces.governing(name, "normal"), "ingress", "allow")
    passage.accepted = arrival
    return verdict


def _workload_to_host(passage: Passage, workload: Workload | None) -> Verdict:
    """E-50."""
    icmp = readable_icmp(passage.packet)
    is_icmpv6 = passage.packet.src.version == 6 and passage.packet.protocol == _ICMPV6
    if is_icmpv6 and icmp is not None and icmp.type in _NEIGHBOUR_DISCOVERY:
        passage.step("workload-to-host", workload, Reason.NEIGHBOUR_DISCOVERY)
        return "allow"
    if workload is None:
        passage.step("interface", None, Reason.UNKNOWN_WORKLOAD)
        return "deny"
    match passage.run(Chain(workload, "normal", "egress", "workload-egress")):
        case End.ESTABLISHED:
            return "allow"
        case End.ACCEPT:
            action, verdict = _ENDPOINT_TO_HOST[passage.settings.endpoint_to_host]
            passage.step("workload-to-host", workload, Reason.ENDPOINT_TO_HOST, action=action)
            return verdict
    return "deny"


_ENDPOINT_TO_HOST: dict[str, tuple[Action | None, Verdict]] = {
    "Drop": ("Deny", "deny"),
    "Accept": ("Allow", "allow"),
    "Return": (None, "continue"),
}


def _normal(passage: Passage, host: Host | None, direction: Direction, allow: Verdict) -> Verdict:
    """The normal chain of a host endpoint, where there is one; `allow` is this hook's word for an accept."""
    if host is None:
        passage.step("interface", None, Reason.NO_ENDPOINT)
        return "continue"
    end = passage.run(Chain(host, "normal", direction, "normal"))
    return "deny" if end is End.DENY else allow


def filter_forward(passage: Passage, interfaces: Interfaces) -> Verdict:
    """E-38, E-39: up to four stages, each may deny; the last one that ran decides the mark (E-39a)."""
    packet, last = passage.packet, None
    for stage in _FORWARD_STAGES:
        name = packet.in_ if stage in ("from-hep", "workload-egress") else packet.out
        if stage == "from-hep" and passage.accepted:
            continue  # E-38.2, E-48
        if stage in ("from-hep", "to-hep"):
            chain = _host_chain(interfaces.governing(name, "forward"), stage)
        elif interfaces.is_workload(name) and interfaces.workload(name) is None:
            passage.step("interface", None, Reason.UNKNOWN_WORKLOAD)  # E-38.3, E-38.4
            return "deny"
        else:
            chain = _workload_chain(interfaces.workload(name), stage)
        if chain is None:
            continue
        last = chain
        match passage.run(chain):
            case End.DENY:
                return "deny"
            case End.ESTABLISHED:
                return "allow"  # E-39b
    return _end_of_forward(passage, last)


_FORWARD_STAGES: tuple[Stage, ...] = ("from-hep", "workload-egress", "workload-ingress", "to-hep")


def _host_chain(host: Host | None, stage: Stage) -> Chain | None:
    direction: Direction = "ingress" if stage == "from-hep" else "egress"
    return None if host is None else Chain(host, "forward", direction, stage)


def _workload_chain(workload: Workload | None, stage: Stage) -> Chain | None:
    direction: Direction = "ingress" if stage == "workload-ingress" else "egress"
    return None if workload is None else Chain(workload, "normal", direction, stage)


def _end_of_forward(passage: Passage, last: Chain | None) -> Verdict:
    """E-39; without a mark, but with a stage that had an endpoint, `forwardUnmarked` decides (E-27)."""
    if last is None:
        passage.step("interface", None, Reason.ACCEPT_MARK if passage.accepted else Reason.NO_ENDPOINT)
        return "allow" if passage.accepted else "continue"
    if passage.accepted:
        return "allow"
    match passage.settings.forward_unmarked:
        case "accept":
            passage.step(last.stage, last.endpoint, Reason.FORWARD_END, action="Allow")
            return "allow"
        case "deny":
            passage.step(last.stage, last.endpoint, Reason.FORWARD_END, action="Deny")
            return "deny"
        case "return":
            return "continue"


def filter_output(passage: Passage, interfaces: Interfaces) -> Verdict:
    """E-36; an allow here does not set the accept mark."""
    name = passage.packet.out
    if passage.accepted:
        passage.step("normal", None, Reason.ACCEPT_MARK)
        return "allow"
    if interfaces.is_workload(name):
        passage.step("interface", interfaces.workload(name), Reason.HOST_TO_WORKLOAD)
        return "continue"
    if passage.packet.dnatted:
        passage.step("normal", None, Reason.DNAT_LATER)
        return "continue"
    verdict = _normal(passage, interfaces.governing(name, "normal"), "egress", "allow")
    passage.accepted = False
    return verdict


def mangle_postrouting(passage: Passage, interfaces: Interfaces) -> Verdict:
    """E-37: locally made flows that nat OUTPUT has DNATed."""
    arrival, name = passage.accepted, passage.packet.out
    if passage.packet.in_ is not None:
        passage.step("normal", None, Reason.FORWARDED)
        return "continue"
    if not passage.packet.dnatted:
        passage.step("normal", None, Reason.NOT_DNATTED)
        return "continue"
    if interfaces.is_workload(name):
        passage.step("interface", interfaces.workload(name), Reason.HOST_TO_WORKLOAD)
        return "continue"
    verdict = _normal(passage, interfaces.governing(name, "normal"), "egress", "continue")
    passage.accepted = arrival
    return verdict


HOOKS: dict[Hook, Callable[[Passage, Interfaces], Verdict]] = {
    "raw-prerouting": raw_prerouting,
    "raw-output": raw_output,
    "mangle-prerouting": mangle_prerouting,
    "filter-input": filter_input,
    "filter-forward": filter_forward,
    "filter-output": filter_output,
    "mangle-postrouting": mangle_postrouting,
}
