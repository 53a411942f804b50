"""Where rules of policies stand in their files."""

from __future__ import annotations

from dataclasses import dataclass

from labelgate.conversion import written_rules
from labelgate.model import core_parts
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from labelgate.sources.places import Places


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule of a policy in force."""

    policy: str
    direction: str
    number: int
    """From 0, as traces count: a Kubernetes entry may be several rules."""
    action: str
    place: str
    """`file:line` of the rule, or of its policy where that cannot be said."""

    def __str__(self) -> str:
        """Policy, direction and number."""
        return f"{self.policy} {self.direction} rule {self.number}"


def placed_rules(snapshot: Snapshot, settings: Settings) -> list[PlacedRule]:
    """Every rule of every policy in force, by policy, direction and number; profiles have none here."""
    places = Places()
    found = []
    by_key = {resource.key: resource for resource in snapshot.resources()}
    for key, parts in sorted(core_parts(snapshot, settings).items()):
        policy = parts.get("policy")
        if policy is None or policy.get("staged"):
            continue
        resource = by_key[key]
        for direction in ("ingress", "egress"):
            if not policy[f"applies_{direction}"]:
                continue
            written = written_rules(resource, direction)
            for number, rule in enumerate(policy[direction]):
                line = places.place(resource.location, written[number][:3]).line
                place = f"{resource.location.file}:{line}"
                found.append(PlacedRule(key, direction, number, rule["action"], place))
    return found
