"""One packet on its way through the chains of endpoints: E-20 to E-28, failsafes E-40 to E-44."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from labelgate.flow import Action, Packet, Stage, Step
from labelgate.reference.cluster import Cluster
from labelgate.reference.labels import Endpoint, Host, Workload
from labelgate.reference.matching import readable_ports, rule_matches
from labelgate.reference.policies import Direction, Kind, Policy, Tier
from labelgate.reference.reasons import Reason
from labelgate.reference.rules import Rule
from labelgate.settings import Failsafe, Settings

_IPIP, _UDP = 4, 17
_OF_RULE: dict[Action, Reason] = {
    "Allow": Reason.RULE_ALLOW,
    "Deny": Reason.RULE_DENY,
    "Pass": Reason.RULE_PASS,
    "Log": Reason.RULE_LOG,
}


class End(Enum):
    """How the chain of an endpoint ends."""

    ESTABLISHED = auto()
    """Accepted by conntrack state: final for the hook (E-20.2)."""
    FAILSAFE = auto()
    """Accepted by a failsafe port: final for the table (E-20.3)."""
    ACCEPT = auto()
    DENY = auto()
    UNMARKED = auto()
    """Left without a mark (E-20.9)."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of an endpoint, and the name that its steps have in a trace."""

    endpoint: Endpoint
    kind: Kind
    direction: Direction
    stage: Stage


