"""Remarks on untracked policy that lets no path MTU discovery work (E-61)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from labelgate.analysis.addresses import IPV4, IPV6
from labelgate.analysis.lint.coverage import SPLIT
from labelgate.analysis.lint.finding import Remark
from labelgate.analysis.lint.messages import Message, cut
from labelgate.analysis.lint.parts import Budget
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.program import Chain, Endpoint, ProgramContents, Rule
from labelgate.flow import ICMP, ICMPV6

_MESSAGES = {
    IPV4: Message(
        "ICMP `fragmentation needed` (type 3, code 4)",
        Rule("Allow", ICMP, icmp=(3, 4), families=(True, False)),
    ),
    IPV6: Message(
        "ICMPv6 `packet too big` (type 2)", Rule("Allow", ICMPV6, icmp=(2, None), families=(False, True))
    ),
}
"""RFC 1191, RFC 8201: how a sender learns that its packets are too large for the way."""


def remarks(selection: Selection) -> Iterator[Remark]:
    """LG407, of each policy and IP version once, with the first host endpoint; LG109 over budget."""
    contents, budget = selection.contents, Budget()
    known: dict[tuple[Chain, int], list[Message] | None] = {}
    told: set[tuple[str, int]] = set()
    for endpoint in contents.endpoints:
        if endpoint.untracked is None:
            continue
        ingress, egress = (contents.chains[number] for number in endpoint.untracked)
        for family in _families(endpoint):
            policy = _sending(contents, egress, family)
            if policy is None or (policy, family) in told:
                continue
            if (ingress, family) not in known:
                known[ingress, family] = cut(contents, (ingress,), (_MESSAGES[family],), family, budget)
            for remark in _remark(selection, endpoint, policy, known[ingress, family]):
                told.add((policy, family))
                yield remark


def _remark(
    selection: Selection, endpoint: Endpoint, policy: str, lost: list[Message] | None
) -> Iterator[Remark]:
    resource, path = selection.resources[policy], ("spec", "doNotTrack")
    if lost is None:
        text = "whether it lets path MTU discovery work (LG407) was not judged: too many packet classes"
        yield Remark("LG109", resource, path, text, SPLIT)
    for message in lost or ():
        text = (
            f"at {endpoint.name} packets leave untracked, but untracked ingress policy allows no"
            f" {message.word}: conntrack knows no connection that it is about, so it is denied, and packets"
            " too large for the way are lost without a word (E-61)"
        )
        yield Remark("LG407", resource, path, text, f"allow {message.word} in ingress of untracked policy")


def _sending(contents: ProgramContents, egress: Chain, family: int) -> str | None:
    """The first policy that allows other packets of a family to leave than ICMP."""
    for tier in egress.tiers:
        for number in tier.lists:
            found = contents.lists[number]
            if any(_sends(rule, family) for rule in found.rules):
                return found.policy
    return None


def _sends(rule: Rule, family: int) -> bool:
    return rule.action == "Allow" and rule.protocol not in (ICMP, ICMPV6) and rule.exists_for(family)


def _families(endpoint: Endpoint) -> Iterator[int]:
    """Those of its own addresses; both where it names none."""
    own = {ip_network(one).version for one in endpoint.addresses}
    yield from (family for family in _MESSAGES if not own or family in own)
