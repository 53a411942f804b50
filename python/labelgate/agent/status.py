"""What the daemon says of itself: the object that `labelgate status -o json` prints."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labelgate import _core
from labelgate.agent.changes import Changes
from labelgate.agent.enforcement import Enforcement
from labelgate.agent.generation import Generation
from labelgate.agent.health import health
from labelgate.agent.interfaces import local_endpoints
from labelgate.agent.panics import panics_refused
from labelgate.agent.rules import RuleCounts
from labelgate.control import network_namespace
from labelgate.engines import summary
from labelgate.resources import LoadError, Problem


def now() -> str:
    """UTC, to the second.

    >>> len(now())
    20
    """
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


STARTED = now()
"""When this process began, or nearly so."""
POLICY_KINDS = (
    "GlobalNetworkPolicy", "NetworkPolicy", "KubernetesNetworkPolicy", "KubernetesClusterNetworkPolicy",
    "StagedGlobalNetworkPolicy", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy",
)  # fmt: skip
MOST_HITS = 50
"""Rules and policies that are told of, those most met."""
ENDPOINT_KINDS = ("HostEndpoint", "WorkloadEndpoint", "Pod")


@dataclass(frozen=True)
class Refusal:
    """A change that did not come into force."""

    message: str
    problems: tuple[Problem, ...] = ()
    since: str = field(default_factory=now)
    files: str = ""
    """The digest of what was read."""

    @classmethod
    def of(cls, error: Exception, files: str = "", before: Refusal | None = None) -> Refusal:
        """Why; with the places in the files where these are wrong. `before` goes on if it says the same."""
        found = cls(str(error), tuple(error.problems) if isinstance(error, LoadError) else (), files=files)
        if before is not None and before.message == found.message:
            return replace(found, since=before.since)
        return found

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        problems = [
            {"file": problem.file, "line": problem.line, "column": problem.column, "message": str(problem)}
            for problem in self.problems
        ]
        return {"since": self.since, "message": self.message, "problems": problems}


def status(
    enforcement: Enforcement,
    refusal: Refusal | None,
    in_force_since: str,
    changes: Changes,
    hits: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything, as plain values, with those `hits`; any thread may ask."""
    current = enforcement.current
    return {
        "labelgate": _core.__version__,
        "pid": os.getpid(),
        "networkNamespace": network_namespace(),
        "since": STARTED,
        "time": time.time(),
        "node": current.config.node,
        "generation": {"number": current.number, "since": in_force_since, **_contents(current)},
        "health": health(enforcement).to_json(),
        "policy": {"applied": current.source.is_applied, "paths": list(current.source.paths)},
        "refused": refusal and refusal.to_json(),
        "rules": {
            "variant": enforcement.variant,
            "otherVariant": enforcement.others.other_variant,
            "markWriters": list(enforcement.others.mark_writers),
        },
        "outOfReach": list(enforcement.out_of_reach.known),
        "changes": changes.to_json(),
        "queues": enforcement.queues(),
        "workers": _workers(enforcement),
        "process": {"cpuSeconds": round(time.process_time(), 3), "residentBytes": _resident_bytes()},
        "events": {"unwritten": enforcement.events.unwritten if enforcement.events else {}},
        "hits": hits,
        "counters": enforcement.counters(),
    }


def most_met(counts: RuleCounts) -> dict[str, Any]:
    """Of rules, and of who denied, those that packets met most."""
    rules, denied = counts.met()
    by_policy = sorted(denied.items(), key=lambda item: -item[1])[:MOST_HITS]
    return {
        "rules": sorted(rules, key=lambda row: -row["packets"])[:MOST_HITS],
        "denied": [{"policy": policy, "packets": count} for policy, count in by_policy],
    }


def counters_line(enforcement: Enforcement) -> str:
    """All counters as JSON; a question that has no answer ends nothing."""
    try:
        with panics_refused():
            return json.dumps(enforcement.counters(), separators=(",", ":"))
    except Exception as error:
        return f"error: counters cannot be told: {type(error).__name__}: {error}"


def in_force(enforcement: Enforcement) -> str:
    """Of the log: what came into force."""
    current = enforcement.current
    hosts, workloads = local_endpoints(current)
    return (
        f"generation {current.number} in force: node {current.config.node}, "
        f"{len(hosts)} host endpoints, {len(workloads)} workloads with interfaces, "
        f"{enforcement.variant} rules\n{summary(current.table.describe())}"
    )


class _Contents:
    """What a generation holds, counted once."""

    def __init__(self) -> None:
        self._latest: tuple[Generation, dict[str, Any]] | None = None

    def __call__(self, generation: Generation) -> dict[str, Any]:
        """As plain values."""
        latest = self._latest
        if latest is None or latest[0] is not generation:
            self._latest = latest = (generation, _count(generation))
        return latest[1]


_contents = _Contents()


def _count(generation: Generation) -> dict[str, Any]:
    local, description = local_endpoints(generation), generation.table.describe()
    resources = list(generation.snapshot.resources())
    policies = [resource for resource in resources if type(resource).__name__.endswith("Policy")]
    kinds = Counter(policy.key.partition("/")[0] for policy in policies)
    endpoints = Counter(resource.key.partition("/")[0] for resource in resources)
    return {
        "policies": kinds.total(),
        "policiesByKind": {kind: kinds[kind] for kind in POLICY_KINDS},
        "policyRules": sum(map(_rules, policies)),
        "hostEndpoints": len(local.hosts),
        "workloads": len(local.workloads),
        "endpointsByKind": {kind: endpoints[kind] for kind in ENDPOINT_KINDS},
        "engines": summary(description),
        "tableBytes": description["bytes"],
        "tableChains": description["chains"],
    }


def _rules(policy: Any) -> int:
    return len(policy.spec.ingress or ()) + len(policy.spec.egress or ())


def _workers(enforcement: Enforcement) -> list[dict[str, Any]]:
    silent = enforcement.pulse.silent()
    return [
        {"thread": thread, "cpuSeconds": _cpu_seconds(thread), "silentSeconds": round(seconds, 3)}
        for thread, seconds in zip(enforcement.threads(), silent, strict=True)
    ]


def _cpu_seconds(thread: int) -> float:
    """In user and kernel mode; proc(5)."""
    try:
        fields = Path(f"/proc/self/task/{thread}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # It has just ended.
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
