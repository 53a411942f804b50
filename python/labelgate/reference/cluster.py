"""What a snapshot says once labels are inherited and policies ordered; nothing in it depends on a packet."""

from __future__ import annotations

from dataclasses import dataclass, field

from labelgate.reference import labels, policies, services
from labelgate.reference.labels import Endpoint, Host, Member
from labelgate.reference.policies import DirectedRules, Direction, Kind, Policy, Tier
from labelgate.reference.selectors import matches
from labelgate.reference.services import Slice
from labelgate.snapshot import Snapshot

ApplicableTier = tuple[Tier, tuple[Policy, ...]]
"""A tier, and those of its policies that apply to an endpoint, in order."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Members, tiers, profile rules and backends of services of a snapshot."""

    members: tuple[Member, ...]
    tiers: tuple[Tier, ...]
    profile_rules: dict[str, DirectedRules]
    slices: tuple[Slice, ...] = ()
    _applicable: dict[tuple[str, Kind, Direction], tuple[ApplicableTier, ...]] = field(default_factory=dict)
    """What `tiers_of` has answered before."""

    @classmethod
    def of(cls, snapshot: Snapshot, workload_prefix: str, *, staged: bool = False) -> Cluster:
        """The cluster that a snapshot describes; pods' interfaces begin with the prefix (R-31).

        With `staged` the staged policies are in force, beside all others.
        """
        return cls(
            members=tuple(labels.members(snapshot, workload_prefix)),
            tiers=policies.tiers(snapshot, staged=staged),
            profile_rules=policies.profile_rules(snapshot),
            slices=services.slices(snapshot),
        )

    def tiers_of(self, endpoint: Endpoint, kind: Kind, direction: Direction) -> tuple[ApplicableTier, ...]:
        """The tiers that have a policy here, in order; other tiers are invisible (E-10, E-26)."""
        question = (endpoint.name, kind, direction)
        if question not in self._applicable:
            self._applicable[question] = tuple(self._tiers_of(endpoint, kind, direction))
        return self._applicable[question]

    def _tiers_of(self, endpoint: Endpoint, kind: Kind, direction: Direction) -> list[ApplicableTier]:
        found = []
        for tier in self.tiers:
            applicable = tuple(
                policy for policy in tier.policies if _applies(policy, endpoint, kind, direction)
            )
            if applicable:
                found.append((tier, applicable))
        return found


def _applies(policy: Policy, endpoint: Endpoint, kind: Kind, direction: Direction) -> bool:
    """E-1, E-10, E-11, E-14."""
    if kind != "normal" and not isinstance(endpoint, Host):
        return False  # E-11
    if kind == "prednat" and direction == "egress":
        return False  # E-10
    return kind in policy.lists and direction in policy.rules and matches(policy.subject, endpoint.labels)