@dataclass(slots=True)
class Passage:
    """A packet at one hook: its accept mark as it stands, and the steps so far."""

    cluster: Cluster
    settings: Settings
    packet: Packet
    accepted: bool
    """The accept mark (E-48)."""
    failsafe: bool = False
    steps: list[Step] = field(default_factory=list)

    def step(
        self,
        stage: Stage,
        endpoint: Endpoint | None,
        reason: Reason,
        *,
        tier: str | None = None,
        policy: str | None = None,
        rule: int | None = None,
        action: Action | None = None,
    ) -> None:
        """Adds a step; the action is the reason's where none is given."""
        name = None if endpoint is None else endpoint.name
        self.steps.append(Step(stage, name, tier, policy, rule, action or reason.action, reason.text))

    @property
    def is_established(self) -> bool:
        """RELATED counts as ESTABLISHED (E-20.2)."""
        return self.packet.ct in ("established", "related")

    def run(self, chain: Chain) -> End:
        """The algorithm of E-20; workloads are never administratively down here (E-20.1)."""
        if chain.kind != "untracked":  # E-20.2
            if self.is_established:
                self.step("conntrack", chain.endpoint, Reason.ESTABLISHED)
                return End.ESTABLISHED
            if self.packet.ct == "invalid" and self.settings.invalid_check:
                reason = Reason.MANGLE_INVALID if chain.kind == "prednat" else Reason.INVALID  # E-34
                self.step("conntrack", chain.endpoint, reason)
                return End.DENY
        if self._is_failsafe(chain):  # E-20.3
            return End.FAILSAFE
        self.accepted = False  # E-20.4
        if self._is_encapsulated(chain):  # E-20.5
            self.step(chain.stage, chain.endpoint, Reason.ENCAPSULATION)
            return End.DENY
        end = self._tiers(chain)
        self.accepted = end is End.ACCEPT
        return end

    def _is_failsafe(self, chain: Chain) -> bool:
        """E-42, E-43: only of host endpoints, never in forward chains."""
        ports = readable_ports(self.packet)
        if not isinstance(chain.endpoint, Host) or chain.kind == "forward" or ports is None:
            return False
        source_port, destination_port = ports
        own, other = self.settings.failsafe_inbound, self.settings.failsafe_outbound
        if chain.direction == "egress":
            own, other = other, own
        if self._is_listed(own, chain.direction, destination_port):
            self.step("failsafe", chain.endpoint, Reason.FAILSAFE)
        elif chain.kind == "untracked" and self._is_listed(other, chain.direction, source_port):  # E-43
            self.step("failsafe", chain.endpoint, Reason.FAILSAFE_RETURN)
        else:
            return False
        self.failsafe = True
        return True

    def _is_listed(self, failsafes: Sequence[Failsafe], direction: Direction, port: int) -> bool:
        """E-41; the remote side is the source of ingress, the destination of egress."""
        remote = self.packet.src if direction == "ingress" else self.packet.dst
        return any(
            entry.protocol == self.packet.protocol
            and entry.port == port
            and (entry.net is None or remote in entry.net)
            for entry in failsafes
        )

    def _is_encapsulated(self, chain: Chain) -> bool:
        """E-20.5: VXLAN or IP in IP that a workload sends."""
        if not isinstance(chain.endpoint, Workload) or chain.direction != "egress":
            return False
        if self.packet.protocol == _IPIP:
            return self.settings.workload_ipip_denied
        ports = readable_ports(self.packet)
        if self.packet.protocol != _UDP or ports is None:
            return False
        return self.settings.workload_vxlan_port == ports[1]

    def _tiers(self, chain: Chain) -> End:
        """E-20.6 to E-20.9."""
        tiers = self.cluster.tiers_of(chain.endpoint, chain.kind, chain.direction)
        for tier, policies in tiers:
            end = self._tier(chain, tier, policies)
            if end is not None:
                return end
        if chain.kind == "normal":
            return self._profiles(chain)
        if chain.kind == "forward":
            return self._forward_end(chain, has_tiers=bool(tiers))
        self.step(chain.stage, chain.endpoint, Reason.NO_RULE_MATCHED)  # E-22
        return End.UNMARKED

    def _tier(self, chain: Chain, tier: Tier, policies: Sequence[Policy]) -> End | None:
        """One tier; None: evaluation goes on behind it (M-52, E-21 to E-23)."""
        for policy in policies:
            if not policy.in_force:
                continue  # E-15
            rules = policy.rules[chain.direction]
            match self._rules(chain, rules, tier=tier.name, policy=policy.full_name):
                case "Allow":
                    return End.ACCEPT
                case "Deny":
                    return End.DENY
                case "Pass":
                    return None
        return self._end_of_tier(chain, tier, policies)

    def _end_of_tier(self, chain: Chain, tier: Tier, policies: Sequence[Policy]) -> End | None:
        if chain.kind in ("untracked", "prednat"):  # E-22
            return None
        if not any(policy.in_force for policy in policies):  # E-23
            self.step(chain.stage, chain.endpoint, Reason.END_OF_TIER_STAGED, tier=tier.name)
            return None
        if tier.passes:  # E-21
            self.step(chain.stage, chain.endpoint, Reason.END_OF_TIER_PASS, tier=tier.name)
            return None
        self.step(chain.stage, chain.endpoint, Reason.END_OF_TIER, tier=tier.name)
        return End.DENY

    def _rules(self, chain: Chain, rules: Sequence[Rule], *, tier: str | None, policy: str) -> Action | None:
        """The action of the first terminal rule that matches, if any (M-5, M-53); profiles have no tier."""
        for index, rule in enumerate(rules):
            if not rule_matches(rule, self.packet, self.cluster.members, self.cluster.slices):
                continue
            reason = Reason.PROFILE_RULE if tier is None else _OF_RULE[rule.action]
            self.step(
                chain.stage, chain.endpoint, reason, tier=tier, policy=policy, rule=index, action=rule.action
            )
            if rule.action != "Log":
                return rule.action
        return None

    def _profiles(self, chain: Chain) -> End:
        """Profiles in order, then deny (E-20.8, E-25, M-54, R-29)."""
        for profile in chain.endpoint.profiles:
            policy = f"Profile/{profile}"
            rules = self.cluster.profile_rules.get(profile)
            if rules is None:
                self.step(chain.stage, chain.endpoint, Reason.MISSING_PROFILE, policy=policy)
                return End.DENY
            match self._rules(chain, rules[chain.direction], tier=None, policy=policy):
                case "Allow":
                    return End.ACCEPT
                case "Deny":
                    return End.DENY
        self.step(chain.stage, chain.endpoint, Reason.NO_PROFILE_ALLOWS)
        return End.DENY

    def _forward_end(self, chain: Chain, *, has_tiers: bool) -> End:
        """E-20.7, E-27, E-28."""
        if has_tiers:
            self.step(chain.stage, chain.endpoint, Reason.FORWARD_UNMARKED)
            return End.UNMARKED
        opposite: Direction = "egress" if chain.direction == "ingress" else "ingress"
        if self.cluster.tiers_of(chain.endpoint, "forward", opposite):
            self.step(chain.stage, chain.endpoint, Reason.FORWARD_OTHER_DIRECTION)
            return End.UNMARKED
        self.step(chain.stage, chain.endpoint, Reason.NO_FORWARD_POLICY)
        return End.ACCEPT
