"""Who selects whom in a snapshot: members by their labels, policies by their subjects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labelgate.analysis.lint.coverage import contents_of
from labelgate.analysis.program import ProgramContents
from labelgate.model import core_model
from labelgate.reference import labels as members_of
from labelgate.reference import policies as policies_of
from labelgate.reference.labels import NAMESPACE, Endpoint, Host, Member
from labelgate.reference.policies import Direction, Policy
from labelgate.reference.selectors import And, Compare, Expression, matches
from labelgate.resources.metadata import Resource
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot


@dataclass(frozen=True)
class Selection:
    """A snapshot with labels inherited and subjects parsed, and answers about them."""

    snapshot: Snapshot
    settings_of: Callable[[str | None], Settings]
    """Of a node; None: of no node in particular."""

    @cached_property
    def settings(self) -> Settings:
        """What does not differ by node."""
        return self.settings_of(None)

    def settings_at(self, host: str) -> Settings:
        """Those of the node of a host endpoint, by its key."""
        node = self.resources[host].spec.node  # type: ignore[attr-defined]
        if node not in self._settings:
            self._settings[node] = self.settings_of(node)
        return self._settings[node]

    @cached_property
    def _settings(self) -> dict[str, Settings]:
        return {}

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Workloads, host endpoints and network sets, with their effective labels."""
        return tuple(members_of.members(self.snapshot, self.settings.workload_prefixes[0]))

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Workloads and host endpoints."""
        return tuple(member for member in self.members if isinstance(member, Endpoint))

    @cached_property
    def hosts(self) -> tuple[Host, ...]:
        """Host endpoints."""
        return tuple(member for member in self.members if isinstance(member, Host))

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """All of them, staged ones that are not to be deleted, too."""
        return tuple(policies_of.policies(self.snapshot, staged=False))

    @cached_property
    def policies_by_key(self) -> dict[str, Policy]:
        """The same, by key."""
        return {policy.full_name: policy for policy in self.policies}

    @cached_property
    def orders(self) -> dict[str, float]:
        """The order of each policy, by key (E-5)."""
        return {policy.full_name: policy.order for policy in self.policies}

    @cached_property
    def resources(self) -> dict[str, Resource]:
        """By key."""
        return {resource.key: resource for resource in self.snapshot.resources()}

    @cached_property
    def contents(self) -> ProgramContents:
        """The chains of all endpoints."""
        return contents_of(self.model)

    @cached_property
    def model(self) -> Mapping[str, Any]:
        """What the core is told: policies, profiles and endpoints by list."""
        model: dict[str, Any] = json.loads(core_model(self.snapshot, self.settings))
        return model

    def resource(self, policy: Policy) -> Resource:
        """What a policy was made of."""
        return self.resources[policy.full_name]

    def selected(self, policy: Policy) -> tuple[Endpoint, ...]:
        """The endpoints that a policy selects (E-1), whether or not it does anything to them."""
        if policy.full_name not in self._selected:
            self._selected[policy.full_name] = tuple(
                endpoint
                for group in self._groups.candidates(policy.subject)
                if matches(policy.subject, group[0].labels)
                for endpoint in group
            )
        return self._selected[policy.full_name]

    @cached_property
    def governed(self) -> frozenset[tuple[str, Direction]]:
        """Host endpoints, by name, and directions that a normal policy in force has."""
        return frozenset(
            (host, direction)
            for policy in self.policies
            if policy.in_force and "normal" in policy.lists
            for host in self._hosts_of(policy)
            for direction in policy.rules
        )

    @cached_property
    def judged_apart(self) -> frozenset[str]:
        """Host endpoints, by name, that have untracked or preDNAT policy."""
        found = (one for one in self.policies if one.in_force and "normal" not in one.lists)
        return frozenset(host for policy in found for host in self._hosts_of(policy))

    def spared(self, host: str) -> str:
        """What passes a host endpoint that denies everything else (E-42, E-48)."""
        apart = ", what its untracked and preDNAT policy allows," if host in self.judged_apart else ""
        return f"failsafe ports{apart} and what is established"

    def _hosts_of(self, policy: Policy) -> Iterator[str]:
        return (one.name for one in self.selected(policy) if isinstance(one, Host))

    @cached_property
    def profile_rules(self) -> dict[str, policies_of.DirectedRules]:
        """Of every profile that exists."""
        return policies_of.profile_rules(self.snapshot)

    @cached_property
    def passing_tiers(self) -> frozenset[str]:
        """The tiers whose end denies nothing (E-21)."""
        return frozenset(tier["name"] for tier in self.model["tiers"] if tier["pass"])

    @cached_property
    def _selected(self) -> dict[str, tuple[Endpoint, ...]]:
        return {}

    @cached_property
    def _groups(self) -> _Groups:
        return _Groups.of(self.endpoints)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Endpoints of the same labels are asked about once; those of a namespace are found at once."""

    whole: tuple[tuple[Endpoint, ...], ...]
    by_namespace: dict[str | None, list[tuple[Endpoint, ...]]]

    @classmethod
    def of(cls, endpoints: Iterable[Endpoint]) -> _Groups:
        groups: dict[frozenset[tuple[str, str]], list[Endpoint]] = {}
        for endpoint in endpoints:
            groups.setdefault(frozenset(endpoint.labels.items()), []).append(endpoint)
        whole = tuple(map(tuple, groups.values()))
        by_namespace: dict[str | None, list[tuple[Endpoint, ...]]] = {}
        for group in whole:
            by_namespace.setdefault(group[0].labels.get(NAMESPACE), []).append(group)
        return cls(whole, by_namespace)

    def candidates(self, subject: Expression) -> Iterable[tuple[Endpoint, ...]]:
        """All groups, or those of the namespace that the expression demands."""
        namespaces = list(_demanded_namespaces(subject))
        return self.by_namespace.get(namespaces[0], ()) if namespaces else self.whole


def _demanded_namespaces(subject: Expression) -> Iterator[str]:
    match subject:
        case And(operands):
            for operand in operands:
                yield from _demanded_namespaces(operand)
        case Compare(key, "==", values) if key == NAMESPACE:
            yield from values


def some(names: Iterable[str], shown: int = 2) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = len(listed) - shown
    return ", ".join(listed[:shown]) + (f" and {more} more" if more > 0 else "")
